package e2e

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// long is whether the experiments run as long as they are meant to: `make
// faults`. Otherwise they are short, to see that each of them can run.
func long() bool { return os.Getenv("KAVACH_FAULTS") == "long" }

// times is how often something is done.
func times(inShort, inLong int) int {
	if long() {
		return inLong
	}
	return inShort
}

// span is how long something takes.
func span(inShort, inLong time.Duration) time.Duration {
	if long() {
		return inLong
	}
	return inShort
}

// ops asks the operations listener and gives status and body; 0 if it did not
// answer.
func (s *server) ops(path string) (int, string) {
	client := http.Client{Timeout: patience}
	response, err := client.Get("http://" + s.Ops + path)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(body)
}

// becomes waits until /readyz has that status and says how long that took.
func (s *server) becomes(t *testing.T, status int) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		got, body := s.ops("/readyz")
		if got == status {
			return time.Since(began)
		}
		if time.Since(began) > time.Minute {
			t.Fatalf("/readyz is %d %s after a minute, not %d", got, body, status)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// metric reads a metric without labels, −1 if there is none.
func (s *server) metric(name string) float64 {
	_, body := s.ops("/metrics")
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			if number, err := strconv.ParseFloat(value, 64); err == nil {
				return number
			}
		}
	}
	return -1
}

// resident is the memory of the server in MiB, −1 where it cannot be known.
func (s *server) resident() int {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	for line := range strings.Lines(string(raw)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
			if err == nil {
				return kib >> 10
			}
		}
	}
	return -1
}

// onlyRefusals: whatever was not done was answered, and with 503 and
// Retry-After; nobody waited for more than ten seconds.
func (l *load) onlyRefusals(t *testing.T) {
	t.Helper()
	l.seen.mu.Lock()
	defer l.seen.mu.Unlock()
	for _, what := range slices.Sorted(maps.Keys(l.seen.wrong)) {
		t.Errorf("%d × %s", l.seen.wrong[what], what)
	}
	if l.seen.none > 0 {
		t.Errorf("%d requests got no answer", l.seen.none)
	}
	if l.seen.slowest > 10*time.Second {
		t.Errorf("a request took %v", l.seen.slowest)
	}
}

// settled: the server is ready, works again, and kept all its promises. It
// returns how long it took until it did something.
func (l *load) settled(t *testing.T, book *ledger, last bool) time.Duration {
	t.Helper()
	began := time.Now()
	l.server.becomes(t, http.StatusOK)
	l.begin()
	l.until(t, began, 1, everything...)
	took := time.Since(began)
	time.Sleep(time.Second)
	l.end()
	l.onlyRefusals(t)
	if err := book.check(last); err != nil {
		t.Fatal(err)
	}
	return took
}

// done counts what was acknowledged of that kind among what was asked for since.
func (l *load) done(t *testing.T, since time.Time, ops ...string) map[string]int {
	t.Helper()
	asked, out := map[string]bool{}, map[string]int{}
	if _, err := l.journal.read(0, func(e event) error {
		switch {
		case e.Say == "ask":
			asked[e.Mark] = e.At >= since.UnixMilli()
		case asked[e.Mark] && e.Got != nil && slices.Contains(ops, e.Op):
			out[e.Op]++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

// until waits for so many acknowledged operations of that kind among what is
// asked for from since on, and a little longer; the load is running.
func (l *load) until(t *testing.T, since time.Time, n int, ops ...string) map[string]int {
	t.Helper()
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		total, done := 0, l.done(t, since, ops...)
		for _, m := range done {
			total += m
		}
		if total >= n {
			return done
		}
		if time.Since(began) > 2*time.Minute {
			t.Fatalf("of %v there was acknowledged %v in two minutes, want %d", ops, done, n)
		}
	}
}

// widening are the operations that give somebody authority, narrowing those
// that take it.
var (
	widening  = []string{"register", "code", "redeem", "machine", "refresh", "delegate"}
	narrowing = []string{"revoke", "end"}
	// everything but questions to the log, which change nothing.
	everything = append(append([]string{}, widening...), narrowing...)
)
