package guard_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
)

// bound is a credential and the key that it is worth something with.
type bound struct {
	w     *world
	token string
	key   agent.PrivateKey
}

// plainBound is an ordinary token bound to a key.
func (w *world) plainBound(change ...func(*delegation.Claims)) bound {
	key := newKey(w.t)
	change = append(change, func(c *delegation.Claims) { c.JKT = key.Public().Thumbprint() })
	return bound{w, w.token(change...), key}
}

// root is a chain of one.
func (w *world) root(change ...func(*delegation.Claims)) bound {
	key := newKey(w.t)
	change = append(change, func(c *delegation.Claims) { c.Root, c.MaxDepth, c.Key = true, 8, key.Public() })
	return bound{w, w.token(change...), key}
}

// derive hands b on, narrowed to reading, and to the resources if there are any.
func (b bound) derive(resources ...string) bound {
	b.w.t.Helper()
	key := newKey(b.w.t)
	derived, err := delegation.Derive(b.token, b.key, key.Public(), delegation.Narrow{
		ClientID: "reviewer", Scopes: []string{"repository:read"}, Limits: delegation.Limits{Resources: resources},
	}, b.w.clock())
	if err != nil {
		b.w.t.Fatal(err)
	}
	return bound{b.w, derived.Chain, key}
}

// proof makes a proof over a GET of the URL that request asks for, after change.
func (b bound) proof(change ...func(*agent.Proof)) string {
	b.w.t.Helper()
	p := agent.Proof{Method: http.MethodGet, URL: resource + "/diff", Token: b.token, IssuedAt: b.w.clock()}
	for _, f := range change {
		f(&p)
	}
	text, err := agent.SignProof(b.key, p)
	if err != nil {
		b.w.t.Fatal(err)
	}
	return text
}

// send is a GET with the credential and the proofs.
func (b bound) send(proofs ...string) *http.Request {
	r := request("DPoP " + b.token)
	r.Header["Dpop"] = proofs
	return r
}

func (b bound) post(proofs ...string) *http.Request {
	r := b.send(proofs...)
	r.Method = http.MethodPost
	return r
}

func post(p *agent.Proof) { p.Method = http.MethodPost }

const (
	bareChallenge    = `Bearer scope="pullrequest:read repository:read", ` + metadata
	invalidToken     = `Bearer error="invalid_token", scope="pullrequest:read repository:read", ` + metadata
	proofsTaken      = `DPoP algs="Ed25519 ES256"`
	invalidDPoPProof = `DPoP error="invalid_dpop_proof", algs="Ed25519 ES256"`
)

func TestProofLetsThrough(t *testing.T) {
	w := newWorld(t)
	root := w.root()
	for name, b := range map[string]bound{
		"plain": w.plainBound(), "root": root, "chain of two": root.derive(), "chain of four": root.derive().derive().derive(),
	} {
		h := guard.Require(w.config())(ok)
		for _, scheme := range []string{"DPoP ", "dpop ", "DPOP  "} {
			r := request(scheme + b.token)
			r.Header.Set("DPoP", b.proof())
			if got := do(h, r); got.status != 200 || got.body != "hello usr_alice" || len(got.header["Www-Authenticate"]) != 0 {
				t.Errorf("%s, %q: %+v", name, scheme, got)
			}
		}
		d := w.decided()
		if len(d) != 3 || !d[0].Allowed || string(d[0].Credential) != b.token || len(d[0].Proof) < 100 {
			t.Errorf("%s: reported %+v", name, d)
		}
	}
}

