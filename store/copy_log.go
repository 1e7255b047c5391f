package store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/kavach-dev/kavach/audit"
)

const (
	// logRows is how many records are read at a time.
	logRows = 500
	// near is how many records phase one leaves to phase two, at the least.
	near = 1000
)

// resume finds where the target ends, and that it is a beginning of the
// source's log.
func (c *copier) resume(ctx context.Context) (err error) {
	if c.at, err = c.target.Head(ctx); err != nil {
		return err
	}
	c.read = audit.Head{Leaf: audit.FirstPrev(c.source.log)}
	if c.at.Size == 0 {
		return nil
	}
	rows, err := c.source.Records(ctx, audit.Scan{After: c.at.Size - 2, Ascending: true, Limit: 1})
	if err != nil {
		return err
	}
	if len(rows) == 0 || rows[0].Seq != c.at.Size-1 || rows[0].Leaf != c.at.Leaf {
		return fmt.Errorf("%w: its log is not the beginning of the source's", ErrNotEmpty)
	}
	return nil
}

// catchUp copies the log until little is left, or as little as can be while the
// source goes on.
func (c *copier) catchUp(ctx context.Context) error {
	for left := int64(-1); ; {
		head, err := c.source.Head(ctx)
		if err != nil {
			return err
		}
		todo := head.Size - c.at.Size
		if left >= 0 && (todo <= near || todo > left/2) {
			return nil
		}
		if err := c.logTo(ctx, head); err != nil {
			return err
		}
		if err := c.readBack(ctx); err != nil {
			return err
		}
		left = todo
	}
}

// logTo copies records until the log of the target ends there.
func (c *copier) logTo(ctx context.Context, head audit.Head) error {
	for c.at.Size < head.Size {
		if err := ctx.Err(); err != nil {
			return err
		}
		raws, err := c.source.Records(ctx, audit.Scan{After: c.at.Size - 1, Ascending: true, Limit: logRows})
		if err != nil {
			return fmt.Errorf("%w: reading the log: %w", ErrStore, err)
		}
		if len(raws) == 0 {
			return fmt.Errorf("%w: the log of the source ends at record %d, its head is at %d", ErrStore, c.at.Size, head.Size)
		}
		if err := c.records(ctx, raws[:min(int64(len(raws)), head.Size-c.at.Size)]); err != nil {
			return err
		}
		c.tell("copying the log", c.at.Size, head.Size)
	}
	if c.at != head {
		return fmt.Errorf("%w: the head of the source does not name the hash of its last record", audit.ErrBroken)
	}
	c.report.Head = c.at
	return nil
}

// logTables are the log's own, as far as rows of them are made here.
var (
	recordsTable  = table{name: "audit_records", text: "id, wrote, bytes, leaf, path, agent, sub, action, resource, result, grant_id", ints: "seq, time"}
	mentionsTable = table{name: "audit_lids", text: "lid, role", ints: "seq, exp"}
)

// records checks records, each behind the one before, and writes them as they
// are. What they are found by is made from their bytes: nothing that the chain
// does not prove comes over.
func (c *copier) records(ctx context.Context, raws []audit.Raw) error {
	var records, mentions batch
	at := c.at
	for i, raw := range raws {
		r, next, err := audit.Follow(c.source.log, at, raw)
		if err != nil {
			return err
		}
		at = next
		col := r.Columns()
		_, err = records.add([]any{col.ID, col.By, string(raw.Bytes), raw.Leaf, col.Path, col.Agent, col.Sub,
			col.Action, col.Resource, col.Result, col.Grant, raw.Seq, r.Time})
		if err != nil {
			return err
		}
		for _, m := range col.Mentions {
			if _, err := mentions.add([]any{m.ID, m.Role, raw.Seq, m.Expires}); err != nil {
				return err
			}
		}
		if i < len(raws)-1 && records.text.Len()+mentions.text.Len() < batchBytes {
			continue
		}
		effects := []audit.Effect{
			recordsTable.insert(c.target, &records),
			effect(1, `UPDATE audit_head SET size = $1, leaf = $2 WHERE one = 1 AND size = $3 AND leaf = $4`,
				at.Size, at.Leaf, c.at.Size, c.at.Leaf),
		}
		if mentions.n > 0 {
			effects = append(effects, mentionsTable.insert(c.target, &mentions))
		}
		if err := c.target.commit(ctx, nil, effects...); err != nil {
			return fmt.Errorf("writing records %d to %d: %w", c.at.Size, at.Size-1, err)
		}
		c.report.Copied += records.n
		c.at = at
		records.reset()
		mentions.reset()
	}
	return nil
}

