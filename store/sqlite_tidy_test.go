package store

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
)

// fill writes n rows that expire at a time, a kilobyte each.
func fill(t *testing.T, s *Store, n int, until time.Time) {
	t.Helper()
	for n > 0 {
		var batch []audit.Write
		for range min(n, 256) {
			n--
			batch = append(batch, audit.Write{Effects: []audit.Effect{s.Once(fmt.Sprint(until.UnixMilli(), n, strings.Repeat("x", 1000)), until)}})
		}
		if _, err := s.Append(t.Context(), batch, 1); err != nil {
			t.Fatal(err)
		}
	}
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// A write-ahead log that a long read has let grow is emptied afterwards, and
// nothing is lost by it.
func TestTidyBoundsTheWriteAheadLog(t *testing.T) {
	s, path := openTest(t)
	const most = 256 << 10
	read, err := s.read.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	if _, err := read.ExecContext(t.Context(), `BEGIN`); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := read.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM replays`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	fill(t, s, 1500, time.UnixMilli(1))
	grown := size(t, path+"-wal")
	if grown < 6*most {
		t.Fatalf("the write-ahead log has only %d bytes", grown)
	}
	w := s.write.(*writer)
	if err := w.tidy(grown); err != nil || size(t, path+"-wal") != grown {
		t.Errorf("one that is small enough was touched: %v", err)
	}
	if _, err := read.ExecContext(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	if err := w.tidy(most); err != nil {
		t.Fatal(err)
	}
	if after := size(t, path+"-wal"); after > most {
		t.Errorf("the write-ahead log has %d bytes, had %d", after, grown)
	}
	fill(t, s, 1, time.UnixMilli(2)) // and the writer goes on
	if err := s.read.QueryRow(t.Context(), `SELECT COUNT(*) FROM replays`).Scan(&n); err != nil || n != 1501 {
		t.Errorf("%d rows, %v", n, err)
	}
}

// What rows leave is used again: filling and pruning does not make the file
// larger.
func TestSpaceIsUsedAgain(t *testing.T) {
	s, path := openTest(t)
	l := audit.NewLog(audit.Config{Store: s})
	defer l.Close(t.Context())
	var first int64
	for round := range 5 {
		fill(t, s, 700, time.UnixMilli(int64(round)))
		if _, err := audit.Prune(t.Context(), l, s.ExpiredReplays(time.UnixMilli(int64(round+1)))); err != nil {
			t.Fatal(err)
		}
		var n int
		if err := s.read.QueryRow(t.Context(), `SELECT COUNT(*) FROM replays`).Scan(&n); err != nil || n != 0 {
			t.Fatalf("%d rows stay, %v", n, err)
		}
		if err := s.write.(*writer).tidy(0); err != nil {
			t.Fatal(err)
		}
		if round == 1 {
			first = size(t, path)
		}
	}
	if last := size(t, path); last > first+first/20 {
		t.Errorf("the file had %d bytes after two rounds and has %d after five", first, last)
	}
}
