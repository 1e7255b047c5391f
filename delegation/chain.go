package delegation

import (
	"slices"
	"time"
)

// Chain is a token or chain that Verify accepted: steps 0 to 12 hold. There is
// no other way to make one, and the zero Chain allows nothing.
type Chain struct {
	parts  []part
	memory *memory // nil without a cache
}

// Party is one of those who act, from the principal to the actor.
type Party struct {
	// ID is a client_id or sub.
	ID string
	// Proved says that the server knew it was this one: it authenticated the
	// party, or the party's registered key or key card was shown. A link's
	// client_id is only asserted by whoever signed the link.
	Proved bool
}

// Link describes one token of a chain.
type Link struct {
	LID      string
	JTI      string
	ClientID string
	// Confirmed says that ClientID is more than the delegator's word.
	Confirmed bool
	// JKT is the thumbprint of the holder's key, "" for an unbound token.
	JKT      string
	Issuer   string
	Audience []string
	Scopes   []string
	Tools    Tools
	Limits   Limits
	IssuedAt time.Time
	Expires  time.Time
	// Depth and MaxDepth are those of the token; both are 0 for a plain one.
	Depth    int
	MaxDepth int
}

// Revocable is everything step 15 has to look up: if any of it is revoked, the
// chain is.
type Revocable struct {
	// Grant is the gid.
	Grant string
	// LIDs are those of every link.
	LIDs []string
	// Keys are the thumbprints of every holder key.
	Keys []string
	// Clients are every party and every client_id.
	Clients []string
	// Ancestry is what the root was exchanged from: lids and thumbprints.
	Ancestry []string
}

func (c *Chain) empty() bool { return c == nil || len(c.parts) == 0 }

func (c *Chain) root() *part {
	if c.empty() {
		return &part{}
	}
	return &c.parts[0]
}

func (c *Chain) leaf() *part {
	if c.empty() {
		return &part{}
	}
	return &c.parts[len(c.parts)-1]
}

// Plain reports whether this is one ordinary access token, which no link can
// be appended to.
func (c *Chain) Plain() bool { return !c.root().chained() }

// Len returns the number of tokens.
func (c *Chain) Len() int {
	if c == nil {
		return 0
	}
	return len(c.parts)
}

// Bound reports whether the credential is worth nothing without a key.
func (c *Chain) Bound() bool { return c.leaf().jkt != "" }

// JKT returns the thumbprint of the key that a proof must be made with, "" if
// the credential is not bound.
func (c *Chain) JKT() string { return c.leaf().jkt }

// Issuer returns the iss of the root.
func (c *Chain) Issuer() string { return c.root().iss }

// Principal returns the sub: on whose authority all this happens.
func (c *Chain) Principal() string { return c.root().sub }

// GrantID returns the gid.
func (c *Chain) GrantID() string { return c.root().gid }

// ClientID returns the client_id of the last token. In a chain it is a label,
// see Parties.
func (c *Chain) ClientID() string { return c.leaf().clientID }

// MayAct returns whom a single token names in may_act (RFC 8693 §4.4), "" if it
// names nobody.
func (c *Chain) MayAct() string {
	if c.Len() != 1 {
		return ""
	}
	return c.root().mayAct
}

// Scopes returns the scopes in effect, sorted.
func (c *Chain) Scopes() []string { return slices.Clone(c.leaf().scopes) }

// HasScope reports whether every link holds the scope.
func (c *Chain) HasScope(scope string) bool { return c.AllowsScope(AllOf(scope)) == nil }

// Audience returns the resources the credential is for.
func (c *Chain) Audience() []string { return slices.Clone(c.leaf().aud) }

// Limits returns the limits in effect.
func (c *Chain) Limits() Limits { return c.leaf().limits.clone() }

// Tools returns the tools in effect. It is empty both for a chain restricted by
// scope only and for one that allows no tool; Restricts(DimensionTools) tells.
func (c *Chain) Tools() Tools { return cloneTools(c.leaf().tools) }

// Expires returns the end of the credential.
func (c *Chain) Expires() time.Time { return time.Unix(c.leaf().exp, 0) }

// IssuedAt returns the iat of the last token.
func (c *Chain) IssuedAt() time.Time { return time.Unix(c.leaf().iat, 0) }

// JTI returns the jti of the last token. Whoever signed it chose it.
func (c *Chain) JTI() string { return c.leaf().jti }

// LID returns the link id of the last token, which identifies the credential.
func (c *Chain) LID() string { return c.leaf().lid }

// Ancestry returns the anc of the root.
func (c *Chain) Ancestry() []string { return slices.Clone(c.root().anc) }

