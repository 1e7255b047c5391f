package store

import (
	"fmt"
	"os"
)

// files are the files that a database was opened as. A file that was deleted,
// moved or replaced can still be written through an open connection, but who
// starts next does not find it: what is committed then is not durable, so
// nothing may be said to be.
type files struct {
	path string
	main os.FileInfo // since the writer was opened
	wal  os.FileInfo // since the writer was connected; nil until it writes
}

// here reports whether the files are where they were. It is called with the
// write lock of SQLite, when the write-ahead log is open.
func (f *files) here() error {
	if err := same(&f.main, f.path); err != nil {
		return err
	}
	return same(&f.wal, f.path+"-wal")
}

func same(before *os.FileInfo, path string) error {
	now, err := os.Stat(path)
	switch {
	case err != nil:
		return fmt.Errorf("%w: a file of the open database is gone; put it back or restart: %w", ErrStore, err)
	case *before == nil:
		*before = now
	case !os.SameFile(*before, now):
		return fmt.Errorf("%w: %s is not the file that was opened; put that back or restart", ErrStore, path)
	}
	return nil
}
