package e2e

import (
	"math/rand/v2"
	"testing"
	"time"
)

// killNine kills the server again and again under load (E1).
func killNine(t *testing.T, s *server) {
	cycles := times(5, 100)
	l := newLoad(t, s, 4)
	book := newLedger(l)
	var slowest, total time.Duration
	for cycle := range cycles {
		begin := time.Now()
		l.begin()
		time.Sleep(200*time.Millisecond + rand.N(1800*time.Millisecond))
		l.until(t, begin, 8, everything...)
		s.kill()
		l.end()
		began := time.Now()
		s.run()
		took := time.Since(began)
		total, slowest = total+took, max(slowest, took)
		if err := book.check(false); err != nil {
			t.Fatalf("cycle %d: %v", cycle, err)
		}
	}
	if err := book.check(true); err != nil {
		t.Fatalf("at the end: %v", err)
	}
	t.Logf("E1: %d kills, %s; ready again after %v on average, %v at most", cycles, book.figures(), (total / time.Duration(cycles)).Round(time.Millisecond), slowest.Round(time.Millisecond))
}

// TestFaultKill is E1 on SQLite: whatever was acknowledged stands after kill -9,
// in the log as well, without repair by hand.
func TestFaultKill(t *testing.T) {
	killNine(t, start(t, loadFlags...))
}

// TestFaultKillPostgres is E1 on PostgreSQL.
func TestFaultKillPostgres(t *testing.T) {
	killNine(t, newCluster(t, nil).serve(t))
}
