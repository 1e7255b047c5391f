package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/audit/audittest"
	"github.com/kavach-dev/kavach/store/pgtest"
)

// Replicas that want the same rows in different orders never deadlock, because
// the head comes first.
func TestHotRows(t *testing.T) {
	s, dsn := openPostgresTest(t)
	const rows, replicas, callers, each = 20, 3, 4, 30
	name := func(i int) string { return fmt.Sprint("hot", i) }
	for i := range rows {
		administer(t, elsewhere(t, dsn), `INSERT INTO settings (name, value) VALUES ('`+name(i)+`', '')`)
	}
	var wait sync.WaitGroup
	for range replicas {
		replica, err := Open(t.Context(), Config{DSN: dsn})
		if err != nil {
			t.Fatal(err)
		}
		defer replica.Close()
		l := startLog(t, replica)
		for range callers {
			wait.Go(func() {
				for range each {
					var touch []audit.Effect
					for _, i := range rand.Perm(rows)[:5] {
						touch = append(touch, effect(1, `UPDATE settings SET value = value || 'x' WHERE name = $1`, name(i)))
					}
					if err := l.Commit(context.Background(), entryChange("hot", touch...)); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	wait.Wait()
	report, err := audit.Verify(t.Context(), s, audit.VerifyConfig{})
	if err != nil || !report.OK() || report.Size != replicas*callers*each {
		t.Errorf("Verify = %+v, %v", report, err)
	}
	touched := 0
	for i := range rows {
		value, err := s.setting(t.Context(), name(i))
		if err != nil {
			t.Error(err)
		}
		touched += len(value)
	}
	if touched != 5*replicas*callers*each {
		t.Errorf("rows were touched %d times, want %d", touched, 5*replicas*callers*each)
	}
}

// losing is a batch in which every nth Change loses at its second statement and
// has an Else.
func losing(t testing.TB, s *Store, run string, changes, nth int) []audit.Write {
	var batch []audit.Write
	draft := func(e audit.Entry) []*audit.Draft {
		d, err := audit.NewDraft(s.LogID(), e)
		if err != nil {
			t.Fatal(err)
		}
		return []*audit.Draft{d}
	}
	put := func(name string) audit.Effect {
		return effect(1, `INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING`, name, "1")
	}
	for i := range changes {
		name := fmt.Sprint(run, i)
		w := audit.Write{Effects: []audit.Effect{put(name), put(name + "b")}, Drafts: draft(audittest.Entry(name))}
		if nth > 0 && i%nth == 1 {
			w.Effects[1] = put(settingLog) // which is there
			w.Else = &audit.Write{Effects: []audit.Effect{put(name + "else")}, Drafts: draft(audittest.Denied(name))}
		}
		batch = append(batch, w)
	}
	return batch
}

// A batch with more losers than a transaction has savepoints is written in
// pieces, in order.
func TestManyLosers(t *testing.T) {
	s, _ := openPostgresTest(t)
	batch := losing(t, s, "n", 200, 2)
	var outcomes []audit.Outcome
	pieces := 0
	for rest := batch; len(rest) > 0; rest = batch[len(outcomes):] {
		some, err := s.Append(t.Context(), rest, 1)
		if err != nil || len(some) == 0 {
			t.Fatalf("%d outcomes, %v", len(some), err)
		}
		outcomes, pieces = append(outcomes, some...), pieces+1
	}
	for i, o := range outcomes {
		lost := i%2 == 1
		if o.Lost != lost || lost && o.Else != 1 || o.Err != nil || len(o.Records) != 1 || o.Records[0].Seq != int64(i) {
			t.Errorf("outcome %d = %+v", i, o)
		}
	}
	if pieces != (200+mostSavepoints-1)/mostSavepoints {
		t.Errorf("%d transactions", pieces)
	}
	report, err := audit.Verify(t.Context(), s, audit.VerifyConfig{})
	if err != nil || !report.OK() || report.Size != 200 {
		t.Errorf("Verify = %+v, %v", report, err)
	}
}

// When only the log refuses, whoever narrows authority is not kept waiting: its
// tables may not be written, or somebody sits on the head.
func TestLogRefusesOnPostgres(t *testing.T) {
	for name, block := range map[string]func(t *testing.T, dsn string) (unblock func()){
		"privilege": func(t *testing.T, dsn string) func() {
			admin := elsewhere(t, dsn)
			administer(t, admin, `REVOKE INSERT ON audit_records FROM app_`+databaseOf(t, dsn))
			return func() { administer(t, admin, `GRANT INSERT ON audit_records TO app_`+databaseOf(t, dsn)) }
		},
		"no head privilege": func(t *testing.T, dsn string) func() {
			admin := elsewhere(t, dsn)
			administer(t, admin, `REVOKE UPDATE ON audit_head FROM app_`+databaseOf(t, dsn))
			return func() { administer(t, admin, `GRANT UPDATE ON audit_head TO app_`+databaseOf(t, dsn)) }
		},
		"head locked": func(t *testing.T, dsn string) func() {
			tx, err := elsewhere(t, dsn).BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := tx.Exec(`SELECT 1 FROM audit_head FOR UPDATE`); err != nil {
				t.Fatal(err)
			}
			return func() { _ = tx.Rollback() }
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, dsn := openAsRole(t)
			f := fixture(t, s, "")
			l := startLog(t, s)
			if err := l.Commit(t.Context(), entryChange("before", f.Put("a", "live"), f.Put("b", "live"))); err != nil {
				t.Fatal(err)
			}
			unblock := block(t, dsn)
			c := entryChange("narrows", f.Move("a", "live", "dead"))
			c.Narrows = true
			if err := l.Commit(t.Context(), c); !errors.Is(err, audit.ErrUnrecorded) {
				t.Errorf("narrowing: %v", err)
			}
			if err := l.Commit(t.Context(), entryChange("widens", f.Put("c", "live"))); !errors.Is(err, audit.ErrUnavailable) {
				t.Errorf("widening: %v", err)
			}
			if got := f.Value(t, "a") + f.Value(t, "c"); got != "dead" {
				t.Errorf("a and c are %q", got)
			}
			unblock()
			if err := l.Commit(t.Context(), entryChange("after", f.Move("b", "live", "dead"))); err != nil {
				t.Error(err)
			}
			if status := l.Status(); status.Unrecorded != 0 || status.Err != nil {
				t.Errorf("Status = %+v", status)
			}
			report, err := audit.Verify(t.Context(), s, audit.VerifyConfig{})
			if err != nil || !report.OK() || report.Size != 3 {
				t.Errorf("Verify = %+v, %v", report, err)
			}
		})
	}
}

func databaseOf(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Trim(u.Path, "/")
}

// openAsRole opens a fresh database as a role that owns nothing and may not
// change the schema; dsn is the administrator's.
func openAsRole(t *testing.T) (s *Store, dsn string) {
	t.Helper()
	c := pgtest.Start(t, pgtest.Config{})
	dsn = c.Database(t)
	owner, err := Open(t.Context(), Config{DSN: dsn, Issuer: "kavach.example"})
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Close(); err != nil {
		t.Fatal(err)
	}
	role := "app_" + databaseOf(t, dsn)
	administer(t, elsewhere(t, dsn), `CREATE ROLE `+role+` LOGIN`,
		`GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO `+role)
	if s, err = Open(t.Context(), Config{DSN: c.As(role, databaseOf(t, dsn)) + "&lock_timeout=300ms"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, dsn
}

// A server that acknowledges what it may lose is refused, and so is one that
// does not speak UTF-8. No error repeats a password.
func TestPostgresRefused(t *testing.T) {
	c := pgtest.Start(t, pgtest.Config{})
	name := databaseOf(t, c.Database(t))
	for _, setting := range []string{"off", "local", "remote_write"} {
		s, err := Open(t.Context(), Config{DSN: c.DSN(name) + "&synchronous_commit=" + setting, Issuer: "kavach.example"})
		if !errors.Is(err, ErrStore) || !strings.Contains(err.Error(), "synchronous_commit is "+setting) {
			t.Errorf("synchronous_commit=%s: %v", setting, err)
		}
		if err == nil {
			s.Close()
		}
	}
	if err := c.Exec("postgres", `CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0`); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(t.Context(), Config{DSN: c.DSN("ascii"), Issuer: "kavach.example"}); !errors.Is(err, ErrStore) {
		t.Errorf("a database of another encoding: %v", err)
		s.Close()
	}
	for _, dsn := range []string{
		"postgres://kavach:hunter2@127.0.0.1:1/kavach",
		"postgres://kavach:hunter2@127.0.0.1:1/kavach?sslmode=nonsense",
		"postgres://kavach:hunter2@127.0.0.1:x/kavach",
		"postgresql://kavach:hunter2%zz@127.0.0.1/kavach",
		"postgres://127.0.0.1:1/kavach?password=hunter2&pool_max_conns=none",
		"postgress://kavach:hunter2@127.0.0.1/kavach",
	} {
		s, err := Open(t.Context(), Config{DSN: dsn, Issuer: "kavach.example"})
		if !errors.Is(err, ErrStore) || strings.Contains(fmt.Sprintf("%v %+v", err, err), "hunter2") {
			t.Errorf("%s: %v", dsn, err)
		}
		if err == nil {
			s.Close()
		}
	}
}

// An opening that only reads makes nothing, and what it opens cannot be written
// through it.
func TestPostgresReadOnly(t *testing.T) {
	empty := pgtest.Database(t)
	if s, err := Open(t.Context(), Config{DSN: empty, ReadOnly: true}); !errors.Is(err, ErrNoDatabase) {
		t.Errorf("an empty database: %v", err)
		s.Close()
	}
	var tables int
	if err := elsewhere(t, empty).QueryRow(`SELECT count(*) FROM pg_tables WHERE schemaname = 'public'`).Scan(&tables); err != nil || tables != 0 {
		t.Errorf("%d tables, %v", tables, err)
	}
	written, dsn := openPostgresTest(t)
	fillLog(t, written, 3)
	s, err := Open(t.Context(), Config{DSN: dsn, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, r := range []*Store{s, written} { // no pool for reads writes
		if _, err := r.read.db.Exec(`DELETE FROM settings`); pgCode(err) != pgReadOnly {
			t.Errorf("a read deletes: %v", err)
		}
	}
	report, err := audit.Verify(t.Context(), s, audit.VerifyConfig{})
	if err != nil || !report.OK() || report.Size != 3 {
		t.Errorf("Verify = %+v, %v", report, err)
	}
}

// BenchmarkLosers measures a batch of fifty with 25 losers beside one with none
// (audit.md §6: at most ten times as long).
func BenchmarkLosers(b *testing.B) {
	c := pgtest.Start(b, pgtest.Config{Durable: true})
	for name, nth := range map[string]int{"losers=0": 0, "losers=25": 2} {
		b.Run(name, func(b *testing.B) {
			s, err := Open(context.Background(), Config{DSN: c.Database(b)})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { s.Close() })
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				batch := losing(b, s, fmt.Sprint(i, "-"), 50, nth)
				b.StartTimer()
				if outcomes, err := s.Append(context.Background(), batch, 1); err != nil || len(outcomes) != 50 {
					b.Fatal(len(outcomes), err)
				}
			}
		})
	}
}
