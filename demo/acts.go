package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
)

// What the story does where nothing is refused.

// reading and commenting pick the token that a step is made with.
func reading(s *stage) client.Credential    { return s.reading }
func commenting(s *stage) client.Credential { return s.comments }

// with is one request of code-reviewer's program to the git host.
func with(token func(*stage) client.Credential, method, path, body string) func(context.Context, *stage) (Outcome, error) {
	return func(ctx context.Context, s *stage) (Outcome, error) {
		r, err := request(ctx, method, path, body)
		if err != nil {
			return Outcome{}, err
		}
		return ask(s.asReviewer(token(s)), r)
	}
}

func signIn(ctx context.Context, s *stage) (Outcome, error) {
	var err error
	s.whole, err = s.orchestrator.client.Token(ctx, client.Ask{
		Resources: []string{Resource}, Scopes: []string{ReadRepository, ReadPull, WriteComment},
	})
	if err != nil {
		return failed(err)
	}
	return Outcome{Status: http.StatusOK, Note: s.lives(s.whole)}, nil
}

// failed makes an outcome of what an OAuth endpoint answered.
func failed(err error) (Outcome, error) {
	var answered *client.Error
	if errors.As(err, &answered) {
		return Outcome{Status: answered.Status, Error: answered.Code, Note: answered.Description}, nil
	}
	return Outcome{}, err
}

// lives says what somebody holds, and for how long.
func (s *stage) lives(c client.Credential) string {
	return fmt.Sprintf("%s, %s", strings.Join(c.Scopes, " "), c.Expires.Sub(s.cfg.Now()).Round(time.Second))
}

func keyCard(_ context.Context, s *stage) (Outcome, error) {
	var err error
	if s.cardKey, err = agent.GenerateKey(); err != nil {
		return Outcome{}, err
	}
	// "aud the delegator's agent id or our issuer" (delegation.md §10).
	if s.cardText, err = s.reviewer.client.Card(s.orchestrator.id, s.cardKey.Public()); err != nil {
		return Outcome{}, err
	}
	// The other side: it has the manifest, and does not trust who relays a key.
	manifest, err := agent.VerifyManifest(s.reviewer.manifest, s.cfg.Now())
	if err != nil {
		return Outcome{}, err
	}
	s.card, err = agent.VerifyCard(s.cardText, manifest.Key, agent.CardCheck{
		Agent: manifest.ID, Audience: s.orchestrator.id, Now: s.cfg.Now(),
	})
	if err != nil {
		return Outcome{}, err
	}
	return Outcome{Note: fmt.Sprintf("card for %.8s… of %s", s.card.Key.Thumbprint(), manifest.Name)}, nil
}

// delegated is what the MCP tool answers.
type delegated struct {
	Token   string `json:"token"`
	TokenID string `json:"token_id"`
}

// delegate asks the MCP tool for a token for code-reviewer.
func (s *stage) delegate(ctx context.Context, key agent.PublicKey, life time.Duration, scopes ...string) (delegated, int, error) {
	var made delegated
	status, err := s.mcp.call(ctx, "delegate", map[string]any{
		"agent": s.reviewer.id, "public_key": key.JWK(), "scopes": scopes, "audience": Resource,
		"ttl_seconds": int(life / time.Second),
		"constraints": map[string]any{
			"resources":     []string{PullID(thePull), PullID(thePull) + "/*"},
			"allow_network": []string{Host},
		},
	}, &made)
	return made, status, err
}

func delegateOnline(ctx context.Context, s *stage) (Outcome, error) {
	key, err := agent.GenerateKey() // of code-reviewer; only its public half is told
	if err != nil {
		return Outcome{}, err
	}
	made, status, err := s.delegate(ctx, key.Public(), readLife, ReadRepository, ReadPull)
	if err != nil {
		return Outcome{}, err
	}
	if s.reading, err = client.Hold(made.Token, key); err != nil {
		return Outcome{}, err
	}
	return Outcome{Status: status, Note: s.lives(s.reading)}, nil
}

