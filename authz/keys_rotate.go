package authz

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/audit"
)

const (
	// KeyLead is how long a new key is published before it signs, unless
	// somebody says otherwise: longer than resource servers keep a key set
	// without looking again.
	KeyLead = 10 * time.Minute
	// KeyLeadLeast is the shortest such time: the key set may be cached for a
	// minute, and a replica reads the keys every second.
	KeyLeadLeast = time.Minute + 5*time.Second
	// keySpread is how soon a key signs that shall sign at once: every replica
	// has read it then.
	keySpread = 2 * time.Second

	// signedLife is how long what a published key signed may be alive: access
	// tokens and countersignatures live an hour at most, and clocks differ.
	signedLife = maxAccessTTL + 5*time.Minute
	// cookieLife is that of a session (people.Config.Absolute), cursorLife that
	// of a place in a list, nonceLife of a nonce, handleLife of a refresh token
	// unless KeyringConfig says otherwise.
	cookieLife = 7*24*time.Hour + 5*time.Minute
	cursorLife = 24 * time.Hour
	nonceLife  = 10 * time.Minute
	handleLife = 90 * 24 * time.Hour

	// keysKept is how long a key is told of after its end.
	keysKept = 24 * time.Hour
	// maxAlive bounds the keys of one purpose and algorithm that are accepted at
	// a time: readers of a key set take 256 keys.
	maxAlive = 48
)

// overlap is how long what a key made is accepted after it stopped signing.
func (k *Keyring) overlap(s slot) time.Duration {
	switch s.purpose {
	case purposeCookie:
		return cookieLife
	case purposeCursor:
		return cursorLife
	case purposeNonce:
		return nonceLife
	case purposeHandle:
		return k.cfg.HandleLife + 5*time.Minute
	}
	return signedLife
}

// rest makes the other keys of a slot rest when a new one signs.
func (k *Keyring) rest(next SealedKey, overlap time.Duration) audit.Effect {
	return k.cfg.Store.RestKeys(next.Purpose, next.Alg, next.KID, next.Signs, next.Signs.Add(overlap))
}

// Rotation says which keys are replaced, and when.
type Rotation struct {
	// Purpose and Alg choose keys. Empty: all.
	Purpose, Alg string
	// After is how long the new key is published before it signs. Zero: KeyLead;
	// KeyLeadLeast at least.
	After time.Duration
	// AtOnce, in place of After, makes the new key sign as soon as every replica
	// knows it. One that is published already is taken. Who keeps a key set
	// without looking again for an unknown key refuses its tokens for so long.
	AtOnce bool
	// Overlap is how long things made with an old secret are still accepted
	// after the new one took over. Zero: as long as they live. Of keys that sign
	// it cannot be shorter than that.
	Overlap time.Duration
}

func (what Rotation) check(s slot, life time.Duration) error {
	switch {
	case what.Overlap < 0 || what.After < 0:
		return invalid("a time to wait is not negative")
	case !what.AtOnce && what.After != 0 && what.After < KeyLeadLeast:
		return invalid("a new key is published for %s at least before it signs", KeyLeadLeast)
	case what.Overlap != 0 && published[s.purpose] && what.Overlap < life:
		return invalid("what keys of purpose %s signed lives up to %s: they cannot end sooner, only be revoked", s.purpose, life)
	}
	return nil
}

// succession is what puts one key in the place of another.
type succession struct {
	effects []audit.Effect
	kid     string // of the successor
	from    string // of the key that signs until then
	signs   time.Time
}