// TestProofRefused is the part of that concerns a resource
// server, and delegation.md §12.
func TestProofRefused(t *testing.T) {
	w := newWorld(t)
	root := w.root()
	middle := root.derive()
	leaf := middle.derive()
	plain := w.plainBound()
	unbound := bound{w, w.token(), leaf.key}
	prefix := leaf.token[:strings.LastIndexByte(leaf.token, '~')]
	if prefix != middle.token {
		t.Fatal("a child does not begin with its parent")
	}
	as := func(scheme string, b bound, proofs ...string) *http.Request {
		r := b.send(proofs...)
		r.Header.Set("Authorization", scheme+" "+b.token)
		return r
	}
	two := leaf.send(leaf.proof())
	two.Header.Add("Authorization", "DPoP "+plain.token)
	none, failed := `invalid_token`, delegation.HolderBindingFailed
	for _, c := range []struct {
		name    string
		request *http.Request
		code    string
		reason  delegation.Reason
	}{
		{"no proof", leaf.send(), "invalid_dpop_proof", failed},
		{"an empty proof", leaf.send(""), "invalid_dpop_proof", failed},
		{"garbage", leaf.send("a.b.c"), "invalid_dpop_proof", failed},
		{"the credential as proof", leaf.send(plain.token), "invalid_dpop_proof", failed},
		{"two proofs", leaf.send(leaf.proof(), leaf.proof()), "invalid_dpop_proof", failed},
		{"one proof twice", leaf.send(slices.Repeat([]string{leaf.proof()}, 2)...), "invalid_dpop_proof", failed},
		{"two proofs in a list", leaf.send(leaf.proof() + ", " + leaf.proof()), "invalid_dpop_proof", failed},
		{"another key", leaf.send(bound{w, leaf.token, newKey(t)}.proof()), "invalid_dpop_proof", failed},
		{"the parent's key", leaf.send(bound{w, leaf.token, middle.key}.proof()), "invalid_dpop_proof", failed},
		{"the parent's token, taken from the child, with the child's key", middle.send(bound{w, middle.token, leaf.key}.proof()), "invalid_dpop_proof", failed},
		{"the root, with the child's key", root.send(bound{w, root.token, leaf.key}.proof()), "invalid_dpop_proof", failed},
		{"another path", leaf.send(leaf.proof(func(p *agent.Proof) { p.URL = resource + "/other" })), "invalid_dpop_proof", failed},
		{"another host", leaf.send(leaf.proof(func(p *agent.Proof) { p.URL = "https://other.example/api/diff" })), "invalid_dpop_proof", failed},
		{"another scheme", leaf.send(leaf.proof(func(p *agent.Proof) { p.URL = "http://git.example/api/diff" })), "invalid_dpop_proof", failed},
		{"another method", leaf.send(leaf.proof(post)), "invalid_dpop_proof", failed},
		{"stale", leaf.send(leaf.proof(func(p *agent.Proof) { p.IssuedAt = start.Add(-31 * time.Second) })), "invalid_dpop_proof", failed},
		{"future", leaf.send(leaf.proof(func(p *agent.Proof) { p.IssuedAt = start.Add(31 * time.Second) })), "invalid_dpop_proof", failed},
		{"no ath", leaf.send(leaf.proof(func(p *agent.Proof) { p.Token = "" })), "invalid_dpop_proof", failed},
		{"ath of another token", leaf.send(leaf.proof(func(p *agent.Proof) { p.Token = plain.token })), "invalid_dpop_proof", failed},
		{"ath of the parent's chain", leaf.send(leaf.proof(func(p *agent.Proof) { p.Token = prefix })), "invalid_dpop_proof", failed},
		{"ath of the last link", leaf.send(leaf.proof(func(p *agent.Proof) { p.Token = leaf.token[len(prefix)+1:] })), "invalid_dpop_proof", failed},
		{"a chain as Bearer", as("Bearer", leaf, leaf.proof()), none, failed},
		{"a root as Bearer", as("Bearer", root, root.proof()), none, failed},
		{"a bound token as Bearer", as("Bearer", plain, plain.proof()), none, failed},
		{"a bound token as Bearer, without proof", as("Bearer", plain), none, failed},
		{"an unbound token as DPoP", unbound.send(unbound.proof()), none, failed},
		{"an unbound token as DPoP, without proof", unbound.send(), none, failed},
		{"two credentials", two, none, delegation.Malformed},
		{"the last link alone", bound{w, leaf.token[len(prefix)+1:], leaf.key}.send(leaf.proof()), none, delegation.UnknownRoot},
		{"a good proof for an expired token", func() *http.Request {
			old := w.plainBound(func(c *delegation.Claims) { c.IssuedAt, c.Expires = start.Add(-time.Hour), start })
			return old.send(old.proof())
		}(), none, delegation.Expired},
	} {
		ran := false
		h := guard.Require(w.config())(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { ran = true }))
		got := do(h, c.request)
		want := []string{bareChallenge, invalidDPoPProof}
		if c.code == none {
			want = []string{invalidToken, proofsTaken}
		}
		if got.status != 401 || got.code != c.code || !slices.Equal(got.header["Www-Authenticate"], want) || ran {
			t.Errorf("%s: %d %s %q, handler ran: %v", c.name, got.status, got.body, got.header["Www-Authenticate"], ran)
		}
		d := w.decided()
		if len(d) != 1 || d[0].Allowed || d[0].Reason != c.reason || d[0].Proof != "" {
			t.Errorf("%s: reported %+v", c.name, d)
		}
	}
}

