package authz

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
)

// ErrSecret says that the deployment secret does not open the keys in the
// database: it belongs to another one.
var ErrSecret = errors.New("authz: the deployment secret does not match the database")

// Algorithms that access tokens are signed with.
const (
	AlgES256   = "ES256"   // plain tokens: every JWT library knows it
	AlgEd25519 = "Ed25519" // roots of chains
	AlgRS256   = "RS256"   // made only when a resource asks for it
)

// Purposes of keys. A kid starts with its purpose: a key of one purpose is
// never taken for one of another (delegation §1).
const (
	purposeToken  = "at"     // signs access tokens
	purposeAgents = "mf"     // countersigns manifests
	purposeFeed   = "rv"     // signs the revocation feed
	purposeCookie = "cookie" // signs and encrypts browser sessions
	purposeCursor = "cursor" // signs cursors and other state handles
	purposeHandle = "handle" // authenticates codes and refresh tokens
	purposeNonce  = "nonce"  // authenticates DPoP nonces
	algSecret     = "secret"
)

// published are the purposes of keys that the JWKS document shows.
var published = map[string]bool{purposeToken: true, purposeAgents: true, purposeFeed: true}

// slot is the purpose and algorithm that the generations of a key share.
type slot struct{ purpose, alg string }

// always are the slots that every deployment has a key for.
var always = []slot{
	{purposeToken, AlgES256}, {purposeToken, AlgEd25519}, {purposeFeed, AlgEd25519},
	{purposeCookie, algSecret}, {purposeCursor, algSecret}, {purposeHandle, algSecret},
	{purposeNonce, algSecret}, {purposeAgents, AlgEd25519},
}

// keysFresh is how long keys are used before they are read again: a key that
// another process revoked is good for so long here. An unknown kid reads them
// at most once in keysRefetch, and every reading takes keysTimeout at most.
const (
	keysFresh   = time.Second
	keysRefetch = 100 * time.Millisecond
	keysTimeout = 2 * time.Second
)

// SealedKey is a key as it is stored: only the deployment secret opens it. Its
// times say what state it is in, so that replicas agree without telling each
// other.
type SealedKey struct {
	KID     string
	Slot    string // "<purpose>/<alg>/<generation>", unique: who inserts it first wins
	Purpose string // "at", "rv", "mf", "cookie", "cursor", "handle", "nonce"
	Alg     string // "ES256", "Ed25519", "RS256"; "secret" for symmetric material
	Sealed  string // base64url nonce ‖ AES-256-GCM(key), bound to kid, slot, purpose and alg
	Created time.Time
	Signs   time.Time // from when it signs
	Rests   time.Time // until when it signs; zero: until there is a newer one
	Ends    time.Time // until when what it signed is accepted; zero: no end yet
	Revoked time.Time // since when nothing of it is accepted; zero: never
}

// KeyState is where a key is in its life.
type KeyState string

// The states of a key.
const (
	KeyNext    KeyState = "next"    // published, and signs later
	KeyActive  KeyState = "active"  // signs
	KeyRetired KeyState = "retired" // signs no more; what it signed is accepted until it ends
	KeyEnded   KeyState = "ended"   // nothing that it signed is alive
	KeyRevoked KeyState = "revoked" // what it signed is refused, whatever it says
)

// KeyInfo is what may be told about a key.
type KeyInfo struct {
	KID     string
	Purpose string
	Alg     string
	Public  crypto.PublicKey // nil for symmetric material
	State   KeyState
	// Created, and from then on as in [SealedKey].
	Created, Signs, Rests, Ends, Revoked time.Time
	// Stale says that it is sealed with an older line of the deployment secret.
	Stale bool
}

// Published says that the key is in the JWKS document.
func (i KeyInfo) Published() bool {
	return published[i.Purpose] && i.State != KeyEnded && i.State != KeyRevoked
}

