package audit

import (
	"context"
	"log/slog"
	"time"
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
	// Unrecorded is how many entries wait in the outbox, as far as this
	// process knows.
	Unrecorded int64
	// Refusals counts entries that came through Refuse: queued now, written
	// whole, counted in summaries, and lost because the queue was full.
	RefusalsQueued, RefusalsWritten, RefusalsSummarised, RefusalsLost uint64
}

// Log is the log of one process: the one write path.
type Log struct{ cfg Config }

// NewLog starts the two goroutines of a Log. Close ends them.
func NewLog(cfg Config) *Log { return &Log{cfg: cfg} }

// Commit implements Committer.
func (l *Log) Commit(ctx context.Context, c Change) error { panic("unbuilt") }

// Refuse records a refusal to an unauthenticated caller: not awaited, durable
// within a second; per (source, endpoint, reason) the first ten a minute whole,
// the rest as one audit.summary a minute. source is the caller's address or
// whatever stands for it.
//
// Refusals to authenticated callers, and every refusal with reason replayed,
// revoked, key_reuse or refresh_reuse, go through Commit.
func (l *Log) Refuse(source, endpoint string, e Entry) { panic("unbuilt") }

// Status reports how the log is doing.
func (l *Log) Status() Status { panic("unbuilt") }

// Close writes what is queued, refusals included, and ends the goroutines. It
// waits until ctx ends; Commit answers ErrUnavailable from the moment of the
// call.
func (l *Log) Close(ctx context.Context) error { panic("unbuilt") }
