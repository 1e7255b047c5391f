package guard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"
)

// ErrReport is the root of what keeps a decision out of the log.
var ErrReport = errors.New("reporting to the audit log")

// ReporterConfig says where and how a Reporter reports. URL and Resource are
// needed.
type ReporterConfig struct {
	// URL is where the log takes reports: ISSUER/api/v1/audit/entries. Reports
	// carry credentials: it is https, or http on loopback, as issuers are.
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
	// at a time: a second one, in this process or another, is an error (where
	// the system has file locks). Empty: they wait in memory, and when that is
	// full requests are refused.
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

// Bounds of a batch: "up to 500 a batch" (audit.md §4), "audit batches 2 MiB"
// (authorization-server.md §6).
const (
	batchEntries = 500
	batchBytes   = 2<<20 - 4096
)

// Reporter tells an audit log what a guard decided. It has two queues (audit.md
// §4), both in memory:
//
//   - What was allowed, and what became of it, is never dropped: while the log is
//     away it moves to SpillDir, and when that is full (or there is none and the
//     queue is full) Report fails and the request is refused.
//   - Refusals are counted by caller and reason when the queue is full, and for
//     callers without a usable token beyond ten a Window. The counts are entries
//     (ActionSummary), and so is what the log would not take (ActionDropped).
//
// What lies in SpillDir holds nothing that a thief could use: a chain is there
// with a proof that was used already, and is worth nothing without its key; a
// bearer token is reduced to its lid. The files are for this user alone. They
// survive the process, and are not synced for every entry: what must survive the
// machine is what audit_required is for.
//
// A Reporter owns one goroutine, run, which Close ends.
type Reporter struct {
	cfg    ReporterConfig
	client *http.Client
	life   context.Context    // of every request of run
	end    context.CancelFunc // of life
	wake   chan struct{}      // of one element
	quit   chan struct{}      // closed by the first Close
	done   chan struct{}      // closed by run
	left   error              // what run could not deliver; written before done
	most   int                // entries in the next batch; of run alone

	mu      sync.Mutex // guards what follows
	closed  bool
	away    bool // the last attempt to reach the log failed
	allowed []wireEntry
	refused []wireEntry
	spill   *spill // nil without SpillDir
	windows map[callerKey]*window
	dropped window
}

// NewReporter starts a Reporter; its Report is what Config.Report is for. A
// configuration without Resource, or without a URL that can be reported to, is a
// mistake of the program and panics; an error is about SpillDir.
func NewReporter(cfg ReporterConfig) (*Reporter, error) {
	switch {
	case cfg.URL == "":
		panic("guard: ReporterConfig.URL is missing")
	case !confidential(cfg.URL):
		panic("guard: ReporterConfig.URL is not https (or http on loopback)")
	case cfg.Resource == "":
		panic("guard: ReporterConfig.Resource is missing")
	}
	cfg.Client = cmp.Or(cfg.Client, http.DefaultClient)
	cfg.SpillBytes = cmp.Or(cfg.SpillBytes, 64<<20)
	cfg.Queue = cmp.Or(cfg.Queue, 4096)
	cfg.Wait = cmp.Or(cfg.Wait, 5*time.Second)
	cfg.Window = cmp.Or(cfg.Window, time.Minute)
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	if cfg.Action == nil {
		cfg.Action = func(Decision) string { return ActionAccess }
	}
	if cfg.Source == nil {
		cfg.Source = remoteHost
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	client := *cfg.Client
	// A redirect would carry chains and proofs to another place.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	r := &Reporter{
		cfg: cfg, client: &client, wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
		most: batchEntries, windows: make(map[callerKey]*window),
	}
	if cfg.SpillDir != "" {
		var err error
		if r.spill, err = openSpill(cfg.SpillDir, cfg.SpillBytes); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrReport, err)
		}
		if n := r.spill.skipped; n > 0 {
			cfg.Log.Error("entries for the audit log could not be read back", "count", n)
			r.dropped.add(cfg.Now(), n)
		}
	}
	r.life, r.end = context.WithCancel(context.Background())
	go r.run()
	return r, nil
}

// confidential says whether what is sent there is not for others to read.
func confidential(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" || u.User != nil {
		return false
	}
	host, err := netip.ParseAddr(u.Hostname())
	return u.Scheme == "https" ||
		u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && host.Unmap().IsLoopback())
}

// Report implements Config.Report. It returns at once, except for a decision
// with the phase Before: then the log has the record durably when it returns
// nil, and the request must be refused when it does not.
func (r *Reporter) Report(ctx context.Context, d Decision) error {
	e := r.entryOf(d)
	v := visitOf(d.Request.Context())
	if v != nil {
		v.mu.Lock()
		if e.Detail.Of = v.reported; v.reported == "" {
			v.reported = e.ID
		}
		v.mu.Unlock()
	}
	switch {
	case d.Phase == Before:
		return r.reportNow(ctx, e)
	case d.Allowed || d.Phase == After || e.Detail.Of != "":
		return r.admit(e)
	}
	return r.refuse(e, r.callerOf(d, e), d.Chain == nil)
}

// Close sends what waits until ctx ends, leaves what was allowed in SpillDir,
// and ends the Reporter's goroutine. It returns an error if entries are lost.
func (r *Reporter) Close(ctx context.Context) error {
	r.mu.Lock()
	first := !r.closed
	r.closed = true
	r.mu.Unlock()
	if first {
		close(r.quit)
	}
	stop := context.AfterFunc(ctx, r.end)
	defer stop()
	<-r.done
	r.end()
	return r.left
}
