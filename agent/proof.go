package agent

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/jcs"
)

// ProofType is the typ of a DPoP proof.
const ProofType = "dpop+jwt"

// ProofWindow is how far the iat of a proof may lie from now, either way
// (delegation.md §1).
const ProofWindow = 30 * time.Second

const (
	maxJTI   = 128
	maxNonce = 512
)

// Proof is a DPoP proof to be made (RFC 9449 §4.2): this key sends this
// request, now.
type Proof struct {
	// Method is the request's method, in capitals.
	Method string
	// URL is the request's; its query and fragment are left out.
	URL string
	// Token is the whole credential that goes with the request; its SHA-256 is
	// the ath. Empty: the request carries none, and there is no ath.
	Token string
	// Nonce is the one that the server asked for.
	Nonce string
	// JTI identifies the proof. Empty: a random one.
	JTI string
	// IssuedAt is now.
	IssuedAt time.Time
}

// SignProof makes the value of a DPoP header.
func SignProof(key PrivateKey, p Proof) (string, error) {
	if key.IsZero() {
		return "", invalid("key: none")
	}
	htu, _, ok := normalURI(p.URL)
	if !ok {
		return "", invalid("proof: the URL is not an http or https URI")
	}
	if !all(p.Method, isUnreserved, "!#$%&'*+^`|") || p.Method == "" {
		return "", invalid("proof: the method is not one")
	}
	if p.JTI == "" {
		p.JTI = rand.Text()
	}
	if !printable(p.JTI, maxJTI) || p.Nonce != "" && !printable(p.Nonce, maxNonce) {
		return "", invalid("proof: jti and nonce must be printable ASCII of at most %d and %d bytes", maxJTI, maxNonce)
	}
	claims := map[string]any{"jti": p.JTI, "htm": p.Method, "htu": htu, "iat": p.IssuedAt.Unix()}
	if p.Token != "" {
		claims["ath"] = accessTokenHash(p.Token)
	}
	if p.Nonce != "" {
		claims["nonce"] = p.Nonce
	}
	payload, err := jcs.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("%w: proof: %w", ErrInvalid, err)
	}
	return SignCompact(key, map[string]any{"typ": ProofType, "jwk": key.Public().JWK()}, payload)
}

// accessTokenHash is the ath of RFC 9449 §4.2; of a chain it is that of the
// whole string (delegation.md §6, Proofs).
func accessTokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return jcs.Base64URL(sum[:])
}

// ProofCheck is what a verifier demands of a proof.
type ProofCheck struct {
	// Method is that of the request.
	Method string
	// URL is that of the request, as the client knows it: a configured origin,
	// never one that the request itself names.
	URL string
	// Token is the whole credential of the request, which ath must be of.
	// Empty: there must be no ath.
	Token string
	// TokenOptional lets ath be absent although there is a Token, for a token
	// endpoint that is shown a subject_token.
	TokenOptional bool
	// JKT is the thumbprint of the key that must have signed. Empty: any key,
	// which the caller then binds something to.
	JKT string
	// Now is the time of the check.
	Now time.Time
}

// VerifiedProof is what a proof that held says.
type VerifiedProof struct {
	// Key is the key that signed it.
	Key PublicKey
	// JTI identifies the proof among those of the key.
	JTI string
	// Nonce is the nonce in it, "" if there is none. Whether it is one of ours
	// is for the caller to find out.
	Nonce string
	// HasATH says that the proof is bound to ProofCheck.Token.
	HasATH bool
	// IssuedAt is the iat.
	IssuedAt time.Time
}

// ReplayKey is what must be remembered of the proof, so that it is taken only
// once (delegation.md §6: "Replay key SHA-256(jkt ‖ jti)").
func (p VerifiedProof) ReplayKey() string {
	sum := sha256.Sum256([]byte(p.Key.Thumbprint() + p.JTI))
	return jcs.Base64URL(sum[:])
}

// Until is how long it must be remembered ("kept until `iat` + window + 1 s").
func (p VerifiedProof) Until() time.Time { return p.IssuedAt.Add(ProofWindow + time.Second) }

// VerifyProof checks the value of the one DPoP header of a request (RFC 9449
// §4.3). It is strict where the RFC leaves a choice: the header holds typ, alg
// and jwk and nothing else, so nothing in it can point to another key. It does
// not remember the proof and does not judge its nonce: both are the caller's
// duty.
func VerifyProof(proof string, check ProofCheck) (VerifiedProof, error) {
	c, err := SplitCompact(proof)
	if err != nil {
		return VerifiedProof{}, err
	}
	key, err := proofKey(c.UnverifiedHeader)
	if err != nil {
		return VerifiedProof{}, err
	}
	if check.JKT != "" && key.Thumbprint() != check.JKT {
		return VerifiedProof{}, invalid("proof: another key")
	}
	payload, err := c.verifySignature(key)
	if err != nil {
		return VerifiedProof{}, err
	}
	v, err := claims(payload)
	if err != nil {
		return VerifiedProof{}, err
	}
	return readProof(v, key, check)
}

