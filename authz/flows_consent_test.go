package authz_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/store/storetest"
)

// ask walks to the consent page of a request.
func (b *browser) ask(q url.Values) page {
	b.f.t.Helper()
	p := b.authorize(q)
	if p.status != http.StatusOK {
		b.f.t.Fatalf("no consent page: %d %s\n%s", p.status, p.location, p.text())
	}
	return p
}

func TestConsentIsOfOneBrowserAndOnce(t *testing.T) {
	f := newFlows(t)
	f.user("mallory", "member")
	client, alice := f.public(), f.signedIn("alice")
	form := func(p page) url.Values {
		return url.Values{"transaction": {p.transaction(t)}, "person": {p.person(t)}, "decision": {"approve"}, "scope": {"kavach:verify"}}
	}
	refused := func(name string, p page) {
		t.Helper()
		if p.status != http.StatusForbidden || p.location != "" || strings.Contains(p.body, "code=") {
			t.Errorf("%s: %d %s", name, p.status, p.location)
		}
	}
	page := alice.ask(f.request(client, newProof(), nil))

	refused("no transaction", alice.post("/consent", url.Values{"decision": {"approve"}, "scope": {"kavach:verify"}}))
	refused("an unknown transaction", alice.post("/consent", url.Values{"transaction": {"x"}, "decision": {"approve"}}))
	refused("another browser of alice", f.signIn("alice").post("/consent", form(page)))
	refused("another person's browser", f.signedIn("mallory").post("/consent", form(page)))
	refused("nobody's browser", f.browser().post("/consent", form(page)))
	refused("another browser that looks", f.signedIn("mallory").get("/consent?transaction="+page.transaction(t)))
	for name, set := range map[string]func(http.Header){
		"a foreign origin":    func(h http.Header) { h.Set("Origin", "https://evil.example"); h.Del("Sec-Fetch-Site") },
		"the null origin":     func(h http.Header) { h.Set("Origin", "null"); h.Del("Sec-Fetch-Site") },
		"a cross-site fetch":  func(h http.Header) { h.Set("Sec-Fetch-Site", "cross-site") },
		"a page of a sibling": func(h http.Header) { h.Set("Sec-Fetch-Site", "same-site") },
	} {
		p := alice.with(set).post("/consent", form(page))
		refused(name, p)
		if p.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: CORS", name)
		}
	}
	if p := alice.post("/consent", url.Values{"transaction": {page.transaction(t)}, "person": {page.person(t)}}); p.status != http.StatusBadRequest || p.transaction(t) != page.transaction(t) {
		t.Errorf("no decision: %d", p.status)
	}

	// None of that has decided it; alice does, once.
	if got := redirected(t, alice.decide(page, "approve", "kavach:verify")); got.Get("code") == "" {
		t.Errorf("approve: %v", got)
	}
	refused("again", alice.post("/consent", form(page)))
	refused("again, by looking", alice.get("/consent?transaction="+page.transaction(t)))

	page = alice.ask(f.request(client, newProof(), nil))
	f.clock.advance(10 * time.Minute)
	refused("after ten minutes", alice.post("/consent", form(page)))
}

// In one browser somebody else signs in while the page is open: what one
// person was shown is not approved by the other.
func TestConsentIsOfThePersonWhoWasAsked(t *testing.T) {
	f := newFlows(t)
	f.user("mallory", "operator")
	b, client := f.signedIn("alice"), f.public()
	asked := b.ask(f.request(client, newProof(), nil))
	form := url.Values{"transaction": {asked.transaction(t)}, "person": {asked.person(t)}, "decision": {"approve"}, "scope": {"kavach:verify"}}
	b.login("mallory", "/account")
	again := b.post("/consent", form)
	if again.status != http.StatusForbidden || strings.Contains(again.body, "code=") || !strings.Contains(again.text(), "Somebody else signed in") {
		t.Fatalf("%d %s", again.status, again.text())
	}
	form.Set("person", again.person(t))
	if got := b.post("/consent", form); got.status != http.StatusOK || !strings.Contains(got.body, "code=") {
		t.Errorf("asked anew: %d %s", got.status, got.text())
	}
}

