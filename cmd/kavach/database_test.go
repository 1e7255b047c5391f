package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDSNHasPassword(t *testing.T) {
	for dsn, want := range map[string]bool{
		"sqlite:kavach.db":                                 false,
		"sqlite:my:file@home":                              false,
		"postgres://localhost/kavach":                      false,
		"postgres://kavach@localhost/kavach":               false,
		"postgres://kavach@h1:5432,h2:5432/kavach":         false,
		"postgres:///kavach?host=/run/postgresql&user=k":   false,
		"postgresql://k@h/kavach?passfile=/run/secrets/pw": false,
		"d1://0123/4567":                                   false,
		"d1-bridge://edge.example":                         false,
		"postgres://kavach:pw@localhost/kavach":            true,
		"POSTGRES://kavach:pw@localhost/kavach":            true,
		"postgres://kavach:p%zz@localhost/kavach":          true,
		"postgres://kavach:p/w@localhost/kavach":           true,
		"postgres://kavach:p?w@localhost/kavach":           true,
		"postgres://kavach:p#w@localhost/kavach":           true,
		"postgres://kavach:p w@localhost/kavach":           true,
		"postgres://localhost/kavach?password=pw":          true,
		"postgres://localhost/kavach?PASSWORD=pw":          true,
		"postgres://localhost/kavach?pass%77ord=pw":        true,
		"postgres://localhost/kavach?a=b&sslpassword=pw":   true,
		"postgres://localhost/kavach?a=%zz&passw%6frd=pw":  true,
		"postgres://localhost/kavach?x;password=pw":        true,
		"host=localhost PASSWORD=pw":                       true,
		"host=localhost password = 'p w'":                  true,
		"postgres:kavach:pw@localhost":                     true,
		"d1-bridge://:token@edge.example":                  true,
		"d1-bridge://edge.example?token=t":                 true,
	} {
		if got := dsnHasPassword(dsn); got != want {
			t.Errorf("dsnHasPassword(%q) = %v", dsn, got)
		}
	}
}

// TestRefuseSecretArguments: however the flag is written, and for every flag
// that takes a database.
func TestRefuseSecretArguments(t *testing.T) {
	const dsn = "postgres://kavach:hunter2@localhost/kavach"
	for _, args := range [][]string{
		{"serve", "--db", dsn},
		{"serve", "--db=" + dsn},
		{"store", "copy", "--from", "sqlite:a", "--to", dsn},
		{"store", "copy", "--from=" + dsn, "--to=sqlite:b"},
	} {
		err := refuseSecretArguments(args)
		var use *usageError
		if !errors.As(err, &use) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", args, err)
		}
	}
	for _, args := range [][]string{
		{"serve", "--db", "postgres://kavach@localhost/kavach"},
		{"serve", "--db"},
		{"client", "add", "--redirect", "https://u:p@client.example/"},
	} {
		if err := refuseSecretArguments(args); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// TestDatabaseURL: what is printed of one names the database and gives nobody
// the password, however it stands in there.
func TestDatabaseURL(t *testing.T) {
	for dsn, want := range map[databaseURL]string{
		"sqlite:data/kavach.db": "sqlite:data/kavach.db",
		"postgres://kavach:hunter2@db.example:5432/kavach?sslmode=none": "postgres://db.example:5432/kavach",
		"postgres://kavach@a:1,b:2/kavach?password=hunter2":             "postgres://a:1,b:2/kavach",
		"postgres://kavach:hunter2/@db/kavach":                          "[redacted]",
		"postgres://kavach:%zzhunter2@db/kavach":                        "[redacted]",
		"host=db password=hunter2":                                      "[redacted]",
		"postgres:kavach:hunter2@db":                                    "[redacted]",
		"d1://account/database":                                         "d1://account/database",
	} {
		if got := dsn.String(); strings.Contains(got, "hunter2") || got != want {
			t.Errorf("%s shows as %q, want %q", dsn.Reveal(), got, want)
		}
		if got := dsn.LogValue().String(); strings.Contains(got, "hunter2") {
			t.Errorf("%s is logged as %q", dsn.Reveal(), got)
		}
	}
}

// TestDatabaseAnybody: who connects to another machine says whom to believe.
func TestDatabaseAnybody(t *testing.T) {
	for _, name := range []string{"PGSSLMODE", "PGHOST"} {
		t.Setenv(name, "")
	}
	for dsn, want := range map[databaseURL]bool{
		"postgres://kavach@db.example/kavach":                       true,
		"postgresql://kavach@db.example:5432/kavach?sslmode=prefer": true,
		"postgres://kavach@localhost,db.example/kavach":             true,
		"postgres://kavach@h1:5432,h2:5432/kavach":                  true,
		"postgres:///kavach?host=db.example":                        true,
		"postgres://kavach@db.example/kavach?sslmode=verify-full":   false,
		"postgres://kavach@db.example/kavach?sslmode=disable":       false,
		"postgres://kavach@localhost:5432/kavach":                   false,
		"postgres://kavach@[::1]:5432/kavach":                       false,
		"postgres://kavach@/kavach?host=/run/postgresql":            false,
		"postgres:///kavach":                                        false,
		"sqlite:kavach.db":                                          false,
		"d1-bridge://edge.example":                                  false,
	} {
		if got := dsn.anybody(); got != want {
			t.Errorf("%s: %v", dsn.Reveal(), got)
		}
	}
	t.Setenv("PGSSLMODE", "verify-full")
	if databaseURL("postgres://kavach@db.example/kavach").anybody() {
		t.Error("PGSSLMODE is not read")
	}
}

// TestResolveDatabase: from the flag, a file, or the folder; not from two, and
// an error repeats nothing of what it refuses.
func TestResolveDatabase(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	const dsn = "postgres://kavach:hunter2@localhost/kavach"
	good := write("good", dsn+"\n")
	for _, c := range []struct {
		db   databaseURL
		file string
		want databaseURL
	}{
		{"", "", databaseURL("sqlite:" + filepath.Join("data", "kavach.db"))},
		{"postgresql://db/kavach", "", "postgresql://db/kavach"},
		{"", good, dsn},
		{dsn, good, ""},
		{"", filepath.Join(dir, "none"), ""},
		{"", write("empty", "\n"), ""},
		{"", write("two", dsn+"\n"+dsn+"\n"), ""},
		{"", write("other", "mysql://kavach:hunter2@localhost/kavach"), ""},
		{"host=localhost password=hunter2", "", ""},
		{"sqlite:", "", ""},
		{"postgres:hunter2", "", ""},
	} {
		got, err := resolveDatabase(c.db, c.file, "data")
		if (err == nil) != (c.want != "") || err == nil && got != c.want {
			t.Errorf("%s, %s: %s, %v", c.db.Reveal(), filepath.Base(c.file), got.Reveal(), err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error holds the password: %v", err)
		}
	}
}
