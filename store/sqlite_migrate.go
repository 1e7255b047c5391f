package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/migrations"
)

// migrate brings the schema up to date and makes the log if there is none.
// Every step is one transaction under the write lock that first looks whether
// it was done: of several processes one does it, the others wait, and one that
// is killed leaves nothing half.
func (w *writer) migrate(ctx context.Context, issuer string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	steps, err := migrations.For("sqlite")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	if done, err := w.migrated(steps); done || err != nil {
		return err
	}
	if err := w.transact(func() error {
		_, err := w.exec(`CREATE TABLE IF NOT EXISTS migrations (
			version BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL, applied BIGINT NOT NULL)`)
		if err != nil {
			return err
		}
		return w.checkVersions(steps)
	}); err != nil {
		return fmt.Errorf("%w: migrating: %w", ErrStore, err)
	}
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: migrating: %w", ErrStore, err)
		}
		if err := w.transact(func() error { return w.step(step) }); err != nil {
			return fmt.Errorf("%w: migration %04d_%s: %w", ErrStore, step.Version, step.Name, err)
		}
	}
	if err := w.transact(func() error { return w.seed(issuer) }); err != nil {
		return fmt.Errorf("%w: starting the log: %w", ErrStore, err)
	}
	return nil
}

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

// step runs one migration unless it was run.
func (w *writer) step(m migrations.Migration) error {
	hit, err := w.exec(`INSERT INTO migrations (version, name, digest, applied) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		m.Version, m.Name, m.Digest, time.Now().UnixMilli())
	if err != nil || hit == 0 {
		return err
	}
	for _, statement := range m.Statements {
		// Not through exec: a statement of the schema runs once, and "$" in it
		// is nobody's placeholder.
		if _, err := w.conn.ExecContext(context.Background(), statement); err != nil {
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
func (w *writer) seed(issuer string) error {
	log, err := newLogID(issuer)
	if err != nil {
		return err
	}
	hit, err := w.exec(`INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING`, settingLog, log)
	if err != nil || hit == 0 {
		return err
	}
	_, err = w.exec(`INSERT INTO audit_head (one, size, leaf) VALUES (1, 0, $1)`, audit.FirstPrev(log))
	return err
}

// checkVersions refuses a database that a newer kavach has migrated.
func (w *writer) checkVersions(steps []migrations.Migration) error {
	rows, err := w.conn.QueryContext(context.Background(), `SELECT version, name, digest FROM migrations ORDER BY version`)
	if err != nil {
		return undated(err)
	}
	return compareVersions(rows, steps)
}
