package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/audit"
)

// Errors of Copy, CancelCopy, Backup and Restore.
var (
	// ErrNotEmpty: the target holds something that is not the beginning of
	// this copy.
	ErrNotEmpty = fmt.Errorf("%w: the target of a copy must be empty", ErrStore)
	// ErrLive: the target is in use, with the same log.
	ErrLive = fmt.Errorf("%w: the target holds the same log and is in use", ErrStore)
	// ErrElsewhere: the source was moved, and not to this target.
	ErrElsewhere = fmt.Errorf("%w: the source has moved to another target", ErrStore)
	// ErrCancelled: the move to this target was given up, but the source is
	// not open yet.
	ErrCancelled = fmt.Errorf("%w: the copy was cancelled", ErrStore)
)

// CopyConfig says what is copied where.
type CopyConfig struct {
	// From is where the deployment lives, To where it goes.
	From, To Config
	// KeepServing copies the log and leaves the source open: a later Copy has
	// less to do while nothing can be written.
	KeepServing bool
	// Progress hears how far it is; may be nil.
	Progress Progress
}

// Progress hears how far a part of the work is, in units of that part.
type Progress func(what string, done, of int64)

// CopyReport says what was copied.
type CopyReport struct {
	// Log is the id of the log, Head where it ends in the target, Copied how
	// many records this run brought there.
	Log    string
	Head   audit.Head
	Copied int64
	// Rows counts the rows of the other tables, by table.
	Rows map[string]int64
	// Closed is for how long this run kept the source closed. If Copy failed
	// and it is not 0, the source is closed still.
	Closed time.Duration
	// Done says that the deployment lives in the target, Before that it
	// already did.
	Done, Before bool
}

