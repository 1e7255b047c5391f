package guard_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
)

// TestSideEffects: delegation.md §6, "Side effects (any method but GET, HEAD,
// OPTIONS unless the route says `ReadOnly` …) need an AAT proof for chains, or
// DPoP where the guard is told `DPoPForWrites`".
func TestSideEffects(t *testing.T) {
	w := newWorld(t)
	root := w.root()
	plain, leaf := w.plainBound(), root.derive()
	for _, c := range []struct {
		name     string
		b        bound
		method   string
		allowed  bool // DPoPForWrites
		readOnly bool
		status   int
	}{
		{"read with a chain", leaf, "GET", false, false, 200},
		{"head with a chain", leaf, "HEAD", false, false, 200},
		{"options with a chain", leaf, "OPTIONS", false, false, 200},
		{"write with a chain", leaf, "POST", false, false, 401},
		{"write with a root", root, "POST", false, false, 401},
		{"delete with a chain", leaf, "DELETE", false, false, 401},
		{"an unknown method with a chain", leaf, "FROB", false, false, 401},
		{"get in small letters with a chain", leaf, "get", false, false, 401},
		{"write with a chain, allowed", leaf, "POST", true, false, 200},
		{"search by post with a chain", leaf, "POST", false, true, 200},
		{"write with a plain token", plain, "POST", false, false, 200},
	} {
		for _, computed := range []bool{false, true} {
			cfg := w.config()
			cfg.DPoPForWrites = c.allowed
			need := cfg.Need
			need.ReadOnly = c.readOnly
			if computed {
				cfg.NeedOf = func(*http.Request) (guard.Need, error) { return need, nil }
			} else {
				cfg.Need = need
			}
			r := c.b.send(c.b.proof(func(p *agent.Proof) { p.Method = c.method }))
			r.Method = c.method
			got := do(guard.Require(cfg)(ok), r)
			if got.status != c.status {
				t.Errorf("%s: %d %s", c.name, got.status, got.body)
			}
			d := w.decided()
			if len(d) != 1 || c.status == 401 && (d[0].Reason != delegation.HolderBindingFailed || got.code != "invalid_dpop_proof") {
				t.Errorf("%s: %s, reported %+v", c.name, got.body, d)
			}
		}
	}
}

// TestNeedIsComputedOnce: also where step 14 has to know it.
func TestNeedIsComputedOnce(t *testing.T) {
	w := newWorld(t)
	leaf := w.root().derive()
	calls := 0
	cfg := w.config()
	cfg.NeedOf = func(*http.Request) (guard.Need, error) {
		calls++
		return guard.Need{Request: delegation.Request{Scope: delegation.AllOf("repository:read")}, ReadOnly: true}, nil
	}
	if got := do(guard.Require(cfg)(ok), leaf.post(leaf.proof(post))); got.status != 200 || calls != 1 {
		t.Errorf("%d calls, %+v", calls, got)
	}
	calls = 0
	if got := do(guard.Require(cfg)(ok), leaf.post()); got.status != 401 || calls != 0 {
		t.Errorf("computed for a request without proof: %d calls, %+v", calls, got)
	}
	cfg.NeedOf = func(*http.Request) (guard.Need, error) { return guard.Need{ReadOnly: true}, errors.New("what") }
	if got := do(guard.Require(cfg)(ok), leaf.post(leaf.proof(post))); got.status != 401 {
		t.Errorf("a write whose need is unknown: %+v", got)
	}
	if got := do(guard.Require(cfg)(ok), leaf.send(leaf.proof())); got.status != 400 {
		t.Errorf("a read whose need is unknown: %+v", got)
	}
}

