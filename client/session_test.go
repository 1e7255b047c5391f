package client_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/client"
)

// clock is set by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestSessionRenews(t *testing.T) {
	s, c, ctx := newServer(t), &clock{now: time.Now()}, context.Background()
	s.now = c.read
	session := s.agent(nil).Stay(client.Ask{Scopes: []string{"repository:read"}})
	first, err := session.Credential(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c.add(3 * time.Minute)
	if again, err := session.Credential(ctx); err != nil || again.Token != first.Token {
		t.Error("signed in again with time left")
	}
	c.add(80 * time.Second) // 40 s before the end
	second, err := session.Credential(ctx)
	if err != nil || second.Token == first.Token {
		t.Error("did not renew before the end", err)
	}
	if second.Key.Public() != first.Key.Public() {
		t.Error("the session changed its key")
	}
	// The server is away: the old token serves while it holds, and no longer.
	s.mu.Lock()
	s.answer = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }
	s.mu.Unlock()
	c.add(270 * time.Second)
	asked := len(s.asked())
	for range 3 {
		if got, err := session.Credential(ctx); err != nil || got.Token != second.Token {
			t.Fatal(err)
		}
	}
	if n := len(s.asked()) - asked; n != 1 {
		t.Errorf("the server that was away was asked %d times", n)
	}
	c.add(time.Minute)
	var refused *client.Error
	if _, err := session.Credential(ctx); !errors.As(err, &refused) || refused.Status != 503 {
		t.Errorf("with the token over: %v", err)
	}
	s.mu.Lock()
	s.answer = nil
	s.mu.Unlock()
	if third, err := session.Credential(ctx); err != nil || third.Token == second.Token {
		t.Error(err)
	}
}

// Many callers, one sign-in; and a caller that goes away takes nobody along.
func TestSessionSingleFlight(t *testing.T) {
	s := newServer(t)
	entered, leave := make(chan struct{}, 8), make(chan struct{})
	transport := roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.Method == http.MethodPost {
			entered <- struct{}{}
			select {
			case <-leave:
			case <-r.Context().Done():
				return nil, r.Context().Err()
			}
		}
		return http.DefaultTransport.RoundTrip(r)
	})
	session := s.agent(func(c *client.Config) { c.Transport = transport }).Stay(client.Ask{})
	ctx, cancel := context.WithCancel(context.Background())
	leader := make(chan error, 1)
	go func() { _, err := session.Credential(ctx); leader <- err }()
	<-entered
	tokens := make(chan client.Token, 20)
	for range cap(tokens) {
		go func() {
			cred, err := session.Credential(context.Background())
			if err != nil {
				t.Error(err)
			}
			tokens <- cred.Token
		}()
	}
	cancel()
	if err := <-leader; !errors.Is(err, context.Canceled) {
		t.Errorf("the caller that went away got %v", err)
	}
	<-entered // another one took over
	close(leave)
	first := <-tokens
	for range cap(tokens) - 1 {
		if got := <-tokens; got != first || got == "" {
			t.Fatal("two sign-ins for one need")
		}
	}
	if n := len(s.asked()); n != 1 {
		t.Errorf("the server was asked %d times", n)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
