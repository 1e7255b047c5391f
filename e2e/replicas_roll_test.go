package e2e

import (
	"math/rand/v2"
	"testing"
	"time"
)

// rollFlags are for replicas that are stopped one after the other: the proxy
// asks /readyz twenty times a second, and a machine under tests is slow.
var rollFlags = append([]string{"--drain-delay", "2s"}, loadFlags...)

// TestReplicasRoll is E10: replicas are replaced one by one under load, and
// nobody who asks through the proxy notices.
func TestReplicasRoll(t *testing.T) {
	s := startReplicas(t, rollFlags...)
	s.balancer.watch(t)
	l := newLoad(t, s, 4)
	book := newLedger(l)
	var slowest time.Duration
	rolls := times(1, 10)
	l.begin()
	for range rolls {
		for _, r := range s.replicas {
			time.Sleep(500 * time.Millisecond)
			began := time.Now()
			if err := r.stop(); err != nil {
				t.Errorf("a replica ended with %v", err)
			}
			slowest = max(slowest, time.Since(began))
			r.run()
			r.becomes(t, 200)
		}
	}
	l.end()
	l.onlyRefusals(t)
	if failed := s.balancer.failed.Load(); failed > 0 || l.seen.refused > 0 {
		t.Errorf("%d requests were not answered by a replica, %d refused", failed, l.seen.refused)
	}
	if err := book.check(true); err != nil {
		t.Error(err)
	}
	t.Logf("E10: %d rolling restarts of three replicas, %s, 0 failed; a replica drained within %v", rolls, book.figures(), slowest.Round(time.Millisecond))
}

// TestReplicasKilled is A-157: eight writers on three replicas, one of which is
// killed again and again, make one log without gap or fork, and nothing that was
// acknowledged is missing.
func TestReplicasKilled(t *testing.T) {
	s := startReplicas(t, rollFlags...)
	s.balancer.watch(t)
	l := newLoad(t, s, 8)
	book := newLedger(l)
	kills := times(3, 50)
	l.begin()
	for i := range kills {
		time.Sleep(200*time.Millisecond + rand.N(1200*time.Millisecond))
		r := s.replicas[i%3]
		r.kill()
		time.Sleep(rand.N(300 * time.Millisecond))
		r.run()
	}
	l.end()
	if l.seen.none > 0 {
		t.Errorf("%d requests got no answer", l.seen.none)
	}
	if err := book.check(true); err != nil {
		t.Error(err)
	}
	t.Logf("A-157: %d kills of one of three replicas under 8 writers, %s; one log, intact", kills, book.figures())
}
