package e2e

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// code has dev approve a request of a client and answers what comes back.
func (c *crew) code(t *testing.T, client *oauthClient, extra url.Values) (string, request) {
	t.Helper()
	r := client.request("kavach:verify", extra)
	back, err := c.dev.authorize(r.url, choice{})
	if err != nil {
		t.Fatal(err)
	}
	code := back.Query().Get("code")
	c.secrets = append(c.secrets, code, r.verifier)
	return code, r
}

// proving are the headers of a token request by a key; the zero key proves
// nothing.
func (c *crew) proving(k signingKey) []string {
	if k.ed == nil && k.ec == nil {
		return nil
	}
	return []string{"DPoP", k.proof("POST", c.Issuer+"/oauth/token", "")}
}

// DPoP: what is bound stays bound.
var bindingAttacks = []crewRow{
	{"A-109 bound tokens, codes and refresh tokens with another key or none", func(t *testing.T, c *crew) {
		key, other := newES256(), newEd25519()
		client := register(t, c.Issuer)
		redeem := func(code string, r request, k signingKey) reply {
			return c.form(t, "/oauth/token", url.Values{"grant_type": {"authorization_code"}, "client_id": {client.ID}, "redirect_uri": {client.Redirect}, "code": {code}, "code_verifier": {r.verifier}}.Encode(), c.proving(k)...)
		}
		refresh := func(token string, k signingKey) reply {
			return c.form(t, "/oauth/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {client.ID}, "refresh_token": {token}}.Encode(), c.proving(k)...)
		}
		// A code that is bound to a key.
		code, r := c.code(t, client, url.Values{"dpop_jkt": {key.thumbprint()}})
		wantOAuth(t, "code with another key", redeem(code, r, other), 400, "invalid_grant")
		wantOAuth(t, "code without a key", redeem(code, r, signingKey{}), 400, "invalid_grant", "invalid_dpop_proof")
		for name, proof := range badProofs(key, "POST", c.Issuer+"/oauth/token", "") {
			form := url.Values{"grant_type": {"authorization_code"}, "client_id": {client.ID}, "redirect_uri": {client.Redirect}, "code": {code}, "code_verifier": {r.verifier}}
			wantOAuth(t, "code, "+name, c.form(t, "/oauth/token", form.Encode(), "DPoP", proof), 400, "invalid_dpop_proof", "invalid_grant")
		}
		got := redeem(code, r, key).json(t)
		access, _ := got["access_token"].(string)
		token, _ := got["refresh_token"].(string)
		if access == "" || token == "" || got["token_type"] != "DPoP" {
			t.Fatalf("the code was spent by failures: %v", got)
		}
		c.secrets = append(c.secrets, access, token)
		for _, bad := range []string{"x", strings.Repeat("A", 42), strings.Repeat("A", 44), "' OR 1=1--"} {
			c.wantRedirect(t, "dpop_jkt "+bad, c.ask(t, client, c.dev, url.Values{"dpop_jkt": {bad}}), client, "invalid_request")
		}
		c.wantRedirect(t, "two dpop_jkt", c.ask(t, client, c.dev, url.Values{"dpop_jkt": {key.thumbprint(), other.thumbprint()}}), client, "invalid_request")

		// The access token.
		send := func(scheme, token string, pairs ...string) reply {
			return c.rpc(t, "verify", `{"token":"x"}`, append([]string{"Authorization", scheme + " " + token}, pairs...)...)
		}
		proof := func(k signingKey, token string) []string {
			return []string{"DPoP", k.proof("POST", c.Issuer+"/mcp", token)}
		}
		for name, got := range map[string]reply{
			"as Bearer": send("Bearer", access), "as Bearer with proof": send("Bearer", access, proof(key, access)...), "without proof": send("DPoP", access), "with another key": send("DPoP", access, proof(other, access)...),
			"plain as DPoP": send("DPoP", c.machine, proof(key, c.machine)...), "plain as DPoP without proof": send("DPoP", c.machine), "under another scheme": send("Token", access, proof(key, access)...),
		} {
			if got.status != http.StatusUnauthorized || !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Bearer ") {
				t.Errorf("%s: %d %v", name, got.status, got.header)
			}
		}
		for _, path := range []string{"/api/v1/agents", "/api/v1/audit/entries"} {
			for _, headers := range [][]string{{"Authorization", "Bearer " + access}, {"Authorization", "DPoP " + access}, append([]string{"Authorization", "DPoP " + access}, proof(key, access)...)} {
				if got := c.send(t, "GET", path, "", headers...); got.status != http.StatusUnauthorized {
					t.Errorf("%s: %d", path, got.status)
				}
			}
		}
		if got := send("DPoP", access, proof(key, access)...); got.status != http.StatusOK {
			t.Errorf("as it should be: %d %s", got.status, got.body)
		}

		// The refresh token.
		wantOAuth(t, "refresh with another key", refresh(token, other), 400, "invalid_grant")
		wantOAuth(t, "refresh without a key", refresh(token, signingKey{}), 400, "invalid_grant", "invalid_dpop_proof")
		for name, proof := range badProofs(key, "POST", c.Issuer+"/oauth/token", "") {
			form := url.Values{"grant_type": {"refresh_token"}, "client_id": {client.ID}, "refresh_token": {token}}
			wantOAuth(t, "refresh, "+name, c.form(t, "/oauth/token", form.Encode(), "DPoP", proof), 400, "invalid_dpop_proof", "invalid_grant")
		}
		next := refresh(token, key)
		if body := next.json(t); next.status != http.StatusOK || body["token_type"] != "DPoP" {
			t.Fatalf("after all that: %d %s", next.status, next.body)
		}
		wantOAuth(t, "the answer of the winner for another key", refresh(token, other), 400, "invalid_grant")
		wantOAuth(t, "and for none", refresh(token, signingKey{}), 400, "invalid_grant", "invalid_dpop_proof")
	}},
	{"A-109 a client that gets only bound tokens", func(t *testing.T, c *crew) {
		var bound credential
		decode(t, c.cli("", "client", "add", "bound", "--scope", "kavach:verify", "--dpop", "--json"), &bound)
		authorization := []string{"Authorization", basic(bound.ID, bound.Secret)}
		wantOAuth(t, "without proof", c.form(t, "/oauth/token", "grant_type=client_credentials", authorization...), 400, "invalid_dpop_proof")
		key := newEd25519()
		got := c.form(t, "/oauth/token", "grant_type=client_credentials", append(authorization, c.proving(key)...)...).json(t)
		token, _ := got["access_token"].(string)
		c.secrets = append(c.secrets, token, bound.Secret)
		wantOAuth(t, "exchange without proof", c.form(t, "/oauth/token", exchangedWith(token).Encode(), authorization...), 400, "invalid_request", "invalid_dpop_proof")
		wantOAuth(t, "exchange with another key", c.form(t, "/oauth/token", exchangedWith(token).Encode(), append(authorization, c.proving(newEd25519())...)...), 400, "invalid_request", "invalid_dpop_proof")
		// An agent's tokens are bound, and never to its identity key.
		form := url.Values{"grant_type": {"client_credentials"}}
		wantOAuth(t, "identity key", c.form(t, "/oauth/token", c.orch.authenticated(form).Encode(), c.proving(c.orch.Key)...), 400, "invalid_dpop_proof")
	}},
}

