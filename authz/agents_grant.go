package authz

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
)

// AgentGrant is what an agent may get on its own authentication.
type AgentGrant struct {
	// Scopes must be in its manifest.
	Scopes []string
	// MaxDepth is how many levels its tokens may be handed on. Nil: as many as
	// the manifest declares, at most delegation.DefaultMaxDepth.
	MaxDepth *int
	// Hours is the window of the week in which it gives tokens, as ParseHours
	// reads it. Empty: always.
	Hours string
}

// Grant sets the standing grant of an agent in place of the one before. The
// scopes must be in its manifest and the owner must hold them; an operator may
// also give what no person holds.
func (a *Agents) Grant(ctx context.Context, by Actor, agentID string, spec AgentGrant) (Grant, error) {
	found, err := a.Agent(ctx, agentID)
	if err != nil {
		return Grant{}, fmt.Errorf("agent %s: %w", agentID, err)
	}
	scopes := slices.Clone(spec.Scopes)
	slices.Sort(scopes)
	scopes = slices.Compact(scopes)
	if err := a.mayHold(ctx, by, found, scopes); err != nil {
		return Grant{}, err
	}
	depth := min(delegation.DefaultMaxDepth, found.Depth())
	if spec.MaxDepth != nil {
		depth = *spec.MaxDepth
	}
	if depth < 0 || depth > found.Depth() {
		return Grant{}, invalid("a depth of 0 to %d, which is what the manifest allows", found.Depth())
	}
	if _, err := ParseHours(spec.Hours); err != nil {
		return Grant{}, err
	}
	g := Grant{
		ID: randomID(16), Kind: GrantStanding, Sub: found.ID, ClientID: found.ID,
		Scopes: scopes, MaxDepth: depth, Hours: spec.Hours, Created: a.cfg.Now(),
	}
	before, err := a.cfg.Store.StandingGrant(ctx, found.ID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Grant{}, fmt.Errorf("reading the standing grant: %w", err)
	}
	if err == nil && before.Revoked.IsZero() {
		g.ID, g.Created, g.Used = before.ID, before.Created, before.Used
	}
	entry := by.entry(audit.AgentGrant, found.ID, map[string]any{
		"scopes": scopes, "max_depth": depth, "owner": found.Owner,
	})
	entry.Grant = g.ID
	if g.Hours != "" {
		entry.Detail["hours"] = g.Hours
	}
	err = a.cfg.Commit.Commit(ctx, audit.Change{
		Effects: []audit.Effect{a.cfg.Store.PutStandingGrant(g)}, Entries: []audit.Entry{entry},
	})
	if err != nil {
		return Grant{}, fmt.Errorf("granting: %w", err)
	}
	return g, nil
}

// mayHold checks that an agent can have the scopes.
func (a *Agents) mayHold(ctx context.Context, by Actor, found Agent, scopes []string) error {
	if len(scopes) == 0 {
		return invalid("a grant names at least one scope")
	}
	catalog, err := a.cfg.Registry.Catalog(ctx, scopes...)
	if err != nil {
		return err
	}
	owner, err := a.cfg.Registry.Holder(ctx, found.Owner)
	if err != nil {
		return fmt.Errorf("reading the owner: %w", err)
	}
	for _, name := range scopes {
		scope, known := catalog.Scope(name)
		switch {
		case !slices.Contains(found.Scopes, name):
			return invalid("the manifest of %s does not ask for %s", found.Name, name)
		case !known:
			return invalid("no resource has the scope %q", name)
		case scope.Holders.Nobody && by.Agent == audit.Operator:
		case !catalog.holds(owner, name):
			return invalid("the owner of %s does not hold %s", found.Name, name)
		}
	}
	return nil
}

// StandingGrant returns the standing grant of an agent, or ErrNotFound if there
// is none.
func (a *Agents) StandingGrant(ctx context.Context, agentID string) (Grant, error) {
	g, err := a.cfg.Store.StandingGrant(ctx, agentID)
	if err == nil && !g.Revoked.IsZero() {
		return Grant{}, ErrNotFound
	}
	return g, err
}

// RemoveGrant ends the standing grant of an agent, and with it every token that
// came from it. recorded is false if only the log refused; the grant is gone
// all the same. ErrNotFound: there is none.
func (a *Agents) RemoveGrant(ctx context.Context, by Actor, agentID string) (recorded bool, err error) {
	g, err := a.StandingGrant(ctx, agentID)
	if err != nil {
		return false, fmt.Errorf("the standing grant of %s: %w", agentID, err)
	}
	entry := by.entry(audit.AgentGrant, agentID, map[string]any{"removed": true, "scopes": g.Scopes})
	entry.Grant = g.ID
	now := a.cfg.Now()
	// Every check of a token looks its gid up among the revocations; after the
	// longest life of a token nothing is left to be found.
	return a.cfg.Registry.narrow(ctx,
		[]Revocation{{Kind: RevokeGrant, Value: g.ID, Until: now.Add(maxAccessTTL), At: now}},
		[]audit.Effect{a.cfg.Store.RevokeGrant(g.ID, now)}, entry)
}
