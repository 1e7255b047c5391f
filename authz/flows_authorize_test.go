package authz_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/people"
)

// wantPage checks an error page: 400, HTML, no way to the client.
func wantPage(t *testing.T, name string, p page) {
	t.Helper()
	if p.status != http.StatusBadRequest || p.location != "" || !strings.HasPrefix(p.header.Get("Content-Type"), "text/html") {
		t.Errorf("%s: %d %q, want a page", name, p.status, p.location)
	}
	csp := p.header.Get("Content-Security-Policy")
	if !strings.Contains(csp, "frame-ancestors 'none'") || p.header.Get("X-Frame-Options") != "DENY" || p.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: headers %v", name, p.header)
	}
}

func TestRedirectURIIsComparedByBytes(t *testing.T) {
	f := newFlows(t)
	const registered = "https://client.example/cb?a=1"
	client, b := f.public(registered), f.signedIn("alice")
	if got := b.consent(f.request(client, newProof(), url.Values{"redirect_uri": {registered}})); got.Get("code") == "" || got.Get("a") != "1" {
		t.Fatalf("the registered one: %v", got)
	}
	for _, uri := range []string{
		"https://evil.example/", "https://client.example/cb", "https://client.example/cb?a=1&b=2", "https://client.example/cb?a=1#", "https://client.example/cb?a=1#x",
		"https://client.example/cb/?a=1", "https://client.example/?a=1", "https://Client.example/cb?a=1", "https://client.example:443/cb?a=1",
		"https://user@client.example/cb?a=1", "https://client.example/x/../cb?a=1", "https://client.example/..;/cb?a=1",
		"https://client.example/%2e%2e/cb?a=1", "https://client.example/%63b?a=1", "https://client.example\\@evil.example/cb?a=1",
		"https://client.example//evil.example/cb?a=1", "//client.example/cb?a=1", "https://client.example@evil.example/cb?a=1",
		"https://evil.client.example/cb?a=1", "https://client.example.evil/cb?a=1", "https://client.example\t/cb?a=1",
		"https://client.example\n/cb?a=1", "https://client.example/cb?a=1 ", " https://client.example/cb?a=1",
		"https://cl\u0456ent.example/cb?a=1", "https://client.example./cb?a=1", "https://client.example:0/cb?a=1",
		"https://client.example/%2563b?a=1", "http://client.example/cb?a=1", "HTTPS://client.example/cb?a=1",
		"https://client.example/CB?a=1", "javascript:alert(1)", "data:text/html,x", "https:client.example/cb?a=1",
	} {
		wantPage(t, uri, b.get("/oauth/authorize?"+f.request(client, newProof(), url.Values{"redirect_uri": {uri}}).Encode()))
	}
	wantPage(t, "NUL", b.get("/oauth/authorize?"+f.request(client, newProof(), url.Values{"redirect_uri": {"https://client.example/cb?a=1\x00"}}).Encode()))
	wantPage(t, "twice", b.get("/oauth/authorize?"+f.request(client, newProof(), url.Values{"redirect_uri": {registered, registered}}).Encode()))
}

