// Package migrations embeds the schema.
//
// One file per step, NNNN_noun.sql, applied in order of NNNN, each in one
// transaction of its own, forward only and never edited after a release. The
// statements are the portable subset of design §4.5 (TEXT and BIGINT, Unix
// milliseconds, JSON as TEXT, hashes as base64url TEXT) and end with ";" at the
// end of a line.
//
// What only one database understands (triggers) stands in a file
// NNNN_noun.<adapter>.sql beside it, run in the same transaction after the
// portable part; there a statement ends with a line that is ";;" alone.
//
// roles.postgres.sql is no step: it gives the role that serves what it needs,
// and is run again after every migration.
package migrations

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"io/fs"
	"sort"
	"strconv"
	"strings"
)

//go:embed *.sql
var files embed.FS

// Migration is one step of the schema.
type Migration struct {
	// Version is the number in the file name, 1, 2, 3 … without gaps.
	Version int
	// Name is the file name without number and ending.
	Name string
	// Statements run in order in one transaction.
	Statements []string
	// Digest is the base64url SHA-256 of the statements. A database remembers
	// it, so that a step which was edited after it ran is noticed.
	Digest string
}

// For returns the steps for an adapter ("sqlite"), in order.
func For(adapter string) ([]Migration, error) { return load(files, adapter) }

func load(fsys fs.FS, adapter string) ([]Migration, error) {
	names, err := fs.Glob(fsys, "*.sql")
	if err != nil {
		return nil, fmt.Errorf("reading migrations: %w", err)
	}
	sort.Strings(names)
	var out []Migration
	for _, name := range names {
		parts := strings.Split(strings.TrimSuffix(name, ".sql"), ".")
		if len(parts) != 1 {
			continue
		}
		number, noun, ok := strings.Cut(parts[0], "_")
		version, err := strconv.Atoi(number)
		if !ok || err != nil || len(out) > 0 && version <= out[len(out)-1].Version {
			return nil, fmt.Errorf("migration %s: want NNNN_noun.sql with a number of its own", name)
		}
		body, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, fmt.Errorf("reading migration %s: %w", name, err)
		}
		m := Migration{Version: version, Name: noun, Statements: split(string(body), ";\n")}
		if own, err := fs.ReadFile(fsys, parts[0]+"."+adapter+".sql"); err == nil {
			m.Statements = append(m.Statements, split(string(own), "\n;;\n")...)
		}
		sum := sha256.Sum256([]byte(strings.Join(m.Statements, ";\n")))
		m.Digest = base64.RawURLEncoding.EncodeToString(sum[:])
		out = append(out, m)
	}
	return out, nil
}

// Grants returns the statements of roles.postgres.sql for a role, which is given
// as an identifier in quotes.
func Grants(quoted string) ([]string, error) {
	body, err := fs.ReadFile(files, "roles.postgres.sql")
	if err != nil {
		return nil, fmt.Errorf("reading the grants: %w", err)
	}
	statements := split(string(body), ";\n")
	for i := range statements {
		statements[i] = strings.ReplaceAll(statements[i], `:"role"`, quoted)
	}
	return statements, nil
}

// split cuts a file into statements. Comment lines go, so that a ";" in prose
// is never an end.
func split(text, end string) []string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(strings.TrimSpace(line), "--") {
			b.WriteString(line)
		}
	}
	var out []string
	for _, s := range strings.Split(b.String()+"\n", end) {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}
