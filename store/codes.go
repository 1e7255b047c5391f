package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
)

// Code reads a code, used and expired ones too, or authz.ErrNotFound.
func (s *Store) Code(ctx context.Context, hash string) (authz.Code, error) {
	var c authz.Code
	var scope, resource string
	var sent, created, expires, used int64
	err := s.read.QueryRow(ctx, `SELECT hash, gid, client_id, redirect_uri, redirect_sent, challenge, sub, scope,
		resource, max_depth, created, expires, used, jkt
		FROM codes WHERE hash = $1`, hash).
		Scan(&c.Hash, &c.GrantID, &c.ClientID, &c.RedirectURI, &sent, &c.Challenge, &c.Sub, &scope,
			&resource, &c.MaxDepth, &created, &expires, &used, &c.JKT)
	if errors.Is(err, sql.ErrNoRows) {
		return authz.Code{}, authz.ErrNotFound
	}
	if err != nil {
		return authz.Code{}, fmt.Errorf("reading code: %w", err)
	}
	c.RedirectSent = sent != 0
	c.Scopes, c.Resources = strings.Fields(scope), strings.Fields(resource)
	c.Created, c.Expires, c.Used = fromMillis(created), fromMillis(expires), fromMillis(used)
	return c, nil
}

// AddCode must hit one row; a taken hash loses. A code nobody uses may go when
// it has expired.
func (s *Store) AddCode(c authz.Code) audit.Effect {
	return effect(1, `INSERT INTO codes (hash, gid, client_id, redirect_uri, redirect_sent, challenge, sub, scope,
		resource, max_depth, created, expires, used, keep, jkt)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 0, $12, $13) ON CONFLICT DO NOTHING`,
		c.Hash, c.GrantID, c.ClientID, c.RedirectURI, oneIf(c.RedirectSent), c.Challenge, c.Sub,
		strings.Join(c.Scopes, " "), strings.Join(c.Resources, " "), c.MaxDepth,
		c.Created.UnixMilli(), c.Expires.UnixMilli(), c.JKT)
}

// UseCode burns a code; one that is used or has expired loses.
func (s *Store) UseCode(hash string, now, keep time.Time) audit.Effect {
	return effect(1, `UPDATE codes SET used = $2, keep = $3
		WHERE hash = $1 AND used = 0 AND expires > $2`, hash, now.UnixMilli(), keep.UnixMilli())
}

// ExpiredFlows are what could decide nothing any more at the time. A used code
// or refresh token stays as long as its family: that it comes again is how a
// theft is seen.
func (s *Store) ExpiredFlows(ended time.Time) []audit.Expired {
	at := ended.UnixMilli()
	return []audit.Expired{
		s.expired("pending", "id", `expires <= $1`, at),
		s.expired("codes", "hash", `keep <= $1`, at),
		s.expired("handles", "hash", `expires <= $1`, at),
		s.expired("refresh_tokens", "hash", `family_end <= $1`, at),
		s.expired("grants", "gid", `kind = 'authorization' AND expires > 0 AND expires <= $1`, at),
	}
}
