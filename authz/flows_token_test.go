package authz_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/people"
)

// parallel runs the same token request many times at once.
func (f *flows) parallel(n int, form url.Values) []answer {
	f.t.Helper()
	answers, errs := make([]answer, n), make([]error, n)
	var ready, done sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		ready.Add(1)
		done.Add(1)
		go func() {
			defer done.Done()
			ready.Done()
			<-start
			answers[i], errs[i] = f.tryToken(form)
		}()
	}
	ready.Wait()
	close(start)
	done.Wait()
	for _, err := range errs {
		must(f.t, err)
	}
	return answers
}

// winner checks that exactly one of the answers is a success and all others
// are invalid_grant, and returns it.
func (f *flows) winner(answers []answer) answer {
	f.t.Helper()
	var won []answer
	for _, a := range answers {
		if a.status == http.StatusOK {
			won = append(won, a)
		} else {
			f.wantError(a, http.StatusBadRequest, "invalid_grant")
		}
	}
	if len(won) != 1 {
		f.t.Fatalf("%d of %d succeeded", len(won), len(answers))
	}
	return won[0]
}

func TestCodeIsRedeemedOnceByManyAtOnce(t *testing.T) {
	f := newFlows(t)
	b, client := f.signedIn("alice"), f.public()
	for range 3 {
		p := newProof()
		a := f.winner(f.parallel(50, f.redeem(client, f.code(b, client, p, nil), p, nil)))
		if !f.alive(a.str("access_token")) {
			t.Error("the winner's token is dead")
		}
		if next := f.token(refreshForm(client, a.str("refresh_token"), nil)); next.status != http.StatusOK {
			t.Errorf("the winner's refresh token: %v", next)
		}
	}
}

func TestRefreshTokenIsRotatedOnceByManyAtOnce(t *testing.T) {
	f := newFlows(t)
	client, a := f.tokens(nil)
	won := f.winner(f.parallel(50, refreshForm(client, a.str("refresh_token"), nil)))
	if !f.alive(a.str("access_token")) || !f.alive(won.str("access_token")) {
		t.Error("the family is dead")
	}
	if next := f.token(refreshForm(client, won.str("refresh_token"), nil)); next.status != http.StatusOK {
		t.Errorf("the winner's refresh token: %v", next)
	}
}

// A used code: a lost race harms nobody, a later use by its own client ends the
// grant, a stranger has no effect.
func TestUsedCode(t *testing.T) {
	f := newFlows(t)
	f.client(authz.NewClient{ID: "stranger", Method: authz.MethodNone, RedirectURIs: []string{callback}})
	for _, c := range []struct {
		name   string
		after  time.Duration
		change url.Values
		dies   bool
	}{
		{"at once", 0, nil, false},
		{"just within two seconds", 1999 * time.Millisecond, nil, false},
		{"two seconds later", 2 * time.Second, nil, true},
		{"three seconds later", 3 * time.Second, nil, true},
		{"after the code expired", 10 * time.Minute, nil, true},
		{"with a wrong verifier", 3 * time.Second, url.Values{"code_verifier": {newProof().verifier}}, false},
		{"without a verifier", 3 * time.Second, url.Values{"code_verifier": nil}, false},
		{"with a wrong redirect", 3 * time.Second, url.Values{"redirect_uri": {"https://client.example/other"}}, false},
		{"by a stranger", 3 * time.Second, url.Values{"client_id": {"stranger"}}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := f.recorded("code_reuse")
			client, p := f.public(), newProof()
			code := f.code(f.signedIn("alice"), client, p, nil)
			first := f.token(f.redeem(client, code, p, nil))
			if first.status != http.StatusOK {
				t.Fatal(first)
			}
			f.clock.advance(c.after)
			f.wantError(f.token(f.redeem(client, code, p, c.change)), http.StatusBadRequest, "invalid_grant")
			if c.after < 10*time.Minute && f.alive(first.str("access_token")) == c.dies {
				t.Errorf("access token alive: %v", !c.dies)
			}
			next := f.token(refreshForm(client, first.str("refresh_token"), nil))
			if (next.status == http.StatusOK) == c.dies {
				t.Errorf("refresh afterwards: %v", next)
			}
			if got := f.recorded("code_reuse") - before; (got > 0) != c.dies {
				t.Errorf("%d records of code_reuse", got)
			}
		})
	}
}

