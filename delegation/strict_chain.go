package delegation

import (
	"crypto/subtle"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/jcs"
)

// strictPart is one token that the steps up to 4q accepted.
type strictPart struct {
	lid, jti, iss, jkt string
	iat, exp           int64
	depth, maxDepth    int64
	key                agent.PublicKey
	// aud is the claim as it came; the leaf's step 6c reads it.
	aud jcs.Value
	// authority says that there is an attenuating_agent_token entry; without
	// one tools is empty.
	authority bool
	tools     Tools
}

func (p *strictPart) describe() AATLink {
	return AATLink{
		LID: p.lid, JTI: p.jti, Issuer: p.iss, JKT: p.jkt, Depth: int(p.depth), Expires: time.Unix(p.exp, 0),
	}
}

// strictToken is a token taken apart as far as it goes: what cannot be decoded
// is refused by the step that reads it.
type strictToken struct {
	signed    string
	header    jcs.Value // Invalid, if it is no object in strict JSON
	payload   []byte
	signature []byte
	jti       string
}

// splitStrict takes a token or proof apart; ok is false if it is no compact
// JWT with a payload.
func splitStrict(token string) (t strictToken, ok bool) {
	head, rest, dot := strings.Cut(token, ".")
	body, tail, dot2 := strings.Cut(rest, ".")
	if !dot || !dot2 || strings.Contains(tail, ".") {
		return t, false
	}
	t.signed = token[:len(head)+1+len(body)]
	if text, err := jcs.DecodeBase64URL(head); err == nil {
		if v, err := jcs.Parse(text, jcs.Limits{}); err == nil && v.Kind() == jcs.Object {
			t.header = v
		}
	}
	t.signature, _ = jcs.DecodeBase64URL(tail) // nil is no signature of anything
	payload, err := jcs.DecodeBase64URL(body)
	t.payload = payload
	return t, err == nil
}

// headerFits is 3a, 4a and 7a but for the key: "alg missing, none, not allowed,
// not fitting; typ; crit". The allow-list is closed. jwk, jku, x5c and x5u are
// treated as absent, and so is every other member, b64 too.
func (t strictToken) headerFits(typ string) bool {
	alg := t.header.Get("alg")
	return t.header.Exists() && !t.header.Get("crit").Exists() &&
		t.header.Get("typ").Kind() == jcs.String && t.header.Get("typ").Str() == typ &&
		(alg.Str() == Ed25519 || alg.Str() == ES256)
}

func (t strictToken) alg() string { return t.header.Get("alg").Str() }

// claims is the strict parse after a signature held.
func (t strictToken) claims() (jcs.Value, bool) {
	v, err := jcs.Parse(t.payload, jcs.Limits{Depth: strictMaxNesting})
	return v, err == nil && v.Kind() == jcs.Object
}

// chain runs steps 1 to 5.
func (run *strictRun) chain(tokens []string) *StrictRefusal {
	list, refusal := run.take(tokens)
	if refusal != nil {
		return refusal
	}
	for i, t := range list {
		var p *strictPart
		if i == 0 {
			p, refusal = run.root(t)
		} else {
			p, refusal = run.edge(t, &run.parts[i-1])
		}
		if refusal != nil {
			return refusal.at(i)
		}
		run.parts = append(run.parts, *p)
	}
	// Step 5 follows from 3c and 4d; the draft keeps it "in depth".
	if leaf := run.leaf(); leaf.depth+1 != int64(len(run.parts)) {
		return strictly("5", "the number of tokens is not the leaf's depth + 1")
	}
	return nil
}

func (run *strictRun) leaf() *strictPart { return &run.parts[len(run.parts)-1] }

// take is steps 1 and 2.
func (run *strictRun) take(tokens []string) ([]strictToken, *StrictRefusal) {
	if len(tokens) == 0 {
		return nil, strictly("1", "no token")
	}
	total := 0
	for i, token := range tokens {
		if len(token) > run.maxToken {
			return nil, strictly("2a", "the token is too large").at(i)
		}
		total += len(token)
	}
	if total > run.maxChain {
		return nil, strictly("2b", "the chain is too large")
	}
	list := make([]strictToken, 0, len(tokens))
	seen := make(map[string]bool, len(tokens))
	for i, token := range tokens {
		t, ok := splitStrict(token)
		if ok {
			t.jti, ok = scanJTI(t.payload)
		}
		if !ok {
			return nil, strictly("2c", "no string jti can be read").at(i)
		}
		if seen[t.jti] {
			return nil, strictly("2c", "the jti of another token of the chain").at(i)
		}
		seen[t.jti] = true
		list = append(list, t)
	}
	return list, nil
}

