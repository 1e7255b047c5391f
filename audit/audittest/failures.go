package audittest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
)

// faulty stands between a Log and its store and does what a database can do.
type faulty struct {
	audit.Store
	mu     sync.Mutex
	before func(batch []audit.Write) error // runs before Append; its error is the answer
	after  func() error                    // runs after Append succeeded
	room   error
	saved  int
}

func (f *faulty) Append(ctx context.Context, batch []audit.Write, now int64) ([]audit.Outcome, error) {
	f.mu.Lock()
	before, after := f.before, f.after
	f.mu.Unlock()
	if before != nil {
		if err := before(batch); err != nil {
			return unwritten(f.LogID(), batch), err
		}
	}
	outcomes, err := f.Store.Append(ctx, batch, now)
	if err == nil && after != nil {
		err = after()
	}
	return outcomes, err
}

// unwritten is what an adapter returns with ErrUnknown for a batch that, in
// truth, never reached the database.
func unwritten(log string, batch []audit.Write) []audit.Outcome {
	seq := audit.NewSequencer(log, audit.Head{}, 0)
	out := make([]audit.Outcome, len(batch))
	for i, w := range batch {
		for _, d := range w.Drafts {
			out[i].Records = append(out[i].Records, seq.Next(d))
		}
	}
	return out
}

func (f *faulty) Room() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.room
}

func (f *faulty) Reclaim(error) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.saved++
	f.before = nil
	return f.saved == 1
}

func (f *faulty) set(before func([]audit.Write) error, after func() error, room error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before, f.after, f.room = before, after, room
}

