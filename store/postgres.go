package store

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

const (
	// postgresReads bounds the connections that read; one more writes. The URL
	// may say pool_max_conns=N.
	postgresReads = 16
	// postgresWait is how long a read, a lock and an idle transaction may take
	// (audit.md §3).
	postgresWait = 5 * time.Second
)

// openPostgres opens the database that cfg.DSN names, a URL as libpq reads it.
func (s *Store) openPostgres(ctx context.Context, cfg Config) error {
	pg, err := pgx.ParseConfig(cfg.DSN)
	if err != nil {
		return fmt.Errorf("%w: %s", ErrConfig, withoutSource(err))
	}
	reads := postgresReads
	if n, ok := pg.RuntimeParams["pool_max_conns"]; ok {
		delete(pg.RuntimeParams, "pool_max_conns")
		if reads, err = strconv.Atoi(n); err != nil || reads < 1 {
			return fmt.Errorf("%w: pool_max_conns is no number above 0", ErrConfig)
		}
	}
	preset(pg.RuntimeParams, "application_name", "kavach")
	if pg.ConnectTimeout == 0 || pg.ConnectTimeout > postgresWait {
		pg.ConnectTimeout = postgresWait
	}
	if !cfg.ReadOnly {
		w := newPostgresWriter(&pg.Config)
		s.write = w
		if err := w.open(ctx, cfg.Issuer); err != nil {
			return err
		}
	}
	if !cfg.ReadOnly {
		s.read = readPostgres(pg.Copy(), reads, postgresWait)
		return nil
	}
	// Nobody is served: who verifies a log of any size waits for it.
	s.read = readPostgres(pg.Copy(), reads, 0)
	if err := s.read.db.PingContext(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrNoDatabase, unreachable(err))
	}
	return s.checkSchema(ctx, "postgres")
}

// preset sets a parameter of the session unless the URL does.
func preset(params map[string]string, name, value string) {
	if _, ok := params[name]; !ok {
		params[name] = value
	}
}

// readPostgres returns the pool for reads. Every one of them ends, if there is a
// limit: the server gives up after statement_timeout, and the reader when no
// answer comes.
func readPostgres(pg *pgx.ConnConfig, connections int, limit time.Duration) *reader {
	preset(pg.RuntimeParams, "statement_timeout", strconv.FormatInt(limit.Milliseconds(), 10))
	db := stdlib.OpenDB(*pg, stdlib.OptionAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		// Not a parameter of the session: pgx would take the server for one that
		// only reads, where the URL wants one that writes.
		return conn.PgConn().ExecParams(ctx, `SET default_transaction_read_only = on`, nil, nil, nil, nil).Read().Err
	}))
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	db.SetConnMaxIdleTime(5 * time.Minute)
	return &reader{db: db, limit: limit, idle: connections}
}

// withoutSource is what pgx says of a URL it cannot read, without the URL: it
// may hold a password.
func withoutSource(err error) string {
	_, text, ok := strings.Cut(err.Error(), "`: ")
	if !ok {
		return "the URL cannot be read"
	}
	text, _, _ = strings.Cut(text, " (") // what follows may quote the URL again
	return text
}

// unreachable is the error of a connection that could not be made, without the
// names in the URL.
func unreachable(err error) error {
	var connecting *pgconn.ConnectError
	if errors.As(err, &connecting) {
		err = connecting.Unwrap()
	}
	return fmt.Errorf("connecting: %w", err)
}

// SQLSTATE of what this package tells apart
// (https://www.postgresql.org/docs/current/errcodes-appendix.html).
const (
	pgDivision    = "22012" // a guard: what it counted is not what it wanted
	pgUnique      = "23505"
	pgSerialize   = "40001"
	pgDeadlock    = "40P01"
	pgNoLock      = "55P03" // lock_timeout
	pgNoStatement = "26000" // a prepared statement that is gone
	pgStalePlan   = "0A000" // of one whose tables changed
	pgNoColumn    = "42703"
	pgReadOnly    = "25006" // a server that has become a standby
	pgNoTable     = "42P01"
)

// pgError returns what the server said, nil if it said nothing.
func pgError(err error) *pgconn.PgError {
	var e *pgconn.PgError
	errors.As(err, &e)
	return e
}

// pgCode returns the SQLSTATE in err, "" if there is none.
func pgCode(err error) string {
	if e := pgError(err); e != nil {
		return e.Code
	}
	return ""
}

// isFatal reports whether the server ended the connection with its answer.
func isFatal(err error) bool {
	e := pgError(err)
	return e != nil && e.SeverityUnlocalized != "ERROR"
}

// isPostgres reports whether the database as a whole failed, or the way to it,
// rather than one statement because of what it says.
func isPostgres(err error) bool {
	e := pgError(err)
	if e == nil || isFatal(err) {
		return true
	}
	switch e.Code[:2] {
	case "08", // connection
		"25", // state of the transaction: read-only, idle for too long
		"40", // rolled back by the server
		"53", // out of disk, memory, connections
		"55", // a lock that was not to be had
		"57", // cancelled, shutting down
		"58", // input and output
		"F0", "XX":
		return true
	}
	return e.Code == pgNoStatement || e.Code == pgStalePlan
}

// textColumn finds the columns of a table that hold text.
var textColumn = regexp.MustCompile(`\bTEXT\b`)

// postgresSchema spells a statement of the schema for PostgreSQL: text is
// compared byte by byte, as on the other databases, whatever the locale.
func postgresSchema(statement string) string {
	if strings.HasPrefix(statement, "CREATE TABLE") || strings.HasPrefix(statement, "ALTER TABLE") {
		return textColumn.ReplaceAllString(statement, `TEXT COLLATE "C"`)
	}
	return statement
}
