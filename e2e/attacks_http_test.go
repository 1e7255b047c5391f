package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

// consentPattern finds the ids in a consent form: the transaction and the
// person it was shown to.
var consentPattern = regexp.MustCompile(`name="transaction" value="([^"]+)">\s*<input type="hidden" name="person" value="([^"]+)"`)

// Login, session, consent, browser.
var pageAttacks = []attackRow{
	{"A-111 consent answered by somebody else", func(t *testing.T, a *attack) {
		fresh := register(t, a.Issuer)
		shown := a.ask(t, fresh, a.dev, nil)
		request, _ := http.NewRequestWithContext(t.Context(), "GET", a.Issuer+shown.header.Get("Location"), nil)
		found := consentPattern.FindStringSubmatch(do(t, a.dev.http, request).body)
		if found == nil {
			t.Fatal("no consent page")
		}
		post := func(who *person, transaction string, pairs ...string) reply {
			body := url.Values{"transaction": {transaction}, "person": {found[2]}, "decision": {"approve"}, "scope": {"kavach:verify", "kavach:admin"}}
			request, _ := http.NewRequestWithContext(t.Context(), "POST", a.Issuer+"/consent", strings.NewReader(body.Encode()))
			request.Header.Set("Content-Type", formType)
			for i := 0; i < len(pairs); i += 2 {
				request.Header.Set(pairs[i], pairs[i+1])
				if pairs[i] == "Host" {
					request.Host = pairs[i+1]
				}
			}
			return do(t, who.http, request)
		}
		forbidden := func(what string, got reply) {
			t.Helper()
			if got.status != http.StatusForbidden || got.header.Get("Location") != "" || strings.Contains(got.body, "code=") || !protected(got) {
				t.Errorf("%s: %d %s", what, got.status, got.body)
			}
		}
		stranger := newPerson(t, "dev", "dev")
		if _, err := stranger.authorize(fresh.request("kavach:verify", nil).url, choice{deny: true}); err != nil {
			t.Fatal(err)
		}
		forbidden("no transaction", post(a.dev, ""))
		forbidden("made-up transaction", post(a.dev, strings.Repeat("A", 43)))
		forbidden("another browser", post(stranger, found[1]))
		forbidden("nobody", post(newPerson(t, "", ""), found[1]))
		for _, header := range [][]string{
			{"Origin", "https://evil.example"}, {"Origin", "null"}, {"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"},
			{"Sec-Fetch-Site", "cross-site", "Origin", a.Issuer}, {"Host", "evil.example", "Origin", "http://evil.example"},
		} {
			forbidden(fmt.Sprint(header), post(a.dev, found[1], header...))
		}
		got := post(a.dev, found[1], "Origin", a.Issuer, "Sec-Fetch-Site", "same-origin")
		if got.status != http.StatusOK || !strings.Contains(got.body, "code=") {
			t.Errorf("the real answer: %d %s", got.status, got.body)
		}
		forbidden("answered already", post(a.dev, found[1]))
	}},
	{"A-114 A-115 A-18 headers of every page", func(t *testing.T, a *attack) {
		for _, path := range []string{"/login", "/consent", "/account", "/logout", "/setup", "/oauth/authorize", "/nothing", "/", "/login/", "/LOGIN"} {
			for _, method := range []string{"GET", "POST", "PUT", "OPTIONS", "TRACE"} {
				got := a.send(t, method, path, "", "Origin", "https://evil.example", "Access-Control-Request-Method", "POST")
				if !protected(got) || got.header.Get("Access-Control-Allow-Origin") != "" {
					t.Errorf("%s %s: %d %v", method, path, got.status, got.header)
				}
			}
		}
	}},
	{"A-117 cookies", func(t *testing.T, a *attack) {
		got := a.form(t, "/login", "username=dev&password=dev", "Origin", a.Issuer)
		cookie := got.header.Get("Set-Cookie")
		if got.status != http.StatusSeeOther || !strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "SameSite=Lax") || !strings.Contains(cookie, "Path=/") {
			t.Errorf("%d %s", got.status, cookie)
		}
		value, _, _ := strings.Cut(strings.TrimPrefix(cookie, "kavach="), ";")
		a.secrets = append(a.secrets, value)
		for _, tampered := range []string{value[:len(value)-8], "x", strings.Repeat("A", len(value)), value[8:]} {
			if got := a.send(t, "GET", "/account", "", "Cookie", "kavach="+tampered); got.status != http.StatusSeeOther {
				t.Errorf("a tampered cookie: %d", got.status)
			}
		}
		for _, back := range []string{"https://evil.example", "//evil.example", `/\evil.example`, "/\t/evil.example", "/x\r\nSet-Cookie: a=b", "javascript:x", "/a/..//evil.example"} {
			got := a.form(t, "/login", "username=dev&password=dev&return="+url.QueryEscape(back))
			if got.status != http.StatusSeeOther || got.header.Get("Location") != "/account" {
				t.Errorf("return %q: %d %s", back, got.status, got.header.Get("Location"))
			}
		}
	}},
}

