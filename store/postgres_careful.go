package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/audit"
)

// prepareAll prepares everything that a batch needs before it begins: the list,
// of which the statements from first on belong to the Write that owner says,
// and what is always needed.
func (t *pgTransaction) prepareAll(ctx context.Context, list []request, first int, owner func(at int) int) error {
	err := t.link.prepare(ctx, append(list[:len(list):len(list)], ask(`ROLLBACK`), ask(`COMMIT`), ask(begin)))
	var broken *brokenRequest
	if errors.As(err, &broken) && broken.at >= first && owner(broken.at) >= 0 && !isPostgres(err) {
		return &audit.BrokenError{Index: owner(broken.at), Err: err}
	}
	if err != nil {
		return t.failure("preparing", err)
	}
	return nil
}

// The statements around every Change of a careful batch.
const (
	savepoint  = `SAVEPOINT change`
	rollbackTo = `ROLLBACK TO SAVEPOINT change`
	release    = `RELEASE SAVEPOINT change`
)

// careful runs as much of a batch as fits into one transaction with a savepoint
// around every Change.
func (t *pgTransaction) careful(ctx context.Context, batch []audit.Write) ([]audit.Outcome, error) {
	if err := t.connect(ctx); err != nil {
		return nil, err
	}
	batch = batch[:min(len(batch), mostSavepoints)]
	if err := t.prepareBranches(ctx, batch); err != nil {
		return nil, err
	}
	err := t.lockHead(ctx)
	if err != nil {
		t.rollback(ctx)
		return nil, err
	}
	branches, outcomes, list, err := t.changes(ctx, batch)
	if err != nil {
		t.rollback(ctx)
		return nil, err
	}
	seq := audit.NewSequencer(t.log, t.head, t.now)
	var records []audit.Record
	for i, w := range branches {
		if w == nil {
			continue
		}
		for _, d := range w.Drafts {
			r := seq.Next(d)
			records = append(records, r)
			outcomes[i].Records = append(outcomes[i].Records, r)
		}
	}
	first := len(list)
	_, err = t.commit(ctx, t.records(list, seq.Head(), records))
	if err == nil {
		t.head, t.known = seq.Head(), true
		return outcomes, nil
	}
	t.rollback(ctx)
	var broken *brokenRequest
	switch {
	case errors.Is(err, audit.ErrUnknown):
		return outcomes, err
	case errors.As(err, &broken) && broken.at >= first && len(records) > 0:
		return nil, t.recordFailure(err)
	}
	return nil, t.failure("writing a batch", err)
}

// prepareBranches prepares the statements of all that may happen.
func (t *pgTransaction) prepareBranches(ctx context.Context, batch []audit.Write) error {
	list := []request{ask(savepoint), ask(rollbackTo), ask(release)}
	first := len(list)
	var owners []int
	for i := range batch {
		for w := &batch[i]; w != nil; w = w.Else {
			var err error
			if list, err = appendEffects(list, w.Effects); err != nil {
				return &audit.BrokenError{Index: i, Err: err}
			}
			for len(owners) < len(list)-first {
				owners = append(owners, i)
			}
		}
	}
	return t.prepareAll(ctx, list, first, func(at int) int {
		if at-first < len(owners) {
			return owners[at-first]
		}
		return -1
	})
}

