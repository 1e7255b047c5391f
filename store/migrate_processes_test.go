package store

import (
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/migrations"
	"github.com/kavach-dev/kavach/store/pgtest"
)

// adapterOf is the name of the migrations of a data source.
func adapterOf(dsn string) string {
	if strings.HasPrefix(dsn, "sqlite:") {
		return "sqlite"
	}
	return "postgres"
}

// age makes a database as a kavach of an earlier version left it.
func age(t *testing.T, dsn string, version int) {
	t.Helper()
	steps, err := migrations.For(adapterOf(dsn))
	if err != nil {
		t.Fatal(err)
	}
	db := elsewhere(t, dsn)
	db.SetMaxOpenConns(1)
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := db.Exec(query, args...); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	exec(`CREATE TABLE migrations (version BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL, applied BIGINT NOT NULL)`)
	for _, step := range steps[:version] {
		exec(`INSERT INTO migrations VALUES ($1, $2, $3, 1)`, step.Version, step.Name, step.Digest)
		for _, statement := range step.Statements {
			exec(statement)
		}
	}
	log := "kavach.example/audit/01234567"
	exec(`INSERT INTO settings (name, value) VALUES ('audit.log', $1)`, log)
	exec(`INSERT INTO audit_head (one, size, leaf) VALUES (1, 0, $1)`, audit.FirstPrev(log))
	exec(`INSERT INTO users (id, name, role, disabled, password, created) VALUES ('usr_a', 'alice', 'member', 0, 'x', 1)`)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
}

// schemaOf is what a database has: tables and columns, indexes, triggers.
func schemaOf(t *testing.T, dsn string) (list []string) {
	t.Helper()
	query := `SELECT type || ' ' || name || ' ' || COALESCE(sql, '') FROM sqlite_schema`
	if adapterOf(dsn) == "postgres" {
		query = `SELECT 'column ' || table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || COALESCE(column_default, '')
				FROM information_schema.columns WHERE table_schema = current_schema()
			UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = current_schema()
			UNION ALL SELECT 'trigger ' || trigger_name || ' ' || event_object_table || event_manipulation FROM information_schema.triggers`
	}
	rows, err := elsewhere(t, dsn).Query(query)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var one string
		if err := rows.Scan(&one); err != nil {
			t.Fatal(err)
		}
		list = append(list, strings.Join(strings.Fields(one), ""))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

// versions is how many steps of the schema a database has taken.
func versions(db *sql.DB) (n int) {
	_ = db.QueryRow(`SELECT COUNT(*) FROM migrations`).Scan(&n) // 0 while there is no table, or it is locked
	return n
}

// killAt starts a process that opens the database and kills it when as many
// steps are taken, or when it is done.
func killAt(t *testing.T, dsn string, version int) (reached int) {
	t.Helper()
	db := elsewhere(t, dsn)
	cmd, out := startWriter(t, dsn, "open")
	ended := make(chan struct{})
	go func() { lines(out); close(ended) }()
	for running := true; running && versions(db) < version; {
		select {
		case <-ended:
			running = false
		case <-time.After(time.Millisecond):
		}
	}
	_ = cmd.Process.Kill()
	<-ended
	_ = cmd.Wait()
	return versions(db)
}

// Processes that start on a database of an earlier version, and on none, are
// killed at every step of bringing it up to date; then five start at once. All
// become ready, on the schema that a new database has and with what was in it
// (E17).
func TestProcessesMigrate(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		steps, err := migrations.For(adapterOf(dsn))
		if err != nil {
			t.Fatal(err)
		}
		begin := rand.IntN(len(steps)-4) + 3 // people are from step 2
		age(t, dsn, begin)
		var reached []int
		for version := begin; version < len(steps); version++ {
			reached = append(reached, killAt(t, dsn, version))
		}
		t.Logf("from version %d of %d, killed at %v", begin, len(steps), reached)
		var cmds []*exec.Cmd
		for range 5 {
			cmd, out := startWriter(t, dsn, "open")
			cmds = append(cmds, cmd)
			go lines(out)
		}
		for _, cmd := range cmds {
			if err := cmd.Wait(); err != nil {
				t.Errorf("process: %v", err)
			}
		}
		s, err := Open(t.Context(), Config{DSN: dsn})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if u, _, err := s.UserByID(t.Context(), "usr_a"); err != nil || u.Name != "alice" || s.LogID() != "kavach.example/audit/01234567" {
			t.Errorf("what was there: %+v, %v, log %s", u, err, s.LogID())
		}
		if n := versions(elsewhere(t, dsn)); n != len(steps) {
			t.Errorf("%d steps of %d", n, len(steps))
		}
		fresh := "sqlite:" + filepath.Join(t.TempDir(), "fresh.db")
		if adapterOf(dsn) == "postgres" {
			fresh = pgtest.Database(t)
		}
		s, err = Open(t.Context(), Config{DSN: fresh})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if got, want := schemaOf(t, dsn), schemaOf(t, fresh); !slices.Equal(got, want) {
			has := func(list []string) func(string) bool {
				return func(one string) bool { return slices.Contains(list, one) }
			}
			t.Errorf("the schema is not that of a new database: it has %q and lacks %q", slices.DeleteFunc(slices.Clone(got), has(want)), slices.DeleteFunc(slices.Clone(want), has(got)))
		}
	})
}

// An old kavach refuses a newer schema, to write and to read, and any kavach
// one whose steps were edited after they ran (E18). Nothing is changed by it.
func TestSchemaOfAnotherBuild(t *testing.T) {
	onEach(t, func(t *testing.T, dsn string) {
		s, err := Open(t.Context(), Config{DSN: dsn})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		db := elsewhere(t, dsn)
		for _, c := range []struct {
			do, undo string
			want     error
		}{
			{`INSERT INTO migrations (version, name, digest, applied) VALUES (9999, 'future', 'x', 1)`, `DELETE FROM migrations WHERE version = 9999`, ErrNewerSchema},
			{`UPDATE migrations SET digest = 'x' || digest WHERE version = 1`, `UPDATE migrations SET digest = substr(digest, 2) WHERE version = 1`, ErrOtherSchema},
			{`ALTER TABLE migrations DROP COLUMN digest`, ``, ErrOtherSchema},
		} {
			if _, err := db.Exec(c.do); err != nil {
				t.Fatal(err)
			}
			before := fmt.Sprint(schemaOf(t, dsn), versions(db))
			for _, readOnly := range []bool{false, true} {
				s, err := Open(t.Context(), Config{DSN: dsn, ReadOnly: readOnly})
				if !errors.Is(err, c.want) || !errors.Is(err, ErrStore) {
					t.Errorf("%s: Open(ReadOnly: %v) = %v, want %v", c.do, readOnly, err, c.want)
				}
				if err == nil {
					s.Close()
				}
			}
			if after := fmt.Sprint(schemaOf(t, dsn), versions(db)); after != before {
				t.Errorf("%s: it was changed", c.do)
			}
			if _, err := db.Exec(c.undo); err != nil && c.undo != "" {
				t.Fatal(err)
			}
		}
	})
}
