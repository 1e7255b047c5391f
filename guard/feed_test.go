package guard_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
)

// feedServer serves what it is told to, and counts.
type feedServer struct {
	*httptest.Server
	w      *world
	signer ed25519.PrivateKey
	polled chan struct{} // gets one for each fetch that was answered

	mu     sync.Mutex // guards what follows
	status int
	body   string
	etag   string
	asked  []string // If-None-Match of each fetch
}

func newFeedServer(t *testing.T, w *world) *feedServer {
	t.Helper()
	_, signer, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &feedServer{w: w, signer: signer, status: 200, polled: make(chan struct{}, 1000)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		match := r.Header.Get("If-None-Match")
		s.asked = append(s.asked, match)
		status, body := s.status, s.body
		rw.Header().Set("ETag", s.etag)
		if status == 200 && match != "" && match == s.etag {
			status, body = http.StatusNotModified, ""
		}
		s.mu.Unlock()
		rw.WriteHeader(status)
		_, _ = rw.Write([]byte(body))
		s.polled <- struct{}{}
	}))
	t.Cleanup(s.Close)
	return s
}

// FeedKey implements guard.FeedKeys.
func (s *feedServer) FeedKey(kid string) (crypto.PublicKey, bool) {
	return s.signer.Public(), kid == "rv-1"
}

// publish signs a feed, of now unless the claims say when.
func (s *feedServer) publish(c delegation.FeedClaims) {
	s.w.t.Helper()
	c.Issuer = issuer
	if c.IssuedAt.IsZero() {
		c.IssuedAt = s.w.clock()
	}
	token, err := delegation.SignFeed(c, "rv-1", s.signer)
	if err != nil {
		s.w.t.Fatal(err)
	}
	s.serve(200, token)
}

func (s *feedServer) serve(status int, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.body, s.etag = status, body, `"`+body[max(0, len(body)-20):]+`"`
}

// settled waits until what is served now was fetched: the fetch under way may
// be of before, and is over when the one after the next begins.
func (s *feedServer) settled() {
	for len(s.polled) > 0 {
		<-s.polled
	}
	for range 3 {
		<-s.polled
	}
}