// TestNonces: the cycle of RFC 9449 §9, and A-110 at a resource server.
func TestNonces(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.Nonces = guard.NewNonces(guard.NoncesConfig{Period: time.Minute})
	h := guard.Require(cfg)(ok)
	a, b := w.root(), w.plainBound()
	with := func(nonce string) func(*agent.Proof) {
		return func(p *agent.Proof) { p.Nonce = nonce }
	}
	asked := func(got reply) string {
		t.Helper()
		want := []string{bareChallenge, `DPoP error="use_dpop_nonce", algs="Ed25519 ES256"`}
		nonce := got.header.Get("DPoP-Nonce")
		if got.status != 401 || got.code != "use_dpop_nonce" || nonce == "" || !slices.Equal(got.header["Www-Authenticate"], want) {
			t.Fatalf("%+v", got)
		}
		return nonce
	}
	nonce := asked(do(h, a.send(a.proof())))
	if d := w.decided(); len(d) != 1 || d[0].Reason != delegation.HolderBindingFailed {
		t.Errorf("reported %+v", d)
	}
	for _, wrong := range []string{"x", nonce + "x", strings.ToUpper(nonce)} {
		asked(do(h, a.send(a.proof(with(wrong)))))
	}
	proof := a.proof(with(nonce))
	if got := do(h, a.send(proof)); got.status != 200 || got.header.Get("DPoP-Nonce") != "" {
		t.Errorf("%+v", got)
	}
	if got := do(h, a.send(proof)); got.status != 401 || got.code != "invalid_dpop_proof" {
		t.Errorf("a nonce is no licence to replay: %+v", got)
	}
	if asked(do(h, b.send(b.proof(with(nonce))))) == nonce {
		t.Error("two holders have one nonce")
	}
	// A bad proof is a bad proof, whatever its nonce.
	if got := do(h, a.send(a.proof(with(nonce), post))); got.code != "invalid_dpop_proof" {
		t.Errorf("%+v", got)
	}
	w.advance(time.Minute)
	got := do(h, a.send(a.proof(with(nonce))))
	next := got.header.Get("DPoP-Nonce")
	if got.status != 200 || next == "" || next == nonce || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("the next nonce: %+v", got)
	}
	w.advance(time.Minute)
	if asked(do(h, a.send(a.proof(with(nonce))))) == next {
		t.Error("a stale nonce is answered with an old one")
	}
	if got := do(h, a.send(a.proof(with(next)))); got.status != 200 {
		t.Errorf("%+v", got)
	}
}

func TestNoncesOfReplicas(t *testing.T) {
	secret := bytes.Repeat([]byte{7}, 32)
	one, two := guard.NewNonces(guard.NoncesConfig{Secret: secret}), guard.NewNonces(guard.NoncesConfig{Secret: secret})
	other := guard.NewNonces(guard.NoncesConfig{})
	nonce := one.Nonce("jkt", start)
	for name, c := range map[string]struct {
		nonces guard.Nonces
		nonce  string
		jkt    string
		at     time.Duration
		valid  bool
	}{
		"another replica": {two, nonce, "jkt", 0, true}, "a replica that is behind": {two, nonce, "jkt", -2 * time.Minute, true},
		"later": {two, nonce, "jkt", 2 * time.Minute, true}, "too late": {two, nonce, "jkt", 4 * time.Minute, false},
		"another holder": {two, nonce, "jkt2", 0, false}, "another secret": {other, nonce, "jkt", 0, false},
		"none": {two, "", "jkt", 0, false},
	} {
		if c.nonces.Valid(c.nonce, c.jkt, start.Add(c.at)) != c.valid {
			t.Errorf("%s: %v", name, !c.valid)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a short secret is taken")
		}
	}()
	guard.NewNonces(guard.NoncesConfig{Secret: secret[:31]})
}

// TestProofURL: the URL of a proof is configured; what the request says about
// its own host counts for nothing.
func TestProofURL(t *testing.T) {
	w := newWorld(t)
	b := w.plainBound()
	h := guard.Require(w.config())(ok)
	for _, c := range []struct {
		target, htu string
		status      int
	}{
		{"/api/diff?path=a%2Fb", "https://git.example/api/diff", 200},
		{"/api/a%2Fb", "https://git.example/api/a%2Fb", 200},
		{"/api/a%2Fb", "https://git.example/api/a/b", 401},
		{"/api/a/b", "https://git.example/api/a%2Fb", 401},
		{"/api/%7Euser", "https://git.example/api/~user", 200},
		{"/", "https://git.example", 200},
		{"//git.example/api", "https://git.example/api", 401},
		{"/api/x/../diff", "https://git.example/api/diff", 401},
		{"http://evil.example/api/diff", "http://evil.example/api/diff", 401},
		{"http://evil.example/api/diff", "https://git.example/api/diff", 200},
	} {
		r := httptest.NewRequest(http.MethodGet, c.target, nil)
		r.Host = "evil.example"
		r.Header.Set("X-Forwarded-Host", "evil.example")
		r.Header.Set("Authorization", "DPoP "+b.token)
		r.Header.Set("DPoP", b.proof(func(p *agent.Proof) { p.URL = c.htu }))
		if got := do(h, r); got.status != c.status {
			t.Errorf("%s with a proof for %s: %d %s", c.target, c.htu, got.status, got.body)
		}
	}
	// Behind http.StripPrefix the path that the client wrote still counts.
	for _, target := range []string{"/api/diff", "https://git.example/api/diff"} {
		r := b.send(b.proof())
		r.RequestURI = target
		if got := do(http.StripPrefix("/api", h), r); got.status != 200 {
			t.Errorf("%s, stripped: %+v", target, got)
		}
	}
	cfg := w.config()
	cfg.URL = func(r *http.Request) string { return "https://front.example/git" + r.URL.Path }
	front := func(p *agent.Proof) { p.URL = "https://front.example/git/api/diff" }
	if got := do(guard.Require(cfg)(ok), b.send(b.proof(front))); got.status != 200 {
		t.Errorf("URL configured: %+v", got)
	}
	if got := do(guard.Require(cfg)(ok), b.send(b.proof())); got.status != 401 {
		t.Errorf("URL configured, the default sent: %+v", got)
	}
}

