package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
)

// Client returns a static or registered client, or authz.ErrNotFound.
func (s *Store) Client(ctx context.Context, id string) (authz.Client, error) {
	c, err := scanClient(s.read.QueryRow(ctx, `SELECT id, name, kind, method, secret_hash, redirect_uris,
		grant_types, scopes, application_type, uri, logo_uri, disabled, created, used, public_keys, bound
		FROM clients WHERE id = $1`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return authz.Client{}, authz.ErrNotFound
	}
	if err != nil {
		return authz.Client{}, fmt.Errorf("reading client: %w", err)
	}
	return c, nil
}

// Clients lists static and registered clients by id, after the given one.
func (s *Store) Clients(ctx context.Context, after string, limit int) ([]authz.Client, error) {
	rows, err := s.read.Query(ctx, `SELECT id, name, kind, method, secret_hash, redirect_uris,
		grant_types, scopes, application_type, uri, logo_uri, disabled, created, used, public_keys, bound
		FROM clients WHERE id > $1 ORDER BY id LIMIT $2`, after, limit)
	if err != nil {
		return nil, fmt.Errorf("listing clients: %w", err)
	}
	defer rows.Close()
	var clients []authz.Client
	for rows.Next() {
		c, err := scanClient(rows)
		if err != nil {
			return nil, fmt.Errorf("listing clients: %w", err)
		}
		clients = append(clients, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("listing clients: %w", err)
	}
	return clients, nil
}

func scanClient(row interface{ Scan(...any) error }) (authz.Client, error) {
	var c authz.Client
	var redirects, grants, scopes, keys string
	var disabled, created, used, bound int64
	if err := row.Scan(&c.ID, &c.Name, &c.Kind, &c.Method, &c.SecretHash, &redirects,
		&grants, &scopes, &c.ApplicationType, &c.URI, &c.LogoURI, &disabled, &created, &used, &keys, &bound); err != nil {
		return c, err
	}
	if err := errors.Join(parseList(redirects, &c.RedirectURIs), parseList(grants, &c.GrantTypes),
		parseList(scopes, &c.Scopes), parseKeys(keys, &c.Keys)); err != nil {
		return c, err
	}
	c.BoundTokens = bound != 0
	c.Disabled, c.Created, c.Used = disabled != 0, time.UnixMilli(created), fromMillis(used)
	return c, nil
}

// InsertClient must hit one row; a taken id loses.
func (s *Store) InsertClient(c authz.Client) audit.Effect {
	return effect(1, `INSERT INTO clients (id, name, kind, method, secret_hash, redirect_uris,
		grant_types, scopes, application_type, uri, logo_uri, disabled, created, used, public_keys, bound)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) ON CONFLICT DO NOTHING`,
		c.ID, c.Name, string(c.Kind), string(c.Method), c.SecretHash, formatList(c.RedirectURIs),
		formatList(c.GrantTypes), formatList(c.Scopes), c.ApplicationType, c.URI, c.LogoURI,
		oneIf(c.Disabled), c.Created.UnixMilli(), toMillis(c.Used), formatKeys(c.Keys), oneIf(c.BoundTokens))
}

// UseClient notes the first use of a client that was never used: any rows.
func (s *Store) UseClient(id string, now time.Time) audit.Effect {
	return effect(-1, `UPDATE clients SET used = $2 WHERE id = $1 AND used = 0`, id, now.UnixMilli())
}

// UnusedClients returns ids of registered clients older than before that were
// never used.
func (s *Store) UnusedClients(ctx context.Context, before time.Time, limit int) ([]string, error) {
	rows, err := s.read.Query(ctx, `SELECT id FROM clients
		WHERE kind = 'registered' AND used = 0 AND created < $1 ORDER BY created LIMIT $2`,
		before.UnixMilli(), limit)
	if err != nil {
		return nil, fmt.Errorf("finding unused clients: %w", err)
	}
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("finding unused clients: %w", err)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("finding unused clients: %w", err)
	}
	return ids, nil
}

// DeleteUnusedClient must hit one row; a client used meanwhile loses.
func (s *Store) DeleteUnusedClient(id string) audit.Effect {
	return effect(1, `DELETE FROM clients WHERE id = $1 AND kind = 'registered' AND used = 0`, id)
}

// formatList writes a list of strings as it stands in a TEXT column.
func formatList[S ~string](list []S) string {
	if len(list) == 0 {
		return "[]"
	}
	text, err := json.Marshal(list)
	if err != nil {
		panic("store: " + err.Error()) // strings always marshal
	}
	return string(text)
}

// parseList reads what formatList wrote.
func parseList[S ~string](text string, list *[]S) error {
	*list = nil
	if text == "[]" {
		return nil
	}
	return json.Unmarshal([]byte(text), list)
}

// formatKeys writes public keys as a list of JWKs.
func formatKeys(keys []agent.PublicKey) string {
	var list []string
	for _, k := range keys {
		list = append(list, string(k.AppendJWK(nil)))
	}
	return formatList(list)
}

// parseKeys reads what formatKeys wrote.
func parseKeys(text string, keys *[]agent.PublicKey) error {
	var list []string
	if err := parseList(text, &list); err != nil {
		return err
	}
	for _, jwk := range list {
		key, err := agent.ParsePublicJWK([]byte(jwk))
		if err != nil {
			return err
		}
		*keys = append(*keys, key)
	}
	return nil
}

func oneIf(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// toMillis writes a time; the zero time is 0.
func toMillis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// fromMillis reads what toMillis wrote.
func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
