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
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/delegation"
)

// browser is a person's browser: cookies, and no redirect followed.
type browser struct {
	f   *flows
	c   *http.Client
	set func(http.Header) // changes what every request carries
}

// with is the same browser, its requests changed.
func (b *browser) with(set func(http.Header)) *browser { return &browser{b.f, b.c, set} }

func (f *flows) browser() *browser {
	jar, err := cookiejar.New(nil)
	must(f.t, err)
	return &browser{f: f, c: &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
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
	if b.set != nil {
		b.set(r.Header)
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
		b.f.t.Fatalf("login: %d\n%s", p.status, p.text())
	}
	return p
}

// signedIn is the browser of a person; the same one every time, because
// checking a password is made to be slow.
func (f *flows) signedIn(name string) *browser {
	f.t.Helper()
	b := f.browsers[name]
	if b == nil || b.get("/account").status != http.StatusOK {
		b = f.signIn(name)
		f.browsers[name] = b
	}
	return b
}

// signIn is another browser of a person.
func (f *flows) signIn(name string) *browser {
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
	personField      = regexp.MustCompile(`name="person" value="([^"]+)"`)
	transactionField = regexp.MustCompile(`name="transaction" value="([^"]+)"`)
	scopeField       = regexp.MustCompile(`<input[^>]*name="scope"[^>]*>`)
	valueAttribute   = regexp.MustCompile(`value="([^"]+)"`)
	navigateLink     = regexp.MustCompile(`<a[^>]*href="([^"]+)"`)
)

// text is what a failed test shows of a page: not its style.
func (p page) text() string {
	_, main, _ := strings.Cut(p.body, "<main")
	return main
}

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
		t.Fatalf("no consent page: %d %s\n%s", p.status, p.location, p.text())
	}
	return m[1]
}

// person is whom the consent page was shown to.
func (p page) person(t *testing.T) string {
	t.Helper()
	m := personField.FindStringSubmatch(p.body)
	if m == nil {
		t.Fatalf("no consent page: %d %s\n%s", p.status, p.location, p.text())
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
	answer := b.post("/consent", url.Values{"transaction": {p.transaction(b.f.t)}, "person": {p.person(b.f.t)}, "decision": {decision}, "scope": scopes})
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
		t.Fatalf("no redirect to a client: %d %q\n%s", p.status, p.location, p.text())
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
