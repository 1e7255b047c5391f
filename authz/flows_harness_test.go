package authz_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/people"
	"github.com/kavach-dev/kavach/store"
	"github.com/kavach-dev/kavach/templates"
)

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// flows is a whole authorization server on a real database with a real log.
type flows struct {
	t        *testing.T
	issuer   string
	clock    *clock
	store    *store.Store
	log      *audit.Log
	registry *authz.Registry
	agents   *authz.Agents
	people   *people.Server
	server   *authz.Server
	alice    people.User
}

const (
	git      = "https://git.example/api"
	legacy   = "https://legacy.example/"
	callback = "https://client.example/cb"
	password = "correct horse battery staple"
)

func newFlows(t *testing.T) *flows {
	t.Helper()
	ctx := context.Background()
	f := &flows{t: t, clock: &clock{t: time.Now().Truncate(time.Second)}}
	var handler http.Handler
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(web.Close)
	f.issuer = web.URL

	quiet := slog.New(slog.DiscardHandler)
	var err error
	f.store, err = store.Open(ctx, store.Config{DSN: "sqlite:" + filepath.Join(t.TempDir(), "kavach.db"), Issuer: f.issuer, MinFree: -1})
	must(t, err)
	f.log = audit.NewLog(audit.Config{Store: f.store, Now: f.clock.now, Logger: quiet})
	t.Cleanup(func() {
		_ = f.log.Close(context.Background())
		_ = f.store.Close()
	})
	keys, err := authz.OpenKeyring(ctx, authz.KeyringConfig{
		Store: f.store, Commit: f.log, Secret: authz.NewDeploymentSecret(), Now: f.clock.now,
	})
	must(t, err)
	f.registry, err = authz.NewRegistry(authz.RegistryConfig{
		Issuer: f.issuer, Store: f.store, Commit: f.log, Refusals: f.log, Keys: keys,
		Flows: f.store, Now: f.clock.now, Log: quiet,
		RegistrationRate: 100000,
	})
	must(t, err)
	pages, err := templates.New(templates.Config{Issuer: f.issuer, Logger: quiet})
	must(t, err)
	f.people, err = people.New(people.Config{
		Store: f.store, Log: f.log, Pages: pages, Issuer: f.issuer, CookieSecrets: [][]byte{keys.Cookie()},
		Now: f.clock.now, Logger: quiet,
	})
	must(t, err)
	f.server, err = authz.New(authz.Config{
		Issuer: f.issuer, Store: f.store, Registry: f.registry, Keys: keys, People: f.people,
		Pages: pages, Commit: f.log, Refusals: f.log, Now: f.clock.now, Log: quiet,
	})
	must(t, err)
	mux := http.NewServeMux()
	for _, p := range []string{"/.well-known/", "/oauth/", "/consent"} {
		mux.Handle(p, f.server.Handler())
	}
	mux.Handle("/", f.people.Handler())
	handler = mux

	f.alice = f.user("alice", people.Member)
	for _, r := range []authz.Resource{
		{ID: git, Name: "Git", Aware: true, TokenAlg: authz.AlgES256, Scopes: []authz.Scope{
			{Name: "repo:read", Description: "Read code"}, {Name: "repo:write", Description: "Change code", Sensitive: true},
		}},
		{ID: legacy, Name: "Legacy", TokenAlg: authz.AlgRS256, Scopes: []authz.Scope{{Name: "old:read", Description: "Read"}}},
	} {
		must(t, f.registry.AddResource(ctx, authz.Actor{Agent: audit.Operator, Via: "cli"}, r))
	}
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (f *flows) user(name string, role people.Role) people.User {
	f.t.Helper()
	u, err := f.people.CreateUser(context.Background(), people.CLI, people.NewUser{Name: name, Password: password, Role: role})
	must(f.t, err)
	return u
}

// client adds a static client; its secret is "" for a public one.
func (f *flows) client(n authz.NewClient) (id, secret string) {
	f.t.Helper()
	if n.Name == "" {
		n.Name = "Test client"
	}
	c, s, err := f.registry.AddClient(context.Background(), authz.Actor{Agent: audit.Operator, Via: "cli"}, n)
	must(f.t, err)
	return c.ID, s.Reveal()
}

// public adds a public static client with the redirect URIs, or callback.
func (f *flows) public(redirects ...string) string {
	if len(redirects) == 0 {
		redirects = []string{callback}
	}
	id, _ := f.client(authz.NewClient{Method: authz.MethodNone, RedirectURIs: redirects})
	return id
}

// register registers a client dynamically.
func (f *flows) register(redirects ...string) string {
	f.t.Helper()
	body, err := json.Marshal(map[string]any{
		"client_name": "Registered", "redirect_uris": redirects, "token_endpoint_auth_method": "none",
		"grant_types": []string{"authorization_code", "refresh_token"},
	})
	must(f.t, err)
	r, err := http.Post(f.issuer+"/oauth/register", "application/json", strings.NewReader(string(body)))
	must(f.t, err)
	got := decode(f.t, r)
	id, _ := got["client_id"].(string)
	if r.StatusCode != http.StatusCreated || id == "" {
		f.t.Fatalf("registration: %d %v", r.StatusCode, got)
	}
	return id
}

// browser is a person's browser: cookies, and no redirect followed.
type browser struct {
	f *flows
	c *http.Client
}

func (f *flows) browser() *browser {
	jar, err := cookiejar.New(nil)
	must(f.t, err)
	return &browser{f, &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// page is one answer to a browser.
type page struct {
	status   int
	location string
	body     string
	header   http.Header
}

func (b *browser) do(method, address string, form url.Values) page {
	b.f.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	if strings.HasPrefix(address, "/") {
		address = b.f.issuer + address
	}
	r, err := http.NewRequest(method, address, body)
	must(b.f.t, err)
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	w, err := b.c.Do(r)
	must(b.f.t, err)
	defer w.Body.Close()
	text, err := io.ReadAll(w.Body)
	must(b.f.t, err)
	return page{w.StatusCode, w.Header.Get("Location"), string(text), w.Header}
}

func (b *browser) get(address string) page { b.f.t.Helper(); return b.do(http.MethodGet, address, nil) }
func (b *browser) post(address string, form url.Values) page {
	b.f.t.Helper()
	return b.do(http.MethodPost, address, form)
}

// login signs in and goes on to where the login page was asked for.
func (b *browser) login(name, returnTo string) page {
	b.f.t.Helper()
	p := b.post("/login", url.Values{"username": {name}, "password": {password}, "return": {returnTo}})
	if p.status != http.StatusSeeOther {
		b.f.t.Fatalf("login: %d\n%s", p.status, p.body)
	}
	return p
}

func (f *flows) signedIn(name string) *browser {
	f.t.Helper()
	b := f.browser()
	b.login(name, "/account")
	return b
}

// proof is a PKCE verifier and its challenge.
type proof struct{ verifier, challenge string }

func newProof() proof {
	var b [32]byte
	_, _ = rand.Read(b[:])
	v := base64.RawURLEncoding.EncodeToString(b[:])
	sum := sha256.Sum256([]byte(v))
	return proof{v, base64.RawURLEncoding.EncodeToString(sum[:])}
}

// request is a good authorization request; change may spoil it.
func (f *flows) request(client string, p proof, change url.Values) url.Values {
	q := url.Values{
		"response_type": {"code"}, "client_id": {client}, "redirect_uri": {callback}, "state": {"st4te"},
		"code_challenge": {p.challenge}, "code_challenge_method": {"S256"},
		"scope": {"kavach:verify kavach:delegate kavach:audit"}, "resource": {f.issuer + "/mcp"},
	}
	for name, values := range change {
		if values == nil {
			q.Del(name)
		} else {
			q[name] = values
		}
	}
	return q
}

var (
	transactionField = regexp.MustCompile(`name="transaction" value="([^"]+)"`)
	scopeField       = regexp.MustCompile(`<input[^>]*name="scope"[^>]*>`)
	valueAttribute   = regexp.MustCompile(`value="([^"]+)"`)
	navigateLink     = regexp.MustCompile(`<a[^>]*href="([^"]+)"`)
)

// boxes reads the tick boxes of a consent page.
func (p page) boxes() (ticked, unticked []string) {
	for _, field := range scopeField.FindAllString(p.body, -1) {
		value := html.UnescapeString(valueAttribute.FindStringSubmatch(field)[1])
		if strings.Contains(field, " checked") {
			ticked = append(ticked, value)
		} else {
			unticked = append(unticked, value)
		}
	}
	return ticked, unticked
}

func (p page) transaction(t *testing.T) string {
	t.Helper()
	m := transactionField.FindStringSubmatch(p.body)
	if m == nil {
		t.Fatalf("no consent page: %d %s\n%s", p.status, p.location, p.body)
	}
	return m[1]
}

// authorize opens an authorization request and walks to the consent page, or
// to the client if there is none.
func (b *browser) authorize(q url.Values) page {
	b.f.t.Helper()
	p := b.get("/oauth/authorize?" + q.Encode())
	for p.status == http.StatusSeeOther && strings.HasPrefix(p.location, "/") {
		p = b.get(p.location)
	}
	return p
}

// decide answers a consent page, and returns where the page navigates to.
func (b *browser) decide(p page, decision string, scopes ...string) page {
	b.f.t.Helper()
	answer := b.post("/consent", url.Values{"transaction": {p.transaction(b.f.t)}, "decision": {decision}, "scope": scopes})
	if m := navigateLink.FindStringSubmatch(answer.body); answer.status == http.StatusOK && m != nil {
		answer.location = html.UnescapeString(m[1])
	}
	return answer
}

// consent walks a request to its redirect, ticking what is ticked and more.
func (b *browser) consent(q url.Values, more ...string) url.Values {
	b.f.t.Helper()
	p := b.authorize(q)
	if p.status == http.StatusOK {
		ticked, _ := p.boxes()
		p = b.decide(p, "approve", append(ticked, more...)...)
	}
	return redirected(b.f.t, p)
}

// redirected reads the parameters that a client is sent.
func redirected(t *testing.T, p page) url.Values {
	t.Helper()
	u, err := url.Parse(p.location)
	if err != nil || u.Host == "" {
		t.Fatalf("no redirect to a client: %d %q\n%s", p.status, p.location, p.body)
	}
	return u.Query()
}

// code gets a code for a client by alice.
func (f *flows) code(b *browser, client string, p proof, change url.Values, more ...string) string {
	f.t.Helper()
	got := b.consent(f.request(client, p, change), more...)
	if got.Get("code") == "" {
		f.t.Fatalf("no code: %v", got)
	}
	return got.Get("code")
}

// answer is one answer of the token endpoint.
type answer struct {
	status int
	header http.Header
	body   map[string]any
}

func (a answer) str(name string) string { s, _ := a.body[name].(string); return s }

func (a answer) String() string { return fmt.Sprintf("%d %v", a.status, a.body["error"]) }

func decode(t *testing.T, r *http.Response) map[string]any {
	t.Helper()
	defer r.Body.Close()
	var got map[string]any
	if err := json.NewDecoder(r.Body).Decode(&got); err != nil {
		t.Fatalf("answer is no JSON: %d %v", r.StatusCode, err)
	}
	return got
}

// token asks the token endpoint.
func (f *flows) token(form url.Values, basic ...string) answer {
	f.t.Helper()
	a, err := f.tryToken(form, basic...)
	must(f.t, err)
	return a
}

// tryToken is token for goroutines that may not end the test.
func (f *flows) tryToken(form url.Values, basic ...string) (answer, error) {
	r, err := http.NewRequest(http.MethodPost, f.issuer+"/oauth/token", strings.NewReader(form.Encode()))
	if err != nil {
		return answer{}, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if len(basic) == 2 {
		r.SetBasicAuth(url.QueryEscape(basic[0]), url.QueryEscape(basic[1]))
	}
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		return answer{}, err
	}
	defer w.Body.Close()
	a := answer{status: w.StatusCode, header: w.Header}
	return a, json.NewDecoder(w.Body).Decode(&a.body)
}

// redeem is the token request for a code; change may spoil it.
func (f *flows) redeem(client, code string, p proof, change url.Values) url.Values {
	form := url.Values{
		"grant_type": {"authorization_code"}, "client_id": {client}, "code": {code},
		"redirect_uri": {callback}, "code_verifier": {p.verifier},
	}
	for name, values := range change {
		if values == nil {
			form.Del(name)
		} else {
			form[name] = values
		}
	}
	return form
}

func refreshForm(client, token string, change url.Values) url.Values {
	form := url.Values{"grant_type": {"refresh_token"}, "client_id": {client}, "refresh_token": {token}}
	for name, values := range change {
		form[name] = values
	}
	return form
}

// tokens is a whole flow by alice for a new public client.
func (f *flows) tokens(change url.Values, more ...string) (client string, a answer) {
	f.t.Helper()
	client, p := f.public(), newProof()
	a = f.token(f.redeem(client, f.code(f.signedIn("alice"), client, p, change, more...), p, nil))
	if a.status != http.StatusOK {
		f.t.Fatalf("token: %v %v", a.status, a.body)
	}
	return client, a
}

// chain verifies a token as this server's own resources do.
func (f *flows) chain(token string) *delegation.Chain {
	f.t.Helper()
	c, err := f.registry.Verifier().Verify(token, f.clock.now())
	must(f.t, err)
	return c
}

// alive reports whether a token may still be used.
func (f *flows) alive(token string) bool {
	f.t.Helper()
	dead, err := f.registry.Revoked(context.Background(), f.chain(token))
	must(f.t, err)
	return !dead
}

// wantError checks an OAuth error of the token endpoint.
func (f *flows) wantError(a answer, status int, code string) {
	f.t.Helper()
	if a.status != status || a.str("error") != code {
		f.t.Errorf("got %d %v, want %d %s", a.status, a.body, status, code)
	}
	if a.header.Get("Cache-Control") != "no-store" {
		f.t.Errorf("Cache-Control is %q", a.header.Get("Cache-Control"))
	}
}
