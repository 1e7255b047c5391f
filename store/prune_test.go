package store

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
)

// Several processes prune one table at once while decisions go on: what has
// expired goes, what has not stays, also a row that is renewed meanwhile, and
// nobody fails.
func TestPruneTogether(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		const dead, live = 2600, 40
		now := time.UnixMilli(1_800_000_000_000)
		later := now.Add(time.Hour)
		var logs []*audit.Log
		var stores []*Store
		for range 3 {
			s, err := Open(t.Context(), Config{DSN: dsn, MinFree: -1})
			if err != nil {
				t.Fatal(err)
			}
			l := audit.NewLog(audit.Config{Store: s})
			t.Cleanup(func() { l.Close(context.Background()); s.Close() })
			stores, logs = append(stores, s), append(logs, l)
		}
		s, l := stores[0], logs[0]
		var effects []audit.Effect
		for i := range dead {
			effects = append(effects, s.HoldAgentKey("agent", fmt.Sprint("dead", i), now.Add(-time.Minute)))
		}
		for i := range live {
			effects = append(effects, s.HoldAgentKey("agent", fmt.Sprint("live", i), later))
		}
		for len(effects) > 0 {
			n := min(len(effects), 200)
			if err := l.Commit(t.Context(), audit.Change{Effects: effects[:n]}); err != nil {
				t.Fatal(err)
			}
			effects = effects[n:]
		}
		var wait sync.WaitGroup
		for i := range stores {
			wait.Go(func() {
				if _, err := audit.Prune(t.Context(), logs[i], stores[i].ExpiredAgentKeys(now)); err != nil {
					t.Error(err)
				}
			})
			wait.Go(func() {
				for j := range 20 { // a key that is used again is bound to something that lives
					if err := logs[i].Commit(t.Context(), audit.Change{Effects: []audit.Effect{
						stores[i].HoldAgentKey("agent", fmt.Sprint("dead", dead-1-20*i-j), later),
					}}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wait.Wait()
		var n int
		if err := s.read.QueryRow(t.Context(), `SELECT COUNT(*) FROM agent_keys`).Scan(&n); err != nil || n != live+3*20 {
			t.Errorf("%d rows, want %d; %v", n, live+3*20, err)
		}
	})
}
