package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/kavach-dev/kavach/audit"
)

// A batch on D1 is one request that happens as a whole or not at all, and that
// says nothing of itself but where it broke (audit.md §3, D1):
//
//	UPDATE audit_head SET size = …, leaf = … WHERE size = … AND leaf = … AND the fence is …
//	INSERT INTO change_guard (k, ok) VALUES ('head', changes() = 1)
//	  a statement of Change 0
//	  INSERT INTO change_guard (k, ok) VALUES ('0', changes() = …)
//	  …
//	INSERT INTO audit_records … SELECT … FROM json_each(…)
//	INSERT INTO change_guard (k, ok) VALUES ('log', changes() = …)
//	INSERT INTO audit_lids … SELECT … FROM json_each(…)
//
// change_guard keeps no such row: its trigger ignores ok = 1 and breaks the
// batch with "lost k" else. It assumes that every Change wins; who loses is
// named, and it goes again with that one's Else.
//
// The one row of change_guard that stays is the fence. An answer that was lost
// leaves a batch that may still be on its way. find moves the fence before it
// looks, so that such a batch can commit no more once it was not found.

// Bounds of a batch: a Worker may run 1,000 statements a request, and a request
// stays far below what the bridge takes (8 MiB).
const (
	d1MaxStatements = 900
	d1MaxBatch      = 4 << 20
	// d1Chunk is how much JSON goes into one json_each, escaped once more on
	// the way.
	d1Chunk = 900_000
	// d1Losers is after how many losers a batch goes one by one (design D4).
	d1Losers = 2
)

// d1Batch is one batch being made.
type d1Batch struct {
	writes   []audit.Write
	branch   []*audit.Write // what is assumed to win of each; nil: nothing is left
	outcomes []audit.Outcome
	losers   int

	// Made by lines:
	taken   int // how many of writes are in it
	effects []d1Statement
	log     []d1Statement
	head    audit.Head // after it
}

func newD1Batch(writes []audit.Write) *d1Batch {
	b := &d1Batch{writes: writes, branch: make([]*audit.Write, len(writes)), outcomes: make([]audit.Outcome, len(writes))}
	for i := range writes {
		b.branch[i] = &writes[i]
	}
	return b
}

// append sends a batch as if all won.
func (w *d1Writer) append(ctx context.Context, log string, writes []audit.Write, now int64) ([]audit.Outcome, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.alone > 0 {
		w.alone--
		writes = writes[:1]
	}
	b := newD1Batch(writes)
	for {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("appending: %w", err)
		}
		if err := w.findHead(ctx); err != nil {
			return nil, err
		}
		if err := b.lines(log, w.head, now); err != nil {
			return nil, err
		}
		if len(b.effects)+len(b.log) == 0 { // all of it was lost or is broken
			return b.outcomes[:b.taken], nil
		}
		err := w.client.run(ctx, d1WriteTime, w.whole(b))
		if err == nil {
			w.head = b.head
			return b.outcomes[:b.taken], nil
		}
		w.known = false
		done, err := w.broken(ctx, b, err)
		if done || err != nil {
			return b.outcomes[:b.taken], err
		}
		if b.losers >= d1Losers && len(b.writes) > 1 {
			// After two losers one Change a batch (design D4).
			w.alone = len(b.writes) - 1
			b = newD1Batch(b.writes[:1])
		}
	}
}

// broken understands why a batch broke: an error to return, or done, or it goes
// again.
func (w *d1Writer) broken(ctx context.Context, b *d1Batch, err error) (done bool, _ error) {
	if k, lost := d1Lost(err); lost {
		if i, numErr := strconv.Atoi(k); numErr == nil && i >= 0 && i < len(b.branch) {
			b.lose(i)
			return false, nil
		}
		if k == "head" { // another process was faster
			return false, w.sameHead(ctx)
		}
		return false, fmt.Errorf("%w: %w", audit.ErrLogRefused, err)
	}
	switch d1Failed(err).fate {
	case d1Unknown:
		w.doubt = true
		return false, fmt.Errorf("%w: %w", audit.ErrUnknown, err)
	case d1Away:
		return false, fmt.Errorf("appending: %w", err)
	}
	if d1Unique(err, "audit_records") {
		return false, audit.ErrDuplicate // seq cannot be there: the head was ours
	}
	// Who broke it is not said. The effects alone, which end in a guard that
	// breaks in any case, say whether it was one of them.
	probe := append(b.effects[:len(b.effects):len(b.effects)], d1Guard("probe", "0"))
	probed := w.client.run(ctx, d1WriteTime, probe)
	k, lost := d1Lost(probed)
	switch {
	case lost && k == "probe":
		return false, fmt.Errorf("%w: %w", audit.ErrLogRefused, err)
	case lost:
		return false, nil // another process came between
	case probed == nil || d1Failed(probed).fate != d1Refused:
		return false, fmt.Errorf("appending: %w", errors.Join(err, probed))
	case len(b.writes) > 1:
		w.alone = len(b.writes) - 1
		*b = *newD1Batch(b.writes[:1])
		return false, nil
	}
	b.outcomes[0] = audit.Outcome{Err: fmt.Errorf("%w: %w", audit.ErrStatement, probed)}
	b.taken = 1
	return true, nil
}

// lose puts the Else of a Change in its place.
func (b *d1Batch) lose(i int) {
	b.losers++
	o := &b.outcomes[i]
	o.Lost = true
	if b.branch[i] = b.branch[i].Else; b.branch[i] != nil {
		o.Else++
	} else {
		o.Else = 0 // the last one lost too
	}
}

