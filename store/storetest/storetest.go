// Package storetest says on which database the tests of the other packages run:
// SQLite, or what KAVACH_TEST_STORE names.
//
//	KAVACH_TEST_STORE=postgres go test ./authz ./api ./mcp ./people
//
// runs all of them on PostgreSQL (see pgtest), as a role that may do what
// `kavach migrate --grant` gives it and no more. KAVACH_TEST_STORE=d1 does so on
// Cloudflare D1 (see d1test), which takes some minutes.
package storetest

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // for Outside
	_ "modernc.org/sqlite"             // for Outside

	"github.com/kavach-dev/kavach/store"
	"github.com/kavach-dev/kavach/store/d1test"
	"github.com/kavach-dev/kavach/store/pgtest"
)

// Token is the token of the database, for store.Config: D1 wants one.
const Token = d1test.SchemaToken

// DSN returns the data source of a fresh database that ends with the test.
// Several stores may open it.
func DSN(t testing.TB) string {
	t.Helper()
	switch kind := os.Getenv("KAVACH_TEST_STORE"); kind {
	case "", "sqlite":
		return "sqlite:" + filepath.Join(t.TempDir(), "kavach.db")
	case "postgres":
		return postgres(t)
	case "d1":
		return d1test.New(t).Bridge
	default:
		t.Fatalf("KAVACH_TEST_STORE=%s: want sqlite, postgres or d1", kind)
		return ""
	}
}

// server is the role that the stores of the tests connect as.
const server = "kavach_server"

// template is the database of which every test gets a copy: its schema is made
// once in a process.
var template struct {
	sync.Once
	name string
	err  error
}

// postgres makes a database for a test. On a server that is not ours it is
// empty, and its owner's.
func postgres(t testing.TB) string {
	t.Helper()
	c := pgtest.Shared(t)
	if os.Getenv("KAVACH_TEST_POSTGRES") != "" {
		return c.Database(t)
	}
	template.Do(func() { template.name, template.err = makeTemplate(c) })
	if template.err != nil {
		t.Fatal(template.err)
	}
	return c.As(server, c.Copy(t, template.name))
}

// makeTemplate makes a database with the schema, and the role that serves.
func makeTemplate(c *pgtest.Cluster) (string, error) {
	const name = "kavach_template"
	if err := c.Create(name); err != nil {
		return "", err
	}
	if err := c.Exec(name, "CREATE ROLE "+server+" LOGIN"); err != nil {
		return "", err
	}
	s, err := store.Open(context.Background(), store.Config{DSN: c.DSN(name), Issuer: "https://kavach.example"})
	if err != nil {
		return "", err
	}
	return name, errors.Join(s.GrantServing(context.Background(), server), s.Close())
}

// outside holds the connections of Outside by DSN: a test that asks often waits
// for one new process of the server.
var outside sync.Map

// Outside connects to the database as somebody who knows nothing of package
// store, and may write all of it. Statements number their parameters: $1.
func Outside(t testing.TB, dsn string) *sql.DB {
	t.Helper()
	if open, ok := outside.Load(dsn); ok {
		return open.(*sql.DB)
	}
	if onD1(dsn) {
		db := d1test.Open(dsn)
		t.Cleanup(func() { db.Close() })
		return db
	}
	driver, source := "pgx", dsn
	if file, ok := strings.CutPrefix(dsn, "sqlite:"); ok {
		driver, source = "sqlite", "file:"+file+"?_pragma=busy_timeout(5000)"
	} else if u, err := url.Parse(dsn); err == nil && u.User.Username() == server {
		source = pgtest.Shared(t).DSN(strings.TrimPrefix(u.Path, "/"))
	}
	db, err := sql.Open(driver, source)
	if err != nil {
		t.Fatal(err)
	}
	outside.Store(dsn, db)
	t.Cleanup(func() {
		outside.Delete(dsn)
		db.Close()
	})
	return db
}

func onD1(dsn string) bool { return strings.HasPrefix(dsn, "d1-bridge:") }

// Text is all that stands in the database: whoever steals it reads this.
func Text(t testing.TB, dsn string) string {
	t.Helper()
	if file, ok := strings.CutPrefix(dsn, "sqlite:"); ok {
		return files(t, file)
	}
	db := Outside(t, dsn)
	var all strings.Builder
	if onD1(dsn) {
		for _, table := range column(t, db, `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '\_cf%' ESCAPE '\'`) {
			columns := column(t, db, `SELECT group_concat('COALESCE("' || name || '", '''')', ' || char(10) || ') FROM pragma_table_info('`+table+`')`)
			for _, row := range column(t, db, `SELECT `+columns[0]+` AS line FROM "`+table+`"`) {
				all.WriteString(table + row + "\n")
			}
		}
		return all.String()
	}
	for _, table := range column(t, db, `SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'`) {
		for _, row := range column(t, db, `SELECT r::text FROM "`+table+`" r`) {
			all.WriteString(table + row + "\n")
		}
	}
	return all.String()
}

// files reads the database of SQLite with its journal: what was deleted too.
func files(t testing.TB, file string) string {
	t.Helper()
	names, err := filepath.Glob(file + "*")
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(content)
	}
	return all.String()
}

// column reads the one column of a query.
func column(t testing.TB, db *sql.DB, query string) (list []string) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), query)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		var value string
		if err := rows.Scan(&value); err != nil {
			t.Fatal(err)
		}
		list = append(list, value)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}
