package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/kavach-dev/kavach/audit"
)

// scans are the statements behind audit.Scan: one literal per index and
// direction. $1 is the place, $2 the limit, $3 the value.
var scans = map[audit.Index][2]string{
	audit.ByNothing: {
		`SELECT seq, leaf, bytes FROM audit_records WHERE seq < $1 ORDER BY seq DESC LIMIT $2`,
		`SELECT seq, leaf, bytes FROM audit_records WHERE seq > $1 ORDER BY seq LIMIT $2`,
	},
	audit.ByAgent: {
		`SELECT seq, leaf, bytes FROM audit_records WHERE agent = $3 AND seq < $1 ORDER BY seq DESC LIMIT $2`,
		`SELECT seq, leaf, bytes FROM audit_records WHERE agent = $3 AND seq > $1 ORDER BY seq LIMIT $2`,
	},
	audit.ByAction: {
		`SELECT seq, leaf, bytes FROM audit_records WHERE action = $3 AND seq < $1 ORDER BY seq DESC LIMIT $2`,
		`SELECT seq, leaf, bytes FROM audit_records WHERE action = $3 AND seq > $1 ORDER BY seq LIMIT $2`,
	},
	audit.ByResult: {
		`SELECT seq, leaf, bytes FROM audit_records WHERE result = $3 AND seq < $1 ORDER BY seq DESC LIMIT $2`,
		`SELECT seq, leaf, bytes FROM audit_records WHERE result = $3 AND seq > $1 ORDER BY seq LIMIT $2`,
	},
	audit.ByResource: {
		`SELECT seq, leaf, bytes FROM audit_records WHERE resource = $3 AND seq < $1 ORDER BY seq DESC LIMIT $2`,
		`SELECT seq, leaf, bytes FROM audit_records WHERE resource = $3 AND seq > $1 ORDER BY seq LIMIT $2`,
	},
	audit.BySub: {
		`SELECT seq, leaf, bytes FROM audit_records WHERE sub = $3 AND seq < $1 ORDER BY seq DESC LIMIT $2`,
		`SELECT seq, leaf, bytes FROM audit_records WHERE sub = $3 AND seq > $1 ORDER BY seq LIMIT $2`,
	},
	audit.ByGrant: {
		`SELECT seq, leaf, bytes FROM audit_records WHERE grant_id = $3 AND seq < $1 ORDER BY seq DESC LIMIT $2`,
		`SELECT seq, leaf, bytes FROM audit_records WHERE grant_id = $3 AND seq > $1 ORDER BY seq LIMIT $2`,
	},
	audit.ByLID: {
		`SELECT r.seq, r.leaf, r.bytes
			FROM (SELECT DISTINCT seq FROM audit_lids WHERE lid = $3 AND role <> 'key' AND seq < $1 ORDER BY seq DESC LIMIT $2) AS l
			JOIN audit_records AS r ON r.seq = l.seq ORDER BY r.seq DESC`,
		`SELECT r.seq, r.leaf, r.bytes
			FROM (SELECT DISTINCT seq FROM audit_lids WHERE lid = $3 AND role <> 'key' AND seq > $1 ORDER BY seq LIMIT $2) AS l
			JOIN audit_records AS r ON r.seq = l.seq ORDER BY r.seq`,
	},
	audit.ByKey: {
		`SELECT r.seq, r.leaf, r.bytes
			FROM (SELECT DISTINCT seq FROM audit_lids WHERE lid = $3 AND role = 'key' AND seq < $1 ORDER BY seq DESC LIMIT $2) AS l
			JOIN audit_records AS r ON r.seq = l.seq ORDER BY r.seq DESC`,
		`SELECT r.seq, r.leaf, r.bytes
			FROM (SELECT DISTINCT seq FROM audit_lids WHERE lid = $3 AND role = 'key' AND seq > $1 ORDER BY seq LIMIT $2) AS l
			JOIN audit_records AS r ON r.seq = l.seq ORDER BY r.seq`,
	},
}

