package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/kavach-dev/kavach/audit"
)

// append runs a batch in the order of audit.md §3, SQLite: BEGIN IMMEDIATE, the
// head, the Changes, the records, the head, COMMIT.
func (w *writer) append(_ context.Context, log string, batch []audit.Write, now int64) ([]audit.Outcome, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := &transaction{writer: w, log: log, now: now}
	outcomes, err := t.run(batch)
	if errors.Is(err, errSavepoint) {
		t.always = true
		outcomes, err = t.run(batch)
	}
	return outcomes, err
}

// errSavepoint: a Change of one statement, run without a savepoint, hit rows
// and yet lost. It never leaves append.
var errSavepoint = errors.New("a savepoint is needed")

// transaction is one batch on the writer.
type transaction struct {
	*writer
	log    string
	now    int64
	always bool // a savepoint around every Change
}

func (t *transaction) run(batch []audit.Write) (outcomes []audit.Outcome, err error) {
	if err := t.begin(); err != nil {
		return nil, err
	}
	open := true
	defer func() {
		if open {
			t.rollback()
		}
	}()
	head, err := t.head()
	if err != nil {
		return nil, err
	}
	outcomes = make([]audit.Outcome, len(batch))
	seq := audit.NewSequencer(t.log, head, t.now)
	for i := range batch {
		outcomes[i], err = t.change(&batch[i], seq.Next)
		if err != nil {
			if errors.Is(err, errSavepoint) || isDatabase(err) {
				return nil, err
			}
			return nil, &audit.BrokenError{Index: i, Err: err}
		}
	}
	for i := range outcomes {
		for _, r := range outcomes[i].Records {
			if err := t.insert(r); err != nil {
				return nil, err
			}
		}
	}
	if seq.Head() != head {
		if err := t.moveHead(head, seq.Head()); err != nil {
			return nil, err
		}
	}
	if _, err := t.exec("COMMIT"); err != nil {
		if c := code(err) & 0xff; c == sqliteBusy || c == sqliteFull {
			return nil, fmt.Errorf("committing: %w", err) // it says that it did not
		}
		t.rollback()
		t.disconnect()
		open = false
		return outcomes, fmt.Errorf("%w: %w", audit.ErrUnknown, err)
	}
	open = false
	return outcomes, nil
}

// change runs one Write. place gives its drafts their places if it wins. An
// error means that the transaction must not go on.
func (t *transaction) change(w *audit.Write, place func(*audit.Draft) audit.Record) (audit.Outcome, error) {
	var o audit.Outcome
	for level := 0; w != nil; level, w = level+1, w.Else {
		won, err := t.effects(w.Effects)
		if isConstraint(err) {
			// Undone, and nobody else harmed.
			return audit.Outcome{Err: fmt.Errorf("%w: %w", audit.ErrStatement, err)}, nil
		}
		if err != nil {
			return o, err
		}
		if won {
			for _, d := range w.Drafts {
				o.Records = append(o.Records, place(d))
			}
			o.Else = level
			return o, nil
		}
		o.Lost = true
	}
	return o, nil
}

// effects runs the statements of one Change. A Change that loses, or breaks a
// constraint, leaves nothing behind: two statements or more stand under a
// savepoint, a single one undoes itself.
func (t *transaction) effects(effects []audit.Effect) (won bool, err error) {
	safe := len(effects) > 1 || t.always && len(effects) > 0
	if safe {
		if _, err := t.exec("SAVEPOINT change"); err != nil {
			return false, err
		}
	}
	won = true
	for _, e := range effects {
		stmt, ok := e.(*statement)
		if !ok {
			return false, fmt.Errorf("%w: effect %T is not of this store", ErrStore, e)
		}
		// RowsAffected is fresh here: every statement is INSERT, UPDATE or
		// DELETE (after SAVEPOINT or SELECT it would be the one before).
		var hit int64
		if hit, err = t.exec(stmt.query, stmt.args...); err != nil {
			break
		}
		if stmt.rows >= 0 && hit != stmt.rows {
			if !safe && hit != 0 {
				return false, errSavepoint
			}
			won = false
			break
		}
	}
	if !safe {
		return won, err
	}
	if err != nil && !isConstraint(err) {
		return false, err // the batch is rolled back
	}
	if !won || err != nil {
		if _, err := t.exec("ROLLBACK TO change"); err != nil {
			return false, err
		}
	}
	if _, err := t.exec("RELEASE change"); err != nil {
		return false, err
	}
	return won, err
}

