package mcp_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
	"github.com/kavach-dev/kavach/mcp"
)

const ping = `{"jsonrpc":"2.0","id":1,"method":"ping"}`

func TestOrigin(t *testing.T) {
	w := newWorld(t)
	token := w.everything()
	for _, c := range []struct {
		name    string
		origins []string
		status  int
	}{
		{"none", nil, 200},
		{"allowed", []string{"https://ok.example"}, 200},
		{"allowed with its port", []string{"https://ok.example:443"}, 200},
		{"issuer", []string{issuer}, 200},
		{"loopback page on a loopback issuer", []string{"http://localhost:6274"}, 200},
		{"loopback IPv6", []string{"http://[::1]:6274"}, 200},
		{"foreign", []string{"https://evil.example"}, 403},
		{"null", []string{"null"}, 403},
		{"duplicate", []string{"https://ok.example", "https://ok.example"}, 403},
		{"suffix", []string{"https://ok.example.evil"}, 403},
		{"prefix", []string{"https://notok.example"}, 403},
		{"other scheme", []string{"http://ok.example"}, 403},
		{"other port", []string{"https://ok.example:444"}, 403},
		{"userinfo", []string{"https://ok.example@evil.example"}, 403},
		{"list in one header", []string{"https://ok.example, https://evil.example"}, 403},
		{"empty", []string{""}, 403},
		{"path", []string{"https://ok.example/x"}, 403},
		{"name that resolves to loopback", []string{"http://127.0.0.1.nip.io"}, 403},
		{"short loopback", []string{"http://127.1"}, 403},
		{"port that is none", []string{"http://127.0.0.1:99999"}, 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			var headers []string
			for _, o := range c.origins {
				headers = append(headers, "Origin", o)
			}
			r := w.send(token, ping, headers...)
			if r.status != c.status {
				t.Fatalf("status %d, want %d: %s", r.status, c.status, r.body)
			}
			allowed := r.header.Get("Access-Control-Allow-Origin")
			if c.status == 403 && (allowed != "" || r.json(t).Get("error").Str() == "") {
				t.Errorf("a refused origin may read %q: %s", allowed, r.body)
			}
			if c.status == 200 && len(c.origins) == 1 && allowed != c.origins[0] {
				t.Errorf("Access-Control-Allow-Origin %q", allowed)
			}
			if r.header.Get("Access-Control-Allow-Credentials") != "" {
				t.Error("credentials mode offered")
			}
		})
	}
}

func TestLoopbackOriginNeedsLoopbackIssuer(t *testing.T) {
	w := newWorld(t, func(c *mcp.Config) { c.Issuer = "https://kavach.example" })
	if r := w.send("", ping, "Host", "kavach.example", "Origin", "http://localhost:6274"); r.status != 403 {
		t.Errorf("status %d", r.status)
	}
	if r := w.send("", ping, "Host", "kavach.example", "Origin", "https://kavach.example"); r.status != 401 {
		t.Errorf("own origin: status %d", r.status)
	}
	for _, host := range []string{"127.0.0.1:8420", "localhost"} {
		if r := w.send("", ping, "Host", host); r.status != 403 {
			t.Errorf("host %s: status %d", host, r.status)
		}
	}
}

func TestHost(t *testing.T) {
	w := newWorld(t, func(c *mcp.Config) { c.Hosts = []string{"kavach.internal"} })
	token := w.everything()
	for host, status := range map[string]int{
		"127.0.0.1:8420": 200, "localhost:9": 200, "LOCALHOST": 200, "[::1]:8420": 200, "kavach.internal": 200, "kavach.internal:80": 200,
		"evil.example": 403, "127.0.0.1.nip.io": 403, "evil.example:8420": 403, "localhost.evil": 403, "127.1": 403,
		"2130706433": 403, "0.0.0.0:8420": 403, "kavach.internal:444": 403, "127.0.0.1:8420.evil.example": 403, "localhost:evil.example": 403,
		"[::1]:8420.evil.example": 403, "127.0.0.1:65536": 403, "127.0.0.1:0": 403, "127.0.0.1:+8420": 403, "127.0.0.1:08420": 403,
	} {
		if r := w.send(token, ping, "Host", host); r.status != status {
			t.Errorf("Host %s: status %d, want %d", host, r.status, status)
		}
	}
}

