package store

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strings"

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

// undated is the error of a database older than the digests of its steps:
// nobody can say what ran there.
func undated(err error) error {
	if strings.Contains(err.Error(), "no such column: digest") {
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
	return compareVersions(rows, steps)
}

type versionRows interface {
	Next() bool
	Scan(...any) error
	Err() error
	Close() error
}

func compareVersions(rows versionRows, steps []migrations.Migration) (err error) {
	defer func() { err = errors.Join(err, rows.Close()) }()
	known := make(map[int]migrations.Migration, len(steps))
	for _, s := range steps {
		known[s.Version] = s
	}
	for rows.Next() {
		var applied migrations.Migration
		if err := rows.Scan(&applied.Version, &applied.Name, &applied.Digest); err != nil {
			return err
		}
		switch ours := known[applied.Version]; {
		case ours.Name != applied.Name:
			return fmt.Errorf("%w: it has migration %04d_%s", ErrNewerSchema, applied.Version, applied.Name)
		case ours.Digest != applied.Digest:
			return fmt.Errorf("%w: migration %04d_%s", ErrOtherSchema, applied.Version, applied.Name)
		}
	}
	return rows.Err()
}

// setting reads a setting.
func (s *Store) setting(ctx context.Context, name string) (string, error) {
	var value string
	if err := s.read.QueryRow(ctx, `SELECT value FROM settings WHERE name = $1`, name).Scan(&value); err != nil {
		return "", fmt.Errorf("%w: reading setting %s: %w", ErrStore, name, err)
	}
	return value, nil
}
