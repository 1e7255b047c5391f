package guard_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
	"github.com/kavach-dev/kavach/wellknown"
)

// keyServer serves a key set that can change, or fail.
type keyServer struct {
	*httptest.Server
	fetches atomic.Int64
	mu      sync.Mutex // guards what follows
	status  int
	doc     []byte
}

func newKeyServer(t *testing.T, keys ...delegation.ServerKey) *keyServer {
	t.Helper()
	s := &keyServer{status: 200}
	s.publish(t, keys...)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.fetches.Add(1)
		s.mu.Lock()
		defer s.mu.Unlock()
		w.WriteHeader(s.status)
		_, _ = w.Write(s.doc)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *keyServer) publish(t *testing.T, keys ...delegation.ServerKey) {
	t.Helper()
	var set []wellknown.Key
	for _, k := range keys {
		set = append(set, wellknown.Key{KID: k.KID, Alg: delegation.Ed25519, Public: k.Signer.Public()})
	}
	doc, err := wellknown.JWKS(set)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doc = doc
}

func (s *keyServer) answer(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
}

func (s *keyServer) jwks(t *testing.T, w *world) *guard.JWKS {
	t.Helper()
	k := guard.NewJWKS(guard.JWKSConfig{
		Issuer: issuer, URL: s.URL, Refresh: time.Hour, MaxStale: time.Hour, Refetch: 10 * time.Second,
		Now: w.clock, Log: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(k.Close)
	return k
}

func TestJWKS(t *testing.T) {
	w := newWorld(t)
	_, feed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	server := newKeyServer(t, w.key, delegation.ServerKey{KID: "rv-1", Signer: feed})
	keys := server.jwks(t, w)
	first := w.token()
	if _, err := keys.Verify(first, w.clock()); err != nil {
		t.Fatalf("the first token: %v", err)
	}
	// A key of another purpose is no anchor.
	other := newWorld(t)
	other.key = delegation.ServerKey{KID: "at-rv", Signer: feed}
	if _, err := keys.Verify(other.token(), w.clock()); delegation.ReasonOf(err) != delegation.UnknownRoot {
		t.Errorf("a token of the feed's key: %v", err)
	}
	fetches := server.fetches.Load()
	for range 20 {
		if _, err := keys.Verify(other.token(), w.clock()); delegation.ReasonOf(err) != delegation.UnknownRoot {
			t.Errorf("unknown kid: %v", err)
		}
	}
	if n := server.fetches.Load() - fetches; n != 0 {
		t.Errorf("unknown kids within the interval had the set fetched %d times", n)
	}
	// A rotation: the new key is known after one more fetch.
	old := w.key
	_, next, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w.key = delegation.ServerKey{KID: "at-2", Signer: next}
	server.publish(t, old, w.key)
	w.advance(11 * time.Second)
	rotated := w.token()
	if _, err := keys.Verify(rotated, w.clock()); err != nil {
		t.Errorf("the new key: %v", err)
	}
	// A key that was withdrawn verifies nothing after the next fetch.
	server.publish(t, w.key)
	w.advance(11 * time.Second)
	if _, err := keys.Verify(other.token(), w.clock()); err == nil {
		t.Error("unknown kid")
	}
	if _, err := keys.Verify(first, w.clock()); delegation.ReasonOf(err) != delegation.UnknownRoot {
		t.Errorf("a withdrawn key still verifies: %v", err)
	}
}

func TestJWKSStale(t *testing.T) {
	w := newWorld(t)
	server := newKeyServer(t, w.key)
	keys := server.jwks(t, w)
	if _, err := keys.Verify(w.token(), w.clock()); err != nil {
		t.Fatal(err)
	}
	for _, status := range []int{500, 404, 301} {
		server.answer(status)
		w.advance(15 * time.Minute)
		if _, err := keys.Verify(w.token(), w.clock()); err != nil {
			t.Errorf("while the key server answers %d: %v", status, err)
		}
	}
	w.advance(16 * time.Minute)
	token := w.token()
	if _, err := keys.Verify(token, w.clock()); delegation.ReasonOf(err) != delegation.StatusUnknown {
		t.Errorf("with keys of yesterday: %v", err)
	}
	cfg := w.config()
	cfg.Verifier = keys
	if got := do(guard.Require(cfg)(ok), request("Bearer "+token)); got.status != 503 {
		t.Errorf("%+v", got)
	}
	fetches := server.fetches.Load()
	for range 20 {
		_, _ = keys.Verify(token, w.clock())
	}
	if n := server.fetches.Load() - fetches; n != 0 {
		t.Errorf("an outage had the set fetched %d times", n)
	}
	server.answer(200)
	w.advance(11 * time.Second)
	if got := do(guard.Require(cfg)(ok), request("Bearer "+token)); got.status != 200 {
		t.Errorf("after the outage: %+v", got)
	}
}

func TestJWKSBadSets(t *testing.T) {
	w := newWorld(t)
	server := newKeyServer(t, w.key)
	keys := server.jwks(t, w)
	token := w.token()
	if _, err := keys.Verify(token, w.clock()); err != nil {
		t.Fatal(err)
	}
	for name, doc := range map[string]string{
		"empty": `{"keys":[]}`, "no JSON": `<html>`, "ambiguous": `{"keys":[{},{"keys":1}],"keys":[]}`, "nothing": ``,
	} {
		server.mu.Lock()
		server.doc = []byte(doc)
		server.mu.Unlock()
		w.advance(11 * time.Second)
		other := newWorld(t)
		other.key.KID = "at-9"
		if _, err := keys.Verify(other.token(), w.clock()); delegation.ReasonOf(err) != delegation.UnknownRoot {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := keys.Verify(token, w.clock()); err != nil {
			t.Errorf("%s: the good set was given up: %v", name, err)
		}
	}
}

// TestJWKSManyAtOnce: a crowd that comes before the keys waits for one fetch.
func TestJWKSManyAtOnce(t *testing.T) {
	w := newWorld(t)
	server := newKeyServer(t, w.key)
	keys := server.jwks(t, w)
	token := w.token()
	var wg sync.WaitGroup
	errs := make([]error, 50)
	for i := range errs {
		wg.Go(func() { _, errs[i] = keys.Verify(token, w.clock()) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	if n := server.fetches.Load(); n != 1 {
		t.Errorf("%d fetches", n)
	}
}
