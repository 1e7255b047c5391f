package delegation

import (
	"crypto/subtle"
	"slices"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/jcs"
)

// Verifier verifies tokens and chains of one issuer. Its methods are safe for
// several goroutines if Anchors is.
type Verifier struct {
	// Issuer is the iss of roots and plain tokens, byte for byte.
	Issuer string
	// Anchors finds the issuer's key for a kid. It is only asked for kids of
	// the right grammar that start with at-. Without it nothing verifies.
	Anchors func(kid string) (Anchor, bool)
	// Cache, if set, saves the signatures of prefixes that were permitted
	// before. It belongs to this verifier and to no other. The verdicts and
	// their reasons are the same without it.
	Cache *Cache
}

// Verify runs steps 0 to 12 of delegation.md §6 in their order and refuses at
// the first failure. What remains: For (13), the holder's proof (14),
// revocation of what Revocable lists (15) and Allows (16).
func (v *Verifier) Verify(token string, now time.Time) (*Chain, error) {
	s := scratches.Get().(*scratch)
	defer s.done()
	known, behind, memory := v.recall(token)
	texts, refusal := s.split(token, len(known), behind) // step 0
	if refusal != nil {
		return nil, refusal
	}
	for i := range known {
		if refusal := known[i].again(known[:i], now.Unix()); refusal != nil {
			return nil, refusal.at(i)
		}
	}
	c := &Chain{parts: known, memory: memory}
	if len(texts) > 0 {
		c.parts = append(make([]part, 0, len(known)+len(texts)), known...)
	}
	for i := range texts {
		if len(c.parts) == 0 {
			refusal = v.root(c, &s.json, &texts[i], len(texts) > 1, now.Unix())
		} else {
			refusal = c.link(&s.json, &texts[i], now.Unix())
		}
		if refusal != nil {
			return nil, refusal.at(len(known) + i)
		}
	}
	return c, nil
}

// again is for a token that passed every step before: of those only step 10
// looks at the clock.
func (p *part) again(above []part, now int64) *Refusal {
	if len(above) == 0 {
		return p.times(nil, now)
	}
	return p.times(&above[len(above)-1], now)
}

// root verifies the first token and puts it into the chain. more says that
// links follow.
func (v *Verifier) root(c *Chain, json *jcs.Reader, text *compact, more bool, now int64) *Refusal {
	h, refusal := text.parseHeader() // step 1
	if refusal != nil {
		return refusal
	}
	if h.typ != TypeAccessToken && h.typ != TypeLink {
		return refuse(BadType, "", "")
	}
	anchor, known := Anchor{}, false
	if validKID(h.kid) && v.Anchors != nil {
		anchor, known = v.Anchors(h.kid)
	}
	mayBeRSA := !more && h.typ == TypeAccessToken
	if h.alg != Ed25519 && h.alg != ES256 && !(h.alg == RS256 && mayBeRSA) || known && h.alg != anchor.Alg() {
		return refuse(AlgNotAllowed, "", "")
	}
	if !known || anchor.kid != h.kid { // step 2
		return refuse(UnknownRoot, "", "")
	}
	if !anchor.verify(text.signed, text.signature) {
		return refuse(SignatureInvalid, "", "")
	}
	c.parts = append(c.parts, part{typ: h.typ, alg: h.alg})
	p := &c.parts[0]
	if refusal := p.parse(json, text.payload, true); refusal != nil { // step 3
		return refusal
	}
	p.lid = text.lid()
	if p.chained() && h.alg == RS256 {
		return refuse(AlgNotAllowed, "", "a root is Ed25519 or ES256")
	}
	if p.typ == TypeLink && !p.chained() {
		return refuse(Malformed, "", "aat+jwt without del_depth")
	}
	if p.iss != v.Issuer { // step 4; 5 and 6 need a parent
		return refuse(IssuerMismatch, "", "")
	}
	// Step 7. A plain token is never the parent of a link.
	if more || p.chained() {
		if p.depth == nil || p.maxDepth == nil || *p.depth != 0 || *p.maxDepth < 0 || *p.maxDepth > MaxDepth {
			return refuse(DepthInvalid, "", "")
		}
	}
	if c.memory != nil {
		c.memory.anchor = anchor
	}
	return p.times(nil, now) // step 10; 8, 9, 11, 12 need a parent
}

// link verifies the token below the last one and puts it into the chain.
func (c *Chain) link(json *jcs.Reader, text *compact, now int64) *Refusal {
	parent := &c.parts[len(c.parts)-1]
	h, refusal := text.parseHeader() // step 1
	if refusal != nil {
		return refusal
	}
	if h.typ != TypeLink {
		return refuse(BadType, "", "")
	}
	// A validated key has one algorithm, Ed25519 or ES256, so this is the
	// allow-list too.
	if h.alg != parent.key.Alg() || parent.key.IsZero() {
		return refuse(AlgNotAllowed, "", "")
	}
	if !parent.key.Verify(text.signed, text.signature) { // step 2
		return refuse(SignatureInvalid, "", "")
	}
	above := c.parts
	c.parts = append(c.parts, part{typ: h.typ, alg: h.alg})
	p := &c.parts[len(above)]
	if refusal := p.parse(json, text.payload, false); refusal != nil { // step 3
		return refusal
	}
	p.lid = text.lid()
	return p.edge(above, now)
}

