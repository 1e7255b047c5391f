package delegation

import (
	"bytes"
	"crypto/sha256"
	"strings"

	"github.com/kavach-dev/kavach/jcs"
)

// compact is one part of a chain, not verified:
//
//	base64url(header) "." base64url(payload) "." base64url(signature)
type compact struct {
	// signed is the JWS signing input, header and payload as they came.
	signed []byte
	// end is where the part ends in the token.
	end int
	// headerText and the two after it are the fields as they came.
	headerText, payloadText, signatureText []byte
	// header and the two after it are there once they are decoded.
	header, payload, signature []byte
}

// lid is the link id: what a child's par_hash holds.
func (c *compact) lid() string {
	sum := sha256.Sum256(c.signed)
	return jcs.Base64URL(sum[:])
}

func linkID(signed string) string { return digest(signed) }

// digest is base64url SHA-256.
func digest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return jcs.Base64URL(sum[:])
}

// What a byte of a token may be.
const (
	noByte = iota
	letter // of base64url
	dot
	tilde
)

var charset = func() (set [256]uint8) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
		set[c] = letter
	}
	set['.'], set['~'] = dot, tilde
	return set
}()

// split is step 0: "charset, parts (malformed); sizes, > 9 parts (too_large);
// canonical base64url (malformed)". An empty signature is a part like any
// other: it fails as what its header says it is.
func split(token string) ([]compact, *Refusal) {
	parts, refusal := cut([]byte(token))
	if refusal != nil {
		return nil, refusal
	}
	return parts, decode(parts, 0)
}

// cut is step 0 but for the base64url, which decode looks at. It walks the
// token once.
func cut(token []byte) ([]compact, *Refusal) {
	// Dots and ends of the parts. One part more than there may be is enough to
	// know that there are too many.
	var dots [MaxLinks + 1][2]int
	var ends [MaxLinks + 1]int
	part, seen, longest, start := 0, 0, 0, 0
	closePart := func(end int) bool {
		longest = max(longest, end-start)
		ends[min(part, MaxLinks)] = end
		part, start = part+1, end+1
		complete := seen == 2
		seen = 0
		return complete
	}
	for i, c := range token {
		kind := charset[c]
		if kind == letter {
			continue
		}
		switch kind {
		case dot:
			if seen < 2 {
				dots[min(part, MaxLinks)][seen] = i
			}
			seen++
		case tilde:
			if !closePart(i) {
				return nil, refuse(Malformed, "", "not a compact JWT")
			}
		default:
			return nil, refuse(Malformed, "", "a byte that no token has")
		}
	}
	if !closePart(len(token)) {
		return nil, refuse(Malformed, "", "not a compact JWT")
	}
	if part > MaxLinks || len(token) > MaxChainBody {
		return nil, refuse(TooLarge, "", "more than 9 tokens or 57344 bytes")
	}
	if longest > MaxToken {
		return nil, refuse(TooLarge, "", "a token of more than 8192 bytes")
	}
	list := make([]compact, part)
	start = 0
	for i := range list {
		first, second, end := dots[i][0], dots[i][1], ends[i]
		list[i] = compact{
			signed: token[start:second], end: end,
			headerText: token[start:first], payloadText: token[first+1 : second], signatureText: token[second+1 : end],
		}
		start = end + 1
	}
	return list, nil
}

// decode is the rest of step 0, canonical base64url, for the parts from one on.
func decode(parts []compact, from int) *Refusal {
	size := 0
	for i := from; i < len(parts); i++ {
		size += len(parts[i].signed) + len(parts[i].signatureText)
	}
	buffer := make([]byte, 0, size*3/4)
	field := func(text []byte) (decoded []byte, err error) {
		start := len(buffer)
		buffer, err = jcs.AppendDecodeBase64URL(buffer, text)
		return buffer[start:], err
	}
	for i := from; i < len(parts); i++ {
		p, errs := &parts[i], [3]error{}
		p.header, errs[0] = field(p.headerText)
		p.payload, errs[1] = field(p.payloadText)
		p.signature, errs[2] = field(p.signatureText)
		if errs != [3]error{} {
			return refuse(Malformed, "", "base64url is not canonical").at(i)
		}
	}
	return nil
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

// The header that Sign writes for most roots is its kid between these two.
const (
	rootHeaderStart = `{"alg":"Ed25519","kid":"`
	rootHeaderEnd   = `","typ":"at+jwt"}`
)

// parseHeader is the first part of step 1, "malformed". The forms above are
// known as they stand; what has any other spelling is for the strict parser.
// What is no string reads as "", which the steps after it refuse.
func (c *compact) parseHeader() (header, *Refusal) {
	switch string(c.headerText) {
	case linkHeaderEd25519:
		return header{alg: Ed25519, typ: TypeLink}, nil
	case linkHeaderES256:
		return header{alg: ES256, typ: TypeLink}, nil
	}
	if kid, ok := bytes.CutPrefix(c.header, []byte(rootHeaderStart)); ok {
		// A valid kid has neither quotes nor escapes.
		if kid, ok := bytes.CutSuffix(kid, []byte(rootHeaderEnd)); ok && validKID(string(kid)) {
			return header{alg: Ed25519, typ: TypeAccessToken, kid: string(kid)}, nil
		}
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
		if charset[kid[i]] != letter {
			return false
		}
	}
	return true
}