func TestPreflight(t *testing.T) {
	w := newWorld(t)
	r := w.request(http.MethodOptions, "", "", "Origin", "https://ok.example", "Access-Control-Request-Method", "POST")
	if r.status != http.StatusNoContent || r.header.Get("Access-Control-Allow-Origin") != "https://ok.example" {
		t.Fatalf("%d %v", r.status, r.header)
	}
	for _, name := range []string{"Authorization", "DPoP", "AAT-Proof", "MCP-Protocol-Version", "Mcp-Method", "Mcp-Name", "Mcp-Session-Id", "Last-Event-ID"} {
		if !strings.Contains(r.header.Get("Access-Control-Allow-Headers"), name) {
			t.Errorf("%s is not allowed", name)
		}
	}
	for _, name := range []string{"WWW-Authenticate", "DPoP-Nonce", "MCP-Protocol-Version"} {
		if !strings.Contains(r.header.Get("Access-Control-Expose-Headers"), name) {
			t.Errorf("%s is not exposed", name)
		}
	}
	if r := w.request(http.MethodOptions, "", "", "Origin", "https://evil.example"); r.status != http.StatusForbidden {
		t.Errorf("preflight of a foreign origin: %d", r.status)
	}
	if r := w.request(http.MethodOptions, "", "", "Host", "evil.example"); r.status != http.StatusForbidden {
		t.Errorf("preflight to a foreign host: %d", r.status)
	}
}

func TestCredentials(t *testing.T) {
	w := newWorld(t)
	good := w.everything()
	expired := claims(mcp.ScopeVerify)
	expired.IssuedAt, expired.Expires = time.Now().Add(-time.Hour), time.Now().Add(-time.Second)
	elsewhere := claims(mcp.ScopeVerify)
	elsewhere.Audience = []string{"https://git.example"}
	bound := claims(mcp.ScopeVerify)
	bound.JKT = strings.Repeat("A", 43)
	several := claims(mcp.ScopeVerify)
	several.Audience = []string{"https://git.example", issuer + "/mcp"}
	const metadata = `resource_metadata="` + issuer + `/.well-known/oauth-protected-resource/mcp"`
	bare := `Bearer scope="kavach:audit kavach:delegate kavach:verify", ` + metadata
	for _, c := range []struct {
		name    string
		headers []string
		status  int
		code    string // in the challenge
	}{
		{"none", nil, 401, ""},
		{"basic", []string{"Authorization", "Basic YTpi"}, 401, ""},
		{"empty", []string{"Authorization", "Bearer "}, 401, "invalid_token"},
		{"garbage", []string{"Authorization", "Bearer x.y.z"}, 401, "invalid_token"},
		{"twice in one", []string{"Authorization", "Bearer " + good + ", Bearer " + good}, 401, "invalid_token"},
		{"expired", []string{"Authorization", "Bearer " + w.sign(expired)}, 401, "invalid_token"},
		{"other audience", []string{"Authorization", "Bearer " + w.sign(elsewhere)}, 401, "invalid_token"},
		{"bound as bearer", []string{"Authorization", "Bearer " + w.sign(bound)}, 401, "invalid_token"},
		{"bearer as DPoP", []string{"Authorization", "DPoP " + good}, 401, "invalid_token"},
		{"lower case scheme", []string{"Authorization", "bearer " + good}, 200, ""},
		{"several audiences", []string{"Authorization", "Bearer " + w.sign(several)}, 200, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := w.send("", ping, c.headers...)
			if r.status != c.status {
				t.Fatalf("status %d, want %d: %s", r.status, c.status, r.body)
			}
			challenge := r.header.Get("WWW-Authenticate")
			switch {
			case c.status == 200:
			case c.code == "" && challenge != bare:
				t.Errorf("challenge %s", challenge)
			case c.code != "" && (!strings.HasPrefix(challenge, `Bearer error="`+c.code+`"`) || !strings.Contains(challenge, metadata)):
				t.Errorf("challenge %s", challenge)
			}
			if r.header.Get("Cache-Control") != "no-store" {
				t.Errorf("Cache-Control %q", r.header.Get("Cache-Control"))
			}
		})
	}
	t.Run("in the query", func(t *testing.T) {
		plain := w.url
		defer func() { w.url = plain }()
		w.url += "?access_token=" + good
		if r := w.send("", ping); r.status != 401 || r.header.Get("WWW-Authenticate") != bare {
			t.Errorf("%d %s", r.status, r.header.Get("WWW-Authenticate"))
		}
	})
	t.Run("two headers", func(t *testing.T) {
		if r := w.send(good, ping, "Authorization", "Bearer "+good); r.status != 401 {
			t.Errorf("status %d", r.status)
		}
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.refusals) == 0 {
		t.Error("refusals were not recorded")
	}
	for _, e := range w.refusals {
		if e.Action != audit.TokenRefuse || e.Result != audit.Denied || e.Reason == "" {
			t.Errorf("refusal %+v", e)
		}
	}
}