// Copy moves a deployment to another database, the log intact. Phase one brings
// the records over while the source is written to, each proved by the chain
// before it is written and read back after. Phase two closes the source, brings
// the rest of the log and every other table, compares both sides and opens the
// target. Whatever ends it, it goes on where it was when it is called again; at
// no time are both open. A source that is closed stays so: CancelCopy opens it.
func Copy(ctx context.Context, cfg CopyConfig) (report *CopyReport, err error) {
	source, err := openSource(ctx, cfg.From)
	if err != nil {
		return nil, err
	}
	c := newCopier(source, cfg.Progress)
	defer func() { err = errors.Join(err, c.close()) }()
	moved, err := c.sourceState(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.openTarget(ctx, cfg.To); err != nil {
		return nil, err
	}
	if done, err := c.adopt(ctx, moved); done || err != nil {
		c.report.Done, c.report.Before = done, done
		return c.report, err
	}
	closed := time.Now()
	if moved == "" {
		if err := c.catchUp(ctx); err != nil || cfg.KeepServing {
			return c.report, err
		}
		closed = time.Now()
		if err := c.closeSource(ctx, kindOf(cfg.To.DSN)); err != nil {
			return nil, err
		}
	}
	if err = source.settle(ctx); err == nil {
		err = c.rest(ctx, still{source})
	}
	if err == nil {
		err = c.complete(ctx, "", nil)
	}
	c.report.Closed, c.report.Done = time.Since(closed), err == nil
	return c.report, err
}

// copier fills one target.
type copier struct {
	source, target *Store
	progress       Progress
	report         *CopyReport

	// mark is what closes the target while this run fills it; see [mark].
	mark mark
	// at is where the log of the target ends, read how much of it was read
	// back.
	at, read audit.Head
}

func newCopier(source *Store, progress Progress) *copier {
	return &copier{source: source, report: &CopyReport{Log: source.log, Rows: map[string]int64{}}, progress: progress}
}

func (c *copier) close() error {
	var errs []error
	for _, s := range []*Store{c.source, c.target} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

func (c *copier) tell(what string, done, of int64) {
	if c.progress != nil {
		c.progress(what, done, of)
	}
}

// mark is what closes a target: "copy ID RUN [CANCELLED]". ID goes with the
// "moved ID KIND" of the source. RUN is new for every Copy, so that one that
// still runs cannot write any more. CANCELLED is the ID before CancelCopy.
type mark struct{ id, run, cancelled string }

func (m mark) String() string {
	return strings.TrimSpace(strings.Join([]string{closedCopy, m.id, m.run, m.cancelled}, " "))
}

func parseMark(closed string) (mark, bool) {
	f := append(strings.Fields(closed), "")
	if len(f) < 4 || f[0] != closedCopy {
		return mark{}, false
	}
	return mark{id: f[1], run: f[2], cancelled: f[3]}, true
}

// newMark is a random word.
func newMark() string { return strings.ToLower(rand.Text()[:16]) }

// openSource opens the source in whatever state, and makes none.
func openSource(ctx context.Context, cfg Config) (*Store, error) {
	there := cfg
	there.ReadOnly = true
	s, err := openAny(ctx, there)
	if err == nil {
		err = s.Close()
	}
	if err == nil {
		s, err = openAny(ctx, cfg)
	}
	if err != nil {
		return nil, fmt.Errorf("the source: %w", err)
	}
	return s, nil
}

// sourceState returns the id of the copy that closed the source, "" if it is
// open.
func (c *copier) sourceState(ctx context.Context) (moved string, err error) {
	closed, err := c.source.closed(ctx)
	if err != nil || closed == "" {
		return "", err
	}
	if f := strings.Fields(closed); f[0] == closedMoved && len(f) > 1 {
		return f[1], nil
	}
	return "", fmt.Errorf("the source: %w", closedError(closed))
}

func (c *copier) openTarget(ctx context.Context, cfg Config) (err error) {
	cfg.MinFree = -1 // there is no authority to widen, and a reserve to be made later
	if c.target, err = openAny(ctx, cfg); err != nil {
		return fmt.Errorf("the target: %w", err)
	}
	return nil
}

// adopt makes the target this run's own, or says that the deployment lives
// there already.
func (c *copier) adopt(ctx context.Context, moved string) (done bool, err error) {
	closed, err := c.target.closed(ctx)
	if err != nil {
		return false, err
	}
	same := c.target.log == c.source.log
	m, copying := parseMark(closed)
	switch {
	case closed == "" && same && moved != "":
		c.report.Head, err = c.target.Head(ctx)
		return true, err
	case closed == "" && same:
		return false, ErrLive
	case closed == "" && moved != "":
		return false, ErrElsewhere
	case closed == "":
		return false, c.found(ctx)
	case !copying:
		return false, fmt.Errorf("the target: %w", closedError(closed))
	case !same:
		return false, fmt.Errorf("%w: it is a copy of another deployment", ErrNotEmpty)
	case moved != "" && moved == m.cancelled:
		return false, ErrCancelled
	case moved != "" && moved != m.id:
		return false, ErrElsewhere
	}
	m.run = newMark()
	if err := c.target.remark(ctx, closed, m.String(), nil); err != nil {
		return false, err
	}
	c.mark = m
	return false, c.resume(ctx)
}

// found turns an empty target into one of the source's log.
func (c *copier) found(ctx context.Context) error {
	for i := range tables {
		rows, err := still{c.target}.rows(ctx, &tables[i], nil)
		if err != nil {
			return err
		}
		if len(rows) > 0 {
			return fmt.Errorf("%w: it has %s", ErrNotEmpty, tables[i].name)
		}
	}
	c.mark = mark{id: newMark(), run: newMark()}
	before, after := audit.FirstPrev(c.target.log), audit.FirstPrev(c.source.log)
	err := c.target.commit(ctx, nil,
		effect(1, `UPDATE audit_head SET leaf = $1, closed = $2 WHERE one = 1 AND size = 0 AND leaf = $3 AND closed = ''`,
			after, c.mark.String(), before),
		effect(1, `UPDATE settings SET value = $1 WHERE name = 'audit.log' AND value = $2`, c.source.log, c.target.log))
	if errors.Is(err, errLost) {
		return ErrNotEmpty
	}
	if err != nil {
		return fmt.Errorf("the target: %w", err)
	}
	c.target.log = c.source.log
	c.target.write.admit(c.mark.String())
	return c.resume(ctx)
}

// closeSource ends writing at the source, with an entry that says so.
func (c *copier) closeSource(ctx context.Context, kind string) error {
	entry, err := operatorEntry(c.source.log, audit.StoreMove, "to", kind)
	if err != nil {
		return err
	}
	err = c.source.commit(ctx, entry, effect(1, `UPDATE audit_head SET closed = $1 WHERE one = 1 AND closed = ''`,
		strings.Join([]string{closedMoved, c.mark.id, kind}, " ")))
	if err != nil {
		return fmt.Errorf("closing the source: %w", err)
	}
	return nil
}

// complete ends the copy: from now on the target is closed as that, "" for
// open. The entry may be nil.
func (c *copier) complete(ctx context.Context, closed string, entry *audit.Draft) error {
	if err := c.target.remark(ctx, c.mark.String(), closed, entry); err != nil {
		return fmt.Errorf("completing the copy: %w", err)
	}
	return nil
}

// settle waits for whoever began to write before the database was closed and
// does not lock the head: narrowing Changes without the log, on PostgreSQL.
func (s *Store) settle(ctx context.Context) error {
	if s.read.sqlite {
		return nil
	}
	var n int
	err := s.read.QueryRow(ctx, `SELECT count(*) FROM pg_advisory_xact_lock($1)`, int64(postgresUnrecorded)).Scan(&n)
	if err != nil {
		return fmt.Errorf("%w: waiting for the last that writes to the source: %w", ErrStore, err)
	}
	return nil
}

// operatorEntry is the draft of an entry about the database itself.
func operatorEntry(log, action, member string, value any) (*audit.Draft, error) {
	return audit.NewDraft(log, audit.Entry{ID: audit.NewID(), Agent: audit.Operator, Action: action,
		Result: audit.Allowed, Detail: map[string]any{"via": "cli", member: value}})
}

// errLost: somebody else was faster.
var errLost = fmt.Errorf("%w: another process changed the database meanwhile", ErrStore)

// commitTimeout bounds one commit of a copy.
const commitTimeout = time.Minute

// commit commits effects, each of which must hit its rows, and an entry if there
// is one, through the one write path.
func (s *Store) commit(ctx context.Context, entry *audit.Draft, effects ...audit.Effect) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	w := audit.Write{Effects: effects}
	if entry != nil {
		w.Drafts = []*audit.Draft{entry}
	}
	outcomes, err := s.Append(ctx, []audit.Write{w}, time.Now().UnixMilli())
	switch {
	case err != nil:
		return err
	case outcomes[0].Err != nil:
		return outcomes[0].Err
	case outcomes[0].Lost:
		return errLost
	}
	return nil
}

// remark changes what closes the database, and so what this process may write
// to. The entry may be nil.
func (s *Store) remark(ctx context.Context, before, after string, entry *audit.Draft) error {
	s.write.admit(before)
	err := s.commit(ctx, entry, effect(1, `UPDATE audit_head SET closed = $1 WHERE one = 1 AND closed = $2`, after, before))
	if err != nil {
		return err
	}
	s.write.admit(after)
	return nil
}
