package e2e

import (
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// presented is a code with everything that belongs to it.
type presented struct {
	code string
	good url.Values
}

// code signs dev in for a code of a client. more changes the request.
func (a *attack) code(t *testing.T, c *oauthClient, more url.Values) presented {
	t.Helper()
	r := c.request("kavach:verify", more)
	back, err := a.dev.authorize(r.url, choice{})
	if err != nil || back.Query().Get("code") == "" {
		t.Fatalf("no code: %v %v", err, back)
	}
	p := presented{code: back.Query().Get("code")}
	a.secrets = append(a.secrets, p.code, r.verifier)
	p.good = url.Values{"grant_type": {"authorization_code"}, "client_id": {c.ID}, "redirect_uri": {c.Redirect}, "code": {p.code}, "code_verifier": {r.verifier}}
	return p
}

func (p presented) with(name string, value ...string) string {
	changed := maps.Clone(p.good)
	changed[name] = value
	return changed.Encode()
}

// unspent shows that the code still works, once, after what was refused.
func (a *attack) unspent(t *testing.T, p presented, pairs ...string) {
	t.Helper()
	if got := a.form(t, "/oauth/token", p.good.Encode(), pairs...); got.status != http.StatusOK {
		t.Errorf("after all that: %d %s", got.status, got.body)
	}
	wantOAuth(t, "again", a.form(t, "/oauth/token", p.good.Encode(), pairs...), 400, "invalid_grant")
}

// PKCE and code. and A-29's expired code are in once_test.go and
// lives_test.go: they take seconds or a second process.
var codeAttacks = []attackRow{
	{"A-19 no challenge", func(t *testing.T, a *attack) {
		t.Log("left out: metadata-document clients, which come with the authorization server")
		operated := a.codeClient(t, "operated").oauthClient
		var registered credential
		if status := a.public.postJSON("/oauth/register", map[string]any{"redirect_uris": []string{"https://secret.example/cb"}}, &registered); status != http.StatusCreated || registered.Secret == "" {
			t.Fatalf("registering: %d", status)
		}
		for name, c := range map[string]*oauthClient{
			"public": a.public, "web": a.web, "operator's": operated,
			"registered with a secret": {t: t, issuer: a.Issuer, ID: registered.ID, Redirect: "https://secret.example/cb"},
			"registered with a key":    {t: t, issuer: a.Issuer, ID: a.registeredWithKey(t, newES256()).ID, Redirect: "https://client.example/keyed"},
		} {
			for _, challenge := range [][]string{nil, {""}, {strings.Repeat("a", 42)}, {strings.Repeat("a", 44)}, {strings.Repeat("a", 42) + "="}, {strings.Repeat("a", 42) + "+"}} {
				a.wantRedirect(t, name+" "+strings.Join(challenge, ""), a.ask(t, c, a.dev, url.Values{"code_challenge": challenge}), c, "invalid_request")
			}
			a.wantRedirect(t, name+", neither", a.ask(t, c, a.dev, url.Values{"code_challenge": nil, "code_challenge_method": nil}), c, "invalid_request")
		}
	}},
	{"A-21 challenge methods", func(t *testing.T, a *attack) {
		for _, method := range [][]string{{"plain"}, nil, {""}, {"s256"}, {"S512"}, {"S256 "}, {"PLAIN"}, {"S256", "plain"}} {
			a.wantRedirect(t, strings.Join(method, ""), a.ask(t, a.public, a.dev, url.Values{"code_challenge_method": method}), a.public, "invalid_request")
		}
	}},
	{"A-22 A-23 A-25 wrong verifiers leave the code alone", func(t *testing.T, a *attack) {
		// a code without a challenge cannot be had.
		p := a.code(t, a.public, nil)
		verifier := p.good.Get("code_verifier")
		for _, v := range [][]string{
			nil, {""}, {hashed(verifier)}, {verifier + "x"}, {strings.Repeat("x", 200)}, {verifier[1:]}, {strings.ToUpper(verifier)}, {verifier + "="}, {" " + verifier},
			{hashed(hashed(verifier))}, {strings.Repeat("a", 43)},
		} {
			wantOAuth(t, "verifier", a.form(t, "/oauth/token", p.with("code_verifier", v...)), 400, "invalid_grant")
		}
		wantOAuth(t, "two verifiers", a.form(t, "/oauth/token", p.with("code_verifier", verifier, verifier)), 400, "invalid_request")
		a.unspent(t, p)
	}},
	{"A-7 another redirect URI", func(t *testing.T, a *attack) {
		p := a.code(t, a.public, nil)
		for _, m := range []string{"https://evil.example/", a.public.Redirect + "/", a.public.Redirect + "?", "http://127.0.0.1:4712/callback", "http://localhost:4711/callback", strings.ToUpper(a.public.Redirect)} {
			wantOAuth(t, m, a.form(t, "/oauth/token", p.with("redirect_uri", m)), 400, "invalid_grant")
		}
		wantOAuth(t, "none", a.form(t, "/oauth/token", p.with("redirect_uri")), 400, "invalid_grant")
		wantOAuth(t, "empty", a.form(t, "/oauth/token", p.with("redirect_uri", "")), 400, "invalid_grant")
		wantOAuth(t, "two", a.form(t, "/oauth/token", p.with("redirect_uri", a.public.Redirect, "https://evil.example/")), 400, "invalid_request")
		wantOAuth(t, "other client", a.form(t, "/oauth/token", p.with("client_id", a.other.ID)), 400, "invalid_grant")
		wantOAuth(t, "unknown client", a.form(t, "/oauth/token", p.with("client_id", "c-unknown")), 401, "invalid_client")
		a.unspent(t, p)
	}},
	{"A-29 codes that are not quite the code", func(t *testing.T, a *attack) {
		p := a.code(t, a.public, nil)
		for i := range p.code {
			for _, letter := range []string{"A", "B", flipCase(p.code[i : i+1])} {
				if flipped := p.code[:i] + letter + p.code[i+1:]; flipped != p.code {
					wantOAuth(t, flipped, a.form(t, "/oauth/token", p.with("code", flipped)), 400, "invalid_grant")
				}
			}
			if i > 0 {
				wantOAuth(t, "truncated", a.form(t, "/oauth/token", p.with("code", p.code[:i])), 400, "invalid_grant")
			}
		}
		_, signature, _ := strings.Cut(p.code, ".")
		for _, text := range []string{p.code + "x", p.code + "=", p.code + ".x", p.code + " ", " " + p.code, "." + signature, signature, "x." + signature, p.code + p.code, p.code + "\n"} {
			if text != "" {
				wantOAuth(t, text, a.form(t, "/oauth/token", p.with("code", text)), 400, "invalid_grant")
			}
		}
		for _, text := range []string{"\x00", "\xff"} { // no text at all
			wantOAuth(t, "not text", a.form(t, "/oauth/token", p.with("code", p.code+text)), 400, "invalid_request")
		}
		wantOAuth(t, "empty", a.form(t, "/oauth/token", p.with("code", "")), 400, "invalid_request")
		wantOAuth(t, "as refresh token", a.form(t, "/oauth/token", "grant_type=refresh_token&client_id="+a.public.ID+"&refresh_token="+p.code), 400, "invalid_grant")
		a.unspent(t, p)
	}},
	{"A-30 another resource than the code's", func(t *testing.T, a *attack) {
		p := a.code(t, a.public, nil)
		for _, resource := range []string{a.Issuer + "/api", "https://evil.example", a.Issuer + "/mcp/x", "x", a.Issuer + "/mcp#x", a.Issuer + "/MCP"} {
			wantOAuth(t, resource, a.form(t, "/oauth/token", p.with("resource", resource)), 400, "invalid_target")
			wantOAuth(t, "both", a.form(t, "/oauth/token", p.with("resource", a.Issuer+"/mcp", resource)), 400, "invalid_target")
		}
		a.unspent(t, p)
	}},
}

func flipCase(letter string) string {
	if upper := strings.ToUpper(letter); upper != letter {
		return upper
	}
	return strings.ToLower(letter)
}

// Refresh tokens. A-31 is in once_test.go, A-33 in lives_test.go.
var refreshAttacks = []attackRow{
	{"A-34 another client's refresh token", func(t *testing.T, a *attack) {
		operated := a.codeClient(t, "thief")
		a.secrets = append(a.secrets, operated.Secret)
		for name, thief := range map[string][]string{
			"public": {"&client_id=" + a.other.ID}, "secret": {"", "Authorization", basic(operated.oauthClient.ID, operated.Secret)}, "key": {""},
		} {
			got := a.public.signIn(a.dev, "kavach:verify", choice{})
			a.secrets = append(a.secrets, got.Refresh)
			body := "refresh_token=" + got.Refresh + thief[0]
			switch name {
			case "key": // an agent has no refresh grant, and its assertion is all it has
				body = "refresh_token=" + got.Refresh + "&client_assertion_type=" + assertionType + "&client_assertion=" + a.agent.Key.assertion(a.agent.ID, a.Issuer)
				wantOAuth(t, name, a.form(t, "/oauth/token", "grant_type=refresh_token&"+body), 400, "unauthorized_client", "invalid_grant")
			default:
				wantOAuth(t, name, a.form(t, "/oauth/token", "grant_type=refresh_token&"+body, thief[1:]...), 400, "invalid_grant")
			}
			// The family of A is unharmed or revoked, but never half of both.
			live := alive(t, a.Issuer, got.Access)
			again := a.form(t, "/oauth/token", "grant_type=refresh_token&client_id="+a.public.ID+"&refresh_token="+got.Refresh)
			if live != (again.status == http.StatusOK) {
				t.Errorf("%s: access token alive %v, refresh %d %s", name, live, again.status, again.body)
			}
		}
	}},
	{"A-35 A-38 wider, or elsewhere", func(t *testing.T, a *attack) {
		got := a.public.signIn(a.dev, "kavach:verify", choice{})
		a.secrets = append(a.secrets, got.Refresh)
		refresh := func(more string) reply {
			return a.form(t, "/oauth/token", "grant_type=refresh_token&client_id="+a.public.ID+"&refresh_token="+got.Refresh+more)
		}
		for _, scope := range []string{"kavach:admin", "kavach:verify+kavach:delegate", "kavach:verify+kavach:verify2", "KAVACH:VERIFY", "openid", "*", "kavach:*", "kavach:verify%2Ckavach:admin", "agents:manage", "%00"} {
			code := "invalid_scope"
			if scope == "%00" {
				code = "invalid_request"
			}
			wantOAuth(t, scope, refresh("&scope="+scope), 400, code)
		}
		wantOAuth(t, "two scopes", refresh("&scope=kavach:verify&scope=kavach:verify"), 400, "invalid_request")
		for _, resource := range []string{"https://evil.example", a.Issuer + "/api"} {
			wantOAuth(t, resource, refresh("&resource="+url.QueryEscape(resource)), 400, "invalid_target")
		}
		wantChallenge(t, "as Bearer", a.rpc(t, "verify", `{}`, "Authorization", "Bearer "+got.Refresh))
		subject := url.Values{"grant_type": {exchangeGrant}, "subject_token": {got.Refresh}, "subject_token_type": {accessType}}
		wantOAuth(t, "as subject", a.form(t, "/oauth/token", subject.Encode(), "Authorization", basic(a.static.ID, a.static.Secret)), 400, "invalid_request")
		subject.Set("subject_token_type", "urn:ietf:params:oauth:token-type:refresh_token")
		wantOAuth(t, "as subject of its own type", a.form(t, "/oauth/token", subject.Encode(), "Authorization", basic(a.static.ID, a.static.Secret)), 400, "invalid_request")
		if again := refresh(""); again.status != http.StatusOK || again.json(t)["scope"] != "kavach:verify" {
			t.Errorf("after all that: %d %s", again.status, again.body)
		}
	}},
}
