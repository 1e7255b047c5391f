package authz

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
)

// ErrNotFound says that the store holds no such row.
var ErrNotFound = errors.New("authz: not found")

// RegistrationPolicy says who may register a client at /oauth/register.
type RegistrationPolicy string

// The registration policies.
const (
	RegistrationOpen  RegistrationPolicy = "open"  // anybody, rate-limited
	RegistrationToken RegistrationPolicy = "token" // with the initial access token
	RegistrationOff   RegistrationPolicy = "off"   // nobody: the endpoint is not there
)

// Refusals takes refusals to callers that did not authenticate; [audit.Log] is
// one. They are recorded without being waited for and summarised when there
// are many.
type Refusals interface {
	Refuse(source, endpoint string, e audit.Entry)
}

// RegistryConfig is what a Registry is made of.
type RegistryConfig struct {
	// Issuer is the configured issuer URL, without a trailing slash.
	Issuer string
	// Store is the database.
	Store RegistryStore
	// Flows is the part of it that knows refresh tokens. Nil: there are none.
	Flows FlowStore
	// Commit writes what is decided together with its record.
	Commit audit.Committer
	// Refusals records refusals to callers that did not authenticate.
	Refusals Refusals
	// Keys verifies. Nil, for commands that only list and add: no token
	// verifies.
	Keys *Keyring
	// Agents is the part of the database that knows agents. Nil: there are
	// none.
	Agents AgentStore
	// Registration is the policy of /oauth/register. Empty: open.
	Registration RegistrationPolicy
	// RegistrationTokenHash is the HashSecret of the initial access token that
	// RegistrationToken asks for.
	RegistrationTokenHash string
	// RegistrationRate is how many registrations one address (one /64 of
	// IPv6) may send in a minute. Zero: 60.
	RegistrationRate int
	// UnusedClientAge is when a registration that was never used is reaped.
	// Zero: 24 h.
	UnusedClientAge time.Duration
	// PrivateRedirects are the redirect URIs with a private-use scheme that
	// are accepted, byte for byte. Nil: Cursor's.
	PrivateRedirects []string
	// TrustedProxies may say in X-Forwarded-For whom they speak for.
	TrustedProxies []netip.Prefix
	// BaselineScopes of ISSUER/mcp: what is given when nothing is asked and
	// what metadata advertises. Nil: kavach:verify kavach:delegate kavach:audit.
	BaselineScopes []string
	// Nonces makes and checks the nonces of DPoP proofs. Nil: none is asked for.
	Nonces Nonces
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
	// Log takes what operators should see. Nil: discarded.
	Log *slog.Logger
}

// Registry is what the authorization server knows, and asks about with every
// decision: clients, resources and their scopes, and what was revoked. Its
// methods are safe for concurrent use.
type Registry struct {
	cfg       RegistryConfig
	verifier  *delegation.Verifier
	wellKnown http.Handler
	limiter   limiter
	clients   recent[Client]
	held      held
	feed      feed

	keyLimiter limiter // holders that revoke keys, by address

	mu          sync.Mutex // guards what follows
	catalog     *Catalog
	catalogRead time.Time
}

