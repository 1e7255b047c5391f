package delegation

import (
	"crypto/sha256"
	"strings"

	"github.com/kavach-dev/kavach/jcs"
)

// compact is one part of a chain, decoded but not verified:
//
//	base64url(header) "." base64url(payload) "." base64url(signature)
type compact struct {
	// signed is the JWS signing input, header and payload as they came.
	signed string
	// headerText is the header as it came.
	headerText string
	header     []byte
	payload    []byte
	signature  []byte
}

// lid is the link id: what a child's par_hash holds.
func (c compact) lid() string { return linkID(c.signed) }

func linkID(signed string) string { return digest(signed) }

// digest is base64url SHA-256.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return jcs.Base64URL(sum[:])
}

// charset holds the bytes that a chain consists of.
var charset = func() (set [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~") {
		set[c] = true
	}
	return set
}()

// split is step 0: "charset, parts (malformed); sizes, > 9 parts (too_large);
// canonical base64url (malformed)". An empty signature is a part like any
// other: it fails as what its header says it is.
func split(token string) ([]compact, *Refusal) {
	parts, dots := 1, 0
	for i := range len(token) {
		c := token[i]
		if !charset[c] {
			return nil, refuse(Malformed, "", "a byte that no token has")
		}
		switch c {
		case '.':
			dots++
		case '~':
			if dots != 2 {
				return nil, refuse(Malformed, "", "not a compact JWT")
			}
			parts, dots = parts+1, 0
		}
	}
	if dots != 2 {
		return nil, refuse(Malformed, "", "not a compact JWT")
	}
	if parts > MaxLinks || len(token) > MaxChainBody {
		return nil, refuse(TooLarge, "", "more than 9 tokens or 57344 bytes")
	}
	for text := range strings.SplitSeq(token, "~") {
		if len(text) > MaxToken {
			return nil, refuse(TooLarge, "", "a token of more than 8192 bytes")
		}
	}
	list := make([]compact, 0, parts)
	for text := range strings.SplitSeq(token, "~") {
		header, rest, _ := strings.Cut(text, ".")
		payload, signature, _ := strings.Cut(rest, ".")
		c := compact{signed: text[:len(text)-len(signature)-1], headerText: header}
		for _, field := range []struct {
			text string
			into *[]byte
		}{{header, &c.header}, {payload, &c.payload}, {signature, &c.signature}} {
			decoded, err := jcs.DecodeBase64URL(field.text)
			if err != nil {
				return nil, refuse(Malformed, "", "base64url is not canonical").at(len(list))
			}
			*field.into = decoded
		}
		list = append(list, c)
	}
	return list, nil
}

// header is what step 1 reads. jwk, jku, x5c and x5u are never looked at.
type header struct {
	alg, typ, kid string
}

// The headers that Derive writes, so that most links need no parser.
var (
	linkHeaderEd25519 = jcs.Base64URL([]byte(`{"alg":"Ed25519","typ":"aat+jwt"}`))
	linkHeaderES256   = jcs.Base64URL([]byte(`{"alg":"ES256","typ":"aat+jwt"}`))
)

// parseHeader is the first part of step 1, "malformed". What is no string
// reads as "", which the steps after it refuse.
func (c compact) parseHeader() (header, *Refusal) {
	switch c.headerText {
	case linkHeaderEd25519:
		return header{alg: Ed25519, typ: TypeLink}, nil
	case linkHeaderES256:
		return header{alg: ES256, typ: TypeLink}, nil
	}
	v, err := jcs.Parse(c.header, jcs.Limits{})
	if err != nil || v.Kind() != jcs.Object {
		return header{}, refuse(Malformed, "", "header")
	}
	// Nothing critical is understood here (RFC 7515 §4.1.11). RFC 7797 §6 lets
	// b64 stand in no header without it: a reader that knows b64 would take the
	// payload as it is, where we decode it.
	for _, name := range []string{"crit", "b64"} {
		if v.Get(name).Exists() {
			return header{}, refuse(Malformed, "", name)
		}
	}
	return header{alg: v.Get("alg").Str(), typ: v.Get("typ").Str(), kid: v.Get("kid").Str()}, nil
}

// validKID is ^[A-Za-z0-9_-]{1,64}$, with the purpose in front.
func validKID(kid string) bool {
	if len(kid) > 64 || !strings.HasPrefix(kid, "at-") || len(kid) == len("at-") {
		return false
	}
	for i := range len(kid) {
		if c := kid[i]; !charset[c] || c == '.' || c == '~' {
			return false
		}
	}
	return true
}