// Token endpoint, introspection, metadata, the MCP endpoint.
var endpointAttacks = []attackRow{
	{"A-81 A-82 forms that are none", func(t *testing.T, a *attack) {
		authorization := []string{"Authorization", basic(a.static.ID, a.static.Secret)}
		wantOAuth(t, "GET", a.send(t, "GET", "/oauth/token?grant_type=client_credentials", "", authorization...), 405, "invalid_request")
		wantOAuth(t, "query", a.form(t, "/oauth/token?grant_type=client_credentials", "", authorization...), 400, "invalid_request")
		for _, kind := range []string{"", "application/json", "multipart/form-data; boundary=x", "text/plain", formType + "; charset=utf-16", formType + ", text/plain"} {
			wantOAuth(t, kind, a.send(t, "POST", "/oauth/token", "grant_type=client_credentials", append(authorization, "Content-Type", kind)...), 400, "invalid_request")
		}
		wantOAuth(t, "gzip", a.form(t, "/oauth/token", "\x1f\x8b", append(authorization, "Content-Encoding", "gzip")...), 400, "invalid_request")
		for body, code := range map[string]string{
			"grant_type=client_credentials&grant_type=client_credentials": "invalid_request", "grant_type=client_credentials&scope=kavach:verify&scope=kavach:verify": "invalid_request",
			"%zz": "invalid_request", "a;b": "invalid_request", "grant_type=%ff": "invalid_request", "grant_type=client_credentials%00": "invalid_request", "": "invalid_request",
			"grant_type=authorization_code+refresh_token": "unsupported_grant_type", "grant_type=password": "unsupported_grant_type",
			"grant_type=urn:ietf:params:oauth:grant-type:token-exchange": "invalid_request", "grant_type=CLIENT_CREDENTIALS": "unsupported_grant_type",
		} {
			wantOAuth(t, body, a.form(t, "/oauth/token", body, authorization...), 400, code)
		}
		wantOAuth(t, "large", a.form(t, "/oauth/token", strings.Repeat("a=1&", 20<<10), authorization...), 413, "invalid_request")
	}},
	{"A-83 A-86 introspection by nobody", func(t *testing.T, a *attack) {
		for _, header := range [][]string{nil, {"Authorization", basic(a.static.ID, "x")}, {"Authorization", "Bearer " + a.machine}, {"Authorization", basic(a.public.ID, "")}} {
			wantOAuth(t, fmt.Sprint(header), a.form(t, "/oauth/introspect", "token="+a.machine, header...), 401, "invalid_client")
		}
		wantOAuth(t, "public", a.form(t, "/oauth/introspect", "token="+a.tokens.Access+"&client_id="+a.public.ID), 401, "invalid_client")
	}},
	{"A-85 introspection of anything else", func(t *testing.T, a *attack) {
		for _, token := range []string{"x", "a.b.c", "' OR 1=1--", a.tokens.Refresh, a.tokens.Access, forge(`{"alg":"ES256"}`, `{"iss":"https://other.example"}`), strings.Repeat("x", 1<<20), strings.Repeat(".", 50000)} {
			got := a.form(t, "/oauth/introspect", "token="+url.QueryEscape(token), "Authorization", basic(a.static.ID, a.static.Secret))
			if got.status != http.StatusOK || strings.TrimSpace(got.body) != `{"active":false}` {
				t.Errorf("%.40s: %d %s", token, got.status, got.body)
			}
		}
	}},
	{"A-91 A-93 metadata and keys", func(t *testing.T, a *attack) {
		for _, path := range []string{"/.well-known/oauth-authorization-server", "/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource", "/.well-known/jwks.json"} {
			plain := a.send(t, "GET", path, "")
			forged := a.send(t, "GET", path, "", "Host", "evil.example", "X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "https", "Forwarded", "host=evil.example;proto=https")
			if plain.status != http.StatusOK || plain.body != forged.body {
				t.Errorf("%s: %d %s, %s", path, plain.status, plain.body, forged.body)
			}
		}
		var set struct {
			Keys []map[string]any `json:"keys"`
		}
		response := getJSON(t, a.Issuer+"/.well-known/jwks.json", &set)
		if len(set.Keys) == 0 || !strings.Contains(response.Header.Get("Cache-Control"), "max-age=") {
			t.Errorf("%v %v", set, response.Header)
		}
		for _, key := range set.Keys {
			for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "k", "oth"} {
				if key[private] != nil {
					t.Errorf("key %v has %s", key["kid"], private)
				}
			}
		}
	}},
	{"A-125 A-126 other origins and hosts", func(t *testing.T, a *attack) {
		token := []string{"Authorization", "Bearer " + a.machine}
		for _, header := range [][]string{
			{"Origin", "https://evil.example"}, {"Origin", "null"}, {"Origin", a.Issuer + ".evil.example"}, {"Origin", a.Issuer, "Origin", "https://evil.example"}, {"Origin", "http://127.1"},
			{"Host", "evil.example"}, {"Host", "127.0.0.1.nip.io"}, {"Host", "localhost.evil.example"},
		} {
			got := a.rpc(t, "verify", `{"token":"x","audience":"x"}`, append(header, token...)...)
			if got.status != http.StatusForbidden || got.header.Get("Access-Control-Allow-Origin") != "" {
				t.Errorf("%v: %d %v", header, got.status, got.header)
			}
		}
	}},
	{"A-127 missing and malformed tokens", func(t *testing.T, a *attack) {
		for _, header := range [][]string{nil, {"Authorization", "Basic eDp4"}, {"Cookie", "access_token=" + a.machine}, {"Proxy-Authorization", "Bearer " + a.machine}} {
			got := a.rpc(t, "verify", `{}`, header...)
			if c := got.header.Get("WWW-Authenticate"); got.status != 401 || !strings.HasPrefix(c, "Bearer ") || !strings.Contains(c, "resource_metadata=") || strings.Contains(c, "error=") {
				t.Errorf("%v: %d %s", header, got.status, c)
			}
		}
		bearer := "Bearer " + a.machine
		for _, header := range [][]string{
			{"Authorization", "Bearer " + bearer}, {"Authorization", bearer, "Authorization", bearer}, {"Authorization", bearer + ", " + bearer},
			{"Authorization", "Bearer"}, {"Authorization", "Basic eDp4", "Authorization", bearer}, {"Authorization", bearer + " x"},
		} {
			wantChallenge(t, fmt.Sprint(header), a.rpc(t, "verify", `{}`, header...))
		}
		if got := a.send(t, "POST", "/mcp?access_token="+a.machine, `{"jsonrpc":"2.0","id":1,"method":"ping"}`, "Content-Type", "application/json"); got.status != http.StatusUnauthorized {
			t.Errorf("token in the query: %d", got.status)
		}
	}},
	{"A-129 too little scope", func(t *testing.T, a *attack) {
		for tool, needs := range map[string]string{"delegate": "kavach:delegate kavach:verify", "audit": "kavach:audit kavach:verify", "revoke": "kavach:delegate kavach:verify"} {
			got := a.rpc(t, tool, `{}`, "Authorization", "Bearer "+a.machine)
			c := got.header.Get("WWW-Authenticate")
			if got.status != http.StatusForbidden || !strings.Contains(c, `error="insufficient_scope"`) || !strings.Contains(c, `scope="`+needs+`"`) || !strings.Contains(c, "resource_metadata=") {
				t.Errorf("%s: %d %s", tool, got.status, c)
			}
		}
	}},
	{"A-143 SQL in every string", func(t *testing.T, a *attack) {
		authorization := []string{"Authorization", basic(a.static.ID, a.static.Secret)}
		for _, sql := range []string{`' OR '1'='1`, `1; DROP TABLE clients;--`, `" OR ""="`, `\'; SELECT pg_sleep(5)--`, `%' UNION SELECT 1--`, `$1`, `?`} {
			q := url.QueryEscape(sql)
			for _, grant := range []string{"authorization_code&code=" + q + "&code_verifier=" + q, "refresh_token&refresh_token=" + q} {
				wantOAuth(t, sql, a.form(t, "/oauth/token", "grant_type="+grant+"&client_id="+a.public.ID), 400, "invalid_grant")
				wantOAuth(t, sql, a.form(t, "/oauth/token", "grant_type="+grant+"&client_id="+q), 401, "invalid_client")
			}
			wantOAuth(t, sql, a.form(t, "/oauth/token", "grant_type="+q, authorization...), 400, "unsupported_grant_type")
			wantOAuth(t, sql, a.form(t, "/oauth/token", "grant_type=client_credentials&scope="+q, authorization...), 400, "invalid_scope")
			wantOAuth(t, sql, a.form(t, "/oauth/token", "grant_type=client_credentials&resource="+q, authorization...), 400, "invalid_target")
			wantOAuth(t, sql, a.form(t, "/oauth/introspect", "token=x", "Authorization", basic(sql, sql)), 401, "invalid_client")
			if got := a.form(t, "/oauth/revoke", "token="+q, authorization...); got.status != http.StatusOK {
				t.Errorf("revoke %s: %d", sql, got.status)
			}
			wantPage(t, sql, a.ask(t, a.public, a.dev, url.Values{"client_id": {sql}}))
			a.wantRedirect(t, sql, a.ask(t, a.public, a.dev, url.Values{"scope": {sql}}), a.public, "invalid_scope")
			a.wantRedirect(t, sql, a.ask(t, a.public, a.dev, url.Values{"resource": {sql}}), a.public, "invalid_target")
			argument, _ := json.Marshal(map[string]string{"agent": sql})
			for _, tool := range []string{"audit", "revoke"} {
				if got := a.rpc(t, tool, string(argument), "Authorization", "Bearer "+a.tokens.Access); got.status != http.StatusOK || strings.Contains(got.body, `"seq"`) {
					t.Errorf("%s %s: %d %s", tool, sql, got.status, got.body)
				}
			}
		}
		if got := a.form(t, "/login", "username="+url.QueryEscape(`dev' --`)+"&password="+url.QueryEscape(`' OR '1'='1`)); got.status != http.StatusForbidden {
			t.Errorf("login: %d", got.status)
		}
	}},
}

