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

// RefreshToken reads a refresh token, used and expired ones too, with its
// grant, or authz.ErrNotFound.
func (s *Store) RefreshToken(ctx context.Context, hash string) (authz.RefreshToken, authz.Grant, error) {
	var t authz.RefreshToken
	var g authz.Grant
	var f grantFields
	var created, expires, used, end int64
	into := append([]any{&t.Hash, &t.GrantID, &t.ClientID, &t.JKT, &created, &expires, &used, &end}, f.into(&g)...)
	err := s.read.QueryRow(ctx, `SELECT t.hash, t.gid, t.client_id, t.jkt, t.created, t.expires, t.used, t.family_end,
		g.gid, g.kind, g.sub, g.client_id, g.redirect_uri, g.scope, g.resource,
		g.max_depth, g.hours, g.created, g.used, g.expires, g.revoked
		FROM refresh_tokens t JOIN grants g ON g.gid = t.gid WHERE t.hash = $1`, hash).Scan(into...)
	if errors.Is(err, sql.ErrNoRows) {
		return authz.RefreshToken{}, authz.Grant{}, authz.ErrNotFound
	}
	if err != nil {
		return authz.RefreshToken{}, authz.Grant{}, fmt.Errorf("reading refresh token: %w", err)
	}
	f.finish(&g)
	t.Created, t.Expires = fromMillis(created), fromMillis(expires)
	t.Used, t.FamilyEnd = fromMillis(used), fromMillis(end)
	return t, g, nil
}

// AddRefreshToken must hit one row; a taken hash loses.
func (s *Store) AddRefreshToken(t authz.RefreshToken) audit.Effect {
	return effect(1, `INSERT INTO refresh_tokens (hash, gid, client_id, created, expires, used, family_end, jkt)
		VALUES ($1, $2, $3, $4, $5, 0, $6, $7) ON CONFLICT DO NOTHING`,
		t.Hash, t.GrantID, t.ClientID, t.Created.UnixMilli(), t.Expires.UnixMilli(), t.FamilyEnd.UnixMilli(), t.JKT)
}

// UseRefreshToken burns a refresh token; one that is used or has expired loses.
func (s *Store) UseRefreshToken(hash string, now time.Time) audit.Effect {
	return effect(1, `UPDATE refresh_tokens SET used = $2
		WHERE hash = $1 AND used = 0 AND expires > $2`, hash, now.UnixMilli())
}
