package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
)

// Resources returns every registered resource with its scopes, by id.
func (s *Store) Resources(ctx context.Context) ([]authz.Resource, error) {
	rows, err := s.read.Query(ctx, `SELECT r.id, r.name, r.aware, r.token_alg, r.introspector, r.created,
		COALESCE(c.name, ''), COALESCE(c.description, ''), COALESCE(c.sensitive, 0),
		COALESCE(c.users, '[]'), COALESCE(c.roles, '[]')
		FROM resources r LEFT JOIN scopes c ON c.resource = r.id
		ORDER BY r.id, c.position`)
	if err != nil {
		return nil, fmt.Errorf("reading resources: %w", err)
	}
	defer rows.Close()
	var list []authz.Resource
	for rows.Next() {
		var r authz.Resource
		var c authz.Scope
		var users, roles string
		var aware, sensitive, created int64
		if err := rows.Scan(&r.ID, &r.Name, &aware, &r.TokenAlg, &r.Introspector, &created,
			&c.Name, &c.Description, &sensitive, &users, &roles); err != nil {
			return nil, fmt.Errorf("reading resources: %w", err)
		}
		if err := errors.Join(parseList(users, &c.Holders.Users), parseList(roles, &c.Holders.Roles)); err != nil {
			return nil, fmt.Errorf("reading resources: %w", err)
		}
		r.Aware, c.Sensitive, r.Created = aware != 0, sensitive != 0, time.UnixMilli(created)
		if n := len(list); n == 0 || list[n-1].ID != r.ID {
			list = append(list, r)
		}
		if c.Name != "" {
			last := &list[len(list)-1]
			last.Scopes = append(last.Scopes, c)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading resources: %w", err)
	}
	return list, nil
}

// InsertResource must hit one row each; a taken identifier or scope loses.
func (s *Store) InsertResource(r authz.Resource) []audit.Effect {
	effects := []audit.Effect{effect(1, `INSERT INTO resources (id, name, aware, token_alg, introspector, created)
		VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`,
		r.ID, r.Name, oneIf(r.Aware), r.TokenAlg, r.Introspector, r.Created.UnixMilli())}
	for i, c := range r.Scopes {
		effects = append(effects, effect(1, `INSERT INTO scopes
			(name, resource, folded, position, description, sensitive, users, roles)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING`,
			c.Name, r.ID, strings.ToLower(c.Name), i, c.Description, oneIf(c.Sensitive),
			formatList(c.Holders.Users), formatList(c.Holders.Roles)))
	}
	return effects
}

// DeleteResource must hit the resource's row; a missing one loses.
func (s *Store) DeleteResource(id string) []audit.Effect {
	return []audit.Effect{
		effect(1, `DELETE FROM resources WHERE id = $1`, id),
		effect(-1, `DELETE FROM scopes WHERE resource = $1`, id),
	}
}
