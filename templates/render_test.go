package templates_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/templates"
)

const evil = `"><img src=x onerror=alert(1)><script>alert(2)</script>'{{.}}`

var quoted = regexp.MustCompile(`"[^"]*"`)

// everyPage is one of each, filled with what an attacker would type.
func everyPage() []templates.Page {
	scope := templates.ConsentScope{Name: evil, Text: evil, Sensitive: true, Ticked: true}
	resource := templates.ConsentResource{Name: evil, Identifier: evil, Scopes: []templates.ConsentScope{scope, {Name: "bare"}}}
	return []templates.Page{
		templates.Login{Name: evil, Return: evil, Problem: evil, Dev: true},
		templates.Setup{Name: evil, Problem: evil, Rules: evil},
		templates.Account{Name: evil, ID: evil, Role: evil, RoleText: evil, Notice: evil, Problem: evil, Rules: evil,
			Sessions: []templates.SessionRow{{ID: evil, Device: evil, Network: evil, Current: true}, {ID: "other"}}},
		templates.Consent{Transaction: evil, User: evil, ClientName: evil, ClientID: evil, ClientHost: evil,
			RedirectURI: evil, RedirectHost: evil, Loopback: true, Resources: []templates.ConsentResource{resource},
			HandOn: []templates.ConsentResource{resource}, Held: []templates.ConsentScope{scope}, Problem: evil,
			AccessLifetime: 10 * time.Minute, GrantLifetime: 90 * 24 * time.Hour},
		templates.Continue{URL: "https://app.example/cb?code=a&state=%3Cscript%3E", ClientName: evil, Host: evil},
		templates.Continue{URL: "https://app.example/cb?error=access_denied", ClientName: evil, Host: evil, Denied: true},
		templates.Error{Title: evil, Message: evil, Hint: evil, Code: evil, Retry: time.Second, Link: "/account", LinkText: evil},
		templates.SignedOut{Ask: true, Name: evil},
		templates.SignedOut{},
	}
}

