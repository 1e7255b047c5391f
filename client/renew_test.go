package client_test

import (
	"context"
	"errors"
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
)

var (
	_ client.Renewer = (*client.Session)(nil)
	_ client.Source  = client.Credential{}
)

// fickle is an audience that stops taking tokens: those in revoked, or all.
type fickle struct {
	t     *testing.T
	nonce string // demanded in every proof, if it is set
	// together are refusals that are said when all of them can be.
	together *sync.WaitGroup

	mu      sync.Mutex
	all     bool
	revoked map[string]bool
	tokens  []string // of every request
	bodies  []string // of those that were taken
	proofs  map[string]bool
}

func (f *fickle) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		f.t.Error(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "DPoP ")
	f.tokens = append(f.tokens, token)
	refuse := func(code string) {
		w.Header().Add("WWW-Authenticate", "Bearer")
		w.Header().Add("WWW-Authenticate", `DPoP error="`+code+`", algs="Ed25519 ES256"`)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, code)
	}
	if f.all || f.revoked[token] {
		if f.together != nil {
			f.together.Done()
			f.mu.Unlock()
			f.together.Wait()
			f.mu.Lock()
		}
		refuse("invalid_token")
		return
	}
	proof, err := agent.VerifyProof(r.Header.Get("DPoP"), agent.ProofCheck{
		Method: r.Method, URL: gitURL + r.URL.Path, Token: token, Now: time.Now(),
	})
	switch {
	case err != nil || f.proofs[proof.JTI]:
		f.t.Errorf("a proof that does not hold: %v", err)
		refuse("invalid_dpop_proof")
		return
	case proof.Nonce != f.nonce:
		w.Header().Set("DPoP-Nonce", f.nonce)
		refuse("use_dpop_nonce")
		return
	}
	f.proofs[proof.JTI] = true
	f.bodies = append(f.bodies, string(body))
}

// revoke makes every token that was shown so far unfit.
func (f *fickle) revoke() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, token := range f.tokens {
		f.revoked[token] = true
	}
}

// fickleAt starts it, with a Transport that has shown a token there once.
func fickleAt(t *testing.T, source client.Source) (*fickle, *client.Transport) {
	t.Helper()
	ca, f := newAuthority(t), &fickle{t: t, revoked: map[string]bool{}, proofs: map[string]bool{}}
	s := ca.serve(t, f, gitHost)
	tr := &client.Transport{Source: source, RootCAs: ca.pool, Resolve: map[string]string{gitHost: s.Listener.Addr().String()}}
	t.Cleanup(tr.CloseIdleConnections)
	if answer, err := get(t, tr, gitURL+"/"); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatal(answer, err)
	}
	return f, tr
}

func (s *server) session() *client.Session {
	return s.agent(nil).Stay(client.Ask{Scopes: []string{"repository:read"}, Resources: []string{gitURL}})
}

func post(t *testing.T, tr http.RoundTripper, body io.Reader) (*http.Response, error) {
	t.Helper()
	answer, err := (&http.Client{Transport: tr}).Post(gitURL+"/comments", "text/plain", body)
	if err == nil {
		t.Cleanup(func() { answer.Body.Close() })
	}
	return answer, err
}

// A token that was revoked is renewed once, and the same body goes with the new
// one. The caller sees the second answer alone.
func TestTransportRenews(t *testing.T) {
	s := newServer(t)
	f, tr := fickleAt(t, s.session())
	f.revoke()
	for _, body := range []string{"well done", "once more"} {
		answer, err := post(t, tr, strings.NewReader(body))
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatal(answer, err)
		}
		if answer.Request.Header.Get("Authorization") != "" || answer.Request.Header.Get("DPoP") != "" {
			t.Error("the caller's request carries the token")
		}
	}
	if answer, err := get(t, tr, gitURL+"/"); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatal(answer, err)
	}
	if len(f.tokens) != 5 || f.tokens[1] != f.tokens[0] || f.tokens[2] == f.tokens[0] || f.tokens[3] != f.tokens[2] {
		t.Errorf("%d requests, want one that was refused, once", len(f.tokens))
	}
	if got := strings.Join(f.bodies, "|"); got != "|well done|once more|" {
		t.Errorf("bodies %q", got)
	}
	if n := len(s.asked()); n != 2 {
		t.Errorf("signed in %d times, want 2", n)
	}
}

