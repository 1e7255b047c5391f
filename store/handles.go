package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
)

// Handle reads a handle, used and expired ones too, or authz.ErrNotFound.
func (s *Store) Handle(ctx context.Context, hash string) (authz.Handle, error) {
	var h authz.Handle
	var created, expires, used int64
	err := s.read.QueryRow(ctx, `SELECT hash, sealed, created, expires, used FROM handles WHERE hash = $1`, hash).
		Scan(&h.Hash, &h.Sealed, &created, &expires, &used)
	if errors.Is(err, sql.ErrNoRows) {
		return authz.Handle{}, authz.ErrNotFound
	}
	if err != nil {
		return authz.Handle{}, fmt.Errorf("reading handle: %w", err)
	}
	h.Created, h.Expires, h.Used = fromMillis(created), fromMillis(expires), fromMillis(used)
	return h, nil
}

// AddHandle must hit one row; a taken hash loses.
func (s *Store) AddHandle(h authz.Handle) audit.Effect {
	return effect(1, `INSERT INTO handles (hash, sealed, created, expires, used)
		VALUES ($1, $2, $3, $4, 0) ON CONFLICT DO NOTHING`,
		h.Hash, h.Sealed, h.Created.UnixMilli(), h.Expires.UnixMilli())
}

// UseHandle burns a handle and forgets what it stands for; one that is used, has
// expired or was revoked loses.
func (s *Store) UseHandle(hash string, now time.Time) audit.Effect {
	return effect(1, `UPDATE handles SET used = $2, sealed = ''
		WHERE hash = $1 AND used = 0 AND expires > $2
		AND NOT EXISTS (SELECT 1 FROM revocations WHERE kind = 'lid' AND value = $1)`, hash, now.UnixMilli())
}