// TestProofOfOtherMakers sends proofs that agent.SignProof would not make.
func TestProofOfOtherMakers(t *testing.T) {
	w := newWorld(t)
	leaf := w.root().derive()
	jwk := string(leaf.key.Public().AppendJWK(nil))
	private, err := leaf.key.MarshalJWK()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, header string
		status       int
	}{
		{"EdDSA", `{"typ":"dpop+jwt","alg":"EdDSA","jwk":` + jwk + `}`, 200},
		{"Ed25519", `{"typ":"dpop+jwt","alg":"Ed25519","jwk":` + jwk + `}`, 200},
		{"private jwk", `{"typ":"dpop+jwt","alg":"Ed25519","jwk":` + string(private) + `}`, 401},
		{"HMAC", `{"typ":"dpop+jwt","alg":"HS256","jwk":` + jwk + `}`, 401},
		{"symmetric jwk", `{"typ":"dpop+jwt","alg":"HS256","jwk":{"kty":"oct","k":"c2VjcmV0"}}`, 401},
		{"none", `{"typ":"dpop+jwt","alg":"none","jwk":` + jwk + `}`, 401},
		{"under x5c", `{"typ":"dpop+jwt","alg":"Ed25519","x5c":["MIIB"]}`, 401},
		{"x5c beside", `{"typ":"dpop+jwt","alg":"Ed25519","jwk":` + jwk + `,"x5c":["MIIB"]}`, 401},
		{"an access token's typ", `{"typ":"at+jwt","alg":"Ed25519","jwk":` + jwk + `}`, 401},
		{"a link's typ", `{"typ":"aat+jwt","alg":"Ed25519","jwk":` + jwk + `}`, 401},
		{"an assertion's typ", `{"typ":"client-authentication+jwt","alg":"Ed25519","jwk":` + jwk + `}`, 401},
	} {
		claims := base64.RawURLEncoding.EncodeToString(payloadOf(t, leaf.proof()))
		input := base64.RawURLEncoding.EncodeToString([]byte(c.header)) + "." + claims
		sig, err := leaf.key.Sign([]byte(input))
		if err != nil {
			t.Fatal(err)
		}
		h := guard.Require(w.config())(ok)
		got := do(h, leaf.send(input+"."+base64.RawURLEncoding.EncodeToString(sig)))
		if got.status != c.status || got.status == 401 && got.code != "invalid_dpop_proof" {
			t.Errorf("%s: %d %s", c.name, got.status, got.body)
		}
	}
}

func payloadOf(t *testing.T, token string) []byte {
	t.Helper()
	c, err := agent.SplitCompact(token)
	if err != nil {
		t.Fatal(err)
	}
	return c.UnverifiedPayload
}

