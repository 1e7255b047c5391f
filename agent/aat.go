package agent

import (
	"crypto/rand"
	"crypto/subtle"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/kavach-dev/kavach/jcs"
)

// AATProofType is the typ of an AAT proof.
const AATProofType = "aat-pop+jwt"

// MaxAATProof is the size of an AAT proof in bytes. A proof repeats the
// arguments of its call, so it may be larger than a token: as large as what a
// chain may be where a proof travels, in a body or a `_meta` (delegation.md §1,
// MaxChainBody).
const MaxAATProof = 57344

// AATProof is an AAT proof to be made: the holder of this leaf calls this tool
// with these arguments, now. The payload is
//
//	{"aat_aud":…,"aat_hash":…,"aat_id":…,"aat_tool":…,"hta":{…},"iat":…,"jti":…,"nonce":…}
//
// in canonical form, which producers must write (aat02.md).
type AATProof struct {
	// LID is the lid of the leaf, SHA-256 of its signing input in base64url:
	// aat_hash.
	LID string
	// LeafJTI is the jti of the leaf: aat_id.
	LeafJTI string
	// Tool is the tool that is called: aat_tool.
	Tool string
	// Arguments are those of the call, an object: hta. The zero Value is an
	// empty one.
	Arguments jcs.Value
	// Audience is the resource server that is called: aat_aud. Empty: the proof
	// has none, and only a pure AAT verifier takes it.
	Audience string
	// Nonce is the one that the resource server asked for.
	Nonce string
	// JTI identifies the proof. Empty: a random one.
	JTI string
	// IssuedAt is now.
	IssuedAt time.Time
}

// SignAATProof makes an AAT proof with the key of the leaf.
func SignAATProof(key PrivateKey, p AATProof) (string, error) {
	if key.IsZero() {
		return "", invalid("key: none")
	}
	if p.LID == "" || p.LeafJTI == "" || p.Tool == "" || !utf8.ValidString(p.Tool) {
		return "", invalid("proof: the leaf's lid and jti and the tool are needed")
	}
	if !p.Arguments.Exists() {
		p.Arguments = emptyObject
	}
	if p.Arguments.Kind() != jcs.Object || !admissible(p.Arguments) {
		return "", invalid("proof: the arguments are not an object of exact numbers")
	}
	if p.JTI == "" {
		p.JTI = rand.Text()
	}
	if !printable(p.JTI, maxJTI) || p.Nonce != "" && !printable(p.Nonce, maxNonce) {
		return "", invalid("proof: jti and nonce must be printable ASCII of at most %d and %d bytes", maxJTI, maxNonce)
	}
	claims := map[string]any{
		"jti": p.JTI, "iat": p.IssuedAt.Unix(), "aat_id": p.LeafJTI, "aat_hash": p.LID, "aat_tool": p.Tool, "hta": p.Arguments,
	}
	if p.Audience != "" {
		claims["aat_aud"] = p.Audience
	}
	if p.Nonce != "" {
		claims["nonce"] = p.Nonce
	}
	payload, err := jcs.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("%w: proof: %w", ErrInvalid, err)
	}
	proof, err := SignCompact(key, map[string]any{"typ": AATProofType}, payload)
	if err != nil {
		return "", err
	}
	if len(proof) > MaxAATProof {
		return "", invalid("proof: more than %d bytes; the arguments are too large to prove", MaxAATProof)
	}
	return proof, nil
}

var emptyObject, _ = jcs.Of(map[string]any{})

// AATCheck is what a verifier demands of an AAT proof.
type AATCheck struct {
	// Key is the key of the leaf, its cnf.jwk.
	Key PublicKey
	// LID and LeafJTI are those of the leaf.
	LID     string
	LeafJTI string
	// Audience is this resource server; aat_aud must be it ("aat_aud (required
	// in KDT1)", delegation.md §6).
	Audience string
	// Tool and Arguments are those of the call, as it is going to run; aat_tool
	// and hta must say the same. No Arguments are an empty object.
	Tool      string
	Arguments jcs.Value
	// UnmatchedCall leaves Tool and Arguments aside, for a caller that learns
	// later what is called. It must ask VerifiedAATProof.Match before anything
	// runs.
	UnmatchedCall bool
	// Now is the time of the check.
	Now time.Time
}

// VerifiedAATProof is what an AAT proof that held says.
type VerifiedAATProof struct {
	// Key is the key that signed it.
	Key PublicKey
	// JTI identifies the proof among those of the key.
	JTI string
	// Nonce is the nonce in it, "" if there is none. Whether it is one of ours
	// is for the caller to find out.
	Nonce string
	// Tool is the tool that the proof speaks for.
	Tool string
	// Arguments are those that the proof speaks for, an object.
	Arguments jcs.Value
	// IssuedAt is the iat.
	IssuedAt time.Time
}

