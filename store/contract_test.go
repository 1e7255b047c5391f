package store

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/audit/audittest"
)

// openTest opens a fresh database that ends with the test.
func openTest(t testing.TB) (*Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "data", "kavach.db")
	s, err := Open(context.Background(), Config{DSN: "sqlite:" + path, Issuer: "https://kavach.example:8420", MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("closing the store: %v", err)
		}
	})
	return s, path
}

// writer is the connection of a Store on SQLite.
func (s *Store) writer() *writer { return s.write.(*writer) }

// elsewhere is a connection to a database of somebody who can write it, and
// knows nothing of this package.
func elsewhere(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	driver, source := "pgx", dsn
	if file, ok := strings.CutPrefix(dsn, "sqlite:"); ok {
		driver, source = "sqlite", "file:"+file+"?_pragma=busy_timeout(5000)"
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// administer runs SQL elsewhere.
func administer(t testing.TB, db *sql.DB, statements ...string) {
	t.Helper()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// outside runs SQL as somebody who can write the file.
func outside(t testing.TB, path string, statements ...string) {
	t.Helper()
	db := elsewhere(t, "sqlite:"+path)
	defer db.Close()
	administer(t, db, statements...)
}

// fixture is the toy table of the contract test: the settings.
func fixture(t *testing.T, s *Store, path string) audittest.Fixture {
	return audittest.Fixture{
		Store: s,
		Put: func(name, value string) audit.Effect {
			return effect(1, `INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING`, name, value)
		},
		Move: func(name, from, to string) audit.Effect {
			return effect(1, `UPDATE settings SET value = $3 WHERE name = $1 AND value = $2`, name, from, to)
		},
		Clear: func(name string) audit.Effect {
			return effect(-1, `DELETE FROM settings WHERE name = $1`, name)
		},
		Broken: func() audit.Effect {
			return effect(1, `INSERT INTO settings (name, value) VALUES ($1, $2)`, "broken", nil)
		},
		Malformed: func() audit.Effect {
			return effect(1, `UPDATE no_such_table SET value = $1`, "x")
		},
		Value: func(t *testing.T, name string) string {
			v, err := s.setting(t.Context(), name)
			if errors.Is(err, sql.ErrNoRows) {
				return ""
			}
			if err != nil {
				t.Fatal(err)
			}
			return v
		},
		Records: func(t *testing.T) (list [][]byte) {
			rows, err := s.read.Query(context.Background(), `SELECT bytes FROM audit_records ORDER BY seq`)
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			for rows.Next() {
				var b []byte
				if err := rows.Scan(&b); err != nil {
					t.Fatal(err)
				}
				list = append(list, b)
			}
			if err := rows.Err(); err != nil {
				t.Fatal(err)
			}
			return list
		},
		Block: func(t *testing.T) func() {
			outside(t, path, `CREATE TRIGGER blocked BEFORE INSERT ON audit_records BEGIN SELECT RAISE(ABORT, 'blocked'); END`)
			return func() { outside(t, path, `DROP TRIGGER blocked`) }
		},
	}
}

// The SQLite adapter keeps the contract of audit.Store.
func TestContract(t *testing.T) {
	audittest.RunStore(t, func(t *testing.T) audittest.Fixture {
		s, path := openTest(t)
		return fixture(t, s, path)
	})
}
