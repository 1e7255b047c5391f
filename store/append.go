package store

import (
	"context"
	"fmt"

	"github.com/kavach-dev/kavach/audit"
)

// LogID implements audit.Store.
func (s *Store) LogID() string { return s.log }

// Append implements audit.Store.
func (s *Store) Append(ctx context.Context, batch []audit.Write, now int64) ([]audit.Outcome, error) {
	return s.write.append(ctx, s.log, batch, now)
}

// AppendUnrecorded implements audit.Store.
func (s *Store) AppendUnrecorded(ctx context.Context, w audit.Write, now int64) (audit.Outcome, error) {
	return s.write.appendUnrecorded(ctx, w, now)
}

// Find implements audit.Store.
func (s *Store) Find(ctx context.Context, keys []audit.Key) (map[audit.Key][]byte, error) {
	return s.write.find(ctx, keys)
}

// Room implements audit.Store.
func (s *Store) Room() error { return s.write.room() }

// Reclaim implements audit.Store.
func (s *Store) Reclaim(err error) bool { return s.write.reclaim(err) }

// Waiting implements audit.Store.
func (s *Store) Waiting(ctx context.Context, limit int) (list []audit.Waiting, err error) {
	rows, err := s.read.Query(ctx, `SELECT id, time, entry FROM audit_outbox ORDER BY time, id LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("reading the outbox: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var w audit.Waiting
		if err := rows.Scan(&w.ID, &w.Time, &w.Entry); err != nil {
			return nil, fmt.Errorf("reading the outbox: %w", err)
		}
		list = append(list, w)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading the outbox: %w", err)
	}
	return list, nil
}

// Recorded implements audit.Store.
func (s *Store) Recorded(id string) audit.Effect {
	return effect(1, `DELETE FROM audit_outbox WHERE id = $1`, id)
}