func TestConsentIsDecidedOnceByManyAtOnce(t *testing.T) {
	f := newFlows(t)
	b := f.signedIn("alice")
	page := b.ask(f.request(f.public(), newProof(), nil))
	var wg sync.WaitGroup
	answers := make([]bool, 20)
	for i := range answers {
		wg.Go(func() { answers[i] = strings.Contains(b.decide(page, "approve", "kavach:verify").location, "code=") })
	}
	wg.Wait()
	n := 0
	for _, got := range answers {
		if got {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d codes", n)
	}
}

// What the server recorded wins over what the form says.
func TestConsentFormCannotBeWidened(t *testing.T) {
	f := newFlows(t)
	client, p, b := f.public(), newProof(), f.signedIn("alice")
	page := b.ask(f.request(client, p, url.Values{"scope": {"kavach:verify"}}))
	answer := b.post("/consent", url.Values{
		"transaction": {page.transaction(t)}, "person": {page.person(t)}, "decision": {"approve"},
		"scope":        {"kavach:verify", "kavach:admin", "audit:read", "agents:manage", "repo:read", "kavach:delegate"},
		"redirect_uri": {"https://evil.example/"}, "client_id": {"other"}, "resource": {git},
	})
	m := navigateLink.FindStringSubmatch(answer.body)
	if m == nil || !strings.HasPrefix(m[1], callback) {
		t.Fatalf("%d %s", answer.status, answer.text())
	}
	answer.location = strings.ReplaceAll(m[1], "&amp;", "&")
	a := f.token(f.redeem(client, redirected(t, answer).Get("code"), p, nil))
	if a.str("scope") != "kavach:verify" || !slices.Equal(f.chain(a.str("access_token")).Audience(), []string{f.issuer + "/mcp"}) {
		t.Errorf("%d %v", a.status, a.body)
	}
}

func TestDenial(t *testing.T) {
	f := newFlows(t)
	b, client := f.signedIn("alice"), f.public()
	for name, decide := range map[string]func(page) page{
		"denied":         func(p page) page { return b.decide(p, "deny") },
		"nothing ticked": func(p page) page { return b.decide(p, "approve") },
		"ticked nothing that was offered": func(p page) page {
			return b.decide(p, "approve", "kavach:admin")
		},
		"hand-on without the right to": func(p page) page { return b.decide(p, "approve", "repo:read") },
	} {
		got := redirected(t, decide(b.ask(f.request(client, newProof(), nil))))
		if got.Get("error") != "access_denied" || got.Get("state") != "st4te" || got.Get("iss") != f.issuer || got.Has("code") {
			t.Errorf("%s: %v", name, got)
		}
	}
	// Saying no is not remembered as a yes.
	if ticked, _ := b.ask(f.request(client, newProof(), nil)).boxes(); len(ticked) != 3 {
		t.Errorf("afterwards: %v", ticked)
	}
}

func TestConsentIsRemembered(t *testing.T) {
	f := newFlows(t)
	f.user("mallory", "member")
	const other = "https://client.example/other"
	client, b := f.register(callback, other), f.signedIn("alice")
	ask := func(scope string) url.Values { return f.request(client, newProof(), url.Values{"scope": {scope}}) }

	page := b.ask(ask("kavach:verify kavach:audit"))
	if got := redirected(t, b.decide(page, "approve", "kavach:verify")); got.Get("code") == "" {
		t.Fatal(got)
	}
	if p := b.authorize(ask("kavach:verify")); p.status != http.StatusSeeOther {
		t.Errorf("the same again: %d", p.status)
	}
	// What was not ticked is asked again, alone; so is what is new.
	page = b.ask(ask("kavach:verify kavach:audit agents:manage"))
	ticked, unticked := page.boxes()
	slices.Sort(ticked)
	if !slices.Equal(ticked, []string{"agents:manage", "kavach:audit"}) || len(unticked) != 0 || !strings.Contains(page.body, "What it may do already") {
		t.Errorf("a step up: %v %v", ticked, unticked)
	}
	p := newProof()
	q := ask("kavach:verify agents:manage")
	q.Set("code_challenge", p.challenge)
	code := redirected(t, b.decide(b.ask(q), "approve", "agents:manage")).Get("code")
	if a := f.token(f.redeem(client, code, p, nil)); a.str("scope") != "agents:manage kavach:verify" {
		t.Errorf("stepped up to %q", a.str("scope"))
	}

	// Another redirect URI, person, client with the same name: asked.
	q = ask("kavach:verify")
	q.Set("redirect_uri", other)
	b.ask(q)
	f.signedIn("mallory").ask(ask("kavach:verify"))
	b.ask(f.request(f.register(callback), newProof(), nil))
	// Another resource with the same scope: asked.
	q = ask("kavach:verify")
	q.Set("resource", f.issuer+"/api")
	b.ask(q)

	// Shown again on request, what is unticked then is forgotten.
	q = ask("kavach:verify agents:manage")
	q.Set("prompt", "consent")
	b.decide(b.ask(ask("kavach:audit")), "approve", "kavach:audit")
	b.decide(b.ask(q), "approve", "kavach:verify")
	if ticked, _ := b.ask(ask("kavach:verify agents:manage")).boxes(); !slices.Equal(ticked, []string{"agents:manage"}) {
		t.Errorf("after unticking: %v", ticked)
	}
	// What was not shown then is remembered as it was.
	if p := b.authorize(ask("kavach:verify kavach:audit")); p.status != http.StatusSeeOther {
		t.Errorf("what was not shown: %d", p.status)
	}
}

func TestHandingOnIsAskedUnticked(t *testing.T) {
	f := newFlows(t)
	b, client := f.signedIn("alice"), f.public()
	page := b.ask(f.request(client, newProof(), url.Values{"scope": {"kavach:verify"}}))
	if _, unticked := page.boxes(); len(unticked) != 0 {
		t.Errorf("without kavach:delegate: %v", unticked)
	}
	// Asked for by the client itself: ticked. A resource that would not
	// understand, or that needs another signature, is not offered.
	must(t, f.registry.AddResource(t.Context(), authz.Actor{Agent: "operator", Via: "cli"}, authz.Resource{
		ID: "https://ed.example", Name: "Other", Aware: true, TokenAlg: authz.AlgEd25519, Scopes: []authz.Scope{{Name: "ed:read", Description: "Read"}},
	}))
	page = b.ask(f.request(client, newProof(), url.Values{"scope": {"kavach:delegate repo:read old:read ed:read"}}))
	ticked, unticked := page.boxes()
	slices.Sort(ticked)
	if !slices.Equal(ticked, []string{"kavach:delegate", "repo:read"}) || !slices.Equal(unticked, []string{"repo:write"}) {
		t.Errorf("%v %v", ticked, unticked)
	}
	// Approved once, it comes with the next authorization too.
	p := newProof()
	f.code(b, client, p, nil, "repo:write")
	p = newProof()
	a := f.token(f.redeem(client, f.code(b, client, p, nil), p, nil))
	if a.str("scope") != "kavach:audit kavach:delegate kavach:verify repo:write" {
		t.Errorf("again: %q", a.str("scope"))
	}
}

// What was approved to be handed on is remembered for as much as one token can
// be for: it never stands in the way of what is asked now.
func TestRememberedHandOnLeavesRoomForWhatIsAsked(t *testing.T) {
	f := newFlows(t)
	b, client := f.signedIn("alice"), f.public()
	var handOn, plain []string
	for i := range 10 {
		r := authz.Resource{ID: fmt.Sprintf("https://r%d.example", i), Aware: i < 7, Scopes: []authz.Scope{{Name: fmt.Sprintf("r%d:read", i)}}}
		must(t, f.registry.AddResource(t.Context(), authz.Actor{Agent: "operator", Via: "cli"}, r))
		if r.Aware {
			handOn = append(handOn, r.Scopes[0].Name)
		} else {
			plain = append(plain, r.ID)
		}
	}
	// Seven and our own are eight.
	p := newProof()
	a := f.token(f.redeem(client, f.code(b, client, p, url.Values{"scope": {"kavach:delegate"}}, handOn...), p, nil))
	if n := len(f.chain(a.str("access_token")).Audience()); n != 8 {
		t.Fatalf("%d audiences", n)
	}
	more := f.request(client, newProof(), url.Values{
		"scope": {"kavach:delegate r7:read r8:read r9:read"}, "resource": append(plain, f.issuer+"/mcp"),
	})
	for _, when := range []string{"asked", "remembered"} {
		p = newProof()
		more.Set("code_challenge", p.challenge)
		a = f.token(f.redeem(client, b.consent(more).Get("code"), p, nil))
		if a.status != http.StatusOK || len(f.chain(a.str("access_token")).Audience()) != 8 || !strings.Contains(a.str("scope"), "r7:read r8:read r9:read") {
			t.Errorf("%s: %d %v", when, a.status, a.body)
		}
	}
}

// The page names what a person goes by, and a name cannot break out of it.
func TestConsentPageSaysWhoAsks(t *testing.T) {
	f := newFlows(t)
	b := f.signedIn("alice")
	page := b.ask(f.request(f.register(callback), newProof(), nil))
	for _, want := range []string{"Registered", "client.example", "alice", "10 minutes", "90 days", f.issuer + "/mcp"} {
		if !strings.Contains(page.body, want) {
			t.Errorf("the page does not say %q\n%s", want, page.text())
		}
	}
	if strings.Contains(page.body, "runs on your computer") {
		t.Error("warns of a loopback client that is none")
	}
	if csp := page.header.Get("Content-Security-Policy"); !strings.Contains(csp, "form-action 'self'") {
		t.Errorf("CSP: %s", csp)
	}
}

// A thief of the database, the log included, holds nothing to present.
func TestNothingStoredCanBePresented(t *testing.T) {
	f := newFlows(t)
	id, secret := f.client(authz.NewClient{Method: authz.MethodPost, RedirectURIs: []string{callback}})
	b, p := f.signedIn("alice"), newProof()
	code := f.code(b, id, p, nil)
	page := b.ask(f.request(f.public(), newProof(), nil))
	first := f.token(f.redeem(id, code, p, url.Values{"client_secret": {secret}}))
	second := f.token(refreshForm(id, first.str("refresh_token"), url.Values{"client_secret": {secret}}))
	f.token(f.redeem(id, code, p, url.Values{"client_secret": {secret}}))
	f.clock.advance(time.Minute)
	f.token(refreshForm(id, first.str("refresh_token"), url.Values{"client_secret": {secret}}))
	if second.status != http.StatusOK {
		t.Fatal(second)
	}
	kept := map[string]string{
		"client secret": secret, "code": code, "verifier": p.verifier, "transaction": page.transaction(t),
		"access token": first.str("access_token"), "refresh token": first.str("refresh_token"),
		"second access token": second.str("access_token"), "second refresh token": second.str("refresh_token"),
	}
	for name, text := range kept {
		if len(text) < 20 {
			t.Fatalf("%s is %q", name, text)
		}
		// Part of a token is enough to give it away.
		kept[name] = text[:len(text)/2]
	}
	stored := storetest.Text(t, f.dsn)
	for name, text := range kept {
		if strings.Contains(stored, text) {
			t.Errorf("%s stands in the database", name)
		}
	}
}

// Every decision is recorded: who, what, on whose authority.
func TestDecisionsAreRecorded(t *testing.T) {
	f := newFlows(t)
	client, a := f.tokens(nil)
	f.token(refreshForm(client, a.str("refresh_token"), nil))
	b := f.signedIn("alice")
	b.decide(b.ask(f.request(f.public(), newProof(), nil)), "deny")
	b.get("/oauth/authorize?" + f.request(client, newProof(), url.Values{"scope": {"bad"}}).Encode())
	grant := f.chain(a.str("access_token")).GrantID()
	for _, want := range [][]string{
		{`"action":"consent.grant"`, `"sub":"` + f.alice.ID + `"`, `"grant":"` + grant + `"`, `"client":"` + client + `"`},
		{`"action":"token.issue"`, `"sub":"` + f.alice.ID + `"`, `"grant":"` + grant + `"`, `"agent":"` + client + `"`, `"lid":"` + f.chain(a.str("access_token")).LID() + `"`},
		{`"action":"token.refresh"`, `"grant":"` + grant + `"`},
		{`"action":"consent.deny"`, `"result":"denied"`},
		{`"action":"authorize.refuse"`, `"reason":"invalid_scope"`, `"agent":"user:` + f.alice.ID + `"`},
	} {
		if !slices.ContainsFunc(f.records(), func(r string) bool {
			for _, part := range want {
				if !strings.Contains(r, part) {
					return false
				}
			}
			return true
		}) {
			t.Errorf("no record with %v", want)
		}
	}
}
