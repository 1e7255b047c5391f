package delegation

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/kavach-dev/kavach/agent"
)

// ErrAnchor is the root of what NewAnchor refuses.
var ErrAnchor = errors.New("not a key for access tokens")

// Anchor is a server key that tokens are verified under. Its algorithm is
// pinned: a header that names another one is refused. The zero value verifies
// nothing.
type Anchor struct {
	kid string
	key agent.PublicKey
	rsa *rsa.PublicKey
}

// NewAnchor takes a key of the server. The kid is ^[A-Za-z0-9_-]{1,64}$ and
// starts with at-, so that a key of another purpose never verifies a token. An
// Ed25519 key means Ed25519, a P-256 key ES256, an RSA key of 2048 to 8192 bits
// RS256.
func NewAnchor(kid string, key crypto.PublicKey) (Anchor, error) {
	if !validKID(kid) {
		return Anchor{}, fmt.Errorf("kid %s: %w", quoteShort(kid), ErrAnchor)
	}
	if k, ok := key.(*rsa.PublicKey); ok {
		if k == nil || k.N == nil || k.N.BitLen() < 2048 || k.N.BitLen() > 8192 || k.E < 3 || k.E%2 == 0 {
			return Anchor{}, fmt.Errorf("RSA key of kid %s: %w", kid, ErrAnchor)
		}
		return Anchor{kid: kid, rsa: k}, nil
	}
	k, err := agent.NewPublicKey(key)
	if err != nil {
		return Anchor{}, fmt.Errorf("key of kid %s: %w: %w", kid, ErrAnchor, err)
	}
	return Anchor{kid: kid, key: k}, nil
}

// KID returns the key id.
func (a Anchor) KID() string { return a.kid }

// Alg returns the pinned algorithm.
func (a Anchor) Alg() string {
	if a.rsa != nil {
		return RS256
	}
	return a.key.Alg()
}

// Equal reports whether two anchors are the same key under the same kid.
func (a Anchor) Equal(b Anchor) bool {
	if a.rsa == nil || b.rsa == nil {
		return a == b
	}
	return a.kid == b.kid && a.rsa.Equal(b.rsa)
}

// verify checks a JWS signature under the pinned algorithm.
func (a Anchor) verify(message, signature []byte) bool {
	if a.rsa == nil {
		return !a.key.IsZero() && a.key.Verify(message, signature)
	}
	digest := sha256.Sum256(message)
	return rsa.VerifyPKCS1v15(a.rsa, crypto.SHA256, digest[:], signature) == nil
}

// AnchorSet looks keys up by kid in a fixed set. A later anchor of the same kid
// replaces an earlier one.
func AnchorSet(anchors ...Anchor) func(kid string) (Anchor, bool) {
	set := make(map[string]Anchor, len(anchors))
	for _, a := range anchors {
		set[a.kid] = a
	}
	return func(kid string) (Anchor, bool) {
		a, ok := set[kid]
		return a, ok
	}
}