// edge is steps 4 to 12 for a link p at the end of chain.
func (p *part) edge(chain []part, now int64) *Refusal {
	parent := &chain[len(chain)-1]
	switch {
	case !p.issuedBy(parent): // step 4
		return refuse(IssMismatch, "", "")
	case slices.ContainsFunc(chain, func(q part) bool { return q.jti == p.jti }): // step 5
		return refuse(DuplicateJTI, "", "")
	case subtle.ConstantTimeCompare([]byte(p.parHash), []byte(parent.lid)) != 1: // step 6
		return refuse(ParHashMismatch, "", "")
	case !p.depthFits(parent): // step 7
		return refuse(DepthInvalid, "", "")
	case p.sub != parent.sub: // step 8
		return refuse(PrincipalAltered, "", "")
	case !subset(p.aud, parent.aud): // step 9
		return refuse(AudienceWidened, "", "")
	}
	if refusal := p.times(parent, now); refusal != nil { // step 10
		return refusal
	}
	if refusal := p.narrower(chain); refusal != nil { // step 11
		return refusal
	}
	if slices.ContainsFunc(chain, func(q part) bool { return q.jkt == p.jkt }) { // step 12
		return refuse(KeyReuse, "", "")
	}
	return nil
}

// issuedBy: iss is the thumbprint URI (RFC 9278) of the parent's key. jkt was
// computed from the key when it was read.
func (p *part) issuedBy(parent *part) bool {
	thumbprint, ok := strings.CutPrefix(p.iss, thumbprintURI)
	return ok && thumbprint == parent.jkt
}

const thumbprintURI = "urn:ietf:params:oauth:jwk-thumbprint:sha-256:"

// depthFits: depth is the parent's + 1, and depth ≤ max ≤ the parent's max ≤ 8.
func (p *part) depthFits(parent *part) bool {
	return p.depth != nil && p.maxDepth != nil && parent.depth != nil && parent.maxDepth != nil &&
		*p.depth == *parent.depth+1 &&
		*p.depth <= *p.maxDepth && *p.maxDepth <= *parent.maxDepth && *parent.maxDepth <= MaxDepth
}

// times is step 10: "not_yet_valid (iat or nbf > now+30) → malformed (exp ≤
// iat, nbf ≥ exp, root lifetime > 3600) → outlives_parent (iat < p.iat, exp >
// p.exp) → expired". Integers are at most 2^53−1, so nothing overflows.
func (p *part) times(parent *part, now int64) *Refusal {
	latest := now + int64(IatSkew/time.Second)
	switch {
	case p.iat > latest || p.nbf != nil && *p.nbf > latest:
		return refuse(NotYetValid, "", "")
	case p.exp <= p.iat || p.nbf != nil && *p.nbf >= p.exp:
		return refuse(Malformed, "", "times out of order")
	case parent == nil && p.exp-p.iat > int64(MaxRootTTL/time.Second):
		return refuse(Malformed, "", "a life of more than 3600 s")
	case parent != nil && (p.iat < parent.iat || p.exp > parent.exp):
		return refuse(OutlivesParent, "", "")
	case now >= p.exp:
		return refuse(Expired, "", "")
	}
	return nil
}

// narrower is step 11: scope, tools, limits.
func (p *part) narrower(chain []part) *Refusal {
	root, parent := &chain[0], &chain[len(chain)-1]
	if slices.ContainsFunc(p.scopes, func(s string) bool { return !parent.hasScope(s) }) {
		return refuse(NotNarrower, DimensionScope, "")
	}
	if gap := parent.tools.gap(p.tools); gap != nil {
		return refuse(NotNarrower, DimensionTools, gap.String())
	}
	if parent.hasLimits && !p.hasLimits {
		return refuse(NotNarrower, "", limitsType+" dropped")
	}
	// A verifier that knows only AAT would not see the restriction.
	if root.typ == TypeLink && p.hasLimits && !root.hasLimits {
		return refuse(NotNarrower, "", limitsType+" added below an AAT root")
	}
	if dimension := parent.limits.covers(p.limits); dimension != "" {
		return refuse(NotNarrower, dimension, "")
	}
	// A budget is debited per link; two resource servers with one counter
	// each would double it.
	if p.limits.MaxCalls != nil && parent.limits.MaxCalls == nil && len(p.aud) != 1 {
		return refuse(NotNarrower, DimensionCalls, "needs exactly one audience")
	}
	return nil
}

// subset compares byte for byte.
func subset(child, parent []string) bool {
	for _, one := range child {
		if !slices.Contains(parent, one) {
			return false
		}
	}
	return true
}

// keyOf reports whether a thumbprint is of a key in the chain.
func (c *Chain) keyOf(jkt string) bool {
	return slices.ContainsFunc(c.parts, func(p part) bool { return p.jkt == jkt })
}
