package authz_test

import (
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/authz"
)

// send sends a body to an endpoint, with the client's secret.
func (f *flows) send(method, path, contentType, body, id, secret string) page {
	f.t.Helper()
	r, err := http.NewRequest(method, f.issuer+path, strings.NewReader(body))
	must(f.t, err)
	if strings.HasPrefix(path, "/oauth/") || strings.HasPrefix(path, "/.well-known/") {
		r.Header.Set("Origin", "https://app.example") // a page of somebody else's
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	if id != "" {
		r.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(id+":"+secret)))
	}
	w, err := http.DefaultClient.Do(r)
	must(f.t, err)
	defer w.Body.Close()
	text, err := io.ReadAll(w.Body)
	must(f.t, err)
	return page{w.StatusCode, w.Header.Get("Location"), string(text), w.Header}
}

const formType = "application/x-www-form-urlencoded"

// "Bodies 64 KiB" (§6): one byte more is 413, and the next good request works.
func TestBodiesAreBounded(t *testing.T) {
	f := newFlows(t)
	id, secret := f.client(authz.NewClient{Scopes: []string{"repo:read"}})
	fill := func(start string) string { return start + strings.Repeat("a", 64<<10+1-len(start)) }
	for _, c := range []struct {
		path, contentType, body string
		id                      string
		status                  int
	}{
		{"/oauth/token", formType, fill("grant_type=client_credentials&x="), id, http.StatusRequestEntityTooLarge},
		{"/oauth/revoke", formType, fill("token="), id, http.StatusRequestEntityTooLarge},
		{"/oauth/introspect", formType, fill("client_id=" + id + "&token="), "", http.StatusRequestEntityTooLarge},
		{"/oauth/introspect", formType, fill("token="), id, http.StatusOK}, // what is no token of ours is inactive
		{"/oauth/register", "application/json", fill(`{"client_name":"`), "", http.StatusRequestEntityTooLarge},
		{"/consent", formType, fill("transaction="), "", http.StatusRequestEntityTooLarge},
		{"/login", formType, fill("username="), "", http.StatusRequestEntityTooLarge},
	} {
		got := f.send(http.MethodPost, c.path, c.contentType, c.body, c.id, secret)
		if got.status != c.status || got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", c.path, got.status, got.header)
		}
		if c.status == http.StatusOK && strings.TrimSpace(got.body) != `{"active":false}` {
			t.Errorf("%s: %s", c.path, got.body)
		}
	}
	if a := f.token(url.Values{"grant_type": {"client_credentials"}}, id, secret); a.status != http.StatusOK {
		t.Errorf("afterwards: %v", a)
	}
}

// CORS stands where the specification lists it, on errors too, and nowhere
// else (§6).
func TestCORSIsWhereItIsListed(t *testing.T) {
	f := newFlows(t)
	for path, want := range map[string]string{
		"/.well-known/oauth-authorization-server": "*", "/.well-known/oauth-protected-resource": "*",
		"/.well-known/jwks.json": "*", "/.well-known/none": "*",
		"/oauth/token": "*", "/oauth/register": "*", "/oauth/revoke": "*",
		"/oauth/introspect": "", "/oauth/authorize": "", "/oauth/par": "", "/consent": "", "/login": "", "/logout": "", "/account": "", "/setup": "",
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodOptions} {
			h := f.send(method, path, "", "", "", "").header
			if h.Get("Access-Control-Allow-Origin") != want || h.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s %s: %q", method, path, h.Get("Access-Control-Allow-Origin"))
			}
			if want == "*" && h.Get("Access-Control-Expose-Headers") != "WWW-Authenticate, DPoP-Nonce, Retry-After" {
				t.Errorf("%s %s exposes %q", method, path, h.Get("Access-Control-Expose-Headers"))
			}
		}
	}
}

// A database that is away is 503 with Retry-After on every endpoint and page:
// never an invalid_client, an inactive token, a revocation that did not happen
// or a 500.
func TestWithoutTheDatabaseEverythingIs503(t *testing.T) {
	f := newFlows(t)
	id, secret := f.client(authz.NewClient{RedirectURIs: []string{callback}})
	p := newProof()
	b := f.signedIn("alice")
	a := f.token(f.redeem(id, f.code(b, id, p, nil), p, nil), id, secret)
	asked := b.ask(f.request(f.public(), newProof(), nil))
	if got := f.introspect(id, secret, a.str("access_token")); got["active"] != true {
		t.Fatal(got)
	}
	must(t, f.store.Close())
	for _, stale := range []time.Duration{0, 2 * time.Second} { // the client is known from memory, then not
		f.clock.advance(stale)
		for _, token := range []string{a.str("access_token"), a.str("refresh_token")} {
			for _, path := range []string{"/oauth/introspect", "/oauth/revoke"} {
				got := f.send(http.MethodPost, path, formType, url.Values{"token": {token}}.Encode(), id, secret)
				if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" || !strings.Contains(got.body, "temporarily_unavailable") {
					t.Errorf("%s: %d %s", path, got.status, got.body)
				}
			}
		}
	}
	register := f.send(http.MethodPost, "/oauth/register", "application/json",
		`{"redirect_uris":["https://client.example/cb"],"token_endpoint_auth_method":"none"}`, "", "")
	if register.status != http.StatusServiceUnavailable || register.header.Get("Retry-After") == "" {
		t.Errorf("register: %d %s", register.status, register.body)
	}
	for name, got := range map[string]page{
		"consent":         b.get("/consent?transaction=" + asked.transaction(t)),
		"consent, answer": b.post("/consent", url.Values{"transaction": {asked.transaction(t)}, "person": {asked.person(t)}, "decision": {"approve"}, "scope": {"kavach:verify"}}),
		"login":           f.browser().get("/login"),
		"account":         b.get("/account"),
		"set-up":          b.get("/setup"),
	} {
		if got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" || got.location != "" ||
			!strings.HasPrefix(got.header.Get("Content-Type"), "text/html") || strings.Contains(got.body, "sql") {
			t.Errorf("%s: %d %v", name, got.status, got.header)
		}
	}
}