// TestOrderOfProof: step 14 comes after 13 and before 15 and 16, step 17 last.
func TestOrderOfProof(t *testing.T) {
	w := newWorld(t)
	leaf := w.root().derive()
	reason := func(cfg guard.Config, r *http.Request) delegation.Reason {
		do(guard.Require(cfg)(ok), r)
		d := w.decided()
		if len(d) != 1 {
			t.Fatalf("reported %+v", d)
		}
		return d[0].Reason
	}
	elsewhere := w.config()
	elsewhere.Resource = "https://git.example/other"
	needsMore := w.config()
	needsMore.Need.Request.Scope = delegation.AllOf("repository:write")
	w.revoked = true
	if got := reason(elsewhere, leaf.send()); got != delegation.AudienceMismatch {
		t.Errorf("13 before 14: %s", got)
	}
	if got := reason(needsMore, leaf.send()); got != delegation.HolderBindingFailed {
		t.Errorf("14 before 15: %s", got)
	}
	if got := reason(needsMore, leaf.send(leaf.proof())); got != delegation.Revoked {
		t.Errorf("15 before 16: %s", got)
	}
	w.revoked = false
	// A proof whose request was refused is not used up.
	proof := leaf.proof()
	cfg := w.config()
	cfg.NeedOf = func(r *http.Request) (guard.Need, error) {
		return guard.Need{Request: delegation.Request{Scope: delegation.AllOf(r.Header.Get("Need"))}}, nil
	}
	h := guard.Require(cfg)(ok)
	for i, c := range []struct {
		need   string
		status int
	}{{"repository:write", 403}, {"repository:read", 200}, {"repository:write", 403}, {"repository:read", 401}} {
		r := leaf.send(proof)
		r.Header.Set("Need", c.need)
		if got := do(h, r); got.status != c.status {
			t.Errorf("16 before 17, request %d: %d %s", i, got.status, got.body)
		}
	}
}

func TestReplay(t *testing.T) {
	w := newWorld(t)
	leaf := w.root().derive()
	h := guard.Require(w.config())(ok)
	proof := leaf.proof()
	if got := do(h, leaf.send(proof)); got.status != 200 {
		t.Fatalf("%+v", got)
	}
	w.decided()
	got := do(h, leaf.send(proof))
	if got.status != 401 || got.code != "invalid_dpop_proof" || !slices.Equal(got.header["Www-Authenticate"], []string{bareChallenge, invalidDPoPProof}) {
		t.Errorf("%+v", got)
	}
	if d := w.decided(); len(d) != 1 || d[0].Reason != delegation.Replayed || d[0].Chain == nil || string(d[0].Proof) != proof {
		t.Errorf("reported %+v", d)
	}
	// The same jti of another key is another proof.
	other := w.root()
	same := func(p *agent.Proof) { p.JTI = "one-and-the-same" }
	for _, b := range []bound{leaf, other} {
		if got := do(h, b.send(b.proof(same))); got.status != 200 {
			t.Errorf("%+v", got)
		}
	}
	if got := do(h, leaf.send(leaf.proof(same, func(p *agent.Proof) { p.IssuedAt = start.Add(time.Second) }))); got.status != 401 {
		t.Errorf("a jti a second time: %+v", got)
	}
	// It is remembered as long as it could pass.
	late := leaf.proof(func(p *agent.Proof) { p.IssuedAt = start.Add(30 * time.Second) })
	for _, c := range []struct {
		wait   time.Duration
		status int
	}{{0, 200}, {30 * time.Second, 401}, {30 * time.Second, 401}, {time.Second, 401}} {
		w.advance(c.wait)
		if got := do(h, leaf.send(late)); got.status != c.status {
			t.Errorf("after %v: %+v", w.clock().Sub(start), got)
		}
	}
}

