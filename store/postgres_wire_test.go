package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/audit/audittest"
	"github.com/kavach-dev/kavach/store/pgtest"
)

// What a wire does with the next pipeline that holds records and COMMIT.
const (
	passes   = "passes"
	unsent   = "is cut before the server has it"
	unheard  = "is cut before the answer to COMMIT arrives"
	arriving = "is cut, and the server gets it all the same, later"
)

// postgresWire is a connection to PostgreSQL that can be cut where it hurts.
type postgresWire struct {
	net.Listener
	server string

	mu   sync.Mutex
	next string // what happens once
}

func newPostgresWire(t *testing.T, server string) *postgresWire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &postgresWire{Listener: l, server: server, next: passes}
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wait.Go(func() { w.carry(client) })
		}
	})
	t.Cleanup(func() { l.Close(); wait.Wait() })
	return w
}

func (w *postgresWire) set(next string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next = next
}

// take returns what is to happen to a pipeline, once.
func (w *postgresWire) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := w.next
	w.next = passes
	return next
}

func (w *postgresWire) carry(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", w.server)
	if err != nil {
		return
	}
	defer server.Close()
	var deaf sync.Once
	unheardAnswer := make(chan struct{})
	go func() { // the answers
		defer client.Close()
		buf := make([]byte, 1<<16)
		for {
			n, err := server.Read(buf)
			select {
			case <-unheardAnswer:
				if bytes.Contains(buf[:n], []byte("COMMIT\x00")) || err != nil {
					return
				}
				continue
			default:
			}
			if err != nil {
				return
			}
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	}()
	buf := make([]byte, 1<<20)
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		if bytes.Contains(buf[:n], []byte(`"config.update"`)) { // a record of these tests
			switch w.take() {
			case unsent:
				return
			case unheard:
				deaf.Do(func() { close(unheardAnswer) })
			case arriving:
				client.Close()
				time.Sleep(300 * time.Millisecond)
				_, _ = server.Write(buf[:n])
				time.Sleep(300 * time.Millisecond)
				return
			}
		}
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
	}
}

