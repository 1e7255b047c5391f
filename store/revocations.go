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
	"github.com/kavach-dev/kavach/delegation"
)

// Revoke records a revocation. One that is there already keeps its seq and
// lasts as long as the longer of the two. The next seq is safe to read in the
// statement: every Change holds the head of the log.
//
// "At most 64 `tok` per gid … a 65th that covers none → 429": a link with a
// grant hits no row if as many stand in the feed, unless it is there already or
// one above it is. What it covers itself Absorb has taken out before.
func (s *Store) Revoke(r authz.Revocation) audit.Effect {
	l := list{args: []any{
		string(r.Kind), r.Value, formatList(r.Path), toMillis(r.Until), r.At.UnixMilli(), r.Grant, toMillis(r.Before), r.Most,
	}}
	above := `EXISTS (SELECT 1 FROM revocations a WHERE a.kind = 'lid' AND a.until > $5 AND a.value IN ` + l.in(r.Path) + `)`
	limit := strconv.Itoa(delegation.MaxFeedLinks)
	return effect(1, `INSERT INTO revocations (seq, kind, value, path, until, at, gid, issued_before, absorbed)
		SELECT (SELECT COALESCE(MAX(seq), 0) + 1 FROM revocations), $1, $2, $3, $4, $5, $6, $7,
			CASE WHEN $1 = 'lid' AND `+above+` THEN 1 ELSE 0 END
		WHERE ($1 <> 'lid' OR $6 = '' OR `+above+` OR `+limit+` > (SELECT COUNT(*) FROM revocations b
			WHERE b.gid = $6 AND b.kind = 'lid' AND b.absorbed = 0 AND b.until > $5 AND b.value <> $2))
		AND ($8 = 0 OR $8 > (SELECT COUNT(*) FROM revocations k
			WHERE k.kind = $1 AND k.until = 0 AND k.value <> $2))
		ON CONFLICT (kind, value) DO UPDATE SET until = CASE
			WHEN revocations.until = 0 OR excluded.until = 0 THEN 0
			WHEN excluded.until > revocations.until THEN excluded.until
			ELSE revocations.until END,
		at = CASE WHEN revocations.until > 0 AND revocations.until <= excluded.at OR excluded.issued_before > revocations.issued_before
			THEN excluded.at ELSE revocations.at END,
		issued_before = CASE WHEN excluded.issued_before > revocations.issued_before
			THEN excluded.issued_before ELSE revocations.issued_before END`, l.args...)
}

// Absorb takes the links below a revoked one out of the feed: "an entry below a
// revoked link leaves the feed (the row keeps the path)". A list of ids holds an
// id if it is shorter without it; an id needs no escape in JSON.
func (s *Store) Absorb(r authz.Revocation) audit.Effect {
	return effect(-1, `UPDATE revocations SET absorbed = 1
		WHERE gid = $1 AND kind = 'lid' AND absorbed = 0 AND replace(path, $2, '') <> path`,
		r.Grant, `"`+r.Value+`"`)
}

// Lift ends a revocation that has no end. Its row stays until it is purged: it
// may be the one with the highest seq.
func (s *Store) Lift(kind authz.RevocationKind, value string, now time.Time) audit.Effect {
	return effect(1, `UPDATE revocations SET until = $3 WHERE kind = $1 AND value = $2 AND until = 0`,
		string(kind), value, now.UnixMilli())
}

