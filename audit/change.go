package audit

import (
	"context"
	"errors"
	"fmt"
)

// ErrAudit is the root of every error of this package.
var ErrAudit = errors.New("audit")

var (
	// ErrInvalid: an entry that may not be written (unknown action, too big,
	// bad id). It is the caller's mistake and nothing was queued.
	ErrInvalid = fmt.Errorf("%w: invalid entry", ErrAudit)
	// ErrConflict: a condition of the Change was lost; nothing of it remains
	// and its Else, if any, committed in its place.
	ErrConflict = fmt.Errorf("%w: condition lost", ErrAudit)
	// ErrUnavailable: the Change did not commit, or nobody could find out in
	// time. Answer 503 temporarily_unavailable and hand nothing out.
	ErrUnavailable = fmt.Errorf("%w: log unavailable", ErrAudit)
	// ErrUnrecorded: a narrowing Change stands, its record waits in the outbox
	// because only the log refused. The answer says "recorded": false.
	ErrUnrecorded = fmt.Errorf("%w: done, record waits for the log", ErrAudit)
	// ErrIDConflict: (by, id) is in the log with another entry. Nothing of the
	// Change remains; that it was tried is recorded. Answer 409 id_conflict.
	ErrIDConflict = fmt.Errorf("%w: id names another entry", ErrAudit)
	// ErrStatement: a statement of this Change failed for a reason of its own
	// (a broken constraint, malformed SQL). Nothing of the Change remains and
	// no other Change was harmed.
	ErrStatement = fmt.Errorf("%w: statement failed", ErrAudit)
	// ErrNotFound: no such record, or none that the caller may see.
	ErrNotFound = fmt.Errorf("%w: no such record", ErrAudit)
	// ErrCursor: a cursor that this server did not make for this filter and
	// this caller.
	ErrCursor = fmt.Errorf("%w: invalid cursor", ErrAudit)
)

// LostError is the ErrConflict of a Change that lost a condition: it tells which
// Else committed in its place, where the answer depends on that.
type LostError struct {
	// Else is 1 for that of the Change, 2 for that Else's own, and so on; 0 if
	// there was none, or if the last of them lost too.
	Else int
}

// Error implements error.
func (e *LostError) Error() string { return ErrConflict.Error() }

// Unwrap makes a LostError an ErrConflict.
func (e *LostError) Unwrap() error { return ErrConflict }

// Effect is one prepared conditional statement. Only package store (or the
// adapter of a test) makes one; everybody else passes it on.
type Effect interface {
	// AuditEffect marks the type; it does nothing.
	AuditEffect()
}

// Change is one decision: what it does to the state and what is said about it,
// committed together or not at all (design D3, D4).
type Change struct {
	// Effects run in order; each must hit the number of rows it was made for.
	Effects []Effect
	// Entries are appended in order when every effect hit its rows.
	Entries []Entry
	// Else commits instead when a condition is lost. It may have an Else of
	// its own.
	Else *Change
	// Narrows says that the Change only takes authority away (revoke, suspend,
	// end a session, withdraw consent): if only the log refuses it commits with
	// an outbox row instead of its record, see ErrUnrecorded.
	Narrows bool
}

// Committer is the one write path. *Log implements it.
type Committer interface {
	// Commit returns nil when the Change is durable. ctx counts until the
	// Change is queued; after that Commit returns what happened, or
	// ErrUnavailable if the deadline of ctx passes before that is known.
	Commit(ctx context.Context, c Change) error
}