// root is step 3.
func (run *strictRun) root(t strictToken) (*strictPart, *StrictRefusal) {
	anchors := run.fitting(t)
	if len(anchors) == 0 {
		return nil, strictly("3a", "header")
	}
	anchors = slices.DeleteFunc(anchors, func(a AATAnchor) bool { return !a.Key.Verify([]byte(t.signed), t.signature) })
	if len(anchors) == 0 {
		return nil, strictly("3b", "signature")
	}
	v, ok := t.claims()
	p := &strictPart{lid: linkID(t.signed), aud: v.Get("aud")}
	ok = ok && strictInteger(v.Get("iat"), &p.iat) && strictInteger(v.Get("exp"), &p.exp)
	if !ok {
		return nil, strictly("3b", "claims")
	}
	p.jti, p.iss = v.Get("jti").Str(), v.Get("iss").Str()
	issued := func(a AATAnchor) bool { return a.Issuer != "" && a.Issuer == p.iss }
	switch {
	case !strictInteger(v.Get("del_depth"), &p.depth) || p.depth != 0:
		return nil, strictly("3c", "del_depth")
	case v.Get("par_hash").Exists():
		return nil, strictly("3d", "par_hash")
	case p.exp <= run.now:
		return nil, strictly("3e", "expired")
	case p.iat > run.now+run.skew:
		return nil, strictly("3f", "issued in the future")
	case p.exp <= p.iat:
		return nil, strictly("3g", "exp is not after iat")
	case p.exp > p.iat+run.lifetime:
		return nil, strictly("3h", "lives too long")
	case !strictInteger(v.Get("del_max_depth"), &p.maxDepth) || p.maxDepth < 0 || p.maxDepth > run.maxDepth:
		return nil, strictly("3i", "del_max_depth")
	case p.jti == "":
		return nil, strictly("3j", "jti")
	case !slices.ContainsFunc(anchors, issued):
		return nil, strictly("3k", "iss is not the anchor's issuer")
	case !p.holder(v):
		return nil, strictly("3l", "cnf.jwk")
	}
	tools, entries, ok := strictAuthority(v.Get("authorization_details"))
	if !ok || entries != 1 {
		return nil, strictly("3m", "authorization_details")
	}
	return p, p.readTools(tools)
}

// fitting returns the anchors that a root may be under.
func (run *strictRun) fitting(t strictToken) []AATAnchor {
	if !t.headerFits(TypeLink) {
		return nil
	}
	list := slices.DeleteFunc(slices.Clone(run.Anchors), func(a AATAnchor) bool { return a.Key.Alg() != t.alg() })
	kid := t.header.Get("kid").Str()
	named := func(a AATAnchor) bool { return a.KID == kid }
	if kid != "" && slices.ContainsFunc(list, named) {
		list = slices.DeleteFunc(list, func(a AATAnchor) bool { return a.KID != "" && a.KID != kid })
	}
	return list
}