// KeyringConfig is what OpenKeyring needs.
type KeyringConfig struct {
	// Store holds the sealed keys.
	Store RegistryStore
	// Commit writes a change of keys together with its record.
	Commit audit.Committer
	// Secret opens them.
	Secret DeploymentSecret
	// Reread reads the secret again: before a key is sealed, and when one in
	// the database does not open. Nil: Secret is all there is.
	Reread func() (DeploymentSecret, error)
	// RotateEvery is how old a key gets before Sweep makes the next one. Zero:
	// Sweep rotates none.
	RotateEvery time.Duration
	// HandleLife is how long a refresh token lives that is not used, and so how
	// long a rotated secret still opens them. Zero: 90 days.
	HandleLife time.Duration
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

// Keyring holds the server's keys, opened. Several processes on one database
// share one set: a change by one is seen by the others within a second, and
// what a rotation plans happens everywhere at the same time of the clock. Keys
// never leave but as signatures.
type Keyring struct {
	cfg   KeyringConfig
	seals atomic.Pointer[seals]
	ring  atomic.Pointer[ring]

	reading sync.Mutex // held while the table is read, and what follows changes
	tried   time.Time  // when the keys were last read because they were old
	asked   time.Time  // when they were last read because a kid was unknown
}

// OpenKeyring opens the keys of the database and makes those that are
// missing. It returns [ErrSecret] if there are keys that cfg.Secret does not
// open; nothing is written then.
func OpenKeyring(ctx context.Context, cfg KeyringConfig) (*Keyring, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.HandleLife <= 0 {
		cfg.HandleLife = handleLife
	}
	s, err := newSeals(cfg.Secret)
	if err != nil {
		return nil, err
	}
	k := &Keyring{cfg: cfg}
	k.seals.Store(s)
	k.ring.Store(&ring{})
	if err := k.load(ctx); err != nil {
		return nil, err
	}
	if err := k.ensure(ctx, always...); err != nil {
		return nil, err
	}
	return k, nil
}

// ensure makes a key for each slot in which none signs, all in one Change: two
// processes that start at once end with one set.
func (k *Keyring) ensure(ctx context.Context, want ...slot) error {
	for range 4 {
		now, r := k.cfg.Now(), k.ring.Load()
		var change audit.Change
		for _, w := range want {
			if _, ok := r.signing(w, now); ok {
				continue
			}
			row, err := k.generate(w, r.generation(w)+1, now)
			if err != nil {
				return err
			}
			change.Effects = append(change.Effects, k.cfg.Store.InsertKey(row))
			if r.generation(w) > 0 {
				change.Effects = append(change.Effects, k.rest(row, k.overlap(w)))
			}
			change.Entries = append(change.Entries, audit.Entry{
				Action: audit.KeyCreate, Result: audit.Allowed, Resource: row.KID,
				Detail: map[string]any{"purpose": w.purpose, "alg": w.alg},
			})
		}
		if len(change.Effects) == 0 {
			return nil
		}
		// A lost insert means that another process was first: read its keys.
		if err := k.cfg.Commit.Commit(ctx, change); err != nil && !errors.Is(err, audit.ErrConflict) {
			return fmt.Errorf("storing new keys: %w", err)
		}
		if err := k.Refresh(ctx); err != nil {
			return err
		}
	}
	return errors.New("authz: keys that were stored are not in the database")
}

// Refresh reads the keys again now.
func (k *Keyring) Refresh(ctx context.Context) error {
	k.reading.Lock()
	defer k.reading.Unlock()
	// Whoever needs a key waits for this reading.
	ctx, cancel := context.WithTimeout(ctx, keysTimeout)
	defer cancel()
	return k.load(ctx)
}

// fresh returns the keys as they were a second ago at most. While the database
// is away they are what was known last: a token verifies without it.
func (k *Keyring) fresh() *ring {
	r := k.ring.Load()
	if within(k.cfg.Now(), r.loaded, keysFresh) {
		return r
	}
	return k.again(&k.tried, keysFresh)
}

// again reads the keys unless that was tried less than a pause ago for the same
// reason. Callers wait for one reading, not for many.
func (k *Keyring) again(last *time.Time, pause time.Duration) *ring {
	k.reading.Lock()
	defer k.reading.Unlock()
	if now := k.cfg.Now(); !within(now, *last, pause) {
		*last = now
		ctx, cancel := context.WithTimeout(context.Background(), keysTimeout)
		defer cancel()
		_ = k.load(ctx) // Refresh, which the server calls too, says what is wrong
		// Those who waited for it meanwhile do not begin another: a database that
		// hangs would keep the last of them for as many timeouts as there are.
		*last = k.cfg.Now()
	}
	return k.ring.Load()
}

// within says whether at was less than age ago.
func within(now, at time.Time, age time.Duration) bool {
	since := now.Sub(at)
	return since >= 0 && since < age
}

// Signer returns the key that signs access tokens with alg. The one for RS256
// is made when it is first asked for.
func (k *Keyring) Signer(ctx context.Context, alg string) (delegation.ServerKey, error) {
	switch alg {
	case AlgES256, AlgEd25519, AlgRS256:
	default:
		return delegation.ServerKey{}, fmt.Errorf("authz: access tokens are not signed with %q", alg)
	}
	key, err := k.signer(ctx, slot{purposeToken, alg})
	return delegation.ServerKey{KID: key.row.KID, Signer: key.signer}, err
}

// ManifestSigner returns the key that countersigns manifests. Its kid has the
// prefix of nothing else, so that no chain is rooted in it.
func (k *Keyring) ManifestSigner(ctx context.Context) (kid string, key agent.PrivateKey, err error) {
	own, err := k.signer(ctx, slot{purposeAgents, AlgEd25519})
	if err != nil {
		return "", agent.PrivateKey{}, err
	}
	key, err = agent.NewPrivateKey(own.signer)
	return own.row.KID, key, err
}

// feedSigner is the key that signs the feed and nothing else.
func (k *Keyring) feedSigner(ctx context.Context) (kid string, signer crypto.Signer, err error) {
	key, err := k.signer(ctx, slot{purposeFeed, AlgEd25519})
	return key.row.KID, key.signer, err
}

// signer returns the key of a slot that signs now, making one if there is none.
func (k *Keyring) signer(ctx context.Context, s slot) (openKey, error) {
	if key, ok := k.fresh().signing(s, k.cfg.Now()); ok {
		return key, nil
	}
	if err := k.ensure(ctx, s); err != nil {
		return openKey{}, err
	}
	key, ok := k.ring.Load().signing(s, k.cfg.Now())
	if !ok {
		return openKey{}, fmt.Errorf("authz: no key of %s signs with %s", s.purpose, s.alg)
	}
	return key, nil
}

// Anchor returns the public half of the access token key with that kid: what
// a verifier of this server's own tokens needs. Keys of another purpose are
// no anchors, and none is one once it ended or was revoked. An unknown kid
// reads the table again.
func (k *Keyring) Anchor(kid string) (delegation.Anchor, bool) {
	key, known := k.fresh().keys[kid]
	if !known {
		key, known = k.again(&k.asked, keysRefetch).keys[kid]
	}
	if !known || key.row.Purpose != purposeToken || !key.accepted(k.cfg.Now()) {
		return delegation.Anchor{}, false
	}
	return key.anchor, true
}

// Public lists the keys that the JWKS document shows: those that sign what
// others verify, those that will, and those that did until nothing of it is
// alive; public halves only.
func (k *Keyring) Public() []KeyInfo {
	var public []KeyInfo
	for _, info := range k.List() {
		if info.Published() {
			public = append(public, info)
		}
	}
	return public
}

// List tells of every key, oldest first.
func (k *Keyring) List() []KeyInfo {
	r, now := k.fresh(), k.cfg.Now()
	list := make([]KeyInfo, 0, len(r.order))
	for _, kid := range r.order {
		list = append(list, r.info(r.keys[kid], now))
	}
	return list
}

// Cookie returns the secrets that package people derives the keys of browser
// sessions from, 32 bytes each, the same in every process: the first seals, all
// open.
func (k *Keyring) Cookie() [][]byte { return k.derive(purposeCookie, "sessions", 32) }

// Cursor returns the keys that authenticate audit cursors, 32 bytes each: the
// first makes, all are accepted.
func (k *Keyring) Cursor() [][]byte { return k.derive(purposeCursor, "audit", 32) }

// Nonce returns the secrets that DPoP nonces are made with, 32 bytes each: the
// first makes, all are accepted.
func (k *Keyring) Nonce() [][]byte { return k.derive(purposeNonce, "dpop", 32) }

// Derive returns secrets of n bytes for authenticating what the server hands
// out and takes back, such as codes and refresh tokens: the first makes, all
// are accepted. label says what for: different labels give unrelated bytes.
func (k *Keyring) Derive(label string, n int) [][]byte { return k.derive(purposeHandle, label, n) }
