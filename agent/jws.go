package agent

import (
	"fmt"
	"maps"
	"strings"

	"github.com/kavach-dev/kavach/jcs"
)

// Compact is a compact JWS taken apart:
//
//	base64url(header) "." base64url(payload) "." base64url(signature)
//
// Nothing in it is verified until Verify says so.
type Compact struct {
	// UnverifiedHeader is the header, parsed strictly.
	UnverifiedHeader jcs.Value
	// UnverifiedPayload is what was signed, decoded.
	UnverifiedPayload []byte
	// SigningInput is the text that the signature covers.
	SigningInput string
	// Signature is the signature, decoded.
	Signature []byte
}

// SignCompact signs a payload. The header gets the key's algorithm; it is
// written in canonical form.
func SignCompact(key PrivateKey, header map[string]any, payload []byte) (string, error) {
	full := maps.Clone(header)
	if full == nil {
		full = make(map[string]any, 1)
	}
	full["alg"] = key.Alg()
	h, err := jcs.Marshal(full)
	if err != nil {
		return "", fmt.Errorf("encoding a JWS header: %w", err)
	}
	input := jcs.Base64URL(h) + "." + jcs.Base64URL(payload)
	sig, err := key.Sign([]byte(input))
	if err != nil {
		return "", err
	}
	return input + "." + jcs.Base64URL(sig), nil
}

// SplitCompact takes a compact JWS of at most MaxToken bytes apart. Base64url
// must be canonical and the header strict JSON.
func SplitCompact(token string) (Compact, error) { return splitCompact(token, MaxToken) }

func splitCompact(token string, size int) (Compact, error) {
	if len(token) > size {
		return Compact{}, invalid("token: more than %d bytes", size)
	}
	head, rest, ok := strings.Cut(token, ".")
	body, tail, ok2 := strings.Cut(rest, ".")
	if !ok || !ok2 || strings.Contains(tail, ".") {
		return Compact{}, invalid("token: not three parts")
	}
	h, err := jcs.DecodeBase64URL(head)
	if err != nil {
		return Compact{}, fmt.Errorf("%w: token header: %w", ErrInvalid, err)
	}
	c := Compact{SigningInput: token[:len(head)+1+len(body)]}
	if c.UnverifiedHeader, err = jcs.Parse(h, jcs.Limits{}); err != nil {
		return Compact{}, fmt.Errorf("%w: token header: %w", ErrInvalid, err)
	}
	if c.UnverifiedHeader.Kind() != jcs.Object {
		return Compact{}, invalid("token header: not an object")
	}
	if c.UnverifiedPayload, err = jcs.DecodeBase64URL(body); err != nil {
		return Compact{}, fmt.Errorf("%w: token payload: %w", ErrInvalid, err)
	}
	if c.Signature, err = jcs.DecodeBase64URL(tail); err != nil {
		return Compact{}, fmt.Errorf("%w: token signature: %w", ErrInvalid, err)
	}
	return c, nil
}

// Verify checks the header and the signature: typ must be one of those given,
// byte for byte ("" stands for an absent one), alg the key's, and no critical
// extension may be asked for. jwk, jku, x5c and x5u are never read. On success
// it returns the payload.
func (c Compact) Verify(key PublicKey, typ ...string) ([]byte, error) {
	if err := c.checkTyp(typ); err != nil {
		return nil, err
	}
	if alg := c.UnverifiedHeader.Get("alg"); key.IsZero() || alg.Kind() != jcs.String || alg.Str() != key.Alg() {
		return nil, invalid("token header: alg does not fit the key")
	}
	return c.verifySignature(key)
}

func (c Compact) checkTyp(typ []string) error {
	if c.UnverifiedHeader.Get("crit").Exists() {
		return invalid("token header: crit")
	}
	// RFC 7797: without this the payload would be taken as encoded when the
	// signer meant it as it is.
	if c.UnverifiedHeader.Get("b64").Exists() {
		return invalid("token header: b64")
	}
	got := c.UnverifiedHeader.Get("typ")
	for _, t := range typ {
		if t == "" && !got.Exists() || t != "" && got.Kind() == jcs.String && got.Str() == t {
			return nil
		}
	}
	return invalid("token header: typ is not that of this kind")
}

func (c Compact) verifySignature(key PublicKey) ([]byte, error) {
	if !key.Verify([]byte(c.SigningInput), c.Signature) {
		return nil, invalid("token: the signature does not verify")
	}
	return c.UnverifiedPayload, nil
}

// claims verifies nothing: it parses a payload whose signature held.
func claims(payload []byte) (jcs.Value, error) {
	v, err := jcs.Parse(payload, jcs.Limits{})
	if err != nil {
		return jcs.Value{}, fmt.Errorf("%w: claims: %w", ErrInvalid, err)
	}
	if v.Kind() != jcs.Object {
		return jcs.Value{}, invalid("claims: not an object")
	}
	return v, nil
}

// seconds reads an integer claim of time.
func seconds(v jcs.Value, name string) (int64, error) {
	n, ok := v.Get(name).Int()
	if !ok || n < 0 {
		return 0, invalid("%s: not a time in seconds", name)
	}
	return n, nil
}

// printable reports whether s is 1 to limit bytes of printable ASCII.
func printable(s string, limit int) bool {
	if s == "" || len(s) > limit {
		return false
	}
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}
