package store

import (
	"fmt"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
)

// Debit takes one call off every budget, or is lost and takes none: it must hit
// as many rows as there are budgets, and one that is spent is not hit
// (delegation.md §5: "all or none, one statement"). Each lid stands once.
func (s *Store) Debit(budgets []delegation.Budget) audit.Effect {
	rows := make([]string, 0, len(budgets))
	args := make([]any, 0, 3*len(budgets))
	for _, b := range budgets {
		n := len(args)
		rows = append(rows, fmt.Sprintf("($%d, 1, $%d, $%d)", n+1, n+2, n+3))
		args = append(args, b.LID, b.Limit, b.Until.UnixMilli())
	}
	return effect(int64(len(budgets)), `INSERT INTO counters (lid, used, budget, until) VALUES `+strings.Join(rows, ", ")+`
		ON CONFLICT (lid) DO UPDATE SET used = counters.used + 1 WHERE counters.used < counters.budget`, args...)
}

// ExpiredCounters are the budgets of links that ended before the time.
func (s *Store) ExpiredCounters(ended time.Time) audit.Expired {
	return s.expired("counters", "lid", `until < $1`, ended.UnixMilli())
}
