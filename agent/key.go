package agent

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"

	"github.com/kavach-dev/kavach/jcs"
)

// The algorithms of agents, by their fully specified JOSE names (RFC 7518,
// RFC 9864).
const (
	Ed25519 = "Ed25519"
	ES256   = "ES256"
)

// thumbprintURI is the prefix of RFC 9278 for SHA-256 thumbprints.
const thumbprintURI = "urn:ietf:params:oauth:jwk-thumbprint:sha-256:"

type keyKind uint8

const (
	noKey keyKind = iota
	ed25519Key
	p256Key
)

// PublicKey is a validated Ed25519 or P-256 key. The zero value is no key:
// it verifies nothing. Keys are compared with ==.
type PublicKey struct {
	kind keyKind
	raw  [64]byte // Ed25519: 32 bytes, then zeros; P-256: X ‖ Y
}

// ParsePublicKey reads a public JWK that holds the required public members and
// nothing else (delegation.md §3, cnf: "only the required public members").
func ParsePublicKey(jwk jcs.Value) (PublicKey, error) {
	k, members, err := parseJWK(jwk)
	if err == nil && jwk.Len() != members {
		return PublicKey{}, invalid("key: members besides the required public ones")
	}
	return k, err
}

// ParsePublicJWK is ParsePublicKey on the text of a JWK.
func ParsePublicJWK(text []byte) (PublicKey, error) {
	v, err := jcs.Parse(text, jcs.Limits{Bytes: MaxToken})
	if err != nil {
		return PublicKey{}, fmt.Errorf("%w: key: %w", ErrInvalid, err)
	}
	return ParsePublicKey(v)
}

// ParsePublicKeyExtra reads a public JWK and tolerates further public members
// (kid, x5c, …), as AAT-02 step 3l and published key sets need. Private members
// are refused, and so is a key that says it is for something else.
func ParsePublicKeyExtra(jwk jcs.Value) (PublicKey, error) {
	for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"} {
		if jwk.Get(private).Exists() {
			return PublicKey{}, invalid("key: the private member %s", private)
		}
	}
	k, _, err := parseJWK(jwk)
	if err != nil {
		return PublicKey{}, err
	}
	if use := jwk.Get("use"); use.Exists() && use.Str() != "sig" {
		return PublicKey{}, invalid("key: not for signatures")
	}
	if ops := jwk.Get("key_ops"); ops.Exists() {
		if list, ok := ops.Strings(); !ok || !slices.Contains(list, "verify") {
			return PublicKey{}, invalid("key: not for verifying")
		}
	}
	// "EdDSA" is how many libraries name the algorithm of such a key.
	if alg := jwk.Get("alg"); alg.Exists() && alg.Str() != k.Alg() && (alg.Str() != "EdDSA" || k.kind != ed25519Key) {
		return PublicKey{}, invalid("key: alg does not fit the curve")
	}
	return k, nil
}

// parseJWK reads the required public members and returns how many they are.
func parseJWK(jwk jcs.Value) (k PublicKey, members int, err error) {
	if jwk.Kind() != jcs.Object {
		return k, 0, invalid("key: not a JWK object")
	}
	coordinate := func(name string) (b [32]byte, err error) {
		v := jwk.Get(name)
		if v.Kind() != jcs.String {
			return b, invalid("key: %s is missing", name)
		}
		if b, err = jcs.Decode32(v.Str()); err != nil {
			return b, invalid("key: %s is not 32 bytes of base64url", name)
		}
		return b, nil
	}
	kty, crv := jwk.Get("kty").Str(), jwk.Get("crv").Str()
	switch {
	case kty == "OKP" && crv == "Ed25519":
		x, err := coordinate("x")
		if err != nil {
			return k, 0, err
		}
		k, err = fromEd25519(x[:])
		return k, 3, err
	case kty == "EC" && crv == "P-256":
		x, err := coordinate("x")
		if err != nil {
			return k, 0, err
		}
		y, err := coordinate("y")
		if err != nil {
			return k, 0, err
		}
		k, err = fromPoint(slices.Concat([]byte{4}, x[:], y[:]))
		return k, 4, err
	}
	return k, 0, invalid("key: only OKP with Ed25519 and EC with P-256 are supported")
}

// NewPublicKey validates an ed25519.PublicKey, an *ecdsa.PublicKey on P-256, or
// a PublicKey.
func NewPublicKey(key crypto.PublicKey) (PublicKey, error) {
	switch key := key.(type) {
	case PublicKey:
		if key.IsZero() {
			return PublicKey{}, invalid("key: none")
		}
		return key, nil
	case ed25519.PublicKey:
		return fromEd25519(key)
	case *ecdsa.PublicKey:
		if key == nil || key.Curve != elliptic.P256() {
			return PublicKey{}, invalid("key: the curve is not P-256")
		}
		point, err := key.Bytes()
		if err != nil {
			return PublicKey{}, invalid("key: the point is not on P-256")
		}
		return fromPoint(point)
	}
	return PublicKey{}, invalid("key: a %T is not supported", key)
}

// fromPoint takes an uncompressed point, 0x04 ‖ X ‖ Y.
func fromPoint(point []byte) (k PublicKey, err error) {
	if _, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point); err != nil {
		return k, invalid("key: the point is not on P-256")
	}
	k.kind = p256Key
	copy(k.raw[:], point[1:])
	return k, nil
}

