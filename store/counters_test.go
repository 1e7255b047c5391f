package store

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
)

func budget(lid string, limit int64) delegation.Budget {
	return delegation.Budget{LID: lid, Grant: "grant", Limit: limit, Until: time.Now().Add(time.Minute)}
}

// counting opens the database once more, as another process does.
func counting(t *testing.T, path string) (*authz.Counters, *audit.Log, *Store) {
	t.Helper()
	s, err := Open(context.Background(), Config{DSN: "sqlite:" + path, Issuer: "https://kavach.example", MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	l := audit.NewLog(audit.Config{Store: s})
	t.Cleanup(func() {
		_ = l.Close(context.Background())
		_ = s.Close()
	})
	return authz.NewCounters(s, l), l, s
}

// TestCountersAllOrNone: of several budgets all are debited or none, however
// small the one that is spent.
func TestCountersAllOrNone(t *testing.T) {
	_, path := openTest(t)
	c, l, s := counting(t, path)
	ctx := context.Background()
	debit := func(budgets ...delegation.Budget) bool {
		t.Helper()
		ok, err := c.Debit(ctx, budgets)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	used := func(lid string) (n int64) {
		t.Helper()
		if err := s.read.QueryRow(ctx, `SELECT COALESCE(SUM(used), 0) FROM counters WHERE lid = $1`, lid).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	parent, one := budget("parent", 3), budget("one", 1)
	for i, c := range []struct {
		got, want bool
	}{
		{debit(parent, one), true},
		{debit(parent, one), false},
		{debit(parent, budget("two", 1), one), false}, // the new row goes, too
		{debit(parent), true},
		{debit(), true},
		{debit(parent, budget("three", 9)), true},
		{debit(parent, budget("three", 9)), false},
	} {
		if c.got != c.want {
			t.Errorf("%d: %v", i, c.got)
		}
	}
	for lid, want := range map[string]int64{"parent": 3, "one": 1, "two": 0, "three": 1} {
		if n := used(lid); n != want {
			t.Errorf("%s: %d calls, want %d", lid, n, want)
		}
	}

	var chain []delegation.Budget
	for i := range delegation.MaxLinks {
		chain = append(chain, budget(fmt.Sprint("link", i), 2))
	}
	for call, want := range []bool{true, true, false} {
		if debit(chain...) != want {
			t.Errorf("a chain of nine budgets of two, call %d", call)
		}
	}

	purge := func(at time.Time) {
		t.Helper()
		if err := l.Commit(ctx, audit.Change{Effects: []audit.Effect{s.ExpiredCounters(at).Remove(audit.PruneRows)}}); err != nil {
			t.Fatal(err)
		}
	}
	purge(parent.Until.Add(-time.Second))
	if n := used("parent"); n != 3 {
		t.Errorf("a budget was forgotten before its end: %d", n)
	}
	purge(time.Now().Add(time.Hour))
	if n := used("parent"); n != 0 {
		t.Errorf("an ended budget is still there: %d", n)
	}
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if ok, err := c.Debit(ctx, []delegation.Budget{parent}); ok || err == nil {
		t.Errorf("without a database: %v, %v", ok, err)
	}
}

// TestCountersOfTwoProcesses: however many debit at once, and from wherever, no
// more than the budget pass; and siblings share their parent's.
func TestCountersOfTwoProcesses(t *testing.T) {
	_, path := openTest(t)
	const limit = 25
	first, _, _ := counting(t, path)
	second, _, _ := counting(t, path)
	var passed atomic.Int64
	var all sync.WaitGroup
	for i, c := range []*authz.Counters{first, second} {
		for g := range 4 {
			all.Go(func() {
				child := budget(fmt.Sprint("child", i, g), 10)
				for range 10 {
					ok, err := c.Debit(context.Background(), []delegation.Budget{budget("parent", limit), child})
					if err != nil {
						t.Error(err)
					}
					if ok {
						passed.Add(1)
					}
				}
			})
		}
	}
	all.Wait()
	if passed.Load() != limit {
		t.Errorf("%d calls of %d", passed.Load(), limit)
	}
}
