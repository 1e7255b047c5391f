package delegation

import (
	"net/netip"
	"slices"
	"time"
)

// UnverifiedGrant is what a credential says its holder may do, as the holder
// reads it: no signature was checked, so it is worth nothing to anybody else.
// It can only be used to refuse, by a program that keeps itself within its own
// token (delegation.md §5: allow_network "is enforced where connections are
// opened"). Its zero value allows nothing.
type UnverifiedGrant struct {
	chain Chain
}

// UnverifiedHeld reads the token or chain that the caller itself holds. It
// never yields a Chain: what others present has to be verified.
func UnverifiedHeld(token string) (UnverifiedGrant, error) {
	parts, refusal := unverifiedParts(new(scratch), token)
	if refusal != nil {
		return UnverifiedGrant{}, refusal
	}
	return UnverifiedGrant{Chain{parts: parts}}, nil
}

// Links describes every token, root first.
func (g UnverifiedGrant) Links() []Link { return g.chain.Links() }

// Refuses says what a verifier would have against token i under those before
// it, as far as that is seen without keys: steps 4 to 12 for a link, the times
// for the first token. It returns nil or a *Refusal.
func (g UnverifiedGrant) Refuses(i int, now time.Time) error {
	if i < 0 || i >= g.chain.Len() {
		return errEmpty()
	}
	p, refusal := &g.chain.parts[i], (*Refusal)(nil)
	if i == 0 {
		refusal = p.times(nil, now.Unix())
	} else {
		refusal = p.edge(g.chain.parts[:i], now.Unix())
	}
	if refusal != nil {
		return refusal.at(i)
	}
	return nil
}

// Audience returns the resources the credential is for.
func (g UnverifiedGrant) Audience() []string { return g.chain.Audience() }

// Scopes returns the scopes in effect, sorted.
func (g UnverifiedGrant) Scopes() []string { return g.chain.Scopes() }

// Principal returns the sub.
func (g UnverifiedGrant) Principal() string { return g.chain.Principal() }

// JKT returns the thumbprint of the key that proofs are made with, "" if the
// credential is not bound.
func (g UnverifiedGrant) JKT() string { return g.chain.JKT() }

// Scheme returns the one scheme that the credential may be sent under.
func (g UnverifiedGrant) Scheme() string { return g.chain.Scheme() }

// Expires returns when the first of its tokens ends.
func (g UnverifiedGrant) Expires() time.Time {
	if g.chain.empty() {
		return time.Time{}
	}
	earliest := slices.MinFunc(g.chain.parts, func(a, b part) int { return int(a.exp - b.exp) })
	return time.Unix(earliest.exp, 0)
}

// Restricts is that of Chain: whether any link restricts a dimension.
func (g UnverifiedGrant) Restricts(dimension string) bool { return g.chain.Restricts(dimension) }

// AllowsNetwork asks every link for a connection to "host:port".
func (g UnverifiedGrant) AllowsNetwork(destination string) error {
	return g.chain.AllowsNetwork(Given(destination))
}

// AllowsAddress asks every link whether a connection to destination may go to
// the address that its name was resolved to.
func (g UnverifiedGrant) AllowsAddress(destination string, address netip.Addr) error {
	return g.chain.AllowsAddress(destination, address)
}

// AllowsSize asks every link for a number of bytes.
func (g UnverifiedGrant) AllowsSize(size int64) error { return g.chain.AllowsSize(Given(size)) }
