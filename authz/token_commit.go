package authz

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/kavach-dev/kavach/audit"
)

// errLost says that another request was faster.
var errLost = &Error{Status: http.StatusBadRequest, Code: "invalid_grant", Description: "it was used at the same moment"}

// A loss is one way in which the Change of an answer may lose: what is spent
// all the same, what the caller is told, and what the record says.
type loss struct {
	spend  []audit.Effect
	answer *Error
	reason string
}

// commitToken commits the answer to a token request: what it needs to be true
// (f.effects), what the request presented and may present once, and the record.
// Everything wins or loses together. Which of it was lost shows in the Else
// that commits in its place, so the answer is never a guess:
//
//	grant, proof and assertion are good    the answer
//	else  proof and assertion are good     the grant was used at that moment
//	else  the assertion is good            the proof was used before
//	else                                   the assertion was used before
//
// A request that loses its grant has still spent proof and assertion.
func (s *Server) commitToken(ctx context.Context, f *flow) error {
	change := audit.Change{
		Effects: slices.Concat(f.assertion, f.proofOnce, f.effects, f.notes), Entries: []audit.Entry{s.issueEntry(f)},
	}
	losses := f.losses()
	at := &change
	for _, l := range losses {
		at.Else = &audit.Change{Effects: l.spend, Entries: []audit.Entry{s.refusalEntry(f, l.answer, l.reason)}}
		at = at.Else
	}
	err := s.cfg.Commit.Commit(ctx, change)
	if errors.Is(err, audit.ErrInvalid) {
		for at := &change; at != nil; at = at.Else {
			at.Entries = slim(at.Entries)
		}
		err = s.cfg.Commit.Commit(ctx, change)
	}
	var lost *audit.LostError
	if errors.As(err, &lost) && lost.Else > 0 {
		return recorded{losses[lost.Else-1].answer}
	}
	if err != nil {
		return recorded{fmt.Errorf("recording a token: %w", err)}
	}
	return nil
}

func (f *flow) losses() []loss {
	var out []loss
	if len(f.effects) > 0 || len(f.assertion)+len(f.proofOnce) == 0 {
		// Somebody redeemed it between our look and our commit: a lost race,
		// which harms nobody.
		answer, reason := errLost, "race_lost"
		if f.lost != nil {
			answer, reason = f.lost, reasonReplayed
		}
		out = append(out, loss{slices.Concat(f.assertion, f.proofOnce), answer, reason})
	}
	if len(f.proofOnce) > 0 {
		out = append(out, loss{f.assertion, errProofReplayed, reasonReplayed})
	}
	if len(f.assertion) > 0 {
		out = append(out, loss{nil, Replayed(), reasonReplayed})
	}
	return out
}

// reasonReplayed is the reason of a record about what may come once and came
// again: it is recorded whole, always (audit.md §1).
const reasonReplayed = "replayed"

// replayed makes of what would have been recorded the record of an assertion
// that was used before.
func replayed(entries []audit.Entry) []audit.Entry {
	out := slices.Clone(entries)
	for i := range out {
		out[i].Result, out[i].Reason, out[i].Issued = audit.Denied, reasonReplayed, nil
	}
	return out
}

// spend commits a decision of an endpoint about an authenticated client, whose
// assertion it spends: what is answered counts as its use. It returns the error
// of Replayed if the assertion was used before; that is recorded instead.
func spend(ctx context.Context, commit audit.Committer, once []audit.Effect, entry audit.Entry) error {
	attempt := func(entries []audit.Entry) error {
		change := audit.Change{Effects: once, Entries: entries}
		if len(once) > 0 {
			change.Else = &audit.Change{Entries: replayed(entries)}
		}
		return commit.Commit(ctx, change)
	}
	entries := []audit.Entry{entry}
	err := attempt(entries)
	if errors.Is(err, audit.ErrInvalid) {
		err = attempt(slim(entries))
	}
	if errors.Is(err, audit.ErrConflict) {
		return Replayed()
	}
	return err
}
