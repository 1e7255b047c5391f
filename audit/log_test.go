package audit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kavach-dev/kavach/audit"
)

// memory is a store of records alone, for tests of time: a real database does
// not run on a synthetic clock. What a store owes is tested in audittest.
type memory struct {
	mu      sync.Mutex
	head    audit.Head
	records []audit.Stored
	sizes   []int // of batches
	down    error
	slow    time.Duration
}

func newMemory() *memory { return &memory{head: audit.Head{Leaf: audit.FirstPrev(testLog)}} }

func (m *memory) LogID() string { return testLog }

func (m *memory) Append(_ context.Context, batch []audit.Write, now int64) ([]audit.Outcome, error) {
	m.mu.Lock()
	slow, down := m.slow, m.down
	m.mu.Unlock()
	time.Sleep(slow)
	if down != nil {
		return nil, down
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	seq := audit.NewSequencer(testLog, m.head, now)
	out := make([]audit.Outcome, len(batch))
	for i, w := range batch {
		for _, d := range w.Drafts {
			r := seq.Next(d)
			out[i].Records = append(out[i].Records, r)
			stored, err := audit.ParseRecord(r.Bytes)
			if err != nil {
				return nil, err
			}
			m.records = append(m.records, stored)
		}
	}
	m.head = seq.Head()
	m.sizes = append(m.sizes, len(batch))
	return out, nil
}

func (m *memory) AppendUnrecorded(context.Context, audit.Write, int64) (audit.Outcome, error) {
	return audit.Outcome{}, errors.New("no outbox here")
}
func (m *memory) Find(context.Context, []audit.Key) (map[audit.Key][]byte, error) { return nil, nil }
func (m *memory) Waiting(context.Context, int) ([]audit.Waiting, error)           { return nil, nil }
func (m *memory) Recorded(string) audit.Effect                                    { return nil }
func (m *memory) Room() error                                                     { return nil }
func (m *memory) Reclaim(error) bool                                              { return false }

func (m *memory) set(down error, slow time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down, m.slow = down, slow
}

func (m *memory) all() []audit.Stored {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]audit.Stored(nil), m.records...)
}

// whole counts the refusals in the log; summaries returns the others.
func (m *memory) whole() (n int, summaries []audit.Entry) {
	for _, r := range m.all() {
		if r.Entry.Action == audit.AuditSummary {
			summaries = append(summaries, r.Entry)
		} else {
			n++
		}
	}
	return n, summaries
}

func refusal(i int) audit.Entry {
	return audit.Entry{Action: audit.TokenRefuse, Result: audit.Denied, Reason: "invalid_client", Resource: fmt.Sprint("r", i)}
}