// Revocations lists those in force, newest first.
func (s *Store) Revocations(ctx context.Context, before int64, limit int, now time.Time) ([]authz.Revocation, error) {
	rows, err := s.read.Query(ctx, `SELECT seq, kind, value, path, gid, until, at, issued_before FROM revocations
		WHERE (until = 0 OR until > $1) AND ($2 = 0 OR seq < $2) ORDER BY seq DESC LIMIT $3`, now.UnixMilli(), before, limit)
	if err != nil {
		return nil, fmt.Errorf("listing revocations: %w", err)
	}
	defer rows.Close()
	var found []authz.Revocation
	for rows.Next() {
		var r authz.Revocation
		var path string
		var until, at, issued int64
		if err := rows.Scan(&r.Seq, &r.Kind, &r.Value, &path, &r.Grant, &until, &at, &issued); err != nil {
			return nil, fmt.Errorf("listing revocations: %w", err)
		}
		if err := parseList(path, &r.Path); err != nil {
			return nil, fmt.Errorf("listing revocations: %w", err)
		}
		r.Until, r.At, r.Before = fromMillis(until), time.UnixMilli(at), fromMillis(issued)
		found = append(found, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("listing revocations: %w", err)
	}
	return found, nil
}

// KeyOwner reads who answers for the agents that proved a key; a key that an
// agent only named is nobody's, and one of several people's agents is no one's.
func (s *Store) KeyOwner(ctx context.Context, jkt string) (string, error) {
	var owner string
	var owners int
	err := s.read.QueryRow(ctx, `SELECT COALESCE(MIN(a.owner), ''), COUNT(DISTINCT a.owner)
		FROM agent_keys k JOIN agents a ON a.id = k.agent WHERE k.jkt = $1 AND k.seq >= 0`, jkt).Scan(&owner, &owners)
	if err != nil {
		return "", fmt.Errorf("reading whose a key is: %w", err)
	}
	if owners != 1 {
		return "", authz.ErrNotFound
	}
	return owner, nil
}

// Feed reads what the revocation feed says in one query. Links, grants and
// times leave it an hour after they were revoked, when nothing of them can be
// alive; keys and clients stay until they are lifted. D1 takes five SELECTs in
// one UNION, so there are unions of unions here and below.
func (s *Store) Feed(ctx context.Context, now time.Time) (authz.FeedState, error) {
	rows, err := s.read.Query(ctx, `SELECT * FROM (SELECT kind, value, issued_before FROM revocations
			WHERE kind IN ('lid', 'gid', 'before', 'role') AND absorbed = 0 AND (until = 0 OR until > $1) AND at > $2
				AND (kind <> 'lid' OR NOT EXISTS (SELECT 1 FROM revocations g
					WHERE g.kind = 'gid' AND g.value = revocations.gid AND (g.until = 0 OR g.until > $1) AND g.at > $2))
		UNION ALL SELECT kind, value, 0 FROM revocations
			WHERE kind IN ('key', 'client', 'agent') AND (until = 0 OR until > $1)
		UNION ALL SELECT 'key', k.jkt, 0 FROM agent_keys k JOIN agents a ON a.id = k.agent WHERE a.status <> 'active'
		UNION ALL SELECT 'client', id, 0 FROM users WHERE disabled <> 0) AS f
		UNION ALL SELECT * FROM (SELECT 'client', id, 0 FROM clients WHERE disabled <> 0
		UNION ALL SELECT 'client', a.id, 0 FROM agents a LEFT JOIN users u ON u.id = a.owner
			WHERE a.status <> 'active' OR u.id IS NULL OR u.disabled <> 0
		UNION ALL SELECT 'seq', '', COALESCE(MAX(seq), 0) FROM revocations) AS g`,
		now.UnixMilli(), now.Add(-delegation.FeedRetention).UnixMilli())
	if err != nil {
		return authz.FeedState{}, fmt.Errorf("reading the feed: %w", err)
	}
	defer rows.Close()
	f := authz.FeedState{Before: map[string]time.Time{}}
	lists := map[authz.RevocationKind]*[]string{
		authz.RevokeLink: &f.Links, authz.RevokeGrant: &f.Grants, authz.RevokeKey: &f.Keys, authz.RevokeClient: &f.Clients,
		authz.RevokeAgent: &f.Clients,
	}
	for rows.Next() {
		var kind authz.RevocationKind
		var value string
		var number int64
		if err := rows.Scan(&kind, &value, &number); err != nil {
			return authz.FeedState{}, fmt.Errorf("reading the feed: %w", err)
		}
		switch into := lists[kind]; {
		case into != nil:
			*into = append(*into, value)
		case kind == authz.RevokeBefore || kind == authz.RevokeRole:
			if before := time.UnixMilli(number); before.After(f.Before[value]) {
				f.Before[value] = before
			}
		default:
			f.Seq = number
		}
	}
	if err := rows.Err(); err != nil {
		return authz.FeedState{}, fmt.Errorf("reading the feed: %w", err)
	}
	return f, nil
}

// ExpiredRevocations are those of what had expired at the time, but never the
// one with the highest seq: seq does not go back.
func (s *Store) ExpiredRevocations(ended time.Time) audit.Expired {
	return s.expired("revocations", "seq", `until > 0 AND until < $1 AND seq < (SELECT MAX(seq) FROM revocations)`, ended.UnixMilli())
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
	ancestors, keys := l.in(q.Ancestors), l.in(q.Keys)
	issued := "9007199254740991" // later than every time
	if !q.Issued.IsZero() {
		issued = l.add(q.Issued.UnixMilli())
	}
	query := `SELECT * FROM (SELECT 'revoked', '', '', '', 1 WHERE EXISTS (SELECT 1 FROM revocations
			WHERE (until = 0 OR until > ` + l.add(q.Now.UnixMilli()) + `) AND (
				kind = 'gid' AND value IN ` + l.in(q.Grants) + ` OR
				kind = 'lid' AND value IN ` + l.in(q.Links) + ` OR
				kind = 'lid' AND value IN ` + ancestors + ` OR
				kind = 'key' AND value IN ` + keys + ` OR
				kind = 'key' AND value IN ` + ancestors + ` OR
				kind = 'client' AND value IN ` + ids + ` OR
				kind = 'before' AND issued_before > ` + issued + ` AND value IN ` + l.in(q.Grants, []string{authz.EveryGrant}) + `))
		UNION ALL SELECT 'revoked', '', '', '', 1 WHERE EXISTS (SELECT 1 FROM agent_keys k JOIN agents a ON a.id = k.agent
			WHERE a.status <> 'active' AND (k.jkt IN ` + keys + ` OR k.jkt IN ` + ancestors + `))
		UNION ALL SELECT 'user', id, id, role, disabled FROM users WHERE id IN ` + ids + `
		UNION ALL SELECT 'agent', id, '', '', CASE WHEN status = 'active' THEN 0 ELSE 1 END FROM agents WHERE id IN ` + ids + `) AS f
		UNION ALL SELECT * FROM (SELECT 'owner', a.id, u.id, u.role, u.disabled FROM agents a JOIN users u ON u.id = a.owner WHERE a.id IN ` + ids + `
		UNION ALL SELECT 'client', id, '', '', disabled FROM clients WHERE id IN ` + ids + `
		UNION ALL SELECT 'named', id, '', '', 0 FROM agents WHERE status = 'active' AND id IN ` + l.in(q.Named) + `) AS g`
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
