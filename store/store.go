// Package store is the repository: one schema, implementing the storage
// interfaces that audit, people and authz declare.
//
// What it guarantees: every write goes through one transaction that locks the
// head of the audit log first (design D4); a read never sees half a Change;
// nobody but this package writes SQL.
//
// # How to write store/<table>.go
//
// One file per table, methods on *Store, the literal SQL beside its method,
// columns enumerated, $1 placeholders, portable subset only (design §4.5).
// Writes take no ctx and return an audit.Effect that says how many rows it must
// hit (−1: any); the proof of winning is its WHERE, never a read before it; an
// INSERT that may collide says ON CONFLICT DO NOTHING and must hit 1. Reads
// take ctx and go through s.read.
//
//	var _ authz.Store = (*Store)(nil)
//
//	// UseCode burns a code that is active.
//	func (s *Store) UseCode(hash string, now time.Time) audit.Effect {
//		return effect(1, `UPDATE codes SET used = $2
//			WHERE hash = $1 AND used = 0 AND expires > $2`, hash, now.UnixMilli())
//	}
//
//	// CodeByHash returns the code, or authz.ErrNotFound.
//	func (s *Store) CodeByHash(ctx context.Context, hash string) (authz.Code, error) {
//		var c authz.Code
//		err := s.read.QueryRow(ctx, `SELECT client, expires FROM codes WHERE hash = $1`, hash).
//			Scan(&c.Client, &c.Expires)
//		if errors.Is(err, sql.ErrNoRows) {
//			return authz.Code{}, authz.ErrNotFound
//		}
//		if err != nil {
//			return authz.Code{}, fmt.Errorf("reading code: %w", err)
//		}
//		return c, nil
//	}
//
// The schema of the table goes to migrations/NNNN_noun.sql: TEXT and BIGINT
// columns, NOT NULL with ” or 0 for "none", statements ending in ";" at the end
// of a line. See package migrations.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/audit"
)

// ErrStore is the root of every error of this package.
var ErrStore = errors.New("store")

var (
	// ErrConfig: the data source cannot be understood.
	ErrConfig = fmt.Errorf("%w: bad data source", ErrStore)
	// ErrNewerSchema: a newer kavach has migrated this database; this one must
	// not touch it.
	ErrNewerSchema = fmt.Errorf("%w: the database has a newer schema than this kavach knows", ErrStore)
	// ErrOtherSchema: a step of the schema ran here in another form than this
	// kavach has it, as between two builds before a release.
	ErrOtherSchema = fmt.Errorf("%w: the database was made by another build of kavach, with another schema", ErrStore)
	// ErrNoDatabase: asked to read a database that is not there.
	ErrNoDatabase = fmt.Errorf("%w: no such database", ErrStore)
)

// Config says which database, and how.
type Config struct {
	// DSN says which database: "sqlite:PATH", "postgres://…" as libpq reads it,
	// "d1://ACCOUNT/DATABASE" or "d1-bridge://HOST".
	DSN string
	// Issuer is the host[:port] that names the log when the database is
	// created (https://host:port/… is understood too); later it is ignored.
	Issuer string
	// ReadOnly opens an existing database without creating, migrating or
	// writing anything (audit verify on a copy).
	ReadOnly bool
	// MinFree is the free disk space in bytes below which authority is not
	// widened; 0 means 64 MiB, negative means never refuse.
	MinFree int64
	// Token is the bearer token for a database on D1.
	Token Token
}

// Store is an open database. It is safe for concurrent use.
type Store struct {
	read  *reader
	write backend // nil if read-only
	log   string  // the log's id
}

// backend is the write path of one kind of database, the part of audit.Store
// that they do not share. Its methods obey the contract of audit.Store.
type backend interface {
	// append runs a batch; log is the log's id.
	append(ctx context.Context, log string, batch []audit.Write, now int64) ([]audit.Outcome, error)
	appendUnrecorded(ctx context.Context, w audit.Write, now int64) (audit.Outcome, error)
	find(ctx context.Context, keys []audit.Key) (map[audit.Key][]byte, error)
	room() error
	reclaim(err error) bool
	// admit makes the write path write where audit_head.closed is this, and
	// only there; at first it is "". See closed.go.
	admit(closed string)
	close() error
}

