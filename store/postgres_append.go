package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/kavach-dev/kavach/audit"
)

const (
	// postgresPatience bounds one attempt at a batch: longer than it may wait
	// for a lock, and so short that the outcome can still be looked up before
	// the deadline of the audit.Log.
	postgresPatience = postgresWait + 500*time.Millisecond
	// postgresTries bounds the attempts at a batch that the server threw out,
	// or that did not reach it.
	postgresTries = 8
	// lockingBatches is how many batches take the lock of the head before they
	// send anything else, once the head was lost.
	lockingBatches = 17
	// idle is after how long the connection is tried before it is relied on.
	idle = time.Second
)

// postgresWriter is the one connection that writes, made again when it breaks.
type postgresWriter struct {
	cfg *pgconn.Config

	mu       sync.Mutex // guards everything below and the transaction
	admitted string     // see backend.admit
	shut     bool       // close was called
	link     *link      // nil if there is none
	used     time.Time  // when link last answered
	head     audit.Head // where the log ended, if known
	known    bool
	locking  int // how many batches still take the lock of the head first
}

func newPostgresWriter(cfg *pgconn.Config) *postgresWriter {
	cfg = cfg.Copy()
	for _, name := range []string{"lock_timeout", "idle_in_transaction_session_timeout"} {
		preset(cfg.RuntimeParams, name, strconv.FormatInt(postgresWait.Milliseconds(), 10))
	}
	return &postgresWriter{cfg: cfg}
}

// connect makes sure that there is a connection that works.
func (w *postgresWriter) connect(ctx context.Context) error {
	if w.shut {
		return fmt.Errorf("%w: it is closed", ErrStore)
	}
	if w.link != nil && !w.link.broken() && time.Since(w.used) > idle {
		if _, err := w.link.exec(ctx, `SELECT 1`); err != nil {
			w.disconnect()
		}
	}
	if w.link != nil && !w.link.broken() {
		w.used = time.Now()
		return nil
	}
	w.disconnect()
	l, err := dial(ctx, w.cfg)
	if err != nil {
		return err
	}
	w.link, w.used = l, time.Now()
	if err := checkPostgres(ctx, l); err != nil {
		w.disconnect()
		return err
	}
	return nil
}

// checkPostgres refuses a server that acknowledges what it may lose.
func checkPostgres(ctx context.Context, l *link) error {
	var commit, encoding string
	r := ask(`SELECT current_setting('synchronous_commit'), current_setting('server_encoding')`)
	r.row = func(row [][]byte) error {
		commit, encoding = string(row[0]), string(row[1])
		return nil
	}
	if _, err := l.run(ctx, []request{r}); err != nil {
		return fmt.Errorf("reading the settings of the server: %w", err)
	}
	if commit != "on" && commit != "remote_apply" {
		return fmt.Errorf("%w: synchronous_commit is %s, so what is acknowledged can be lost; set it to on or remote_apply", ErrStore, commit)
	}
	if encoding != "UTF8" {
		return fmt.Errorf("%w: the database has the encoding %s; create it with UTF8", ErrStore, encoding)
	}
	return nil
}

// disconnect gives the connection up, and with it whatever transaction it has.
func (w *postgresWriter) disconnect() {
	w.known = false
	if w.link == nil {
		return
	}
	// What is said to a server that does not answer is not waited for.
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = w.link.conn.Close(ctx)
	w.link = nil
}

func (w *postgresWriter) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.shut = true
	w.disconnect()
	return nil
}

func (w *postgresWriter) admit(closed string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.admitted, w.known = closed, false
}

// room: the disk is the operator's (design D3).
func (w *postgresWriter) room() error        { return nil }
func (w *postgresWriter) reclaim(error) bool { return false }

var (
	// errHeadMoved: the log does not end where we thought.
	errHeadMoved = errors.New("the head has moved")
	// errLoser: a Change of a batch lost or failed. Only that the first did is
	// certain.
	errLoser = errors.New("a change lost")
	// errAgain: nothing remains, and the same batch may do better.
	errAgain = errors.New("the server threw the batch out")
)

// append runs a batch in the order of audit.md §3, PostgreSQL.
func (w *postgresWriter) append(ctx context.Context, log string, batch []audit.Write, now int64) ([]audit.Outcome, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, postgresPatience)
	defer cancel()
	t := &pgTransaction{postgresWriter: w, log: log, now: now}
	run := t.whole
	for tries := 1; ; tries++ {
		outcomes, err := run(ctx, batch)
		switch {
		case errors.Is(err, errHeadMoved):
			w.locking = lockingBatches
		case errors.Is(err, errLoser):
			run = t.careful
		case errors.Is(err, errAgain) && tries < postgresTries && ctx.Err() == nil:
		default:
			return outcomes, err
		}
	}
}

// find holds the head while it looks, so that a COMMIT still under way is
// waited for. It commits: where a standby must have every COMMIT before it
// counts, one that was not waited for to the end is waited for with this.
func (w *postgresWriter) find(ctx context.Context, keys []audit.Key) (map[audit.Key][]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, postgresPatience)
	defer cancel()
	if err := w.connect(ctx); err != nil {
		return nil, err
	}
	ids, wrote := make([]string, len(keys)), make([]string, len(keys))
	for i, k := range keys {
		ids[i], wrote[i] = k.ID, k.By
	}
	found := make(map[audit.Key][]byte)
	look := ask(`SELECT r.id, r.wrote, r.bytes FROM unnest($1::text[], $2::text[]) AS k(id, wrote)
		JOIN audit_records AS r ON r.id = k.id AND r.wrote = k.wrote`, ids, wrote)
	look.row = func(row [][]byte) error {
		found[audit.Key{ID: string(row[0]), By: string(row[1])}] = append([]byte(nil), row[2]...)
		return nil
	}
	_, err := w.commit(ctx, []request{ask(begin),
		ask(`SELECT 1 FROM audit_head WHERE one = 1 FOR UPDATE`), look})
	if err != nil {
		w.rollback(ctx)
		return nil, fmt.Errorf("looking up an id: %w", err)
	}
	return found, nil
}

// appendUnrecorded runs a Change that narrows with outbox rows in place of its
// records. It takes no lock of the head: that may be what is in the way.
func (w *postgresWriter) appendUnrecorded(ctx context.Context, change audit.Write, now int64) (o audit.Outcome, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, postgresPatience)
	defer cancel()
	t := &pgTransaction{postgresWriter: w, now: now}
	for tries := 1; ; tries++ {
		o, err = t.unrecorded(ctx, change)
		if !errors.Is(err, errAgain) || tries == postgresTries || ctx.Err() != nil {
			return o, err
		}
	}
}
