package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// pause is how long the committer waits before it asks again for an outcome
// that nobody knows.
const pause = 50 * time.Millisecond

// commit writes one batch and answers every Change in it. It runs under its
// own deadline; no request's context reaches the database (design D4).
func (l *Log) commit(todo []*pending) {
	ctx, cancel := context.WithTimeout(context.Background(), l.cfg.Deadline)
	defer cancel()
	low := l.cfg.Store.Room()
	if low != nil {
		// A full disk stops every commit, so widening is refused earlier (D3).
		l.failed(low)
		if todo = onlyNarrowing(todo, low); len(todo) == 0 {
			return
		}
	}
	reclaimed := false
	for len(todo) > 0 {
		if err := ctx.Err(); err != nil {
			l.failed(fmt.Errorf("%w: %w", ErrUnavailable, err))
			answerAll(todo, err)
			return
		}
		outcomes, err := l.cfg.Store.Append(ctx, writes(todo), l.cfg.Now().UnixMilli())
		var broken *BrokenError
		switch {
		case err == nil:
			if low != nil || recorded(outcomes) || !l.refusing() {
				l.failed(low)
			}
			todo = l.settle(todo, outcomes)
		case errors.Is(err, ErrDuplicate):
			todo, err = l.duplicates(ctx, todo)
			if err != nil {
				l.failed(err)
				answerAll(todo, err)
				return
			}
		case errors.As(err, &broken):
			todo[broken.Index].answer <- broken
			todo = slices.Delete(slices.Clone(todo), broken.Index, broken.Index+1)
		case errors.Is(err, ErrUnknown):
			stands, lookErr := l.lookUp(ctx, outcomes)
			if lookErr != nil {
				// The effect may stand; the authority is not handed out (D3).
				l.failed(lookErr)
				answerAll(todo, errors.Join(err, lookErr))
				return
			}
			if stands {
				l.failed(low)
				todo = l.settle(todo, outcomes)
				continue
			}
			// None is there: run again. That moves the head, so that the old
			// COMMIT can no longer succeed.
			wait(ctx)
		case errors.Is(err, ErrLogRefused):
			l.failed(err)
			l.unrecorded(ctx, onlyNarrowing(todo, err))
			return
		default:
			l.failed(err)
			if todo = onlyNarrowing(todo, err); len(todo) > 0 && (reclaimed || !l.cfg.Store.Reclaim(err)) {
				answerAll(todo, err)
				return
			}
			reclaimed = true
		}
	}
}

// troubleFor is how long a failure counts if nobody tries to write to the log.
const troubleFor = 10 * time.Second

// refusing: only the log refused, a moment ago. That a Change without records
// could be committed since says nothing of it; an alarm that each of them ends
// is none.
func (l *Log) refusing() bool {
	return errors.Is(l.Status().Err, ErrLogRefused) && time.Since(l.trouble) <= troubleFor
}

// recorded says whether a batch wrote records.
func recorded(outcomes []Outcome) bool {
	return slices.ContainsFunc(outcomes, func(o Outcome) bool { return len(o.Records) > 0 })
}

// settle answers what of a batch is durable and returns the rest of it.
func (l *Log) settle(todo []*pending, outcomes []Outcome) []*pending {
	l.batches.Add(1)
	for i, o := range outcomes {
		p := todo[i]
		switch {
		case o.Err != nil:
			p.answer <- o.Err
		case o.Lost:
			l.conflicts.Add(1)
			l.changes.Add(1)
			p.answer <- &LostError{o.Else}
		default:
			l.changes.Add(1)
			p.answer <- p.verdict
		}
	}
	return todo[len(outcomes):]
}

// duplicates answers the Changes whose ids are in the log and returns the
// others. A Change whose id came with another entry becomes the record that
// says so.
func (l *Log) duplicates(ctx context.Context, todo []*pending) ([]*pending, error) {
	var keys []Key
	for _, p := range todo {
		keys = append(keys, p.keys...)
	}
	found, err := l.cfg.Store.Find(ctx, keys)
	if err != nil {
		return todo, fmt.Errorf("looking up ids: %w", err)
	}
	rest := make([]*pending, 0, len(todo))
	hit := false
	for _, p := range todo {
		switch first, verdict := firstAnswer(&p.w, found); {
		case !first:
			rest = append(rest, p)
			continue
		case errors.Is(verdict, ErrIDConflict):
			conflict, err := l.idConflict(&p.w, found)
			if err != nil {
				return todo, err
			}
			p.w = Write{Drafts: []*Draft{conflict}, Narrows: p.w.Narrows}
			p.keys, p.verdict = p.w.keys(nil), ErrIDConflict
			rest = append(rest, p)
		default:
			p.answer <- verdict
		}
		hit = true
	}
	if !hit {
		return todo, fmt.Errorf("%w: duplicate that is not there", ErrUnavailable)
	}
	return rest, nil
}

