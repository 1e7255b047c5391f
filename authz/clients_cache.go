package authz

import (
	"context"
	"sync"
	"time"
)

// cachedClient is Client with answers up to a second old, for endpoints that
// authenticate clients on every call. Only clients that exist are kept.
func (g *Registry) cachedClient(ctx context.Context, id string) (Client, error) {
	return g.clients.read(id, g.now(), func() (Client, error) { return g.Client(ctx, id) })
}

const (
	recentlyRead = time.Second
	recentKept   = 1024
)

// recent keeps what was read from the database not long ago, for the hot paths
// (design D2: "at most one database round trip beyond the commit of their
// record"). It is bounded in time and size. What must be true at this moment,
// such as that something is not revoked, is not read through it.
type recent[T any] struct {
	mu   sync.Mutex // guards kept
	kept map[string]reading[T]
}

type reading[T any] struct {
	value T
	at    time.Time
}

// read returns what is kept under an id, or reads and keeps it. Errors are not
// kept.
func (c *recent[T]) read(id string, now time.Time, read func() (T, error)) (T, error) {
	c.mu.Lock()
	kept, ok := c.kept[id]
	c.mu.Unlock()
	if age := now.Sub(kept.at); ok && age >= 0 && age < recentlyRead {
		return kept.value, nil
	}
	value, err := read()
	if err != nil {
		return value, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept == nil || len(c.kept) >= recentKept {
		c.kept = map[string]reading[T]{}
	}
	c.kept[id] = reading[T]{value, now}
	return value, nil
}

// forget makes the next reading a new one.
func (c *recent[T]) forget(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.kept, id)
}
