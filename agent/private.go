package agent

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"

	"github.com/kavach-dev/kavach/jcs"
)

// PrivateKey signs as an agent. It prints as "[redacted]". The zero value is no
// key.
type PrivateKey struct {
	public PublicKey
	signer crypto.Signer
}

// GenerateKey makes a new Ed25519 key.
func GenerateKey() (PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("making a key: %w", err)
	}
	return NewPrivateKey(key)
}

// NewPrivateKey wraps a signer whose public key is Ed25519 or P-256; a key
// service or a token can stand behind it.
func NewPrivateKey(signer crypto.Signer) (PrivateKey, error) {
	if signer == nil {
		return PrivateKey{}, invalid("key: none")
	}
	public, err := NewPublicKey(signer.Public())
	if err != nil {
		return PrivateKey{}, err
	}
	return PrivateKey{public: public, signer: signer}, nil
}

// ParsePrivateKey reads a private JWK, which is what a key file holds. The
// public members must be those of the private one. Members that say what the
// key is for (kid, alg, use, key_ops, ext) are not read.
func ParsePrivateKey(jwk []byte) (PrivateKey, error) {
	v, err := jcs.Parse(jwk, jcs.Limits{Bytes: MaxToken})
	if err != nil {
		return PrivateKey{}, fmt.Errorf("%w: key: %w", ErrInvalid, err)
	}
	public, _, err := parseJWK(v)
	if err != nil {
		return PrivateKey{}, err
	}
	d, err := jcs.DecodeBase64URL(v.Get("d").Str())
	if err != nil || len(d) != 32 {
		return PrivateKey{}, invalid("key: d is not 32 bytes of base64url")
	}
	var signer crypto.Signer
	if public.kind == ed25519Key {
		signer = ed25519.NewKeyFromSeed(d)
	} else if signer, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), d); err != nil {
		return PrivateKey{}, invalid("key: d is not a scalar of P-256")
	}
	key, err := NewPrivateKey(signer)
	if err != nil {
		return PrivateKey{}, err
	}
	if key.public != public {
		return PrivateKey{}, invalid("key: the public members belong to another private key")
	}
	return key, nil
}

// MarshalJWK returns the private JWK in canonical form, its kid the thumbprint.
// It fails for a key that lives behind a foreign signer.
func (k PrivateKey) MarshalJWK() ([]byte, error) {
	var d []byte
	switch key := k.signer.(type) {
	case ed25519.PrivateKey:
		d = key.Seed()
	case *ecdsa.PrivateKey:
		var err error
		if d, err = key.Bytes(); err != nil {
			return nil, fmt.Errorf("encoding the key: %w", err)
		}
	default:
		return nil, invalid("key: it cannot leave where it is kept")
	}
	jwk := k.public.JWK()
	jwk["d"] = jcs.Base64URL(d)
	jwk["kid"] = k.public.Thumbprint()
	return jcs.Marshal(jwk)
}

// IsZero reports whether there is no key.
func (k PrivateKey) IsZero() bool { return k.signer == nil }

// Public returns the public key.
func (k PrivateKey) Public() PublicKey { return k.public }

// Alg returns the algorithm of the key: "Ed25519" or "ES256".
func (k PrivateKey) Alg() string { return k.public.Alg() }

// Sign returns the signature of a message in JWS form: 64 bytes of Ed25519, or
// r ‖ s of ES256.
func (k PrivateKey) Sign(message []byte) ([]byte, error) {
	switch k.public.kind {
	case ed25519Key:
		sig, err := k.signer.Sign(rand.Reader, message, crypto.Hash(0))
		if err != nil {
			return nil, fmt.Errorf("signing: %w", err)
		}
		return sig, nil
	case p256Key:
		digest := sha256.Sum256(message)
		der, err := k.signer.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			return nil, fmt.Errorf("signing: %w", err)
		}
		return rawSignature(der)
	}
	return nil, invalid("key: none")
}

// rawSignature turns the ASN.1 of crypto.Signer into r ‖ s (RFC 7518 §3.4).
func rawSignature(der []byte) ([]byte, error) {
	var pair struct{ R, S *big.Int }
	rest, err := asn1.Unmarshal(der, &pair)
	if err != nil || len(rest) > 0 || pair.R.Sign() <= 0 || pair.S.Sign() <= 0 ||
		pair.R.BitLen() > 256 || pair.S.BitLen() > 256 {
		return nil, errors.New("signing: the signer returned a malformed ECDSA signature")
	}
	sig := make([]byte, 64)
	pair.R.FillBytes(sig[:32])
	pair.S.FillBytes(sig[32:])
	return sig, nil
}

const redacted = "[redacted]"

// String hides the key.
func (PrivateKey) String() string { return redacted }

// GoString hides the key.
func (PrivateKey) GoString() string { return redacted }

// Format hides the key from every verb.
func (PrivateKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue hides the key.
func (PrivateKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the key from encoders.
func (PrivateKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }
