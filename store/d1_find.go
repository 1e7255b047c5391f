package store

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/kavach-dev/kavach/audit"
)

// findHead reads head and fence unless they are known. The caller holds w.mu.
func (w *d1Writer) findHead(ctx context.Context) error {
	if w.known {
		return nil
	}
	head, fence, err := w.readHead(ctx)
	if err != nil {
		return err
	}
	w.head, w.fence, w.known = head, fence, true
	return nil
}

func (w *d1Writer) readHead(ctx context.Context) (head audit.Head, fence int64, err error) {
	result, err := w.client.query(ctx, d1Statement{SQL: `SELECT h.size, h.leaf, h.closed, g.ok
		FROM audit_head AS h, change_guard AS g WHERE h.one = 1 AND g.k = 'fence'`, Params: []any{}})
	if e := d1Failed(err); e != nil && e.fate == d1Refused {
		return head, 0, fmt.Errorf("%w: reading the head: %w", audit.ErrLogRefused, err)
	}
	if err != nil {
		return head, 0, fmt.Errorf("reading the head: %w", err)
	}
	var closed string
	row := d1Rows{columns: result.Results.Columns, rows: result.Results.Rows}
	if err := row.scan(&head.Size, &head.Leaf, &closed, &fence); err != nil {
		return head, 0, fmt.Errorf("%w: the head is not there: %w", audit.ErrLogRefused, err)
	}
	if closed != w.admitted {
		return head, 0, closedError(closed)
	}
	return head, fence, nil
}

// sameHead is an error if the head is where this process took it to be, and
// yet does not move.
func (w *d1Writer) sameHead(ctx context.Context) error {
	head, fence := w.head, w.fence
	if err := w.findHead(ctx); err != nil {
		return err
	}
	if w.head == head && w.fence == fence {
		return fmt.Errorf("%w: the head does not move", audit.ErrLogRefused)
	}
	return nil
}

// find moves the fence before it looks, if a batch was sent and not answered:
// what is not there then will never be.
func (w *d1Writer) find(ctx context.Context, keys []audit.Key) (map[audit.Key][]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.doubt {
		w.known = false
		err := w.client.run(ctx, d1WriteTime, []d1Statement{{SQL: `UPDATE change_guard SET ok = ok + 1 WHERE k = 'fence'`, Params: []any{}},
			d1Guard("fence", "changes() = 1")})
		if err != nil {
			return nil, fmt.Errorf("moving the fence: %w", err)
		}
		w.doubt = false
	}
	found := make(map[audit.Key][]byte)
	for len(keys) > 0 {
		some := keys[:min(len(keys), d1Keys)]
		keys = keys[len(some):]
		if err := w.look(ctx, some, found); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// d1Keys is how many ids are looked up by one request.
const d1Keys = 500

func (w *d1Writer) look(ctx context.Context, keys []audit.Key, found map[audit.Key][]byte) error {
	pairs := make([][2]string, len(keys))
	for i, k := range keys {
		pairs[i] = [2]string{k.ID, k.By}
	}
	text, err := json.Marshal(pairs)
	if err != nil {
		return err
	}
	result, err := w.client.query(ctx, d1Statement{SQL: `SELECT r.id, r.wrote, r.bytes FROM json_each(?1) AS k
		JOIN audit_records AS r ON r.id = json_extract(k.value, '$[0]') AND r.wrote = json_extract(k.value, '$[1]')`,
		Params: []any{string(text)}})
	if err != nil {
		return fmt.Errorf("looking up an id: %w", err)
	}
	rows := d1Rows{columns: result.Results.Columns, rows: result.Results.Rows}
	for len(rows.rows) > 0 {
		var k audit.Key
		var bytes string
		if err := rows.scan(&k.ID, &k.By, &bytes); err != nil {
			return fmt.Errorf("looking up an id: %w", err)
		}
		found[k] = []byte(bytes)
	}
	return nil
}

// appendUnrecorded is append without the log's tables, but that it looks
// whether the database is closed.
func (w *d1Writer) appendUnrecorded(ctx context.Context, change audit.Write, now int64) (o audit.Outcome, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for level, at := 0, &change; at != nil; level, at = level+1, at.Else {
		effects, _, err := d1Effects(at.Effects, "0")
		if err != nil {
			return audit.Outcome{Err: fmt.Errorf("%w: %w", audit.ErrStatement, err)}, nil
		}
		lines := append([]d1Statement{{SQL: `INSERT INTO change_guard (k, ok)
			SELECT 'closed', closed = ?1 FROM audit_head WHERE one = 1`, Params: []any{w.admitted}}}, effects...)
		for _, d := range at.Drafts {
			s, err := d1Bind(`INSERT INTO audit_outbox (id, time, entry) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
				d.ID, now, string(d.Bytes()))
			if err != nil {
				return o, err
			}
			lines = append(lines, s, d1Guard("outbox", "changes() = 1"))
		}
		err = w.client.run(ctx, d1WriteTime, lines)
		k, lost := d1Lost(err)
		switch {
		case err == nil:
			o.Else = level
			return o, nil
		case lost && k == "0":
			o.Lost = true
		case lost && k == "outbox":
			return o, audit.ErrDuplicate
		case lost:
			if _, _, closed := w.readHead(ctx); closed != nil {
				return o, closed
			}
			return o, fmt.Errorf("writing the outbox: %w", err)
		case d1Failed(err).fate == d1Refused:
			return audit.Outcome{Err: fmt.Errorf("%w: %w", audit.ErrStatement, err)}, nil
		default:
			return o, fmt.Errorf("writing the outbox: %w", err)
		}
	}
	return o, nil
}
