package authz

import (
	"context"
	"crypto"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/delegation"
)

// ring is the keys as they were read once; it never changes. What state a key
// is in depends on the time too.
type ring struct {
	keys   map[string]openKey
	order  []string          // kids, oldest first
	slots  map[slot][]string // kids, newest generation first
	loaded time.Time         // zero: never
}

// openKey is a key with what the seal held.
type openKey struct {
	row    SealedKey
	sealed string            // what was opened; row.Sealed may be newer
	anchor delegation.Anchor // of keys that sign access tokens
	signer crypto.Signer     // nil for symmetric material
	secret []byte            // symmetric material
	stale  bool              // sealed with an older line of the deployment secret
}

// accepted says whether what the key signed is accepted: also before it signs
// here, because a replica whose clock is ahead may be signing with it.
func (o openKey) accepted(now time.Time) bool {
	return o.row.Revoked.IsZero() && (o.row.Ends.IsZero() || now.Before(o.row.Ends))
}

// signs says whether the key may sign.
func (o openKey) signs(now time.Time) bool {
	return o.accepted(now) && !now.Before(o.row.Signs) && (o.row.Rests.IsZero() || now.Before(o.row.Rests))
}

// generation is the number at the end of a slot.
func (row SealedKey) generation() int {
	n, err := strconv.Atoi(row.Slot[strings.LastIndexByte(row.Slot, '/')+1:])
	if err != nil {
		return 0
	}
	return n
}

// signing returns the key that signs: the newest that may.
func (r *ring) signing(s slot, now time.Time) (openKey, bool) {
	for _, kid := range r.slots[s] {
		if key := r.keys[kid]; key.signs(now) {
			return key, true
		}
	}
	return openKey{}, false
}

// planned returns the newest key of a slot if it will sign later.
func (r *ring) planned(s slot, now time.Time) (openKey, bool) {
	if len(r.slots[s]) == 0 {
		return openKey{}, false
	}
	key := r.keys[r.slots[s][0]]
	return key, key.accepted(now) && now.Before(key.row.Signs) && key.row.Rests.IsZero()
}

// generation is the newest of a slot, 0 if there is none.
func (r *ring) generation(s slot) int {
	if len(r.slots[s]) == 0 {
		return 0
	}
	return r.keys[r.slots[s][0]].row.generation()
}

// info tells of a key.
func (r *ring) info(key openKey, now time.Time) KeyInfo {
	row := key.row
	info := KeyInfo{
		KID: row.KID, Purpose: row.Purpose, Alg: row.Alg, State: KeyRetired, Stale: key.stale,
		Created: row.Created, Signs: row.Signs, Rests: row.Rests, Ends: row.Ends, Revoked: row.Revoked,
	}
	if key.signer != nil {
		info.Public = key.signer.Public()
	}
	current, _ := r.signing(slot{row.Purpose, row.Alg}, now)
	switch {
	case !row.Revoked.IsZero():
		info.State = KeyRevoked
	case !key.accepted(now):
		info.State = KeyEnded
	case current.row.KID == row.KID:
		info.State = KeyActive
	case now.Before(row.Signs) && (row.Rests.IsZero() || row.Signs.Before(row.Rests)):
		info.State = KeyNext
	}
	return info
}

// load reads the table. A key that cannot be opened does not keep the state of
// the others from being known: it is left out, or stays as it was opened
// before, and load says so. It is called with k.reading held, or before anybody
// else has k.
func (k *Keyring) load(ctx context.Context) error {
	now := k.cfg.Now()
	rows, err := k.cfg.Store.Keys(ctx)
	if err != nil {
		return fmt.Errorf("reading keys: %w", err)
	}
	before := k.ring.Load()
	r := &ring{keys: make(map[string]openKey, len(rows)), slots: map[slot][]string{}, loaded: now}
	var closed []error
	for _, row := range rows {
		key, known := before.keys[row.KID]
		if !known || key.sealed != row.Sealed {
			opened, err := k.open(row)
			if err != nil {
				closed = append(closed, err)
				if !known {
					continue
				}
			} else {
				key = opened
			}
		}
		key.row = row
		r.keys[row.KID] = key
		r.order = append(r.order, row.KID)
		r.place(slot{row.Purpose, row.Alg}, key)
	}
	k.ring.Store(r)
	return errors.Join(closed...)
}

// place puts a key where its generation belongs, newest first.
func (r *ring) place(s slot, key openKey) {
	kids := r.slots[s]
	i := 0
	for i < len(kids) && r.keys[kids[i]].row.generation() > key.row.generation() {
		i++
	}
	r.slots[s] = append(kids[:i:i], append([]string{key.row.KID}, kids[i:]...)...)
}

// secrets are the symmetric keys of a purpose that are accepted, the one that
// makes new things first.
func (r *ring) secrets(purpose string, now time.Time) [][]byte {
	s := slot{purpose, algSecret}
	current, ok := r.signing(s, now)
	var list [][]byte
	if ok {
		list = append(list, current.secret)
	}
	for _, kid := range r.slots[s] {
		if key := r.keys[kid]; kid != current.row.KID && key.accepted(now) {
			list = append(list, key.secret)
		}
	}
	return list
}

// derive returns bytes of each secret of a purpose. If none is left, because
// the last was revoked a moment ago and its replacement is not stored yet, there
// is one that nothing was made with and nothing will be accepted of.
func (k *Keyring) derive(purpose, label string, n int) [][]byte {
	secrets := k.fresh().secrets(purpose, k.cfg.Now())
	if len(secrets) == 0 {
		secrets = [][]byte{randomBytes(32)}
	}
	for i, secret := range secrets {
		out, err := hkdf.Expand(sha256.New, secret, "kavach "+purpose+" "+label, n)
		if err != nil {
			panic("authz: " + err.Error()) // n is a constant of the program, within HKDF's limit
		}
		secrets[i] = out
	}
	return secrets
}
