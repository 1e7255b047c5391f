package store

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/store/pgtest"
)

// serving is a role whose name needs quotes wherever it stands.
const serving = `serve "all"; DROP TABLE users`

// TestRolesOnPostgres: the role that serves opens a schema that is current and
// commits, and the server refuses it everything that would change what the log
// says, or what protects it.
func TestRolesOnPostgres(t *testing.T) {
	c := pgtest.Start(t, pgtest.Config{})
	name := c.Copy(t, "")
	if err := c.Exec(name, "CREATE ROLE "+pgx.Identifier{serving}.Sanitize()+" LOGIN"); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	cfg := Config{DSN: c.As(serving, name), Issuer: "https://kavach.example"}
	if s, err := Open(ctx, cfg); err == nil {
		s.Close()
		t.Fatal("a role without rights made the schema")
	}
	owner, err := Open(ctx, Config{DSN: c.DSN(name), Issuer: cfg.Issuer})
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	for role, want := range map[string]error{"nobody here": ErrNoRole, "postgres": ErrOwner, serving: nil} {
		if err := owner.GrantServing(ctx, role); !errors.Is(err, want) {
			t.Errorf("granting to %s: %v", role, err)
		}
	}
	if err := owner.GrantServing(ctx, serving); err != nil { // as after every migration
		t.Fatal(err)
	}

	s, err := Open(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	log := audit.NewLog(audit.Config{Store: s})
	entry := audit.Entry{Agent: audit.Operator, Action: audit.UserAdd, Result: audit.Allowed}
	put := s.PutSetupCode("hash", time.Now().Add(time.Hour))
	if err := errors.Join(log.Commit(ctx, audit.Change{Effects: []audit.Effect{put}, Entries: []audit.Entry{entry}}), log.Close(ctx)); err != nil {
		t.Fatal(err)
	}

	everyTable(t, elsewhere(t, c.DSN(name)))
	conn, err := pgx.Connect(ctx, cfg.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, statement := range []string{
		`UPDATE audit_records SET bytes = '{}'`,
		`UPDATE audit_records SET seq = 7`,
		`DELETE FROM audit_records`,
		`TRUNCATE audit_records`,
		`UPDATE audit_lids SET exp = 0`,
		`DELETE FROM audit_lids`,
		`TRUNCATE audit_lids`,
		`DELETE FROM audit_head`,
		`TRUNCATE audit_head`,
		`INSERT INTO audit_head (one, size, leaf) VALUES (1, 0, '')`,
		`UPDATE audit_head SET size = 0`,
		`UPDATE audit_head SET closed = 'moved x'`,
		`UPDATE audit_outbox SET entry = '{}'`,
		`TRUNCATE audit_outbox`,
		`UPDATE migrations SET digest = ''`,
		`DELETE FROM migrations`,
		`INSERT INTO settings (name, value) VALUES ('audit.log', 'x') ON CONFLICT (name) DO UPDATE SET value = 'x'`,
		`TRUNCATE settings`,
		`TRUNCATE users`,
		`ALTER TABLE audit_records DISABLE TRIGGER ALL`,
		`ALTER TABLE settings DISABLE ROW LEVEL SECURITY`,
		`DROP TRIGGER audit_records_no_change ON audit_records`,
		`DROP TABLE audit_records`,
		`CREATE OR REPLACE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'`,
		`CREATE INDEX mine ON audit_records (bytes)`,
		`CREATE TRIGGER mine BEFORE INSERT ON audit_records FOR EACH ROW EXECUTE FUNCTION audit_refuse()`,
		`ALTER TABLE users ADD COLUMN mine TEXT`,
		`CREATE TABLE mine (x TEXT)`,
		`SET session_replication_role = replica`,
		`SET ROLE postgres`,
		`ALTER ROLE postgres NOLOGIN`,
		`COPY users TO PROGRAM 'cat'`,
		`SELECT pg_read_file('PG_VERSION')`,
	} {
		_, err := conn.Exec(ctx, statement)
		if code := pgCode(err); code != "42501" && code != "23505" {
			t.Errorf("%s: %v", statement, err)
		}
	}
	// What the rows of a table hide from a role is not an error.
	for _, statement := range []string{
		`UPDATE settings SET value = 'x' WHERE name = 'audit.log'`,
		`DELETE FROM settings WHERE name = 'audit.log'`,
	} {
		if tag, err := conn.Exec(ctx, statement); err != nil || tag.RowsAffected() != 0 {
			t.Errorf("%s: %s, %v", statement, tag, err)
		}
	}
	report, err := audit.Verify(ctx, s, audit.VerifyConfig{})
	if err != nil || !report.OK() || report.Size != 1 {
		t.Errorf("the log: %+v, %v", report, err)
	}
}

// everyTable: there is no table that the script forgets. A new one is classified
// there, or the role that serves fails at its first statement.
func everyTable(t *testing.T, db *sql.DB) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `SELECT table_name,
			has_table_privilege($1, quote_ident(table_name), 'SELECT'),
			has_any_column_privilege($1, quote_ident(table_name), 'INSERT, UPDATE'),
			has_table_privilege($1, quote_ident(table_name), 'TRUNCATE, REFERENCES, TRIGGER')
		FROM information_schema.tables WHERE table_schema = 'public' ORDER BY table_name`, serving)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	tables := 0
	for rows.Next() {
		var table string
		var reads, writes, more bool
		if err := rows.Scan(&table, &reads, &writes, &more); err != nil {
			t.Fatal(err)
		}
		tables++
		if !reads || writes == (table == "migrations") || more {
			t.Errorf("%s: reads %v, writes %v, more than that %v", table, reads, writes, more)
		}
	}
	if err := rows.Err(); err != nil || tables < 20 {
		t.Errorf("%d tables, %v", tables, err)
	}
}
