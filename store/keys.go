package store

import (
	"context"
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
)

var _ authz.RegistryStore = (*Store)(nil)

// Keys returns every key row, oldest first.
func (s *Store) Keys(ctx context.Context) ([]authz.SealedKey, error) {
	rows, err := s.read.Query(ctx, `SELECT kid, slot, purpose, alg, sealed, created
		FROM keys ORDER BY created, kid`)
	if err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	defer rows.Close()
	var keys []authz.SealedKey
	for rows.Next() {
		var k authz.SealedKey
		var created int64
		if err := rows.Scan(&k.KID, &k.Slot, &k.Purpose, &k.Alg, &k.Sealed, &created); err != nil {
			return nil, fmt.Errorf("reading keys: %w", err)
		}
		k.Created = time.UnixMilli(created)
		keys = append(keys, k)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	return keys, nil
}

// InsertKey must hit one row; a taken slot loses.
func (s *Store) InsertKey(k authz.SealedKey) audit.Effect {
	return effect(1, `INSERT INTO keys (kid, slot, purpose, alg, sealed, created)
		VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
		k.KID, k.Slot, k.Purpose, k.Alg, k.Sealed, k.Created.UnixMilli())
}
