package guard

import (
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/kavach-dev/kavach/delegation"
)

// FeedPath is where an issuer serves its revocation feed.
const FeedPath = "/revocations"

// ErrFeed is the root of what goes wrong when a feed is fetched.
var ErrFeed = errors.New("fetching the revocation feed")

// FeedKeys knows the keys that sign an issuer's feed. A *JWKS is such.
type FeedKeys interface {
	// FeedKey returns the key of a kid that begins with rv-, and false if the
	// issuer has no such key.
	FeedKey(kid string) (crypto.PublicKey, bool)
}

// FeedConfig says where the revocations of an authorization server are. Issuer
// and Keys are needed.
type FeedConfig struct {
	// Issuer is the iss of the feed, byte for byte.
	Issuer string
	// URL is where the feed is. Empty: Issuer and FeedPath.
	URL string
	// Keys verifies the feed: the JWKS that also verifies the tokens.
	Keys FeedKeys
	// Stale says what happens while the feed is stale. The zero value refuses
	// side effects.
	Stale StalePolicy
	// Client fetches. Nil: a client of its own that follows no redirects.
	Client *http.Client
	// Poll is how often the feed is fetched, and so how long after a revocation
	// a token may still be good here. Zero: 5 s, which is how long caches keep
	// it.
	Poll time.Duration
	// Timeout bounds one fetch. Zero: 5 s.
	Timeout time.Duration
	// Now is the clock that ages the feed. Nil: time.Now.
	Now func() time.Time
	// Log takes what operators should see. Nil: slog.Default.
	Log *slog.Logger
}

// Feed is a Revocations that polls the signed feed of an authorization server
// (delegation.md §9). It takes no feed that is older than the one it has, and
// relies on none for longer than the minute that the feed itself allows; what
// happens then is FeedConfig.Stale. It owns one goroutine, which Close ends.
type Feed struct {
	cfg   FeedConfig
	held  atomic.Pointer[delegation.Feed]
	etag  string // of what is held; the goroutine's alone
	first chan struct{}
	stop  context.CancelFunc
	done  chan struct{}
}

// NewFeed starts polling. A FeedConfig without Issuer or Keys is a mistake of
// the program and panics.
func NewFeed(cfg FeedConfig) *Feed {
	if cfg.Issuer == "" || cfg.Keys == nil {
		panic("guard: FeedConfig.Issuer or Keys is missing")
	}
	if !cfg.Stale.known() {
		panic("guard: FeedConfig.Stale is no policy")
	}
	cfg.URL = cmp.Or(cfg.URL, cfg.Issuer+FeedPath)
	cfg.Client = fetching(cfg.Client)
	cfg.Poll = cmp.Or(cfg.Poll, 5*time.Second)
	cfg.Timeout = cmp.Or(cfg.Timeout, 5*time.Second)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	ctx, stop := context.WithCancel(context.Background())
	f := &Feed{cfg: cfg, stop: stop, first: make(chan struct{}), done: make(chan struct{})}
	go f.run(ctx)
	return f
}

// Close ends the polling. Revoked goes on with what there is until that is
// stale.
func (f *Feed) Close() {
	f.stop()
	<-f.done
}

func (f *Feed) run(ctx context.Context) {
	defer close(f.done)
	tick := time.NewTicker(f.cfg.Poll)
	defer tick.Stop()
	failing, began := false, false
	for {
		err := f.fetch(ctx)
		if ctx.Err() != nil {
			if !began {
				close(f.first)
			}
			return
		}
		// Once an outage, not once a poll.
		if err != nil && !failing {
			f.cfg.Log.WarnContext(ctx, "the revocation feed could not be fetched", "url", f.cfg.URL, "error", err)
		} else if err == nil && failing {
			f.cfg.Log.InfoContext(ctx, "the revocation feed is back", "url", f.cfg.URL)
		}
		failing = err != nil
		if !began {
			began = true
			close(f.first)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Revoked implements Revocations. While there is no fresh feed the error is a
// *StaleError, and the answer what the feed of before says: what was revoked
// stays so. A request that comes before the first fetch has ended waits for it.
func (f *Feed) Revoked(ctx context.Context, chain *delegation.Chain) (bool, error) {
	select {
	case <-f.first:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	feed := f.held.Load()
	revoked := feed.Revokes(chain)
	if !feed.Fresh(f.cfg.Now()) {
		stale := &StaleError{Policy: f.cfg.Stale}
		if feed != nil {
			stale.Since = feed.Expires()
		}
		return revoked, stale
	}
	return revoked, nil
}

// Held returns the feed that is held, nil before the first. It may be stale.
func (f *Feed) Held() *delegation.Feed { return f.held.Load() }

// fetch replaces what is held by what the issuer serves, unless that is older.
func (f *Feed) fetch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	got, err := fetch(ctx, f.cfg.Client, f.cfg.URL, "application/jwt", f.etag)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrFeed, err)
	}
	held := f.held.Load()
	if got.unchanged {
		if !held.Fresh(f.cfg.Now()) {
			f.etag = "" // ask for all of it: somebody on the way serves an old one
			return fmt.Errorf("%w: stale, and said not to have changed", ErrFeed)
		}
		return nil
	}
	feed, err := delegation.VerifyFeed(string(got.body), f.cfg.Issuer, f.cfg.Keys.FeedKey, f.cfg.Now())
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrFeed, err)
	case feed.Older(held):
		// A cache or a replica that is behind: nothing is taken back.
		return fmt.Errorf("%w: older than the one before", ErrFeed)
	case !feed.Fresh(f.cfg.Now()):
		return fmt.Errorf("%w: stale", ErrFeed)
	}
	f.held.Store(feed)
	f.etag = got.etag
	return nil
}
