package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
)

// Revoke records a revocation. One that is there already keeps its seq and
// lasts as long as the longer of the two. The next seq is safe to read in the
// statement: every Change holds the head of the log.
func (s *Store) Revoke(r authz.Revocation) audit.Effect {
	return effect(1, `INSERT INTO revocations (seq, kind, value, path, until, at)
		VALUES ((SELECT COALESCE(MAX(seq), 0) + 1 FROM revocations), $1, $2, $3, $4, $5)
		ON CONFLICT (kind, value) DO UPDATE SET until = CASE
			WHEN revocations.until = 0 OR excluded.until = 0 THEN 0
			WHEN excluded.until > revocations.until THEN excluded.until
			ELSE revocations.until END`,
		string(r.Kind), r.Value, formatList(r.Path), toMillis(r.Until), r.At.UnixMilli())
}

// PurgeRevocations forgets revocations of what has expired anyway, but never
// the one with the highest seq: seq does not go back.
func (s *Store) PurgeRevocations(now time.Time) audit.Effect {
	return effect(-1, `DELETE FROM revocations
		WHERE until > 0 AND until < $1 AND seq < (SELECT MAX(seq) FROM revocations)`, now.UnixMilli())
}

// list writes values as $n, $n+1, … and remembers them as arguments.
type list struct{ args []any }

func (l *list) add(value any) string {
	l.args = append(l.args, value)
	return "$" + strconv.Itoa(len(l.args))
}

// in writes a list for IN. No value is equal to any stored one if there are
// none: "IN ()" is not portable.
func (l *list) in(lists ...[]string) string {
	var names []string
	for _, values := range lists {
		for _, v := range values {
			names = append(names, l.add(v))
		}
	}
	if len(names) == 0 {
		return "(NULL)"
	}
	return "(" + strings.Join(names, ", ") + ")"
}

// Standing answers everything in one query: a row per finding.
func (s *Store) Standing(ctx context.Context, q authz.StandingQuery) (authz.Standing, error) {
	var l list
	ids := l.in([]string{q.Principal}, q.Parties, q.Labels)
	ancestors := l.in(q.Ancestors)
	query := `SELECT 'revoked', '', '', '', 1 WHERE EXISTS (SELECT 1 FROM revocations
			WHERE (until = 0 OR until > ` + l.add(q.Now.UnixMilli()) + `) AND (
				kind = 'gid' AND value IN ` + l.in(q.Grants) + ` OR
				kind = 'lid' AND value IN ` + l.in(q.Links) + ` OR
				kind = 'lid' AND value IN ` + ancestors + ` OR
				kind = 'key' AND value IN ` + l.in(q.Keys) + ` OR
				kind = 'key' AND value IN ` + ancestors + ` OR
				kind = 'client' AND value IN ` + ids + `))
		UNION ALL SELECT 'user', id, id, role, disabled FROM users WHERE id IN ` + ids + `
		UNION ALL SELECT 'agent', id, '', '', CASE WHEN status = 'active' THEN 0 ELSE 1 END FROM agents WHERE id IN ` + ids + `
		UNION ALL SELECT 'owner', a.id, u.id, u.role, u.disabled FROM agents a JOIN users u ON u.id = a.owner WHERE a.id IN ` + ids + `
		UNION ALL SELECT 'client', id, '', '', disabled FROM clients WHERE id IN ` + ids + `
		UNION ALL SELECT 'named', id, '', '', 0 FROM agents WHERE status = 'active' AND id IN ` + l.in(q.Named)
	rows, err := s.read.Query(ctx, query, l.args...)
	if err != nil {
		return authz.Standing{}, fmt.Errorf("reading standing: %w", err)
	}
	defer rows.Close()
	var standing authz.Standing
	var found []string
	for rows.Next() {
		var what, id string
		var holder authz.Holder
		var ended int64
		if err := rows.Scan(&what, &id, &holder.ID, &holder.Role, &ended); err != nil {
			return authz.Standing{}, fmt.Errorf("reading standing: %w", err)
		}
		if what == "named" {
			standing.Acting = append(standing.Acting, id)
			continue
		}
		standing.Dead = standing.Dead || ended != 0
		found = append(found, id)
		if id == q.Principal && holder.ID != "" {
			holder.Active = ended == 0
			standing.Holder, standing.Agent = holder, what == "owner"
		}
	}
	if err := rows.Err(); err != nil {
		return authz.Standing{}, fmt.Errorf("reading standing: %w", err)
	}
	for _, id := range append([]string{q.Principal}, q.Parties...) {
		standing.Dead = standing.Dead || !slices.Contains(found, id)
	}
	return standing, nil
}

