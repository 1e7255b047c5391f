package main

import (
	"cmp"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// databaseURL says which database. It may hold a password, unless it was on the
// command line (refuseSecretArguments): printed it is the kind, the host and the
// name of the database.
type databaseURL string

// databaseKinds are what a databaseURL begins with.
var databaseKinds = []string{"sqlite:", "postgres://", "postgresql://", "d1://", "d1-bridge://"}

// databaseHint is how to write one.
const databaseHint = "write --db sqlite:PATH, postgres://USER@HOST/DATABASE, d1://ACCOUNT/DATABASE or d1-bridge://HOST"

// Reveal is the URL with all that is in it, for store.Open alone.
func (d databaseURL) Reveal() string { return string(d) }

// String is what may be shown of it.
func (d databaseURL) String() string {
	if file, ok := d.file(); ok {
		return "sqlite:" + oneLine(file)
	}
	u, err := url.Parse(string(d))
	if err != nil || u.Scheme == "" || u.Opaque != "" {
		return "[redacted]"
	}
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return shown.String()
}

// LogValue implements slog.LogValuer.
func (d databaseURL) LogValue() slog.Value { return slog.StringValue(d.String()) }

// file is the file of a database on SQLite.
func (d databaseURL) file() (string, bool) { return strings.CutPrefix(string(d), "sqlite:") }

// anybody reports whether what answers on PostgreSQL may be somebody else: the
// server is on another machine, and nothing says whether it has to show who it
// is. Who says sslmode=disable has said so.
func (d databaseURL) anybody() bool {
	u, err := url.Parse(string(d))
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return false
	}
	query := u.Query()
	switch mode := cmp.Or(query.Get("sslmode"), os.Getenv("PGSSLMODE")); mode {
	case "", "allow", "prefer":
	default:
		return false
	}
	// host=/DIR is a socket, and without a host there is one too.
	for host := range strings.SplitSeq(cmp.Or(query.Get("host"), u.Host, os.Getenv("PGHOST")), ",") {
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		if host = strings.Trim(host, "[]"); host != "" && !strings.HasPrefix(host, "/") && !loopbackHost(host) {
			return true
		}
	}
	return false
}

// check refuses what names no kind of database that kavach speaks. What it
// refuses it does not repeat: a password may be anywhere in it.
func (d databaseURL) check() error {
	for _, kind := range databaseKinds {
		if rest, ok := strings.CutPrefix(string(d), kind); ok && rest != "" {
			return nil
		}
	}
	return usagef(databaseHint, "--db names no database that kavach speaks")
}

// readDatabaseFile reads the URL of a database, password and all, from a file
// that holds nothing else.
func readDatabaseFile(file string) (databaseURL, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("reading the address of the database from %s: %w", file, pathCause(err))
	}
	text := strings.TrimSpace(string(content))
	if text == "" || strings.ContainsAny(text, "\r\n\x00") {
		return "", withHint(fmt.Errorf("the file %s holds no address of a database", file), "it has one line; "+databaseHint)
	}
	return databaseURL(text), nil
}

// resolveDatabase makes one of a URL, a file that holds one, and the default in
// the folder for data.
func resolveDatabase(db databaseURL, file, data string) (databaseURL, error) {
	var err error
	switch {
	case db != "" && file != "":
		return "", usagef("give one of them, on the command line or in the environment", "--db (KAVACH_DB) and --db-file (KAVACH_DB_FILE) both name a database")
	case file != "":
		if db, err = readDatabaseFile(file); err != nil {
			return "", err
		}
	case db == "":
		db = databaseURL("sqlite:" + filepath.Join(data, "kavach.db"))
	}
	return db, db.check()
}

// databaseFlags are the flags whose value is a databaseURL.
var databaseFlags = []string{"--db", "--from", "--to"}

// refuseSecretArguments stops a database password on the command line, where
// every user of the machine can read it (design §4.8).
func refuseSecretArguments(args []string) error {
	for i, arg := range args {
		flag, value, ok := strings.Cut(arg, "=")
		if !ok && i+1 < len(args) {
			value = args[i+1]
		}
		if slices.Contains(databaseFlags, flag) && dsnHasPassword(value) {
			return usagef("put it into the environment variable KAVACH_DB or a file (--db-file), or only the password into the file that PGPASSFILE names",
				"%s holds a password, which every user of this machine could read", flag)
		}
	}
	return nil
}

// secretSettings matches the form key=value, of which kavach speaks none: who
// writes it has shown a password all the same.
var secretSettings = regexp.MustCompile(`(?i)(^|[^a-z])(ssl)?passw(or)?d\s*=`)

// dsnHasPassword says whether a database address carries a password (or the
// token of D1), in the user part, a parameter or the form key=value.
func dsnHasPassword(dsn string) bool {
	if _, ok := databaseURL(dsn).file(); ok {
		return false
	}
	_, rest, ok := strings.Cut(dsn, "//")
	if !ok {
		return secretSettings.MatchString(dsn) || strings.Contains(dsn, "@")
	}
	authority, _, _ := strings.Cut(rest, "?")
	// A password may hold any character, where it is not a URL any more.
	if i := strings.LastIndex(authority, "@"); i >= 0 && strings.ContainsAny(authority[:i], ":/") {
		return true
	}
	// Not url.Parse: what it refuses is on the command line as well.
	_, query, _ := strings.Cut(rest, "?")
	for parameter := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(parameter, "=")
		if plain, err := url.QueryUnescape(name); err == nil {
			name = plain
		}
		switch strings.ToLower(name) {
		case "password", "sslpassword", "passwd", "token", "secret":
			return true
		}
	}
	return strings.Contains(query, "@") || secretSettings.MatchString(dsn)
}
