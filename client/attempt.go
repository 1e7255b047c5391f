package client

import (
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/delegation"
)

// Attempt is one connection or request that a Transport judged: what a report
// is about. It never holds a token, a header, a query or a body.
type Attempt struct {
	// Time is when it was judged.
	Time time.Time
	// Method is that of the request, CONNECT for a tunnel.
	Method string
	// URL is scheme, host and path.
	URL string
	// Destination is "host:port".
	Destination string
	// Address is what the host resolved to, where it came so far.
	Address string
	// Own says that the destination is the origin of an audience of the token.
	Own bool
	// Size is the length of the request's body, −1 if it is not known.
	Size int64
	// Status is the HTTP status of the answer, if the request was sent and
	// answered: what is refused then is the answer's body, not the action.
	Status int
	// Links are those of the token, root first.
	Links []delegation.Link
	// Refusal is why it was refused; nil if it was allowed.
	Refusal *delegation.Refusal
}

// Refused is the error of a request that a Transport refused. It wraps the
// *delegation.Refusal.
type Refused struct {
	Attempt
}

// Error names the destination and the reason.
func (r *Refused) Error() string {
	text := r.Method + " " + r.Destination + ": " + r.Refusal.Error()
	if r.Status != 0 {
		text += fmt.Sprintf(" (the request was sent and answered %d)", r.Status)
	}
	return text
}

// Unwrap returns the *delegation.Refusal.
func (r *Refused) Unwrap() error { return r.Refusal }

// Is makes every Refused an ErrFailed.
func (r *Refused) Is(target error) bool { return target == ErrFailed }