// head reads where the log ends.
func (t *transaction) head() (audit.Head, error) {
	stmt, err := t.prepared(`SELECT size, leaf, closed FROM audit_head WHERE one = 1`)
	if err != nil {
		return audit.Head{}, fmt.Errorf("reading the head: %w", err)
	}
	var h audit.Head
	var closed string
	if err := stmt.QueryRowContext(context.Background()).Scan(&h.Size, &h.Leaf, &closed); err != nil {
		return audit.Head{}, fmt.Errorf("%w: reading the head: %w", audit.ErrLogRefused, err)
	}
	if closed != t.admitted {
		return audit.Head{}, closedError(closed)
	}
	return h, nil
}

// moveHead writes where the log ends.
func (t *transaction) moveHead(from, to audit.Head) error {
	hit, err := t.exec(`UPDATE audit_head SET size = $1, leaf = $2 WHERE one = 1 AND size = $3 AND leaf = $4`,
		to.Size, to.Leaf, from.Size, from.Leaf)
	if err != nil {
		return refused("moving the head", err)
	}
	if hit != 1 {
		return fmt.Errorf("%w: the head is not there", audit.ErrLogRefused)
	}
	return nil
}

// insert writes a record and what it mentions.
func (t *transaction) insert(r audit.Record) error {
	_, err := t.exec(`INSERT INTO audit_records
		(seq, id, wrote, time, bytes, leaf, path, agent, sub, action, resource, result, grant_id)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
		r.Seq, r.ID, r.By, r.Time, string(r.Bytes), r.Leaf, r.Path, r.Agent, r.Sub,
		r.Action, r.Resource, r.Result, r.Grant)
	if code(err) == sqliteUnique {
		return audit.ErrDuplicate // (id, wrote) is the one UNIQUE index
	}
	if err != nil {
		return refused("inserting a record", err)
	}
	for _, m := range r.Mentions {
		if _, err := t.exec(`INSERT INTO audit_lids (lid, role, seq, exp) VALUES ($1, $2, $3, $4)`,
			m.ID, m.Role, r.Seq, m.Expires); err != nil {
			return refused("inserting an id of a record", err)
		}
	}
	return nil
}

// refused says that only the log refuses, unless the database as a whole does.
func refused(doing string, err error) error {
	if isDatabase(err) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%w: %s: %w", audit.ErrLogRefused, doing, err)
}

func (w *writer) appendUnrecorded(_ context.Context, change audit.Write, now int64) (o audit.Outcome, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := &transaction{writer: w, now: now, always: true}
	if err := t.begin(); err != nil {
		return o, err
	}
	open := true
	defer func() {
		if open {
			t.rollback()
		}
	}()
	if _, err := t.head(); errors.Is(err, ErrClosed) { // however the log is otherwise
		return o, err
	}
	var waiting []*audit.Draft
	if o, err = t.change(&change, func(d *audit.Draft) audit.Record {
		waiting = append(waiting, d)
		return audit.Record{Draft: d}
	}); err != nil {
		if !isDatabase(err) {
			err = fmt.Errorf("%w: %w", audit.ErrStatement, err)
		}
		return o, err
	}
	for _, d := range waiting {
		hit, err := t.exec(`INSERT INTO audit_outbox (id, time, entry) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
			d.ID, now, string(d.Bytes()))
		if err != nil {
			return o, fmt.Errorf("writing the outbox: %w", err)
		}
		if hit != 1 {
			return o, audit.ErrDuplicate
		}
	}
	if _, err := t.exec("COMMIT"); err != nil {
		return o, fmt.Errorf("committing: %w", err)
	}
	open = false
	return o, nil
}

// find holds the write lock while it looks.
func (w *writer) find(_ context.Context, keys []audit.Key) (map[audit.Key][]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.begin(); err != nil {
		return nil, err
	}
	defer w.rollback()
	stmt, err := w.prepared(`SELECT bytes FROM audit_records WHERE id = $1 AND wrote = $2`)
	if err != nil {
		return nil, fmt.Errorf("looking up an id: %w", err)
	}
	found := make(map[audit.Key][]byte)
	for _, k := range keys {
		rows, err := stmt.QueryContext(context.Background(), k.ID, k.By)
		if err != nil {
			return nil, fmt.Errorf("looking up an id: %w", err)
		}
		for rows.Next() {
			var bytes []byte
			if err := rows.Scan(&bytes); err != nil {
				return nil, errors.Join(err, rows.Close())
			}
			found[k] = bytes
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return nil, fmt.Errorf("looking up an id: %w", err)
		}
	}
	return found, nil
}

func (w *writer) room() error { return w.disk.room() }

func (w *writer) reclaim(err error) bool {
	// A file system that is full shows as FULL, under the -shm file as IOERR.
	if c := code(err) & 0xff; c != sqliteFull && c != sqliteIOErr {
		return false
	}
	return w.disk.reclaim()
}