// ReplayKey is what must be remembered of the proof, so that it is taken only
// once (delegation.md §6: "Replay key SHA-256(jkt ‖ jti)").
func (p VerifiedAATProof) ReplayKey() string {
	return VerifiedProof{Key: p.Key, JTI: p.JTI}.ReplayKey()
}

// Until is how long it must be remembered ("kept until `iat` + window + 1 s").
func (p VerifiedAATProof) Until() time.Time { return p.IssuedAt.Add(ProofWindow + time.Second) }

// Match reports whether the proof speaks for this call: the same tool byte for
// byte, and arguments of the same canonical bytes. A number that has no exact
// canonical form matches nothing: the tool would read another one than was
// signed (delegation.md §8). No arguments are an empty object.
func (p VerifiedAATProof) Match(tool string, arguments jcs.Value) bool {
	if !arguments.Exists() {
		arguments = emptyObject
	}
	return tool != "" && tool == p.Tool && arguments.Kind() == jcs.Object && admissible(arguments) &&
		jcs.Equal(arguments, p.Arguments)
}

// admissible reports whether every number in a value is.
func admissible(v jcs.Value) bool {
	if v.Kind() == jcs.Number {
		_, ok := v.Float()
		return ok
	}
	for e := range v.All() {
		if !admissible(e) {
			return false
		}
	}
	for _, e := range v.Fields() {
		if !admissible(e) {
			return false
		}
	}
	return true
}

// VerifyAATProof checks an AAT proof for the leaf of a chain that was verified
// before. It does not remember the proof and does not judge its nonce: both are
// the caller's duty, and so is that the proof came with this chain alone.
func VerifyAATProof(proof string, check AATCheck) (VerifiedAATProof, error) {
	c, err := splitCompact(proof, MaxAATProof)
	if err != nil {
		return VerifiedAATProof{}, err
	}
	payload, err := c.Verify(check.Key, AATProofType)
	if err != nil {
		return VerifiedAATProof{}, err
	}
	v, err := claims(payload)
	if err != nil {
		return VerifiedAATProof{}, err
	}
	p, err := readAATProof(v, check)
	if err != nil {
		return VerifiedAATProof{}, err
	}
	if !check.UnmatchedCall && !p.Match(check.Tool, check.Arguments) {
		return VerifiedAATProof{}, invalid("proof: aat_tool and hta are not this call")
	}
	return p, nil
}

// IsAATProof reports whether a text says of itself that it is an AAT proof. It
// verifies nothing.
func IsAATProof(text string) bool {
	c, err := splitCompact(text, MaxAATProof)
	return err == nil && c.checkTyp([]string{AATProofType}) == nil
}

func readAATProof(v jcs.Value, check AATCheck) (VerifiedAATProof, error) {
	jti, nonce := v.Get("jti"), v.Get("nonce")
	if jti.Kind() != jcs.String || !printable(jti.Str(), maxJTI) {
		return VerifiedAATProof{}, invalid("proof: jti is not 1 to %d printable characters", maxJTI)
	}
	if nonce.Exists() && (nonce.Kind() != jcs.String || !printable(nonce.Str(), maxNonce)) {
		return VerifiedAATProof{}, invalid("proof: nonce is not 1 to %d printable characters", maxNonce)
	}
	if !sameText(v.Get("aat_id"), check.LeafJTI) {
		return VerifiedAATProof{}, invalid("proof: aat_id is not the jti of this leaf")
	}
	if !sameText(v.Get("aat_hash"), check.LID) {
		return VerifiedAATProof{}, invalid("proof: aat_hash is not of this leaf")
	}
	if !sameText(v.Get("aat_aud"), check.Audience) {
		return VerifiedAATProof{}, invalid("proof: aat_aud is missing or is not this resource server")
	}
	tool, hta := v.Get("aat_tool"), v.Get("hta")
	if tool.Kind() != jcs.String || tool.Str() == "" || hta.Kind() != jcs.Object || !admissible(hta) {
		return VerifiedAATProof{}, invalid("proof: aat_tool and hta are not the name of a tool and its arguments")
	}
	iat, err := seconds(v, "iat")
	if err != nil {
		return VerifiedAATProof{}, fmt.Errorf("proof: %w", err)
	}
	now, window := check.Now.Unix(), int64(ProofWindow/time.Second)
	if iat < now-window {
		return VerifiedAATProof{}, invalid("proof: too old")
	}
	if iat > now+window {
		return VerifiedAATProof{}, invalid("proof: not yet valid")
	}
	return VerifiedAATProof{
		Key: check.Key, JTI: jti.Str(), Nonce: nonce.Str(), Tool: tool.Str(), Arguments: hta, IssuedAt: time.Unix(iat, 0),
	}, nil
}

// sameText compares a claim with what it must be, which is never nothing.
func sameText(claim jcs.Value, want string) bool {
	return want != "" && claim.Kind() == jcs.String && subtle.ConstantTimeCompare([]byte(claim.Str()), []byte(want)) == 1
}
