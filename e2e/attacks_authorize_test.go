package e2e

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// Redirect URI and authorization endpoint.
var authorizeAttacks = []attackRow{
	{"A-2 foreign redirect URI", func(t *testing.T, a *attack) {
		for _, who := range []*person{a.dev, newPerson(t, "", "")} {
			wantPage(t, "foreign", a.ask(t, a.web, who, url.Values{"redirect_uri": {"https://evil.example/"}}))
			wantPage(t, "both", a.ask(t, a.web, who, url.Values{"redirect_uri": {a.web.Redirect, "https://evil.example/"}}))
		}
	}},
	{"A-3 mutations of the registered URI", func(t *testing.T, a *attack) {
		uri := a.web.Redirect
		for _, m := range []string{
			uri + "/", uri + "?a=b", uri + "?", uri + "#f", uri + "#", " " + uri, uri + " ", uri + ";x", "HTTPS" + uri[5:],
			"https://CLIENT.example/cb", "https://client.example:443/cb", "https://user@client.example/cb", "https://client.example/cb/../cb",
			"https://client.example/..;/cb", "https://client.example/%2e%2e/cb", "https://client.example/%63b", `https://client.example\cb`,
			"https://client.example//evil/cb", "https://client.example@evil.example/cb", "https://evil.client.example/cb",
			"https://client.example.evil/cb", "https://client.example/c\tb", "https://client.example/cb\n", "https://client.example/cb\x00",
			"https://cl\u0456ent.example/cb", "https://client.example./cb", "https://client.example:0/cb", "https://client.example/%2563b",
			"http://client.example/cb", "//client.example/cb", "https:/client.example/cb", "https:client.example/cb", "https://client.example/CB",
			"javascript:alert(1)",
		} {
			wantPage(t, m, a.ask(t, a.web, a.dev, url.Values{"redirect_uri": {m}}))
		}
	}},
	{"A-5 mutations of a loopback URI", func(t *testing.T, a *attack) {
		for _, m := range []string{
			"https://127.0.0.1:4711/callback", "http://user@127.0.0.1:4711/callback", "http://127.0.0.1/%63allback", "http://127.0.0.1/callback?x=1",
			"http://127.0.0.2/callback", "http://127.1/callback", "http://0x7f.1/callback", "http://2130706433/callback",
			"http://[::ffff:127.0.0.1]/callback", "http://localhost.evil/callback", "http://localhost/callback", "http://127.0.0.1:99999999/callback",
			"http://127.0.0.1:65536/callback", "http://127.0.0.1:0/callback", "http://127.0.0.1:/callback", "http://127.0.0.1:080/callback",
			"http://127.0.0.1/callback#", "http://127.0.0.1:80@evil.example/callback", "http://127.0.0.1.evil.example/callback",
		} {
			wantPage(t, m, a.ask(t, a.public, a.dev, url.Values{"redirect_uri": {m}}))
		}
	}},
	{"A-9 response types", func(t *testing.T, a *attack) {
		for _, kind := range []string{"token", "id_token", "code token", "code id_token", "none", "", "code code", "CODE"} {
			a.wantRedirect(t, kind, a.ask(t, a.public, a.dev, url.Values{"response_type": {kind}}), a.public, "unsupported_response_type")
		}
	}},
	{"A-10 response modes", func(t *testing.T, a *attack) {
		for _, mode := range []string{"fragment", "form_post", "web_message", "query.jwt"} {
			a.wantRedirect(t, mode, a.ask(t, a.public, a.dev, url.Values{"response_mode": {mode}}), a.public, "invalid_request")
		}
	}},
	{"A-11 no redirect before anybody acts", func(t *testing.T, a *attack) {
		for _, change := range []url.Values{{"prompt": {"none"}}, {"scope": {"bad"}}, {"response_type": {"token"}}, {"state": {"a", "b"}}} {
			got := a.ask(t, a.web, newPerson(t, "", ""), change)
			if l := got.header.Get("Location"); got.status != http.StatusBadRequest && !strings.HasPrefix(l, "/login?") {
				t.Errorf("%v: %d %s", change, got.status, l)
			}
		}
	}},
	{"A-13 nothing is reflected", func(t *testing.T, a *attack) {
		const tag = "<img src=x onerror=alert(1)>"
		for _, path := range []string{"/login?login_hint=", "/login?error_description=", "/consent?transaction=", "/account?error=", "/oauth/authorize?error_hint=", "/oauth/authorize?client_id="} {
			if got := a.send(t, "GET", path+url.QueryEscape(tag), ""); strings.Contains(got.body, tag) || !protected(got) {
				t.Errorf("%s: %s", path, got.body)
			}
		}
		a.wantRedirect(t, "scope", a.ask(t, a.public, a.dev, url.Values{"scope": {tag}}), a.public, "invalid_scope")
	}},
	{"A-14 exactly one iss", func(t *testing.T, a *attack) {
		var metadata map[string]any
		getJSON(t, a.Issuer+"/.well-known/oauth-authorization-server", &metadata)
		back, err := a.dev.authorize(a.public.request("kavach:verify", nil).url, choice{})
		if err != nil {
			t.Fatal(err)
		}
		if iss := back.Query()["iss"]; len(iss) != 1 || iss[0] != metadata["issuer"] || metadata["authorization_response_iss_parameter_supported"] != true {
			t.Errorf("success: iss %v, metadata %v", iss, metadata["issuer"])
		}
		a.wantRedirect(t, "error", a.ask(t, a.public, a.dev, url.Values{"scope": {"bad"}}), a.public, "invalid_scope")
	}},
	{"A-15 request objects", func(t *testing.T, a *attack) {
		a.wantRedirect(t, "request", a.ask(t, a.public, a.dev, url.Values{"request": {"eyJ"}}), a.public, "request_not_supported")
		a.wantRedirect(t, "request_uri", a.ask(t, a.public, a.dev, url.Values{"request_uri": {"http://169.254.169.254/latest"}}), a.public, "request_uri_not_supported")
	}},
}

