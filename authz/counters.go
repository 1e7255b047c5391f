package authz

import (
	"context"
	"errors"
	"fmt"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
)

// Counters debits in the database the budgets of tokens with max_calls, for
// every process that shares it: a guard.Counters for kavach's own resources.
type Counters struct {
	store  debitStore
	commit audit.Committer
}

// debitStore is the part of the database that Counters needs.
type debitStore interface {
	// Debit must hit as many rows as there are budgets: none of them is spent.
	Debit(budgets []delegation.Budget) audit.Effect
}

// NewCounters makes Counters on a store, such as a RegistryStore.
func NewCounters(store debitStore, commit audit.Committer) *Counters {
	return &Counters{store, commit}
}

// Debit takes one call off every budget, or off none if one is spent. Nothing is
// read before: the statement decides, also between processes. An error means
// that nobody knows, and then nothing may be done.
func (c *Counters) Debit(ctx context.Context, budgets []delegation.Budget) (bool, error) {
	if len(budgets) == 0 {
		return true, nil
	}
	err := c.commit.Commit(ctx, audit.Change{Effects: []audit.Effect{c.store.Debit(budgets)}})
	if errors.Is(err, audit.ErrConflict) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("debiting budgets: %w", err)
	}
	return true, nil
}
