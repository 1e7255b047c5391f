package guard

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// maxLive is how many proofs of one key may be live ("≤ 1,000 live per
	// key, full → refuse, never evict").
	maxLive = 1000
	// maxProofs bounds the memory of all of them, about 200 bytes each.
	maxProofs = 1 << 19
)

// errFull: forgetting a proof that is still good would let it pass again.
var errFull = errors.New("guard: too many live proofs")

// usedProofs counts the live proofs of every key and remembers them, unless a
// shared store does that.
type usedProofs struct {
	shared Replays // nil: memory

	mu    sync.Mutex            // guards what follows
	seen  map[string]struct{}   // replay keys, empty with a shared store
	live  map[string]int        // how many, by thumbprint
	due   map[int64][]usedProof // by the second in which they end
	total int                   // of live
	swept int64                 // the second of the last sweep; a clock may go back
}

type usedProof struct{ jkt, key string }

func newUsedProofs(shared Replays) *usedProofs {
	return &usedProofs{
		shared: shared, seen: make(map[string]struct{}), live: make(map[string]int), due: make(map[int64][]usedProof),
	}
}

// once reports whether the replay key is new.
func (u *usedProofs) once(ctx context.Context, jkt, key string, now, until time.Time) (bool, error) {
	fresh, err := u.enter(jkt, key, now.Unix(), until.Unix())
	if u.shared == nil || err != nil {
		return fresh, err
	}
	fresh, err = u.shared.Once(ctx, key, until)
	if err != nil || !fresh {
		// Whoever repeats a stranger's proof shall not fill the stranger's
		// share.
		u.mu.Lock()
		defer u.mu.Unlock()
		u.leave(usedProof{jkt, key})
		return false, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.due[until.Unix()] = append(u.due[until.Unix()], usedProof{jkt, key})
	return true, nil
}

// enter counts a proof and, without a shared store, remembers it.
func (u *usedProofs) enter(jkt, key string, now, until int64) (bool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sweep(now)
	if _, used := u.seen[key]; used {
		return false, nil
	}
	if u.live[jkt] >= maxLive || u.total >= maxProofs {
		return false, errFull
	}
	u.live[jkt]++
	u.total++
	if u.shared == nil {
		u.seen[key] = struct{}{}
		u.due[until] = append(u.due[until], usedProof{jkt, key})
	}
	return true, nil
}

// sweep forgets what ended before now. The proofs of one moment end within 61
// seconds, so there are few seconds to look at.
func (u *usedProofs) sweep(now int64) {
	if now == u.swept {
		return
	}
	u.swept = now
	for second, proofs := range u.due {
		if second >= now {
			continue
		}
		for _, p := range proofs {
			u.leave(p)
		}
		delete(u.due, second)
	}
}

func (u *usedProofs) leave(p usedProof) {
	delete(u.seen, p.key)
	u.total--
	if u.live[p.jkt]--; u.live[p.jkt] <= 0 {
		delete(u.live, p.jkt)
	}
}
