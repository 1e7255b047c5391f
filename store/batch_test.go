package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/audit/audittest"
)

// An adapter that can send one batch of statements and learns nothing before
// the end but that all of it happened or where it broke: no read, no count, no
// savepoint between the statements of a Change. It is what D1 allows (design
// D4), so whatever passes here asks nothing of a database that D1 lacks.
func TestContractWithoutReads(t *testing.T) {
	audittest.RunStore(t, func(t *testing.T) audittest.Fixture {
		s, path := openTest(t)
		outside(t, path,
			`CREATE TABLE change_guard (k TEXT NOT NULL, ok BIGINT NOT NULL)`,
			`CREATE TRIGGER change_guard_lost BEFORE INSERT ON change_guard WHEN NEW.ok = 0
				BEGIN SELECT RAISE(ABORT, 'lost ' || NEW.k); END`)
		f := fixture(t, s, path)
		f.Store = &batchStore{Store: s}
		return f
	})
}

// batchStore is Store with its own way of writing.
type batchStore struct {
	*Store
	mu sync.Mutex
}

// line is one statement of a batch.
type line struct {
	query string
	args  []any
	write int // which Write it belongs to, −1: the log's own
}

// brokenLine says where a batch broke.
type brokenLine struct {
	line
	err error
}

func (e *brokenLine) Error() string { return e.err.Error() }
func (e *brokenLine) Unwrap() error { return e.err }

// send runs a batch: all of it or nothing.
func (b *batchStore) send(lines []line) error {
	b.writer().mu.Lock()
	defer b.writer().mu.Unlock()
	return b.writer().transact(func() error {
		for _, l := range lines {
			if verb, _, _ := strings.Cut(l.query, " "); verb != "INSERT" && verb != "UPDATE" && verb != "DELETE" {
				return fmt.Errorf("%s between the statements of a batch", verb)
			}
			if _, err := b.writer().exec(l.query, l.args...); err != nil {
				return &brokenLine{line: l, err: err}
			}
		}
		return nil
	})
}

// guarded adds a statement and the row that breaks the batch unless it hit n.
func guarded(lines []line, l line, k string, n int64) []line {
	lines = append(lines, l)
	if n < 0 {
		return lines
	}
	return append(lines, line{`INSERT INTO change_guard (k, ok) VALUES ($1, changes() = $2)`, []any{k, n}, l.write})
}

func effectLines(lines []line, effects []audit.Effect, write int) []line {
	for _, e := range effects {
		st := e.(*statement)
		lines = guarded(lines, line{st.query, st.args, write}, strconv.Itoa(write), st.rows)
	}
	return lines
}

// loser returns which Write lost its condition.
func loser(err error) (int, bool) {
	var broken *brokenLine
	if !errors.As(err, &broken) || !strings.Contains(broken.query, "change_guard") {
		return 0, false
	}
	return broken.write, true
}

// Append sends the batch as if all won; the guard names the first loser, and
// the batch goes again with that one's Else.
func (b *batchStore) Append(ctx context.Context, batch []audit.Write, now int64) ([]audit.Outcome, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	branch := make([]*audit.Write, len(batch))
	outcomes := make([]audit.Outcome, len(batch))
	for i := range batch {
		branch[i] = &batch[i]
	}
	for {
		head, err := b.Head(ctx)
		if err != nil {
			return nil, err
		}
		lines := guarded(nil, line{`UPDATE audit_head SET size = size WHERE one = 1 AND size = $1 AND leaf = $2`,
			[]any{head.Size, head.Leaf}, -1}, "head", 1)
		seq := audit.NewSequencer(b.LogID(), head, now)
		var records []line
		for i, w := range branch {
			outcomes[i].Records = nil
			if w == nil || outcomes[i].Err != nil {
				continue
			}
			lines = effectLines(lines, w.Effects, i)
			for _, d := range w.Drafts {
				r := seq.Next(d)
				outcomes[i].Records = append(outcomes[i].Records, r)
				records = append(records, line{`INSERT INTO audit_records
					(seq, id, wrote, time, bytes, leaf, path, agent, sub, action, resource, result, grant_id)
					VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
					[]any{r.Seq, r.ID, r.By, r.Time, string(r.Bytes), r.Leaf, r.Path, r.Agent, r.Sub,
						r.Action, r.Resource, r.Result, r.Grant}, -1})
				for _, m := range r.Mentions {
					records = append(records, line{`INSERT INTO audit_lids (lid, role, seq, exp) VALUES ($1, $2, $3, $4)`,
						[]any{m.ID, m.Role, r.Seq, m.Expires}, -1})
				}
			}
		}
		lines = append(lines, records...)
		lines = append(lines, line{`UPDATE audit_head SET size = $1, leaf = $2 WHERE one = 1`,
			[]any{seq.Head().Size, seq.Head().Leaf}, -1}, line{`DELETE FROM change_guard`, nil, -1})

		err = b.send(lines)
		var broken *brokenLine
		switch i, lost := loser(err); {
		case err == nil:
			return outcomes, nil
		case lost && i < 0: // another process was faster
			continue
		case lost:
			outcomes[i].Lost = true
			if branch[i] = branch[i].Else; branch[i] != nil {
				outcomes[i].Else++
			} else {
				outcomes[i].Else = 0 // the last one lost too
			}
			continue
		case errors.As(err, &broken) && broken.write >= 0 && isConstraint(err):
			outcomes[broken.write] = audit.Outcome{Err: fmt.Errorf("%w: %w", audit.ErrStatement, err)}
			continue
		case errors.As(err, &broken) && broken.write >= 0:
			return nil, &audit.BrokenError{Index: broken.write, Err: err}
		case code(err) == sqliteUnique:
			return nil, audit.ErrDuplicate
		}
		return nil, refused("appending", err)
	}
}

// AppendUnrecorded does the same without the log's tables.
func (b *batchStore) AppendUnrecorded(_ context.Context, w audit.Write, now int64) (audit.Outcome, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var o audit.Outcome
	for level, at := 0, &w; at != nil; level, at = level+1, at.Else {
		lines := effectLines(nil, at.Effects, 0)
		for _, d := range at.Drafts {
			lines = append(lines, line{`INSERT INTO audit_outbox (id, time, entry) VALUES ($1, $2, $3)`,
				[]any{d.ID, now, string(d.Bytes())}, -1})
		}
		err := b.send(append(lines, line{`DELETE FROM change_guard`, nil, -1}))
		switch _, lost := loser(err); {
		case err == nil:
			o.Else = level
			return o, nil
		case lost:
			o.Lost = true
		case isConstraint(err):
			return audit.Outcome{Err: fmt.Errorf("%w: %w", audit.ErrStatement, err)}, nil
		default:
			return o, err
		}
	}
	return o, nil
}
