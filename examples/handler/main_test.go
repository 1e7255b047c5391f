package main

import (
	"context"
	"crypto/ed25519"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/examples/kavachtest"
	"github.com/kavach-dev/kavach/wellknown"
)

// issuer is all that the document host knows of a kavach: an address with public
// keys. Its tokens are signed here, in the test.
type issuer struct {
	url  string
	key  delegation.ServerKey
	feed *feed
}

// feed is what the issuer says is revoked.
type feed struct {
	signer ed25519.PrivateKey

	mu     sync.Mutex // guards what follows
	away   bool
	claims delegation.FeedClaims // read now, unless they say when
}

func (f *feed) publish(c delegation.FeedClaims) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.claims = c
}

func (f *feed) goAway() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = true
}

func (f *feed) serve(w http.ResponseWriter, issuer string) {
	f.mu.Lock()
	c, away := f.claims, f.away
	f.mu.Unlock()
	c.Issuer = issuer
	if c.IssuedAt.IsZero() {
		c.IssuedAt = time.Now()
	}
	token, err := delegation.SignFeed(c, "rv-test", f.signer)
	if err != nil || away {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	_, _ = io.WriteString(w, token)
}

func newIssuer(t *testing.T) issuer {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key := delegation.ServerKey{KID: "at-test", Signer: private}
	feedPublic, feedPrivate, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	i := issuer{key: key, feed: &feed{signer: feedPrivate}}
	mux := http.NewServeMux()
	mux.Handle("/.well-known/", wellknown.Handler(wellknown.Config{Keys: func(context.Context) ([]wellknown.Key, error) {
		return []wellknown.Key{{KID: key.KID, Alg: "Ed25519", Public: public}, {KID: "rv-test", Alg: "Ed25519", Public: feedPublic}}, nil
	}}))
	mux.HandleFunc("/revocations", func(w http.ResponseWriter, _ *http.Request) { i.feed.serve(w, i.url) })
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	i.url = s.URL
	return i
}

// sign issues a token of alice for the editor. With a holder's key it is
// the root of a chain.
func (i issuer) sign(t *testing.T, audience string, holder agent.PublicKey, scopes ...string) string {
	t.Helper()
	now := time.Now()
	made, err := delegation.Sign(delegation.Claims{
		Issuer: i.url, Subject: "alice", ClientID: "editor", Audience: []string{audience}, Scopes: scopes, GrantID: "g-1",
		IssuedAt: now, Expires: now.Add(5 * time.Minute), Root: !holder.IsZero(), MaxDepth: 3, Key: holder,
	}, i.key)
	if err != nil {
		t.Fatal(err)
	}
	return made.Token
}

func newKey(t *testing.T) agent.PrivateKey {
	t.Helper()
	key, err := agent.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// start runs the document host; it returns its address.
func start(t *testing.T, i issuer) string {
	t.Helper()
	origin := kavachtest.FreeURL(t)
	kavachtest.Run(t, ".", "--listen", strings.TrimPrefix(origin, "http://"), "--resource", origin, "--issuer", i.url)
	return origin
}

// TestToken: plain tokens, which any OAuth client may bring.
func TestToken(t *testing.T) {
	i := newIssuer(t)
	host := start(t, i)
	reader := i.sign(t, host, agent.PublicKey{}, "docs:read")
	for name, test := range map[string]struct {
		method, path, token string
		status              int
		challenge           string
	}{
		"none":           {"GET", "/docs/charter", "", 401, `Bearer scope="docs:read", resource_metadata="` + host + `/.well-known/oauth-protected-resource"`},
		"good":           {"GET", "/docs/charter", reader, 200, ""},
		"not there":      {"GET", "/docs/nothing", reader, 404, ""},
		"other scope":    {"POST", "/docs/charter/comments", reader, 403, `Bearer error="insufficient_scope", scope="docs:comment docs:read"`},
		"other resource": {"GET", "/docs/charter", i.sign(t, "http://127.0.0.1:1", agent.PublicKey{}, "docs:read"), 401, `Bearer error="invalid_token"`},
		"other issuer":   {"GET", "/docs/charter", newIssuer(t).sign(t, host, agent.PublicKey{}, "docs:read"), 401, `Bearer error="invalid_token"`},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(t, test.method, host+test.path, `{"paragraph":"12","text":"x"}`)
			if test.token != "" {
				r.Header.Set("Authorization", "Bearer "+test.token)
			}
			status, header, body := send(t, r)
			if got := strings.Join(header.Values("WWW-Authenticate"), ", "); status != test.status || !strings.HasPrefix(got, test.challenge) {
				t.Errorf("%d %s %s", status, got, body)
			}
		})
	}
	if _, _, body := send(t, request(t, "GET", host+"/.well-known/oauth-protected-resource", "")); !strings.Contains(body, `"`+i.url+`"`) {
		t.Errorf("the metadata does not lead to the issuer: %s", body)
	}
}

