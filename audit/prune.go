package audit

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// PruneRows is how many rows one Change of [Prune] removes at most, so that
	// no decision waits long behind it.
	PruneRows = 500
	// ClockSkew is how far the clocks of two processes on one database may be
	// apart. What has ended here may be good for so long at another one: it is
	// not removed before.
	ClockSkew = 30 * time.Second
)

// Expired is what may be removed from one table: rows that decide nothing any
// more, whoever asks.
type Expired struct {
	// Table names it.
	Table string
	// Due counts the rows, up to most. It is a look and decides nothing.
	Due func(ctx context.Context, most int) (int, error)
	// Remove removes at most as many; its own condition says which.
	Remove func(most int) Effect
}

// Prune removes what has expired, a piece of every table in turn, until little
// is left of each or ctx ends. Any number of processes may do so at once. It
// returns how many rows were due where they were removed, by table, and the
// failures of all tables.
func Prune(ctx context.Context, commit Committer, tables ...Expired) (map[string]int, error) {
	removed := map[string]int{}
	var errs []error
	for len(tables) > 0 && ctx.Err() == nil {
		var more []Expired
		for _, t := range tables {
			n, err := t.Due(ctx, PruneRows)
			if err == nil && n > 0 {
				err = commit.Commit(ctx, Change{Effects: []Effect{t.Remove(PruneRows)}})
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("pruning %s: %w", t.Table, err))
				continue
			}
			removed[t.Table] += n
			if n >= PruneRows {
				more = append(more, t)
			}
		}
		tables = more
	}
	return removed, errors.Join(errs...)
}