// Records implements audit.ReadStore.
func (s *Store) Records(ctx context.Context, scan audit.Scan) ([]audit.Raw, error) {
	queries, ok := scans[scan.Index]
	if !ok {
		return nil, fmt.Errorf("%w: no index %q", ErrStore, scan.Index)
	}
	query := queries[0]
	if scan.Ascending {
		query = queries[1]
	}
	args := []any{scan.After, scan.Limit}
	if scan.Index != audit.ByNothing {
		args = append(args, scan.Value)
	}
	return collect(ctx, s, scanRaw, query, args...)
}

// RecordsByID implements audit.ReadStore.
func (s *Store) RecordsByID(ctx context.Context, ids ...string) (all []audit.Raw, err error) {
	for some := range slices.Chunk(ids, d1MaxParams) {
		var l list
		query := `SELECT seq, leaf, bytes FROM audit_records WHERE id IN ` + l.in(some) + ` ORDER BY seq`
		rows, err := collect(ctx, s, scanRaw, query, l.args...)
		if err != nil {
			return nil, err
		}
		all = append(all, rows...)
	}
	slices.SortFunc(all, func(a, b audit.Raw) int { return cmp.Compare(a.Seq, b.Seq) })
	return all, nil
}

// SeqsByTime implements audit.ReadStore.
func (s *Store) SeqsByTime(ctx context.Context, since, until int64, limit int) ([]int64, error) {
	return collect(ctx, s, scanSeq, `SELECT seq FROM audit_records WHERE time >= $1 AND time <= $2 LIMIT $3`, since, until, limit)
}

// SeqsByPrefix implements audit.ReadStore. Text is compared byte by byte, so
// everything with the prefix lies below the prefix and the last character
// there is.
func (s *Store) SeqsByPrefix(ctx context.Context, prefix string, limit int) ([]int64, error) {
	return collect(ctx, s, scanSeq, `SELECT seq FROM audit_records WHERE resource >= $1 AND resource <= $2 LIMIT $3`,
		prefix, prefix+"\U0010FFFF", limit)
}

// Owned implements audit.ReadStore.
func (s *Store) Owned(ctx context.Context, person string) ([]string, error) {
	return collect(ctx, s, scanText, `SELECT id FROM agents WHERE owner = $1`, person)
}

// Head implements audit.Source.
func (s *Store) Head(ctx context.Context) (h audit.Head, err error) {
	err = s.read.QueryRow(ctx, `SELECT size, leaf FROM audit_head WHERE one = 1`).Scan(&h.Size, &h.Leaf)
	if errors.Is(err, sql.ErrNoRows) {
		return h, fmt.Errorf("%w: the log has no head", ErrStore)
	}
	if err != nil {
		return h, fmt.Errorf("reading the head: %w", err)
	}
	return h, nil
}

// StoredLeaf implements audit.Source. There is no index on leaf: Verify asks
// only about damage.
func (s *Store) StoredLeaf(ctx context.Context, leaf string, except int64) (bool, error) {
	var n int64
	err := s.read.QueryRow(ctx, `SELECT count(*) FROM (SELECT 1 FROM audit_records WHERE leaf = $1 AND seq <> $2 LIMIT 1) AS l`,
		leaf, except).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("looking up a leaf: %w", err)
	}
	return n > 0, nil
}

func scanRaw(rows *sql.Rows) (r audit.Raw, err error) {
	err = rows.Scan(&r.Seq, &r.Leaf, &r.Bytes)
	return r, err
}

func scanSeq(rows *sql.Rows) (seq int64, err error) {
	err = rows.Scan(&seq)
	return seq, err
}

func scanText(rows *sql.Rows) (text string, err error) {
	err = rows.Scan(&text)
	return text, err
}

// collect runs a read and returns its rows.
func collect[T any](ctx context.Context, s *Store, scan func(*sql.Rows) (T, error), query string, args ...any) (list []T, err error) {
	rows, err := s.read.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return gather(rows, scan)
}

// gather returns the rows of a read that runs.
func gather[T any](rows *sql.Rows, scan func(*sql.Rows) (T, error)) (list []T, err error) {
	defer rows.Close()
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, rows.Err()
}
