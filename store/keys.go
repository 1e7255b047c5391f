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
	rows, err := s.read.Query(ctx, `SELECT kid, slot, purpose, alg, sealed, created, signs, rests, ends, revoked
		FROM keys ORDER BY created, kid`)
	if err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	defer rows.Close()
	var keys []authz.SealedKey
	for rows.Next() {
		var k authz.SealedKey
		var created, signs, rests, ends, revoked int64
		if err := rows.Scan(&k.KID, &k.Slot, &k.Purpose, &k.Alg, &k.Sealed, &created, &signs, &rests, &ends, &revoked); err != nil {
			return nil, fmt.Errorf("reading keys: %w", err)
		}
		k.Created, k.Signs = time.UnixMilli(created), time.UnixMilli(signs)
		k.Rests, k.Ends, k.Revoked = fromMillis(rests), fromMillis(ends), fromMillis(revoked)
		keys = append(keys, k)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	return keys, nil
}

// InsertKey must hit one row; a taken slot loses.
func (s *Store) InsertKey(k authz.SealedKey) audit.Effect {
	return effect(1, `INSERT INTO keys (kid, slot, purpose, alg, sealed, created, signs, rests, ends, revoked)
		VALUES ($1, $2, $3, $4, $5, $6, $7, 0, 0, 0) ON CONFLICT DO NOTHING`,
		k.KID, k.Slot, k.Purpose, k.Alg, k.Sealed, k.Created.UnixMilli(), k.Signs.UnixMilli())
}

// RestKeys makes every key of a purpose and algorithm but one rest from a time
// on, unless it rests sooner, and end at another: any rows.
func (s *Store) RestKeys(purpose, alg, except string, at, ends time.Time) audit.Effect {
	return effect(-1, `UPDATE keys SET rests = $4, ends = $5
		WHERE purpose = $1 AND alg = $2 AND kid <> $3 AND revoked = 0 AND (rests = 0 OR rests > $4)`,
		purpose, alg, except, at.UnixMilli(), ends.UnixMilli())
}

// AdvanceKey makes a key that would sign later do so from a time on; it must
// hit one row, so one that signs, rests or is revoked loses.
func (s *Store) AdvanceKey(kid string, at time.Time) audit.Effect {
	return effect(1, `UPDATE keys SET signs = $2 WHERE kid = $1 AND signs > $2 AND rests = 0 AND revoked = 0`,
		kid, at.UnixMilli())
}

// EndKey revokes a key; it must hit one row: one that is revoked already loses.
func (s *Store) EndKey(kid string, now time.Time) audit.Effect {
	return effect(1, `UPDATE keys SET revoked = $2 WHERE kid = $1 AND revoked = 0`, kid, now.UnixMilli())
}

// ResealKey replaces the sealed form; it must hit one row: one that was sealed
// anew meanwhile loses.
func (s *Store) ResealKey(kid, before, after string) audit.Effect {
	return effect(1, `UPDATE keys SET sealed = $3 WHERE kid = $1 AND sealed = $2`, kid, before, after)
}

// RemoveKey deletes a key that ended, or was revoked, before a time; it must
// hit one row.
func (s *Store) RemoveKey(kid string, before time.Time) audit.Effect {
	return effect(1, `DELETE FROM keys
		WHERE kid = $1 AND ((ends > 0 AND ends < $2) OR (revoked > 0 AND revoked < $2))`, kid, before.UnixMilli())
}