// succeed prepares a successor for whatever signs in a slot.
func (k *Keyring) succeed(r *ring, s slot, what Rotation, now time.Time) (succession, error) {
	overlap := k.overlap(s)
	if err := what.check(s, overlap); err != nil {
		return succession{}, err
	}
	if what.Overlap != 0 {
		overlap = what.Overlap
	}
	current, _ := r.signing(s, now)
	h := succession{from: current.row.KID}
	switch {
	case what.AtOnce:
		h.signs = now.Add(keySpread)
	case what.After != 0:
		h.signs = now.Add(what.After)
	default:
		h.signs = now.Add(KeyLead)
	}
	if planned, ok := r.planned(s, now); ok && what.AtOnce && planned.row.Signs.After(h.signs) {
		planned.row.Signs = h.signs
		h.kid = planned.row.KID
		h.effects = []audit.Effect{k.cfg.Store.AdvanceKey(h.kid, h.signs), k.rest(planned.row, overlap)}
		return h, nil
	}
	alive := 0
	for _, kid := range r.slots[s] {
		if r.keys[kid].accepted(now) {
			alive++
		}
	}
	if alive >= maxAlive {
		return succession{}, invalid("%d keys of purpose %s with %s are still accepted: wait until some have ended", alive, s.purpose, s.alg)
	}
	row, err := k.generate(s, r.generation(s)+1, h.signs)
	if err != nil {
		return succession{}, err
	}
	h.kid = row.KID
	h.effects = []audit.Effect{k.cfg.Store.InsertKey(row), k.rest(row, overlap)}
	return h, nil
}

// detail is what the record of a change of keys says.
func (h succession) detail(s slot) map[string]any {
	d := map[string]any{"purpose": s.purpose, "alg": s.alg}
	if h.kid != "" {
		d["signs"] = h.signs.UTC().Format(time.RFC3339)
	}
	return d
}

// Rotate makes a new key for each purpose and algorithm that is chosen, in one
// Change, and returns them. The old ones sign until the new ones do, and are
// accepted until nothing of them is alive. [audit.ErrConflict]: another process
// rotated one of them at the same moment; nothing was done.
func (k *Keyring) Rotate(ctx context.Context, by Actor, what Rotation) ([]KeyInfo, error) {
	if err := k.Refresh(ctx); err != nil {
		return nil, err
	}
	return k.rotate(ctx, k.ring.Load(), k.cfg.Now(), by, what)
}

// rotate is Rotate from one reading of the keys: if there is a newer generation
// by now, it is lost.
func (k *Keyring) rotate(ctx context.Context, r *ring, now time.Time, by Actor, what Rotation) ([]KeyInfo, error) {
	var change audit.Change
	var made []string
	for s := range r.slots {
		if what.Purpose != "" && s.purpose != what.Purpose || what.Alg != "" && s.alg != what.Alg {
			continue
		}
		h, err := k.succeed(r, s, what, now)
		if err != nil {
			return nil, err
		}
		detail := h.detail(s)
		if h.from != "" {
			detail["replaces"] = h.from
		}
		made = append(made, h.kid)
		change.Effects = append(change.Effects, h.effects...)
		change.Entries = append(change.Entries, by.entry(audit.KeyRotate, h.kid, detail))
	}
	if len(made) == 0 {
		return nil, invalid("there is no such key to rotate")
	}
	if err := k.cfg.Commit.Commit(ctx, change); err != nil {
		return nil, fmt.Errorf("rotating keys: %w", err)
	}
	return k.told(ctx, made)
}

// told reads keys as they are after a change.
func (k *Keyring) told(ctx context.Context, kids []string) ([]KeyInfo, error) {
	if err := k.Refresh(ctx); err != nil {
		return nil, err
	}
	r, now := k.ring.Load(), k.cfg.Now()
	var list []KeyInfo
	for _, kid := range kids {
		if key, ok := r.keys[kid]; ok {
			list = append(list, r.info(key, now))
		}
	}
	return list, nil
}

// keyChange is one try to change a key; the reading it starts from is its
// argument. It returns the kid of the successor, "" for none.
type keyChange func(r *ring, key openKey, now time.Time) (audit.Change, string, error)

// change reads the keys and changes one. If another process was faster it
// looks again.
func (k *Keyring) change(ctx context.Context, kid string, try keyChange) (successor []KeyInfo, err error) {
	for range 4 {
		if err := k.Refresh(ctx); err != nil {
			return nil, err
		}
		r := k.ring.Load()
		key, ok := r.keys[kid]
		if !ok {
			return nil, ErrNotFound
		}
		c, next, err := try(r, key, k.cfg.Now())
		if err != nil {
			return nil, err
		}
		err = k.cfg.Commit.Commit(ctx, c)
		if errors.Is(err, audit.ErrConflict) {
			continue
		}
		if err != nil && !errors.Is(err, audit.ErrUnrecorded) {
			return nil, err
		}
		list, readErr := k.told(ctx, []string{next})
		return list, errors.Join(err, readErr)
	}
	return nil, audit.ErrConflict
}

