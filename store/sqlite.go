package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"modernc.org/sqlite"
)

// Result codes of SQLite (https://www.sqlite.org/rescode.html).
const (
	sqliteBusy       = 5
	sqliteNoMem      = 7
	sqliteReadOnly   = 8
	sqliteInterrupt  = 9
	sqliteIOErr      = 10
	sqliteCorrupt    = 11
	sqliteFull       = 13
	sqliteCantOpen   = 14
	sqliteConstraint = 19
	sqliteNotADB     = 26
	sqliteUnique     = sqliteConstraint | 8<<8
)

// code returns the result code of SQLite in err, −1 if there is none.
func code(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code()
	}
	return -1
}

// isConstraint reports whether one statement was undone because it broke a
// constraint; the transaction it was in is as before.
func isConstraint(err error) bool { return code(err)&0xff == sqliteConstraint }

// isDatabase reports whether the database as a whole failed, rather than one
// statement because of what it says.
func isDatabase(err error) bool {
	switch code(err) & 0xff {
	case sqliteBusy, sqliteBusy + 1, sqliteNoMem, sqliteReadOnly, sqliteInterrupt, sqliteIOErr,
		sqliteCorrupt, sqliteFull, sqliteCantOpen, sqliteNotADB, 0xff:
		return true
	}
	return false
}

// createFile makes the directory (0700) and the file (0600) if they are not
// there; SQLite gives its -wal and -shm files the mode of the database.
func createFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return f.Close()
}

// open returns a pool. busy_timeout comes first so that the other pragmas wait
// for whoever holds the lock.
func open(path, mode string, pragmas ...string) (*sql.DB, error) {
	q := url.Values{"mode": {mode}, "_txlock": {"immediate"}, "_dqs": {"0"}, "_defensive": {"1"}, "_error_rc": {"1"}}
	for _, p := range append([]string{"busy_timeout(5000)", "trusted_schema(0)", "foreign_keys(0)"}, pragmas...) {
		q.Add("_pragma", p)
	}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+q.Encode())
	if err != nil {
		return nil, fmt.Errorf("%w: opening the database: %w", ErrStore, err)
	}
	return db, nil
}

func openReader(path, mode string) (*reader, error) {
	db, err := open(path, mode, "query_only(1)")
	if err != nil {
		return nil, err
	}
	// Readers do not block in WAL mode; the bound is memory.
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(8)
	return &reader{db: db, sqlite: true}, nil
}

// openSQLite opens the file at path, creating it unless cfg is ReadOnly.
func (s *Store) openSQLite(ctx context.Context, path string, cfg Config) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if cfg.ReadOnly {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%w: %w", ErrNoDatabase, err)
		}
		if s.read, err = openReader(path, "ro"); err != nil {
			return err
		}
		return s.checkSchema(ctx, "sqlite")
	}
	if err := createFile(path); err != nil {
		return fmt.Errorf("%w: creating the database: %w", ErrStore, err)
	}
	w, err := openWriter(ctx, path, cfg.MinFree)
	if err != nil {
		return err
	}
	s.write = w
	if err := migrate(ctx, w, "sqlite", cfg.Issuer); err != nil {
		return err
	}
	s.read, err = openReader(path, "rw")
	return err
}

// writer is the one connection that writes. The audit.Log of the process is
// its only regular user; the mutex is for what runs beside it (Find of another
// Log in the same process, tests).
//
// No statement gets a context with a deadline: a statement interrupted inside a
// transaction rolls the whole of it back, and what follows would commit on its
// own (design §6).
type writer struct {
	disk *disk

	mu       sync.Mutex // guards everything below and the transaction
	admitted string     // see admit
	files    files
	db       *sql.DB
	conn     *sql.Conn
	stmts    map[string]*sql.Stmt // by query as written
}

func openWriter(ctx context.Context, path string, free int64) (*writer, error) {
	// temp_store(2): what savepoints keep to undo stays in memory.
	db, err := open(path, "rw", "journal_mode(WAL)", "synchronous(FULL)", "journal_size_limit(67108864)", "temp_store(2)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	w := &writer{disk: newDisk(path, free), files: files{path: path}, db: db}
	if err := same(&w.files.main, path); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	// Switching to WAL does not wait for locks as other statements do, so of
	// several processes that create a database at once some are told "busy".
	for end := time.Now().Add(10 * time.Second); ; {
		if err = w.connect(); err == nil {
			return w, nil
		}
		if code(err)&0xff != sqliteBusy || time.Now().After(end) || ctx.Err() != nil {
			return nil, errors.Join(fmt.Errorf("%w: opening the database: %w", ErrStore, err), db.Close())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// connect makes sure there is a connection.
func (w *writer) connect() error {
	if w.conn != nil {
		return nil
	}
	conn, err := w.db.Conn(context.Background())
	if err != nil {
		return err
	}
	w.conn, w.stmts = conn, make(map[string]*sql.Stmt)
	w.files.wal = nil // the last connection that is closed deletes it
	return nil
}

// disconnect closes the connection and with it whatever transaction it has.
func (w *writer) disconnect() {
	if w.conn == nil {
		return
	}
	for _, s := range w.stmts {
		_ = s.Close()
	}
	// ErrBadConn is how database/sql is told not to keep the connection.
	_ = w.conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = w.conn.Close()
	w.conn, w.stmts = nil, nil
}

// admit makes the write path write where the head is closed by that, and only
// there.
func (w *writer) admit(closed string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.admitted = closed
}

func (w *writer) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.disconnect()
	return w.db.Close()
}

// begin takes the write lock of the database. The caller holds w.mu.
func (w *writer) begin() error {
	if err := w.connect(); err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	if _, err := w.exec("BEGIN IMMEDIATE"); err != nil {
		if code(err)&0xff != sqliteBusy { // busy is somebody else's transaction
			w.disconnect()
		}
		return fmt.Errorf("taking the write lock: %w", err)
	}
	if err := w.files.here(); err != nil {
		w.rollback()
		return err
	}
	return nil
}

// rollback ends the transaction with nothing of it left. If that fails the
// connection goes, and SQLite rolls back.
func (w *writer) rollback() {
	if w.conn == nil {
		return
	}
	if _, err := w.exec("ROLLBACK"); err != nil {
		w.disconnect()
	}
}

// exec runs a statement on the writer and returns how many rows it hit, which
// means something for INSERT, UPDATE and DELETE only.
func (w *writer) exec(query string, args ...any) (int64, error) {
	stmt, err := w.prepared(query)
	if err != nil {
		return 0, err
	}
	result, err := stmt.ExecContext(context.Background(), args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

// prepared returns the statement, prepared once per connection. Queries are
// literals of this package, so the map is bounded by the source.
func (w *writer) prepared(query string) (*sql.Stmt, error) {
	if stmt := w.stmts[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := w.conn.PrepareContext(context.Background(), placeholders(query))
	if err != nil {
		return nil, err
	}
	w.stmts[query] = stmt
	return stmt, nil
}
