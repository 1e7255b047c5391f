package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/migrations"
)

var (
	// ErrOldSchema: an older kavach made the database, and it is not to be
	// migrated.
	ErrOldSchema = fmt.Errorf("%w: the database has an older schema", ErrStore)
	// ErrNoBackup: the file is a database, but not one that Backup wrote.
	ErrNoBackup = fmt.Errorf("%w: the file is no backup", ErrStore)
)

// Backup writes a deployment, as it is at one moment, into a SQLite file that is
// not there yet. The deployment may be in use, and only its reader is needed.
// Every record is proved by the chain before it is written and after. What
// seals the keys is not in the file.
func Backup(ctx context.Context, from Config, file string, progress Progress) (report *CopyReport, err error) {
	if _, err := os.Lstat(file); err == nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrStore, file, fs.ErrExist)
	}
	from.ReadOnly = true
	source, err := openAny(ctx, from)
	if err != nil {
		return nil, err
	}
	c := newCopier(source, progress)
	defer func() { err = errors.Join(err, c.close()) }()
	if err := source.open(ctx); err != nil {
		return nil, err
	}
	if err := source.current(ctx); err != nil {
		return nil, err
	}
	partial, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file)+".*") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	path := partial.Name()
	defer remove(path)
	if err := partial.Close(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	if err := c.fill(ctx, path); err != nil {
		return nil, err
	}
	if err := finish(path, file); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStore, err)
	}
	c.report.Done = true
	return c.report, nil
}

// fill makes the file at path a backup.
func (c *copier) fill(ctx context.Context, path string) (err error) {
	if err := c.openTarget(ctx, Config{DSN: "sqlite:" + path}); err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, c.target.Close())
		c.target = nil
	}()
	if _, err := c.adopt(ctx, ""); err != nil {
		return err
	}
	v, err := c.source.freeze(ctx)
	if err != nil {
		return err
	}
	if err := c.rest(ctx, v); err != nil {
		return err
	}
	return c.complete(ctx, closedBackup, nil)
}

// finish makes the closed database at path one file, which needs nothing beside
// it even where nothing can be written, and gives it its name.
func finish(path, name string) (err error) {
	db, err := open(path, "rw", "journal_mode(DELETE)")
	if err != nil {
		return err
	}
	if err := errors.Join(db.Ping(), db.Close()); err != nil {
		return err
	}
	if err := syncFile(path); err != nil {
		return err
	}
	// Unlike a rename, a link replaces nothing.
	if err := os.Link(path, name); errors.Is(err, fs.ErrExist) {
		return err
	} else if err != nil { // not every file system has them
		if _, err := os.Lstat(name); err == nil {
			return fs.ErrExist
		}
		if err := os.Rename(path, name); err != nil {
			return err
		}
	}
	return syncFile(filepath.Dir(name))
}

// syncFile makes a file or a folder durable.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// remove removes what is left of an unfinished database.
func remove(path string) {
	for _, end := range []string{"", "-wal", "-shm", "-journal"} {
		_ = os.Remove(path + end)
	}
}

// Restore brings a backup into an empty database, the log first: every record
// must be proved by the chain. It goes on where it was when it is called again.
// The secret that sealed the keys must be there for anybody to use them.
func Restore(ctx context.Context, file string, to Config, progress Progress) (report *CopyReport, err error) {
	c := newCopier(&Store{}, progress)
	defer func() { err = errors.Join(err, c.close()) }()
	upgraded, err := c.openBackup(ctx, file)
	defer remove(upgraded)
	if err != nil {
		return nil, err
	}
	c.report.Log = c.source.log
	if err := c.openTarget(ctx, to); err != nil {
		return nil, err
	}
	if _, err := c.adopt(ctx, ""); err != nil {
		return nil, err
	}
	head, err := c.source.Head(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.logTo(ctx, head); err != nil {
		return nil, err
	}
	if err := c.rest(ctx, still{c.source}); err != nil {
		return nil, err
	}
	entry, err := operatorEntry(c.source.log, audit.StoreRestore, "size", head.Size)
	if err != nil {
		return nil, err
	}
	if err := c.complete(ctx, "", entry); err != nil {
		return nil, err
	}
	c.report.Done = true
	return c.report, nil
}

// openBackup opens a backup as the source. One with an older schema is copied
// and migrated; the name of that copy is returned, and is to be removed.
func (c *copier) openBackup(ctx context.Context, file string) (upgraded string, err error) {
	source, err := openAny(ctx, Config{DSN: "sqlite:" + file, ReadOnly: true})
	if err != nil {
		return "", err
	}
	c.source = source
	err = source.current(ctx)
	if errors.Is(err, ErrOldSchema) {
		if err := source.Close(); err != nil {
			return "", err
		}
		if upgraded, err = copyFile(file); err != nil {
			return upgraded, fmt.Errorf("%w: %w", ErrStore, err)
		}
		c.source = &Store{}
		if source, err = openAny(ctx, Config{DSN: "sqlite:" + upgraded, MinFree: -1}); err != nil {
			return upgraded, err
		}
		c.source = source
	}
	if err != nil {
		return upgraded, err
	}
	if closed, err := source.closed(ctx); err != nil || closed != closedBackup {
		return upgraded, errors.Join(ErrNoBackup, err)
	}
	return upgraded, nil
}

// copyFile copies a file into the folder for temporary ones.
func copyFile(file string) (name string, err error) {
	from, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer from.Close()
	to, err := os.CreateTemp("", "kavach-restore-*")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(to, from)
	return to.Name(), errors.Join(err, to.Close())
}

// current reports whether the database has every step of the schema.
func (s *Store) current(ctx context.Context) error {
	steps, err := migrations.For("sqlite") // every adapter has as many
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStore, err)
	}
	var applied int
	if err := s.read.QueryRow(ctx, `SELECT count(*) FROM migrations`).Scan(&applied); err != nil {
		return fmt.Errorf("%w: reading the schema: %w", ErrStore, err)
	}
	if applied < len(steps) {
		return ErrOldSchema
	}
	return nil
}

// freeze returns the database as it is now, whoever writes to it.
func (s *Store) freeze(ctx context.Context) (view, error) {
	if _, ok := s.read.db.Driver().(d1Connector); ok {
		return freezeD1(ctx, s.read)
	}
	tx, err := s.read.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return nil, fmt.Errorf("%w: beginning a snapshot: %w", ErrStore, err)
	}
	return &frozen{tx: tx, read: s.read}, nil
}

// frozen is a view by a transaction.
type frozen struct {
	tx   *sql.Tx
	read *reader
}

func (f *frozen) close() error { return f.tx.Rollback() }

func (f *frozen) head(ctx context.Context) (h audit.Head, err error) {
	err = f.tx.QueryRowContext(ctx, `SELECT size, leaf FROM audit_head WHERE one = 1`).Scan(&h.Size, &h.Leaf)
	return h, err
}

func (f *frozen) rows(ctx context.Context, t *table, after []any) ([][]any, error) {
	query, args := t.page(after)
	rows, err := f.tx.QueryContext(ctx, f.read.spell(query), args...)
	if err != nil {
		return nil, err
	}
	return gather(rows, t.scan)
}