func deriveOffline(_ context.Context, s *stage) (Outcome, error) {
	size := int64(commentSize)
	chain, err := s.whole.Derive(s.card.Key, s.card.Agent, delegation.Narrow{
		Card: s.cardText, Scopes: []string{WriteComment}, TTL: commentLife,
		Limits: delegation.Limits{
			Resources: []string{ThreadID(thePull, theThread)}, AllowNetwork: []string{Host}, MaxFileSize: &size,
		},
	}, s.cfg.Now())
	if err != nil {
		return Outcome{}, err
	}
	if s.comments, err = client.Hold(chain, s.cardKey); err != nil {
		return Outcome{}, err
	}
	return Outcome{Note: s.lives(s.comments)}, nil
}

func exchangeOwn(ctx context.Context, s *stage) (Outcome, error) {
	narrowed, err := s.reviewer.client.Exchange(ctx, s.reading, client.ExchangeAsk{
		Scopes: []string{ReadPull}, TTL: 30 * time.Second,
	})
	if err != nil {
		return failed(err)
	}
	return Outcome{Status: http.StatusOK, Note: s.lives(narrowed)}, nil
}

// fiveHops derives one link after the other, each for a new key, and uses the
// last.
func fiveHops(ctx context.Context, s *stage) (Outcome, error) {
	held := s.whole
	for hop := 1; hop <= hops; hop++ {
		key, err := agent.GenerateKey()
		if err != nil {
			return Outcome{}, err
		}
		narrow := delegation.Narrow{Scopes: []string{ReadPull}, TTL: commentLife}
		if hop == hops {
			narrow.Limits.Resources = []string{PullID(thePull)}
		}
		chain, err := held.Derive(key.Public(), fmt.Sprintf("helper-%d", hop), narrow, s.cfg.Now())
		if err != nil {
			return Outcome{}, fmt.Errorf("hop %d: %w", hop, err)
		}
		if held, err = client.Hold(chain, key); err != nil {
			return Outcome{}, fmt.Errorf("hop %d: %w", hop, err)
		}
	}
	r, err := request(ctx, http.MethodGet, PullID(thePull), "")
	if err != nil {
		return Outcome{}, err
	}
	o, err := ask(s.asReviewer(held), r)
	o.Note = fmt.Sprintf("%d links, %d bytes", hops, len(held.Token))
	return o, err
}

func shortLived(ctx context.Context, s *stage) (Outcome, error) {
	key, err := agent.GenerateKey()
	if err != nil {
		return Outcome{}, err
	}
	chain, err := s.whole.Derive(key.Public(), s.reviewer.id, delegation.Narrow{
		Scopes: []string{ReadPull}, TTL: shortLife,
		Limits: delegation.Limits{Resources: []string{PullID(thePull)}},
	}, s.cfg.Now())
	if err != nil {
		return Outcome{}, err
	}
	if s.short, err = client.Hold(chain, key); err != nil {
		return Outcome{}, err
	}
	return s.send(ctx, http.MethodGet, PullID(thePull), "", presented{credential: s.short})
}

func expired(ctx context.Context, s *stage) (Outcome, error) {
	select {
	case <-ctx.Done():
		return Outcome{}, ctx.Err()
	case <-time.After(s.short.Expires.Sub(s.cfg.Now()) + 10*time.Millisecond):
	}
	return s.send(ctx, http.MethodGet, PullID(thePull), "", presented{credential: s.short})
}

func stopKavach(ctx context.Context, s *stage) (Outcome, error) {
	if err := s.cfg.Kavach.Stop(); err != nil {
		return Outcome{}, err
	}
	// So that nobody has to believe it.
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", strings.TrimPrefix(s.issuer, "http://"))
	if err == nil {
		c.Close()
		return Outcome{}, errors.New("something still answers there")
	}
	return Outcome{Note: "nobody listens there"}, nil
}

func startKavach(ctx context.Context, s *stage) (Outcome, error) {
	return Outcome{}, s.cfg.Kavach.Start(ctx)
}