func TestLoopbackRedirectMayChangeItsPortOnly(t *testing.T) {
	f := newFlows(t)
	client := f.public("http://127.0.0.1/cb", "http://[::1]:9/cb", "http://localhost/cb")
	b := f.signedIn("alice")
	for _, uri := range []string{
		"http://127.0.0.1/cb", "http://127.0.0.1:1/cb", "http://127.0.0.1:65535/cb", "http://[::1]:8080/cb", "http://localhost:33418/cb",
	} {
		p := newProof()
		p2 := b.authorize(f.request(client, p, url.Values{"redirect_uri": {uri}}))
		if p2.status == http.StatusOK { // asked once: the port does not matter
			if !strings.Contains(p2.body, "runs on your computer") {
				t.Errorf("%s: no warning about loopback", uri)
			}
			ticked, _ := p2.boxes()
			p2 = b.decide(p2, "approve", ticked...)
		}
		if !strings.HasPrefix(p2.location, uri+"?") {
			t.Fatalf("%s: %d %q", uri, p2.status, p2.location)
		}
		code := redirected(t, p2).Get("code")
		f.wantError(f.token(f.redeem(client, code, p, url.Values{"redirect_uri": {"http://127.0.0.1:2/cb"}})), 400, "invalid_grant")
		if a := f.token(f.redeem(client, code, p, url.Values{"redirect_uri": {uri}})); a.status != http.StatusOK {
			t.Errorf("%s: %d %v", uri, a.status, a.body)
		}
	}
	for _, uri := range []string{
		"https://127.0.0.1/cb", "http://user@127.0.0.1/cb", "http://127.0.0.1:80@evil.example/cb", "http://127.0.0.1/%63b", "http://127.0.0.1/cb?x",
		"http://127.0.0.1/cb#x", "http://127.0.0.2/cb", "http://127.1/cb", "http://0x7f.1/cb", "http://2130706433/cb", "http://[::ffff:127.0.0.1]/cb",
		"http://localhost.evil/cb", "http://127.0.0.1:99999999/cb", "http://127.0.0.1:65536/cb", "http://127.0.0.1:0/cb", "http://127.0.0.1:080/cb",
		"http://127.0.0.1:/cb", "http://127.0.0.1:+80/cb", "http://127.0.0.1:8 0/cb", "http://127.0.0.1/", "http://127.0.0.1", "http://[::1]/cb/", "http://[0:0:0:0:0:0:0:1]/cb",
		"http://LOCALHOST/cb", "http://127.0.0.1:80/cb\\@evil.example",
	} {
		wantPage(t, uri, b.get("/oauth/authorize?"+f.request(client, newProof(), url.Values{"redirect_uri": {uri}}).Encode()))
	}
}

func TestRequestsThatReachNoClient(t *testing.T) {
	f := newFlows(t)
	two := f.public(callback, "https://client.example/other")
	b := f.signedIn("alice")
	wantPage(t, "an unknown client", b.get("/oauth/authorize?"+f.request("nobody", newProof(), nil).Encode()))
	wantPage(t, "no client", b.get("/oauth/authorize?"+f.request("", newProof(), nil).Encode()))
	wantPage(t, "two clients", b.get("/oauth/authorize?"+f.request(two, newProof(), url.Values{"client_id": {two, two}}).Encode()))
	wantPage(t, "no redirect URI of two", b.get("/oauth/authorize?"+f.request(two, newProof(), url.Values{"redirect_uri": nil}).Encode()))
	wantPage(t, "bad escapes", b.get("/oauth/authorize?client_id=%zz"))
	evil := "<img src=x onerror=alert(1)>"
	p := b.get("/oauth/authorize?" + f.request("nobody", newProof(), url.Values{"client_id": {evil}, "error_description": {evil}}).Encode())
	if strings.Contains(p.body, "<img src=x") {
		t.Error("reflected")
	}
	if p := b.post("/oauth/authorize", f.request(two, newProof(), nil)); p.status != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", p.status)
	}

	one := f.public()
	got := b.consent(f.request(one, newProof(), url.Values{"redirect_uri": nil}))
	if got.Get("code") == "" {
		t.Errorf("no redirect URI of one: %v", got)
	}
}