// smallOrder holds the canonical encodings of the eight points whose order
// divides the cofactor. Go, Node, Deno and workerd all accept a signature by
// such a "key" for every message, so whoever presents one proves nothing.
var smallOrder = [...][32]byte{
	encoding("0100000000000000000000000000000000000000000000000000000000000000"), // order 1, the neutral element
	encoding("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"), // order 2
	encoding("0000000000000000000000000000000000000000000000000000000000000000"), // order 4
	encoding("0000000000000000000000000000000000000000000000000000000000000080"), // order 4
	encoding("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), // order 8
	encoding("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"), // order 8
	encoding("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), // order 8
	encoding("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"), // order 8
}

func encoding(text string) (e [32]byte) {
	if _, err := hex.Decode(e[:], []byte(text)); err != nil {
		panic(err)
	}
	return e
}

// fromEd25519 refuses small order and every encoding that is not canonical
// (RFC 8032 §5.1.3): y ≥ 2²⁵⁵ − 19, or the sign bit where x is zero. A y that
// belongs to no point is harmless, nothing verifies under it.
func fromEd25519(b []byte) (k PublicKey, err error) {
	if len(b) != ed25519.PublicKeySize {
		return k, invalid("key: an Ed25519 key has 32 bytes")
	}
	k.kind = ed25519Key
	copy(k.raw[:], b)
	for _, point := range &smallOrder {
		if bytes.Equal(b, point[:]) {
			return PublicKey{}, invalid("key: an Ed25519 key of small order")
		}
	}
	y := k.raw[:32]
	if y[31]&0x7f == 0x7f && y[0] >= 0xed && allOnes(y[1:31]) {
		return PublicKey{}, invalid("key: an Ed25519 key that is not canonical")
	}
	// x is zero only at y = ±1; with the sign bit these are non-canonical.
	plain := k.raw
	plain[31] &= 0x7f
	if bytes.Equal(plain[:32], smallOrder[0][:]) || bytes.Equal(plain[:32], smallOrder[1][:]) {
		return PublicKey{}, invalid("key: an Ed25519 key that is not canonical")
	}
	return k, nil
}

func allOnes(b []byte) bool {
	for _, c := range b {
		if c != 0xff {
			return false
		}
	}
	return true
}

// IsZero reports whether there is no key.
func (k PublicKey) IsZero() bool { return k.kind == noKey }

// Equal reports whether two keys are the same, as the keys of the standard
// library do.
func (k PublicKey) Equal(other crypto.PublicKey) bool {
	o, err := NewPublicKey(other)
	return err == nil && k == o
}

// Alg returns the one algorithm of the key: "Ed25519" or "ES256".
func (k PublicKey) Alg() string {
	switch k.kind {
	case ed25519Key:
		return Ed25519
	case p256Key:
		return ES256
	}
	return ""
}

// Crypto returns the key as the standard library has it.
func (k PublicKey) Crypto() crypto.PublicKey {
	switch k.kind {
	case ed25519Key:
		return ed25519.PublicKey(bytes.Clone(k.raw[:32]))
	case p256Key:
		return k.ecdsa()
	}
	return nil
}

func (k PublicKey) ecdsa() *ecdsa.PublicKey {
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, k.raw[:]...))
	if err != nil {
		panic("agent: a PublicKey that was not validated: " + err.Error())
	}
	return key
}

// Verify checks a JWS signature of a message: 64 bytes of Ed25519, or r ‖ s of
// ES256.
func (k PublicKey) Verify(message, signature []byte) bool {
	if len(signature) != 64 {
		return false
	}
	switch k.kind {
	case ed25519Key:
		return ed25519.Verify(k.raw[:32], message, signature)
	case p256Key:
		digest := sha256.Sum256(message)
		return ecdsa.Verify(k.ecdsa(), digest[:],
			new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:]))
	}
	return false
}

// JWK returns the required public members, ready for jcs.Of.
func (k PublicKey) JWK() map[string]any {
	switch k.kind {
	case ed25519Key:
		return map[string]any{"kty": "OKP", "crv": "Ed25519", "x": jcs.Base64URL(k.raw[:32])}
	case p256Key:
		return map[string]any{"kty": "EC", "crv": "P-256", "x": jcs.Base64URL(k.raw[:32]), "y": jcs.Base64URL(k.raw[32:])}
	}
	return nil
}

// AppendJWK appends the canonical bytes of the public JWK, which are what RFC
// 7638 hashes.
func (k PublicKey) AppendJWK(dst []byte) []byte {
	switch k.kind {
	case ed25519Key:
		dst = append(dst, `{"crv":"Ed25519","kty":"OKP","x":"`...)
		dst = jcs.AppendBase64URL(dst, k.raw[:32])
		return append(dst, `"}`...)
	case p256Key:
		dst = append(dst, `{"crv":"P-256","kty":"EC","x":"`...)
		dst = jcs.AppendBase64URL(dst, k.raw[:32])
		dst = append(dst, `","y":"`...)
		dst = jcs.AppendBase64URL(dst, k.raw[32:])
		return append(dst, `"}`...)
	}
	return dst
}

// Thumbprint returns the RFC 7638 thumbprint, SHA-256 in base64url.
func (k PublicKey) Thumbprint() string {
	if k.IsZero() {
		return ""
	}
	sum := k.thumbprint()
	return jcs.Base64URL(sum[:])
}

func (k PublicKey) thumbprint() [sha256.Size]byte {
	var jwk [192]byte
	return sha256.Sum256(k.AppendJWK(jwk[:0]))
}

// IsThumbprint reports whether text is the thumbprint of the key.
func (k PublicKey) IsThumbprint(text string) bool {
	sum, err := jcs.Decode32(text)
	return err == nil && !k.IsZero() && sum == k.thumbprint()
}

// ThumbprintURI returns the thumbprint as the URI of RFC 9278, which is the
// issuer of the links that the key signs.
func (k PublicKey) ThumbprintURI() string {
	if k.IsZero() {
		return ""
	}
	return thumbprintURI + k.Thumbprint()
}

// String returns the thumbprint.
func (k PublicKey) String() string { return k.Thumbprint() }