// raw sends bytes on a connection of its own and reads until it is closed.
func (a *attack) raw(t *testing.T, text string) string {
	t.Helper()
	connection, err := net.Dial("tcp", a.direct())
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	connection.SetDeadline(time.Now().Add(3 * time.Second))
	_, _ = io.WriteString(connection, text) // the server may answer before it has read all
	answer, _ := io.ReadAll(connection)
	return string(answer)
}

// Transport.
var transportAttacks = []attackRow{
	{"A-139 A-91 framing", func(t *testing.T, a *attack) {
		host := "Host: " + strings.TrimPrefix(a.Issuer, "http://") + "\r\n"
		smuggled := "GET /.well-known/jwks.json HTTP/1.1\r\n" + host + "\r\n"
		for name, text := range map[string]string{
			"CL and TE": "POST /oauth/token HTTP/1.1\r\n" + host + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled,
			"two CL":    "POST /oauth/token HTTP/1.1\r\n" + host + "Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcd" + smuggled,
			"xchunked":  "POST /oauth/token HTTP/1.1\r\n" + host + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + smuggled,
			"NUL":       "GET /login HTTP/1.1\r\n" + host + "X: a\x00b\r\n\r\n" + smuggled,
			"two hosts": "GET /login HTTP/1.1\r\n" + host + host + "\r\n" + smuggled,
			"large":     "GET /login HTTP/1.1\r\n" + host + "X: " + strings.Repeat("a", 64<<10) + "\r\n\r\n" + smuggled,
		} {
			got := a.raw(t, text)
			if strings.Count(got, "HTTP/1.1 ") != 1 || strings.Contains(got, `"keys"`) || strings.HasPrefix(got, "HTTP/1.1 2") || !strings.Contains(got, "Connection: close") {
				t.Errorf("%s: %s", name, got)
			}
		}
		got := a.raw(t, "GET http://evil.example/.well-known/oauth-authorization-server HTTP/1.1\r\n"+host+"Connection: close\r\n\r\n")
		if strings.Contains(got, "evil") || !strings.Contains(got, a.Issuer) {
			t.Errorf("absolute form: %s", got)
		}
	}},
	{"A-145 other spellings of a path", func(t *testing.T, a *attack) {
		for _, path := range []string{
			"//oauth/token", "/oauth//token", "/oauth/token/", "/OAUTH/TOKEN", "/oauth/./token", "/oauth/../oauth/token", "/oauth/%2e%2e/oauth/token", "/oauth%2ftoken", "/oauth/token;x",
			"/oauth/token%00", "/.well-known/..%2foauth%2ftoken", "/.well-known/../oauth/token", "/oauth", "/.well-known", "//mcp", "/mcp/", "/MCP", "//login", "/login/../mcp", "//evil.example/..",
			"/api//v1/agents", "/metrics", "/debug/pprof/", "/healthz",
		} {
			for _, method := range []string{"GET", "POST"} {
				got := a.raw(t, method+" "+path+" HTTP/1.1\r\nHost: "+strings.TrimPrefix(a.Issuer, "http://")+"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
				refused := strings.HasPrefix(got, "HTTP/1.1 404 ") || strings.HasPrefix(got, "HTTP/1.1 405 ")
				if !refused || strings.Contains(got, "Location:") || !strings.Contains(got, "Cache-Control: no-store") ||
					strings.Contains(got, "text/html") && !strings.Contains(got, "frame-ancestors 'none'") {
					t.Errorf("%s %s: %.400s", method, path, got)
				}
			}
		}
	}},
}
