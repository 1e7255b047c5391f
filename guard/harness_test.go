package guard_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
)

const (
	issuer   = "https://kavach.example"
	resource = "https://git.example/api"
)

var start = time.Unix(1_795_000_000, 0)

// world is an authorization server that signs, and what a guard told about it.
type world struct {
	t   testing.TB
	key delegation.ServerKey

	mu        sync.Mutex // guards what follows
	now       time.Time
	decisions []guard.Decision
	reportErr error
	revoked   bool
	revokeErr error
}

func newWorld(t testing.TB) *world {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, now: start, key: delegation.ServerKey{KID: "at-1", Signer: private}}
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// Revoked implements guard.Revocations.
func (w *world) Revoked(_ context.Context, c *delegation.Chain) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c == nil {
		return false, errors.New("no chain")
	}
	return w.revoked, w.revokeErr
}

func (w *world) report(_ context.Context, d guard.Decision) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.decisions = append(w.decisions, d)
	return w.reportErr
}

// decided returns what was reported since the last call.
func (w *world) decided() []guard.Decision {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.decisions
	w.decisions = nil
	return d
}

func (w *world) verifier() *delegation.Verifier {
	anchor, err := w.key.Anchor()
	if err != nil {
		w.t.Fatal(err)
	}
	return &delegation.Verifier{Issuer: issuer, Anchors: func(kid string) (delegation.Anchor, bool) {
		return anchor, kid == w.key.KID
	}}
}

func (w *world) config() guard.Config {
	return guard.Config{
		Resource: resource, Verifier: w.verifier(), Revocations: w, Report: w.report, Now: w.clock,
		Baseline: []string{"repository:read", "pullrequest:read"},
		Need:     guard.Need{Request: delegation.Request{Scope: delegation.AllOf("repository:read")}},
		Log:      slog.New(slog.DiscardHandler),
	}
}

// token signs a plain token, after change.
func (w *world) token(change ...func(*delegation.Claims)) string {
	w.t.Helper()
	c := delegation.Claims{
		Issuer: issuer, Subject: "usr_alice", ClientID: "client", GrantID: "gid", Audience: []string{resource},
		Scopes: []string{"comment:write", "repository:read"}, IssuedAt: w.clock(), Expires: w.clock().Add(5 * time.Minute),
	}
	for _, f := range change {
		f(&c)
	}
	signed, err := delegation.Sign(c, w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	return signed.Token
}

func scopes(list ...string) func(*delegation.Claims) {
	return func(c *delegation.Claims) { c.Scopes = list }
}

func limited(l delegation.Limits) func(*delegation.Claims) {
	return func(c *delegation.Claims) { c.Limits = l }
}

func newKey(t testing.TB) agent.PrivateKey {
	t.Helper()
	key, err := agent.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// chain signs a root and derives one link from it.
func (w *world) chain(resources ...string) (root, chain string) {
	w.t.Helper()
	holder := newKey(w.t)
	root = w.token(func(c *delegation.Claims) { c.Root, c.MaxDepth, c.Key = true, 2, holder.Public() })
	derived, err := delegation.Derive(root, holder, newKey(w.t).Public(), delegation.Narrow{
		ClientID: "reviewer", Scopes: []string{"repository:read"}, Limits: delegation.Limits{Resources: resources},
	}, w.clock())
	if err != nil {
		w.t.Fatal(err)
	}
	return root, derived.Chain
}

// reply is what a client sees.
type reply struct {
	status    int
	header    http.Header
	body      string
	challenge string
	code      string
}

func do(h http.Handler, r *http.Request) reply {
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	got := reply{status: rec.Code, header: rec.Header(), body: rec.Body.String(), challenge: rec.Header().Get("WWW-Authenticate")}
	var e struct{ Error string }
	if json.Unmarshal(rec.Body.Bytes(), &e) == nil {
		got.code = e.Error
	}
	return got
}

func request(authorization ...string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, resource+"/diff", nil)
	for _, a := range authorization {
		r.Header.Add("Authorization", a)
	}
	return r
}

// ok is the handler behind the guard; it says who came.
var ok = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	_, _ = w.Write([]byte("hello " + guard.From(r.Context()).Principal()))
})
