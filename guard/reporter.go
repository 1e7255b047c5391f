package guard

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"
)

// ErrReport is the root of what keeps a decision out of the log.
var ErrReport = errors.New("reporting to the audit log")

// ReporterConfig says where and how a Reporter reports. URL and Resource are
// needed.
type ReporterConfig struct {
	// URL is where the log takes reports: ISSUER/api/v1/audit/entries.
	URL string
	// Resource is this resource server's identifier, as in Config: entries are
	// about it and what is below it. The client that Client signs in as must be
	// registered for it (kavach resource add --introspector).
	Resource string
	// Client sends, and adds the credential: a token with the scope audit:write.
	// Nil: http.DefaultClient, which adds none.
	Client *http.Client
	// SpillDir is where entries about what was allowed wait while the log is
	// away, also across restarts; it is made if it is not there. One Reporter
	// at a time. Empty: they wait in memory, and when that is full requests are
	// refused.
	SpillDir string
	// SpillBytes bounds what waits there; beyond it requests are refused.
	// Zero: 64 MiB.
	SpillBytes int64
	// Queue is how many entries wait in memory, in each of the two queues.
	// Zero: 4096.
	Queue int
	// Wait bounds how long a request whose token has audit_required waits for
	// its record. Zero: 5 s.
	Wait time.Duration
	// Window is how long refusals are counted for one summary. Zero: 1 min.
	Window time.Duration
	// Action names what a request is in the log, "rs." and a dotted verb. Nil:
	// ActionAccess for all.
	Action func(Decision) string
	// Source names the caller of a request without a usable token. It is
	// counted by and never sent. Nil: the address of the connection.
	Source func(*http.Request) string
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
	// Log takes what operators should see. Nil: slog.Default.
	Log *slog.Logger
}

// The actions a Reporter reports under.
const (
	// ActionAccess is a request that was allowed or refused.
	ActionAccess = "rs.access"
	// ActionSummary stands for refusals that were counted instead of reported
	// one by one; detail has count, first and last.
	ActionSummary = "rs.summary"
	// ActionDropped stands for entries that could not be reported at all.
	ActionDropped = "rs.dropped"
)

// NewReporter starts a Reporter; its Report is what Config.Report is for. A
// configuration without URL or Resource is a mistake of the program and panics;
// an error is about SpillDir.
func NewReporter(cfg ReporterConfig) (*Reporter, error) {
	return nil, ErrReport
}

// Reporter tells an audit log what a guard decided.
type Reporter struct{ cfg ReporterConfig }

// Report implements Config.Report.
func (r *Reporter) Report(ctx context.Context, d Decision) error { return ErrReport }

// Close sends what waits until ctx ends, leaves the rest in SpillDir, and ends
// the Reporter's goroutines.
func (r *Reporter) Close(ctx context.Context) error { return ErrReport }