// PKCE and code.
var codeAttacks = []attackRow{
	{"A-19 no challenge", func(t *testing.T, a *attack) {
		for _, challenge := range [][]string{nil, {""}, {strings.Repeat("a", 42)}, {strings.Repeat("a", 44)}, {strings.Repeat("a", 42) + "="}} {
			a.wantRedirect(t, strings.Join(challenge, ""), a.ask(t, a.public, a.dev, url.Values{"code_challenge": challenge}), a.public, "invalid_request")
		}
	}},
	{"A-21 challenge methods", func(t *testing.T, a *attack) {
		for _, method := range [][]string{{"plain"}, nil, {"s256"}, {"S512"}, {"S256 "}} {
			a.wantRedirect(t, strings.Join(method, ""), a.ask(t, a.public, a.dev, url.Values{"code_challenge_method": method}), a.public, "invalid_request")
		}
	}},
	{"A-22 A-25 wrong verifiers leave the code alone", func(t *testing.T, a *attack) {
		r := a.public.request("kavach:verify", nil)
		back, err := a.dev.authorize(r.url, choice{})
		if err != nil {
			t.Fatal(err)
		}
		code := back.Query().Get("code")
		a.secrets = append(a.secrets, code, r.verifier)
		good := url.Values{"grant_type": {"authorization_code"}, "client_id": {a.public.ID}, "redirect_uri": {a.public.Redirect}, "code": {code}, "code_verifier": {r.verifier}}
		with := func(name string, value ...string) string {
			changed := url.Values{}
			for k, v := range good {
				changed[k] = v
			}
			changed[name] = value
			return changed.Encode()
		}
		sum := sha256.Sum256([]byte(r.verifier))
		for _, verifier := range [][]string{nil, {""}, {base64.RawURLEncoding.EncodeToString(sum[:])}, {r.verifier + "x"}, {strings.Repeat("x", 200)}} {
			wantOAuth(t, "verifier", a.form(t, "/oauth/token", with("code_verifier", verifier...)), 400, "invalid_grant")
		}
		wantOAuth(t, "A-7", a.form(t, "/oauth/token", with("redirect_uri", "https://evil.example/")), 400, "invalid_grant")
		wantOAuth(t, "A-30", a.form(t, "/oauth/token", with("resource", a.Issuer+"/api")), 400, "invalid_target")
		wantOAuth(t, "other client", a.form(t, "/oauth/token", with("client_id", a.other.ID)), 400, "invalid_grant")
		for i := range code {
			flipped := code[:i] + "A" + code[i+1:]
			if flipped == code {
				flipped = code[:i] + "B" + code[i+1:]
			}
			wantOAuth(t, flipped, a.form(t, "/oauth/token", with("code", flipped)), 400, "invalid_grant")
		}
		if got := a.form(t, "/oauth/token", good.Encode()); got.status != http.StatusOK {
			t.Errorf("after all that: %d %s", got.status, got.body)
		}
		wantOAuth(t, "again", a.form(t, "/oauth/token", good.Encode()), 400, "invalid_grant")
	}},
}
