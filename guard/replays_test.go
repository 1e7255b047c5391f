package guard

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// TestUsedProofsAreBounded looks inside: what ended is forgotten, and what is
// alive never is.
func TestUsedProofsAreBounded(t *testing.T) {
	u := newUsedProofs(nil)
	ctx, now := context.Background(), time.Unix(1_795_000_000, 0)
	for i := range 10_000 {
		at := now.Add(time.Duration(i) * 100 * time.Millisecond)
		fresh, err := u.once(ctx, fmt.Sprint("jkt", i%7), fmt.Sprint("key", i), at, at.Add(31*time.Second))
		if err != nil || !fresh {
			t.Fatalf("proof %d: %v %v", i, fresh, err)
		}
		if len(u.seen) > 331 || len(u.due) > 34 {
			t.Fatalf("%d proofs are kept in %d seconds", len(u.seen), len(u.due))
		}
	}
	for _, p := range u.due {
		for _, q := range p {
			if fresh, err := u.once(ctx, q.jkt, q.key, now.Add(999*time.Second), now.Add(1100*time.Second)); fresh || err != nil {
				t.Fatalf("%v was forgotten: %v", q, err)
			}
		}
	}
	u.sweep(now.Unix() + 5000)
	if len(u.seen)+len(u.live)+len(u.due)+u.total != 0 {
		t.Errorf("left over: %d proofs, %d keys, %d seconds, %d", len(u.seen), len(u.live), len(u.due), u.total)
	}
	// A proof is remembered through the second in which it ends.
	if fresh, err := u.once(ctx, "jkt", "key", now.Add(6000*time.Second), now.Add(6001*time.Second)); !fresh || err != nil {
		t.Fatal(fresh, err)
	}
	if fresh, err := u.once(ctx, "jkt", "key", now.Add(6001*time.Second), now.Add(6001*time.Second)); fresh || err != nil {
		t.Error("forgotten too early")
	}
	// Together they are bounded too.
	u.total = maxProofs
	if _, err := u.once(ctx, "jkt", "one more", now, now); !errors.Is(err, errFull) {
		t.Errorf("%v", err)
	}
}

// A clock that was ahead and was put right does not fill anybody's share for
// as long as it was ahead (faults.md E8).
func TestUsedProofsAfterTheClockWentBack(t *testing.T) {
	u := newUsedProofs(nil)
	ctx, now := context.Background(), time.Unix(1_795_000_000, 0)
	ahead := now.AddDate(10, 0, 0)
	if fresh, err := u.once(ctx, "jkt", "ahead", ahead, ahead.Add(31*time.Second)); !fresh || err != nil {
		t.Fatal(fresh, err)
	}
	for i := range 3 * maxLive {
		at := now.Add(time.Duration(i) * 100 * time.Millisecond)
		if fresh, err := u.once(ctx, "jkt", fmt.Sprint("key", i), at, at.Add(31*time.Second)); !fresh || err != nil {
			t.Fatalf("proof %d: %v %v", i, fresh, err)
		}
	}
	if fresh, err := u.once(ctx, "jkt", "ahead", ahead, ahead.Add(31*time.Second)); fresh || err != nil {
		t.Error("a proof was forgotten because the clock went back")
	}
}