// Retire puts another key in the place of one that signs, at once. What it
// signed is accepted until nothing of it is alive. It returns the successor.
func (k *Keyring) Retire(ctx context.Context, by Actor, kid string) (KeyInfo, error) {
	list, err := k.change(ctx, kid, func(r *ring, key openKey, now time.Time) (audit.Change, string, error) {
		switch info := r.info(key, now); info.State {
		case KeyActive:
		case KeyNext:
			return audit.Change{}, "", invalid("key %s does not sign yet", kid)
		default:
			return audit.Change{}, "", invalid("key %s signs no more", kid)
		}
		s := slot{key.row.Purpose, key.row.Alg}
		h, err := k.succeed(r, s, Rotation{AtOnce: true}, now)
		if err != nil {
			return audit.Change{}, "", err
		}
		detail := h.detail(s)
		detail["successor"] = h.kid
		return audit.Change{Effects: h.effects, Entries: []audit.Entry{by.entry(audit.KeyRetire, kid, detail)}}, h.kid, nil
	})
	if err != nil || len(list) == 0 {
		return KeyInfo{}, err
	}
	return list[0], nil
}

// Revoke ends a key at once: it leaves the key set and nothing that it signed or
// sealed is accepted, here from then on and at other replicas within a second.
// If it was to sign, or to sign later, another signs in its place. It returns
// the successor, if there is one, and recorded is false if only the log refused.
func (k *Keyring) Revoke(ctx context.Context, by Actor, kid string) (successor []KeyInfo, recorded bool, err error) {
	successor, err = k.change(ctx, kid, func(r *ring, key openKey, now time.Time) (audit.Change, string, error) {
		if !key.accepted(now) {
			return audit.Change{}, "", invalid("key %s is no longer accepted", kid)
		}
		s := slot{key.row.Purpose, key.row.Alg}
		h := succession{signs: now}
		current, _ := r.signing(s, now)
		planned, waiting := r.planned(s, now)
		switch {
		case r.slots[s][0] == kid:
			row, err := k.generate(s, key.row.generation()+1, now)
			if err != nil {
				return audit.Change{}, "", err
			}
			h.kid = row.KID
			h.effects = []audit.Effect{k.cfg.Store.InsertKey(row), k.rest(row, k.overlap(s))}
		case current.row.KID == kid && waiting:
			planned.row.Signs, h.kid = now, planned.row.KID
			h.effects = []audit.Effect{k.cfg.Store.AdvanceKey(h.kid, now), k.rest(planned.row, k.overlap(s))}
		}
		detail := h.detail(s)
		if h.kid != "" {
			detail["successor"] = h.kid
		}
		return audit.Change{
			Effects: append([]audit.Effect{k.cfg.Store.EndKey(kid, now)}, h.effects...),
			Entries: []audit.Entry{by.entry(audit.KeyRevoke, kid, detail)},
			Narrows: true,
		}, h.kid, nil
	})
	if errors.Is(err, audit.ErrUnrecorded) {
		return successor, false, nil
	}
	return successor, err == nil, err
}

// Reseal seals every key with the first line of the deployment secret that is
// sealed with another, and returns how many those were. Then the other lines
// open nothing any more.
func (k *Keyring) Reseal(ctx context.Context, by Actor) (int, error) {
	s, done := k.reread(), 0
	rows, err := k.cfg.Store.Keys(ctx)
	if err != nil {
		return 0, fmt.Errorf("reading keys: %w", err)
	}
	for _, row := range rows {
		material, line, err := s.unseal(row)
		if err != nil {
			return done, err
		}
		if line == 0 {
			continue
		}
		err = k.cfg.Commit.Commit(ctx, audit.Change{
			Effects: []audit.Effect{k.cfg.Store.ResealKey(row.KID, row.Sealed, s.seal(row, material))},
			Entries: []audit.Entry{by.entry(audit.KeyReseal, row.KID, map[string]any{"purpose": row.Purpose, "alg": row.Alg})},
		})
		if err != nil && !errors.Is(err, audit.ErrConflict) { // a conflict: another process did it, or it is gone
			return done, fmt.Errorf("sealing key %s: %w", row.KID, err)
		}
		done++
	}
	return done, k.Refresh(ctx)
}
