package audit

import (
	"context"
	"fmt"
)

// What an adapter says about a batch that did not commit.
var (
	// ErrDuplicate: a key of the batch is in the log (or the outbox) already.
	ErrDuplicate = fmt.Errorf("%w: id is in the log", ErrAudit)
	// ErrLogRefused: only the log's own tables refuse.
	ErrLogRefused = fmt.Errorf("%w: the log refuses", ErrAudit)
	// ErrUnknown: COMMIT was sent and not answered.
	ErrUnknown = fmt.Errorf("%w: outcome of commit unknown", ErrAudit)
)

// BrokenError: the Write at Index failed with an error of its own after which
// the transaction must not go on; without it the batch may run again.
type BrokenError struct {
	Index int
	Err   error
}

// Error implements error.
func (e *BrokenError) Error() string { return fmt.Sprintf("%v: %v", ErrStatement, e.Err) }

// Unwrap makes a BrokenError an ErrStatement.
func (e *BrokenError) Unwrap() []error { return []error{ErrStatement, e.Err} }

// Write is a Change made ready for an adapter: its entries are drafts.
type Write struct {
	Effects []Effect
	Drafts  []*Draft
	Else    *Write
	Narrows bool
}

// Outcome is what became of one Write of a batch.
type Outcome struct {
	// Records holds what was appended for it, in order.
	Records []Record
	// Lost says that a condition was lost; Records are those of the Else that
	// committed, if one did.
	Lost bool
	// Else counts which of them that was, as LostError does.
	Else int
	// Err is the Write's own failure (it wraps ErrStatement): nothing remains.
	Err error
}

// Key is the idempotency key of an entry.
type Key struct{ By, ID string }

// Waiting is an entry in the outbox, named by its entry id.
type Waiting struct {
	// ID is the entry id.
	ID string
	// Time is when its Change committed, in Unix milliseconds.
	Time int64
	// Entry is the entry as [Draft.Bytes] wrote it.
	Entry []byte
}

// Store is where the log lives. Package store implements it; package
// audittest tells every implementation what it owes.
type Store interface {
	// LogID is the origin chosen when the database was created.
	LogID() string

	// Append runs the batch in order in one transaction that locks the head
	// before any other row, appends the drafts of every Write whose conditions
	// hold with a Sequencer, and returns when that is durable: one Outcome per
	// Write. It reads nothing but the head. It may take fewer Writes than it is
	// given, but the first at least: then there are as many Outcomes as it took,
	// and of the rest nothing was done.
	//
	// On error nothing of the batch remains, except for ErrUnknown. It wraps
	// one of
	//   ErrDuplicate   a key is in the log already
	//   *BrokenError   the Write it names failed and cannot be left out alone
	//   ErrLogRefused  every effect would do, the log's own tables refuse
	//   ErrUnknown     COMMIT was sent and not answered; outcomes of what was
	//                  taken are returned and hold if the records turn out to
	//                  be there
	// and is otherwise a failure of the database as a whole.
	Append(ctx context.Context, batch []Write, now int64) ([]Outcome, error)

	// AppendUnrecorded runs one narrowing Write with outbox rows in place of
	// its records. It does not touch the log's tables.
	AppendUnrecorded(ctx context.Context, w Write, now int64) (Outcome, error)

	// Find returns the bytes of those keys that are in the log, looked up while
	// holding the head, so that a COMMIT still under way is waited for.
	Find(ctx context.Context, keys []Key) (map[Key][]byte, error)

	// Waiting returns the oldest entries of the outbox.
	Waiting(ctx context.Context, limit int) ([]Waiting, error)
	// Recorded is the effect that removes an outbox row.
	Recorded(id string) Effect

	// Room says whether authority may still be widened: nil, or why the disk
	// is too full for it (design D3).
	Room() error
	// Reclaim frees what was reserved so that a narrowing Change fits, if err
	// says that the disk is full. It reports whether it freed anything.
	Reclaim(err error) bool
}