// TestReplayInParallel: of 50 uses of one proof exactly one passes.
func TestReplayInParallel(t *testing.T) {
	w := newWorld(t)
	leaf := w.root().derive()
	server := httptest.NewServer(guard.Require(w.config())(ok))
	defer server.Close()
	const callers = 50
	for round := range 5 {
		proof := leaf.proof()
		statuses := make(chan string, callers)
		var ready, all sync.WaitGroup
		ready.Add(1)
		for range callers {
			all.Go(func() {
				r, err := http.NewRequest(http.MethodGet, server.URL+"/api/diff", nil)
				if err != nil {
					t.Error(err)
					return
				}
				r.Header.Set("Authorization", "DPoP "+leaf.token)
				r.Header.Set("DPoP", proof)
				ready.Wait()
				resp, err := http.DefaultClient.Do(r)
				if err != nil {
					t.Error(err)
					return
				}
				defer resp.Body.Close()
				var body struct{ Error string }
				_ = json.NewDecoder(resp.Body).Decode(&body)
				statuses <- fmt.Sprint(resp.StatusCode, " ", body.Error)
			})
		}
		ready.Done()
		all.Wait()
		close(statuses)
		count := map[string]int{}
		for s := range statuses {
			count[s]++
		}
		if count["200 "] != 1 || count["401 invalid_dpop_proof"] != callers-1 {
			t.Errorf("round %d: %v", round, count)
		}
	}
}

// TestTooManyProofs: "≤ 1,000 live per key, full → refuse, never evict".
func TestTooManyProofs(t *testing.T) {
	w := newWorld(t)
	busy, calm := w.plainBound(), w.plainBound()
	h := guard.Require(w.config())(ok)
	first := busy.proof()
	if got := do(h, busy.send(first)); got.status != 200 {
		t.Fatalf("%+v", got)
	}
	for range 999 {
		if got := do(h, busy.send(busy.proof())); got.status != 200 {
			t.Fatalf("%+v", got)
		}
	}
	w.decided()
	got := do(h, busy.send(busy.proof()))
	if got.status != 503 || got.code != "temporarily_unavailable" || got.header.Get("Retry-After") == "" {
		t.Errorf("one too many: %+v", got)
	}
	if d := w.decided(); len(d) != 1 || d[0].Reason != delegation.StatusUnknown {
		t.Errorf("reported %+v", d)
	}
	if got := do(h, busy.send(first)); got.status != 401 {
		t.Errorf("the first proof was forgotten: %+v", got)
	}
	if got := do(h, calm.send(calm.proof())); got.status != 200 {
		t.Errorf("another holder: %+v", got)
	}
	w.advance(32 * time.Second)
	if got := do(h, busy.send(busy.proof())); got.status != 200 {
		t.Errorf("later: %+v", got)
	}
}

// store is a Replays of somebody else's.
type store struct {
	mu   sync.Mutex
	keys map[string]time.Time
	err  error
}

func (s *store) Once(_ context.Context, key string, until time.Time) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return false, s.err
	}
	if _, used := s.keys[key]; used {
		return false, nil
	}
	s.keys[key] = until
	return true, nil
}

func TestReplicas(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.Replicas = 1
	guard.Require(cfg)
	cfg.Replicas = 2
	func() {
		defer func() {
			if recover() == nil {
				t.Error("two replicas remember proofs each for itself")
			}
		}()
		guard.Require(cfg)
	}()

	shared := &store{keys: map[string]time.Time{}}
	cfg.Replays = shared
	one, two := guard.Require(cfg)(ok), guard.Require(cfg)(ok)
	b := w.plainBound()
	proof := b.proof()
	if got := do(one, b.send(proof)); got.status != 200 {
		t.Errorf("%+v", got)
	}
	for _, h := range []http.Handler{one, two} {
		if got := do(h, b.send(proof)); got.status != 401 || got.code != "invalid_dpop_proof" {
			t.Errorf("%+v", got)
		}
	}
	for key, until := range shared.keys {
		if len(key) != 43 || !until.Equal(start.Add(31*time.Second)) {
			t.Errorf("remembered %q until %v", key, until)
		}
	}
	// A thief who repeats a proof does not use up its holder's share.
	for range 1500 {
		do(two, b.send(proof))
	}
	if got := do(two, b.send(b.proof())); got.status != 200 {
		t.Errorf("%+v", got)
	}
	shared.err = errors.New("the database is away")
	w.decided()
	if got := do(two, b.send(b.proof())); got.status != 503 || strings.Contains(got.body, "away") {
		t.Errorf("%+v", got)
	}
	if d := w.decided(); len(d) != 1 || d[0].Reason != delegation.StatusUnknown {
		t.Errorf("reported %+v", d)
	}
}