// Pages, for clients that bind what they get.
var boundPageAttacks = []crewRow{
	{"A-113 a consent form that was tampered with", func(t *testing.T, c *crew) {
		key, other := newEd25519(), newEd25519()
		client := register(t, c.Issuer)
		r := client.request("kavach:verify", url.Values{"dpop_jkt": {key.thumbprint()}})
		back, err := c.dev.authorize(r.url, choice{forge: url.Values{
			"client_id": {c.other.ID}, "redirect_uri": {"https://evil.example/"}, "state": {"x"}, "resource": {c.Issuer + "/api"}, "code_challenge": {"x"}, "dpop_jkt": {other.thumbprint()},
			"scope": {"kavach:admin", "audit:read", "agents:manage"}, "handon": {"archive:read"}, "sub": {"mallory"}, "decision": {"approve"}, "transaction": {"x"},
		}})
		if err == nil && back.Query().Get("code") != "" {
			t.Errorf("doubled fields were taken: %s", back)
		}
		back, err = c.dev.authorize(r.url, choice{forge: url.Values{
			"client_id": {c.other.ID}, "redirect_uri": {"https://evil.example/"}, "state": {"x"}, "resource": {c.Issuer + "/api"}, "code_challenge": {"x"}, "dpop_jkt": {other.thumbprint()},
			"scope": {"kavach:admin", "audit:read", "agents:manage"}, "handon": {"archive:read"}, "sub": {"mallory"},
		}})
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(back.String(), client.Redirect+"?") || !strings.HasPrefix(back.Query().Get("state"), "s-") {
			t.Fatalf("it went on to %s", back)
		}
		form := url.Values{"grant_type": {"authorization_code"}, "client_id": {client.ID}, "redirect_uri": {client.Redirect}, "code": {back.Query().Get("code")}, "code_verifier": {r.verifier}}
		wantOAuth(t, "the key of the form", c.form(t, "/oauth/token", form.Encode(), c.proving(other)...), 400, "invalid_grant")
		got := c.form(t, "/oauth/token", form.Encode(), c.proving(key)...).json(t)
		token, _ := got["access_token"].(string)
		if got["scope"] != "kavach:verify" || token == "" || encode(claim(token, "aud")) != encode([]string{c.Issuer + "/mcp"}) && claim(token, "aud") != c.Issuer+"/mcp" || claim(token, "client_id") != client.ID {
			t.Errorf("%v, aud %v", got, claim(token, "aud"))
		}
		c.secrets = append(c.secrets, token)
	}},
	{"A-111 one person's consent, another's answer", func(t *testing.T, c *crew) {
		client := register(t, c.Issuer)
		shown := c.ask(t, client, c.dev, url.Values{"dpop_jkt": {newEd25519().thumbprint()}})
		request, _ := http.NewRequestWithContext(t.Context(), "GET", c.Issuer+shown.header.Get("Location"), nil)
		found := consentPattern.FindStringSubmatch(do(t, c.dev.http, request).body)
		if found == nil {
			t.Fatal("no consent page")
		}
		send := func(values url.Values, pairs ...string) reply {
			request, _ := http.NewRequestWithContext(t.Context(), "POST", c.Issuer+"/consent", strings.NewReader(values.Encode()))
			request.Header.Set("Content-Type", formType)
			for i := 0; i < len(pairs); i += 2 {
				request.Header.Add(pairs[i], pairs[i+1])
			}
			return do(t, c.dev.http, request)
		}
		good := url.Values{"transaction": {found[1]}, "person": {found[2]}, "decision": {"approve"}, "scope": {"kavach:verify"}}
		for name, values := range map[string]url.Values{
			"no token": {"person": {found[2]}, "decision": {"approve"}}, "no person": {"transaction": {found[1]}, "decision": {"approve"}}, "another person": {"transaction": {found[1]}, "person": {"x"}, "decision": {"approve"}},
			"half a token": {"transaction": {found[1][:20]}, "person": {found[2]}, "decision": {"approve"}}, "two tokens": {"transaction": {found[1], found[1]}, "person": {found[2]}, "decision": {"approve"}}, "nothing": {},
		} {
			got := send(values)
			if got.status < 400 || got.status >= 500 || strings.Contains(got.body, "code=") || got.header.Get("Location") != "" || !protected(got) {
				t.Errorf("%s: %d %s", name, got.status, got.body)
			}
		}
		for _, header := range [][]string{{"Origin", "https://evil.example"}, {"Origin", c.Issuer + ".evil.example"}, {"Origin", c.Issuer, "Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "cross-site"}} {
			if got := send(good, header...); got.status != http.StatusForbidden || strings.Contains(got.body, "code=") {
				t.Errorf("%v: %d %s", header, got.status, got.body)
			}
		}
		request, _ = http.NewRequestWithContext(t.Context(), "GET", c.Issuer+"/consent?"+good.Encode(), nil)
		if got := do(t, c.dev.http, request); strings.Contains(got.body, "code=") {
			t.Errorf("GET approves: %s", got.body)
		}
		if got := send(good, "Origin", c.Issuer, "Sec-Fetch-Site", "same-origin"); got.status != http.StatusOK || !strings.Contains(got.body, "code=") || !protected(got) {
			t.Errorf("the real answer: %d %s", got.status, got.body)
		}
		if got := send(good, "Origin", c.Issuer, "Sec-Fetch-Site", "same-origin"); got.status != http.StatusForbidden {
			t.Errorf("used again: %d", got.status)
		}
	}},
	{"A-114 pages in frames, errors too", func(t *testing.T, c *crew) {
		// The device page comes with *The authorization server*.
		jar := c.dev.http
		client := register(t, c.Issuer)
		shown := c.ask(t, client, c.dev, nil)
		for name, target := range map[string]string{
			"consent": shown.header.Get("Location"), "account": "/account", "login": "/login", "login, signed in": "/login?return=/account", "unknown consent": "/consent?transaction=x", "no client": "/oauth/authorize",
			"bad client": "/oauth/authorize?client_id=x&redirect_uri=https://evil.example", "large": "/login?x=" + strings.Repeat("a", 20000), "not there": "/nothing/at/all", "torn": "/login?%zz", "set-up": "/setup",
		} {
			request, err := http.NewRequestWithContext(t.Context(), "GET", c.Issuer+strings.ReplaceAll(target, "%zz", "a=%zz"), nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := do(t, jar, request); !protected(got) {
				t.Errorf("%s: %d %v", name, got.status, got.header)
			}
		}
		for name, body := range map[string]string{"large": strings.Repeat("a=1&", 40<<10), "torn": "%zz", "wrong": "username=x&password=y", "JSON": "{}"} {
			for _, path := range []string{"/login", "/consent", "/logout", "/setup", "/account"} {
				for _, kind := range []string{formType, "application/json", ""} {
					if got := c.send(t, "POST", path, body, "Content-Type", kind); !protected(got) {
						t.Errorf("%s %s: %d %v", name, path, got.status, got.header)
					}
				}
			}
		}
	}},
	{"A-117 cookies of an issuer on https", func(t *testing.T, c *crew) {
		// That the key behind them is changed comes with *Three databases*.
		s := start(t, "--issuer", "https://kavach.example")
		at := &attack{server: &server{t: t, Issuer: "http://" + s.args[3]}}
		got := at.form(t, "/login", "username=dev&password=dev", "Host", "kavach.example", "Origin", "https://kavach.example")
		cookie := got.header.Get("Set-Cookie")
		if cookie == "" {
			t.Fatalf("no cookie: %d %v", got.status, got.header)
		}
		for _, want := range []string{"__Host-kavach=", "; Path=/", "; HttpOnly", "; Secure", "; SameSite=Lax"} {
			if !strings.Contains(cookie, want) || strings.Contains(cookie, "Domain=") {
				t.Errorf("%s: no %s", cookie, want)
			}
		}
		value, _, _ := strings.Cut(strings.TrimPrefix(cookie, "__Host-kavach="), ";")
		for _, name := range []string{"kavach", "__Secure-kavach", "__host-kavach"} {
			if got := at.send(t, "GET", "/account", "", "Host", "kavach.example", "Cookie", name+"="+value); got.status != http.StatusSeeOther {
				t.Errorf("as %s it is taken: %d", name, got.status)
			}
		}
		for i := 0; i < len(value); i += 7 {
			flipped := value[:i] + map[bool]string{true: "A", false: "B"}[value[i] != 'A'] + value[i+1:]
			if got := at.send(t, "GET", "/account", "", "Host", "kavach.example", "Cookie", "__Host-kavach="+flipped); got.status != http.StatusSeeOther {
				t.Errorf("tampered with at %d: %d", i, got.status)
			}
		}
		if got := at.send(t, "GET", "/account", "", "Host", "kavach.example", "Cookie", "__Host-kavach="+value); got.status != http.StatusOK {
			t.Errorf("as it is: %d", got.status)
		}
	}},
}
