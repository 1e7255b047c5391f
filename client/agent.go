package client

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/kavach-dev/kavach/agent"
)

// Config says who signs in where.
type Config struct {
	// Issuer is the authorization server, an https URL (or http on loopback)
	// without query, fragment or trailing slash. Required.
	Issuer string
	// Key is the agent's identity key. Required.
	Key agent.PrivateKey
	// ID is the agent's id, or the client_id of another client with a key;
	// "" is the thumbprint of Key, which is the id until an agent changes its
	// key.
	ID string
	// Transport reaches the issuer. Nil is one that uses no proxy of the
	// environment. Redirects are not followed.
	Transport http.RoundTripper
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Agent signs in with an identity key. Its methods are safe for several
// goroutines.
type Agent struct {
	cfg    Config
	nonces nonces

	// mu guards what discovery found; it is not held while the network is
	// asked.
	mu         sync.Mutex
	endpoint   string
	discovered time.Time
}

// New checks a Config.
func New(cfg Config) (*Agent, error) {
	if err := checkIssuer(cfg.Issuer); err != nil {
		return nil, err
	}
	if cfg.Key.IsZero() {
		return nil, failed("the agent has no identity key")
	}
	if cfg.ID == "" {
		cfg.ID = cfg.Key.Public().Thumbprint()
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Transport == nil {
		cfg.Transport = &http.Transport{
			ForceAttemptHTTP2: true, TLSHandshakeTimeout: dialTimeout, IdleConnTimeout: idleTimeout,
			DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext,
		}
	}
	return &Agent{cfg: cfg}, nil
}

// ID returns the agent's id.
func (a *Agent) ID() string { return a.cfg.ID }

// Issuer returns the authorization server.
func (a *Agent) Issuer() string { return a.cfg.Issuer }

// Card signs a key card: this agent says that holder is a delegation key of
// its own. audience is the id of the agent that will delegate to it, or the
// issuer. A card lives for ten minutes at most and is made when it is needed.
func (a *Agent) Card(audience string, holder agent.PublicKey) (string, error) {
	if holder == a.cfg.Key.Public() {
		return "", failed("the identity key is no delegation key")
	}
	card, err := agent.SignCard(a.cfg.Key, agent.Card{
		Agent: a.cfg.ID, Audience: audience, Key: holder, IssuedAt: a.cfg.Now(),
	})
	if err != nil {
		return "", failed("making a key card: %w", err)
	}
	return card, nil
}

// holder returns the key to bind a token to, made if none is given.
func (a *Agent) holder(given agent.PrivateKey) (agent.PrivateKey, error) {
	if given.IsZero() {
		key, err := agent.GenerateKey()
		if err != nil {
			return key, failed("making a holder key: %w", err)
		}
		return key, nil
	}
	// delegation.md §7: "the identity key signs manifests, cards and assertions
	// only".
	if given.Public() == a.cfg.Key.Public() {
		return agent.PrivateKey{}, failed("the identity key is no holder key")
	}
	return given, nil
}

// Stay returns a Session, which signs in when it is first asked for its
// credential and again before that expires. It owns no goroutine.
func (a *Agent) Stay(ask Ask) *Session {
	return &Session{fetch: func(ctx context.Context, holder agent.PrivateKey) (Credential, error) {
		ask := ask
		ask.Holder = holder
		return a.Token(ctx, ask)
	}, holder: ask.Holder, now: a.cfg.Now}
}
