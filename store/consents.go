package store

import (
	"context"
	"fmt"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
)

// Consents reads what a person approved for a client at a redirect URI.
func (s *Store) Consents(ctx context.Context, sub, clientID, redirectURI string) ([]authz.Consent, error) {
	rows, err := s.read.Query(ctx, `SELECT sub, client_id, redirect_uri, resource, scope, fingerprint, granted
		FROM consents WHERE sub = $1 AND client_id = $2 AND redirect_uri = $3
		ORDER BY resource, scope`, sub, clientID, redirectURI)
	if err != nil {
		return nil, fmt.Errorf("reading consents: %w", err)
	}
	defer rows.Close()
	var out []authz.Consent
	for rows.Next() {
		var c authz.Consent
		var granted int64
		if err := rows.Scan(&c.Sub, &c.ClientID, &c.RedirectURI, &c.Resource, &c.Scope, &c.Fingerprint, &granted); err != nil {
			return nil, fmt.Errorf("reading consents: %w", err)
		}
		c.Granted = fromMillis(granted)
		out = append(out, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading consents: %w", err)
	}
	return out, nil
}

// PutConsent remembers one approved scope; approving it again renews it.
func (s *Store) PutConsent(c authz.Consent) audit.Effect {
	return effect(1, `INSERT INTO consents (sub, client_id, redirect_uri, resource, scope, fingerprint, granted)
		VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (sub, client_id, redirect_uri, resource, scope)
		DO UPDATE SET fingerprint = excluded.fingerprint, granted = excluded.granted`,
		c.Sub, c.ClientID, c.RedirectURI, c.Resource, c.Scope, c.Fingerprint, c.Granted.UnixMilli())
}

// DropConsent forgets one approved scope, if it is remembered.
func (s *Store) DropConsent(c authz.Consent) audit.Effect {
	return effect(-1, `DELETE FROM consents
		WHERE sub = $1 AND client_id = $2 AND redirect_uri = $3 AND resource = $4 AND scope = $5`,
		c.Sub, c.ClientID, c.RedirectURI, c.Resource, c.Scope)
}