// NewRegistry makes a Registry. It reads and writes nothing yet.
func NewRegistry(cfg RegistryConfig) (*Registry, error) {
	for _, missing := range []struct {
		absent bool
		name   string
	}{
		{cfg.Issuer == "", "Issuer"}, {cfg.Store == nil, "Store"}, {cfg.Commit == nil, "Commit"},
		{cfg.Refusals == nil, "Refusals"},
	} {
		if missing.absent {
			return nil, errors.New("authz: RegistryConfig." + missing.name + " is missing")
		}
	}
	switch cfg.Registration {
	case "":
		cfg.Registration = RegistrationOpen
	case RegistrationOpen, RegistrationOff:
	case RegistrationToken:
		if cfg.RegistrationTokenHash == "" {
			return nil, errors.New("authz: registration by token needs RegistrationTokenHash")
		}
	default:
		return nil, fmt.Errorf("authz: registration is open, token or off, not %q", cfg.Registration)
	}
	if cfg.RegistrationRate <= 0 {
		cfg.RegistrationRate = 60
	}
	if cfg.UnusedClientAge <= 0 {
		cfg.UnusedClientAge = 24 * time.Hour
	}
	if cfg.PrivateRedirects == nil {
		cfg.PrivateRedirects = []string{cursorRedirect}
	}
	if cfg.BaselineScopes == nil {
		cfg.BaselineScopes = defaultBaseline
	}
	if err := checkBaseline(cfg.BaselineScopes); err != nil {
		return nil, err
	}
	cfg.BaselineScopes = slices.Clone(cfg.BaselineScopes)
	slices.Sort(cfg.BaselineScopes)
	cfg.BaselineScopes = slices.Compact(cfg.BaselineScopes)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	g := &Registry{
		cfg:        cfg,
		verifier:   &delegation.Verifier{Issuer: cfg.Issuer, Cache: delegation.NewCache()},
		limiter:    limiter{perMinute: cfg.RegistrationRate},
		keyLimiter: limiter{perMinute: heldKeysPerMinute},
	}
	if cfg.Keys != nil {
		g.verifier.Anchors = cfg.Keys.Anchor
	}
	g.wellKnown = g.newWellKnown()
	return g, nil
}

// checkBaseline: what everybody is offered must be what everybody holds.
// "audit:read is never in a baseline" (mcp.md §3).
func checkBaseline(scopes []string) error {
	anybody := Holder{ID: "usr_", Role: "member", Active: true}
	catalog := newCatalog("", nil, nil)
	for _, s := range scopes {
		if !catalog.holds(anybody, s) {
			return fmt.Errorf("authz: scope %q cannot be in the baseline: not everybody holds it", s)
		}
	}
	return nil
}

func (g *Registry) now() time.Time { return g.cfg.Now() }

// Verifier verifies this server's own tokens: steps 0 to 12 of delegation §6.
func (g *Registry) Verifier() *delegation.Verifier { return g.verifier }

// WellKnown serves everything below /.well-known/.
func (g *Registry) WellKnown() http.Handler { return g.wellKnown }

// Settle reads keys again that another process may have changed, and tries
// again to commit the revocations that the database did not take. The server
// calls it once a second: so long replicas may disagree about either.
func (g *Registry) Settle(ctx context.Context) error {
	g.held.expire(g.now())
	var keys error
	if g.cfg.Keys != nil {
		keys = g.cfg.Keys.Refresh(ctx)
	}
	return errors.Join(keys, g.commitHeld(ctx))
}

// Expired lists what may be removed of the tables of the registry: what is
// remembered about tokens, keys and proofs that have expired.
func (g *Registry) Expired() []audit.Expired {
	ended := g.now().Add(-audit.ClockSkew)
	return []audit.Expired{
		g.cfg.Store.ExpiredRevocations(ended), g.cfg.Store.ExpiredReplays(ended),
		g.cfg.Store.ExpiredCounters(ended.Add(-delegation.CounterGrace)), g.cfg.Store.ExpiredAgentKeys(ended),
	}
}

// reapBatch is how many clients are looked up at once to be removed.
const reapBatch = 256

// Reap removes registered clients that nobody used: "unused registrations
// reaped, live ones never" (§3). Each has its record, so it is a Change of its
// own. Several processes may do so at once. It returns how many it removed.
func (g *Registry) Reap(ctx context.Context) (int, error) {
	removed := 0
	for ctx.Err() == nil {
		before := removed
		ids, err := g.cfg.Store.UnusedClients(ctx, g.now().Add(-g.cfg.UnusedClientAge), reapBatch)
		if err != nil {
			return removed, err
		}
		for _, id := range ids {
			err := g.cfg.Commit.Commit(ctx, audit.Change{
				Effects: []audit.Effect{g.cfg.Store.DeleteUnusedClient(id)},
				Entries: []audit.Entry{{
					Action: audit.ClientRemove, Resource: id, Result: audit.Allowed, Reason: "unused",
				}},
			})
			switch {
			case err == nil:
				removed++
			case !errors.Is(err, audit.ErrConflict): // a conflict: it was used meanwhile, or another process was faster
				return removed, fmt.Errorf("reaping client %s: %w", id, err)
			}
		}
		if len(ids) < reapBatch || removed == before {
			break
		}
	}
	return removed, nil
}