var (
	_ audit.Store     = (*Store)(nil)
	_ audit.ReadStore = (*Store)(nil)
	_ audit.Source    = (*Store)(nil)
)

// Open opens the database, creating and migrating it if necessary. Any number
// of processes may do so at once. A database that is closed (ErrClosed) is only
// opened if cfg is ReadOnly. Errors wrap ErrStore.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	s, err := openAny(ctx, cfg)
	if err != nil || cfg.ReadOnly {
		return s, err
	}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// openAny is Open for a database in whatever state.
func openAny(ctx context.Context, cfg Config) (*Store, error) {
	kind, rest, _ := strings.Cut(cfg.DSN, ":")
	s := &Store{}
	var err error
	switch {
	case kind == "sqlite" && rest != "" && !strings.HasPrefix(rest, ":memory:"):
		err = s.openSQLite(ctx, rest, cfg)
	case kind == kindD1 || kind == kindD1Bridge:
		err = s.openD1(ctx, cfg)
	case kind == "postgres" || kind == "postgresql":
		err = s.openPostgres(ctx, cfg)
	default: // not quoted: it may hold a password
		return nil, fmt.Errorf("%w: want sqlite:PATH, postgres://… or d1://…", ErrConfig)
	}
	if err == nil {
		s.log, err = s.setting(ctx, settingLog)
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close closes the database. Close the audit.Log first.
func (s *Store) Close() error {
	var errs []error
	if s.read != nil {
		errs = append(errs, s.read.db.Close())
	}
	if s.write != nil {
		errs = append(errs, s.write.close())
	}
	return errors.Join(errs...)
}

// Ping says whether the database answers a read, has the schema, and is not
// closed.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.open(ctx); err != nil {
		return fmt.Errorf("asking the database: %w", err)
	}
	return nil
}

// statement is the audit.Effect of this package.
type statement struct {
	rows  int64
	query string
	args  []any
}

// AuditEffect implements audit.Effect.
func (*statement) AuditEffect() {}

// effect prepares a conditional statement (INSERT, UPDATE or DELETE) that must
// hit exactly rows rows, or any number if rows is −1.
func effect(rows int64, query string, args ...any) audit.Effect {
	return &statement{rows: rows, query: query, args: args}
}

// reader is the pool for reads. Queries are written with $1 placeholders.
type reader struct {
	db     *sql.DB
	sqlite bool          // the dialect of SQLite and D1, which number with ?1
	limit  time.Duration // how long a read may take, 0: as long as its ctx lets it
	idle   int           // connections that are kept, if there is a limit
}

// Query runs a read that returns rows.
func (r *reader) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	rows, err := r.db.QueryContext(r.bound(ctx), r.spell(query), args...)
	r.heal(ctx, err)
	return rows, err
}

// QueryRow runs a read that returns at most one row.
func (r *reader) QueryRow(ctx context.Context, query string, args ...any) *sql.Row {
	row := r.db.QueryRowContext(r.bound(ctx), r.spell(query), args...)
	r.heal(ctx, row.Err())
	return row
}

// heal gives up the idle connections after a read that nobody answered: where
// one leads nowhere the others may, too, and each would cost a caller the limit.
func (r *reader) heal(ctx context.Context, err error) {
	if r.limit > 0 && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		r.db.SetMaxIdleConns(0)
		r.db.SetMaxIdleConns(r.idle)
	}
}

// bound gives a read a deadline. Nobody knows when its rows have been read, so
// the timer goes with ctx, or when it has run out.
func (r *reader) bound(ctx context.Context) context.Context {
	if r.limit == 0 {
		return ctx
	}
	ctx, cancel := context.WithTimeout(ctx, r.limit)
	_ = cancel
	return ctx
}

func (r *reader) spell(query string) string {
	if r.sqlite {
		return placeholders(query)
	}
	return query
}

// placeholders turns $1 into ?1, the form that SQLite and D1 number. No
// statement of ours has a "$" in a literal.
func placeholders(query string) string { return strings.ReplaceAll(query, "$", "?") }
