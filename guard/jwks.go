package guard

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/wellknown"
)

// ErrFetch is the root of what goes wrong when a key set is fetched.
var ErrFetch = errors.New("fetching the key set")

// JWKSConfig says where the keys of an authorization server are. Issuer and URL
// are needed.
type JWKSConfig struct {
	// Issuer is the iss of its tokens, byte for byte.
	Issuer string
	// URL is its jwks_uri.
	URL string
	// Client fetches. Nil: a client of its own that follows no redirects.
	Client *http.Client
	// Refresh is how often the set is fetched. Zero: 5 min.
	Refresh time.Duration
	// MaxStale is how old the set may get, when fetching fails, before nothing
	// is decided any more. Zero: 1 h.
	MaxStale time.Duration
	// Refetch is the least time between two fetches that an unknown kid asks
	// for. Zero: 10 s.
	Refetch time.Duration
	// Timeout bounds one fetch. Zero: 5 s.
	Timeout time.Duration
	// Now is the clock that ages the set. Nil: time.Now.
	Now func() time.Time
	// Log takes what operators should see. Nil: slog.Default.
	Log *slog.Logger
}

// JWKS is a Verifier with the keys of an authorization server, fetched over
// HTTP. A key that leaves the set verifies nothing after the next fetch. It
// owns one goroutine, which Close ends.
type JWKS struct {
	cfg JWKSConfig
	set atomic.Pointer[keySet]
	// cache is that of every set; another set than the one before empties it.
	cache *delegation.Cache
	stop  context.CancelFunc
	done  chan struct{}

	mu    sync.Mutex // held while fetching: callers wait for one fetch, not for many
	tried time.Time  // when the last fetch began
}

// keySet is one fetched set; it never changes.
type keySet struct {
	verifier delegation.Verifier
	anchors  map[string]delegation.Anchor
	feed     map[string]crypto.PublicKey // keys that sign the revocation feed
	fetched  time.Time
}

// NewJWKS starts fetching. A Config without Issuer or URL is a mistake of the
// program and panics.
func NewJWKS(cfg JWKSConfig) *JWKS {
	if cfg.Issuer == "" || cfg.URL == "" {
		panic("guard: JWKSConfig.Issuer or URL is missing")
	}
	cfg.Client = fetching(cfg.Client)
	cfg.Refresh = cmp.Or(cfg.Refresh, 5*time.Minute)
	cfg.MaxStale = cmp.Or(cfg.MaxStale, time.Hour)
	cfg.Refetch = cmp.Or(cfg.Refetch, 10*time.Second)
	cfg.Timeout = cmp.Or(cfg.Timeout, 5*time.Second)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	ctx, stop := context.WithCancel(context.Background())
	k := &JWKS{cfg: cfg, cache: delegation.NewCache(), stop: stop, done: make(chan struct{})}
	go k.run(ctx)
	return k
}

// Close ends the background refresh. Verify goes on with what it has until
// that is stale.
func (k *JWKS) Close() {
	k.stop()
	<-k.done
}

func (k *JWKS) run(ctx context.Context) {
	defer close(k.done)
	tick := time.NewTicker(k.cfg.Refresh)
	defer tick.Stop()
	for {
		if err := k.fetch(ctx); err != nil && ctx.Err() == nil {
			k.cfg.Log.WarnContext(ctx, "the key set could not be refreshed", "url", k.cfg.URL, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Verify implements Verifier. Without a set that is fresh enough the answer is
// status_unknown. An unknown kid has the set fetched again, at most once in
// JWKSConfig.Refetch.
func (k *JWKS) Verify(token string, now time.Time) (*delegation.Chain, error) {
	set := k.fresh()
	if set == nil {
		// Nothing yet, or nothing any more: try, but not for every request.
		set = k.refetch()
		if set == nil {
			return nil, &delegation.Refusal{Reason: delegation.StatusUnknown, Part: -1, Detail: "no current keys"}
		}
	}
	chain, err := set.verifier.Verify(token, now)
	if delegation.ReasonOf(err) != delegation.UnknownRoot {
		return chain, err
	}
	if newer := k.refetch(); newer != nil && newer != set {
		return newer.verifier.Verify(token, now)
	}
	return nil, err
}

// FeedKey implements FeedKeys, with the same bounds as Verify.
func (k *JWKS) FeedKey(kid string) (crypto.PublicKey, bool) {
	set := k.fresh()
	if set == nil || set.feed[kid] == nil {
		if set = k.refetch(); set == nil {
			return nil, false
		}
	}
	key, ok := set.feed[kid]
	return key, ok
}

// fresh returns the set unless it is too old.
func (k *JWKS) fresh() *keySet {
	set := k.set.Load()
	if set == nil || k.cfg.Now().Sub(set.fetched) > k.cfg.MaxStale {
		return nil
	}
	return set
}

// refetch fetches unless that was tried a moment ago, and returns the set.
func (k *JWKS) refetch() *keySet {
	if err := k.fetch(context.Background()); err != nil {
		k.cfg.Log.Warn("the key set could not be fetched", "url", k.cfg.URL, "error", err)
	}
	return k.fresh()
}

// fetch replaces the set, unless the last try began a moment ago.
func (k *JWKS) fetch(ctx context.Context) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.cfg.Now()
	if age := now.Sub(k.tried); age >= 0 && age < k.cfg.Refetch {
		return nil
	}
	k.tried = now
	ctx, cancel := context.WithTimeout(ctx, k.cfg.Timeout)
	defer cancel()
	got, err := fetch(ctx, k.cfg.Client, k.cfg.URL, "application/json", "")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFetch, err)
	}
	keys, err := wellknown.ParseJWKS(got.body)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFetch, err)
	}
	anchors := make(map[string]delegation.Anchor, len(keys))
	feed := map[string]crypto.PublicKey{}
	for _, key := range keys {
		if delegation.IsFeedKID(key.KID) {
			feed[key.KID] = key.Public
		}
		// Keys of other purposes are in the same set; their kid is no anchor's.
		if anchor, err := delegation.NewAnchor(key.KID, key.Public); err == nil {
			anchors[key.KID] = anchor
		}
	}
	if len(anchors) == 0 {
		return fmt.Errorf("%w: no key for access tokens in it", ErrFetch)
	}
	before := k.set.Load()
	k.set.Store(&keySet{
		verifier: delegation.Verifier{
			Issuer:  k.cfg.Issuer,
			Anchors: func(kid string) (delegation.Anchor, bool) { a, ok := anchors[kid]; return a, ok },
			Cache:   k.cache,
		},
		anchors: anchors, feed: feed, fetched: now,
	})
	// delegation.md §6: "any change of anchors empties it". What enters later
	// from a request that began under the set before counts only while its
	// anchor is one of the new set.
	if before != nil && !maps.EqualFunc(before.anchors, anchors, delegation.Anchor.Equal) {
		k.cache.Clear()
	}
	return nil
}
