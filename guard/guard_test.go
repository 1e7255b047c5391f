package guard_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
)

const metadata = `resource_metadata="https://git.example/.well-known/oauth-protected-resource/api"`

func TestLetsThrough(t *testing.T) {
	w := newWorld(t)
	h := guard.Require(w.config())(ok)
	for _, scheme := range []string{"Bearer ", "bearer ", "BEARER ", "Bearer   "} {
		got := do(h, request(scheme+w.token()))
		if got.status != 200 || got.body != "hello usr_alice" || got.challenge != "" {
			t.Errorf("%q: %+v", scheme, got)
		}
	}
	d := w.decided()
	if len(d) != 4 || !d[0].Allowed || d[0].Chain.Principal() != "usr_alice" || d[0].Phase != "" || !slices.Equal(d[0].Need.Scope.Names(), []string{"repository:read"}) {
		t.Errorf("reported %+v", d)
	}
}

// TestChallenges is the table of mcp.md §2.
func TestChallenges(t *testing.T) {
	w := newWorld(t)
	good := w.token()
	root, chain := w.chain()
	bound := w.token(func(c *delegation.Claims) { c.JKT = newKey(t).Public().Thumbprint() })
	forged := newWorld(t).token()
	const (
		bare    = `Bearer scope="pullrequest:read repository:read", ` + metadata
		invalid = `Bearer error="invalid_token", scope="pullrequest:read repository:read", ` + metadata
	)
	for _, c := range []struct {
		name          string
		authorization []string
		status        int
		code          string
		challenge     string
		reason        delegation.Reason
	}{
		{"no credentials", nil, 401, "invalid_token", bare, guard.NoCredentials},
		{"another scheme", []string{"Basic eDp5"}, 401, "invalid_token", bare, guard.NoCredentials},
		{"empty header", []string{""}, 401, "invalid_token", bare, guard.NoCredentials},
		{"no token", []string{"Bearer "}, 401, "invalid_token", invalid, delegation.Malformed},
		{"garbage", []string{"Bearer x"}, 401, "invalid_token", invalid, delegation.Malformed},
		{"Bearer twice", []string{"Bearer Bearer " + good}, 401, "invalid_token", invalid, delegation.Malformed},
		{"a list", []string{"Bearer " + good + ", Bearer " + good}, 401, "invalid_token", invalid, delegation.Malformed},
		{"two headers", []string{"Bearer " + good, "Bearer " + good}, 401, "invalid_token", invalid, delegation.Malformed},
		{"two schemes", []string{"Bearer " + good, "Basic eDp5"}, 401, "invalid_token", invalid, delegation.Malformed},
		{"of another server", []string{"Bearer " + forged}, 401, "invalid_token", invalid, delegation.SignatureInvalid},
		{"for another resource", []string{"Bearer " + w.token(func(c *delegation.Claims) { c.Audience = []string{resource + "/"} })}, 401, "invalid_token", invalid, delegation.AudienceMismatch},
		{"for several resources", []string{"Bearer " + w.token(func(c *delegation.Claims) { c.Audience = []string{resource, "https://other.example"} })}, 401, "invalid_token", invalid, delegation.AudienceMismatch},
		{"of another issuer", []string{"Bearer " + w.token(func(c *delegation.Claims) { c.Issuer = issuer + "/" })}, 401, "invalid_token", invalid, delegation.IssuerMismatch},
		{"expired", []string{"Bearer " + w.token(func(c *delegation.Claims) {
			c.IssuedAt, c.Expires = start.Add(-time.Hour), start
		})}, 401, "invalid_token", invalid, delegation.Expired},
		{"bound", []string{"Bearer " + bound}, 401, "invalid_token", invalid, delegation.HolderBindingFailed},
		{"bound, without proof", []string{"DPoP " + bound}, 401, "invalid_dpop_proof", bare, delegation.HolderBindingFailed},
		{"a root", []string{"Bearer " + root}, 401, "invalid_token", invalid, delegation.HolderBindingFailed},
		{"a chain", []string{"Bearer " + chain}, 401, "invalid_token", invalid, delegation.HolderBindingFailed},
		{"a chain, without proof", []string{"DPoP " + chain}, 401, "invalid_dpop_proof", bare, delegation.HolderBindingFailed},
		{"unbound, as DPoP", []string{"DPoP " + good}, 401, "invalid_token", invalid, delegation.HolderBindingFailed},
		{"a chain too long for a header", []string{"Bearer " + chain + strings.Repeat("~"+chain, 4)}, 401, "invalid_token", invalid, delegation.TooLarge},
		{"too little", []string{"Bearer " + w.token(scopes("zebra", "comment:write"))}, 403, "insufficient_scope",
			`Bearer error="insufficient_scope", scope="comment:write repository:read zebra", ` + metadata, delegation.ScopeNotGranted},
		{"nothing held", []string{"Bearer " + w.token(scopes())}, 403, "insufficient_scope",
			`Bearer error="insufficient_scope", scope="repository:read", ` + metadata, delegation.ScopeNotGranted},
		{"a restricted resource", []string{"Bearer " + w.token(limited(delegation.Limits{Resources: []string{"pulls/847"}}))}, 403, "constraint_violated", "", delegation.ConstraintViolated},
		{"restricted tools", []string{"Bearer " + w.token(func(c *delegation.Claims) { c.Tools = tools(t, "get_diff") })}, 403, "constraint_violated", "", delegation.ConstraintViolated},
		{"a restricted network", []string{"Bearer " + w.token(limited(delegation.Limits{AllowNetwork: []string{}}))}, 403, "constraint_violated", "", delegation.ConstraintViolated},
		{"a budget", []string{"Bearer " + w.token(limited(delegation.Limits{MaxCalls: number(3)}))}, 403, "constraint_violated", "", delegation.NeedsCounter},
	} {
		ran := false
		h := guard.Require(w.config())(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { ran = true }))
		got := do(h, request(c.authorization...))
		if got.status != c.status || got.code != c.code || got.challenge != c.challenge || ran {
			t.Errorf("%s: %d %s %q, handler ran: %v", c.name, got.status, got.body, got.challenge, ran)
		}
		if got.header.Get("Cache-Control") != "no-store" || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: headers %v", c.name, got.header)
		}
		if c.reason != guard.NoCredentials && strings.Contains(got.body, string(c.reason)) && c.status == 401 {
			t.Errorf("%s: the answer tells the step: %s", c.name, got.body)
		}
		d := w.decided()
		if len(d) != 1 || d[0].Allowed || d[0].Reason != c.reason || d[0].Status != c.status {
			t.Errorf("%s: reported %+v", c.name, d)
		}
	}
}

