package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/kavach-dev/kavach/migrations"
)

// postgresMigrating is the advisory lock of whoever changes the schema.
const postgresMigrating = 0x6b61766163686d67 // "kavachmg"

// postgresDDL is schema over one connection.
type postgresDDL struct {
	ctx  context.Context
	link *link
}

var _ schema = (*postgresDDL)(nil)

// open connects, and brings the schema up to date. A role that may not change
// the schema opens one that is.
func (w *postgresWriter) open(ctx context.Context, issuer string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.connect(ctx); err != nil {
		return fmt.Errorf("%w: opening the database: %w", ErrStore, err)
	}
	return migrate(ctx, &postgresDDL{ctx: ctx, link: w.link}, "postgres", issuer)
}

// migrated reports whether nothing is to do, without any lock.
func (d *postgresDDL) migrated(steps []migrations.Migration) (bool, error) {
	there := 0
	err := d.query(func([][]byte) error { there++; return nil },
		`SELECT 1 WHERE to_regclass('migrations') IS NOT NULL AND to_regclass('settings') IS NOT NULL`)
	if err != nil || there == 0 {
		return false, wrapSchema(err)
	}
	applied, seeded := 0, 0
	if err := d.checkVersions(steps); err != nil {
		return false, wrapSchema(err)
	}
	if err := errors.Join(
		d.query(func([][]byte) error { applied++; return nil }, `SELECT version FROM migrations`),
		d.query(func([][]byte) error { seeded++; return nil }, `SELECT name FROM settings WHERE name = $1`, settingLog),
	); err != nil {
		return false, wrapSchema(err)
	}
	return applied == len(steps) && seeded == 1, nil
}

func wrapSchema(err error) error {
	if err != nil {
		err = fmt.Errorf("%w: reading the schema: %w", ErrStore, err)
	}
	return err
}

// checkVersions refuses a database that a newer kavach has migrated.
func (d *postgresDDL) checkVersions(steps []migrations.Migration) error {
	var applied []migrations.Migration
	err := d.query(func(row [][]byte) error {
		version, err := strconv.Atoi(string(row[0]))
		applied = append(applied, migrations.Migration{Version: version, Name: string(row[1]), Digest: string(row[2])})
		return err
	}, `SELECT version, name, digest FROM migrations ORDER BY version`)
	if err != nil {
		return undated(err)
	}
	return compareVersions(applied, steps)
}

// transact holds the lock of whoever migrates until its end. A migration may
// take longer than lock_timeout, and nobody is served before it is done.
func (d *postgresDDL) transact(do func() error) error {
	_, err := d.link.run(d.ctx, []request{ask(`BEGIN ISOLATION LEVEL READ COMMITTED`), ask(`SET LOCAL lock_timeout = '120s'`),
		ask(`SELECT pg_advisory_xact_lock($1)`, int64(postgresMigrating))})
	if err == nil {
		err = do()
	}
	if err != nil {
		_, rollback := d.link.exec(d.ctx, `ROLLBACK`)
		_ = rollback // or the connection is gone, and the transaction with it
		return err
	}
	_, err = d.link.exec(d.ctx, `COMMIT`)
	return err
}

func (d *postgresDDL) exec(query string, args ...any) (int64, error) {
	return d.link.exec(d.ctx, query, args...)
}

// define runs a statement of the schema. It is not prepared by name: it runs
// once.
func (d *postgresDDL) define(statement string) error {
	return d.link.conn.ExecParams(d.ctx, postgresSchema(statement), nil, nil, nil, nil).Read().Err
}

func (d *postgresDDL) query(row func([][]byte) error, query string, args ...any) error {
	r := ask(query, args...)
	r.row = row
	_, err := d.link.run(d.ctx, []request{r})
	return err
}