// Delegations returns issued tokens that have not expired, by lid.
func (s *Store) Delegations(ctx context.Context, q authz.DelegationQuery) ([]authz.Delegation, error) {
	const columns = `SELECT i.lid, i.exp, r.grant_id, r.bytes
		FROM audit_lids i JOIN audit_records r ON r.seq = i.seq
		WHERE i.role = 'issued' AND i.exp > $1 AND r.wrote = 'server' AND r.result = 'allowed' AND `
	var rows *sql.Rows
	var err error
	if q.Link != "" {
		rows, err = s.read.Query(ctx, columns+`i.lid = $2 ORDER BY i.lid LIMIT $3`, q.Now.Unix(), q.Link, q.Limit)
	} else {
		// The path of the record is that of the token: it ends with whoever
		// will use it.
		begin, end := audit.PathColumn(q.Path), audit.PathColumn([]string{q.Agent})
		rows, err = s.read.Query(ctx, columns+`i.lid > $2 AND r.grant_id = $3 AND r.action = 'delegate'
			AND substr(r.path, 1, $4) = $5 AND substr(r.path, length(r.path) - $6 + 1) = $7 ORDER BY i.lid LIMIT $8`,
			q.Now.Unix(), q.After, q.Grant, utf8.RuneCountInString(begin), begin, utf8.RuneCountInString(end), end, q.Limit)
	}
	if err != nil {
		return nil, fmt.Errorf("reading delegations: %w", err)
	}
	defer rows.Close()
	var found []authz.Delegation
	for rows.Next() {
		var d authz.Delegation
		var expires int64
		var record string
		if err := rows.Scan(&d.LID, &expires, &d.Grant, &record); err != nil {
			return nil, fmt.Errorf("reading delegations: %w", err)
		}
		if err := readDelegation(record, &d); err != nil {
			return nil, fmt.Errorf("reading delegations: %w", err)
		}
		d.Expires = time.Unix(expires, 0)
		found = append(found, d)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading delegations: %w", err)
	}
	return found, nil
}

// readDelegation reads of a record what its columns do not say.
func readDelegation(record string, d *authz.Delegation) error {
	var r struct {
		Path  []string `json:"path"`
		Chain []struct {
			LID string `json:"lid"`
		} `json:"chain"`
		Detail struct {
			Anc []string `json:"anc"`
		} `json:"detail"`
	}
	if err := json.Unmarshal([]byte(record), &r); err != nil {
		return err
	}
	d.Path = r.Path
	for _, party := range r.Chain {
		d.Above = append(d.Above, party.LID)
	}
	d.Above = append(d.Above, r.Detail.Anc...)
	return nil
}

// CountBelow counts delegations that have not expired and came from one of the
// links.
func (s *Store) CountBelow(ctx context.Context, links []string, now time.Time) (int, error) {
	if len(links) == 0 {
		return 0, nil
	}
	var l list
	var n int
	err := s.read.QueryRow(ctx, `SELECT COUNT(DISTINCT i.lid)
		FROM audit_lids a JOIN audit_lids i ON i.seq = a.seq JOIN audit_records r ON r.seq = a.seq
		WHERE a.lid IN `+l.in(links)+` AND a.role IN ('chain', 'anc') AND i.role = 'issued' AND i.exp > `+l.add(now.Unix())+`
		AND r.wrote = 'server' AND r.action = 'delegate' AND r.result = 'allowed'`, l.args...).Scan(&n)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return 0, fmt.Errorf("counting delegations: %w", err)
	}
	return n, nil
}