// readBack reads what the target has of the log, from where it was read back
// before, and checks it again.
func (c *copier) readBack(ctx context.Context) error {
	for c.read.Size < c.at.Size {
		raws, err := c.target.Records(ctx, audit.Scan{After: c.read.Size - 1, Ascending: true, Limit: logRows})
		if err != nil {
			return fmt.Errorf("%w: reading the log back: %w", ErrStore, err)
		}
		if len(raws) == 0 {
			return fmt.Errorf("%w: the target has lost record %d", audit.ErrBroken, c.read.Size)
		}
		for _, raw := range raws {
			if _, c.read, err = audit.Follow(c.source.log, c.read, raw); err != nil {
				return fmt.Errorf("the target: %w", err)
			}
		}
		c.tell("reading the log back", c.read.Size, c.at.Size)
	}
	if c.read != c.at {
		return fmt.Errorf("the target: %w: another log was read back", audit.ErrBroken)
	}
	return nil
}

// rest copies everything but the part of the log that is there. It closes the
// view.
func (c *copier) rest(ctx context.Context, v view) error {
	head, err := v.head(ctx)
	if err == nil {
		err = c.tables(ctx, v)
	}
	if err := errors.Join(err, v.close()); err != nil {
		return err
	}
	if err := c.logTo(ctx, head); err != nil {
		return err
	}
	return c.readBack(ctx)
}

// tables copies every table but the log's and compares.
func (c *copier) tables(ctx context.Context, v view) error {
	for i := range tables {
		t := &tables[i]
		c.tell("copying tables", int64(i), int64(len(tables)))
		// What an earlier run left here may have changed at the source.
		if err := c.target.commit(ctx, nil, effect(-1, `DELETE FROM `+t.name+t.where(""))); err != nil {
			return fmt.Errorf("emptying %s: %w", t.name, err)
		}
		there, err := c.rows(ctx, v, t)
		if err != nil {
			return err
		}
		var here sum
		var row batch
		err = each(ctx, still{c.target}, t, func(values []any) error {
			row.reset()
			text, err := row.add(values)
			here.add(text)
			return err
		})
		if err != nil {
			return err
		}
		if here != there {
			return fmt.Errorf("%w: %s: %d rows were read back, %d copied, and they are not the same", ErrStore, t.name, here.rows, there.rows)
		}
		c.report.Rows[t.name] = here.rows
	}
	c.tell("copying tables", int64(len(tables)), int64(len(tables)))
	return nil
}

// rows copies the rows of a table.
func (c *copier) rows(ctx context.Context, v view, t *table) (there sum, err error) {
	var b batch
	flush := func() error {
		if b.n == 0 {
			return nil
		}
		err := c.target.commit(ctx, nil, t.insert(c.target, &b))
		b.reset()
		return err
	}
	err = each(ctx, v, t, func(values []any) error {
		text, err := b.add(values)
		if err != nil {
			return err
		}
		there.add(text)
		if b.full() {
			return flush()
		}
		return nil
	})
	if err != nil {
		return there, err
	}
	if err := flush(); err != nil {
		return there, fmt.Errorf("copying %s: %w", t.name, err)
	}
	return there, nil
}

// kindOf is the kind of database of a data source, for people.
func kindOf(dsn string) string {
	kind, _, _ := strings.Cut(dsn, ":")
	if kind == "postgresql" {
		return "postgres"
	}
	return kind
}