// A COMMIT whose answer is lost is found out about, and what is answered then is
// what is in the log: nothing is lost, nothing is there twice.
func TestLostCommit(t *testing.T) {
	c := pgtest.Start(t, pgtest.Config{TCP: true})
	dsn := c.Database(t)
	w := newPostgresWire(t, c.Address())
	s, err := Open(t.Context(), Config{DSN: strings.Replace(dsn, c.Address(), w.Addr().String(), 1), Issuer: "kavach.example"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l := startLog(t, s)
	var acknowledged []string
	for round := range 4 {
		for _, next := range []string{passes, unsent, unheard, arriving} {
			w.set(next)
			c := marked(fmt.Sprint(next, round))
			if err := l.Commit(t.Context(), c); err != nil {
				t.Errorf("a wire that %s: %v", next, err)
				continue
			}
			acknowledged = append(acknowledged, c.Entries[0].ID)
		}
	}
	time.Sleep(400 * time.Millisecond) // what arrives late has arrived
	checkLog(t, dsn, acknowledged)
	if report, err := audit.Verify(t.Context(), s, audit.VerifyConfig{}); err != nil || report.Size != int64(len(acknowledged)) {
		t.Errorf("%d records of %d: %v", report.Size, len(acknowledged), err)
	}
}

// A server that restarts, in whatever way, is connected to again: what fails
// meanwhile says that nothing can be written, and nothing acknowledged is lost.
func TestServerRestarts(t *testing.T) {
	c := pgtest.Start(t, pgtest.Config{Durable: true})
	dsn := c.Database(t)
	s, err := Open(t.Context(), Config{DSN: dsn, Issuer: "kavach.example"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l := startLog(t, s)
	var mu sync.Mutex
	var acknowledged []string
	refused := 0
	ctx, stop := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	for g := range 8 {
		wait.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				c := marked(fmt.Sprint(g, "/", i))
				err := l.Commit(context.Background(), c)
				mu.Lock()
				switch {
				case err == nil:
					acknowledged = append(acknowledged, c.Entries[0].ID)
				case errors.Is(err, audit.ErrUnavailable):
					refused++
				default:
					t.Errorf("while the server restarts: %v", err)
				}
				mu.Unlock()
			}
		})
	}
	for _, mode := range []pgtest.Mode{pgtest.Immediate, pgtest.Fast, pgtest.Immediate} {
		time.Sleep(300 * time.Millisecond)
		if err := c.Restart(mode); err != nil {
			t.Error(err)
		}
		if err := l.Commit(t.Context(), marked("beside")); err != nil {
			t.Errorf("after a restart (%s): %v", mode, err)
		}
		for range postgresReads { // the connections that were open are all dead
			_ = s.Ping(t.Context())
		}
		if err := s.Ping(t.Context()); err != nil {
			t.Errorf("reading after a restart (%s): %v", mode, err)
		}
	}
	stop()
	wait.Wait()
	t.Logf("%d acknowledged, %d refused", len(acknowledged), refused)
	checkLog(t, dsn, acknowledged)
}

// marked is a Change of the form that checkLog wants: its effect bears the id of
// its entry.
func marked(resource string) audit.Change {
	e := audittest.Entry(resource)
	return audit.Change{Entries: []audit.Entry{e}, Effects: []audit.Effect{
		effect(-1, `INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING`, e.ID, resource)}}
}

// Where a standby must have every COMMIT, nothing is acknowledged that it has
// not, neither by a COMMIT nor by a look-up of one; and when it takes over, the
// writer finds it.
func TestSynchronousStandby(t *testing.T) {
	c := pgtest.Start(t, pgtest.Config{})
	name := path.Base(strings.SplitN(c.Database(t), "?", 2)[0])
	standby := c.Standby(t)
	for setting, value := range map[string]string{"synchronous_standby_names": "standby", "synchronous_commit": "remote_apply"} {
		if err := c.Set(setting, value); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { // or nothing can be cleaned up
		if !c.Stopped() {
			c.Set("synchronous_standby_names", "")
		}
	})
	s, err := Open(t.Context(), Config{DSN: eitherOf(t, c.DSN(name), standby.DSN(name)), Issuer: "kavach.example"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l := audit.NewLog(audit.Config{Store: s, Deadline: 2 * time.Second})
	defer l.Close(context.Background())
	first, second := marked("with a standby"), marked("without")
	if err := l.Commit(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if err := standby.Stop(pgtest.Fast); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it is there already, and only there
		if err := l.Commit(t.Context(), second); !errors.Is(err, audit.ErrUnavailable) {
			t.Errorf("without the standby: %v", err)
		}
	}
	// Nor when somebody ends the wait, and the server answers COMMIT.
	waiting, answered := context.WithCancel(t.Context())
	ended := make(chan struct{})
	impatient := elsewhere(t, c.DSN("postgres"))
	go func() {
		defer close(ended)
		for waiting.Err() == nil { // for the COMMIT, then for those of the look-ups
			if _, err := impatient.Exec(`SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`); err != nil {
				t.Error(err)
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	if err := l.Commit(t.Context(), marked("cancelled")); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("a wait for the standby that was ended: %v", err)
	}
	answered()
	<-ended
	if err := standby.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		err := l.Commit(t.Context(), second)
		if err == nil {
			break
		}
		if !errors.Is(err, audit.ErrUnavailable) || time.Now().After(deadline) {
			t.Fatalf("with the standby again: %v", err)
		}
	}
	third := marked("after the failover")
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := l.Commit(t.Context(), third); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("without a primary: %v", err)
	}
	if err := standby.Promote(); err != nil {
		t.Fatal(err)
	}
	if err := standby.Set("synchronous_standby_names", ""); err != nil {
		t.Fatal(err)
	}
	if err := l.Commit(t.Context(), third); err != nil {
		t.Errorf("after the failover: %v", err)
	}
	checkLog(t, standby.DSN(name), []string{first.Entries[0].ID, second.Entries[0].ID, third.Entries[0].ID})
}

// eitherOf is the URL of whichever of two servers takes writes.
func eitherOf(t *testing.T, a, b string) string {
	t.Helper()
	u, err := url.Parse(a)
	if err != nil {
		t.Fatal(err)
	}
	other, err := url.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	for _, name := range []string{"host", "port"} {
		q.Set(name, q.Get(name)+","+other.Query().Get(name))
	}
	q.Set("target_session_attrs", "read-write")
	u.RawQuery = q.Encode()
	return u.String()
}
