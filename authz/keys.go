package authz

import (
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"sort"
	"sync"
	"time"

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

const (
	keysStale   = 5 * time.Second // another process's new key is seen after this
	keysRefetch = time.Second     // an unknown kid reads the table at most this often
)

// SealedKey is a key as it is stored: only the deployment secret opens it.
type SealedKey struct {
	KID     string
	Slot    string // "<purpose>/<alg>/<generation>", unique: who inserts it first wins
	Purpose string // "at", "rv", "mf", "cookie", "cursor", "handle", "nonce"
	Alg     string // "ES256", "Ed25519", "RS256"; "secret" for symmetric material
	Sealed  string // base64url nonce ‖ AES-256-GCM(key), bound to kid, slot, purpose and alg
	Created time.Time
}

// KeyInfo is what may be told about a key.
type KeyInfo struct {
	KID     string
	Purpose string
	Alg     string
	Created time.Time
	Public  crypto.PublicKey // nil for symmetric material
}

// KeyringConfig is what OpenKeyring needs.
type KeyringConfig struct {
	// Store holds the sealed keys.
	Store RegistryStore
	// Commit writes a new key together with its record.
	Commit audit.Committer
	// Secret opens them.
	Secret DeploymentSecret
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

// Keyring holds the server's keys, one per purpose and algorithm, opened.
// Several processes on one database share one set: the first to insert a key
// wins and the others read it. Keys never leave but as signatures.
type Keyring struct {
	cfg  KeyringConfig
	aead cipher.AEAD

	mu     sync.RWMutex // guards what follows
	keys   map[string]openKey
	slots  map[string]string // newest kid by "<purpose>/<alg>"
	loaded time.Time
	asked  time.Time // last read because of an unknown kid
}

type openKey struct {
	info   KeyInfo
	anchor delegation.Anchor // of keys that sign access tokens
	signer crypto.Signer     // nil for symmetric material
	secret []byte            // symmetric material
}

// OpenKeyring opens the keys of the database and makes those that are
// missing. It returns [ErrSecret] if there are keys that cfg.Secret does not
// open; nothing is written then.
func OpenKeyring(ctx context.Context, cfg KeyringConfig) (*Keyring, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	kek, err := hkdf.Key(sha256.New, cfg.Secret.key[:], nil, "kavach keys at rest v1", 32)
	if err != nil {
		return nil, fmt.Errorf("deriving the sealing key: %w", err)
	}
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, fmt.Errorf("making the sealing cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("making the sealing cipher: %w", err)
	}
	k := &Keyring{cfg: cfg, aead: aead}
	if err := k.load(ctx); err != nil {
		return nil, err
	}
	if err := k.ensure(ctx,
		[2]string{purposeToken, AlgES256}, [2]string{purposeToken, AlgEd25519}, [2]string{purposeFeed, AlgEd25519},
		[2]string{purposeCookie, algSecret}, [2]string{purposeCursor, algSecret}, [2]string{purposeHandle, algSecret},
		[2]string{purposeNonce, algSecret}, [2]string{purposeAgents, AlgEd25519},
	); err != nil {
		return nil, err
	}
	return k, nil
}

// load reads and opens every key.
func (k *Keyring) load(ctx context.Context) error {
	rows, err := k.cfg.Store.Keys(ctx)
	if err != nil {
		return fmt.Errorf("reading keys: %w", err)
	}
	now := k.cfg.Now()
	keys, slots := map[string]openKey{}, map[string]string{}
	for _, row := range rows { // oldest first: the newest of a slot stays
		key, err := k.open(row)
		if err != nil {
			return err
		}
		keys[row.KID] = key
		slots[row.Purpose+"/"+row.Alg] = row.KID
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys, k.slots, k.loaded = keys, slots, now
	return nil
}

// ensure makes the keys that are missing, all in one Change: two processes
// that start at once end with one set.
func (k *Keyring) ensure(ctx context.Context, want ...[2]string) error {
	for range 4 {
		var change audit.Change
		for _, w := range want {
			if k.has(w[0], w[1]) {
				continue
			}
			row, err := k.generate(w[0], w[1])
			if err != nil {
				return err
			}
			change.Effects = append(change.Effects, k.cfg.Store.InsertKey(row))
			change.Entries = append(change.Entries, audit.Entry{
				Action: audit.KeyCreate, Result: audit.Allowed, Resource: row.KID,
				Detail: map[string]any{"purpose": w[0], "alg": w[1]},
			})
		}
		if len(change.Effects) == 0 {
			return nil
		}
		// A lost insert means that another process was first: read its keys.
		if err := k.cfg.Commit.Commit(ctx, change); err != nil && !errors.Is(err, audit.ErrConflict) {
			return fmt.Errorf("storing new keys: %w", err)
		}
		if err := k.load(ctx); err != nil {
			return err
		}
	}
	return errors.New("authz: keys that were stored are not in the database")
}

func (k *Keyring) has(purpose, alg string) bool {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.slots[purpose+"/"+alg] != ""
}

// generate makes a key and seals it.
func (k *Keyring) generate(purpose, alg string) (SealedKey, error) {
	var material []byte
	var signer crypto.Signer
	var err error
	switch alg {
	case AlgES256:
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case AlgEd25519:
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	case AlgRS256:
		signer, err = rsa.GenerateKey(rand.Reader, 2048)
	case algSecret:
		material = make([]byte, 32)
		rand.Read(material)
	default:
		return SealedKey{}, fmt.Errorf("authz: no keys for algorithm %q", alg)
	}
	if err == nil && signer != nil {
		material, err = x509.MarshalPKCS8PrivateKey(signer)
	}
	if err != nil {
		return SealedKey{}, fmt.Errorf("making a key: %w", err)
	}
	row := SealedKey{
		KID: purpose + "-" + randomID(12), Slot: purpose + "/" + alg + "/1",
		Purpose: purpose, Alg: alg, Created: k.cfg.Now(),
	}
	nonce := make([]byte, k.aead.NonceSize())
	rand.Read(nonce)
	sealed := k.aead.Seal(nonce, nonce, material, row.binding())
	row.Sealed = base64.RawURLEncoding.EncodeToString(sealed)
	return row, nil
}

// binding is what the seal is bound to: a database cannot pass one key off as
// another.
func (row SealedKey) binding() []byte {
	return []byte(row.KID + "\n" + row.Slot + "\n" + row.Purpose + "\n" + row.Alg)
}

func (k *Keyring) open(row SealedKey) (openKey, error) {
	sealed, err := base64.RawURLEncoding.DecodeString(row.Sealed)
	if err != nil || len(sealed) < k.aead.NonceSize() {
		return openKey{}, fmt.Errorf("opening key %s: %w", row.KID, ErrSecret)
	}
	n := k.aead.NonceSize()
	material, err := k.aead.Open(nil, sealed[:n], sealed[n:], row.binding())
	if err != nil {
		return openKey{}, fmt.Errorf("opening key %s: %w", row.KID, ErrSecret)
	}
	key := openKey{info: KeyInfo{KID: row.KID, Purpose: row.Purpose, Alg: row.Alg, Created: row.Created}}
	if row.Alg == algSecret {
		key.secret = material
		return key, nil
	}
	parsed, err := x509.ParsePKCS8PrivateKey(material)
	if err != nil {
		return openKey{}, fmt.Errorf("opening key %s: %w", row.KID, err)
	}
	signer, ok := parsed.(crypto.Signer)
	if !ok {
		return openKey{}, fmt.Errorf("opening key %s: it cannot sign", row.KID)
	}
	key.signer, key.info.Public = signer, signer.Public()
	if row.Purpose == purposeToken {
		if key.anchor, err = delegation.NewAnchor(row.KID, key.info.Public); err != nil {
			return openKey{}, fmt.Errorf("opening key %s: %w", row.KID, err)
		}
	}
	return key, nil
}

// Signer returns the key that signs access tokens with alg. The one for RS256
// is made when it is first asked for.
func (k *Keyring) Signer(ctx context.Context, alg string) (delegation.ServerKey, error) {
	switch alg {
	case AlgES256, AlgEd25519, AlgRS256:
	default:
		return delegation.ServerKey{}, fmt.Errorf("authz: access tokens are not signed with %q", alg)
	}
	if err := k.ensure(ctx, [2]string{purposeToken, alg}); err != nil {
		return delegation.ServerKey{}, err
	}
	k.mu.RLock()
	defer k.mu.RUnlock()
	key := k.keys[k.slots[purposeToken+"/"+alg]]
	return delegation.ServerKey{KID: key.info.KID, Signer: key.signer}, nil
}

// Refresh reads the keys again if they are older than 5 s: so long a key that
// another process made may be unknown here.
func (k *Keyring) Refresh(ctx context.Context) error {
	k.mu.RLock()
	age := k.cfg.Now().Sub(k.loaded)
	k.mu.RUnlock()
	if age >= 0 && age < keysStale {
		return nil
	}
	return k.load(ctx)
}

// Anchor returns the public half of the access token key with that kid: what
// a verifier of this server's own tokens needs. Keys of another purpose are
// no anchors. An unknown kid reads the table again, at most once a second.
func (k *Keyring) Anchor(kid string) (delegation.Anchor, bool) {
	if a, ok := k.anchor(kid); ok {
		return a, true
	}
	k.mu.Lock()
	now := k.cfg.Now()
	due := now.Sub(k.asked) >= keysRefetch || now.Before(k.asked)
	if due {
		k.asked = now
	}
	k.mu.Unlock()
	if !due {
		return delegation.Anchor{}, false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := k.load(ctx); err != nil {
		return delegation.Anchor{}, false
	}
	return k.anchor(kid)
}

func (k *Keyring) anchor(kid string) (delegation.Anchor, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	key, ok := k.keys[kid]
	if !ok || key.info.Purpose != purposeToken {
		return delegation.Anchor{}, false
	}
	return key.anchor, true
}

// Public lists the keys that the JWKS document shows: those that sign what
// others verify, public halves only.
func (k *Keyring) Public() []KeyInfo {
	var public []KeyInfo
	for _, info := range k.List() {
		if published[info.Purpose] {
			public = append(public, info)
		}
	}
	return public
}

// List tells of every key, oldest first.
func (k *Keyring) List() []KeyInfo {
	k.mu.RLock()
	list := make([]KeyInfo, 0, len(k.keys))
	for _, key := range k.keys {
		list = append(list, key.info)
	}
	k.mu.RUnlock()
	sort.Slice(list, func(i, j int) bool {
		if !list[i].Created.Equal(list[j].Created) {
			return list[i].Created.Before(list[j].Created)
		}
		return list[i].KID < list[j].KID
	})
	return list
}

// Cookie returns the secret that package people derives the keys of browser
// sessions from: 32 bytes, the same in every process.
func (k *Keyring) Cookie() []byte { return k.derive(purposeCookie, "sessions", 32) }

// Cursor returns the key that authenticates audit cursors: 32 bytes.
func (k *Keyring) Cursor() []byte { return k.derive(purposeCursor, "audit", 32) }

// Nonce returns the secret that [Nonces] are made with: 32 bytes, the same in
// every process.
func (k *Keyring) Nonce() []byte { return k.derive(purposeNonce, "dpop", 32) }

// Derive returns n bytes for authenticating what the server hands out and
// takes back, such as codes and refresh tokens. label says what for: different
// labels give unrelated bytes.
func (k *Keyring) Derive(label string, n int) []byte { return k.derive(purposeHandle, label, n) }

func (k *Keyring) derive(purpose, label string, n int) []byte {
	k.mu.RLock()
	defer k.mu.RUnlock()
	secret := k.keys[k.slots[purpose+"/"+algSecret]].secret
	out, err := hkdf.Expand(sha256.New, secret, "kavach "+purpose+" "+label, n)
	if err != nil {
		panic("authz: " + err.Error()) // n is a constant of the program, within HKDF's limit
	}
	return out
}