// lines makes the statements of the batch, of as many Writes as fit.
func (b *d1Batch) lines(log string, head audit.Head, now int64) error {
	b.taken, b.effects, b.log = 0, nil, nil
	seq := audit.NewSequencer(log, head, now)
	var records, mentions d1Rowset
	size := 0
	for i := range b.writes {
		o, at := &b.outcomes[i], b.branch[i]
		o.Records = nil
		if at == nil || o.Err != nil {
			b.taken++
			continue
		}
		statements, bytes, err := d1Effects(at.Effects, strconv.Itoa(i))
		for _, d := range at.Drafts {
			bytes += 2 * d.Size()
		}
		if err == nil && (len(statements) > d1MaxStatements || bytes > d1MaxBatch) {
			err = fmt.Errorf("%w: a change of %d statements, %d bytes", errD1Limit, len(statements), bytes)
		}
		if err != nil {
			*o = audit.Outcome{Err: fmt.Errorf("%w: %w", audit.ErrStatement, err)}
			b.taken++
			continue
		}
		if len(b.effects)+len(statements) > d1MaxStatements || size+bytes > d1MaxBatch {
			break
		}
		size += bytes
		b.effects = append(b.effects, statements...)
		for _, d := range at.Drafts {
			r := seq.Next(d)
			o.Records = append(o.Records, r)
			if err := records.add(r.Seq, r.ID, r.By, r.Time, string(r.Bytes), r.Leaf, r.Path, r.Agent, r.Sub,
				r.Action, r.Resource, r.Result, r.Grant); err != nil {
				return err
			}
			for _, m := range r.Mentions {
				if err := mentions.add(m.ID, m.Role, r.Seq, m.Expires); err != nil {
					return err
				}
			}
		}
		b.taken++
	}
	b.head = seq.Head()
	b.log = records.statements(b.log, `INSERT INTO audit_records
		(seq, id, wrote, time, bytes, leaf, path, agent, sub, action, resource, result, grant_id)
		SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
			json_extract(value, '$[3]'), json_extract(value, '$[4]'), json_extract(value, '$[5]'),
			json_extract(value, '$[6]'), json_extract(value, '$[7]'), json_extract(value, '$[8]'),
			json_extract(value, '$[9]'), json_extract(value, '$[10]'), json_extract(value, '$[11]'),
			json_extract(value, '$[12]') FROM json_each(?1)`)
	b.log = mentions.statements(b.log, `INSERT INTO audit_lids (lid, role, seq, exp)
		SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]'), json_extract(value, '$[2]'),
			json_extract(value, '$[3]') FROM json_each(?1)`)
	return nil
}

// whole is the batch as it is sent: the head first.
func (w *d1Writer) whole(b *d1Batch) []d1Statement {
	statements := append(make([]d1Statement, 0, len(b.effects)+len(b.log)+2), d1Statement{
		SQL: `UPDATE audit_head SET size = ?1, leaf = ?2 WHERE one = 1 AND size = ?3 AND leaf = ?4 AND closed = ?5
			AND EXISTS (SELECT 1 FROM change_guard WHERE k = 'fence' AND ok = ?6)`,
		Params: []any{b.head.Size, b.head.Leaf, w.head.Size, w.head.Leaf, w.admitted, w.fence},
	}, d1Guard("head", "changes() = 1"))
	return append(append(statements, b.effects...), b.log...)
}

// d1Guard breaks the batch with "lost k" unless ok holds.
func d1Guard(k, ok string) d1Statement {
	return d1Statement{SQL: `INSERT INTO change_guard (k, ok) VALUES (?1, ` + ok + `)`, Params: []any{k}}
}

// d1Effects are the statements of a Change, each with its guard.
func d1Effects(effects []audit.Effect, k string) (statements []d1Statement, bytes int, err error) {
	for _, e := range effects {
		st, ok := e.(*statement)
		if !ok {
			return nil, 0, fmt.Errorf("%w: effect %T is not of this store", ErrStore, e)
		}
		s, err := d1Bind(st.query, st.args...)
		if err != nil {
			return nil, 0, err
		}
		bytes += len(s.SQL)
		for _, p := range s.Params {
			if text, ok := p.(string); ok {
				bytes += len(text)
			}
		}
		if statements = append(statements, s); st.rows >= 0 {
			statements = append(statements, d1Guard(k, "changes() = "+strconv.FormatInt(st.rows, 10)))
		}
	}
	return statements, bytes, nil
}

// d1Rowset is rows on their way into json_each, in pieces that fit one value.
type d1Rowset struct {
	pieces []json.RawMessage
	rows   []int
}

func (s *d1Rowset) add(values ...any) error {
	for i, v := range values {
		checked, err := d1Value(v)
		if err != nil {
			return fmt.Errorf("column %d of a row of the log: %w", i, err)
		}
		values[i] = checked
	}
	row, err := json.Marshal(values)
	if err != nil {
		return err
	}
	last := len(s.pieces) - 1
	if last < 0 || len(s.pieces[last])+len(row) > d1Chunk {
		s.pieces, s.rows = append(s.pieces, []byte{'['}), append(s.rows, 0)
		last++
	} else {
		s.pieces[last] = append(s.pieces[last], ',')
	}
	s.pieces[last] = append(s.pieces[last], row...)
	s.rows[last]++
	return nil
}

// statements adds the INSERTs, each with a guard that counts its rows.
func (s *d1Rowset) statements(to []d1Statement, insert string) []d1Statement {
	for i, piece := range s.pieces {
		to = append(to, d1Statement{SQL: insert, Params: []any{string(piece) + "]"}},
			d1Guard("log", "changes() = "+strconv.Itoa(s.rows[i])))
	}
	return to
}