// edge is step 4.
func (run *strictRun) edge(t strictToken, parent *strictPart) (*strictPart, *StrictRefusal) {
	if !t.headerFits(TypeLink) || t.alg() != parent.key.Alg() {
		return nil, strictly("4a", "header")
	}
	if !parent.key.Verify([]byte(t.signed), t.signature) {
		return nil, strictly("4b", "signature")
	}
	v, ok := t.claims()
	if !ok {
		return nil, strictly("4b", "claims are not strict JSON")
	}
	p := &strictPart{lid: linkID(t.signed), aud: v.Get("aud"), jti: v.Get("jti").Str(), iss: v.Get("iss").Str()}
	parHash := v.Get("par_hash")
	switch {
	case p.jti == "":
		return nil, strictly("4b1", "jti")
	case !p.holder(v):
		return nil, strictly("4b2", "cnf.jwk")
	case v.Get("authorization_details").Kind() != jcs.Array:
		return nil, strictly("4b3", "authorization_details")
	case !strictInteger(v.Get("del_depth"), &p.depth) || p.depth < 0 ||
		!strictInteger(v.Get("del_max_depth"), &p.maxDepth) || p.maxDepth < 0:
		return nil, strictly("4b4", "del_depth or del_max_depth")
	case v.Get("iss").Kind() != jcs.String || parHash.Kind() != jcs.String ||
		!strictInteger(v.Get("iat"), &p.iat) || !strictInteger(v.Get("exp"), &p.exp):
		return nil, strictly("4b5", "iss, par_hash, iat or exp")
	case p.iss != parent.key.ThumbprintURI():
		return nil, strictly("4c", "iss is not the parent's key")
	}
	if refusal := run.narrower(p, parent); refusal != nil {
		return nil, refusal
	}
	tools, entries, ok := strictAuthority(v.Get("authorization_details"))
	if !ok || entries > 1 {
		return nil, strictly("4n", "authorization_details")
	}
	if entries == 1 {
		if refusal := p.readTools(tools); refusal != nil {
			return nil, refusal
		}
	}
	if step := strictCovers(parent.tools, p.tools); step != "" {
		return nil, strictly(step, "not narrower than the parent")
	}
	if subtle.ConstantTimeCompare([]byte(parHash.Str()), []byte(parent.lid)) != 1 {
		return nil, strictly("4q", "par_hash is of another parent")
	}
	return p, nil
}

// narrower is 4d to 4m: depths and times.
func (run *strictRun) narrower(p, parent *strictPart) *StrictRefusal {
	switch {
	case p.depth != parent.depth+1:
		return strictly("4d", "del_depth is not the parent's + 1")
	case p.depth > parent.maxDepth:
		return strictly("4e", "the parent is sealed")
	case p.depth > run.maxDepth:
		return strictly("4f", "too deep for this enforcement point")
	case p.maxDepth > parent.maxDepth:
		return strictly("4g", "del_max_depth above the parent's")
	case p.exp > parent.exp:
		return strictly("4h", "outlives its parent")
	case p.exp <= run.now:
		return strictly("4i", "expired")
	case p.iat < parent.iat:
		return strictly("4j", "older than its parent")
	case p.iat > run.now+run.skew:
		return strictly("4k", "issued in the future")
	case p.exp <= p.iat:
		return strictly("4l", "exp is not after iat")
	case p.depth > p.maxDepth:
		return strictly("4m", "del_depth above del_max_depth")
	}
	return nil
}

// holder is 3l and 4b2: "any private member or `oct` refused; extra public
// members allowed, not in the thumbprint".
func (p *strictPart) holder(claims jcs.Value) bool {
	key, err := agent.ParsePublicKeyExtra(claims.Get("cnf").Get("jwk"))
	p.key, p.jkt = key, key.Thumbprint()
	return err == nil
}

// readTools is 3n and 4o.
func (p *strictPart) readTools(tools jcs.Value) *StrictRefusal {
	parsed, ok := parseStrictTools(tools)
	if !ok {
		return strictly("3n/4o", "a constraint is not well-formed")
	}
	p.authority, p.tools = true, parsed
	return nil
}

// strictAuthority is 3m and 4n: it finds the entries that grant tools, ignores
// those of other types, and checks that tools is an object of objects.
func strictAuthority(details jcs.Value) (tools jcs.Value, entries int, ok bool) {
	for entry := range details.All() {
		if entry.Get("type").Str() != toolsType {
			continue
		}
		entries++
		tools = entry.Get("tools")
		if tools.Kind() != jcs.Object {
			return tools, entries, false
		}
		for _, arguments := range tools.Fields() {
			if arguments.Kind() != jcs.Object {
				return tools, entries, false
			}
		}
	}
	return tools, entries, true
}

// strictInteger reads "a JSON number without fraction or exponent", of any
// size: what does not fit saturates, far beyond every time and depth, so that
// the step that compares it refuses it.
func strictInteger(v jcs.Value, into *int64) bool {
	const most = 1 << 62
	text := v.Number()
	if text == "" || strings.ContainsAny(text, ".eE") {
		return false
	}
	n, _ := strconv.ParseInt(text, 10, 64) // out of range it is the nearest
	*into = max(-most, min(n, most))
	return true
}