func (s *feedServer) feed(t *testing.T, policy guard.StalePolicy) *guard.Feed {
	t.Helper()
	f := guard.NewFeed(guard.FeedConfig{
		Issuer: issuer, URL: s.URL, Keys: s, Stale: policy, Poll: 2 * time.Millisecond, Now: s.w.clock, Log: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(f.Close)
	return f
}

func TestFeedRevokesAndTakesNothingBack(t *testing.T) {
	w := newWorld(t)
	s := newFeedServer(t, w)
	token := w.token()
	chain, err := w.verifier().Verify(token, w.clock())
	if err != nil {
		t.Fatal(err)
	}
	s.publish(delegation.FeedClaims{Seq: 5})
	feed := s.feed(t, guard.StaleRefusesEffects)
	revoked := func() bool {
		t.Helper()
		s.settled()
		dead, err := feed.Revoked(t.Context(), chain)
		if err != nil {
			t.Fatal(err)
		}
		return dead
	}
	if revoked() {
		t.Error("nothing is revoked")
	}
	w.advance(time.Second)
	s.publish(delegation.FeedClaims{Seq: 6, Links: []string{chain.LID()}})
	if !revoked() {
		t.Error("a revoked link lives after the poll")
	}
	s.mu.Lock()
	if !slices.ContainsFunc(s.asked, func(m string) bool { return m != "" }) {
		t.Error("it never asked whether the feed has changed")
	}
	s.mu.Unlock()
	held := feed.Held()
	good := s.body
	now := w.clock()
	for name, serve := range map[string]func(){
		"an older seq":       func() { s.publish(delegation.FeedClaims{Seq: 5, IssuedAt: now.Add(time.Second)}) },
		"an older iat":       func() { s.publish(delegation.FeedClaims{Seq: 6, IssuedAt: now.Add(-time.Second)}) },
		"from the future":    func() { s.publish(delegation.FeedClaims{Seq: 9, IssuedAt: now.Add(time.Hour)}) },
		"stale":              func() { s.publish(delegation.FeedClaims{Seq: 9, IssuedAt: now.Add(-time.Hour)}) },
		"another's":          func() { s.serve(200, signedFor(t, "https://other.example", "rv-1", s.signer, now)) },
		"unknown key":        func() { s.serve(200, signedFor(t, issuer, "rv-2", s.signer, now)) },
		"another key":        func() { s.serve(200, signedFor(t, issuer, "rv-1", w.key.Signer, now)) },
		"a token":            func() { s.serve(200, token) },
		"changed":            func() { s.serve(200, strings.Replace(good, ".", ".e", 1)) },
		"garbage":            func() { s.serve(200, "garbage") },
		"nothing":            func() { s.serve(200, "") },
		"more than a MiB":    func() { s.serve(200, strings.Repeat("a", 1<<20+1)) },
		"an error":           func() { s.serve(500, good) },
		"elsewhere":          func() { s.serve(302, good) },
		"what it never said": func() { s.serve(204, "") },
	} {
		serve()
		if !revoked() || feed.Held() != held {
			t.Errorf("%s: what was revoked lives again", name)
		}
	}
}

func signedFor(t *testing.T, issuer, kid string, signer crypto.Signer, now time.Time) string {
	t.Helper()
	token, err := delegation.SignFeed(delegation.FeedClaims{Issuer: issuer, Seq: 99, IssuedAt: now}, kid, signer)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestStaleFeed(t *testing.T) {
	for name, test := range map[string]struct {
		policy              guard.StalePolicy
		read, search, write int
	}{
		"default":    {guard.StaleRefusesEffects, 200, 200, 503},
		"refuse all": {guard.StaleRefusesAll, 503, 503, 503},
		"serve":      {guard.StaleServes, 200, 200, 200},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s := newFeedServer(t, w)
			s.publish(delegation.FeedClaims{})
			feed := s.feed(t, test.policy)
			cfg := w.config()
			cfg.Revocations = feed
			cfg.NeedOf = func(r *http.Request) (guard.Need, error) {
				need := w.config().Need
				need.ReadOnly = r.URL.Path == "/search"
				return need, nil
			}
			h := guard.Require(cfg)(ok)
			token := w.token()
			send := func(method, path string) int {
				t.Helper()
				r := httptest.NewRequest(method, "https://git.example"+path, nil)
				r.Header.Set("Authorization", "Bearer "+token)
				got := do(h, r)
				d := w.decided()
				last := d[len(d)-1]
				unchecked := slices.Contains(last.Unchecked, "revocation")
				if got.status == 503 && (last.Reason != delegation.StatusUnknown || got.header.Get("Retry-After") == "") {
					t.Errorf("%s %s: %+v %v", method, path, last.Reason, got.header)
				}
				if got.status == 200 && unchecked == feed.Held().Fresh(w.clock()) {
					t.Errorf("%s %s: unchecked %v", method, path, last.Unchecked)
				}
				return got.status
			}
			if r, q, p := send("GET", "/api/x"), send("POST", "/search"), send("POST", "/api/x"); r != 200 || q != 200 || p != 200 {
				t.Errorf("fresh: %d %d %d", r, q, p)
			}
			s.serve(500, "away")
			w.advance(59 * time.Second)
			if p := send("POST", "/api/x"); p != 200 {
				t.Errorf("in its minute: %d", p)
			}
			w.advance(time.Second)
			if r, q, p := send("GET", "/api/x"), send("POST", "/search"), send("POST", "/api/x"); r != test.read || q != test.search || p != test.write {
				t.Errorf("stale: %d %d %d", r, q, p)
			}
			// What was known to be revoked stays so.
			s.publish(delegation.FeedClaims{Seq: 1, Grants: []string{"gid"}})
			s.settled()
			s.serve(500, "away")
			w.advance(time.Minute)
			if r := send("GET", "/api/x"); r != 401 {
				t.Errorf("revoked and stale: %d", r)
			}
			// And when it is back, so is everything.
			s.publish(delegation.FeedClaims{Seq: 2})
			s.settled()
			if p := send("POST", "/api/x"); p != 200 {
				t.Errorf("back: %d", p)
			}
		})
	}
}

// A server that was never reached is as good as one that is away, and Close
// ends the waiting.
func TestFeedThatNeverCame(t *testing.T) {
	w := newWorld(t)
	s := newFeedServer(t, w)
	s.serve(404, "nothing")
	feed := s.feed(t, guard.StaleRefusesEffects)
	cfg := w.config()
	cfg.Revocations = feed
	h := guard.Require(cfg)(ok)
	for method, want := range map[string]int{"GET": 200, "POST": 503} {
		r := httptest.NewRequest(method, resource+"/diff", nil)
		r.Header.Set("Authorization", "Bearer "+w.token())
		if got := do(h, r); got.status != want {
			t.Errorf("%s: %d", method, got.status)
		}
	}
	feed.Close()
	none := w.config()
	none.Revocations = nil
	r := httptest.NewRequest("POST", resource+"/diff", nil)
	r.Header.Set("Authorization", "Bearer "+w.token())
	if got := do(guard.Require(none)(ok), r); got.status != 200 {
		t.Errorf("without a source: %d", got.status)
	}
	if d := w.decided(); !slices.Equal(d[len(d)-1].Unchecked, []string{"revocation"}) {
		t.Errorf("without a source: unchecked %v", d[len(d)-1].Unchecked)
	}
}

func TestJWKSKnowsTheFeedsKeys(t *testing.T) {
	w := newWorld(t)
	_, signer, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := newKeyServer(t, w.key, delegation.ServerKey{KID: "rv-1", Signer: signer}).jwks(t, w)
	if key, known := keys.FeedKey("rv-1"); !known || !signer.Public().(ed25519.PublicKey).Equal(key) {
		t.Error("the feed's key is not known")
	}
	for _, kid := range []string{"at-1", "rv-2", ""} {
		if _, known := keys.FeedKey(kid); known {
			t.Errorf("%q is a key of the feed", kid)
		}
	}
}
