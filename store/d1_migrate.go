package store

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/migrations"
)

// d1SchemaTime is how long one step of the schema may take, and d1SchemaTries
// how often one is asked for that another process may be taking at the moment.
const (
	d1SchemaTime  = 30 * time.Second
	d1SchemaTries = 10
)

// migrateD1 brings the schema up to date and makes the log if there is none.
// Every step is one batch whose first statement says that it was done: of
// several processes one does it, and one that is killed leaves nothing half.
// Where nothing is to do nothing is written: serving needs no right to change
// the schema.
func (s *Store) migrateD1(ctx context.Context, client *d1Client, issuer string) error {
	steps, err := migrations.For("d1")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	for try := 0; ; try++ {
		todo, err := s.nextD1(ctx, steps, issuer)
		if err != nil {
			return fmt.Errorf("%w: migrating: %w", ErrStore, err)
		}
		if len(todo) == 0 {
			return nil
		}
		err = client.run(ctx, d1SchemaTime, todo)
		if err == nil {
			try = -1
			continue
		}
		// Refused because another process was faster, or not answered: what was
		// done shows on the next look.
		if e := d1Failed(err); try >= d1SchemaTries || e.fate == d1Away || e.fate == d1Refused && !d1Unique(err, "migrations") && !d1Unique(err, "settings") {
			return fmt.Errorf("%w: migrating: %w", ErrStore, err)
		}
		time.Sleep(time.Duration(try) * 50 * time.Millisecond)
	}
}

// nextD1 returns the next batch of the migration, empty if all is done.
func (s *Store) nextD1(ctx context.Context, steps []migrations.Migration, issuer string) ([]d1Statement, error) {
	var tables int
	err := s.read.QueryRow(ctx, `SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'migrations'`).Scan(&tables)
	if err != nil {
		return nil, fmt.Errorf("reading the schema: %w", err)
	}
	if tables == 0 {
		return []d1Statement{{SQL: `CREATE TABLE IF NOT EXISTS migrations (
			version BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL, applied BIGINT NOT NULL)`, Params: []any{}}}, nil
	}
	rows, err := s.read.Query(ctx, `SELECT version, name, digest FROM migrations ORDER BY version`)
	if err != nil {
		return nil, undated(err)
	}
	applied, err := scanVersions(rows)
	if err != nil {
		return nil, err
	}
	if err := compareVersions(applied, steps); err != nil {
		return nil, err
	}
	for _, step := range steps {
		if slices.ContainsFunc(applied, func(m migrations.Migration) bool { return m.Version == step.Version }) {
			continue
		}
		first, err := d1Bind(`INSERT INTO migrations (version, name, digest, applied) VALUES ($1, $2, $3, $4)`,
			step.Version, step.Name, step.Digest, time.Now().UnixMilli())
		todo := []d1Statement{first}
		for _, text := range step.Statements {
			// Not through d1Bind: "$" in the schema is nobody's placeholder.
			todo = append(todo, d1Statement{SQL: text, Params: []any{}})
		}
		return todo, err
	}
	var seeded int
	if err := s.read.QueryRow(ctx, `SELECT count(*) FROM settings WHERE name = $1`, settingLog).Scan(&seeded); err != nil {
		return nil, fmt.Errorf("reading the settings: %w", err)
	}
	if seeded != 0 {
		return nil, nil
	}
	log, err := newLogID(issuer)
	if err != nil {
		return nil, err
	}
	name, err := d1Bind(`INSERT INTO settings (name, value) VALUES ($1, $2)`, settingLog, log)
	if err != nil {
		return nil, err
	}
	head, err := d1Bind(`INSERT INTO audit_head (one, size, leaf) VALUES (1, 0, $1)`, audit.FirstPrev(log))
	return []d1Statement{name, head}, err
}
