package authz

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/audit"
)

// Replays remembers in the database what may be presented once, for every
// process that shares it: the replay store of DPoP proofs at kavach's own
// resources. The token endpoint spends a proof in the Change of its answer
// instead.
type Replays struct {
	store  onceStore
	commit audit.Committer
}

// onceStore is the part of the database that Replays needs.
type onceStore interface {
	// Once must hit one row: key was presented for the first time.
	Once(key string, until time.Time) audit.Effect
}

// NewReplays makes Replays on a store, such as a RegistryStore.
func NewReplays(store onceStore, commit audit.Committer) *Replays { return &Replays{store, commit} }

// Once reports whether key is presented for the first time, and remembers it
// until then. Nothing is read before: the insert decides. An error means that
// nobody knows.
func (r *Replays) Once(ctx context.Context, key string, until time.Time) (bool, error) {
	err := r.commit.Commit(ctx, audit.Change{Effects: []audit.Effect{r.store.Once(key, until)}})
	if errors.Is(err, audit.ErrConflict) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("remembering what may come once: %w", err)
	}
	return true, nil
}
