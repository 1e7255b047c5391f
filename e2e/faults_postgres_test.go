package e2e

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestFaultRestart is E3: PostgreSQL is restarted with -m immediate under load.
func TestFaultRestart(t *testing.T) {
	c := newCluster(t, nil, "-durable")
	s := c.serve(t)
	l := newLoad(t, s, 4)
	book := newLedger(l)
	restarts := times(3, 20)
	var slowest time.Duration
	l.begin()
	l.until(t, time.Time{}, 20, everything...)
	for range restarts {
		time.Sleep(span(time.Second, 2*time.Second))
		c.do("restart immediate")
		slowest = max(slowest, s.becomes(t, http.StatusOK))
	}
	l.end()
	l.onlyRefusals(t)
	l.settled(t, book, true)
	t.Logf("E3: %d restarts of PostgreSQL, %s; ready again %v after it at most", restarts, book.figures(), slowest.Round(time.Millisecond))
}

// TestFaultFailover is E4 with synchronous replication: the primary dies, the
// standby becomes the primary, the server finds it by itself.
func TestFaultFailover(t *testing.T) {
	for range times(1, 5) {
		c := newCluster(t, nil)
		standby := c.do("standby")
		c.do("set synchronous_standby_names *")
		c.do("set synchronous_commit remote_apply")
		u, err := url.Parse(c.DSN)
		if err != nil {
			t.Fatal(err)
		}
		dir, port := socketOf(t, standby.DSN)
		u.RawQuery = url.Values{"host": {c.Host + "," + dir}, "port": {c.Port + "," + port}, "target_session_attrs": {"read-write"}}.Encode()
		c.DSN = u.String()
		s := c.serve(t)
		l := newLoad(t, s, 4)
		book := newLedger(l)
		l.begin()
		time.Sleep(span(time.Second, 5*time.Second))
		l.until(t, time.Time{}, 20, everything...)
		c.do("kill")
		began := time.Now()
		s.becomes(t, http.StatusServiceUnavailable)
		c.do("on standby exec postgres ALTER SYSTEM RESET synchronous_standby_names")
		c.do("promote")
		promoted := time.Since(began)
		found := s.becomes(t, http.StatusOK)
		time.Sleep(time.Second)
		l.end()
		l.onlyRefusals(t)
		l.settled(t, book, true)
		t.Logf("E4: failover to a synchronous standby, %s; promoted after %v, ready %v after that", book.figures(), promoted.Round(time.Millisecond), found.Round(time.Millisecond))
		s.kill()
	}
}

// TestFaultGone is E5: PostgreSQL is not there for a while. The process stays,
// says so, and resource servers do not notice.
func TestFaultGone(t *testing.T) {
	c := newCluster(t, nil)
	s := c.serve(t)
	resource := documents(t, s.Issuer)
	s.cli("", "resource", "add", resource, "--name", "Documents", "--kavach-aware", "--scope", "docs:read=Read documents")
	reader := s.newAgent(t, "reader", "docs:read")
	token := reader.signedIn("docs:read", url.Values{"resource": {resource}}).Access
	read := func() int {
		request, _ := http.NewRequestWithContext(context.Background(), "GET", resource+"/docs/charter", nil)
		request.Header.Set("Authorization", "DPoP "+token)
		request.Header.Set("DPoP", reader.Holder.proof("GET", resource+"/docs/charter", token))
		return do(t, http.DefaultClient, request).status
	}
	if got := read(); got != http.StatusOK {
		t.Fatalf("the resource server answers %d", got)
	}
	l := newLoad(t, s, 4)
	book := newLedger(l)
	l.begin()
	time.Sleep(time.Second)
	before, hands := s.resident(), s.metric("go_goroutines")
	c.do("kill")
	noticed := s.becomes(t, http.StatusServiceUnavailable)
	gone, reads := time.Now(), 0
	for time.Since(gone) < span(5*time.Second, time.Minute) {
		time.Sleep(200 * time.Millisecond)
		if got, _ := s.ops("/healthz"); got != http.StatusOK {
			t.Fatalf("/healthz is %d", got)
		}
		if got, _ := s.ops("/readyz"); got != http.StatusServiceUnavailable {
			t.Fatalf("/readyz is %d", got)
		}
		if got := read(); got != http.StatusOK {
			t.Fatalf("the resource server answers %d", got)
		}
		reads++
	}
	if done := l.done(t, gone, widening...); len(done) > 0 {
		t.Errorf("without a database there was acknowledged %v", done)
	}
	after := s.resident()
	if after-before > 128 { // two passwords being hashed
		t.Errorf("memory went from %d to %d MiB", before, after)
	}
	if now := s.metric("go_goroutines"); now > hands+100 {
		t.Errorf("goroutines went from %v to %v", hands, now)
	}
	c.do("start")
	back := s.becomes(t, http.StatusOK)
	time.Sleep(time.Second)
	l.end()
	l.onlyRefusals(t)
	l.settled(t, book, true)
	if strings.Contains(s.output(), "panic") {
		t.Error("it panicked")
	}
	t.Logf("E5: PostgreSQL gone for %v, noticed after %v, %d tokens verified offline meanwhile, memory %d → %d MiB; back after %v; %s",
		span(5*time.Second, time.Minute), noticed.Round(time.Millisecond), reads, before, after, back.Round(time.Millisecond), book.figures())
}
