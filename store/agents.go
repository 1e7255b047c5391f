package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
)

var _ authz.AgentStore = (*Store)(nil)

// Agent reads an agent by its id, or authz.ErrNotFound.
func (s *Store) Agent(ctx context.Context, id string) (authz.Agent, error) {
	return oneAgent(s.read.QueryRow(ctx, `SELECT id, owner, name, status, version, purpose, scopes,
		capabilities, max_depth, public_key, manifest_seq, manifest_expires, created
		FROM agents WHERE id = $1`, id))
}

// AgentNamed reads an agent by its name among those of its owner, or
// authz.ErrNotFound.
func (s *Store) AgentNamed(ctx context.Context, owner, name string) (authz.Agent, error) {
	return oneAgent(s.read.QueryRow(ctx, `SELECT id, owner, name, status, version, purpose, scopes,
		capabilities, max_depth, public_key, manifest_seq, manifest_expires, created
		FROM agents WHERE owner = $1 AND name = $2`, owner, name))
}

// Agents lists agents by id, after the given one; owner "" means all.
func (s *Store) Agents(ctx context.Context, owner, after string, limit int) ([]authz.Agent, error) {
	rows, err := s.read.Query(ctx, `SELECT id, owner, name, status, version, purpose, scopes,
		capabilities, max_depth, public_key, manifest_seq, manifest_expires, created
		FROM agents WHERE id > $1 AND ($2 = '' OR owner = $2) ORDER BY id LIMIT $3`, after, owner, limit)
	if err != nil {
		return nil, fmt.Errorf("listing agents: %w", err)
	}
	defer rows.Close()
	var list []authz.Agent
	for rows.Next() {
		a, err := scanAgent(rows)
		if err != nil {
			return nil, fmt.Errorf("listing agents: %w", err)
		}
		list = append(list, a)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("listing agents: %w", err)
	}
	return list, nil
}

// AgentNames returns names of active agents of an owner that begin with prefix,
// sorted.
func (s *Store) AgentNames(ctx context.Context, owner, prefix string, limit int) ([]string, error) {
	rows, err := s.read.Query(ctx, `SELECT name FROM agents
		WHERE owner = $1 AND status = 'active' AND substr(name, 1, length($2)) = $2 ORDER BY name LIMIT $3`,
		owner, prefix, limit)
	if err != nil {
		return nil, fmt.Errorf("listing names of agents: %w", err)
	}
	defer rows.Close()
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, fmt.Errorf("listing names of agents: %w", err)
		}
		names = append(names, name)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("listing names of agents: %w", err)
	}
	return names, nil
}

func oneAgent(row *sql.Row) (authz.Agent, error) {
	a, err := scanAgent(row)
	if errors.Is(err, sql.ErrNoRows) {
		return authz.Agent{}, authz.ErrNotFound
	}
	if err != nil {
		return authz.Agent{}, fmt.Errorf("reading agent: %w", err)
	}
	return a, nil
}

func scanAgent(row interface{ Scan(...any) error }) (authz.Agent, error) {
	var a authz.Agent
	var scopes, capabilities, key string
	var expires, created int64
	if err := row.Scan(&a.ID, &a.Owner, &a.Name, &a.Status, &a.Version, &a.Purpose, &scopes, &capabilities,
		&a.MaxDepth, &key, &a.ManifestSeq, &expires, &created); err != nil {
		return a, err
	}
	if err := errors.Join(parseList(scopes, &a.Scopes), parseList(capabilities, &a.Capabilities)); err != nil {
		return a, err
	}
	var err error
	if a.Key, err = agent.ParsePublicJWK([]byte(key)); err != nil {
		return a, err
	}
	a.ManifestExpires, a.Created = time.UnixMilli(expires), time.UnixMilli(created)
	return a, nil
}

// Manifest reads the current manifest of an agent, or authz.ErrNotFound.
func (s *Store) Manifest(ctx context.Context, id string) (string, error) {
	var token string
	err := s.read.QueryRow(ctx, `SELECT token FROM manifests WHERE agent = $1 ORDER BY seq DESC LIMIT 1`, id).Scan(&token)
	if errors.Is(err, sql.ErrNoRows) {
		return "", authz.ErrNotFound
	}
	if err != nil {
		return "", fmt.Errorf("reading manifest: %w", err)
	}
	return token, nil
}

// Manifests reads manifests of an agent by seq, after the given one.
func (s *Store) Manifests(ctx context.Context, id string, after int64, limit int) ([]authz.SignedManifest, error) {
	rows, err := s.read.Query(ctx, `SELECT seq, token, added FROM manifests
		WHERE agent = $1 AND seq > $2 ORDER BY seq LIMIT $3`, id, after, limit)
	if err != nil {
		return nil, fmt.Errorf("listing manifests: %w", err)
	}
	defer rows.Close()
	var list []authz.SignedManifest
	for rows.Next() {
		var m authz.SignedManifest
		var added int64
		if err := rows.Scan(&m.Seq, &m.Token, &added); err != nil {
			return nil, fmt.Errorf("listing manifests: %w", err)
		}
		m.Added = time.UnixMilli(added)
		list = append(list, m)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("listing manifests: %w", err)
	}
	return list, nil
}