func render(t *testing.T, issuer string, status int, page templates.Page) (*http.Response, string) {
	t.Helper()
	p, err := templates.New(templates.Config{Issuer: issuer, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	p.Render(rec, status, page)
	res := rec.Result()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

func TestEveryPageCarriesItsProtection(t *testing.T) {
	for _, page := range everyPage() {
		res, body := render(t, "https://auth.example", 200, page)
		csp := res.Header.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"} {
			if !strings.Contains(csp, part) {
				t.Errorf("%T: policy %q lacks %s", page, csp, part)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") || strings.Contains(csp, "http") {
			t.Errorf("%T: policy %q opens a door", page, csp)
		}
		for name, want := range map[string]string{
			"X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
			"Cache-Control": "no-store", "Content-Type": "text/html; charset=utf-8", "Strict-Transport-Security": "max-age=31536000",
		} {
			if got := res.Header.Get(name); got != want {
				t.Errorf("%T: %s is %q, want %q", page, name, got, want)
			}
		}
		nonce := regexp.MustCompile(`script-src 'nonce-([^']+)'`).FindStringSubmatch(csp)[1]
		for _, tag := range regexp.MustCompile(`<(script|style)[^>]*>`).FindAllString(body, -1) {
			if !strings.Contains(tag, `nonce="`+nonce+`"`) {
				t.Errorf("%T: %s runs without the nonce of the policy", page, tag)
			}
		}
		if regexp.MustCompile(`(?i)<[^>]*\s(on[a-z]+|style)\s*=`).MatchString(quoted.ReplaceAllString(body, `""`)) {
			t.Errorf("%T: an attribute that the policy blocks, or that an attacker wrote", page)
		}
		if strings.Contains(body, "<img") || strings.Contains(body, "<script>") || strings.Contains(body, "{{") && !strings.Contains(body, "&#39;{{.}}") {
			t.Errorf("%T: a value came out as HTML", page)
		}
		if strings.Contains(body, "ZgotmplZ") {
			t.Errorf("%T: html/template refused a value", page)
		}
		// No page asks for anything from anywhere else.
		if m := regexp.MustCompile(`(?i)(src|@import|url\()\s*[=(]?\s*["']?(https?:)?//`).FindString(body); m != "" {
			t.Errorf("%T: an outside asset: %s", page, m)
		}
	}
}

func TestNonceIsNewForEveryAnswer(t *testing.T) {
	a, _ := render(t, "https://auth.example", 200, templates.SignedOut{})
	b, _ := render(t, "https://auth.example", 200, templates.SignedOut{})
	if a.Header.Get("Content-Security-Policy") == b.Header.Get("Content-Security-Policy") {
		t.Fatal("two answers have one nonce")
	}
}

func TestNoTransportSecurityOverHTTP(t *testing.T) {
	res, _ := render(t, "http://127.0.0.1:8420", 200, templates.Login{})
	if got := res.Header.Get("Strict-Transport-Security"); got != "" {
		t.Fatalf("an http issuer sent Strict-Transport-Security %q", got)
	}
}

func TestEveryInputHasALabel(t *testing.T) {
	input := regexp.MustCompile(`<input[^>]*>`)
	id := regexp.MustCompile(` id="([^"]+)"`)
	for _, page := range everyPage() {
		_, body := render(t, "http://127.0.0.1:8420", 200, page)
		for _, tag := range input.FindAllString(body, -1) {
			if strings.Contains(tag, `type="hidden"`) || strings.Contains(tag, " hidden>") {
				continue
			}
			if strings.Contains(tag, `type="checkbox"`) {
				if !strings.Contains(body, `<label class="tick">`+tag) {
					t.Errorf("%T: no label around %s", page, tag)
				}
				continue
			}
			if m := id.FindStringSubmatch(tag); m == nil || !strings.Contains(body, `<label for="`+m[1]+`">`) {
				t.Errorf("%T: no label for %s", page, tag)
			}
		}
		if n := strings.Count(body, "<h1>"); n != 1 {
			t.Errorf("%T: %d first headings", page, n)
		}
	}
}

func TestConsentForm(t *testing.T) {
	_, body := render(t, "http://127.0.0.1:8420", 200, templates.Consent{
		Transaction: "txn", ClientName: "An \u202eapp\u0000\n with\u200b marks", RedirectHost: "127.0.0.1:6274", Loopback: true,
		Resources: []templates.ConsentResource{{Identifier: "https://a.example/", Scopes: []templates.ConsentScope{{Name: "a:read", Ticked: true}}}},
		HandOn:    []templates.ConsentResource{{Identifier: "https://b.example/", Scopes: []templates.ConsentScope{{Name: "b:read"}}}},
	})
	for _, want := range []string{
		`action="/consent"`, `<input type="hidden" name="transaction" value="txn">`,
		`<input type="checkbox" name="scope" value="a:read" checked>`,
		`<input type="checkbox" name="scope" value="b:read">`,
		`name="decision" value="approve"`, `name="decision" value="deny"`,
		`<bdi>An app with marks</bdi>`, `127.0.0.1:6274`, `This app runs on your computer.`, `nobody has checked who made it`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if strings.Index(body, "https://b.example/") < strings.Index(body, "What it may hand on") {
		t.Error("what may be handed on stands among what is asked for")
	}
}

func TestContinueNavigates(t *testing.T) {
	for raw, escaped := range map[string]string{
		"https://app.example/cb?code=a&state=b":              "https://app.example/cb?code=a&amp;state=b",
		"http://127.0.0.1:6274/cb?code=a":                    "http://127.0.0.1:6274/cb?code=a",
		"cursor://anysphere.cursor-mcp/oauth/callback?code=": "cursor://anysphere.cursor-mcp/oauth/callback?code=",
	} {
		res, body := render(t, "https://auth.example", 200, templates.Continue{URL: raw, ClientName: "App", Host: "app.example"})
		if res.StatusCode != 200 || res.Header.Get("Location") != "" {
			t.Fatalf("%s: status %d, Location %q", raw, res.StatusCode, res.Header.Get("Location"))
		}
		// The refresh is for browsers without script only: with both, a code
		// could be sent twice.
		for _, want := range []string{`<noscript><meta http-equiv="refresh" content="0;url=` + escaped + `"></noscript>`, `href="` + escaped + `"`} {
			if !strings.Contains(body, want) {
				t.Errorf("%s: the page lacks %s in\n%s", raw, want, body[strings.Index(body, "</style>"):])
			}
		}
		if !strings.Contains(body, "location.replace(\"") {
			t.Errorf("%s: no script", raw)
		}
	}
}

func TestContinueRefuses(t *testing.T) {
	for _, raw := range []string{
		"javascript:alert(1)", "JavaScript:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc/passwd", "blob:x", "about:blank",
		"", "/local", "//evil.example/", "https:", "https:///x", "java\tscript:alert(1)", " https://a.example/", "https://a.example/\"onload=",
		"https://a.example/<x>", "https://a.example/\n", "https://a.example/;url=\\x",
	} {
		res, body := render(t, "https://auth.example", 200, templates.Continue{URL: raw, ClientName: "App"})
		if res.StatusCode != http.StatusInternalServerError || strings.Contains(body, "<script") || strings.Contains(body, "refresh") {
			t.Errorf("%q was navigated to (status %d)", raw, res.StatusCode)
		}
	}
}

func TestErrorSpeaksForItsStatus(t *testing.T) {
	for _, status := range []int{400, 403, 404, 405, 413, 415, 429, 500, 503} {
		res, body := render(t, "https://auth.example", status, templates.Error{Retry: 1500 * time.Millisecond})
		if res.StatusCode != status || !regexp.MustCompile(`<h1>[^<]+</h1>`).MatchString(body) {
			t.Errorf("%d: status %d or no words", status, res.StatusCode)
		}
		if got := res.Header.Get("Retry-After"); got != "2" {
			t.Errorf("%d: Retry-After %q, want 2: rounded up", status, got)
		}
	}
}

func TestSeeOther(t *testing.T) {
	p, err := templates.New(templates.Config{Issuer: "https://auth.example"})
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	p.SeeOther(rec, "/account")
	if rec.Code != http.StatusSeeOther || rec.Header().Get("Location") != "/account" || rec.Body.Len() != 0 {
		t.Fatalf("status %d, Location %q, %d bytes", rec.Code, rec.Header().Get("Location"), rec.Body.Len())
	}
	if rec.Header().Get("Referrer-Policy") != "no-referrer" || rec.Header().Get("Cache-Control") != "no-store" {
		t.Fatal("a redirect without protection")
	}
}

// An issuer with a path: every local address of a page is below it.
func TestIssuerWithPath(t *testing.T) {
	local := regexp.MustCompile(`(?:action|href)="(/[^"]*)"`)
	for _, page := range everyPage() {
		_, body := render(t, "https://example.com/auth", 200, page)
		for _, m := range local.FindAllStringSubmatch(body, -1) {
			if !strings.HasPrefix(m[1], "/auth/") {
				t.Errorf("%T: %s is beside the issuer", page, m[1])
			}
		}
	}
	p, err := templates.New(templates.Config{Issuer: "https://example.com/auth"})
	if err != nil {
		t.Fatal(err)
	}
	for location, want := range map[string]string{"/account": "/auth/account", "https://app.example/cb?code=x": "https://app.example/cb?code=x"} {
		rec := httptest.NewRecorder()
		p.SeeOther(rec, location)
		if got := rec.Header().Get("Location"); got != want {
			t.Errorf("%s goes to %s, want %s", location, got, want)
		}
	}
}
