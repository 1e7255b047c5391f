package main

import (
	"context"
	"slices"
	"time"

	"github.com/kavach-dev/kavach/audit"
)

const (
	// settleInterval is how often a replica looks at what another may have
	// changed and what it still owes the database: so long they may disagree.
	settleInterval = time.Second
	// sweepInterval is how often what has expired is removed.
	sweepInterval = time.Minute
	// choreTimeout bounds one round of a chore that is due more often.
	choreTimeout = 10 * time.Second
)

// chore is one part of the housekeeping.
type chore struct {
	what string
	run  func(context.Context) error
}

// chores says what the server does beside answering.
func (m *Main) chores() {
	d, p := m.d, m.parts
	m.settle = []chore{
		{"registry", d.registry.Settle},
	}
	m.sweep = []chore{
		{"keys", d.keys.Sweep},
		{"clients", func(ctx context.Context) error {
			n, err := d.registry.Reap(ctx)
			m.ops.metrics.removed.WithLabelValues("clients").Add(float64(n))
			return err
		}},
		{"expired", func(ctx context.Context) error {
			rows, err := audit.Prune(ctx, d.log, slices.Concat(
				d.registry.Expired(), p.agents.Expired(), p.authz.Expired(), p.people.Expired())...)
			for table, n := range rows {
				m.ops.metrics.removed.WithLabelValues(table).Add(float64(n))
			}
			return err
		}},
		{"storage", d.store.Tidy},
	}
}

// keep does chores at once and then every interval, until ctx ends. One that
// fails is tried again at the next turn: nothing depends on it but the size of
// the database, and what the metrics say is owed.
func (m *Main) keep(ctx context.Context, interval time.Duration, chores []chore) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	failing := map[string]time.Time{} // when it was last said, by chore
	for {
		for _, c := range chores {
			result := "ok"
			err := within(ctx, max(interval, choreTimeout), c.run)
			switch {
			case err == nil || ctx.Err() != nil:
				delete(failing, c.what)
			default:
				result = "failed"
				if time.Since(failing[c.what]) >= sweepInterval {
					failing[c.what] = time.Now()
					m.Log.Warn("housekeeping failed", "what", c.what, "error", err)
				}
			}
			m.ops.metrics.chores.WithLabelValues(c.what, result).Inc()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// within runs do under a deadline.
func within(ctx context.Context, limit time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return do(ctx)
}