// inBubble runs a test with a Log on a synthetic clock. That every goroutine
// of the Log has ended afterwards is what synctest checks.
func inBubble(t *testing.T, test func(t *testing.T, m *memory, l *audit.Log)) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		l := audit.NewLog(audit.Config{Store: m, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		test(t, m, l)
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// The first ten a minute are whole and durable within a second, the rest is one
// summary when the minute is over; then it begins again.
func TestRefusalsAreSummarised(t *testing.T) {
	inBubble(t, func(t *testing.T, m *memory, l *audit.Log) {
		for i := range 100 {
			l.Refuse("192.0.2.0/24", "/token", refusal(i))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n, sums := m.whole(); n != 10 || len(sums) != 0 {
			t.Errorf("after a second: %d whole, %d summaries", n, len(sums))
		}
		time.Sleep(10 * time.Second)
		for i := range 20 {
			l.Refuse("192.0.2.0/24", "/token", refusal(100+i))
		}
		time.Sleep(50 * time.Second)
		synctest.Wait()
		n, sums := m.whole()
		if n != 10 || len(sums) != 1 {
			t.Fatalf("after a minute: %d whole, %d summaries", n, len(sums))
		}
		d := sums[0].Detail
		first, last := d["first"].(int64), d["last"].(int64)
		if d["count"] != int64(110) || d["of"] != audit.TokenRefuse || last-first != 11_000 || len(d["samples"].([]any)) != 8 {
			t.Errorf("summary %+v", d)
		}
		l.Refuse("192.0.2.0/24", "/token", refusal(0))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n, sums := m.whole(); n != 11 || len(sums) != 1 {
			t.Errorf("after the next minute: %d whole, %d summaries", n, len(sums))
		}
		if s := l.Status(); s.RefusalsWritten != 12 || s.RefusalsSummarised != 110 || s.RefusalsLost != 0 || s.RefusalsQueued != 0 {
			t.Errorf("Status = %+v", s)
		}
	})
}

// Source, endpoint and reason are counted apart, up to 4,096 of them; what
// comes on top shares one key.
func TestRefusalKeysAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, m *memory, l *audit.Log) {
		const keys = 4096
		for i := range keys + 500 {
			l.Refuse(fmt.Sprint("source ", i), "/token", refusal(i))
			if i%1000 == 0 {
				synctest.Wait() // let the queue be written
			}
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		n, sums := m.whole()
		if n != keys+10 || len(sums) != 1 {
			t.Fatalf("%d whole, %d summaries; want %d and 1", n, len(sums), keys+10)
		}
		if sums[0].Reason != "overflow" || sums[0].Detail["count"] != int64(490) {
			t.Errorf("summary %+v", sums[0])
		}
	})
}

// While the log is away refusals wait, bounded; when it is back they are
// written, and what did not fit is counted.
func TestRefusalsOutliveTheLog(t *testing.T) {
	inBubble(t, func(t *testing.T, m *memory, l *audit.Log) {
		m.set(errors.New("down"), 0)
		for i := range 6000 {
			l.Refuse(fmt.Sprint("source ", i%3000), "/token", refusal(i))
		}
		time.Sleep(20 * time.Second)
		if n, _ := m.whole(); n != 0 || l.Status().Err == nil {
			t.Errorf("%d records in a log that is down; %+v", n, l.Status())
		}
		m.set(nil, 0)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		n, sums := m.whole()
		counted := int64(n)
		for _, s := range sums {
			counted += s.Detail["count"].(int64)
		}
		if counted != 6000 || n > 4096 {
			t.Errorf("%d whole and %d in all, want 6000 in all", n, counted)
		}
		if s := l.Status(); s.Err != nil || s.RefusalsLost != 0 {
			t.Errorf("Status = %+v", s)
		}
	})
}

// A lone Change is a batch of its own; those that come while a batch is being
// written make the next one, at most 256 Changes and 1 MiB.
func TestBatches(t *testing.T) {
	inBubble(t, func(t *testing.T, m *memory, l *audit.Log) {
		m.set(nil, 10*time.Millisecond)
		commit := func(e audit.Entry) {
			if err := l.Commit(context.Background(), audit.Change{Entries: []audit.Entry{e}}); err != nil {
				t.Error(err)
			}
		}
		for i := range 3 {
			commit(refusal(i))
		}
		var wait sync.WaitGroup
		for i := range 600 {
			wait.Go(func() { commit(refusal(i)) })
		}
		wait.Wait()
		big := refusal(0)
		big.Detail = map[string]any{}
		for i := range 12 {
			big.Detail[fmt.Sprint(i)] = string(make([]byte, 100)) // 500 bytes each, once escaped
		}
		for range 256 {
			wait.Go(func() { commit(big) })
		}
		wait.Wait()
		m.mu.Lock()
		defer m.mu.Unlock()
		total, most, lastMost := 0, 0, 0
		for i, n := range m.sizes {
			total += n
			most = max(most, n)
			if i > 8 {
				lastMost = max(lastMost, n)
			}
		}
		if total != 3+600+256 || most > 256 || m.sizes[0] != 1 || m.sizes[1] != 1 || m.sizes[2] != 1 || len(m.sizes) > 20 {
			t.Errorf("batches %v", m.sizes)
		}
		if lastMost*6000 > 1<<20 {
			t.Errorf("a batch of %d big Changes", lastMost)
		}
	})
}

// Close with a database that never answers comes back when its ctx ends.
func TestCloseIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		m.set(nil, time.Hour)
		l := audit.NewLog(audit.Config{Store: m})
		answer := make(chan error, 1)
		go func() { answer <- l.Commit(context.Background(), audit.Change{Entries: []audit.Entry{refusal(1)}}) }()
		synctest.Wait()
		l.Refuse("s", "/token", refusal(2))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := l.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close = %v", err)
		}
		if err := l.Commit(t.Context(), audit.Change{Entries: []audit.Entry{refusal(3)}}); !errors.Is(err, audit.ErrUnavailable) {
			t.Errorf("Commit after Close = %v", err)
		}
		if err := <-answer; err != nil {
			t.Errorf("what was queued: %v", err)
		}
		time.Sleep(3 * time.Hour) // the goroutines end when the database lets them
	})
}

