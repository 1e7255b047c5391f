package e2e

import (
	"database/sql"
	"net/http"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	_ "modernc.org/sqlite"
)

// unwritable is E7: the table of the log takes no row. shut and open make it so.
func unwritable(t *testing.T, name string, s *server, shut, open func()) {
	l := newLoad(t, s, 4)
	book := newLedger(l)
	l.begin()
	time.Sleep(span(time.Second, 10*time.Second))
	l.until(t, time.Time{}, 40, "delegate") // so that there is something to revoke
	shut()
	noticed := s.becomes(t, http.StatusServiceUnavailable)
	closed := time.Now()
	time.Sleep(span(3*time.Second, 30*time.Second))
	narrowed := l.until(t, closed, 1, narrowing...)
	if done := l.done(t, closed, widening...); len(done) > 0 {
		t.Errorf("without a log there was acknowledged %v", done)
	}
	for _, path := range []string{"/.well-known/oauth-authorization-server", "/.well-known/jwks.json", "/revocations", "/login"} {
		response, err := http.Get(s.Issuer + path)
		if err != nil {
			t.Fatal(err)
		}
		if response.Body.Close(); response.StatusCode != http.StatusOK {
			t.Errorf("%s is %d", path, response.StatusCode)
		}
	}
	if got, _ := s.ops("/healthz"); got != http.StatusOK {
		t.Errorf("/healthz is %d", got)
	}
	writable, waiting := s.metric("kavach_audit_writable"), s.metric("kavach_audit_unrecorded")
	if writable != 0 || waiting < 1 {
		t.Errorf("the metrics say that the log is writable (%v) and %v records wait", writable, waiting)
	}
	l.end()

	// What was revoked is dead before it is in the log.
	if err := book.replay(); err != nil {
		t.Fatal(err)
	}
	open()
	back := s.becomes(t, http.StatusOK)
	for began := time.Now(); s.metric("kavach_audit_unrecorded") != 0; time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatal("the log is back, and what waits for it still waits")
		}
	}
	l.settled(t, book, true)
	if got := s.metric("kavach_audit_writable"); got != 1 {
		t.Errorf("kavach_audit_writable is %v afterwards", got)
	}
	t.Logf("E7 %s: noticed after %v; without the log %v and nothing else, %v records waited; back after %v; %s",
		name, noticed.Round(time.Millisecond), narrowed, waiting, back.Round(time.Millisecond), book.figures())
}

// TestFaultLog is E7 on SQLite.
func TestFaultLog(t *testing.T) {
	s := start(t, loadFlags...)
	db, err := sql.Open("sqlite", "file:"+url.PathEscape(filepath.Join(s.Data, "kavach.db"))+"?_pragma=busy_timeout(10000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	exec := func(statement string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	unwritable(t, "SQLite", s,
		func() {
			exec(`CREATE TRIGGER shut BEFORE INSERT ON audit_records BEGIN SELECT RAISE(ABORT, 'shut'); END`)
		},
		func() { exec(`DROP TRIGGER shut`) })
}

// TestFaultLogPostgres is E7 on PostgreSQL: the role may not insert any more.
func TestFaultLogPostgres(t *testing.T) {
	c := newCluster(t, nil)
	c.do("exec postgres CREATE ROLE app LOGIN")
	c.do("exec postgres ALTER DATABASE kavach OWNER TO app")
	c.DSN = c.do("as app kavach").DSN
	s := c.serve(t)
	unwritable(t, "PostgreSQL", s,
		func() { c.do("exec kavach REVOKE INSERT ON audit_records FROM app") },
		func() { c.do("exec kavach GRANT INSERT ON audit_records TO app") })
}