// Errors of a request whose redirect URI is registered go to the client, with
// state and exactly one iss.
func TestErrorsGoToTheClient(t *testing.T) {
	f := newFlows(t)
	static, registered := f.public(), f.register(callback)
	stranger, alice := f.browser(), f.signedIn("alice")
	for _, c := range []struct {
		name   string
		change url.Values
		error  string
	}{
		{"token", url.Values{"response_type": {"token"}}, "unsupported_response_type"},
		{"id_token", url.Values{"response_type": {"id_token"}}, "unsupported_response_type"},
		{"hybrid", url.Values{"response_type": {"code token"}}, "unsupported_response_type"},
		{"none", url.Values{"response_type": {"none"}}, "unsupported_response_type"},
		{"code twice in one", url.Values{"response_type": {"code code"}}, "unsupported_response_type"},
		{"empty response type", url.Values{"response_type": {""}}, "unsupported_response_type"},
		{"no response type", url.Values{"response_type": nil}, "unsupported_response_type"},
		{"fragment", url.Values{"response_mode": {"fragment"}}, "invalid_request"},
		{"form_post", url.Values{"response_mode": {"form_post"}}, "invalid_request"},
		{"web_message", url.Values{"response_mode": {"web_message"}}, "invalid_request"},
		{"query.jwt", url.Values{"response_mode": {"query.jwt"}}, "invalid_request"},
		{"request object", url.Values{"request": {"eyJ.eyJ."}}, "request_not_supported"},
		{"a restriction that is not taken here", url.Values{"authorization_details": {`[{"type":"kavach_limits","max_file_size":5}]`}}, "invalid_authorization_details"},
		{"request URI", url.Values{"request_uri": {"http://169.254.169.254/"}}, "request_uri_not_supported"},
		{"a scope twice", url.Values{"scope": {"kavach:verify", "kavach:audit"}}, "invalid_request"},
		{"no challenge", url.Values{"code_challenge": nil}, "invalid_request"},
		{"an empty challenge", url.Values{"code_challenge": {""}}, "invalid_request"},
		{"a short challenge", url.Values{"code_challenge": {strings.Repeat("a", 42)}}, "invalid_request"},
		{"a padded challenge", url.Values{"code_challenge": {strings.Repeat("a", 43) + "="}}, "invalid_request"},
		{"a challenge with a dot", url.Values{"code_challenge": {strings.Repeat("a", 42) + "."}}, "invalid_request"},
		{"plain", url.Values{"code_challenge_method": {"plain"}}, "invalid_request"},
		{"no method", url.Values{"code_challenge_method": nil}, "invalid_request"},
		{"s256", url.Values{"code_challenge_method": {"s256"}}, "invalid_request"},
		{"S512", url.Values{"code_challenge_method": {"S512"}}, "invalid_request"},
		{"an unknown scope", url.Values{"scope": {"bad"}}, "invalid_scope"},
		{"a script as scope", url.Values{"scope": {"<img src=x>"}}, "invalid_scope"},
		{"no scope of the resource", url.Values{"scope": {"repo:read"}}, "invalid_scope"},
		{"an unknown resource", url.Values{"resource": {"https://nowhere.example"}}, "invalid_target"},
		{"a resource with a fragment", url.Values{"resource": {git + "#x"}}, "invalid_target"},
		{"a relative resource", url.Values{"resource": {"/mcp"}}, "invalid_target"},
		{"resources signed differently", url.Values{"resource": {git, legacy}, "scope": {"repo:read old:read"}}, "invalid_target"},
		{"prompt none and login", url.Values{"prompt": {"none login"}}, "invalid_request"},
	} {
		for who, got := range map[string]page{
			"a static client, nobody signed in": stranger.get("/oauth/authorize?" + f.request(static, newProof(), c.change).Encode()),
			"a registered client, alice":        alice.get("/oauth/authorize?" + f.request(registered, newProof(), c.change).Encode()),
		} {
			q := redirected(t, got)
			if got.status != http.StatusSeeOther || q.Get("error") != c.error || q.Get("state") != "st4te" || !slices.Equal(q["iss"], []string{f.issuer}) || q.Has("code") {
				t.Errorf("%s: %s: %d %s", c.name, who, got.status, got.location)
			}
		}
		// RFC 9700 section 4.11.2: somebody's registration redirects nobody who
		// has not signed in.
		p := stranger.get("/oauth/authorize?" + f.request(registered, newProof(), c.change).Encode())
		if p.status != http.StatusSeeOther || !strings.HasPrefix(p.location, "/login?") {
			t.Errorf("%s: a registered client, nobody signed in: %d %s", c.name, p.status, p.location)
		}
	}
}