func TestRevokedTokenIsRecordedWhole(t *testing.T) {
	w := newWorld(t)
	signed, err := delegation.Sign(claims(mcp.ScopeVerify), w.key)
	if err != nil {
		t.Fatal(err)
	}
	w.set(func() { w.revoked[signed.LID] = true })
	if r := w.send(signed.Token, ping); r.status != 401 {
		t.Fatalf("status %d", r.status)
	}
	if e := w.last(); e.Reason != "revoked" || e.Sub != "alice" || len(e.Chain) != 1 || e.Chain[0].LID != signed.LID {
		t.Errorf("%+v", e)
	}
}

// "an unauthenticated GET gets the 401 challenge too: mcp-remote probes that way".
func TestOtherMethods(t *testing.T) {
	w := newWorld(t)
	for _, method := range []string{"GET", "DELETE", "PUT", "HEAD"} {
		if r := w.request(method, "", ""); r.status != 401 || r.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s without a token: %d", method, r.status)
		}
		r := w.request(method, w.everything(), "", "Accept", "text/event-stream")
		if r.status != 405 || !strings.Contains(r.header.Get("Allow"), "POST") {
			t.Errorf("%s with a token: %d, Allow %q", method, r.status, r.header.Get("Allow"))
		}
	}
}

func TestBody(t *testing.T) {
	w := newWorld(t)
	token := w.everything()
	if r := w.send(token, ping+strings.Repeat(" ", 1<<20)); r.status != 413 {
		t.Errorf("1 MiB and more: %d", r.status)
	}
	if r := w.send(token, ping+strings.Repeat(" ", 1<<20-len(ping))); r.status != 200 {
		t.Errorf("exactly 1 MiB: %d %s", r.status, r.body)
	}
	req, err := http.NewRequest("POST", w.url, struct{ *strings.Reader }{strings.NewReader(ping + strings.Repeat(" ", 1<<20))})
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = -1 // chunked: the size is not announced
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 413 {
		t.Errorf("chunked: %d", resp.StatusCode)
	}
	for _, media := range []string{"text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""} {
		req, _ := http.NewRequest("POST", w.url, strings.NewReader(ping))
		req.Header.Set("Authorization", "Bearer "+token)
		req.Header.Set("Content-Type", media)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 415 {
			t.Errorf("content type %q: %d", media, resp.StatusCode)
		}
	}
}

