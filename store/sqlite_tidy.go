package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// walMost is how large the write-ahead log may be when the housekeeping comes
// by. SQLite begins it anew by itself, but only at a moment at which nobody
// reads: under reads that overlap without a pause it would grow for ever.
const walMost = 64 << 20

// Tidy bounds what the database takes on disk beside its tables. Call it now and
// then; it does nothing where the database sees to that itself, as PostgreSQL
// and D1 do. Space that rows leave is used again by every adapter.
func (s *Store) Tidy(context.Context) error {
	if w, ok := s.write.(*writer); ok {
		return w.tidy(walMost)
	}
	return nil
}

// tidy empties a write-ahead log that is larger than most bytes. It waits for
// the reads that are under way as every writer does, at most busy_timeout; those
// that begin meanwhile read from the database and are not waited for.
func (w *writer) tidy(most int64) error {
	info, err := os.Stat(w.files.path + "-wal")
	if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() <= most {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: looking at the write-ahead log: %w", ErrStore, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.connect(); err != nil {
		return fmt.Errorf("%w: connecting: %w", ErrStore, err)
	}
	var busy, pages, done int64
	err = w.conn.QueryRowContext(context.Background(), `PRAGMA wal_checkpoint(TRUNCATE)`).Scan(&busy, &pages, &done)
	if err != nil {
		return fmt.Errorf("%w: emptying the write-ahead log: %w", ErrStore, err)
	}
	if busy != 0 {
		return fmt.Errorf("%w: emptying the write-ahead log: a read lasts for longer than it is waited for; %d bytes stay", ErrStore, info.Size())
	}
	return nil
}
