// Package audittest says what an adapter of audit.Store owes, as tests that
// every adapter runs (design D4): SQLite in package store, an adapter that
// cannot read between the statements of a Change beside it, PostgreSQL and D1
// when they come.
//
//	func TestContract(t *testing.T) {
//		audittest.RunStore(t, func(t *testing.T) audittest.Fixture { … })
//	}
package audittest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
)

// Fixture is an adapter over a fresh database, with a table of names and
// values to write to.
type Fixture struct {
	// Store is the adapter under test.
	Store audit.Store
	// Put inserts a name; it wins iff the name is new.
	Put func(name, value string) audit.Effect
	// Move changes a value; it wins iff the name has the value from.
	Move func(name, from, to string) audit.Effect
	// Clear deletes a name, or nothing; it always wins.
	Clear func(name string) audit.Effect
	// Broken breaks a constraint; Malformed cannot be run at all.
	Broken, Malformed func() audit.Effect
	// Value reads a name, "" if it is not there.
	Value func(t *testing.T, name string) string
	// Records reads the bytes of all records in order of seq.
	Records func(t *testing.T) [][]byte
	// Block makes the log's own tables refuse, and nothing else, until the
	// returned function is called.
	Block func(t *testing.T) (unblock func())
}

// RunStore runs the contract. open is called for every test.
func RunStore(t *testing.T, open func(t *testing.T) Fixture) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, f Fixture)
	}{
		{"a change and its entries", testCommit},
		{"win, lose, else", testElse},
		{"losers harm nobody", testLosers},
		{"broken statements harm nobody", testBroken},
		{"a batch keeps its order", testOrder},
		{"the same id again", testDuplicates},
		{"one id, two branches", testBranches},
		{"cancelled after queueing", testCancelled},
		{"narrowing when the log refuses", testNarrowing},
		{"unknown outcome", testUnknown},
		{"no room", testRoom},
		{"close", testClose},
		{"refusals", testRefusals},
		{"model", testModel},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// Entry is a valid entry; resource tells it from others.
func Entry(resource string) audit.Entry {
	return audit.Entry{ID: audit.NewID(), Agent: "operator", Action: audit.ConfigUpdate, Result: audit.Allowed,
		Resource: resource, Detail: map[string]any{"via": "test"}}
}

// Denied is an entry for the branch that lost.
func Denied(resource string) audit.Entry {
	e := Entry(resource)
	e.Result, e.Reason = audit.Denied, "conflict"
	return e
}

// newLog starts a Log that ends with the test.
func newLog(t *testing.T, s audit.Store) *audit.Log {
	t.Helper()
	l := audit.NewLog(audit.Config{Store: s})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := l.Close(ctx); err != nil {
			t.Errorf("closing the log: %v", err)
		}
	})
	return l
}

func commit(t *testing.T, l *audit.Log, c audit.Change, want error) {
	t.Helper()
	if err := l.Commit(t.Context(), c); !errors.Is(err, want) {
		t.Fatalf("Commit = %v, want %v", err, want)
	}
}

func value(t *testing.T, f Fixture, name, want string) {
	t.Helper()
	if got := f.Value(t, name); got != want {
		t.Errorf("value of %q = %q, want %q", name, got, want)
	}
}

// resources checks that the log is one chain and returns what its records are
// about, in order.
func resources(t *testing.T, f Fixture) []string {
	t.Helper()
	var out []string
	prev := audit.FirstPrev(f.Store.LogID())
	for i, bytes := range f.Records(t) {
		r, err := audit.ParseRecord(bytes)
		if err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		if r.Seq != int64(i) || r.Prev != prev || r.Log != f.Store.LogID() {
			t.Fatalf("record %d: seq %d, prev %s (want %s), log %s", i, r.Seq, r.Prev, prev, r.Log)
		}
		prev = audit.LeafHash(bytes)
		out = append(out, r.Entry.Resource)
	}
	return out
}

func wantResources(t *testing.T, f Fixture, want ...string) {
	t.Helper()
	got := resources(t, f)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("records are about %q, want %q", got, want)
	}
}
