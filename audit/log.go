package audit

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of a batch (design D4).
const (
	maxBatch      = 256
	maxBatchBytes = 1 << 20
	maxYields     = 3
	queueLength   = 2 * maxBatch
	// outboxLook is how many seconds pass between looks at an outbox that this
	// process believes empty.
	outboxLook = 10
	// failureNoise is how often a log that cannot be written says so.
	failureNoise = 30 * time.Second
)

// Config says how a Log works.
type Config struct {
	// Store is where the log lives.
	Store Store
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Logger hears what no caller does (a queue that cannot be written); nil
	// means slog.Default().
	Logger *slog.Logger
	// Deadline bounds one batch, retries and the look-up of an unknown outcome
	// included; 0 means 8 s.
	Deadline time.Duration
}

// Status is what the operations listener shows.
type Status struct {
	// Err is why the last batch could not be written, nil when it could.
	Err error
	// Changes and Batches count what committed, Conflicts the lost conditions
	// among them.
	Changes, Batches, Conflicts uint64
	// Unrecorded is how many entries this process put into the outbox and has
	// not seen leave it.
	Unrecorded int64
	// What came through Refuse: waiting now, written whole, counted in
	// summaries, and lost because the log was away for too long.
	RefusalsQueued, RefusalsWritten, RefusalsSummarised, RefusalsLost uint64
}

// Log is the log of one process: the one write path. It owns two goroutines,
// run (the committer) and refusals.run; Close ends both.
type Log struct {
	cfg      Config
	refusals *refusals

	queue    chan *pending // closed by Close, read by run alone
	stopping chan struct{} // closed first by Close: no caller waits for room in queue
	halting  chan struct{} // closed when the ctx of Close ends: nor do the refusals
	stop     sync.Once
	done     chan struct{} // closed by run when the queue is empty and closed
	entering sync.RWMutex  // read-held while a caller's Change joins the queue
	closed   bool          // under entering

	outbox                      atomic.Int64 // see Status.Unrecorded
	changes, batches, conflicts atomic.Uint64
	failure                     atomic.Pointer[error]
	trouble                     time.Time // when failed last had an error; run alone
	said                        time.Time // when failed last logged; run alone
}

// pending is a Change in the queue.
type pending struct {
	w       Write
	keys    []Key
	size    int
	verdict error      // what to answer once w is durable
	answer  chan error // of one element
}

// NewLog starts the goroutines of a Log. Close ends them.
func NewLog(cfg Config) *Log {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Deadline == 0 {
		cfg.Deadline = 8 * time.Second
	}
	l := &Log{cfg: cfg, queue: make(chan *pending, queueLength),
		stopping: make(chan struct{}), halting: make(chan struct{}), done: make(chan struct{})}
	l.refusals = newRefusals(l)
	go l.run()
	go l.refusals.run()
	return l
}

// Commit implements Committer: it returns nil, or an error that wraps
// ErrInvalid, ErrConflict, ErrIDConflict, ErrStatement, ErrUnrecorded,
// ErrUnavailable, or the cause of ctx if that ended before the Change was
// queued. After that a cancelled ctx ends nothing, and its deadline ends only
// the waiting: what a caller is told too late to hand anything out is
// ErrUnavailable, whatever becomes of the Change.
func (l *Log) Commit(ctx context.Context, c Change) error {
	p, err := l.pend(c)
	if p == nil || err != nil {
		return err
	}
	if err := l.enter(ctx, p); err != nil {
		return err
	}
	var late <-chan time.Time // never
	if deadline, ok := ctx.Deadline(); ok {
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		late = timer.C
	}
	select {
	case err := <-p.answer:
		return err
	case <-late:
		return fmt.Errorf("%w: not known in time: %w", ErrUnavailable, context.DeadlineExceeded)
	}
}

// pend makes a Change ready for the queue; nil if it does nothing.
func (l *Log) pend(c Change) (*pending, error) {
	w, err := prepare(l.cfg.Store.LogID(), c)
	if err != nil || w.empty() {
		return nil, err
	}
	return &pending{w: w, keys: w.keys(nil), size: w.size(), answer: make(chan error, 1)}, nil
}

// enter queues a caller's Change.
func (l *Log) enter(ctx context.Context, p *pending) error {
	l.entering.RLock()
	defer l.entering.RUnlock()
	if l.closed {
		return fmt.Errorf("%w: closed", ErrUnavailable)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: not queued: %w", ErrUnavailable, context.Cause(ctx))
	}
	select {
	case l.queue <- p:
		return nil
	default:
	}
	select {
	case l.queue <- p:
		return nil
	case <-l.stopping:
		return fmt.Errorf("%w: closing", ErrUnavailable)
	case <-ctx.Done():
		return fmt.Errorf("%w: not queued: %w", ErrUnavailable, context.Cause(ctx))
	}
}

