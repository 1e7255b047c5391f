package wellknown

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4/json"
)

// Key is a public signature key of a key set. Its algorithm is pinned: a
// verifier takes it from here and never from a token.
type Key struct {
	// KID names the key.
	KID string
	// Alg is "Ed25519", "ES256" or "RS256".
	Alg string
	// Public is an ed25519.PublicKey, an *ecdsa.PublicKey on P-256 or an
	// *rsa.PublicKey of at least 2048 bits.
	Public crypto.PublicKey
}

// maxKeys bounds a key set that is read.
const maxKeys = 256

// kidPattern is delegation.md §1.
var kidPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// A jwk holds the members that are written and read. Private ones are here to
// be noticed.
type jwk struct {
	Kty    string   `json:"kty"`
	Use    string   `json:"use,omitempty"`
	KeyOps []string `json:"key_ops,omitempty"`
	Alg    string   `json:"alg,omitempty"`
	KID    string   `json:"kid,omitempty"`
	Crv    string   `json:"crv,omitempty"`
	X      string   `json:"x,omitempty"`
	Y      string   `json:"y,omitempty"`
	N      string   `json:"n,omitempty"`
	E      string   `json:"e,omitempty"`
	D      string   `json:"d,omitempty"`
	K      string   `json:"k,omitempty"`
}

// JWKS returns the key set document. A key that this package would not read
// back is an error.
func JWKS(keys []Key) ([]byte, error) {
	set := struct {
		Keys []jwk `json:"keys"`
	}{Keys: make([]jwk, 0, len(keys))}
	for _, k := range keys {
		j := jwk{Use: "sig", Alg: k.Alg, KID: k.KID}
		switch public := k.Public.(type) {
		case ed25519.PublicKey:
			j.Kty, j.Crv, j.X = "OKP", "Ed25519", encode(public)
		case *ecdsa.PublicKey:
			point, err := public.Bytes()
			if err != nil || public.Curve != elliptic.P256() {
				return nil, fmt.Errorf("%w: key %q is not on P-256", ErrInvalid, k.KID)
			}
			j.Kty, j.Crv, j.X, j.Y = "EC", "P-256", encode(point[1:33]), encode(point[33:])
		case *rsa.PublicKey:
			j.Kty, j.N, j.E = "RSA", encode(public.N.Bytes()), encode(big.NewInt(int64(public.E)).Bytes())
		}
		if _, err := j.key(); err != nil {
			return nil, fmt.Errorf("key %q: %w", k.KID, err)
		}
		set.Keys = append(set.Keys, j)
	}
	return json.Marshal(set)
}

// ParseJWKS reads a key set. Names are compared exactly and duplicate members
// refused. Keys of other types, uses or algorithms are left out (RFC 7517 §5:
// "SHOULD ignore JWKs within a JWK Set that use kty values that are not
// understood"); two usable keys of one kid make the set ambiguous, which is an
// error.
func ParseJWKS(data []byte) ([]Key, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("%w: key set: %w", ErrInvalid, err)
	}
	if set.Keys == nil {
		return nil, fmt.Errorf("%w: key set: no keys member", ErrInvalid)
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("%w: key set: more than %d keys", ErrInvalid, maxKeys)
	}
	seen := make(map[string]bool, len(set.Keys))
	var keys []Key
	for _, raw := range set.Keys {
		var j jwk
		if json.Unmarshal(raw, &j) != nil {
			continue
		}
		k, err := j.key()
		if err != nil {
			continue
		}
		if seen[k.KID] {
			return nil, fmt.Errorf("%w: key set: two keys named %q", ErrInvalid, k.KID)
		}
		seen[k.KID] = true
		keys = append(keys, k)
	}
	return keys, nil
}

func (j jwk) key() (Key, error) {
	fail := func(what string) (Key, error) { return Key{}, fmt.Errorf("%w: %s", ErrInvalid, what) }
	if j.D != "" || j.K != "" {
		return fail("a private or symmetric key")
	}
	if !kidPattern.MatchString(j.KID) {
		return fail("kid")
	}
	if j.Use != "" && j.Use != "sig" || j.KeyOps != nil && !slices.Contains(j.KeyOps, "verify") {
		return fail("not for signatures")
	}
	k := Key{KID: j.KID}
	switch {
	case j.Kty == "OKP" && j.Crv == "Ed25519":
		x, ok := decode(j.X)
		if !ok || len(x) != ed25519.PublicKeySize {
			return fail("x")
		}
		k.Alg, k.Public = "Ed25519", ed25519.PublicKey(x)
	case j.Kty == "EC" && j.Crv == "P-256":
		x, okX := decode(j.X)
		y, okY := decode(j.Y)
		if !okX || !okY || len(x) != 32 || len(y) != 32 {
			return fail("x or y")
		}
		public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append([]byte{4}, append(x, y...)...))
		if err != nil {
			return fail("the point is not on P-256")
		}
		k.Alg, k.Public = "ES256", public
	case j.Kty == "RSA":
		n, okN := decode(j.N)
		e, okE := decode(j.E)
		if !okN || !okE || len(n) < 256 || len(n) > 1024 || n[0] == 0 || len(e) == 0 || len(e) > 4 || e[0] == 0 {
			return fail("n or e")
		}
		exponent := new(big.Int).SetBytes(e).Int64()
		modulus := new(big.Int).SetBytes(n)
		if exponent < 3 || exponent > 1<<31-1 || exponent&1 == 0 || modulus.Bit(0) == 0 || modulus.BitLen() < 2048 {
			return fail("n or e")
		}
		if weak(modulus) {
			return fail("a modulus that can be factored")
		}
		k.Alg, k.Public = "RS256", &rsa.PublicKey{N: modulus, E: int(exponent)}
	default:
		return fail("kty or crv")
	}
	if j.Alg != "" && j.Alg != k.Alg {
		return fail("alg does not fit the key")
	}
	return k, nil
}

// weak recognises the moduli of Infineon's faulty generator (CVE-2017-15361,
// "ROCA"): modulo each of these primes they are a power of 65537. An honest
// modulus is so for all of them with a chance below one in 2²⁰.
func weak(modulus *big.Int) bool {
	for _, p := range []int64{
		11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157,
	} {
		remainder := new(big.Int).Mod(modulus, big.NewInt(p)).Int64()
		power, found := int64(1), false
		for range p {
			if power == remainder {
				found = true
				break
			}
			power = power * 65537 % p
		}
		if !found {
			return false
		}
	}
	return true
}

var strict = base64.RawURLEncoding.Strict()

func encode(b []byte) string { return strict.EncodeToString(b) }

func decode(text string) ([]byte, bool) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, false
	}
	b, err := strict.DecodeString(text)
	return b, err == nil
}