func tools(t *testing.T, name string) delegation.Tools {
	t.Helper()
	return delegation.Tools{name: delegation.AllowAnyArgs}
}

func number(n int64) *int64 { return &n }

func flag(b bool) *bool { return &b }

// TestOneTextForAll: what is wrong with a token is for the log.
func TestOneTextForAll(t *testing.T) {
	w := newWorld(t)
	h := guard.Require(w.config())(ok)
	bodies := map[string]bool{}
	for _, token := range []string{"x", newWorld(t).token(), w.token(func(c *delegation.Claims) { c.Audience = []string{"https://x.example"} })} {
		bodies[do(h, request("Bearer "+token)).body] = true
	}
	w.revoked = true
	bodies[do(h, request("Bearer "+w.token())).body] = true
	if len(bodies) != 1 {
		t.Errorf("%d different texts: %v", len(bodies), bodies)
	}
}

func TestTokensElsewhereAreIgnored(t *testing.T) {
	w := newWorld(t)
	h := guard.Require(w.config())(ok)
	token := w.token()
	form := httptest.NewRequest(http.MethodPost, resource, strings.NewReader("access_token="+token))
	form.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	cookie := request()
	cookie.AddCookie(&http.Cookie{Name: "access_token", Value: token})
	for name, r := range map[string]*http.Request{
		"query": httptest.NewRequest(http.MethodGet, resource+"?access_token="+token, nil), "form": form, "cookie": cookie,
	} {
		if got := do(h, r); got.status != 401 || strings.Contains(got.challenge, "error=") {
			t.Errorf("%s: %+v", name, got)
		}
	}
	// And they do no harm beside a real one.
	r := httptest.NewRequest(http.MethodGet, resource+"?access_token=x", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	if got := do(h, r); got.status != 200 {
		t.Errorf("beside a real one: %+v", got)
	}
}

func TestExpiryHasNoLeeway(t *testing.T) {
	w := newWorld(t)
	h := guard.Require(w.config())(ok)
	token := w.token()
	w.advance(5*time.Minute - time.Second)
	if got := do(h, request("Bearer "+token)); got.status != 200 {
		t.Errorf("in the last second: %+v", got)
	}
	w.advance(time.Second)
	if got := do(h, request("Bearer "+token)); got.status != 401 {
		t.Errorf("at exp: %+v", got)
	}
}

func TestRevocation(t *testing.T) {
	w := newWorld(t)
	h := guard.Require(w.config())(ok)
	token := w.token()
	w.revoked = true
	if got := do(h, request("Bearer "+token)); got.status != 401 || got.code != "invalid_token" {
		t.Errorf("revoked: %+v", got)
	}
	if d := w.decided(); len(d) != 1 || d[0].Reason != delegation.Revoked || d[0].Chain == nil {
		t.Errorf("reported %+v", d)
	}
	w.revoked, w.revokeErr = false, errors.New("db 10.0.0.7 is away")
	got := do(h, request("Bearer "+token))
	if got.status != 503 || got.code != "temporarily_unavailable" || got.header.Get("Retry-After") == "" || got.challenge != "" || strings.Contains(got.body, "10.0.0.7") {
		t.Errorf("unknown: %+v", got)
	}
	if d := w.decided(); len(d) != 1 || d[0].Reason != delegation.StatusUnknown {
		t.Errorf("reported %+v", d)
	}
	cfg := w.config()
	cfg.Revocations = nil
	if got := do(guard.Require(cfg)(ok), request("Bearer "+token)); got.status != 200 {
		t.Errorf("without a source: %+v", got)
	}
}

func TestReportFails(t *testing.T) {
	w := newWorld(t)
	h := guard.Require(w.config())(ok)
	w.reportErr = errors.New("log full")
	got := do(h, request("Bearer "+w.token()))
	if got.status != 503 || got.header.Get("Retry-After") == "" || strings.Contains(got.body, "log full") {
		t.Errorf("an allowed request that is not recorded: %+v", got)
	}
	if d := w.decided(); len(d) != 1 {
		t.Errorf("the failed log was asked %d times", len(d))
	}
	if got := do(h, request("Bearer "+w.token(scopes()))); got.status != 403 {
		t.Errorf("a refusal that is not recorded: %+v", got)
	}
}

// verifierFunc fails as a verifier that cannot decide.
type verifierFunc func(string, time.Time) (*delegation.Chain, error)

func (f verifierFunc) Verify(token string, now time.Time) (*delegation.Chain, error) {
	return f(token, now)
}

func TestVerifierFails(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.Verifier = verifierFunc(func(string, time.Time) (*delegation.Chain, error) { return nil, errors.New("key store away") })
	if got := do(guard.Require(cfg)(ok), request("Bearer x")); got.status != 503 || strings.Contains(got.body, "key store") {
		t.Errorf("%+v", got)
	}
}

func TestSharedAudience(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.SharedAudience = true
	h := guard.Require(cfg)(ok)
	several := w.token(func(c *delegation.Claims) { c.Audience = []string{"https://other.example", resource} })
	if got := do(h, request("Bearer "+several)); got.status != 200 {
		t.Errorf("%+v", got)
	}
	if got := do(h, request("Bearer "+w.token(func(c *delegation.Claims) { c.Audience = []string{"https://other.example"} }))); got.status != 401 {
		t.Errorf("%+v", got)
	}
}

func TestNeedOf(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	asked := false
	cfg.NeedOf = func(r *http.Request) (guard.Need, error) {
		asked = true
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return guard.Need{}, err
		}
		switch string(body) {
		case "read":
			return guard.Need{Request: delegation.Request{Scope: delegation.OneOf("repository:read", "repository:admin")}}, nil
		case "write":
			return guard.Need{Request: delegation.Request{Scope: delegation.OneOf("repository:write", "repository:admin")}}, nil
		}
		return guard.Need{}, errors.New("what is " + string(body))
	}
	h := guard.Require(cfg)(ok)
	post := func(body, token string) reply {
		r := httptest.NewRequest(http.MethodPost, resource, strings.NewReader(body))
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		return do(h, r)
	}
	if got := post("read", ""); got.status != 401 || asked {
		t.Errorf("the body of a stranger was read: %+v", got)
	}
	if got := post("read", w.token()); got.status != 200 {
		t.Errorf("read: %+v", got)
	}
	if got := post("write", w.token()); got.status != 403 || !strings.Contains(got.challenge, `scope="comment:write repository:read repository:write"`) {
		t.Errorf("write: %+v", got)
	}
	if got := post("write", w.token(scopes("repository:admin"))); got.status != 200 {
		t.Errorf("a scope that covers it: %+v", got)
	}
	if got := post("SECRET", w.token()); got.status != 400 || got.code != "invalid_request" || strings.Contains(got.body, "SECRET") {
		t.Errorf("nonsense: %+v", got)
	}
	cfg.NeedOf = func(r *http.Request) (guard.Need, error) {
		r.Body = http.MaxBytesReader(nil, r.Body, 3)
		_, err := io.ReadAll(r.Body)
		return guard.Need{}, err
	}
	h = guard.Require(cfg)(ok)
	if got := post("too much", w.token()); got.status != 413 {
		t.Errorf("too large: %+v", got)
	}
}

