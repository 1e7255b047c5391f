package authz

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
)

// ErrNotSuspended: an agent that is to be resumed and is not suspended.
var ErrNotSuspended = errors.New("authz: the agent is not suspended")

// Suspend stops an agent: it gets no tokens, and every token that names it, was
// issued to it, or is bound to a key that is known to be its, is dead here from
// the commit on and elsewhere within the feed's interval (delegation.md §9).
// What it has delegated to others dies with it. why is for the record, "" for
// nothing. It narrows: recorded is false if only the log refused, and if nothing
// could be committed this process enforces it all the same.
func (a *Agents) Suspend(ctx context.Context, by Actor, agentID, why string) (recorded bool, err error) {
	found, err := a.Agent(ctx, agentID)
	if err != nil {
		return false, fmt.Errorf("agent %s: %w", agentID, err)
	}
	if len(why) > 256 || !plainText(why) {
		return false, invalid("a reason of at most 256 bytes")
	}
	detail := map[string]any{"owner": found.Owner}
	if why != "" {
		detail["why"] = why
	}
	return a.cfg.Registry.narrow(ctx,
		[]Revocation{{Kind: RevokeAgent, Value: found.ID, At: a.cfg.Now()}},
		[]audit.Effect{a.cfg.Store.SuspendAgent(found.ID)},
		by.entry(audit.AgentSuspend, found.ID, detail))
}

// Resume lets a suspended agent act again. Its tokens from before live again as
// far as they have not expired, unless its key was changed meanwhile.
func (a *Agents) Resume(ctx context.Context, by Actor, agentID string) error {
	found, err := a.Agent(ctx, agentID)
	if err != nil {
		return fmt.Errorf("agent %s: %w", agentID, err)
	}
	refused := by.entry(audit.AgentResume, found.ID, map[string]any{"owner": found.Owner})
	refused.Result, refused.Reason = audit.Denied, "not_suspended"
	err = a.cfg.Commit.Commit(ctx, audit.Change{
		Effects: []audit.Effect{a.cfg.Store.ResumeAgent(found.ID), a.cfg.Store.LiftAgent(found.ID, a.cfg.Now())},
		Entries: []audit.Entry{by.entry(audit.AgentResume, found.ID, map[string]any{"owner": found.Owner})},
		Else:    &audit.Change{Entries: []audit.Entry{refused}},
	})
	if errors.Is(err, audit.ErrConflict) {
		return ErrNotSuspended
	}
	if err != nil {
		return fmt.Errorf("resuming an agent: %w", err)
	}
	a.cfg.Registry.held.lift(Revocation{Kind: RevokeAgent, Value: found.ID})
	return nil
}

// noteKey remembers whose key a token was bound to, if that is known: a
// suspension "reaches … confirmed keys" (delegation.md §9), also in a token that
// gives their holder another name.
func (s *Server) noteKey(f *flow, h *handover, issued delegation.Issued) {
	who := cmp.Or(h.ask.Receiver, h.ask.Caller)
	switch {
	case issued.JKT == "" || !agent.IsID(who):
	case f.client.Kind == KindAgent && f.client.ID == who && f.jkt() == issued.JKT:
		f.notes = append(f.notes, s.cfg.Registry.cfg.Store.HoldAgentKey(who, issued.JKT, issued.Expires))
	case h.card != "":
		// A card names any key. It must not make another agent's key die with the
		// agent that signed it.
		f.notes = append(f.notes, s.cfg.Registry.cfg.Store.ClaimAgentKey(who, issued.JKT, issued.Expires))
	}
}
