package audittest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/kavach-dev/kavach/audit"
)

func testCommit(t *testing.T, f Fixture) {
	l := newLog(t, f.Store)
	commit(t, l, audit.Change{}, nil)
	commit(t, l, audit.Change{Entries: []audit.Entry{Entry("only said")}}, nil)
	commit(t, l, audit.Change{Effects: []audit.Effect{f.Put("a", "1")}}, nil)
	commit(t, l, audit.Change{
		Effects: []audit.Effect{f.Put("b", "1"), f.Move("a", "1", "2"), f.Clear("nobody")},
		Entries: []audit.Entry{Entry("first"), Entry("second")},
	}, nil)
	value(t, f, "a", "2")
	value(t, f, "b", "1")
	wantResources(t, f, "only said", "first", "second")

	bad := Entry("x")
	bad.Action = "token.forge"
	commit(t, l, audit.Change{Effects: []audit.Effect{f.Put("c", "1")}, Entries: []audit.Entry{bad}}, audit.ErrInvalid)
	value(t, f, "c", "")
	wantResources(t, f, "only said", "first", "second")
}

func testElse(t *testing.T, f Fixture) {
	l := newLog(t, f.Store)
	use := func(n int) audit.Change {
		return audit.Change{
			Effects: []audit.Effect{f.Put(fmt.Sprint("token", n), "live"), f.Move("code", "fresh", "used")},
			Entries: []audit.Entry{Entry(fmt.Sprint("issued ", n))},
			Else: &audit.Change{
				Effects: []audit.Effect{f.Move("family", "live", "dead")},
				Entries: []audit.Entry{Denied(fmt.Sprint("reuse ", n))},
				Else:    &audit.Change{Entries: []audit.Entry{Denied(fmt.Sprint("again ", n))}},
			},
		}
	}
	commit(t, l, audit.Change{Effects: []audit.Effect{f.Put("code", "fresh"), f.Put("family", "live")}}, nil)
	commit(t, l, use(1), nil)
	value(t, f, "family", "live")
	lost := func(c audit.Change, level int) {
		t.Helper()
		var e *audit.LostError
		if err := l.Commit(context.Background(), c); !errors.Is(err, audit.ErrConflict) || !errors.As(err, &e) || e.Else != level {
			t.Errorf("got %v %+v, want the Else of level %d", err, e, level)
		}
	}
	lost(use(2), 1)
	lost(use(3), 2)
	value(t, f, "token1", "live")
	value(t, f, "token2", "")
	value(t, f, "code", "used")
	value(t, f, "family", "dead")
	wantResources(t, f, "issued 1", "reuse 2", "again 3")

	// No Else: nothing happens and nothing is said.
	lost(audit.Change{Effects: []audit.Effect{f.Move("code", "fresh", "used")}, Entries: []audit.Entry{Entry("no")}}, 0)
	// An Else that loses too: the same.
	lost(audit.Change{Effects: []audit.Effect{f.Put("code", "fresh")},
		Else: &audit.Change{Effects: []audit.Effect{f.Put("z", "1"), f.Put("family", "x")}, Entries: []audit.Entry{Entry("no")}}}, 0)
	value(t, f, "z", "")
	wantResources(t, f, "issued 1", "reuse 2", "again 3")
}

// testLosers sends one batch through the adapter, in the middle of which
// Changes lose after their first statements succeeded.
func testLosers(t *testing.T, f Fixture) {
	var batch []audit.Write
	var want []string
	for i := range 20 {
		name := fmt.Sprint("n", i)
		w := write(t, f, []audit.Effect{f.Put(name, "1"), f.Put(name+"b", "1")}, Entry(name))
		switch i % 4 {
		case 1: // loses at its second statement
			w = write(t, f, []audit.Effect{f.Put(name, "1"), f.Put("n0", "stolen")}, Entry(name))
			e := write(t, f, []audit.Effect{f.Put(name+"else", "1")}, Denied(name+" lost"))
			w.Else = &e
			want = append(want, name+" lost")
		case 2: // loses at its only statement, says nothing
			w = write(t, f, []audit.Effect{f.Put("n0", "stolen")}, Entry(name))
		default:
			want = append(want, name)
		}
		batch = append(batch, w)
	}
	outcomes := appendAll(t, f, batch, 1000)
	for i, o := range outcomes {
		lost := i%4 == 1 || i%4 == 2
		if o.Lost != lost || o.Err != nil {
			t.Errorf("outcome %d = %+v, want lost %v", i, o, lost)
		}
		name := fmt.Sprint("n", i)
		value(t, f, name, map[bool]string{true: "", false: "1"}[lost])
		value(t, f, name+"else", map[bool]string{true: "1", false: ""}[i%4 == 1])
	}
	value(t, f, "n0", "1")
	wantResources(t, f, want...)
}