// UnverifiedProofRequest returns the method and the URL that a proof says it is
// for, "" where it says nothing, for who has the proof without the request.
func UnverifiedProofRequest(proof string) (method, url string) {
	c, err := SplitCompact(proof)
	if err != nil {
		return "", ""
	}
	v, err := claims(c.UnverifiedPayload)
	if err != nil {
		return "", ""
	}
	return v.Get("htm").Str(), v.Get("htu").Str()
}

// proofKey reads the strict header.
func proofKey(header jcs.Value) (PublicKey, error) {
	if header.Len() != 3 || header.Get("typ").Str() != ProofType {
		return PublicKey{}, invalid("proof: the header is not typ, alg and jwk alone")
	}
	// Public members such as kid or use are harmless and common; a private
	// member gives the key away and is refused.
	key, err := ParsePublicKeyExtra(header.Get("jwk"))
	if err != nil {
		return PublicKey{}, fmt.Errorf("proof: %w", err)
	}
	if err := checkAlg(header, key); err != nil {
		return PublicKey{}, err
	}
	return key, nil
}

// checkAlg is for the two documents that other people's libraries make, DPoP
// proof and client assertion: "here `EdDSA` too, for OKP/Ed25519 keys (many
// libraries write it)" (delegation.md §2).
func checkAlg(header jcs.Value, key PublicKey) error {
	alg := header.Get("alg")
	if key.IsZero() || alg.Kind() != jcs.String || alg.Str() != key.Alg() && (alg.Str() != "EdDSA" || key.Alg() != Ed25519) {
		return invalid("token header: alg does not fit the key")
	}
	return nil
}

func readProof(v jcs.Value, key PublicKey, check ProofCheck) (VerifiedProof, error) {
	jti, nonce := v.Get("jti"), v.Get("nonce")
	if jti.Kind() != jcs.String || !printable(jti.Str(), maxJTI) {
		return VerifiedProof{}, invalid("proof: jti is not 1 to %d printable characters", maxJTI)
	}
	if nonce.Exists() && (nonce.Kind() != jcs.String || !printable(nonce.Str(), maxNonce)) {
		return VerifiedProof{}, invalid("proof: nonce is not 1 to %d printable characters", maxNonce)
	}
	if htm := v.Get("htm"); htm.Kind() != jcs.String || check.Method == "" || htm.Str() != check.Method {
		return VerifiedProof{}, invalid("proof: htm is not this method")
	}
	if htu := v.Get("htu"); htu.Kind() != jcs.String || !sameURI(htu.Str(), check.URL) {
		return VerifiedProof{}, invalid("proof: htu is not this URL")
	}
	iat, err := seconds(v, "iat")
	if err != nil {
		return VerifiedProof{}, fmt.Errorf("proof: %w", err)
	}
	now, window := check.Now.Unix(), int64(ProofWindow/time.Second)
	if iat < now-window {
		return VerifiedProof{}, invalid("proof: too old")
	}
	if iat > now+window {
		return VerifiedProof{}, invalid("proof: not yet valid")
	}
	ath := v.Get("ath")
	switch {
	case !ath.Exists():
		if check.Token != "" && !check.TokenOptional {
			return VerifiedProof{}, invalid("proof: ath is missing")
		}
	case check.Token == "":
		return VerifiedProof{}, invalid("proof: ath where there is no token")
	case ath.Kind() != jcs.String || subtle.ConstantTimeCompare([]byte(ath.Str()), []byte(accessTokenHash(check.Token))) != 1:
		return VerifiedProof{}, invalid("proof: ath is not of this token")
	}
	return VerifiedProof{
		Key: key, JTI: jti.Str(), Nonce: nonce.Str(), HasATH: ath.Exists(), IssuedAt: time.Unix(iat, 0),
	}, nil
}

// sameURI compares an htu with the URL of the request. A request whose path
// holds dot segments matches nothing: the proof was for what they resolve to,
// and whoever serves the request may not resolve them.
func sameURI(htu, request string) bool {
	want, exact, ok := normalURI(request)
	if !ok || !exact {
		return false
	}
	got, _, ok := normalURI(htu)
	return ok && got == want
}
