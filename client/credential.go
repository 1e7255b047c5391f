package client

import (
	"context"
	"net/http"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
)

// Source yields the credential to act with. A Session is one, and so is a
// Credential.
type Source interface {
	Credential(ctx context.Context) (Credential, error)
}

// Renewer is a Source that can be asked for another credential than one that a
// server would not take: a Session is one, a Credential is not. Whoever wraps a
// Session and wants a Transport to renew passes Renew on, too.
type Renewer interface {
	Source
	// Renew returns another credential than used, a new one only if nobody has
	// got one since.
	Renew(ctx context.Context, used Credential) (Credential, error)
}

// Credential is a token or chain with the key it is bound to.
type Credential struct {
	// Token is the whole credential string.
	Token Token
	// Key is the holder's private key; zero for an unbound token, and for one
	// that was exchanged for somebody else's key.
	Key agent.PrivateKey
	// Expires is when it ends.
	Expires time.Time
	// Scopes are those in effect.
	Scopes []string
	// Audience are the resources it is for.
	Audience []string
}

// Hold makes a Credential of a token or chain that somebody handed over, and
// the key it was made for. It reads the token without verifying it: a server
// will. The key must be the one that the token is bound to, if it is bound.
func Hold(token string, key agent.PrivateKey) (Credential, error) {
	grant, err := delegation.UnverifiedHeld(token)
	if err != nil {
		return Credential{}, failed("reading the token: %w", err)
	}
	c := Credential{
		Token: Token(token), Expires: grant.Expires(), Scopes: grant.Scopes(), Audience: grant.Audience(),
	}
	if jkt := grant.JKT(); jkt != "" {
		if key.IsZero() || key.Public().Thumbprint() != jkt {
			return Credential{}, failed("the key is not the one that the token is bound to")
		}
		c.Key = key
	}
	return c, nil
}

// Credential returns c, which makes it a Source that never renews.
func (c Credential) Credential(context.Context) (Credential, error) { return c, nil }

// Derive hands a part of the credential on, offline: the chain for agentID and
// its public key. See delegation.Derive for what it refuses. The receiver's key
// is one the caller made for it, or that of a key card which verified against
// the receiver's manifest, and then narrow.Card is that card. narrow.ClientID is
// set to agentID.
func (c Credential) Derive(receiver agent.PublicKey, agentID string, narrow delegation.Narrow, now time.Time) (string, error) {
	narrow.ClientID = agentID
	derived, err := delegation.Derive(string(c.Token), c.Key, receiver, narrow, now)
	if err != nil {
		return "", err
	}
	return derived.Chain, nil
}

// Authorize puts the token and a fresh proof on a request to one of its
// audiences. It is for programs that cannot use a Transport, which also checks
// where the request goes. nonce is the last DPoP-Nonce of that server, or "".
func (c Credential) Authorize(r *http.Request, nonce string, now time.Time) error {
	bare(r.Header)
	if c.Key.IsZero() {
		grant, err := delegation.UnverifiedHeld(string(c.Token))
		if err != nil {
			return failed("reading the token: %w", err)
		}
		if grant.Scheme() != delegation.Bearer {
			return failed("the token is bound to a key that is not here")
		}
		r.Header.Set("Authorization", delegation.Bearer+" "+string(c.Token))
		return nil
	}
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	proof, err := agent.SignProof(c.Key, agent.Proof{
		Method: method, URL: r.URL.String(), Token: string(c.Token), Nonce: nonce, IssuedAt: now,
	})
	if err != nil {
		return failed("making a proof: %w", err)
	}
	r.Header.Set("Authorization", delegation.DPoP+" "+string(c.Token))
	r.Header.Set(proofHeader, proof)
	return nil
}
