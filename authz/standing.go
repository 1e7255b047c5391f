package authz

import (
	"context"
	"slices"

	"github.com/kavach-dev/kavach/delegation"
)

// Standing answers whether what the query names may still be used, and on
// whose behalf: one look-up in the database. An error means that nobody knows.
func (g *Registry) Standing(ctx context.Context, q StandingQuery) (Standing, error) {
	if q.Now.IsZero() {
		q.Now = g.now()
	}
	if g.held.covers(q) {
		return Standing{Dead: true}, nil
	}
	return g.cfg.Store.Standing(ctx, q)
}

// standingOf is Standing for everything a verified chain names: step 15 of
// delegation §6.
func (g *Registry) standingOf(ctx context.Context, c *delegation.Chain) (Standing, error) {
	return g.Standing(ctx, g.chainQuery(c))
}

// chainQuery names everything that a verified chain stands on.
func (g *Registry) chainQuery(c *delegation.Chain) StandingQuery {
	r := c.Revocable()
	q := StandingQuery{
		Principal: c.Principal(), Grants: []string{r.Grant},
		Links: r.LIDs, Keys: r.Keys, Ancestors: r.Ancestry, Issued: c.Links()[0].IssuedAt, Now: g.now(),
	}
	for _, p := range c.Parties() {
		switch {
		case p.ID == q.Principal:
		case p.Proved || c.Plain() && p.ID == c.ClientID():
			// Whoever a plain token was issued to is known to the server, also
			// if it did not prove itself.
			q.Parties = append(q.Parties, p.ID)
		default:
			q.Labels = append(q.Labels, p.ID)
		}
	}
	return q
}

// Revoked is step 15 of delegation §6: whether the grant, any link, key, party
// or ancestor of the chain is revoked, suspended, disabled or gone.
func (g *Registry) Revoked(ctx context.Context, c *delegation.Chain) (bool, error) {
	standing, err := g.standingOf(ctx, c)
	return standing.Dead, err
}

// Holder returns the person behind a principal: the person, or the owner of
// the agent. It is zero if there is none, and not Active if that person, or
// the agent, may not act.
func (g *Registry) Holder(ctx context.Context, principal string) (Holder, error) {
	standing, err := g.Standing(ctx, StandingQuery{Principal: principal})
	if err != nil {
		return Holder{}, err
	}
	standing.Holder.Active = standing.Holder.Active && !standing.Dead
	return standing.Holder, nil
}

// Held returns those of a principal's scopes that the person behind it holds
// now, sorted: "Consent, exchange, agent grants and refresh never yield more
// than the person holds now" (§4). A client has no person behind it: its
// scopes are what it was registered with. An agent may have been given what no
// person holds (audit:write).
func (s Standing) Held(c *Catalog, scopes []string) []string {
	held := []string{}
	for _, name := range scopes {
		scope, known := c.Scope(name)
		if s.Holder.ID == "" && !s.Dead || c.holds(s.Holder, name) || s.Agent && known && scope.Holders.Nobody {
			held = append(held, name)
		}
	}
	slices.Sort(held)
	return slices.Compact(held)
}
