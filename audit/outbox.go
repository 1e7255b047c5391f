package audit

import (
	"context"
	"errors"
	"fmt"
)

// drain writes what waits in the outbox into the log. Two processes may do so
// at once: removing the row is the condition of the record.
func (l *Log) drain() {
	ctx, cancel := context.WithTimeout(context.Background(), l.cfg.Deadline)
	defer cancel()
	for ctx.Err() == nil {
		rows, err := l.cfg.Store.Waiting(ctx, maxBatch/4)
		if err != nil {
			return // whoever writes next says why
		}
		if len(rows) == 0 {
			l.outbox.Store(0)
			return
		}
		l.outbox.Store(int64(len(rows)))
		if err := l.record(ctx, rows); err != nil {
			l.failed(err)
			return
		}
	}
}

// record moves rows of the outbox into the log.
func (l *Log) record(ctx context.Context, rows []Waiting) error {
	batch := make([]Write, len(rows))
	keys := make([]Key, len(rows))
	for i, row := range rows {
		e, err := ParseEntry(row.Entry)
		if err != nil {
			return err
		}
		if e.Observed == 0 {
			e.Observed = row.Time // `time` will be when the log was back
		}
		d, err := NewDraft(l.cfg.Store.LogID(), e)
		if err != nil {
			return err
		}
		keys[i] = d.Key()
		batch[i] = Write{Effects: []Effect{l.cfg.Store.Recorded(row.ID)}, Drafts: []*Draft{d}, Narrows: true}
	}
	_, err := l.cfg.Store.Append(ctx, batch, l.cfg.Now().UnixMilli())
	if !errors.Is(err, ErrDuplicate) {
		// After an unknown outcome the rows are there or they are not; the
		// next look says which.
		return err
	}
	found, err := l.cfg.Store.Find(ctx, keys)
	if err != nil {
		return fmt.Errorf("looking up ids: %w", err)
	}
	for i, key := range keys {
		if _, there := found[key]; there {
			batch[i].Drafts = nil // recorded before: only the row goes
		}
	}
	_, err = l.cfg.Store.Append(ctx, batch, l.cfg.Now().UnixMilli())
	return err
}
