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

var _ authz.FlowStore = (*Store)(nil)

// Grant reads one authorization or standing grant, or authz.ErrNotFound.
func (s *Store) Grant(ctx context.Context, id string) (authz.Grant, error) {
	return scanGrant(s.read.QueryRow(ctx, `SELECT gid, kind, sub, client_id, redirect_uri, scope, resource,
		max_depth, hours, created, used, expires, revoked
		FROM grants WHERE gid = $1`, id))
}

// StandingGrant reads the standing grant of an agent, or authz.ErrNotFound.
func (s *Store) StandingGrant(ctx context.Context, agentID string) (authz.Grant, error) {
	return scanGrant(s.read.QueryRow(ctx, `SELECT gid, kind, sub, client_id, redirect_uri, scope, resource,
		max_depth, hours, created, used, expires, revoked
		FROM grants WHERE client_id = $1 AND kind = 'standing'`, agentID))
}

// AgentStanding reads the standing grant of an agent, also a removed one, and
// what the agent stands on, or authz.ErrNotFound if there is no such agent or
// no grant.
func (s *Store) AgentStanding(ctx context.Context, agentID, jkt string, now time.Time) (authz.Grant, authz.Standing, error) {
	var g authz.Grant
	var f grantFields
	var standing authz.Standing
	var dead, disabled int64
	into := append([]any{&dead, &standing.Holder.ID, &standing.Holder.Role, &disabled}, f.into(&g)...)
	err := s.read.QueryRow(ctx, `SELECT CASE WHEN a.status = 'active' AND NOT EXISTS (SELECT 1 FROM revocations
			WHERE (until = 0 OR until > $2) AND (
				kind = 'gid' AND value = g.gid OR
				kind = 'key' AND value = $3 OR
				kind = 'client' AND value = a.id)) AND NOT EXISTS (SELECT 1 FROM agent_keys k JOIN agents b ON b.id = k.agent
			WHERE b.status <> 'active' AND k.jkt = $3) THEN 0 ELSE 1 END,
		u.id, u.role, u.disabled,
		g.gid, g.kind, g.sub, g.client_id, g.redirect_uri, g.scope, g.resource,
		g.max_depth, g.hours, g.created, g.used, g.expires, g.revoked
		FROM agents a JOIN users u ON u.id = a.owner JOIN grants g ON g.client_id = a.id AND g.kind = 'standing'
		WHERE a.id = $1`, agentID, now.UnixMilli(), jkt).Scan(into...)
	if errors.Is(err, sql.ErrNoRows) {
		return authz.Grant{}, authz.Standing{}, authz.ErrNotFound
	}
	if err != nil {
		return authz.Grant{}, authz.Standing{}, fmt.Errorf("reading what an agent stands on: %w", err)
	}
	f.finish(&g)
	standing.Agent, standing.Holder.Active = true, disabled == 0
	standing.Dead = dead != 0 || disabled != 0
	return g, standing, nil
}

func scanGrant(row *sql.Row) (authz.Grant, error) {
	var g authz.Grant
	var f grantFields
	err := row.Scan(f.into(&g)...)
	if errors.Is(err, sql.ErrNoRows) {
		return authz.Grant{}, authz.ErrNotFound
	}
	if err != nil {
		return authz.Grant{}, fmt.Errorf("reading grant: %w", err)
	}
	f.finish(&g)
	return g, nil
}

// grantFields holds the columns that are not read as they are.
type grantFields struct {
	scope, resource                 string
	created, used, expires, revoked int64
}

// into lists where the columns of a grant go, in the order every SELECT of
// this file and of refresh.go names them.
func (f *grantFields) into(g *authz.Grant) []any {
	return []any{&g.ID, &g.Kind, &g.Sub, &g.ClientID, &g.RedirectURI, &f.scope, &f.resource,
		&g.MaxDepth, &g.Hours, &f.created, &f.used, &f.expires, &f.revoked}
}

func (f *grantFields) finish(g *authz.Grant) {
	g.Scopes, g.Resources = strings.Fields(f.scope), strings.Fields(f.resource)
	g.Created, g.Used = fromMillis(f.created), fromMillis(f.used)
	g.Expires, g.Revoked = fromMillis(f.expires), fromMillis(f.revoked)
}

// AddGrant must hit one row; a taken id loses.
func (s *Store) AddGrant(g authz.Grant) audit.Effect {
	return effect(1, `INSERT INTO grants (gid, kind, sub, client_id, redirect_uri, scope, resource,
		max_depth, hours, created, used, expires, revoked)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 0) ON CONFLICT DO NOTHING`,
		g.ID, string(g.Kind), g.Sub, g.ClientID, g.RedirectURI, strings.Join(g.Scopes, " "), strings.Join(g.Resources, " "),
		g.MaxDepth, g.Hours, toMillis(g.Created), toMillis(g.Used), toMillis(g.Expires))
}

// PutStandingGrant sets the standing grant of an agent. A grant that was there
// keeps its gid, so that what was issued from it stays below it; one that was
// removed does not, so that what was issued from it stays dead.
func (s *Store) PutStandingGrant(g authz.Grant) audit.Effect {
	return effect(1, `INSERT INTO grants (gid, kind, sub, client_id, redirect_uri, scope, resource,
		max_depth, hours, created, used, expires, revoked)
		VALUES ($1, 'standing', $2, $3, '', $4, $5, $6, $7, $8, 0, $9, 0)
		ON CONFLICT (client_id) WHERE kind = 'standing' DO UPDATE SET
		gid = CASE WHEN grants.revoked = 0 THEN grants.gid ELSE excluded.gid END, scope = excluded.scope,
		resource = excluded.resource, max_depth = excluded.max_depth, hours = excluded.hours,
		expires = excluded.expires, revoked = 0`,
		g.ID, g.Sub, g.ClientID, strings.Join(g.Scopes, " "), strings.Join(g.Resources, " "),
		g.MaxDepth, g.Hours, toMillis(g.Created), toMillis(g.Expires))
}

// RevokeGrant ends a grant; one that has ended stays as it ended.
func (s *Store) RevokeGrant(id string, now time.Time) audit.Effect {
	return effect(-1, `UPDATE grants SET revoked = $2 WHERE gid = $1 AND revoked = 0`, id, now.UnixMilli())
}

// TouchGrant notes the use of a live grant; an ended one loses.
func (s *Store) TouchGrant(id string, now time.Time) audit.Effect {
	return effect(1, `UPDATE grants SET used = $2
		WHERE gid = $1 AND revoked = 0 AND (expires = 0 OR expires > $2)`, id, now.UnixMilli())
}
