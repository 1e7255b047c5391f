package delegation

import (
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/jcs"
)

// Narrow is what the next link is to allow. Everything it leaves out stays as
// the parent has it, except the scopes, which have to be named.
type Narrow struct {
	// ClientID is the receiver's id: a label on the delegator's word. Required.
	ClientID string
	// Card is the key card that ClientID and the key are from, empty for none.
	// The link holds its SHA-256, so whoever is shown the card later can tell
	// that it is this one. Verifying it is the caller's duty.
	Card string
	// Scopes may be empty, which grants none.
	Scopes []string
	// Audience nil keeps the parent's.
	Audience []string
	// TTL 0 means DefaultLinkTTL; MaxLinkTTL is the most. It is cut to what
	// the parent has left.
	TTL time.Duration
	// Tools nil keeps the parent's.
	Tools Tools
	// Limits keeps of the parent's what it leaves absent.
	Limits Limits
	// MaxDepth is how many more links may follow; nil keeps what the parent
	// leaves, 0 seals the link.
	MaxDepth *int
}

// Derived is a chain made by Derive.
type Derived struct {
	// Chain is the whole credential: hand over this, and never a private key.
	Chain string
	// JTI is that of the new link.
	JTI string
	// Expires is its end, Clamped whether that is earlier than asked.
	Expires time.Time
	Clamped bool
}

// LID is the link id of the new link: the SHA-256 of what was signed.
func (d Derived) LID() string {
	link := d.Chain[strings.LastIndexByte(d.Chain, '~')+1:]
	return linkID(link[:strings.LastIndexByte(link, '.')])
}

// Derive appends a link to a chain, offline: key is the holder's private key
// (the one in the last token's cnf), to the receiver's public key. It refuses
// what a verifier would refuse: a sealed or expired parent, anything wider, a
// key that is already in the chain. It does not verify the parent: Verify
// first what you did not make.
func Derive(parent string, key agent.PrivateKey, to agent.PublicKey, n Narrow, now time.Time) (Derived, error) {
	derived, refusal := derive(parent, key, to, n, now)
	if refusal != nil {
		return Derived{}, refusal
	}
	return derived, nil
}

func derive(parent string, key agent.PrivateKey, to agent.PublicKey, n Narrow, now time.Time) (Derived, *Refusal) {
	s := scratches.Get().(*scratch)
	defer s.done()
	chain, refusal := unverifiedParts(s, parent)
	if refusal != nil {
		return Derived{}, refusal
	}
	leaf := &chain[len(chain)-1]
	switch {
	case leaf.depth == nil || leaf.maxDepth == nil:
		return Derived{}, refuse(DepthInvalid, DimensionDepth, "a plain token has no links")
	case key.IsZero() || key.Public() != leaf.key:
		return Derived{}, refuse(HolderBindingFailed, DimensionKey, "the key is not the one the parent is bound to")
	case to.IsZero():
		return Derived{}, refuse(Malformed, DimensionKey, "the receiver has no key")
	case *leaf.depth >= *leaf.maxDepth:
		return Derived{}, refuse(DepthInvalid, DimensionDepth, "the parent is sealed")
	case now.Unix() >= leaf.exp:
		return Derived{}, refuse(Expired, DimensionTTL, "the parent is over")
	}
	claims, clamped, refusal := n.claims(leaf, now)
	if refusal != nil {
		return Derived{}, refusal
	}
	claims.to = to
	// The parent is read, so what it was read in is free.
	payload, err := claims.append(s.decoded[:0])
	if err != nil {
		return Derived{}, refuse(Malformed, "", "claims")
	}
	s.decoded = payload
	// The verifier's own eyes: what it would refuse is not signed.
	p := &s.chain[len(chain)]
	if refusal := p.parse(&s.json, payload, false); refusal != nil {
		return Derived{}, refusal
	}
	if refusal := p.edge(chain, now.Unix()); refusal != nil {
		return Derived{}, refusal
	}
	header := linkHeaderEd25519
	if key.Alg() == ES256 {
		header = linkHeaderES256
	}
	text := append(append(s.text[:0], header...), '.')
	text = jcs.AppendBase64URL(text, payload)
	signature, err := key.Sign(text)
	if err != nil {
		return Derived{}, refuse(SignatureInvalid, DimensionKey, "the key does not sign")
	}
	text = jcs.AppendBase64URL(append(text, '.'), signature)
	s.text = text
	if len(text) > MaxToken || len(parent)+1+len(text) > MaxChainBody {
		return Derived{}, refuse(TooLarge, "", "more than 8192 bytes a token or 57344 a chain")
	}
	return Derived{
		Chain: parent + "~" + string(text), JTI: p.jti, Expires: time.Unix(p.exp, 0), Clamped: clamped,
	}, nil
}

