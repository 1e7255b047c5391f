package store

import (
	"context"
	"fmt"
	"strings"
)

// Why a database is closed: audit_head.closed, "" while the deployment lives in
// it. Every write path looks at it where it locks the head, and refuses with
// what closedError makes of it unless it is what [backend.admit] named. The
// refusal is a failure of the database as a whole: it must be no
// audit.ErrLogRefused, after which a narrowing Change would go on without the
// log.
const (
	// closedCopy is "copy ID": the target of a copy that is not complete.
	closedCopy = "copy"
	// closedMoved is "moved ID KIND": what was copied, after the cut-over.
	closedMoved = "moved"
	// closedBackup is a backup file.
	closedBackup = "backup"
)

var (
	// ErrClosed is the root of why a database refuses everything that writes.
	ErrClosed = fmt.Errorf("%w: nothing may be written", ErrStore)
	// ErrMoved: the deployment lives in another database now.
	ErrMoved = fmt.Errorf("%w: the deployment has moved to another database", ErrClosed)
	// ErrIncomplete: a copy of a deployment that is not complete.
	ErrIncomplete = fmt.Errorf("%w: the database is a copy that is not complete", ErrClosed)
	// ErrBackup: a backup, which is restored from.
	ErrBackup = fmt.Errorf("%w: the database is a backup", ErrClosed)
)

// closedError says why a database is closed.
func closedError(closed string) error {
	word, rest, _ := strings.Cut(closed, " ")
	switch word {
	case closedMoved:
		_, kind, _ := strings.Cut(rest, " ")
		return fmt.Errorf("%w (%s)", ErrMoved, kind)
	case closedCopy:
		return ErrIncomplete
	case closedBackup:
		return ErrBackup
	}
	if word == "" {
		return fmt.Errorf("%w: the copy was completed by another process", ErrClosed)
	}
	return fmt.Errorf("%w: closed as %q", ErrClosed, word)
}

// closed reads why the database is closed.
func (s *Store) closed(ctx context.Context) (closed string, err error) {
	if err := s.read.QueryRow(ctx, `SELECT closed FROM audit_head WHERE one = 1`).Scan(&closed); err != nil {
		return "", fmt.Errorf("%w: reading the head: %w", ErrStore, err)
	}
	return closed, nil
}

// open reports whether the deployment lives in this database.
func (s *Store) open(ctx context.Context) error {
	closed, err := s.closed(ctx)
	if err == nil && closed != "" {
		err = closedError(closed)
	}
	return err
}