// commitQueued is Commit for the refusals, which go on while callers are
// turned away.
func (l *Log) commitQueued(c Change) error {
	p, err := l.pend(c)
	if p == nil || err != nil {
		return err
	}
	select {
	case <-l.halting:
		return fmt.Errorf("%w: closing", ErrUnavailable)
	default:
	}
	select {
	case l.queue <- p:
		return <-p.answer
	case <-l.halting:
		return fmt.Errorf("%w: closing", ErrUnavailable)
	}
}

// Close writes what is queued, refusals included, and ends the goroutines.
// Commit answers ErrUnavailable from then on. If ctx ends first, Close returns
// its error and the goroutines end as soon as the database lets them.
func (l *Log) Close(ctx context.Context) error {
	l.stop.Do(func() {
		close(l.stopping)
		l.entering.Lock()
		l.closed = true
		l.entering.Unlock()
		l.refusals.close()
		go func() {
			select {
			case <-l.refusals.done:
			case <-ctx.Done():
				close(l.halting)
				<-l.refusals.done
			}
			close(l.queue) // nobody is left who writes to it
		}()
	})
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: closing the log: %w", ErrAudit, ctx.Err())
	}
}

// Status reports how the log is doing.
func (l *Log) Status() Status {
	s := Status{Changes: l.changes.Load(), Batches: l.batches.Load(), Conflicts: l.conflicts.Load(), Unrecorded: l.outbox.Load()}
	if err := l.failure.Load(); err != nil {
		s.Err = *err
	}
	l.refusals.status(&s)
	return s
}

// run is the committer. It alone talks to Store.Append, so that the Changes of
// one process never wait for each other's locks.
func (l *Log) run() {
	defer close(l.done)
	l.drain() // what an earlier process left
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var held *pending
	many := false
	for ticks := 1; ; {
		if held == nil {
			select {
			case p, open := <-l.queue:
				if !open {
					l.drain()
					return
				}
				held = p
			case <-tick.C:
				// Another process may have left something, so look now and then.
				if ticks++; l.outbox.Load() > 0 || ticks%outboxLook == 0 {
					l.drain()
				}
				if time.Since(l.trouble) > troubleFor {
					// Nobody has tried since, perhaps because it said that it is not
					// ready: whoever tries next finds out.
					l.failure.Store(nil)
				}
				continue
			}
		}
		var batch []*pending
		batch, held = l.gather(held, many)
		many = len(batch) > 1
		if l.outbox.Load() > 0 {
			l.drain() // "the outbox goes first when the log is back" (D3)
		}
		l.commit(batch)
	}
}

// gather takes what is queued. If the batch before had more than one Change
// others are on their way: then it yields the processor a few times while the
// queue is empty. There is no timer, so a lone Change never waits.
//
// A Change whose id is in the batch already is held back for the next one: it
// is answered alone (audit.md §3).
func (l *Log) gather(first *pending, many bool) (batch []*pending, held *pending) {
	ids := make(map[Key]bool, len(first.keys))
	size, yields := 0, 0
	p := first
	for {
		if len(batch) > 0 && (size+p.size > maxBatchBytes || anyIn(ids, p.keys)) {
			return batch, p
		}
		for _, k := range p.keys {
			ids[k] = true
		}
		batch, size = append(batch, p), size+p.size
		if len(batch) == maxBatch {
			return batch, nil
		}
		for p = nil; p == nil; {
			select {
			case p = <-l.queue:
				if p == nil { // closed; run sees that when held is nil
					return batch, nil
				}
			default:
				if !many || yields == maxYields {
					return batch, nil
				}
				yields++
				runtime.Gosched()
			}
		}
	}
}

func anyIn(set map[Key]bool, keys []Key) bool {
	for _, k := range keys {
		if set[k] {
			return true
		}
	}
	return false
}

// failed remembers why the log cannot be written; nil when it can. It logs the
// beginning and the end, and in between now and then.
func (l *Log) failed(err error) {
	before := l.failure.Load()
	if err == nil {
		if before != nil {
			l.failure.Store(nil)
			l.cfg.Logger.Info("the audit log is back")
		}
		return
	}
	l.failure.Store(&err)
	l.trouble = time.Now()
	if now := l.trouble; before == nil || now.Sub(l.said) > failureNoise {
		l.said = now
		l.cfg.Logger.Error("the audit log cannot be written", "error", err)
	}
}
