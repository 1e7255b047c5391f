package authz

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kavach-dev/kavach/audit"
)

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
	return g.narrowAs(ctx, revs, more, entries, func(c audit.Change) audit.Change { return c })
}

// narrowOnce is narrow for a client whose assertion is spent by it. If it was
// used before, nothing is revoked and the error is that of Replayed, recorded.
func (g *Registry) narrowOnce(ctx context.Context, once []audit.Effect, revs []Revocation, more []audit.Effect, entries ...audit.Entry) (recorded bool, err error) {
	if len(once) == 0 {
		return g.narrow(ctx, revs, more, entries...)
	}
	recorded, err = g.narrowAs(ctx, revs, more, entries, func(c audit.Change) audit.Change {
		c.Effects, c.Else = slices.Concat(once, c.Effects), &audit.Change{Entries: replayed(c.Entries)}
		return c
	})
	if errors.Is(err, errElse) {
		return true, Replayed()
	}
	return recorded, err
}

// narrowAnyway is narrow that spends an assertion, and happens all the same if
// it was used before.
func (g *Registry) narrowAnyway(ctx context.Context, once []audit.Effect, revs []Revocation, more []audit.Effect, entries ...audit.Entry) (recorded bool, err error) {
	if len(once) == 0 {
		return g.narrow(ctx, revs, more, entries...)
	}
	recorded, err = g.narrowAs(ctx, revs, more, entries, func(c audit.Change) audit.Change {
		all := c
		c.Effects, c.Else = slices.Concat(once, c.Effects), &all
		return c
	})
	if errors.Is(err, errElse) {
		return true, nil
	}
	return recorded, err
}

// errElse says that an Else was committed in place of its Change.
var errElse = errors.New("authz: its Else was committed")

// narrowAs commits what asking makes of the Change that narrows; the error is
// errElse if an Else of it stands instead. Lost without that, nothing is
// written, as in any other failure.
func (g *Registry) narrowAs(ctx context.Context, revs []Revocation, more []audit.Effect, entries []audit.Entry, asking func(audit.Change) audit.Change) (recorded bool, err error) {
	held := audit.Change{Entries: entries, Narrows: true}
	for _, r := range revs {
		held.Effects = append(held.Effects, g.cfg.Store.Revoke(r))
	}
	held.Effects = append(held.Effects, more...)
	err = g.cfg.Commit.Commit(ctx, asking(held))
	if errors.Is(err, audit.ErrInvalid) {
		held.Entries = slim(entries)
		err = g.cfg.Commit.Commit(ctx, asking(held))
	}
	var lost *audit.LostError
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &lost) && lost.Else > 0:
		return true, errElse
	case errors.Is(err, audit.ErrUnrecorded):
		return false, nil
	}
	// What is held is enforced at once and committed later, whatever has become
	// of the assertion until then.
	g.held.add(revs, held)
	return false, fmt.Errorf("revoking: %w", err)
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
