package guard

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/kavach-dev/kavach/delegation"
)

// Counters debits the budgets of tokens with max_calls.
type Counters interface {
	// Debit takes one call off every budget, or off none: it returns false if
	// one of them is spent. Of parallel calls, also on other replicas, no more
	// than Limit get true for one lid. An error means that nobody knows, and
	// that nothing may be done.
	Debit(ctx context.Context, budgets []delegation.Budget) (ok bool, err error)
}

const (
	// maxBudgets bounds the memory of all budgets.
	maxBudgets = 1 << 18
	// maxGrantBudgets is the share of one grant, so that who may get any number
	// of roots, and make any number of links below them, cannot fill everybody's.
	maxGrantBudgets = 1 << 12
)

// CountersConfig is what counters in memory are made of.
type CountersConfig struct {
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

// NewCounters makes counters in the memory of one process, which is right where
// one process serves the resource: two would have a budget each, and a restart
// gives every budget back. They are bounded; when they are full, tokens whose
// budget is not among them yet are refused until others have ended, because a
// forgotten budget would be whole again.
func NewCounters(cfg CountersConfig) Counters {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &counters{now: cfg.Now, spent: map[string]int64{}, grants: map[string]int{}, due: map[int64][]ended{}}
}

// errBudgetsFull: see NewCounters.
var errBudgetsFull = errors.New("guard: too many live budgets")

type counters struct {
	now func() time.Time

	mu     sync.Mutex        // guards what follows
	spent  map[string]int64  // calls, by lid
	grants map[string]int    // how many of them, by grant
	due    map[int64][]ended // by the second in which they are forgotten
	swept  int64
}

type ended struct{ lid, grant string }

// Debit implements Counters.
func (c *counters) Debit(_ context.Context, budgets []delegation.Budget) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sweep(c.now().Unix())
	fresh := map[string]int{}
	for _, b := range budgets {
		spent, known := c.spent[b.LID]
		if spent >= b.Limit {
			return false, nil
		}
		if !known {
			fresh[b.Grant]++
		}
	}
	total := 0
	for grant, n := range fresh {
		if total += n; c.grants[grant]+n > maxGrantBudgets {
			return false, errBudgetsFull
		}
	}
	if len(c.spent)+total > maxBudgets {
		return false, errBudgetsFull
	}
	for _, b := range budgets {
		if _, known := c.spent[b.LID]; !known {
			second := b.Until.Add(delegation.CounterGrace).Unix()
			c.due[second] = append(c.due[second], ended{b.LID, b.Grant})
			c.grants[b.Grant]++
		}
		c.spent[b.LID]++
	}
	return true, nil
}

// sweep forgets what ended before now. A token lives an hour at most, so there
// are few seconds to look at.
func (c *counters) sweep(now int64) {
	if now == c.swept {
		return
	}
	c.swept = now
	for second, list := range c.due {
		if second >= now {
			continue
		}
		for _, e := range list {
			delete(c.spent, e.lid)
			if c.grants[e.grant]--; c.grants[e.grant] <= 0 {
				delete(c.grants, e.grant)
			}
		}
		delete(c.due, second)
	}
}
