package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kavach-dev/kavach/store/pgtest"
)

// TestPostgres is a deployment on PostgreSQL as docs/postgresql.md has it: one
// role owns the tables, another serves, both come over TLS with passwords that
// are in files.
func TestPostgres(t *testing.T) {
	c := pgtest.Start(t, pgtest.Config{TLS: true})
	if err := c.Exec("postgres",
		"CREATE ROLE kavach_owner LOGIN PASSWORD 'of the owner'",
		"CREATE ROLE kavach LOGIN PASSWORD 'of the server'",
		"CREATE DATABASE kavach OWNER kavach_owner TEMPLATE template0 ENCODING 'UTF8'",
		"CREATE DATABASE empty OWNER kavach_owner",
		"REVOKE ALL ON DATABASE kavach FROM PUBLIC",
		"GRANT CONNECT ON DATABASE kavach TO kavach"); err != nil {
		t.Fatal(err)
	}
	passwords := filepath.Join(t.TempDir(), "passwords")
	if err := os.WriteFile(passwords, []byte("*:*:*:kavach_owner:of the owner\n*:*:*:kavach:of the server\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	params := scripts()
	params.Files = []string{filepath.Join("testdata", "postgres.txtar")}
	params.Setup = func(env *testscript.Env) error {
		if err := setupScript(env); err != nil {
			return err
		}
		for name, role := range map[string]string{"OWNER": "kavach_owner", "SERVER": "kavach"} {
			// The password comes from PGPASSFILE, as it would without a test.
			env.Setenv(name, strings.Replace(c.At(c.Address(), role, "kavach"), "passfile=", "application_name=", 1))
		}
		env.Setenv("ADDRESS", c.Address())
		env.Setenv("CA", c.CAFile())
		env.Setenv("PASSWORDS", passwords)
		return nil
	}
	testscript.Run(t, params)
}