// TestAuthenticateUsesProofUp: a handler asks Allows before it acts.
func TestAuthenticateUsesProofUp(t *testing.T) {
	w := newWorld(t)
	leaf := w.root().derive()
	cfg := w.config()
	cfg.DPoPForWrites = true
	var effects, asked atomic.Int64
	mode := "ask"
	wanted := delegation.Request{
		Scope: delegation.AllOf("repository:read"), Tool: delegation.None[delegation.Call](), Resource: delegation.None[string](),
		Network: delegation.None[string](), Size: delegation.None[int64](),
	}
	h := guard.Authenticate(cfg)(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		request := wanted
		switch mode {
		case "forget":
			_, _ = rw.Write([]byte("done"))
			return
		case "fail":
			http.Error(rw, "no such method", http.StatusMethodNotAllowed)
			return
		case "too much":
			request.Scope = delegation.AllOf("repository:write")
		}
		for range 2 { // as often as it likes
			if err := guard.Allows(r.Context(), request); err != nil {
				asked.Add(1)
				guard.Refuse(rw, r, request, err, []byte("in its own words"))
				return
			}
		}
		effects.Add(1)
		_, _ = rw.Write([]byte("done"))
	}))
	for i, c := range []struct {
		mode, proof string
		status      int
		body        string
	}{
		{"too much", "a", 403, "in its own words"},
		{"fail", "a", 405, "no such method\n"},
		{"ask", "a", 200, "done"},
		{"ask", "a", 401, ""},
		{"fail", "a", 405, "no such method\n"},
		{"forget", "b", 200, "done"},
		{"forget", "b", 401, ""},
		{"ask", "b", 401, ""},
	} {
		mode = c.mode
		before := effects.Load()
		w.decided()
		got := do(h, leaf.post(leaf.proof(post, func(p *agent.Proof) { p.JTI = c.proof })))
		if got.status != c.status || c.body != "" && got.body != c.body {
			t.Errorf("request %d, %s: %d %s", i, c.mode, got.status, got.body)
		}
		d := w.decided()
		if c.status == 401 {
			if got.code != "invalid_dpop_proof" || effects.Load() != before || !slices.Equal(got.header["Www-Authenticate"], []string{bareChallenge, invalidDPoPProof}) {
				t.Errorf("request %d, %s: %d effects, %+v", i, c.mode, effects.Load()-before, got)
			}
			// What a handler asked for is in the report, so that it can tell
			// its own refusals from those of the guard.
			if len(d) != 1 || d[0].Reason != delegation.Replayed || d[0].Need.Scope.Set() != (c.mode == "ask") {
				t.Errorf("request %d, %s: reported %+v", i, c.mode, d)
			}
		}
	}
	if err := guard.Allows(context.Background(), wanted); !errors.Is(err, delegation.ErrRefused) {
		t.Errorf("without a guard: %v", err)
	}
	// An unbound token has no proof that could be used up.
	mode = "ask"
	for range 2 {
		if got := do(h, request("Bearer "+w.token())); got.status != 200 {
			t.Errorf("%+v", got)
		}
	}
	cfg.DPoPForWrites = false
	closed := guard.Authenticate(cfg)(ok)
	if got := do(closed, leaf.post(leaf.proof(post))); got.status != 401 {
		t.Errorf("a write with a chain: %+v", got)
	}
	if got := do(closed, leaf.send(leaf.proof())); got.status != 200 {
		t.Errorf("a read with a chain: %+v", got)
	}
	cfg.Need.ReadOnly = true
	if got := do(guard.Authenticate(cfg)(ok), leaf.post(leaf.proof(post))); got.status != 200 {
		t.Errorf("a search with a chain: %+v", got)
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	const text = "eyJ.sss.sss"
	d := guard.Decision{Credential: text, Proof: text}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "credential", d.Credential, "decision", d)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "credential", d.Credential, "decision", d)
	encoded, err := json.Marshal(map[string]any{"c": d.Credential})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		log.String(), string(encoded), d.Credential.String(),
		fmt.Sprintf("%v %+v %#v %s %q %x %d", d, d, d, d.Credential, d.Credential, d.Credential, d.Credential),
	} {
		if strings.Contains(s, "sss") || strings.Contains(s, "737373") || !strings.Contains(s, "[redacted]") {
			t.Errorf("printed: %s", s)
		}
	}
	if string(d.Credential) != text {
		t.Error("the text is lost")
	}
}