// A failed attempt does not consume the code: it works afterwards.
func TestFailedRedemptionHarmsNothing(t *testing.T) {
	f := newFlows(t)
	b, client := f.signedIn("alice"), f.public()
	other, secret := f.client(authz.NewClient{Method: authz.MethodPost, RedirectURIs: []string{callback}})
	p := newProof()
	code := f.code(b, client, p, nil)
	for _, c := range []struct {
		name   string
		change url.Values
		error  string
	}{
		{"no verifier", url.Values{"code_verifier": nil}, "invalid_grant"},
		{"empty verifier", url.Values{"code_verifier": {""}}, "invalid_grant"},
		{"the challenge as verifier", url.Values{"code_verifier": {p.challenge}}, "invalid_grant"},
		{"a wrong verifier", url.Values{"code_verifier": {newProof().verifier}}, "invalid_grant"},
		{"a short verifier", url.Values{"code_verifier": {p.verifier[:42]}}, "invalid_grant"},
		{"a long verifier", url.Values{"code_verifier": {strings.Repeat("a", 129)}}, "invalid_grant"},
		{"a verifier and more", url.Values{"code_verifier": {p.verifier + "="}}, "invalid_grant"},
		{"another redirect", url.Values{"redirect_uri": {"https://client.example/cb/"}}, "invalid_grant"},
		{"no redirect", url.Values{"redirect_uri": nil}, "invalid_grant"},
		{"another client", url.Values{"client_id": {other}, "client_secret": {secret}}, "invalid_grant"},
		{"a resource not granted", url.Values{"resource": {f.issuer + "/api"}}, "invalid_target"},
		{"an unknown resource", url.Values{"resource": {"https://nowhere.example"}}, "invalid_target"},
		{"a scope not granted", url.Values{"scope": {"agents:manage"}}, "invalid_scope"},
		{"the code cut", url.Values{"code": {code[:len(code)-1]}}, "invalid_grant"},
		{"the code and more", url.Values{"code": {code + "A"}}, "invalid_grant"},
		{"half a code", url.Values{"code": {code[strings.IndexByte(code, '.')+1:]}}, "invalid_grant"},
		{"no code", url.Values{"code": nil}, "invalid_request"},
		{"two codes", url.Values{"code": {code, code}}, "invalid_request"},
	} {
		a := f.token(f.redeem(client, code, p, c.change))
		if a.status != http.StatusBadRequest || a.str("error") != c.error {
			t.Errorf("%s: %d %v, want %s", c.name, a.status, a.body, c.error)
		}
	}
	if a := f.token(f.redeem(client, code, p, nil)); a.status != http.StatusOK {
		t.Errorf("the good request afterwards: %d %v", a.status, a.body)
	}
}

func TestExpiredCode(t *testing.T) {
	f := newFlows(t)
	client, p := f.public(), newProof()
	code := f.code(f.signedIn("alice"), client, p, nil)
	f.clock.advance(60 * time.Second)
	f.wantError(f.token(f.redeem(client, code, p, nil)), http.StatusBadRequest, "invalid_grant")
}

func TestRefreshReuse(t *testing.T) {
	f := newFlows(t)
	stranger := f.public()
	for _, c := range []struct {
		name  string
		after time.Duration
		by    string
		dies  bool
	}{
		{"within the window", 29 * time.Second, "", false},
		{"after the window", 30 * time.Second, "", true},
		{"by another client", 0, stranger, true},
	} {
		client, a := f.tokens(nil)
		second := f.token(refreshForm(client, a.str("refresh_token"), nil))
		if second.status != http.StatusOK {
			t.Fatal(second)
		}
		f.clock.advance(c.after)
		before := f.recorded("refresh_reuse")
		by := client
		if c.by != "" {
			by = c.by
		}
		f.wantError(f.token(refreshForm(by, a.str("refresh_token"), nil)), http.StatusBadRequest, "invalid_grant")
		if f.alive(second.str("access_token")) == c.dies || f.alive(a.str("access_token")) == c.dies {
			t.Errorf("%s: access tokens alive: %v", c.name, !c.dies)
		}
		if (f.recorded("refresh_reuse") > before) != c.dies {
			t.Errorf("%s: recorded: %v", c.name, !c.dies)
		}
		if third := f.token(refreshForm(client, second.str("refresh_token"), nil)); (third.status == http.StatusOK) == c.dies {
			t.Errorf("%s: the newest refresh token: %v", c.name, third)
		}
	}
}

// A replay window of less than nothing is none: the first use again ends the
// family.
func TestRefreshReplayCanBeTurnedOff(t *testing.T) {
	f := newFlows(t, func(c *authz.Config) { c.RefreshReplay = -1 })
	client, a := f.tokens(nil)
	second := f.token(refreshForm(client, a.str("refresh_token"), nil))
	f.wantError(f.token(refreshForm(client, a.str("refresh_token"), nil)), http.StatusBadRequest, "invalid_grant")
	if f.alive(second.str("access_token")) || f.recorded("refresh_reuse") != 1 {
		t.Error("the family lives")
	}
}

