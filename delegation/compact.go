package delegation

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"strings"
	"sync"

	"github.com/kavach-dev/kavach/jcs"
)

// scratch is what reading a chain writes to, kept for the next one. Nothing that
// outlives the reading points into it: a Reader copies the text it is given, and
// the strings of its values are parts of that copy.
type scratch struct {
	text, decoded []byte
	parts         []compact
	chain         []part
	json          jcs.Reader
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// done gives it back, unless it grew beyond what a chain needs.
func (s *scratch) done() {
	clear(s.chain) // whose strings are not its own
	s.chain = s.chain[:0]
	if cap(s.text) <= 2*MaxChainBody {
		scratches.Put(s)
	}
}

// compact is one part of a chain, not verified:
//
//	base64url(header) "." base64url(payload) "." base64url(signature)
type compact struct {
	// signed is the JWS signing input, header and payload as they came.
	signed []byte
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

// letters are the bytes of base64url.
var letters = func() (set [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
		set[c] = true
	}
	return set
}()

// split is step 0: "charset, parts (malformed); sizes, > 9 parts (too_large);
// canonical base64url (malformed)". An empty signature is a part like any
// other: it fails as what its header says it is.
func split(token string) ([]compact, *Refusal) { return new(scratch).split(token, 0, 0) }

// split begins behind the tokens of which it is known that step 0 holds: as many,
// which end before the byte from. If these are all it answers none.
func (s *scratch) split(token string, known, from int) ([]compact, *Refusal) {
	s.parts = s.parts[:0]
	if from > len(token) {
		return nil, nil
	}
	s.text = append(s.text[:0], token[from:]...)
	refusal := s.cut(MaxLinks - known)
	if refusal == nil {
		refusal = s.decode(known)
	}
	return s.parts, refusal
}

// cut is step 0 for as many parts at most, but for the base64url, which decode
// looks at.
func (s *scratch) cut(most int) *Refusal {
	token := s.text
	tooLarge := ""
	if len(token) > MaxChainBody {
		tooLarge = "more than 57344 bytes"
	}
	for start := 0; start <= len(token); {
		end := len(token)
		if n := bytes.IndexByte(token[start:], '~'); n >= 0 {
			end = start + n
		}
		part := token[start:end]
		first, last := bytes.IndexByte(part, '.'), bytes.LastIndexByte(part, '.')
		switch {
		case first == last || bytes.IndexByte(part[first+1:last], '.') >= 0:
			return refuse(Malformed, "", "not a compact JWT")
		case len(part) > MaxToken:
			tooLarge = "a token of more than 8192 bytes"
		case len(s.parts) == most:
			tooLarge = "more than 9 tokens"
		default:
			s.parts = append(s.parts, compact{
				signed:     part[:last],
				headerText: part[:first], payloadText: part[first+1 : last], signatureText: part[last+1:],
			})
		}
		start = end + 1
	}
	switch {
	case tooLarge == "":
		return nil
	case !inCharset(token): // which comes before the sizes
		return refuse(Malformed, "", errCharset)
	}
	return refuse(TooLarge, "", tooLarge)
}

const errCharset = "a byte that no token has"

func inCharset(token []byte) bool {
	for _, c := range token {
		if !letters[c] && c != '.' && c != '~' {
			return false
		}
	}
	return true
}

// decode is the rest of step 0: canonical base64url. Every byte of the parts goes
// through it, so only where it fails their charset is looked at by itself.
func (s *scratch) decode(known int) *Refusal {
	s.decoded = slices.Grow(s.decoded[:0], len(s.text)*3/4) // so that no field moves
	field := func(text []byte) (decoded []byte, err error) {
		start := len(s.decoded)
		s.decoded, err = jcs.AppendDecodeBase64URL(s.decoded, text)
		return s.decoded[start:], err
	}
	for i := range s.parts {
		p, errs := &s.parts[i], [3]error{}
		p.header, errs[0] = field(p.headerText)
		p.payload, errs[1] = field(p.payloadText)
		p.signature, errs[2] = field(p.signatureText)
		switch {
		case errs == [3]error{}:
		case !inCharset(s.text):
			return refuse(Malformed, "", errCharset)
		default:
			return refuse(Malformed, "", "base64url is not canonical").at(known + i)
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
		if kid, ok := bytes.CutSuffix(kid, []byte(rootHeaderEnd)); ok {
			if kid := string(kid); validKID(kid) {
				return header{alg: Ed25519, typ: TypeAccessToken, kid: kid}, nil
			}
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
		if !letters[kid[i]] {
			return false
		}
	}
	return true
}
