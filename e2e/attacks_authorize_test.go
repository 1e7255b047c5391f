package e2e

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// Redirect URI and authorization endpoint.
var authorizeAttacks = []attackRow{
	{"A-1 unknown client", func(t *testing.T, a *attack) {
		for _, who := range []*person{a.dev, newPerson(t, "", "")} {
			for _, id := range []string{"c-unknown", "", strings.ToUpper(a.web.ID), a.web.ID + " ", a.web.ID + "x", a.web.ID[1:], "https://client.example/metadata", strings.Repeat("x", 4000)} {
				for _, back := range []string{a.web.Redirect, a.public.Redirect, "https://evil.example/"} {
					wantPage(t, id, a.ask(t, a.web, who, url.Values{"client_id": {id}, "redirect_uri": {back}}))
				}
			}
			wantPage(t, "both", a.ask(t, a.web, who, url.Values{"client_id": {a.web.ID, "c-unknown"}}))
			wantPage(t, "not sent", a.ask(t, a.web, who, url.Values{"client_id": nil}))
		}
	}},
	{"A-2 foreign redirect URI", func(t *testing.T, a *attack) {
		for _, who := range []*person{a.dev, newPerson(t, "", "")} {
			wantPage(t, "foreign", a.ask(t, a.web, who, url.Values{"redirect_uri": {"https://evil.example/"}}))
			wantPage(t, "both", a.ask(t, a.web, who, url.Values{"redirect_uri": {a.web.Redirect, "https://evil.example/"}}))
			wantPage(t, "another client's", a.ask(t, a.web, who, url.Values{"redirect_uri": {a.public.Redirect}}))
			wantPage(t, "with an error", a.ask(t, a.web, who, url.Values{"redirect_uri": {"https://evil.example/"}, "response_type": {"token"}, "prompt": {"none"}}))
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
			"javascript:alert(1)", "https://client.example:@evil.example/cb", "https://client.example#@evil.example/cb", "https://client.example/\u202ecb",
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
	{"A-6 no redirect URI where two are registered", func(t *testing.T, a *attack) {
		for _, who := range []*person{a.dev, newPerson(t, "", "")} {
			wantPage(t, "omitted", a.ask(t, a.web, who, url.Values{"redirect_uri": nil}))
			wantPage(t, "empty", a.ask(t, a.web, who, url.Values{"redirect_uri": {""}}))
		}
	}},
	{"A-9 response types", func(t *testing.T, a *attack) {
		for _, kind := range []string{"token", "id_token", "code token", "code id_token", "none", "", "code code", "CODE"} {
			a.wantRedirect(t, kind, a.ask(t, a.public, a.dev, url.Values{"response_type": {kind}}), a.public, "unsupported_response_type")
		}
		a.wantRedirect(t, "not sent", a.ask(t, a.public, a.dev, url.Values{"response_type": nil}), a.public, "unsupported_response_type")
		a.wantRedirect(t, "twice", a.ask(t, a.public, a.dev, url.Values{"response_type": {"code", "token"}}), a.public, "invalid_request")
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
		for _, path := range []string{"/login?login_hint=", "/login?error_description=", "/login?return=", "/login?error=", "/consent?transaction=", "/consent?error_description=", "/account?error_description=", "/logout?error_description=", "/account?error=", "/oauth/authorize?error_hint=", "/oauth/authorize?client_id="} {
			if got := a.send(t, "GET", path+url.QueryEscape(tag), ""); strings.Contains(got.body, tag) || !protected(got) {
				t.Errorf("%s: %s", path, got.body)
			}
		}
		for _, name := range []string{"scope", "state", "client_id", "resource", "error", "error_description", "error_hint", "login_hint", "prompt", "code_challenge"} {
			for _, change := range []url.Values{{name: {tag}}, {name: {tag}, "redirect_uri": {"https://evil.example/"}}, {name: {tag}, "scope": {"bad"}}} {
				for _, who := range []*person{a.dev, newPerson(t, "", "")} {
					got := a.ask(t, a.public, who, change)
					if location, _ := url.Parse(got.header.Get("Location")); strings.Contains(got.body, "<img") || !protected(got) || location.Query().Get("error_description") == tag {
						t.Errorf("%v: %d %v %s", change, got.status, got.header, got.body)
					}
				}
			}
		}
		a.wantRedirect(t, "scope", a.ask(t, a.public, a.dev, url.Values{"scope": {tag}}), a.public, "invalid_scope")
		hinted := newPerson(t, "", "")
		sent := a.ask(t, a.public, hinted, url.Values{"login_hint": {tag}})
		request, _ := http.NewRequestWithContext(t.Context(), "GET", a.Issuer+sent.header.Get("Location"), nil)
		if got := do(t, hinted.http, request); got.status != http.StatusOK || strings.Contains(got.body, "<img") || !strings.Contains(got.body, "&lt;img") || !protected(got) {
			t.Errorf("the login page with a hint: %d %s", got.status, got.body)
		}
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
	{"A-14 one iss where nobody has consented and where they refuse", func(t *testing.T, a *attack) {
		denied, err := a.dev.authorize(register(t, a.Issuer).request("kavach:verify", nil).url, choice{deny: true})
		if err != nil {
			t.Fatal(err)
		}
		if q := denied.Query(); len(q["iss"]) != 1 || q.Get("iss") != a.Issuer || q.Get("error") != "access_denied" || len(q["state"]) != 1 || q.Has("code") {
			t.Errorf("denied: %s", denied)
		}
		for name, change := range map[string]url.Values{"no state": {"state": nil}, "own iss": {"iss": {"https://evil.example"}}, "iss twice": {"iss": {"a", "b"}}} {
			got := a.ask(t, a.public, a.dev, change)
			location, err := url.Parse(got.header.Get("Location"))
			if err != nil || len(location.Query()["iss"]) != 1 || location.Query().Get("iss") != a.Issuer {
				t.Errorf("%s: %d %v", name, got.status, got.header)
			}
		}
	}},
	{"A-17 a form is never sent on", func(t *testing.T, a *attack) {
		for _, body := range []string{"username=dev&password=dev", "username=dev&password=dev&return=%2Fconsent%3Ftransaction%3Dx"} {
			if got := a.form(t, "/login", body, "Origin", a.Issuer); got.status != http.StatusSeeOther {
				t.Errorf("%s: %d", body, got.status)
			}
		}
		for _, body := range []string{"username=dev&password=wrong", "username=&password=", "", "%zz"} {
			if got := a.form(t, "/login", body, "Origin", a.Issuer); got.status >= 300 && got.status < 400 || !protected(got) {
				t.Errorf("%s: %d %v", body, got.status, got.header)
			}
		}
		// 303 also where the authorization endpoint sends on, and out of the session.
		if got := a.ask(t, a.public, a.dev, nil); got.status != http.StatusSeeOther {
			t.Errorf("authorize: %d", got.status)
		}
		if got := a.form(t, "/logout", "", "Origin", a.Issuer); got.status == http.StatusTemporaryRedirect || got.status == http.StatusPermanentRedirect {
			t.Errorf("logout: %d", got.status)
		}
	}},
	{"A-15 request objects", func(t *testing.T, a *attack) {
		address, hits := canary(t)
		a.wantRedirect(t, "request", a.ask(t, a.public, a.dev, url.Values{"request": {"eyJ"}}), a.public, "request_not_supported")
		a.wantRedirect(t, "request_uri", a.ask(t, a.public, a.dev, url.Values{"request_uri": {"http://169.254.169.254/latest"}}), a.public, "request_uri_not_supported")
		a.wantRedirect(t, "request_uri", a.ask(t, a.public, a.dev, url.Values{"request_uri": {address}}), a.public, "request_uri_not_supported")
		if n := hits.Load(); n != 0 {
			t.Errorf("the server fetched request_uri %d times", n)
		}
	}},
}