func TestRefreshLimits(t *testing.T) {
	f := newFlows(t)
	const day = 24 * time.Hour
	client, idle := f.tokens(nil)
	f.clock.advance(30 * day)
	f.wantError(f.token(refreshForm(client, idle.str("refresh_token"), nil)), http.StatusBadRequest, "invalid_grant")

	client, a := f.tokens(nil)
	for range 3 {
		f.clock.advance(29 * day)
		if a = f.token(refreshForm(client, a.str("refresh_token"), nil)); a.status != http.StatusOK {
			t.Fatalf("refresh: %d %v", a.status, a.body)
		}
	}
	f.clock.advance(3*day - time.Minute)
	a = f.token(refreshForm(client, a.str("refresh_token"), nil))
	if a.status != http.StatusOK || a.body["expires_in"] != 60.0 {
		t.Errorf("a minute before the absolute end: %d %v", a.status, a.body)
	}
	f.clock.advance(time.Minute)
	f.wantError(f.token(refreshForm(client, a.str("refresh_token"), nil)), http.StatusBadRequest, "invalid_grant")
}

func TestNarrowingIsForOneToken(t *testing.T) {
	f := newFlows(t)
	client, a := f.tokens(nil, "repo:read")
	for _, c := range []struct {
		scope, resource string
		wantScope       string
		wantAudience    []string
	}{
		{"kavach:verify", "", "kavach:verify", []string{f.issuer + "/mcp"}},
		{"", git, "repo:read", []string{git}},
		{"repo:read kavach:verify", git, "repo:read", []string{git}},
		{"repo:read offline_access", "", "repo:read", []string{git}},
		{"kavach:audit kavach:verify", f.issuer, "kavach:audit kavach:verify", []string{f.issuer + "/mcp"}},
		{"kavach:delegate kavach:verify", f.issuer, "kavach:delegate kavach:verify", []string{f.issuer + "/mcp"}},
		{"", f.issuer, "kavach:audit kavach:delegate kavach:verify repo:read", []string{f.issuer + "/mcp", git}},
		{"", "", "kavach:audit kavach:delegate kavach:verify repo:read", []string{f.issuer + "/mcp", git}},
	} {
		change := url.Values{}
		if c.scope != "" {
			change.Set("scope", c.scope)
		}
		if c.resource != "" {
			change.Set("resource", c.resource)
		}
		a = f.token(refreshForm(client, a.str("refresh_token"), change))
		if a.status != http.StatusOK || a.str("scope") != c.wantScope ||
			!slices.Equal(f.chain(a.str("access_token")).Audience(), c.wantAudience) {
			t.Fatalf("%v: %d %v", change, a.status, a.body)
		}
	}
	for change, want := range map[string]string{
		"scope=repo%3Awrite": "invalid_scope", "scope=agents%3Amanage": "invalid_scope",
		"scope=unheard-of": "invalid_scope", "resource=" + url.QueryEscape(legacy): "invalid_target",
		"resource=urn%3Ax": "invalid_target",
		"scope=kavach%3Averify&resource=" + url.QueryEscape(git):        "invalid_scope",
		"resource=" + url.QueryEscape(f.issuer+"/api"):                  "invalid_target",
		"scope=kavach%3Averify&scope=repo%3Aread":                       "invalid_request",
		"resource=" + url.QueryEscape(git) + "&resource=https://x.test": "invalid_target",
	} {
		values, err := url.ParseQuery(change)
		must(t, err)
		f.wantError(f.token(refreshForm(client, a.str("refresh_token"), values)), http.StatusBadRequest, want)
	}
	// None of these has used the token up.
	if a = f.token(refreshForm(client, a.str("refresh_token"), nil)); a.status != http.StatusOK {
		t.Errorf("afterwards: %d %v", a.status, a.body)
	}
}

// What a person loses is missing from the next token, and what a person never
// held is in none.
func TestScopesFollowTheRole(t *testing.T) {
	f := newFlows(t)
	f.user("olga", people.Operator)
	wide := url.Values{"scope": {"kavach:verify audit:read kavach:admin"}}

	client, a := f.tokens(wide)
	if a.str("scope") != "kavach:verify" {
		t.Errorf("a member got %q", a.str("scope"))
	}
	f.wantError(f.token(refreshForm(client, a.str("refresh_token"), url.Values{"scope": {"audit:read"}})), http.StatusBadRequest, "invalid_scope")
	if got := f.signedIn("alice").consent(f.request(client, newProof(), url.Values{"scope": {"audit:read"}})); got.Get("error") != "access_denied" {
		t.Errorf("a member who asks for nothing else: %v", got)
	}

	p := newProof()
	code := f.code(f.signedIn("olga"), client, p, wide)
	a = f.token(f.redeem(client, code, p, nil))
	if a.str("scope") != "audit:read kavach:admin kavach:verify" {
		t.Fatalf("an operator got %q", a.str("scope"))
	}
	role := people.Auditor
	f.change("olga", people.UserChange{Role: &role})
	a = f.token(refreshForm(client, a.str("refresh_token"), nil))
	if a.str("scope") != "audit:read kavach:verify" {
		t.Errorf("an auditor got %q", a.str("scope"))
	}
	disabled := true
	f.change("olga", people.UserChange{Disabled: &disabled})
	f.wantError(f.token(refreshForm(client, a.str("refresh_token"), nil)), http.StatusBadRequest, "invalid_grant")
}
