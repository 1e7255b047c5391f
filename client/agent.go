package client

import (
	"context"
	"net/http"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
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
	// environment.
	Transport http.RoundTripper
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Agent signs in with an identity key. Its methods are safe for several
// goroutines.
type Agent struct {
	cfg Config
}

// Ask is what to sign in for.
type Ask struct {
	// Scopes may be empty: the server then gives all that the agent has for the
	// resources.
	Scopes []string
	// Resources are the servers that the token is for.
	Resources []string
	// MaxDepth is how many hand-overs the token shall allow (del_max_depth);
	// nil leaves it to the server.
	MaxDepth *int
	// Holder is the key to bind the token to; zero makes one. It is never the
	// identity key.
	Holder agent.PrivateKey
}

// ExchangeAsk is what a token shall be exchanged for (RFC 8693). What it leaves
// zero stays as the subject has it.
type ExchangeAsk struct {
	// Scopes narrow the subject's; nil keeps them.
	Scopes []string
	// Resources narrow the subject's audience; nil keeps it.
	Resources []string
	// TTL is how long it shall live.
	TTL time.Duration
	// MaxDepth is how many more hand-overs the result shall allow.
	MaxDepth *int
	// Tools and Limits restrict it further.
	Tools  delegation.Tools
	Limits delegation.Limits
	// Card is the key card of the agent that will use the result, with the
	// issuer as its audience.
	Card string
	// Receiver is the key to bind the result to, if it is not the subject's and
	// no card names it.
	Receiver agent.PublicKey
	// Holder is a new key of one's own to bind the result to.
	Holder agent.PrivateKey
}

// New checks a Config.
func New(cfg Config) (*Agent, error) { return &Agent{cfg: cfg}, nil }

// ID returns the agent's id.
func (a *Agent) ID() string { return a.cfg.ID }

// Issuer returns the authorization server.
func (a *Agent) Issuer() string { return a.cfg.Issuer }

// Token signs in once (client credentials, private_key_jwt) and returns a token
// bound to the holder key.
func (a *Agent) Token(ctx context.Context, ask Ask) (Credential, error) {
	return Credential{}, failed("not built")
}

// Exchange narrows a token or chain online (RFC 8693). The result's Key is the
// subject's, ask.Holder, or zero where it is somebody else's.
func (a *Agent) Exchange(ctx context.Context, subject Credential, ask ExchangeAsk) (Credential, error) {
	return Credential{}, failed("not built")
}

// Redeem turns a handle, which MCP delegate gave out for this agent, into a
// token bound to holder; a zero holder makes one. A handle works once.
func (a *Agent) Redeem(ctx context.Context, handle string, holder agent.PrivateKey) (Credential, error) {
	return Credential{}, failed("not built")
}

// Card signs a key card: this agent says that holder is a delegation key of
// its own. audience is the id of the agent that will delegate to it, or the
// issuer.
func (a *Agent) Card(audience string, holder agent.PublicKey) (string, error) {
	return "", failed("not built")
}

// Session is an agent that stays signed in. It is a Source.
type Session struct{}

// Stay returns a Session, which signs in when it is first asked for its
// credential and again before that expires. It owns no goroutine.
func (a *Agent) Stay(ask Ask) *Session { return &Session{} }

// Credential returns a credential that has time left. Callers that come while
// one of them signs in wait for that one, unless the old token still holds.
func (s *Session) Credential(ctx context.Context) (Credential, error) {
	return Credential{}, failed("not built")
}
