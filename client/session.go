package client

import (
	"context"
	"sync"
	"time"

	"github.com/kavach-dev/kavach/agent"
)

const (
	// renewMargin is how long before its end a credential is renewed, at
	// least; a fifth of its life if that is more, half of it if it is short.
	renewMargin = 10 * time.Second
	// renewPause is how long a failed renewal is not tried again while the old
	// credential still holds.
	renewPause = 5 * time.Second
)

// Session is an agent that stays signed in. It is a Source and a Renewer.
type Session struct {
	fetch func(context.Context, agent.PrivateKey) (Credential, error)
	now   func() time.Time

	mu sync.Mutex // guards what follows; never held while the network is asked
	// holder is made at the first sign-in, unless it was given.
	holder  agent.PrivateKey
	current Credential
	renewAt time.Time
	flight  *flight
}

// flight is one sign-in under way. err and cred are read after done is closed.
type flight struct {
	done chan struct{}
	cred Credential
	err  error
	// abandoned says that it ended because its own caller went away, which
	// says nothing to those who waited for it.
	abandoned bool
}

// Credential returns a credential that has time left. Callers that come while
// one of them signs in wait for that one, unless the old token still holds. If
// renewing fails, the old token is returned for as long as it holds.
func (s *Session) Credential(ctx context.Context) (Credential, error) {
	return s.other(ctx, "")
}

// Renew returns another credential than used, which a server would not take
// although it had time left: it was revoked, or signed by a key that is gone.
// Only if used is still the current one does it sign in, and callers that come
// meanwhile wait for that. If it fails, that is the error, and Credential keeps
// the old token: what one server says of it does not take it from the others.
func (s *Session) Renew(ctx context.Context, used Credential) (Credential, error) {
	return s.other(ctx, used.Token)
}

// other returns a credential whose token is not the one that was refused.
func (s *Session) other(ctx context.Context, refused Token) (Credential, error) {
	for {
		s.mu.Lock()
		if s.holds(refused) && (s.now().Before(s.renewAt) || s.flight != nil) {
			defer s.mu.Unlock()
			return s.current, nil
		}
		f := s.flight
		if f == nil {
			f = &flight{done: make(chan struct{})}
			s.flight = f
			s.mu.Unlock()
			s.fly(ctx, f)
			return s.landed(f, refused)
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return Credential{}, failed("waiting to sign in: %w", ctx.Err())
		case <-f.done:
			if !f.abandoned {
				return s.landed(f, refused)
			}
		}
	}
}

// holds says whether the current credential has time left and another token
// than the refused one. s.mu is held.
func (s *Session) holds(refused Token) bool {
	return s.current.Token != "" && s.current.Token != refused && s.now().Before(s.current.Expires)
}

// fly signs in, for everybody who waits.
func (s *Session) fly(ctx context.Context, f *flight) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.flight = nil
		close(f.done)
	}()
	s.mu.Lock()
	if s.holder.IsZero() {
		s.holder, f.err = agent.GenerateKey()
	}
	holder := s.holder
	s.mu.Unlock()
	if f.err != nil {
		return
	}
	sent := s.now()
	f.cred, f.err = s.fetch(ctx, holder)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.err != nil {
		f.abandoned = ctx.Err() != nil
		s.renewAt = s.now().Add(renewPause)
		return
	}
	life := f.cred.Expires.Sub(sent)
	s.current = f.cred
	s.renewAt = f.cred.Expires.Add(-min(max(life/5, renewMargin), life/2))
}

// landed returns what a flight brought, or the old credential if that holds and
// was not refused.
func (s *Session) landed(f *flight, refused Token) (Credential, error) {
	if f.err == nil {
		return f.cred, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holds(refused) {
		return s.current, nil
	}
	return Credential{}, f.err
}