// Parties returns those who act, from the principal to the actor: the sub, the
// parties of the root's act, then the client_id of every token. A party that
// follows itself is one.
func (c *Chain) Parties() []Party {
	if c.empty() {
		return nil
	}
	root := c.root()
	path := []Party{{ID: root.sub, Proved: true}}
	for _, party := range slices.Backward(root.act) {
		path = appendParty(path, party)
	}
	for i := range c.parts {
		// The server authenticated the client of a root, or says in act that
		// it did not; the client of a link is its delegator's word.
		proved := i == 0 && len(root.act) == 0
		path = appendParty(path, Party{ID: c.parts[i].clientID, Proved: proved})
	}
	return path
}

// appendParty keeps the path free of a party that follows itself. It is proved
// if either mention is.
func appendParty(path []Party, party Party) []Party {
	if last := len(path) - 1; last >= 0 && path[last].ID == party.ID {
		path[last].Proved = path[last].Proved || party.Proved
		return path
	}
	return append(path, party)
}

// Path returns the ids of Parties.
func (c *Chain) Path() []string {
	var path []string
	for _, party := range c.Parties() {
		path = append(path, party.ID)
	}
	return path
}

// Agent returns who acted as far as it is proved: the last proved party.
func (c *Chain) Agent() string {
	for _, party := range slices.Backward(c.Parties()) {
		if party.Proved {
			return party.ID
		}
	}
	return ""
}

// Links describes every token, root first.
func (c *Chain) Links() []Link {
	if c.empty() {
		return nil
	}
	links := make([]Link, 0, len(c.parts))
	for i := range c.parts {
		links = append(links, c.parts[i].link(i == 0))
	}
	return links
}

func (p *part) link(confirmed bool) Link {
	if n := len(p.act); n > 0 && p.act[0].ID == p.clientID {
		confirmed = confirmed && p.act[0].Proved
	}
	l := Link{
		LID: p.lid, JTI: p.jti, ClientID: p.clientID, Confirmed: confirmed, JKT: p.jkt, Issuer: p.iss,
		Audience: slices.Clone(p.aud), Scopes: slices.Clone(p.scopes),
		Tools: cloneTools(p.tools), Limits: p.limits.clone(),
		IssuedAt: time.Unix(p.iat, 0), Expires: time.Unix(p.exp, 0),
	}
	if p.depth != nil && p.maxDepth != nil {
		l.Depth, l.MaxDepth = int(*p.depth), int(*p.maxDepth)
	}
	return l
}

// Revocable lists what step 15 looks up.
func (c *Chain) Revocable() Revocable {
	r := Revocable{Grant: c.GrantID(), Clients: c.Path(), Ancestry: c.Ancestry()}
	if c.empty() {
		return r
	}
	for i := range c.parts {
		p := &c.parts[i]
		r.LIDs = append(r.LIDs, p.lid)
		if p.jkt != "" {
			r.Keys = append(r.Keys, p.jkt)
		}
		if !slices.Contains(r.Clients, p.clientID) {
			r.Clients = append(r.Clients, p.clientID)
		}
	}
	return r
}

// DepthLeft is how many more hand-overs the credential allows (r of
// delegation.md §7). grantDepth is the depth of the grant behind a plain token;
// a chain carries its own.
func (c *Chain) DepthLeft(grantDepth int) int {
	leaf := c.leaf()
	if leaf.depth != nil && leaf.maxDepth != nil {
		return int(*leaf.maxDepth - *leaf.depth)
	}
	left := grantDepth - len(leaf.act)
	if leaf.hops != nil {
		// A token made by exchange remembers what its subject had left;
		// otherwise exchanging a sealed chain would reset its depth.
		left = int(min(int64(left), *leaf.hops))
	}
	return max(left, 0)
}

// For is step 13 for a resource server: the last token is for exactly this
// resource and no other.
func (c *Chain) For(audience string) error {
	if aud := c.leaf().aud; len(aud) == 1 && aud[0] == audience {
		return nil
	}
	return refuse(AudienceMismatch, DimensionAudience, "")
}

// ForAmong is step 13 for kavach's own endpoints, which alone take a token
// that names several resources.
func (c *Chain) ForAmong(audience string) error {
	if slices.Contains(c.leaf().aud, audience) {
		return nil
	}
	return refuse(AudienceMismatch, DimensionAudience, "")
}

// Schemes of an Authorization header.
const (
	Bearer = "Bearer"
	DPoP   = "DPoP"
)

// Scheme returns the one scheme the credential may be sent under: "No cnf →
// Bearer only. cnf → DPoP with proof. A chain → never Bearer."
func (c *Chain) Scheme() string {
	if !c.empty() && !c.Bound() && c.Plain() {
		return Bearer
	}
	return DPoP
}

// CheckScheme refuses a scheme, in its exact spelling here, that the credential
// must not be sent under. It is the part of step 14 that needs no proof.
func (c *Chain) CheckScheme(scheme string) error {
	if c.empty() || scheme != c.Scheme() {
		return refuse(HolderBindingFailed, "", "scheme")
	}
	return nil
}

func cloneTools(t Tools) Tools {
	clone := make(Tools, len(t))
	for name, arguments := range t {
		clone[name] = arguments
	}
	return clone
}