// firstAnswer says whether a Write is in the log already, and what was answered
// then: the record shows whether the Change or its Else had won.
func firstAnswer(w *Write, found map[Key][]byte) (first bool, verdict error) {
	for level := 0; w != nil; level, w = level+1, w.Else {
		there, same := 0, true
		for _, d := range w.Drafts {
			if record, ok := found[d.Key()]; ok {
				there++
				same = same && sameEntry(record, d)
			}
		}
		switch {
		case there == 0:
			continue
		case same && there == len(w.Drafts) && level == 0:
			return true, nil
		case same && there == len(w.Drafts):
			return true, &LostError{level}
		case w.Else != nil:
			// The same id may stand for either branch.
			if first, verdict := firstAnswer(w.Else, found); first && verdict == nil {
				return true, &LostError{level + 1}
			}
		}
		return true, ErrIDConflict
	}
	return false, nil
}

// idConflict is the draft that records a second use of an id.
func (l *Log) idConflict(w *Write, found map[Key][]byte) (*Draft, error) {
	for at := w; at != nil; at = at.Else {
		for _, d := range at.Drafts {
			if _, ok := found[d.Key()]; !ok {
				continue
			}
			return NewDraft(l.cfg.Store.LogID(), Entry{ID: NewID(), Action: d.Action, Result: Denied, Reason: "id_conflict",
				Agent: d.Agent, Sub: d.Sub, Grant: d.Grant, Resource: d.Resource,
				Detail: map[string]any{"by": d.By, "of": d.ID}})
		}
	}
	return nil, fmt.Errorf("%w: duplicate that is not there", ErrUnavailable)
}

// lookUp finds out whether a batch whose COMMIT was not answered stands. A
// batch is one transaction, so one of its records speaks for all; "not there"
// counts only because Find held the head.
func (l *Log) lookUp(ctx context.Context, outcomes []Outcome) (bool, error) {
	var key Key
	for _, o := range outcomes {
		if len(o.Records) > 0 {
			key = o.Records[0].Key()
			break
		}
	}
	if key.ID == "" {
		return false, fmt.Errorf("%w: nothing to look up", ErrUnavailable)
	}
	for {
		found, err := l.cfg.Store.Find(ctx, []Key{key})
		if err == nil {
			return len(found) > 0, nil
		}
		if wait(ctx); ctx.Err() != nil {
			return false, fmt.Errorf("looking up a lost commit: %w", err)
		}
	}
}

// wait is a pause between two attempts.
func wait(ctx context.Context) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// unrecorded runs narrowing Changes again, each alone, with an outbox row in
// place of the record.
func (l *Log) unrecorded(ctx context.Context, todo []*pending) {
	for _, p := range todo {
		outcome, err := l.cfg.Store.AppendUnrecorded(ctx, p.w, l.cfg.Now().UnixMilli())
		switch {
		case errors.Is(err, ErrDuplicate):
			p.answer <- ErrUnrecorded // the first answer again
		case err != nil:
			p.answer <- unavailable(err)
		case outcome.Err != nil:
			p.answer <- outcome.Err
		default:
			l.changes.Add(1)
			answer := p.verdict
			if outcome.Lost {
				l.conflicts.Add(1)
				answer = &LostError{outcome.Else}
			}
			if len(p.keys) > 0 { // something waits, of it or of its Else
				l.outbox.Add(1)
				answer = errors.Join(answer, ErrUnrecorded)
			}
			p.answer <- answer
		}
	}
}

// onlyNarrowing answers the Changes that widen authority and returns the rest.
func onlyNarrowing(todo []*pending, err error) []*pending {
	rest := make([]*pending, 0, len(todo))
	for _, p := range todo {
		if p.w.Narrows {
			rest = append(rest, p)
			continue
		}
		p.answer <- unavailable(err)
	}
	return rest
}

func answerAll(todo []*pending, err error) {
	for _, p := range todo {
		p.answer <- unavailable(err)
	}
}

func unavailable(err error) error {
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

func writes(todo []*pending) []Write {
	out := make([]Write, len(todo))
	for i, p := range todo {
		out[i] = p.w
	}
	return out
}
