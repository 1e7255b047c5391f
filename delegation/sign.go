package delegation

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/jcs"
)

// Claims are what the server signs: a root if Root is set, else a plain access
// token. Every access token goes through them.
type Claims struct {
	Issuer   string
	Subject  string
	ClientID string
	Audience []string
	// IssuedAt and Expires are cut to whole seconds.
	IssuedAt time.Time
	Expires  time.Time
	// JTI is made from IssuedAt if it is empty.
	JTI string
	// Scopes are sorted when they are written.
	Scopes []string
	// GrantID is the gid.
	GrantID string

	// Root makes the root of a chain. It needs Key, and an Ed25519 or ES256
	// server key.
	Root bool
	// AAT gives a root the typ aat+jwt, for verifiers that know only AAT.
	AAT bool
	// MaxDepth is the del_max_depth of a root.
	MaxDepth int
	// Hops, in a plain token, is how many more hand-overs it allows, if that
	// is less than its grant does; nil leaves it to the grant. Exchange sets
	// it.
	Hops *int

	// Key is the holder's. A root carries it, a plain token its thumbprint.
	Key agent.PublicKey
	// JKT binds a plain token to a key of which only the thumbprint is known.
	JKT string

	// Tools and Limits restrict. A plain token without either has no
	// authorization_details.
	Tools  Tools
	Limits Limits

	// Ancestry is the anc, Act those who acted, outermost first. Both are of
	// exchange.
	Ancestry []string
	Act      []Party
}

// ServerKey signs access tokens.
type ServerKey struct {
	// KID starts with at-.
	KID string
	// Signer holds an Ed25519, P-256 or RSA key, which decides the algorithm:
	// Ed25519, ES256 or RS256.
	Signer crypto.Signer
}

// Signed is a token made by Sign.
type Signed struct {
	// Token is the credential: never log it.
	Token string
	// LID and JTI identify it.
	LID string
	JTI string
	// JKT is the thumbprint it is bound to, "" for a bearer token.
	JKT string
}

// ErrClaims is the root of what Sign refuses to sign. Where a verifier would
// refuse the token for its size or shape, it wraps that *Refusal too: then the
// caller asked for too much.
var ErrClaims = errors.New("claims cannot be signed")

// claimHops is kavach's own claim for Claims.Hops. It is written into plain
// tokens by the server and read from those alone; in a chain del_max_depth says
// it.
const claimHops = "hops"

// Sign signs a root or a plain token. What it returns has the shape that
// Verify demands: the claims are parsed again before they are signed.
func Sign(c Claims, key ServerKey) (Signed, error) {
	anchor, err := key.Anchor()
	if err != nil {
		return Signed{}, err
	}
	if c.JTI == "" {
		c.JTI = NewJTI(c.IssuedAt)
	}
	payload, err := c.payload()
	if err != nil {
		return Signed{}, err
	}
	p, refusal := parsePart(payload, true)
	switch {
	case refusal != nil:
		return Signed{}, fmt.Errorf("%w: %w", ErrClaims, refusal)
	case c.Root && anchor.rsa != nil:
		return Signed{}, fmt.Errorf("%w: a root is signed by Ed25519 or ES256", ErrClaims)
	case c.Root && (c.MaxDepth < 0 || c.MaxDepth > MaxDepth):
		return Signed{}, fmt.Errorf("%w: del_max_depth is not 0 to 8", ErrClaims)
	case p.exp <= p.iat || p.exp-p.iat > int64(MaxRootTTL/time.Second):
		return Signed{}, fmt.Errorf("%w: a life of 1 to 3600 seconds", ErrClaims)
	}
	header := map[string]any{"alg": anchor.Alg(), "typ": TypeAccessToken, "kid": key.KID}
	if c.Root && c.AAT {
		header["typ"] = TypeLink
	}
	protected, err := jcs.Marshal(header)
	if err != nil {
		return Signed{}, fmt.Errorf("%w: %w", ErrClaims, err)
	}
	signed := jcs.Base64URL(protected) + "." + jcs.Base64URL(payload)
	signature, err := key.sign(anchor, []byte(signed))
	if err != nil {
		return Signed{}, fmt.Errorf("signing with key %s: %w", key.KID, err)
	}
	token := signed + "." + jcs.Base64URL(signature)
	if len(token) > MaxToken {
		return Signed{}, fmt.Errorf("%w: %w", ErrClaims, refuse(TooLarge, "", "a token of more than 8192 bytes"))
	}
	return Signed{Token: token, LID: linkID(signed), JTI: c.JTI, JKT: p.jkt}, nil
}