// A request without a body needs no GetBody, and a nonce may be wanted before
// and after.
func TestTransportRenewsWithNonce(t *testing.T) {
	s := newServer(t)
	f, tr := fickleAt(t, s.session())
	f.revoke()
	f.nonce = "n-1"
	if answer, err := get(t, tr, gitURL+"/"); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatal(answer, err)
	}
	if n := len(f.tokens); n != 4 {
		t.Errorf("%d requests, want 4: taken, refused, without nonce, with nonce", n)
	}
}

// A second refusal is the answer: nothing goes round in circles.
func TestTransportRenewsOnce(t *testing.T) {
	s := newServer(t)
	f, tr := fickleAt(t, s.session())
	f.all = true
	answer, err := post(t, tr, strings.NewReader("x"))
	if err != nil || answer.StatusCode != http.StatusUnauthorized {
		t.Fatal(answer, err)
	}
	if text, err := io.ReadAll(answer.Body); err != nil || string(text) != "invalid_token" {
		t.Errorf("the refusal says %q, %v", text, err)
	}
	if len(f.tokens) != 3 || f.tokens[1] == f.tokens[2] || len(s.asked()) != 2 {
		t.Errorf("%d requests, %d sign-ins", len(f.tokens), len(s.asked()))
	}
}

// Where it cannot be sent again, or there is nobody to ask, the refusal is the
// answer.
func TestTransportRenewsNot(t *testing.T) {
	t.Run("a body that is read once", func(t *testing.T) {
		s := newServer(t)
		f, tr := fickleAt(t, s.session())
		f.revoke()
		answer, err := post(t, tr, io.NopCloser(strings.NewReader("once")))
		if err != nil || answer.StatusCode != http.StatusUnauthorized || len(f.tokens) != 2 || len(s.asked()) != 1 {
			t.Errorf("%v %v: %d requests, %d sign-ins", answer, err, len(f.tokens), len(s.asked()))
		}
	})
	t.Run("a token that was handed over", func(t *testing.T) {
		f, tr := fickleAt(t, held(t, nil))
		f.revoke()
		answer, err := get(t, tr, gitURL+"/")
		if err != nil || answer.StatusCode != http.StatusUnauthorized || len(f.tokens) != 2 {
			t.Errorf("%v %v: %d requests", answer, err, len(f.tokens))
		}
	})
	t.Run("no other token", func(t *testing.T) {
		f, tr := fickleAt(t, renewing{held(t, nil), nil})
		f.revoke()
		answer, err := get(t, tr, gitURL+"/")
		if err != nil || answer.StatusCode != http.StatusUnauthorized || len(f.tokens) != 2 {
			t.Errorf("%v %v: %d requests", answer, err, len(f.tokens))
		}
	})
	t.Run("another error", func(t *testing.T) {
		s := newServer(t)
		session := s.session()
		if _, err := session.Credential(context.Background()); err != nil {
			t.Fatal(err)
		}
		for challenge, status := range map[string]int{
			`DPoP error="invalid_token"`: http.StatusForbidden, `DPoP error="invalid_dpop_proof"`: http.StatusUnauthorized,
		} {
			n, ca := 0, newAuthority(t)
			at := ca.serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				n++
				w.Header().Set("WWW-Authenticate", challenge)
				w.WriteHeader(status)
			}), gitHost)
			tr := &client.Transport{Source: session, RootCAs: ca.pool, Resolve: map[string]string{gitHost: at.Listener.Addr().String()}}
			if answer, err := get(t, tr, gitURL+"/"); err != nil || answer.StatusCode != status || n != 1 {
				t.Errorf("%s: %v %v after %d requests", challenge, answer, err, n)
			}
		}
		if len(s.asked()) != 1 {
			t.Errorf("%d sign-ins", len(s.asked()))
		}
	})
	t.Run("a foreign origin", func(t *testing.T) {
		n := 0
		other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			n++
			w.Header().Set("WWW-Authenticate", `DPoP error="invalid_token"`)
			w.WriteHeader(http.StatusUnauthorized)
		}))
		defer other.Close()
		tr := &client.Transport{
			Source: renewing{held(t, network("other.example")), func(used client.Credential) client.Credential {
				t.Error("renewed")
				return used
			}},
			Resolve: map[string]string{"other.example": other.Listener.Addr().String()},
		}
		answer, err := get(t, tr, "http://other.example/")
		if err != nil || answer.StatusCode != http.StatusUnauthorized || n != 1 {
			t.Errorf("%v %v after %d requests", answer, err, n)
		}
	})
}

