package authz

import (
	"context"
	"sync"
	"time"
)

// cachedClient is Client with answers up to a second old, for endpoints that
// authenticate clients on every call. Only clients that exist are kept.
func (g *Registry) cachedClient(ctx context.Context, id string) (Client, error) {
	now := g.now()
	if c, ok := g.clients.get(id, now); ok {
		return c, nil
	}
	c, err := g.Client(ctx, id)
	if err == nil {
		g.clients.put(c, now)
	}
	return c, err
}

const (
	clientStale = time.Second
	clientsKept = 1024
)

// clientCache is bounded in time and size.
type clientCache struct {
	mu   sync.Mutex // guards kept
	kept map[string]cachedClient
}

type cachedClient struct {
	client Client
	read   time.Time
}

func (cc *clientCache) get(id string, now time.Time) (Client, bool) {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	c, ok := cc.kept[id]
	if age := now.Sub(c.read); !ok || age < 0 || age >= clientStale {
		return Client{}, false
	}
	return c.client, true
}

func (cc *clientCache) put(c Client, now time.Time) {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	if cc.kept == nil || len(cc.kept) >= clientsKept {
		cc.kept = map[string]cachedClient{}
	}
	cc.kept[c.ID] = cachedClient{c, now}
}