// Anchor returns what verifies the key's tokens.
func (k ServerKey) Anchor() (Anchor, error) {
	if k.Signer == nil {
		return Anchor{}, fmt.Errorf("kid %s without a signer: %w", quoteShort(k.KID), ErrAnchor)
	}
	return NewAnchor(k.KID, k.Signer.Public())
}

func (k ServerKey) sign(anchor Anchor, message []byte) ([]byte, error) {
	if anchor.rsa == nil {
		private, err := agent.NewPrivateKey(k.Signer)
		if err != nil {
			return nil, err
		}
		return private.Sign(message)
	}
	digest := sha256.Sum256(message)
	signature, err := k.Signer.Sign(rand.Reader, digest[:], crypto.SHA256)
	if err != nil {
		return nil, err
	}
	return signature, rsa.VerifyPKCS1v15(anchor.rsa, crypto.SHA256, digest[:], signature)
}

func (c Claims) payload() ([]byte, error) {
	claims := map[string]any{
		"iss": c.Issuer, "sub": c.Subject, "client_id": c.ClientID, "aud": c.Audience,
		"iat": c.IssuedAt.Unix(), "exp": c.Expires.Unix(), "jti": c.JTI,
		"scope": joinScopes(c.Scopes), "gid": c.GrantID,
	}
	jkt := c.JKT
	if !c.Key.IsZero() {
		if jkt != "" && jkt != c.Key.Thumbprint() {
			return nil, fmt.Errorf("%w: jkt is not of the key", ErrClaims)
		}
		jkt = c.Key.Thumbprint()
	}
	switch {
	case c.Root:
		claims["cnf"] = map[string]any{"jwk": c.Key.JWK(), "jkt": jkt}
		claims["del_depth"], claims["del_max_depth"] = 0, c.MaxDepth
	case jkt != "":
		claims["cnf"] = map[string]any{"jkt": jkt}
	}
	if c.Hops != nil && !c.Root {
		claims[claimHops] = *c.Hops
	}
	if c.Root || len(c.Tools) > 0 || !c.Limits.IsZero() {
		if refusal := c.Tools.validate(); refusal != nil {
			return nil, fmt.Errorf("%w: %w", ErrClaims, refusal)
		}
		claims["authorization_details"] = details(c.Tools, c.Limits, !c.Limits.IsZero())
	}
	if len(c.Ancestry) > 0 {
		claims["anc"] = c.Ancestry
	}
	if act := nestActors(c.Act); act != nil {
		claims["act"] = act
	}
	payload, err := jcs.Marshal(claims)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrClaims, err)
	}
	return payload, nil
}

// nestActors folds actors, outermost first, into the act of RFC 8693 §4.1.
func nestActors(actors []Party) map[string]any {
	var act map[string]any
	for _, party := range slices.Backward(actors) {
		outer := map[string]any{"sub": party.ID}
		if !party.Proved {
			outer["proved"] = false
		}
		if act != nil {
			outer["act"] = act
		}
		act = outer
	}
	return act
}

func joinScopes(scopes []string) string {
	if !slices.IsSorted(scopes) {
		scopes = slices.Sorted(slices.Values(scopes))
	}
	return strings.Join(scopes, " ")
}

// NewJTI makes a UUIDv7 (RFC 9562 §5.7) of a time and random bits.
func NewJTI(now time.Time) string {
	var id [16]byte
	_, _ = rand.Read(id[6:]) // never fails: crypto/rand ends the program instead
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(now.UnixMilli()))
	copy(id[:6], ms[2:])
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	text := hex.AppendEncode(make([]byte, 0, 36), id[:4])
	for _, group := range [...][]byte{id[4:6], id[6:8], id[8:10], id[10:]} {
		text = hex.AppendEncode(append(text, '-'), group)
	}
	return string(text)
}

// Form is what decides whether a token is issued as a root or plain.
type Form struct {
	// AudienceAware says that every resource in aud is registered as
	// kavach-aware.
	AudienceAware bool
	// Key is the receiver's public key, zero if it is not known.
	Key agent.PublicKey
	// KeySent says that the client sent the key to be bound (req_cnf).
	KeySent bool
	// Agent says that the client is an agent.
	Agent bool
	// Depth is the depth left for the receiver.
	Depth int
	// AAT says that a root for verifiers that know only AAT was asked for. They
	// take no other form, so neither the audience nor the depth left decides.
	AAT bool
}

// Root applies delegation.md §3, "Which form is issued".
func (f Form) Root() bool {
	if f.AAT {
		return !f.Key.IsZero() && f.KeySent
	}
	return f.AudienceAware && !f.Key.IsZero() && f.Depth >= 1 && (f.Agent || f.KeySent)
}