func testCancelled(t *testing.T, f Fixture) {
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s := &faulty{Store: f.Store}
	s.set(func([]audit.Write) error {
		once.Do(func() { close(entered); <-release })
		return nil
	}, nil, nil)
	l := newLog(t, s)

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	err := l.Commit(gone, audit.Change{Effects: []audit.Effect{f.Put("never", "1")}, Entries: []audit.Entry{Entry("never")}})
	if !errors.Is(err, context.Canceled) || !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("Commit with a cancelled ctx = %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error)
	go func() {
		answer <- l.Commit(ctx, audit.Change{Effects: []audit.Effect{f.Put("a", "1")}, Entries: []audit.Entry{Entry("a")}})
	}()
	<-entered // it is in a batch
	cancel()
	select {
	case err := <-answer:
		t.Fatalf("Commit came back before the outcome: %v", err)
	default:
	}
	close(release)
	if err := <-answer; err != nil {
		t.Errorf("Commit = %v; what was queued is answered with what happened", err)
	}
	value(t, f, "a", "1")
	value(t, f, "never", "")
	wantResources(t, f, "a")
}

func testNarrowing(t *testing.T, f Fixture) {
	l := newLog(t, f.Store)
	commit(t, l, audit.Change{Effects: []audit.Effect{f.Put("a", "live"), f.Put("b", "live")}}, nil)
	unblock := f.Block(t)
	revoke := Entry("revoke a")
	narrow := audit.Change{Narrows: true, Effects: []audit.Effect{f.Move("a", "live", "dead")}, Entries: []audit.Entry{revoke},
		Else: &audit.Change{Entries: []audit.Entry{Denied("was dead")}}}

	commit(t, l, audit.Change{Effects: []audit.Effect{f.Put("c", "1")}, Entries: []audit.Entry{Entry("widen")}}, audit.ErrUnavailable)
	if l.Status().Err == nil {
		t.Error("Status does not say that the log cannot be written")
	}
	commit(t, l, narrow, audit.ErrUnrecorded)
	narrow.Entries = []audit.Entry{Entry("revoke a again")}
	commit(t, l, narrow, audit.ErrConflict)
	value(t, f, "a", "dead")
	value(t, f, "c", "")
	wantResources(t, f)
	if n := l.Status().Unrecorded; n == 0 {
		t.Error("Status does not say that entries wait")
	}

	unblock()
	commit(t, l, audit.Change{Effects: []audit.Effect{f.Move("b", "live", "dead")}, Entries: []audit.Entry{Entry("b")}}, nil)
	wantResources(t, f, "revoke a", "was dead", "b")
	if s := l.Status(); s.Unrecorded != 0 || s.Err != nil {
		t.Errorf("Status = %+v after the log is back", s)
	}
	r, err := audit.ParseRecord(f.Records(t)[0])
	if err != nil || r.Entry.ID != revoke.ID || r.Entry.Observed == 0 {
		t.Errorf("record from the outbox = %+v, %v; want the entry, and when it was", r.Entry, err)
	}
	// A retry with the id gets the answer of what stands.
	commit(t, l, audit.Change{Narrows: true, Effects: []audit.Effect{f.Move("b", "dead", "gone")}, Entries: []audit.Entry{revoke}}, nil)
	value(t, f, "b", "dead")
}

func testUnknown(t *testing.T, f Fixture) {
	s := &faulty{Store: f.Store}
	l := newLog(t, s)
	lost := errors.New("connection lost")
	var once atomic.Bool
	onlyOnce := func() error {
		if once.CompareAndSwap(false, true) {
			return fmt.Errorf("%w: %w", audit.ErrUnknown, lost)
		}
		return nil
	}
	change := func(name string) audit.Change {
		return audit.Change{Effects: []audit.Effect{f.Put(name, "1")}, Entries: []audit.Entry{Entry(name)},
			Else: &audit.Change{Entries: []audit.Entry{Denied(name + " lost")}}}
	}
	// It had committed: found by its id, not run again.
	s.set(nil, onlyOnce, nil)
	commit(t, l, change("a"), nil)
	// The loser of such a batch is answered as a loser.
	once.Store(false)
	commit(t, l, change("a"), audit.ErrConflict)
	wantResources(t, f, "a", "a lost")
	// It had not: run again.
	once.Store(false)
	s.set(func(batch []audit.Write) error { return onlyOnce() }, nil, nil)
	commit(t, l, change("b"), nil)
	value(t, f, "b", "1")
	wantResources(t, f, "a", "a lost", "b")
}

func testRoom(t *testing.T, f Fixture) {
	s := &faulty{Store: f.Store}
	l := newLog(t, s)
	commit(t, l, audit.Change{Effects: []audit.Effect{f.Put("a", "live"), f.Put("b", "live")}}, nil)
	s.set(nil, nil, errors.New("disk nearly full"))
	commit(t, l, audit.Change{Effects: []audit.Effect{f.Put("c", "1")}, Entries: []audit.Entry{Entry("widen")}}, audit.ErrUnavailable)
	commit(t, l, audit.Change{Narrows: true, Effects: []audit.Effect{f.Move("a", "live", "dead")}, Entries: []audit.Entry{Entry("a")}}, nil)
	// Nothing fits: the reserve goes, the narrowing Change fits.
	s.set(func([]audit.Write) error { return errors.New("disk full") }, nil, errors.New("disk full"))
	commit(t, l, audit.Change{Narrows: true, Effects: []audit.Effect{f.Move("b", "live", "dead")}, Entries: []audit.Entry{Entry("b")}}, nil)
	// And if there is no reserve any more it says so.
	s.set(func([]audit.Write) error { return errors.New("disk full") }, nil, errors.New("disk full"))
	commit(t, l, audit.Change{Narrows: true, Effects: []audit.Effect{f.Clear("b")}, Entries: []audit.Entry{Entry("b")}}, audit.ErrUnavailable)
	value(t, f, "a", "dead")
	value(t, f, "b", "dead")
	value(t, f, "c", "")
	wantResources(t, f, "a", "b")
	// It recovers by itself.
	s.set(nil, nil, nil)
	commit(t, l, audit.Change{Effects: []audit.Effect{f.Put("c", "1")}, Entries: []audit.Entry{Entry("c")}}, nil)
	wantResources(t, f, "a", "b", "c")
}

func testClose(t *testing.T, f Fixture) {
	l := audit.NewLog(audit.Config{Store: f.Store})
	const n = 200
	var wait sync.WaitGroup
	var ok atomic.Int64
	for i := range n {
		wait.Go(func() {
			err := l.Commit(context.Background(), audit.Change{Entries: []audit.Entry{Entry(fmt.Sprint(i))}})
			if err == nil {
				ok.Add(1)
			} else if !errors.Is(err, audit.ErrUnavailable) {
				t.Errorf("Commit = %v", err)
			}
		})
		if i%20 == 0 {
			l.Refuse("source", "/token", Denied(fmt.Sprint("refused ", i)))
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range 2 {
		if err := l.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}
	wait.Wait()
	got := resources(t, f)
	if int64(len(got)) != ok.Load()+n/20 {
		t.Errorf("%d records, want %d acknowledged and %d refusals", len(got), ok.Load(), n/20)
	}
	commit(t, l, audit.Change{Entries: []audit.Entry{Entry("late")}}, audit.ErrUnavailable)
}

func testRefusals(t *testing.T, f Fixture) {
	l := audit.NewLog(audit.Config{Store: f.Store})
	for i := range 25 {
		e := Denied(fmt.Sprint("r", i))
		e.Reason = "invalid_client"
		l.Refuse("192.0.2.1", "/token", e)
	}
	other := Denied("other")
	l.Refuse("192.0.2.2", "/token", other)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := l.Close(ctx); err != nil {
		t.Fatal(err)
	}
	var whole int
	var summary audit.Entry
	for _, bytes := range f.Records(t) {
		r, err := audit.ParseRecord(bytes)
		if err != nil {
			t.Fatal(err)
		}
		if r.Entry.Action == audit.AuditSummary {
			summary = r.Entry
		} else {
			whole++
		}
	}
	if whole != 11 {
		t.Errorf("%d refusals whole, want ten of one source and one of another", whole)
	}
	samples, _ := summary.Detail["samples"].([]any)
	if summary.Detail["count"] != int64(15) || len(samples) != 8 || summary.Reason != "invalid_client" || summary.Detail["endpoint"] != "/token" {
		t.Errorf("summary = %+v", summary)
	}
	resources(t, f)
}