// Enrolment reads an enrolment, also a spent or expired one, or
// authz.ErrNotFound.
func (s *Store) Enrolment(ctx context.Context, hash string) (authz.Enrolment, error) {
	var e authz.Enrolment
	var created, expires, used int64
	err := s.read.QueryRow(ctx, `SELECT hash, owner, renews, created, expires, used, agent FROM enrolments WHERE hash = $1`, hash).
		Scan(&e.Hash, &e.Owner, &e.Renews, &created, &expires, &used, &e.Agent)
	if errors.Is(err, sql.ErrNoRows) {
		return authz.Enrolment{}, authz.ErrNotFound
	}
	if err != nil {
		return authz.Enrolment{}, fmt.Errorf("reading enrolment: %w", err)
	}
	e.Created, e.Expires, e.Used = time.UnixMilli(created), time.UnixMilli(expires), fromMillis(used)
	return e, nil
}

// InsertAgent must hit one row; a taken id or name loses.
func (s *Store) InsertAgent(a authz.Agent) audit.Effect {
	return effect(1, `INSERT INTO agents (id, owner, name, status, version, purpose, scopes,
		capabilities, max_depth, public_key, jkt, manifest_seq, manifest_expires, created)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT DO NOTHING`,
		a.ID, a.Owner, a.Name, string(a.Status), a.Version, a.Purpose, formatList(a.Scopes), formatList(a.Capabilities),
		a.MaxDepth, string(a.Key.AppendJWK(nil)), a.Key.Thumbprint(), a.ManifestSeq, a.ManifestExpires.UnixMilli(), a.Created.UnixMilli())
}

// InsertManifest must hit one row.
func (s *Store) InsertManifest(agentID string, seq int64, token string, now time.Time) audit.Effect {
	return effect(1, `INSERT INTO manifests (agent, seq, token, added) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		agentID, seq, token, now.UnixMilli())
}

// InsertEnrolment must hit one row.
func (s *Store) InsertEnrolment(e authz.Enrolment) audit.Effect {
	return effect(1, `INSERT INTO enrolments (hash, owner, renews, created, expires, used, agent)
		VALUES ($1, $2, $3, $4, $5, 0, '') ON CONFLICT DO NOTHING`,
		e.Hash, e.Owner, e.Renews, e.Created.UnixMilli(), e.Expires.UnixMilli())
}

// UseEnrolment must hit one row: a spent or expired enrolment loses, and one
// that is for another agent than renews, which is empty at a registration.
func (s *Store) UseEnrolment(hash, agentID, renews string, now time.Time) audit.Effect {
	return effect(1, `UPDATE enrolments SET used = $4, agent = $2
		WHERE hash = $1 AND renews = $3 AND used = 0 AND expires > $4`, hash, agentID, renews, now.UnixMilli())
}

// UpdateAgent must hit one row: what the manifest of a says takes the place of
// what before says. It loses if that is not the agent any more, by its manifest,
// its key and its status, or if the owner has another agent of that name.
func (s *Store) UpdateAgent(before, a authz.Agent) audit.Effect {
	return effect(1, `UPDATE agents SET name = $3, version = $4, purpose = $5, scopes = $6, capabilities = $7,
		max_depth = $8, public_key = $9, jkt = $10, manifest_seq = $11, manifest_expires = $12
		WHERE id = $1 AND status = $2 AND jkt = $13 AND manifest_seq = $14
		AND NOT EXISTS (SELECT 1 FROM agents b WHERE b.owner = agents.owner AND b.name = $3 AND b.id <> $1)`,
		a.ID, string(before.Status), a.Name, a.Version, a.Purpose, formatList(a.Scopes), formatList(a.Capabilities),
		a.MaxDepth, string(a.Key.AppendJWK(nil)), a.Key.Thumbprint(), a.ManifestSeq, a.ManifestExpires.UnixMilli(),
		before.Key.Thumbprint(), before.ManifestSeq)
}

// SuspendAgent stops an agent that acts; one that is suspended already stays as
// it is.
func (s *Store) SuspendAgent(id string) audit.Effect {
	return effect(-1, `UPDATE agents SET status = 'suspended' WHERE id = $1 AND status = 'active'`, id)
}

// ResumeAgent must hit one row: an agent that is not suspended loses.
func (s *Store) ResumeAgent(id string) audit.Effect {
	return effect(1, `UPDATE agents SET status = 'active' WHERE id = $1 AND status = 'suspended'`, id)
}

// ExpiredEnrolments are those that had expired at the time, spent or not.
func (s *Store) ExpiredEnrolments(ended time.Time) audit.Expired {
	return s.expired("enrolments", "hash", `expires <= $1`, ended.UnixMilli())
}
