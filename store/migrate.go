package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/migrations"
)

// settingLog is the name of the setting that holds the log's id.
const settingLog = "audit.log"

// newLogID chooses the log's id when the database is created: a C2SP origin
// that is kept when the issuer changes (audit.md §1).
func newLogID(issuer string) (string, error) {
	host := issuer
	if u, err := url.Parse(issuer); err == nil && u.Host != "" {
		host = u.Host
	}
	if host == "" {
		host = "localhost"
	}
	if strings.ContainsAny(host, "/\\\"+ \t\r\n") {
		return "", fmt.Errorf("%w: issuer %q is no host", ErrConfig, issuer)
	}
	random := make([]byte, 4)
	if _, err := rand.Read(random); err != nil {
		return "", err
	}
	return host + "/audit/" + hex.EncodeToString(random), nil
}

// schema is a database that can be migrated. transact runs do in a transaction
// that keeps every other that migrates out.
type schema interface {
	migrated(steps []migrations.Migration) (bool, error)
	checkVersions(steps []migrations.Migration) error
	transact(do func() error) error
	exec(query string, args ...any) (int64, error)
	define(statement string) error
}

// migrate brings the schema up to date and makes the log if there is none.
// Every step is one transaction that first looks whether it was done: of
// several processes one does it, the others wait, and one that is killed leaves
// nothing half.
func migrate(ctx context.Context, s schema, adapter, issuer string) error {
	steps, err := migrations.For(adapter)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	if done, err := s.migrated(steps); done || err != nil {
		return err
	}
	if err := s.transact(func() error {
		_, err := s.exec(`CREATE TABLE IF NOT EXISTS migrations (
			version BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL, applied BIGINT NOT NULL)`)
		if err != nil {
			return err
		}
		return s.checkVersions(steps)
	}); err != nil {
		return fmt.Errorf("%w: migrating: %w", ErrStore, err)
	}
	for _, m := range steps {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: migrating: %w", ErrStore, err)
		}
		if err := s.transact(func() error { return step(s, m) }); err != nil {
			return fmt.Errorf("%w: migration %04d_%s: %w", ErrStore, m.Version, m.Name, err)
		}
	}
	if err := s.transact(func() error { return seed(s, issuer) }); err != nil {
		return fmt.Errorf("%w: starting the log: %w", ErrStore, err)
	}
	return nil
}

// step runs one migration unless it was run.
func step(s schema, m migrations.Migration) error {
	hit, err := s.exec(`INSERT INTO migrations (version, name, digest, applied) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		m.Version, m.Name, m.Digest, time.Now().UnixMilli())
	if err != nil || hit == 0 {
		return err
	}
	for _, statement := range m.Statements {
		if err := s.define(statement); err != nil {
			return fmt.Errorf("%w in %q", err, firstLine(statement))
		}
	}
	return nil
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// seed makes the log when the database is created.
func seed(s schema, issuer string) error {
	log, err := newLogID(issuer)
	if err != nil {
		return err
	}
	hit, err := s.exec(`INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING`, settingLog, log)
	if err != nil || hit == 0 {
		return err
	}
	_, err = s.exec(`INSERT INTO audit_head (one, size, leaf) VALUES (1, 0, $1)`, audit.FirstPrev(log))
	return err
}

// undated is the error of a database older than the digests of its steps:
// nobody can say what ran there.
func undated(err error) error {
	if strings.Contains(err.Error(), "no such column: digest") || pgCode(err) == pgNoColumn {
		return fmt.Errorf("%w: %w", ErrOtherSchema, err)
	}
	return err
}

// checkSchema is checkVersions for a database that is only read: it must have
// every step as well.
func (s *Store) checkSchema(ctx context.Context, adapter string) error {
	steps, err := migrations.For(adapter)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	rows, err := s.read.Query(ctx, `SELECT version, name, digest FROM migrations ORDER BY version`)
	if err != nil {
		if err = undated(err); errors.Is(err, ErrOtherSchema) {
			return err
		}
		return fmt.Errorf("%w: it is not a kavach database: %w", ErrNoDatabase, err)
	}
	applied, err := scanVersions(rows)
	if err != nil {
		return err
	}
	return compareVersions(applied, steps)
}

// scanVersions reads the steps that a database says it ran.
func scanVersions(rows *sql.Rows) (applied []migrations.Migration, err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var m migrations.Migration
		if err := rows.Scan(&m.Version, &m.Name, &m.Digest); err != nil {
			return nil, err
		}
		applied = append(applied, m)
	}
	return applied, rows.Err()
}

// compareVersions refuses a database that another kavach has migrated.
func compareVersions(applied, steps []migrations.Migration) error {
	known := make(map[int]migrations.Migration, len(steps))
	for _, s := range steps {
		known[s.Version] = s
	}
	for _, m := range applied {
		switch ours := known[m.Version]; {
		case ours.Name != m.Name:
			return fmt.Errorf("%w: it has migration %04d_%s", ErrNewerSchema, m.Version, m.Name)
		case ours.Digest != m.Digest:
			return fmt.Errorf("%w: migration %04d_%s", ErrOtherSchema, m.Version, m.Name)
		}
	}
	return nil
}

// setting reads a setting.
func (s *Store) setting(ctx context.Context, name string) (string, error) {
	var value string
	if err := s.read.QueryRow(ctx, `SELECT value FROM settings WHERE name = $1`, name).Scan(&value); err != nil {
		return "", fmt.Errorf("%w: reading setting %s: %w", ErrStore, name, err)
	}
	return value, nil
}
