package authz

import (
	"context"
	"errors"
	"fmt"
	"net/http"
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
	dead    map[string]Revocation
	waiting []heldChange
}

// heldChange is what waits to be committed, and what is enforced until then.
type heldChange struct {
	revs   []Revocation
	change audit.Change
}

// ended says that nothing a revocation names can be alive any more.
func (r Revocation) ended(now time.Time) bool { return !r.Until.IsZero() && !now.Before(r.Until) }

func heldKey(kind RevocationKind, value string) string { return string(kind) + " " + value }

func (h *held) add(revs []Revocation, change audit.Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.dead == nil {
		h.dead = map[string]Revocation{}
	}
	if len(h.dead)+len(revs) > heldMax {
		return // the caller was told 503 and may come again
	}
	fresh := false
	for _, r := range revs {
		key := heldKey(r.Kind, r.Value)
		before, known := h.dead[key]
		if known && before.Before.After(r.Before) {
			r.Before = before.Before
		}
		h.dead[key], fresh = r, fresh || !known || r.Before.After(before.Before)
	}
	if fresh { // or callers that come again would fill the memory
		h.waiting = append(h.waiting, heldChange{revs, change})
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
		RevokeAgent:  {{q.Principal}, q.Parties, q.Labels},
	} {
		for _, list := range lists {
			for _, value := range list {
				if r, ok := h.dead[heldKey(kind, value)]; ok && !r.ended(q.Now) {
					return true
				}
			}
		}
	}
	if q.Issued.IsZero() {
		return false
	}
	for _, gid := range append(slices.Clone(q.Grants), EveryGrant) {
		if r, ok := h.dead[heldKey(RevokeBefore, gid)]; ok && !r.ended(q.Now) && q.Issued.Before(r.Before) {
			return true
		}
	}
	return false
}

// addTo adds what is enforced here alone to what the database says of the feed.
func (h *held) addTo(f *FeedState, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.dead {
		if r.ended(now) {
			continue
		}
		switch r.Kind {
		case RevokeGrant:
			f.Grants = append(f.Grants, r.Value)
		case RevokeLink:
			f.Links = append(f.Links, r.Value)
		case RevokeKey:
			f.Keys = append(f.Keys, r.Value)
		case RevokeClient, RevokeAgent:
			f.Clients = append(f.Clients, r.Value)
		case RevokeBefore:
			if r.Before.After(f.Before[r.Value]) {
				f.Before[r.Value] = r.Before
			}
		}
	}
}

func (h *held) expire(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, r := range h.dead {
		if r.ended(now) {
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

// narrowOnce is narrow for a caller whose assertion or proof is spent by it. If
// that was used before, nothing is revoked and the error is lost, recorded.
func (g *Registry) narrowOnce(ctx context.Context, once []audit.Effect, lost *Error, revs []Revocation, more []audit.Effect, entries ...audit.Entry) (recorded bool, err error) {
	if len(once) == 0 {
		return g.narrow(ctx, revs, more, entries...)
	}
	recorded, err = g.narrowAs(ctx, revs, more, entries, func(c audit.Change) audit.Change {
		used := &audit.Change{Entries: replayed(c.Entries)}
		c.Effects = slices.Concat(once, c.Effects)
		if c.Else == nil {
			c.Else = used
			return c
		}
		full := *c.Else // either was lost: only one of them loses again
		full.Effects, full.Else = once, used
		c.Else = &full
		return c
	})
	if errors.Is(err, errElse) {
		return true, lost
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

// ErrFeedFull is the answer to one link more of a grant than the feed holds. To
// revoke what lies above some of them always fits.
var ErrFeedFull = &Error{
	Status: http.StatusTooManyRequests, Code: feedFull, RetryAfter: 60,
	Description: "64 links of this grant are revoked already: revoke an ancestor or its key",
}

// narrowAs commits what asking makes of the Change that narrows; the error is
// errElse if an Else of it stands instead, and ErrFeedFull if that is the Else
// of a full feed. Lost without that, nothing is written, as in any other
// failure.
func (g *Registry) narrowAs(ctx context.Context, revs []Revocation, more []audit.Effect, entries []audit.Entry, asking func(audit.Change) audit.Change) (recorded bool, err error) {
	held := audit.Change{Entries: entries, Narrows: true}
	bounded, full := false, ErrFeedFull
	for _, r := range revs {
		if r.Kind == RevokeLink && r.Grant != "" {
			held.Effects, bounded = append(held.Effects, g.cfg.Store.Absorb(r)), true
		}
		if r.Most > 0 {
			bounded, full = true, errKeysFull
		}
		held.Effects = append(held.Effects, g.cfg.Store.Revoke(r))
	}
	held.Effects = append(held.Effects, more...)
	if bounded {
		held.Else = &audit.Change{Entries: refused(entries, feedFull)}
	}
	err = g.cfg.Commit.Commit(ctx, asking(held))
	if errors.Is(err, audit.ErrInvalid) {
		held.Entries = slim(entries)
		if bounded {
			held.Else = &audit.Change{Entries: refused(held.Entries, feedFull)}
		}
		err = g.cfg.Commit.Commit(ctx, asking(held))
	}
	var lost *audit.LostError
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &lost) && lost.Else == 1 && bounded:
		return true, full
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

// feedFull is the reason in the record of an ErrFeedFull.
const feedFull = "feed_full"

// refused turns the records of what was to happen into those of a refusal.
func refused(entries []audit.Entry, reason string) []audit.Entry {
	out := slices.Clone(entries)
	for i := range out {
		out[i].Result, out[i].Reason = audit.Denied, reason
	}
	return out
}

// lift forgets what was committed: the database says from then on whether it
// stands. What was asked for before and still waits must not come after that.
func (h *held) lift(revs ...Revocation) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range revs {
		delete(h.dead, heldKey(r.Kind, r.Value))
	}
	h.waiting = slices.DeleteFunc(h.waiting, func(c heldChange) bool {
		return !slices.ContainsFunc(c.revs, func(waits Revocation) bool {
			return !slices.ContainsFunc(revs, func(r Revocation) bool { return r.Kind == waits.Kind && r.Value == waits.Value })
		})
	})
}

// commitHeld tries again what could not be committed. What is committed and
// expires stays enforced from memory until then, which harms nobody; what stands
// until somebody lifts it, here or in another process, must not.
func (g *Registry) commitHeld(ctx context.Context) error {
	g.held.mu.Lock()
	waiting := g.held.waiting
	g.held.waiting = nil
	g.held.mu.Unlock()
	for i, change := range waiting {
		err := g.cfg.Commit.Commit(ctx, change.change)
		var lost *audit.LostError
		if errors.As(err, &lost) && lost.Else > 0 {
			continue // the feed is full, which is recorded; here it stays enforced
		}
		if err != nil && !errors.Is(err, audit.ErrUnrecorded) {
			g.held.mu.Lock()
			g.held.waiting = append(waiting[i:], g.held.waiting...)
			g.held.mu.Unlock()
			return fmt.Errorf("revoking: %w", err)
		}
		g.held.lift(slices.DeleteFunc(slices.Clone(change.revs), func(r Revocation) bool { return !r.Until.IsZero() })...)
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
