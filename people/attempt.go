package people

import (
	"context"
	"errors"
	"time"

	"github.com/kavach-dev/kavach/audit"
)

// Limit says how a subject (an account, a browser at an account, an address,
// the set-up form) is slowed down. Try number Free and each after it makes the
// next wait Step × x² (x = 1, 2, 3 …), Most at most. Whoever does not try for
// Window starts anew. There is no limit that locks for good.
type Limit struct {
	Free   int64
	Step   time.Duration
	Most   time.Duration
	Window time.Duration
}

// Every attempt counts when it begins, so that parallel ones count too, and is
// taken back if it was no failure.
var (
	accountLimit = Limit{Free: 5, Step: time.Second, Most: 5 * time.Minute, Window: longestWindow}
	addressLimit = Limit{Free: 40, Step: time.Second, Most: 5 * time.Minute, Window: longestWindow}
	// "5 tries a minute"
	setupLimit = Limit{Free: 5, Step: time.Minute, Most: time.Minute, Window: time.Minute}
)

// longestWindow is that of accountLimit and addressLimit: what was tried before
// it counts for nobody.
const longestWindow = time.Hour

// counted is one attempt at several subjects.
type counted struct {
	s        *Server
	subjects []string
	limits   []Limit
}

func (c *counted) add(l Limit, subject string) {
	c.subjects = append(c.subjects, sum(c.s.cookies.jar().subject, subject))
	c.limits = append(c.limits, l)
}

// tooManyError says how long to wait.
type tooManyError struct{ wait time.Duration }

func (tooManyError) Error() string { return "people: too many attempts" }

// waiting fails with tooManyError while one of the subjects has to wait.
func (c *counted) waiting(ctx context.Context) error {
	now, wait := c.s.now(), time.Duration(0)
	for _, subject := range c.subjects {
		until, err := c.s.store.Attempt(ctx, subject)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		wait = max(wait, until.Sub(now))
	}
	if wait > 0 {
		return tooManyError{wait}
	}
	return nil
}

// count counts the attempt at every subject, or at none and fails with
// tooManyError.
func (c *counted) count(ctx context.Context) error {
	now := c.s.now()
	change := audit.Change{}
	for i, subject := range c.subjects {
		change.Effects = append(change.Effects, c.s.store.Try(subject, c.limits[i], now))
	}
	err := c.s.log.Commit(ctx, change)
	if !errors.Is(err, audit.ErrConflict) {
		return err
	}
	// Others were faster and used up what was free.
	if err := c.waiting(ctx); err != nil {
		return err
	}
	return tooManyError{time.Second}
}

// undo takes the attempt back.
func (c *counted) undo() []audit.Effect {
	var effects []audit.Effect
	for _, subject := range c.subjects {
		effects = append(effects, c.s.store.Untry(subject))
	}
	return effects
}
