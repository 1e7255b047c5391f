package store

import (
	"context"
	"fmt"
	"strconv"

	"github.com/kavach-dev/kavach/audit"
)

// expired is what may go from a table: rows, named by key, for which where
// holds. The condition stands twice in the statement, so that a row which
// another process renews meanwhile stays, however the database isolates them.
func (s *Store) expired(table, key, where string, args ...any) audit.Expired {
	limit := "$" + strconv.Itoa(len(args)+1)
	count := `SELECT COUNT(*) FROM (SELECT 1 FROM ` + table + ` WHERE ` + where + ` LIMIT ` + limit + `) due`
	remove := `DELETE FROM ` + table + ` WHERE ` + where + ` AND ` + key + ` IN (SELECT ` + unrow(key) + ` FROM ` + table + ` WHERE ` + where + ` LIMIT ` + limit + `)`
	with := func(most int) []any { return append(args[:len(args):len(args)], int64(most)) }
	return audit.Expired{
		Table: table,
		Due: func(ctx context.Context, most int) (int, error) {
			var n int
			if err := s.read.QueryRow(ctx, count, with(most)...).Scan(&n); err != nil {
				return 0, fmt.Errorf("counting what has expired: %w", err)
			}
			return n, nil
		},
		Remove: func(most int) audit.Effect { return effect(-1, remove, with(most)...) },
	}
}

// unrow is the columns of a row value such as "(a, b)".
func unrow(key string) string {
	if key[0] == '(' {
		return key[1 : len(key)-1]
	}
	return key
}