func TestStateIsOptionalAndEchoed(t *testing.T) {
	f := newFlows(t)
	client, b := f.public(), f.signedIn("alice")
	for _, state := range []string{"", "x", "short", "with space & = ?", strings.Repeat("long", 500), "\u0645\u0631"} {
		change := url.Values{"state": {state}}
		if state == "" {
			change["state"] = nil
		}
		got := b.consent(f.request(client, newProof(), change))
		if got.Get("code") == "" || got.Has("state") != (state != "") || got.Get("state") != state || !slices.Equal(got["iss"], []string{f.issuer}) {
			t.Errorf("state %.20q: %v", state, got)
		}
	}
}

func TestPrompts(t *testing.T) {
	f := newFlows(t)
	static, registered := f.public(), f.register(callback)
	ask := func(client, prompt string) url.Values {
		return f.request(client, newProof(), url.Values{"prompt": {prompt}})
	}
	alice := f.signedIn("alice")

	// none: without a login, and without consent. A client that alice has not
	// approved is told nothing.
	if got := redirected(t, f.browser().get("/oauth/authorize?"+ask(static, "none").Encode())); got.Get("error") != "login_required" {
		t.Errorf("none, nobody signed in: %v", got)
	}
	wantPage(t, "none by a registration, nobody signed in", f.browser().get("/oauth/authorize?"+ask(registered, "none").Encode()))
	wantPage(t, "none by a registration nobody approved", alice.get("/oauth/authorize?"+ask(registered, "none").Encode()))
	if got := redirected(t, alice.get("/oauth/authorize?"+ask(static, "none").Encode())); got.Get("error") != "consent_required" {
		t.Errorf("none, not approved: %v", got)
	}

	// Approved: no page any more, also for none.
	alice.consent(f.request(registered, newProof(), nil))
	for _, prompt := range []string{"none", "", "unheard-of"} {
		p := alice.get("/oauth/authorize?" + ask(registered, prompt).Encode())
		if got := redirected(t, p); p.status != http.StatusSeeOther || got.Get("code") == "" {
			t.Errorf("prompt %q after approval: %d %s", prompt, p.status, p.location)
		}
	}
	// More than was approved is asked.
	wide := url.Values{"prompt": {"none"}, "scope": {"kavach:verify agents:manage"}}
	if got := redirected(t, alice.get("/oauth/authorize?"+f.request(registered, newProof(), wide).Encode())); got.Get("error") != "consent_required" {
		t.Errorf("none, more than approved: %v", got)
	}

	// consent: always the page, and everything on it.
	p := alice.authorize(ask(registered, "consent"))
	if ticked, _ := p.boxes(); p.status != http.StatusOK || len(ticked) != 3 {
		t.Errorf("consent: %d %v", p.status, ticked)
	}

	// login, select_account: the password again, though alice is signed in.
	for _, prompt := range []string{"login", "select_account"} {
		f.clock.advance(1e9)
		p := alice.get("/oauth/authorize?" + ask(registered, prompt).Encode())
		to, err := url.Parse(p.location)
		must(t, err)
		if p.status != http.StatusSeeOther || to.Path != "/login" {
			t.Fatalf("%s: %d %s", prompt, p.status, p.location)
		}
		// Going on without it leads back to the login.
		back := to.Query().Get("return")
		if p := alice.get(back); !strings.HasPrefix(p.location, "/login?") {
			t.Errorf("%s without the password: %d %s", prompt, p.status, p.location)
		}
		if got := redirected(t, alice.get(alice.login("alice", back).location)); got.Get("code") == "" {
			t.Errorf("%s with the password: %v", prompt, got)
		}
	}

	hint := f.browser().get("/oauth/authorize?" + f.request(static, newProof(), url.Values{"login_hint": {"alice"}}).Encode())
	if to, err := url.Parse(hint.location); err != nil || to.Query().Get("login_hint") != "alice" {
		t.Errorf("login_hint: %s", hint.location)
	}
}

