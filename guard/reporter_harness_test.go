package guard_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/guard"
)

// told is an entry as the log gets it.
type told struct {
	ID, Action, Resource, Result, Reason, LID string
	Credential, Proof, Method, URL            string
	Observed, Requested                       int64
	Detail                                    struct {
		Phase, Of, Method, Dimension string
		Status                       int
		Count, First, Last           int64
	}
}

// fakeLog takes reports as ISSUER/api/v1/audit/entries does.
type fakeLog struct {
	t   *testing.T
	url string

	mu      sync.Mutex // guards what follows
	entries []told     // in the order in which they became durable
	posts   int
	largest int
	// answer, if set, decides before an entry is taken: a status that is not 0
	// is answered instead, with the index if that is not negative.
	answer func(batch []told) (status, index int)
	// lose is how many answers are cut off after the entries were taken.
	lose int
	hold chan struct{} // requests wait until it is closed
}

func newFakeLog(t *testing.T) *fakeLog {
	l := &fakeLog{t: t}
	server := httptest.NewServer(http.HandlerFunc(l.serve))
	t.Cleanup(server.Close)
	l.url = server.URL
	return l
}

func (l *fakeLog) serve(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return // the reporter gave up
	}
	l.mu.Lock()
	hold := l.hold
	l.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-r.Context().Done():
			return
		}
	}
	var body struct{ Entries []told }
	if r.Method != http.MethodPost || r.Header.Get("Authorization") != "Bearer of-the-reporter" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if err := json.Unmarshal(text, &body); err != nil || len(body.Entries) == 0 || len(body.Entries) > 500 || len(text) > 2<<20 {
		l.t.Errorf("%d entries, %d bytes: %v", len(body.Entries), len(text), err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.posts++
	l.largest = max(l.largest, len(body.Entries))
	if l.answer != nil {
		if status, index := l.answer(body.Entries); status != 0 {
			w.WriteHeader(status)
			if index >= 0 {
				_ = json.NewEncoder(w).Encode(map[string]any{"error": "invalid_request", "index": index})
			}
			return
		}
	}
	ids := []string{}
	for _, e := range body.Entries {
		if !slices.ContainsFunc(l.entries, func(had told) bool { return had.ID == e.ID }) {
			l.entries = append(l.entries, e)
		}
		ids = append(ids, e.ID)
	}
	if l.lose > 0 {
		l.lose--
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(http.StatusCreated)
	_ = json.NewEncoder(w).Encode(map[string]any{"ids": ids})
}

// say sets how the log answers; nil: as it should.
func (l *fakeLog) say(answer func([]told) (int, int)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer = answer
}

func always(status int) func([]told) (int, int) {
	return func([]told) (int, int) { return status, -1 }
}

func (l *fakeLog) all() []told {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.entries)
}

// with are the entries of an action and a result.
func (l *fakeLog) with(action, result string) (list []told) {
	for _, e := range l.all() {
		if e.Action == action && e.Result == result {
			list = append(list, e)
		}
	}
	return list
}

// until waits for something that another goroutine brings about.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for range 1000 {
		if done() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("never: %s", what)
}

// asReporter adds the reporter's own token.
type asReporter struct{}

func (asReporter) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer of-the-reporter")
	return http.DefaultTransport.RoundTrip(r)
}

// reporter starts a Reporter that the test closes.
func (w *world) reporter(l *fakeLog, change func(*guard.ReporterConfig)) *guard.Reporter {
	w.t.Helper()
	cfg := guard.ReporterConfig{
		URL: l.url, Resource: resource, Client: &http.Client{Transport: asReporter{}}, Now: w.clock, Log: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	r, err := guard.NewReporter(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.Close(ctx)
	})
	return r
}

// closed closes a Reporter that has time to deliver everything.
func closed(t *testing.T, r *guard.Reporter) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Errorf("closing: %v", err)
	}
}

// reporting is a handler behind a guard that reports.
func (w *world) reporting(r *guard.Reporter, next http.Handler, change func(*guard.Config)) http.Handler {
	cfg := w.config()
	cfg.Report = r.Report
	cfg.DPoPForWrites = true
	if change != nil {
		change(&cfg)
	}
	return guard.Require(cfg)(next)
}

func bearer(token string) *http.Request { return request("Bearer " + token) }

func contains(text string, parts ...string) bool {
	return slices.ContainsFunc(parts, func(part string) bool { return part != "" && strings.Contains(text, part) })
}

// redirecting is a server that sends every request elsewhere.
func redirecting(t *testing.T, to string) string {
	server := httptest.NewServer(http.RedirectHandler(to, http.StatusTemporaryRedirect))
	t.Cleanup(server.Close)
	return server.URL
}

// at is a proof made at a time.
func (b bound) at(when time.Time) string {
	return b.proof(func(p *agent.Proof) { p.IssuedAt = when })
}