// changes runs the Changes of a batch inside a transaction, in order. Of each
// it returns the branch that won, nil if none did; undo is to be sent first in
// what follows.
func (t *pgTransaction) changes(ctx context.Context, batch []audit.Write) (branches []*audit.Write, outcomes []audit.Outcome, undo []request, err error) {
	branches, outcomes = make([]*audit.Write, len(batch)), make([]audit.Outcome, len(batch))
	for i := range batch {
		branches[i] = &batch[i]
	}
	for at, window := 0, len(batch); at < len(batch); {
		list, owners := undo, make([]int, len(undo))
		end := min(at+window, len(batch))
		for i := at; i < end; i++ {
			if branches[i] == nil || len(branches[i].Effects) == 0 {
				continue
			}
			list = append(list, ask(savepoint))
			list, _ = appendEffects(list, branches[i].Effects) // which was done before
			list = append(list, ask(release))
			for len(owners) < len(list) {
				owners = append(owners, i)
			}
		}
		if len(list) > 0 {
			_, err = t.link.run(ctx, list)
		}
		var broken *brokenRequest
		switch {
		case err == nil:
			undo, at, window = nil, end, 2*window
			t.used = time.Now()
			continue
		case !errors.As(err, &broken) || isPostgres(err) || broken.at < len(undo):
			return nil, nil, nil, t.failure("running a change", err)
		}
		// What stood before it has won.
		undo, window = []request{ask(rollbackTo), ask(release)}, windowAfterLoss
		at = owners[broken.at]
		o := &outcomes[at]
		if pgCode(err) != pgDivision {
			*o, branches[at] = audit.Outcome{Err: fmt.Errorf("%w: %w", audit.ErrStatement, err)}, nil
			at++
			continue
		}
		o.Lost = true
		if branches[at] = branches[at].Else; branches[at] != nil {
			o.Else++
			continue
		}
		o.Else = 0 // the last one lost too
		at++
	}
	return branches, outcomes, undo, nil
}

// postgresUnrecorded is the advisory lock that narrowing Changes without the
// log share. It is taken by a statement of its own, so that the next sees what
// was committed while it waited.
const postgresUnrecorded = 0x6b61766163686e72 // "kavachnr"

// unrecorded is one attempt of appendUnrecorded.
func (t *pgTransaction) unrecorded(ctx context.Context, change audit.Write) (o audit.Outcome, err error) {
	if err := t.connect(ctx); err != nil {
		return o, err
	}
	batch := []audit.Write{change}
	err = t.prepareBranches(ctx, batch)
	var own *audit.BrokenError
	if errors.As(err, &own) {
		return o, fmt.Errorf("%w: %w", audit.ErrStatement, own.Err)
	}
	if err != nil {
		return o, err
	}
	defer t.rollback(ctx)
	// Not under the head's lock: whoever closes the database waits for this one.
	if _, err := t.link.run(ctx, []request{ask(begin), ask(`SELECT pg_advisory_xact_lock_shared($1)`, int64(postgresUnrecorded))}); err != nil {
		return o, t.failure("beginning", err)
	}
	if err := t.refuseClosed(ctx); err != nil {
		return o, err
	}
	branches, outcomes, list, err := t.changes(ctx, batch)
	if err != nil || outcomes[0].Err != nil || branches[0] == nil {
		return first(outcomes), err
	}
	for _, d := range branches[0].Drafts {
		list = append(list, must(1, `INSERT INTO audit_outbox (id, time, entry) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
			d.ID, t.now, string(d.Bytes())))
	}
	if _, err := t.commit(ctx, list); pgCode(err) == pgDivision {
		return o, audit.ErrDuplicate
	} else if err != nil {
		return o, t.failure("writing the outbox", err)
	}
	return outcomes[0], nil
}

func first(outcomes []audit.Outcome) (o audit.Outcome) {
	if len(outcomes) > 0 {
		o = outcomes[0]
	}
	return o
}

// refuseClosed looks whether the database is closed, however the log is
// otherwise.
func (t *pgTransaction) refuseClosed(ctx context.Context) error {
	closed := t.admitted
	look := ask(`SELECT closed FROM audit_head WHERE one = 1`)
	look.row = func(row [][]byte) error {
		closed = string(row[0])
		return nil
	}
	if _, err := t.link.run(ctx, []request{look}); err != nil {
		return t.failure("reading the head", err)
	}
	if closed != t.admitted {
		return closedError(closed)
	}
	return nil
}