func TestResourceIndicators(t *testing.T) {
	f := newFlows(t)
	b, client := f.signedIn("alice"), f.public()
	for _, c := range []struct {
		name     string
		change   url.Values
		scope    string
		audience []string
	}{
		{"none: our own", url.Values{"resource": nil}, "kavach:audit kavach:delegate kavach:verify", []string{f.issuer + "/mcp"}},
		{"none, no scope: the baseline", url.Values{"resource": nil, "scope": nil}, "kavach:audit kavach:delegate kavach:verify", []string{f.issuer + "/mcp"}},
		{"a trailing slash", url.Values{"resource": {f.issuer + "/mcp/"}}, "kavach:audit kavach:delegate kavach:verify", []string{f.issuer + "/mcp"}},
		{"the bare origin", url.Values{"resource": {f.issuer}}, "kavach:audit kavach:delegate kavach:verify", []string{f.issuer + "/mcp"}},
		{"none: the scopes' owner", url.Values{"resource": nil, "scope": {"repo:read"}}, "repo:read", []string{git}},
		{"the API", url.Values{"resource": {f.issuer + "/api"}, "scope": {"agents:manage"}}, "agents:manage", []string{f.issuer + "/api"}},
		{"scopes of others are left out", url.Values{"resource": {f.issuer + "/mcp"}, "scope": {"kavach:verify repo:read old:read"}}, "kavach:verify", []string{f.issuer + "/mcp"}},
		{"what may be handed on is not", url.Values{"resource": {f.issuer + "/mcp"}, "scope": {"kavach:delegate repo:read old:read"}}, "kavach:delegate repo:read", []string{f.issuer + "/mcp", git}},
		{"several", url.Values{"resource": {f.issuer + "/mcp", git}, "scope": {"kavach:delegate repo:read"}}, "kavach:delegate repo:read", []string{f.issuer + "/mcp", git}},
		{"no scope: what is not sensitive", url.Values{"resource": {git}, "scope": nil}, "repo:read", []string{git}},
		{"offline_access is no scope", url.Values{"scope": {"kavach:verify offline_access"}}, "kavach:verify", []string{f.issuer + "/mcp"}},
		{"the old one", url.Values{"resource": {legacy}, "scope": {"old:read"}}, "old:read", []string{legacy}},
	} {
		p := newProof()
		a := f.token(f.redeem(client, f.code(b, client, p, c.change), p, nil))
		if a.status != http.StatusOK || a.str("scope") != c.scope || !slices.Equal(f.chain(a.str("access_token")).Audience(), c.audience) {
			t.Errorf("%s: %d %v", c.name, a.status, a.body)
		}
	}
}

// One address cannot fill the database with requests that wait.
func TestWaitingRequestsAreBounded(t *testing.T) {
	f := newFlows(t)
	b, q := f.browser(), "/oauth/authorize?"+f.request(f.public(), newProof(), nil).Encode()
	for range 600 {
		if p := b.get(q); p.status != http.StatusSeeOther {
			t.Fatalf("%d %s", p.status, p.text())
		}
	}
	if p := b.get(q); p.status != http.StatusTooManyRequests || p.header.Get("Retry-After") == "" || p.header.Get("RateLimit") == "" {
		t.Errorf("%d %v", p.status, p.header)
	}
	f.clock.advance(time.Minute)
	if p := b.get(q); p.status != http.StatusSeeOther {
		t.Errorf("a minute later: %d", p.status)
	}
}

// Roles: the consent page never offers what the person does not hold.
func TestConsentOffersWhatIsHeld(t *testing.T) {
	f := newFlows(t)
	f.user("olga", people.Operator)
	for name, want := range map[string][]string{"alice": {"kavach:verify"}, "olga": {"audit:read", "kavach:verify"}} {
		p := f.signedIn(name).authorize(f.request(f.public(), newProof(), url.Values{"scope": {"kavach:verify audit:read audit:write"}}))
		ticked, _ := p.boxes()
		slices.Sort(ticked)
		if !slices.Equal(ticked, want) {
			t.Errorf("%s: %v", name, ticked)
		}
	}
}