func TestInsufficientScope(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		tool, arguments, needed string
		held                    []string
		challenge               string
	}{
		{"delegate", `{"agent":"coder"}`, "kavach:delegate", []string{"kavach:verify"}, "kavach:delegate kavach:verify"},
		{"audit", `{}`, "kavach:audit", []string{"kavach:verify", "repo:read"}, "kavach:audit kavach:verify repo:read"},
		{"verify", `{"token":"x"}`, "kavach:verify", nil, "kavach:verify"},
		{"revoke", `{"agent":"coder"}`, "kavach:delegate", []string{"audit:read"}, "audit:read kavach:delegate"},
	} {
		t.Run(c.tool, func(t *testing.T) {
			r := w.send(w.token(c.held...), args(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":%q,"arguments":%s}}`, c.tool, c.arguments))
			if r.status != 403 {
				t.Fatalf("status %d: %s", r.status, r.body)
			}
			want := `Bearer error="insufficient_scope", scope="` + c.challenge + `", resource_metadata="` + issuer + `/.well-known/oauth-protected-resource/mcp"`
			if got := r.header.Get("WWW-Authenticate"); got != want {
				t.Errorf("challenge\n%s, want\n%s", got, want)
			}
			if text := r.json(t).Get("error_description").Str(); !strings.Contains(text, c.needed) {
				t.Errorf("description %q", text)
			}
			if e := w.last(); e.Result != audit.Denied || e.Reason != "scope_not_granted" || e.Resource != "kavach/"+c.tool || e.Sub != "alice" {
				t.Errorf("recorded %+v", e)
			}
		})
	}
	if len(w.asks) != 0 || len(w.revokes) != 0 || len(w.queries) != 0 {
		t.Error("a refused call reached what stands behind the tool")
	}
}

func TestRestrictedToken(t *testing.T) {
	w := newWorld(t)
	c := claims(mcp.ScopeVerify, mcp.ScopeAudit)
	c.Tools = delegation.Tools{"verify": delegation.AllowAnyArgs}
	c.Limits.Resources = []string{"kavach/verify", "kavach/audit"}
	token := w.sign(c)
	if v := w.content(token, "verify", `{"token":"x.y.z"}`); v.Get("valid").Bool() {
		t.Errorf("%s", jcs.Canonical(v))
	}
	audited := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"audit","arguments":{}}}`
	r := w.send(token, audited)
	if r.status != 403 || r.header.Get("WWW-Authenticate") != "" || r.json(t).Get("error").Str() != "constraint_violated" {
		t.Errorf("%d %s", r.status, r.body)
	}
	if e := w.last(); e.Reason != "constraint_violated" || e.Action != audit.AuditRead {
		t.Errorf("%+v", e)
	}
	c.Tools, c.Limits.Resources = nil, []string{"repo/1"}
	if r := w.send(w.sign(c), audited); r.status != 403 || !strings.Contains(r.json(t).Get("error_description").Str(), "resource") {
		t.Errorf("%d %s", r.status, r.body)
	}
	// The lists give nothing away, so a restricted token can still find out.
	if r := w.send(token, `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`); r.status != 200 {
		t.Errorf("tools/list: %d", r.status)
	}
}

func TestLogDown(t *testing.T) {
	w := newWorld(t)
	w.set(func() { w.logDown = true })
	for tool, arguments := range map[string]string{
		"verify": `{"token":"x.y.z"}`, "audit": `{}`, "delegate": `{"agent":"x","bad":1}`, "revoke": `{}`,
	} {
		if text := w.refusal(w.everything(), tool, arguments); !strings.HasPrefix(text, "refused: temporarily_unavailable") {
			t.Errorf("%s: %s", tool, text)
		}
	}
	r := w.send(w.token(), `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"verify","arguments":{"token":"x"}}}`)
	if r.status != 503 || r.header.Get("Retry-After") == "" || r.json(t).Get("error").Str() != "temporarily_unavailable" {
		t.Errorf("refusal: %d %s", r.status, r.body)
	}
	r = w.send(w.token(), `{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"kavach://identity"}}`)
	if r.status != 503 || r.header.Get("Retry-After") == "" || !r.json(t).Get("error").Exists() {
		t.Errorf("resources/read: %d %s", r.status, r.body)
	}
}