// unverifiedParts reads a chain that is about to get a link, for which a place is
// left behind it in the scratch. Nothing in it is verified; a verifier will.
func unverifiedParts(s *scratch, token string) ([]part, *Refusal) {
	texts, refusal := s.split(token, 0, 0)
	if refusal != nil {
		return nil, refusal
	}
	s.chain = append(s.chain[:0], make([]part, len(texts)+1)...)
	chain := s.chain[:len(texts)]
	for i := range texts {
		p, text := &chain[i], &texts[i]
		h, refusal := text.parseHeader()
		if refusal == nil {
			refusal = p.parse(&s.json, text.payload, i == 0)
		}
		if refusal != nil {
			return nil, refusal.at(i)
		}
		p.lid, p.alg, p.typ = text.lid(), h.alg, h.typ
	}
	return chain, nil
}

// claims says everything of the link but the receiver's key.
func (n Narrow) claims(leaf *part, now time.Time) (claims linkClaims, clamped bool, refusal *Refusal) {
	iat := max(now.Unix(), leaf.iat)
	exp, clamped, refusal := clampTTL(n.TTL, MaxLinkTTL, now, leaf.exp)
	if refusal != nil {
		return linkClaims{}, false, refusal
	}
	if exp-iat < int64(MinLinkTTL/time.Second) {
		return linkClaims{}, false, refuse(Expired, DimensionTTL, "less than a second is left")
	}
	tools := n.Tools
	if tools == nil {
		tools = leaf.tools
	}
	if refusal := tools.validate(); refusal != nil {
		return linkClaims{}, false, refusal
	}
	if len(tools) == 0 && len(leaf.tools) > 0 {
		return linkClaims{}, false, refuse(NotNarrower, DimensionTools, "an empty map below a restriction allows no tool at all")
	}
	limits := n.Limits.within(leaf.limits)
	audience := n.Audience
	if audience == nil {
		audience = leaf.aud
	}
	depth, maxDepth := *leaf.depth+1, *leaf.maxDepth
	if n.MaxDepth != nil {
		maxDepth = depth + int64(*n.MaxDepth)
	}
	claims = linkClaims{
		holder: leaf.jkt, sub: leaf.sub, clientID: n.ClientID, audience: audience, scopes: n.Scopes,
		iat: iat, exp: exp, jti: NewJTI(now), depth: depth, maxDepth: maxDepth, parHash: leaf.lid,
		tools: tools, limits: limits, limited: leaf.hasLimits || !limits.IsZero(),
	}
	if n.Card != "" {
		claims.card = digest(n.Card) // delegation.md §3: a label
	}
	return claims, clamped, nil
}

// clampTTL returns the end of a token that was asked to live for ttl, at most
// longest and not beyond latest.
func clampTTL(ttl, longest time.Duration, now time.Time, latest int64) (exp int64, clamped bool, refusal *Refusal) {
	if ttl == 0 {
		// A default is cut without a word: nobody asked for more.
		return min(now.Unix()+int64(DefaultLinkTTL/time.Second), latest), false, nil
	}
	if ttl < MinLinkTTL {
		return 0, false, refuse(Malformed, DimensionTTL, "less than a second")
	}
	asked := now.Unix() + int64(ttl/time.Second)
	exp = min(asked, now.Unix()+int64(longest/time.Second), latest)
	return exp, exp < asked, nil
}
