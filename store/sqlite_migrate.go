package store

import (
	"context"
	"fmt"

	"github.com/kavach-dev/kavach/migrations"
)

var _ schema = (*writer)(nil)

// migrated reports whether nothing is to do, without taking the write lock: a
// command beside a busy server does not wait for it to be told so.
func (w *writer) migrated(steps []migrations.Migration) (bool, error) {
	for _, table := range []string{"migrations", "settings"} {
		var n int
		err := w.conn.QueryRowContext(context.Background(),
			`SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1`, table).Scan(&n)
		if err != nil {
			return false, fmt.Errorf("%w: reading the schema: %w", ErrStore, err)
		}
		if n == 0 {
			return false, nil
		}
	}
	if err := w.checkVersions(steps); err != nil {
		return false, fmt.Errorf("%w: reading the schema: %w", ErrStore, err)
	}
	var applied, seeded int
	err := w.conn.QueryRowContext(context.Background(), `SELECT
		(SELECT count(*) FROM migrations), (SELECT count(*) FROM settings WHERE name = ?1)`, settingLog).Scan(&applied, &seeded)
	if err != nil {
		return false, fmt.Errorf("%w: reading the schema: %w", ErrStore, err)
	}
	return applied == len(steps) && seeded == 1, nil
}

// transact runs do in a transaction.
func (w *writer) transact(do func() error) error {
	if err := w.begin(); err != nil {
		return err
	}
	err := do()
	if err == nil {
		_, err = w.exec("COMMIT")
	}
	if err != nil {
		w.rollback()
	}
	return err
}

// define runs a statement of the schema. Not through exec: it runs once, and "$"
// in it is nobody's placeholder.
func (w *writer) define(statement string) error {
	_, err := w.conn.ExecContext(context.Background(), statement)
	return err
}

// checkVersions refuses a database that a newer kavach has migrated.
func (w *writer) checkVersions(steps []migrations.Migration) error {
	rows, err := w.conn.QueryContext(context.Background(), `SELECT version, name, digest FROM migrations ORDER BY version`)
	if err != nil {
		return undated(err)
	}
	applied, err := scanVersions(rows)
	if err != nil {
		return err
	}
	return compareVersions(applied, steps)
}