func testBroken(t *testing.T, f Fixture) {
	l := newLog(t, f.Store)
	const n = 40
	var wait sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		c := audit.Change{Effects: []audit.Effect{f.Put(fmt.Sprint("n", i), "1")}, Entries: []audit.Entry{Entry(fmt.Sprint(i))}}
		switch i % 8 {
		case 3:
			c.Effects = append(c.Effects, f.Broken())
			c.Else = &audit.Change{Entries: []audit.Entry{Denied("an error is no loss")}}
		case 5:
			c.Effects = append(c.Effects, f.Malformed())
		}
		wait.Go(func() { errs[i] = l.Commit(context.Background(), c) })
	}
	wait.Wait()
	for i, err := range errs {
		broken := i%8 == 3 || i%8 == 5
		if broken != errors.Is(err, audit.ErrStatement) || !broken && err != nil {
			t.Errorf("change %d: %v", i, err)
		}
		value(t, f, fmt.Sprint("n", i), map[bool]string{true: "", false: "1"}[broken])
	}
	if got := resources(t, f); len(got) != n*6/8 {
		t.Errorf("%d records, want %d", len(got), n*6/8)
	}
}

func testOrder(t *testing.T, f Fixture) {
	var batch []audit.Write
	var want []string
	for i := range 300 {
		name := fmt.Sprint(i)
		batch = append(batch, write(t, f, []audit.Effect{f.Clear("none")}, Entry(name+"a"), Entry(name+"b")))
		want = append(want, name+"a", name+"b")
	}
	outcomes := appendAll(t, f, batch, 77)
	wantResources(t, f, want...)
	for i, o := range outcomes {
		for j, r := range o.Records {
			if r.Seq != int64(2*i+j) || r.Time != 77 || r.Leaf != audit.LeafHash(r.Bytes) {
				t.Fatalf("outcome %d record %d = seq %d time %d", i, j, r.Seq, r.Time)
			}
		}
	}
}

func testDuplicates(t *testing.T, f Fixture) {
	l := newLog(t, f.Store)
	first := Entry("first")
	change := func(e audit.Entry, name string) audit.Change {
		return audit.Change{Effects: []audit.Effect{f.Put(name, "1")}, Entries: []audit.Entry{e}}
	}
	commit(t, l, change(first, "a"), nil)
	// The same entry: the first answer, and its effects do not run again.
	commit(t, l, change(first, "b"), nil)
	value(t, f, "b", "")
	// Another entry under the id: refused, and that is recorded.
	other := first
	other.Resource = "other"
	commit(t, l, change(other, "c"), audit.ErrIDConflict)
	value(t, f, "c", "")
	wantResources(t, f, "first", "other")
	r, err := audit.ParseRecord(f.Records(t)[1])
	if err != nil || r.Entry.Reason != "id_conflict" || r.Entry.Result != audit.Denied || r.Entry.Detail["of"] != first.ID {
		t.Errorf("record of the conflict = %+v, %v", r.Entry, err)
	}
	// The same id of another writer is another entry.
	reporter := first
	reporter.By = "reporter"
	commit(t, l, change(reporter, "d"), nil)
	value(t, f, "d", "1")
	// Many at once, in one queue: one commits, all get its answer, and Changes
	// that merely stand beside them are not disturbed.
	again := Entry("again")
	var wait sync.WaitGroup
	errs := make([]error, 40)
	for i := range errs {
		c := change(again, fmt.Sprint("again", i))
		if i%2 == 1 {
			c = change(Entry("beside"), fmt.Sprint("beside", i))
		}
		wait.Go(func() { errs[i] = l.Commit(context.Background(), c) })
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	won := 0
	for i := range errs {
		if f.Value(t, fmt.Sprint("again", i)) != "" {
			won++
		}
		if i%2 == 1 {
			value(t, f, fmt.Sprint("beside", i), "1")
		}
	}
	if n := count(resources(t, f), "again"); won != 1 || n != 1 {
		t.Errorf("%d effects and %d records of one id, want 1 and 1", won, n)
	}
}

// testBranches uses one id in a Change and its Else: only one of them is ever
// written, and a retry gets the answer of that one.
func testBranches(t *testing.T, f Fixture) {
	l := newLog(t, f.Store)
	e, refused := Entry("x"), Denied("x")
	refused.ID = e.ID
	c := audit.Change{Effects: []audit.Effect{f.Move("a", "1", "2")}, Entries: []audit.Entry{e},
		Else: &audit.Change{Entries: []audit.Entry{refused}}}
	commit(t, l, c, audit.ErrConflict)
	commit(t, l, audit.Change{Effects: []audit.Effect{f.Put("a", "1")}}, nil)
	commit(t, l, c, audit.ErrConflict)
	value(t, f, "a", "1")
	wantResources(t, f, "x")
}

func count(list []string, s string) int {
	n := 0
	for _, x := range list {
		if x == s {
			n++
		}
	}
	return n
}

// write makes what a Log would hand to the adapter.
func write(t *testing.T, f Fixture, effects []audit.Effect, entries ...audit.Entry) audit.Write {
	t.Helper()
	w := audit.Write{Effects: effects}
	for _, e := range entries {
		d, err := audit.NewDraft(f.Store.LogID(), e)
		if err != nil {
			t.Fatal(err)
		}
		w.Drafts = append(w.Drafts, d)
	}
	return w
}

// appendAll is Append until all of the batch was taken.
func appendAll(t *testing.T, f Fixture, batch []audit.Write, now int64) (all []audit.Outcome) {
	t.Helper()
	for len(batch) > 0 {
		outcomes, err := f.Store.Append(t.Context(), batch, now)
		if err != nil || len(outcomes) == 0 || len(outcomes) > len(batch) {
			t.Fatalf("%d outcomes of %d, %v", len(outcomes), len(batch), err)
		}
		all, batch = append(all, outcomes...), batch[len(outcomes):]
	}
	return all
}
