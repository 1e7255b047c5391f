package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/audit/audittest"
)

func startLog(t *testing.T, s *Store) *audit.Log {
	t.Helper()
	l := audit.NewLog(audit.Config{Store: s})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := l.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return l
}

func entryChange(resource string, effects ...audit.Effect) audit.Change {
	return audit.Change{Effects: effects, Entries: []audit.Entry{audittest.Entry(resource)}}
}

// reconnect gives the writer connections with other pragmas.
func reconnect(t *testing.T, s *Store, pragmas ...string) {
	t.Helper()
	w := s.writer()
	db, err := open(w.files.path, "rw", append([]string{"journal_mode(WAL)", "synchronous(FULL)"}, pragmas...)...)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.disconnect()
	if err := w.db.Close(); err != nil {
		t.Fatal(err)
	}
	w.db = db
}

// A database that cannot grow, and one that cannot be written at all, refuse
// with 503 and nothing half; reads live; both recover by themselves.
func TestDatabaseFaults(t *testing.T) {
	for name, fault := range map[string]string{
		"disk full": "max_page_count(1)", // no more than there are
		"read-only": "query_only(1)",
	} {
		t.Run(name, func(t *testing.T) {
			s, path := openTest(t)
			f := fixture(t, s, path)
			l := startLog(t, s)
			if err := l.Commit(t.Context(), entryChange("before", f.Put("a", "live"))); err != nil {
				t.Fatal(err)
			}
			reconnect(t, s, fault)
			refused, done := 0, 0
			for i := range 200 { // until the free pages of the file are used up
				c := entryChange(strings.Repeat("x", 1000), f.Put(fmt.Sprint("n", i), strings.Repeat("y", 1000)))
				switch err := l.Commit(t.Context(), c); {
				case err == nil:
					done++
				case errors.Is(err, audit.ErrUnavailable):
					refused++
				default:
					t.Fatal(err)
				}
			}
			if refused == 0 || l.Status().Err == nil {
				t.Errorf("%d refused, %d done, status %+v", refused, done, l.Status())
			}
			if got := f.Value(t, "a"); got != "live" {
				t.Errorf("reads are dead: %q", got)
			}
			reconnect(t, s)
			if err := l.Commit(t.Context(), entryChange("after", f.Put("b", "live"))); err != nil {
				t.Errorf("it does not recover: %v", err)
			}
			if l.Status().Err != nil {
				t.Errorf("Status = %+v", l.Status())
			}
			report, err := audit.Verify(t.Context(), s, audit.VerifyConfig{})
			if err != nil || !report.OK() || report.Size != int64(done+2) {
				t.Errorf("Verify = %+v, %v; want %d records", report, err, done+2)
			}
		})
	}
}

// Another process that holds the write lock makes Changes wait, not fail, and
// a lock that is never released is an answer in time.
func TestForeignLock(t *testing.T) {
	s, path := openTest(t)
	other, err := Open(t.Context(), Config{DSN: "sqlite:" + path, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	l := startLog(t, s)
	hold := func() {
		other.writer().mu.Lock()
		if err := other.writer().begin(); err != nil {
			t.Fatal(err)
		}
	}
	release := func() {
		other.writer().rollback()
		other.writer().mu.Unlock()
	}
	hold()
	answer := make(chan error)
	go func() { answer <- l.Commit(context.Background(), entryChange("waits")) }()
	time.Sleep(300 * time.Millisecond)
	release()
	if err := <-answer; err != nil {
		t.Errorf("a Change that waited for the lock: %v", err)
	}
	hold()
	if err := l.Commit(t.Context(), entryChange("gives up")); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("behind a lock that is never released: %v", err)
	}
	release()
	if err := l.Commit(t.Context(), entryChange("goes on")); err != nil {
		t.Error(err)
	}
}

// Below the wanted free space authority is not widened and narrowing goes
// through; the reserve is made when there is room and freed when asked for.
func TestRoom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kavach.db")
	s, err := Open(t.Context(), Config{DSN: "sqlite:" + path, MinFree: 1 << 60})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	f := fixture(t, s, path)
	l := audit.NewLog(audit.Config{Store: s})
	defer l.Close(t.Context())
	if err := l.Commit(t.Context(), entryChange("widen", f.Put("a", "1"))); !errors.Is(err, audit.ErrUnavailable) || !errors.Is(err, ErrStore) {
		t.Errorf("widening without room: %v", err)
	}
	c := entryChange("narrow", f.Put("revoked", "1"))
	c.Narrows = true
	if err := l.Commit(t.Context(), c); err != nil {
		t.Errorf("narrowing without room: %v", err)
	}
	if _, err := os.Stat(path + "-reserve"); err == nil {
		t.Error("a reserve was made where there is no room")
	}

	d := newDisk(path, 1)
	info, err := os.Stat(path + "-reserve")
	if err != nil || info.Size() != reserveSize || info.Mode().Perm() != 0o600 {
		t.Fatalf("reserve: %v, %v", info, err)
	}
	if !d.reclaim() || d.reclaim() {
		t.Error("the reserve is freed once")
	}
	if _, err := os.Stat(path + "-reserve"); err == nil {
		t.Error("the reserve is still there")
	}
	d.looked = time.Time{}
	if err := d.room(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path + "-reserve"); err != nil {
		t.Errorf("the reserve does not come back: %v", err)
	}
}

// Two Logs in one process, as `serve` and a command beside it in a test, make
// one linear log, and nothing of them is left when they are closed.
func TestTwoLogs(t *testing.T) {
	before := runtime.NumGoroutine()
	s, path := openTest(t)
	other, err := Open(t.Context(), Config{DSN: "sqlite:" + path, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	logs := []*audit.Log{audit.NewLog(audit.Config{Store: s}), audit.NewLog(audit.Config{Store: other}), audit.NewLog(audit.Config{Store: s})}
	for i, l := range logs {
		for g := range 8 {
			wait.Go(func() {
				for n := range 10 {
					if err := l.Commit(context.Background(), entryChange(fmt.Sprint(i, g, n))); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	wait.Wait()
	for _, l := range logs {
		if err := l.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	report, err := audit.Verify(t.Context(), s, audit.VerifyConfig{})
	if err != nil || !report.OK() || report.Size != 240 {
		t.Errorf("Verify = %+v, %v", report, err)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for range 100 {
		if runtime.NumGoroutine() <= before+1 {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	buf := make([]byte, 1<<16)
	t.Errorf("%d goroutines became %d:\n%s", before, runtime.NumGoroutine(), buf[:runtime.Stack(buf, true)])
}

// Verification beside a writer sees the log as it was when it began.
func TestVerifyBesideWriters(t *testing.T) {
	s, _ := filled(t, 3000)
	l := startLog(t, s)
	stop := make(chan struct{})
	var wait sync.WaitGroup
	for g := range 4 {
		wait.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := l.Commit(context.Background(), entryChange(fmt.Sprint(g, i))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 10 {
		progressed := false
		report, err := audit.Verify(t.Context(), s, audit.VerifyConfig{Progress: func(done, of int64) { progressed = done <= of }})
		if err != nil || !report.OK() || report.Records != report.Size || report.Size < 3000 || !progressed {
			t.Errorf("Verify = %+v, %v", report, err)
		}
	}
	close(stop)
	wait.Wait()
}