// A full queue makes callers wait for as long as their deadline allows, and so
// does a database that is slow; what was queued is written all the same.
func TestFullQueue(t *testing.T) {
	inBubble(t, func(t *testing.T, m *memory, l *audit.Log) {
		m.set(nil, time.Minute)
		var wait sync.WaitGroup
		for i := range 2000 {
			wait.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				err := l.Commit(ctx, audit.Change{Entries: []audit.Entry{refusal(i)}})
				if err != nil && !(errors.Is(err, audit.ErrUnavailable) && errors.Is(err, context.DeadlineExceeded)) {
					t.Errorf("Commit = %v", err)
				}
			})
		}
		wait.Wait()
		time.Sleep(time.Hour)
		if n := len(m.all()); n < 512 || n >= 2000 {
			t.Errorf("%d records; some should have been queued and some not", n)
		}
	})
}

// Whoever hands a chain on can make it say more than a record has room for;
// its refusals are in the log all the same.
func TestRefusalOfALongChainIsRecorded(t *testing.T) {
	inBubble(t, func(t *testing.T, m *memory, l *audit.Log) {
		e := refusal(0)
		for i := range 40 {
			e.Chain = append(e.Chain, audit.Party{LID: fmt.Sprintf("lid%040d", i), ClientID: strings.Repeat("x", 256)})
		}
		l.Refuse("192.0.2.0/24", "/token", e)
		time.Sleep(time.Second)
		synctest.Wait()
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(m.records) != 1 || len(m.records[0].Entry.Chain) != 40 || m.records[0].Entry.Detail[audit.DetailShortened] != true {
			t.Errorf("%d records", len(m.records))
		}
	})
}

// A failure that nobody has met again is forgotten: a process that says that it
// is not ready is asked for nothing, and would never find out.
func TestFailureIsForgotten(t *testing.T) {
	inBubble(t, func(t *testing.T, m *memory, l *audit.Log) {
		m.set(errors.New("gone"), 0)
		if err := l.Commit(t.Context(), audit.Change{Entries: []audit.Entry{refusal(1)}}); !errors.Is(err, audit.ErrUnavailable) {
			t.Fatalf("Commit = %v", err)
		}
		time.Sleep(5 * time.Second)
		if l.Status().Err == nil {
			t.Error("it says at once that it could write")
		}
		time.Sleep(10 * time.Second)
		if err := l.Status().Err; err != nil {
			t.Errorf("long afterwards it still says %v", err)
		}
	})
}

// What nobody knows before the caller's deadline is unavailable, and written all
// the same; a caller who only went away is told what happened.
func TestDeadlineEndsTheWait(t *testing.T) {
	inBubble(t, func(t *testing.T, m *memory, l *audit.Log) {
		m.set(nil, time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
		defer cancel()
		began := time.Now()
		err := l.Commit(ctx, audit.Change{Entries: []audit.Entry{refusal(1)}})
		if took := time.Since(began); !errors.Is(err, audit.ErrUnavailable) || took != 9*time.Second {
			t.Errorf("Commit = %v after %v", err, took)
		}
		time.Sleep(2 * time.Minute)
		if n := len(m.all()); n != 1 {
			t.Errorf("%d records", n)
		}
		gone, leave := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, leave)
		if err := l.Commit(gone, audit.Change{Entries: []audit.Entry{refusal(2)}}); err != nil {
			t.Errorf("Commit of somebody who left = %v", err)
		}
	})
}
