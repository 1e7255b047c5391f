package authz

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/audit"
)

// Sweep does what is due: it makes the next key where one has signed for
// KeyringConfig.RotateEvery, makes those that are missing, and deletes those
// that ended a day ago. Several processes may: each thing is done once.
func (k *Keyring) Sweep(ctx context.Context) error {
	if err := k.Refresh(ctx); err != nil {
		return err
	}
	if err := k.ensure(ctx, always...); err != nil {
		return err
	}
	r, now := k.ring.Load(), k.cfg.Now()
	for s := range r.slots {
		current, ok := r.signing(s, now)
		if !ok || k.cfg.RotateEvery <= 0 || r.slots[s][0] != current.row.KID || now.Sub(current.row.Signs) < k.cfg.RotateEvery {
			continue
		}
		// From this reading: a replica that was faster has taken the generation.
		_, err := k.rotate(ctx, r, now, Actor{Via: "schedule"}, Rotation{Purpose: s.purpose, Alg: s.alg})
		if err != nil && !errors.Is(err, audit.ErrConflict) {
			return err
		}
	}
	return k.removeEnded(ctx, r, now.Add(-keysKept))
}

// removeEnded deletes the keys that ended or were revoked before a time.
func (k *Keyring) removeEnded(ctx context.Context, r *ring, before time.Time) error {
	removed := false
	for _, kid := range r.order {
		row := r.keys[kid].row
		over := row.Ends
		if !row.Revoked.IsZero() {
			over = row.Revoked
		}
		if over.IsZero() || !over.Before(before) {
			continue
		}
		err := k.cfg.Commit.Commit(ctx, audit.Change{
			Effects: []audit.Effect{k.cfg.Store.RemoveKey(kid, before)},
			Entries: []audit.Entry{{
				Action: audit.KeyRemove, Result: audit.Allowed, Resource: kid,
				Detail: map[string]any{"purpose": row.Purpose, "alg": row.Alg},
			}},
		})
		if err != nil && !errors.Is(err, audit.ErrConflict) {
			return fmt.Errorf("removing key %s: %w", kid, err)
		}
		removed = true
	}
	if !removed {
		return nil
	}
	return k.Refresh(ctx)
}
