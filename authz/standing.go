package authz

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kavach-dev/kavach/audit"
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

// StandingOf is Standing for everything a verified chain names: step 15 of
// delegation §6.
func (g *Registry) StandingOf(ctx context.Context, c *delegation.Chain) (Standing, error) {
	r := c.Revocable()
	q := StandingQuery{
		Principal: c.Principal(), Grants: []string{r.Grant},
		Links: r.LIDs, Keys: r.Keys, Ancestors: r.Ancestry, Now: g.now(),
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
	return g.Standing(ctx, q)
}

// Revoked is step 15 of delegation §6: whether the grant, any link, key, party
// or ancestor of the chain is revoked, suspended, disabled or gone.
func (g *Registry) Revoked(ctx context.Context, c *delegation.Chain) (bool, error) {
	standing, err := g.StandingOf(ctx, c)
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
		if s.Holder.ID == "" && !s.Dead || c.Holds(s.Holder, name) || s.Agent && known && scope.Holders.Nobody {
			held = append(held, name)
		}
	}
	slices.Sort(held)
	return slices.Compact(held)
}

// heldMax bounds what is remembered while the database does not take it.
const heldMax = 4096

// held keeps revocations that could not be committed at all. This process
// enforces them at once (design D3); the next sweep tries to commit them.
type held struct {
	mu      sync.Mutex // guards what follows
	dead    map[string]time.Time
	waiting []audit.Change
}

func heldKey(kind RevocationKind, value string) string { return string(kind) + " " + value }

func (h *held) add(revs []Revocation, change audit.Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead == nil {
		h.dead = map[string]time.Time{}
	}
	if len(h.dead)+len(revs) > heldMax {
		return // the caller was told 503 and may come again
	}
	fresh := false
	for _, r := range revs {
		key := heldKey(r.Kind, r.Value)
		_, known := h.dead[key]
		h.dead[key], fresh = r.Until, fresh || !known
	}
	if fresh { // or callers that come again would fill the memory
		h.waiting = append(h.waiting, change)
	}
}

func (h *held) covers(q StandingQuery) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.dead) == 0 {
		return false
	}
	for kind, lists := range map[RevocationKind][][]string{
		RevokeGrant:  {q.Grants},
		RevokeLink:   {q.Links, q.Ancestors},
		RevokeKey:    {q.Keys, q.Ancestors},
		RevokeClient: {{q.Principal}, q.Parties, q.Labels},
	} {
		for _, list := range lists {
			for _, value := range list {
				if until, ok := h.dead[heldKey(kind, value)]; ok && (until.IsZero() || q.Now.Before(until)) {
					return true
				}
			}
		}
	}
	return false
}

func (h *held) expire(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, until := range h.dead {
		if !until.IsZero() && now.After(until) {
			delete(h.dead, key)
		}
	}
}

// narrow commits revocations. recorded is false if only the log refused. If
// nothing could be committed it returns the error, and this process enforces
// the revocations from now on.
func (g *Registry) narrow(ctx context.Context, revs []Revocation, more []audit.Effect, entries ...audit.Entry) (recorded bool, err error) {
	change := audit.Change{Entries: entries, Narrows: true}
	for _, r := range revs {
		change.Effects = append(change.Effects, g.cfg.Store.Revoke(r))
	}
	change.Effects = append(change.Effects, more...)
	err = g.cfg.Commit.Commit(ctx, change)
	if errors.Is(err, audit.ErrInvalid) {
		change.Entries = slim(entries)
		err = g.cfg.Commit.Commit(ctx, change)
	}
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, audit.ErrUnrecorded):
		return false, nil
	}
	g.held.add(revs, change)
	return false, fmt.Errorf("revoking: %w", err)
}

// record commits an entry about something that changes nothing.
func (g *Registry) record(ctx context.Context, e audit.Entry) error {
	err := g.cfg.Commit.Commit(ctx, audit.Change{Entries: []audit.Entry{e}})
	if errors.Is(err, audit.ErrInvalid) {
		err = g.cfg.Commit.Commit(ctx, audit.Change{Entries: slim([]audit.Entry{e})})
	}
	return err
}

// slim makes entries fit into a record: a chain may hold more of its
// delegators' words than a record has room for, and must not escape it for
// that. What identifies its links stays.
func slim(entries []audit.Entry) []audit.Entry {
	entries = slices.Clone(entries)
	for i := range entries {
		e := &entries[i]
		chain := make([]audit.Party, len(e.Chain))
		for j, p := range e.Chain {
			chain[j] = audit.Party{LID: p.LID, JKT: p.JKT}
		}
		e.Chain, e.Path, e.Anc = chain, nil, nil
		detail := map[string]any{"shortened": true}
		for name, value := range e.Detail {
			detail[name] = value
		}
		e.Detail = detail
	}
	return entries
}

// commitHeld tries again what could not be committed. What is committed stays
// enforced from memory until it expires, which harms nobody.
func (g *Registry) commitHeld(ctx context.Context) error {
	g.held.mu.Lock()
	waiting := g.held.waiting
	g.held.waiting = nil
	g.held.mu.Unlock()
	for i, change := range waiting {
		err := g.cfg.Commit.Commit(ctx, change)
		if err != nil && !errors.Is(err, audit.ErrUnrecorded) {
			g.held.mu.Lock()
			g.held.waiting = append(waiting[i:], g.held.waiting...)
			g.held.mu.Unlock()
			return fmt.Errorf("revoking: %w", err)
		}
	}
	return nil
}

// HeldRevocations is how many revocations wait in memory because the database
// did not take them.
func (g *Registry) HeldRevocations() int {
	g.held.mu.Lock()
	defer g.held.mu.Unlock()
	return len(g.held.waiting)
}

// chainEntry begins the record of something that was done with a token.
func chainEntry(c *delegation.Chain, action, result string) audit.Entry {
	e := audit.Entry{
		Action: action, Result: result, Path: c.Path(), Agent: c.Agent(), Sub: c.Principal(),
		Grant: c.GrantID(), Anc: c.Ancestry(), Chain: auditChain(c), Detail: map[string]any{},
	}
	return e
}

// auditChain is a chain as records show it.
func auditChain(c *delegation.Chain) []audit.Party {
	var chain []audit.Party
	for _, l := range c.Links() {
		chain = append(chain, audit.Party{LID: l.LID, JTI: l.JTI, ClientID: l.ClientID, Confirmed: l.Confirmed, JKT: l.JKT})
	}
	return chain
}