// TestChain: the editor narrows its token for the proofreader offline, and
// the document host lets the proofreader do what the last link says.
func TestChain(t *testing.T) {
	i := newIssuer(t)
	host := start(t, i)
	editor, proofreader := newKey(t), newKey(t)
	root, err := client.Hold(i.sign(t, host, editor.Public(), "docs:read", "docs:comment"), editor)
	if err != nil {
		t.Fatal(err)
	}
	small := int64(100)
	for name, test := range map[string]struct {
		scope        string
		limits       delegation.Limits
		method, path string
		body         string
		status       int
		says         string
	}{
		"its document":         {"docs:read", delegation.Limits{Resources: []string{"docs/charter"}}, "GET", "/docs/charter", "", 200, "We the people"},
		"another":              {"docs:read", delegation.Limits{Resources: []string{"docs/charter"}}, "GET", "/docs/minutes", "", 403, "constraint_violated"},
		"small enough":         {"docs:read", delegation.Limits{MaxFileSize: &small}, "GET", "/docs/charter", "", 200, "We the people"},
		"too large":            {"docs:read", delegation.Limits{MaxFileSize: &small}, "GET", "/docs/minutes", "", 403, "constraint_violated"},
		"its paragraph":        {"docs:comment", delegation.Limits{Resources: []string{"docs/charter/paragraph/12"}}, "POST", "/docs/charter/comments", `{"paragraph":"12","text":"Fine."}`, 201, `alice > editor > proofreader wrote "Fine.", vouched for by editor`},
		"another paragraph":    {"docs:comment", delegation.Limits{Resources: []string{"docs/charter/paragraph/12"}}, "POST", "/docs/charter/comments", `{"paragraph":"13","text":"Fine."}`, 403, "constraint_violated"},
		"writing to read":      {"docs:read", delegation.Limits{}, "POST", "/docs/charter/comments", `{"paragraph":"12","text":"Fine."}`, 403, "insufficient_scope"},
		"a record is demanded": {"docs:read", delegation.Limits{AuditRequired: new(true)}, "GET", "/docs/charter", "", 403, "constraint_violated"},
	} {
		t.Run(name, func(t *testing.T) {
			chain, err := root.Derive(proofreader.Public(), "proofreader", delegation.Narrow{Scopes: []string{test.scope}, Limits: test.limits}, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			held, err := client.Hold(chain, proofreader)
			if err != nil {
				t.Fatal(err)
			}
			r := request(t, test.method, host+test.path, test.body)
			if err := held.Authorize(r, "", time.Now()); err != nil {
				t.Fatal(err)
			}
			if status, _, body := send(t, r); status != test.status || !strings.Contains(body, test.says) {
				t.Errorf("%d %s", status, body)
			}
			// The proof was for once, whatever came of it.
			r.Body = io.NopCloser(strings.NewReader(test.body))
			if status, _, body := send(t, r); status == test.status && status < 300 {
				t.Errorf("the same proof again: %d %s", status, body)
			}
			// And nobody else can use the chain.
			bare := request(t, test.method, host+test.path, test.body)
			bare.Header.Set("Authorization", "Bearer "+chain)
			if status, _, body := send(t, bare); status != 401 {
				t.Errorf("without the key: %d %s", status, body)
			}
		})
	}
}

func request(t *testing.T, method, url, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func send(t *testing.T, r *http.Request) (int, http.Header, string) {
	t.Helper()
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header, string(body)
}