// TestForgottenScope: a route that states nothing serves nothing.
func TestForgottenScope(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.Need, cfg.Baseline = guard.Need{}, nil
	if got := do(guard.Require(cfg)(ok), request("Bearer "+w.token())); got.status != 403 {
		t.Errorf("no scope stated: %+v", got)
	}
	cfg.Need.Request.Scope = delegation.NoScope()
	if got := do(guard.Require(cfg)(ok), request("Bearer "+w.token(scopes()))); got.status != 200 {
		t.Errorf("no scope needed: %+v", got)
	}
	if got := do(guard.Require(cfg)(ok), request()); got.challenge != "Bearer "+metadata {
		t.Errorf("no scope to name: %+v", got)
	}
}

func TestAuthenticate(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	h := guard.Authenticate(cfg)(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		need := delegation.Request{Scope: delegation.AllOf("repository:write")}
		if err := guard.From(r.Context()).Allows(need); err != nil {
			if r.Header.Get("X-Form") == "own" {
				rw.Header().Set("Content-Type", "application/vnd.own+json")
				guard.Refuse(rw, r, need, err, []byte(`{"own":"form"}`))
				return
			}
			guard.Refuse(rw, r, need, err, nil)
			return
		}
		ok(rw, r)
	}))
	if got := do(h, request("Bearer "+w.token(scopes("repository:write")))); got.status != 200 {
		t.Errorf("%+v", got)
	}
	w.decided()
	const challenge = `Bearer error="insufficient_scope", scope="comment:write repository:read repository:write", ` + metadata
	if got := do(h, request("Bearer "+w.token())); got.status != 403 || got.challenge != challenge || got.code != "insufficient_scope" {
		t.Errorf("%+v", got)
	}
	r := request("Bearer " + w.token())
	r.Header.Set("X-Form", "own")
	if got := do(h, r); got.status != 403 || got.challenge != challenge || got.body != `{"own":"form"}` || got.header.Get("Content-Type") != "application/vnd.own+json" {
		t.Errorf("%+v", got)
	}
	if d := w.decided(); len(d) != 2 || d[0].Reason != delegation.ScopeNotGranted || d[0].Chain == nil || !slices.Equal(d[1].Need.Scope.Names(), []string{"repository:write"}) {
		t.Errorf("reported %+v", d)
	}
	if got := do(h, request("Bearer x")); got.status != 401 {
		t.Errorf("%+v", got)
	}
	rec := httptest.NewRecorder()
	guard.Refuse(rec, request(), delegation.Request{}, errors.New("x"), nil)
	if rec.Code != 403 {
		t.Errorf("without a guard: %d", rec.Code)
	}
	if guard.From(t.Context()) != nil || guard.Credential(t.Context()) != "" {
		t.Error("a chain out of nothing")
	}
}

func TestMistakesPanic(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*guard.Config){
		"no resource": func(c *guard.Config) { c.Resource = "" }, "no verifier": func(c *guard.Config) { c.Verifier = nil },
		"resource no URL": func(c *guard.Config) { c.Resource = "git" },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			cfg := w.config()
			change(&cfg)
			guard.Require(cfg)
		}()
	}
}