// renewing is a credential that has another one behind it.
type renewing struct {
	first client.Credential
	next  func(used client.Credential) client.Credential
}

func (r renewing) Credential(context.Context) (client.Credential, error) { return r.first, nil }

func (r renewing) Renew(_ context.Context, used client.Credential) (client.Credential, error) {
	if r.next == nil {
		return used, nil
	}
	return r.next(used), nil
}

// What goes with the new token is judged by the new token.
func TestTransportRenewedIsJudged(t *testing.T) {
	size := int64(3)
	small := held(t, func(c *delegation.Claims) { c.Limits.MaxFileSize = &size })
	f, tr := fickleAt(t, renewing{held(t, nil), func(client.Credential) client.Credential { return small }})
	f.revoke()
	r := &reports{}
	tr.Report = r.report
	_, err := post(t, tr, strings.NewReader("four"))
	wantRefused(t, err, r, delegation.ConstraintViolated, delegation.DimensionSize)
	if len(f.tokens) != 2 {
		t.Errorf("%d requests", len(f.tokens))
	}

	// It is for somebody else: what was refused with a token is not tried without.
	elsewhere := held(t, func(c *delegation.Claims) {
		c.Audience, c.Limits.AllowNetwork = []string{"https://wiki.internal"}, []string{gitHost}
	})
	f, tr = fickleAt(t, renewing{held(t, nil), func(client.Credential) client.Credential { return elsewhere }})
	f.revoke()
	answer, err := post(t, tr, strings.NewReader("x"))
	if err != nil || answer.StatusCode != http.StatusUnauthorized || len(f.tokens) != 2 {
		t.Errorf("%v %v after %d requests", answer, err, len(f.tokens))
	}
}

// Many requests that are refused at once sign in once.
func TestTransportRenewsOnceForAll(t *testing.T) {
	s := newServer(t)
	f, tr := fickleAt(t, s.session())
	f.revoke()
	const many = 16
	f.together = &sync.WaitGroup{}
	f.together.Add(many)
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() {
			answer, err := post(t, tr, strings.NewReader("all"))
			if err != nil || answer.StatusCode != http.StatusOK {
				t.Error(answer, err)
			}
		})
	}
	wg.Wait()
	if n := len(s.asked()); n != 2 || len(f.bodies) != 1+many || len(f.tokens) != 1+2*many {
		t.Errorf("signed in %d times, %d requests taken", n, len(f.bodies))
	}
}

// Why there is no new token is the error; the old one is not lost with it, for
// other servers may take it. It is asked for again at the next refusal.
func TestTransportCannotRenew(t *testing.T) {
	s, c, ctx := newServer(t), &clock{now: time.Now()}, context.Background()
	s.now = c.read
	session := s.session()
	f, tr := fickleAt(t, session)
	first, err := session.Credential(ctx)
	if err != nil {
		t.Fatal(err)
	}
	f.revoke()
	s.mu.Lock()
	s.answer = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }
	s.mu.Unlock()
	var failed *client.Error
	if _, err := post(t, tr, strings.NewReader("x")); !errors.As(err, &failed) || failed.Status != http.StatusServiceUnavailable {
		t.Errorf("error %v", err)
	}
	if got, err := session.Credential(ctx); err != nil || got.Token != first.Token {
		t.Errorf("the old token is gone: %v", err)
	}
	s.mu.Lock()
	s.answer = nil
	s.mu.Unlock()
	if answer, err := post(t, tr, strings.NewReader("x")); err != nil || answer.StatusCode != http.StatusOK {
		t.Error(answer, err)
	}
	// Whoever still holds the first is given what there is by now.
	second, err := session.Credential(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := session.Renew(ctx, first); err != nil || got.Token != second.Token || got.Token == first.Token {
		t.Errorf("renewed again: %v", err)
	}
	if n := len(s.asked()); n != 3 {
		t.Errorf("the server was asked %d times, want 3", n)
	}
}
