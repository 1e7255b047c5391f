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

// Pending reads a pending request, decided and expired ones too, or
// authz.ErrNotFound.
func (s *Store) Pending(ctx context.Context, id string) (authz.Pending, error) {
	var p authz.Pending
	var scope, resource string
	var redirectSent, stateSent, created, expires, decided int64
	err := s.read.QueryRow(ctx, `SELECT id, browser, client_id, redirect_uri, redirect_sent, state, state_sent,
		challenge, scope, resource, prompt, login_hint, created, expires, decided, jkt
		FROM pending WHERE id = $1`, id).
		Scan(&p.ID, &p.Browser, &p.ClientID, &p.RedirectURI, &redirectSent, &p.State, &stateSent,
			&p.Challenge, &scope, &resource, &p.Prompt, &p.LoginHint, &created, &expires, &decided, &p.JKT)
	if errors.Is(err, sql.ErrNoRows) {
		return authz.Pending{}, authz.ErrNotFound
	}
	if err != nil {
		return authz.Pending{}, fmt.Errorf("reading pending request: %w", err)
	}
	p.RedirectSent, p.StateSent = redirectSent != 0, stateSent != 0
	p.Scopes, p.Resources = strings.Fields(scope), strings.Fields(resource)
	p.Created, p.Expires, p.Decided = fromMillis(created), fromMillis(expires), fromMillis(decided)
	return p, nil
}

// AddPending must hit one row; a taken id loses.
func (s *Store) AddPending(p authz.Pending) audit.Effect {
	return effect(1, `INSERT INTO pending (id, browser, client_id, redirect_uri, redirect_sent, state, state_sent,
		challenge, scope, resource, prompt, login_hint, created, expires, decided, jkt)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 0, $15) ON CONFLICT DO NOTHING`,
		p.ID, p.Browser, p.ClientID, p.RedirectURI, oneIf(p.RedirectSent), p.State, oneIf(p.StateSent),
		p.Challenge, strings.Join(p.Scopes, " "), strings.Join(p.Resources, " "), p.Prompt, p.LoginHint,
		p.Created.UnixMilli(), p.Expires.UnixMilli(), p.JKT)
}

// DecidePending closes an open request; a decided or expired one loses.
func (s *Store) DecidePending(id string, now time.Time) audit.Effect {
	return effect(1, `UPDATE pending SET decided = $2
		WHERE id = $1 AND decided = 0 AND expires > $2`, id, now.UnixMilli())
}
