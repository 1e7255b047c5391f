package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/audit/audittest"
	"github.com/kavach-dev/kavach/store/d1test"
)

// d1Wire stands between a Store and D1 and does what a network can do.
type d1Wire struct {
	mu     sync.Mutex
	around func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error)
}

// d1Unanswered says that the request has left, and that no answer came.
func d1Unanswered(r *http.Request) (*http.Response, error) {
	httptrace.ContextClientTrace(r.Context()).WroteHeaders()
	return nil, errD1Cut
}

func (w *d1Wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	around := w.around
	w.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	send := func() (*http.Response, error) {
		again := r.Clone(context.WithoutCancel(r.Context())) // it may be sent late
		again.Body = io.NopCloser(bytes.NewReader(body))
		return http.DefaultTransport.RoundTrip(again)
	}
	if around == nil || !strings.HasSuffix(r.URL.Path, "/v1/batch") {
		return send()
	}
	return around(r, send)
}

func (w *d1Wire) set(around func(*http.Request, func() (*http.Response, error)) (*http.Response, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.around = around
}

// d1Wired opens a database whose network is in the test's hands.
func d1Wired(t *testing.T, db d1test.Database) (*Store, *d1Wire) {
	t.Helper()
	s := openD1Test(t, db.Bridge, d1test.SchemaToken)
	w := &d1Wire{}
	s.write.(*d1Writer).client.http.Transport = w
	return s, w
}

func d1Change(name string) audit.Change {
	return audit.Change{Entries: []audit.Entry{audittest.Entry(name)}, Effects: []audit.Effect{
		effect(1, `INSERT INTO settings (name, value) VALUES ($1, 'x') ON CONFLICT DO NOTHING`, name),
	}}
}

var errD1Cut = errors.New("the line is cut")

// An answer that is lost is found out about, whatever became of the request:
// done, never begun, or begun only when it was believed lost.
func TestD1UnknownOutcome(t *testing.T) {
	s, w := d1Wired(t, d1test.New(t))
	l := audit.NewLog(audit.Config{Store: s})
	defer l.Close(t.Context())
	count := func(want int) {
		t.Helper()
		report, err := audit.Verify(t.Context(), s, audit.VerifyConfig{})
		if err != nil || !report.OK() || report.Records != int64(want) {
			t.Errorf("Verify = %+v, %v; want %d records", report, err, want)
		}
	}
	once := func(do func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error)) {
		var done atomic.Bool
		w.set(func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
			if done.Swap(true) {
				return send()
			}
			return do(r, send)
		})
	}

	for i, status := range []int{0, http.StatusBadGateway, http.StatusInternalServerError} {
		once(func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
			answer, err := send()
			if err != nil {
				return nil, err
			}
			_ = answer.Body.Close()
			if status == 0 {
				return d1Unanswered(r)
			}
			answer.StatusCode, answer.Body = status, io.NopCloser(strings.NewReader("gateway"))
			return answer, nil
		})
		if err := l.Commit(t.Context(), d1Change(fmt.Sprint("done ", i))); err != nil {
			t.Errorf("done and not answered (%d): %v", status, err)
		}
		count(i + 1)
	}
	// Nobody got it: it runs again.
	once(func(*http.Request, func() (*http.Response, error)) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusBadGateway, Body: io.NopCloser(strings.NewReader(""))}, nil
	})
	if err := l.Commit(t.Context(), d1Change("never begun")); err != nil {
		t.Errorf("never begun: %v", err)
	}
	count(4)
	// It was held back on its way, and arrives after all that followed.
	var late func() (*http.Response, error)
	once(func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
		late = send
		return d1Unanswered(r)
	})
	if err := l.Commit(t.Context(), d1Change("late")); err != nil {
		t.Errorf("late: %v", err)
	}
	w.set(nil)
	d1ArrivesLate(t, late)
	count(5)

	// The same, and it arrives between the look-up and the second try.
	var tries atomic.Int64
	w.set(func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
		switch tries.Add(1) {
		case 1:
			late = send
			return d1Unanswered(r)
		case 2: // find moves the fence
			return send()
		case 3:
			d1ArrivesLate(t, late)
		}
		return send()
	})
	if err := l.Commit(t.Context(), d1Change("between")); err != nil {
		t.Errorf("between: %v", err)
	}
	w.set(nil)
	count(6)
	// Without a record nobody can find out: no answer is claimed.
	once(func(r *http.Request, send func() (*http.Response, error)) (*http.Response, error) {
		if answer, err := send(); err == nil {
			_ = answer.Body.Close()
		}
		return d1Unanswered(r)
	})
	if err := l.Commit(t.Context(), audit.Change{Effects: d1Change("no record").Effects}); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("nothing to look up: %v", err)
	}
}

// d1ArrivesLate sends a request that was held back; D1 must refuse it.
func d1ArrivesLate(t *testing.T, send func() (*http.Response, error)) {
	t.Helper()
	r, err := send()
	if err != nil {
		t.Error(err)
		return
	}
	defer r.Body.Close()
	text, _ := io.ReadAll(r.Body)
	if r.StatusCode != http.StatusBadRequest || !strings.Contains(string(text), "lost head") {
		t.Errorf("a request that arrived late: %d %s", r.StatusCode, text)
	}
}

// Too many requests: it keeps away for as long as it was told, and what widens
// authority is refused meanwhile.
func TestD1TooManyRequests(t *testing.T) {
	s, w := d1Wired(t, d1test.New(t))
	l := audit.NewLog(audit.Config{Store: s})
	defer l.Close(t.Context())
	var asked atomic.Int64
	w.set(func(*http.Request, func() (*http.Response, error)) (*http.Response, error) {
		asked.Add(1)
		return &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"3600"}}, Body: http.NoBody}, nil
	})
	for i := range 3 {
		if err := l.Commit(t.Context(), d1Change(fmt.Sprint(i))); !errors.Is(err, audit.ErrUnavailable) {
			t.Errorf("Commit = %v", err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("it was asked %d times", n)
	}
	if err := s.Ping(t.Context()); err == nil {
		t.Error("a database that is not asked is said to answer")
	}
	w.set(nil)
	s.write.(*d1Writer).client.until.Store(0)
	if err := l.Commit(t.Context(), d1Change("0")); err != nil {
		t.Errorf("it does not come back: %v", err)
	}
}

// The token goes where the operator said, and into no error.
func TestD1TokenStays(t *testing.T) {
	var moved atomic.Int64
	s, w := d1Wired(t, d1test.New(t))
	w.set(func(*http.Request, func() (*http.Response, error)) (*http.Response, error) {
		moved.Add(1)
		return &http.Response{StatusCode: http.StatusTemporaryRedirect, Header: http.Header{"Location": {"https://elsewhere.example/"}}, Body: http.NoBody}, nil
	})
	_, err := s.Append(t.Context(), []audit.Write{{Effects: []audit.Effect{s.Recorded("none")}}}, 1)
	if err == nil || moved.Load() != 1 {
		t.Errorf("a redirect: %v, followed %d times", err, moved.Load()-1)
	}
	for _, shown := range []string{fmt.Sprintf("%v %+v %#v %s", Token("secret"), Config{Token: "secret"}, Config{Token: "secret"}, Token("secret")), err.Error()} {
		if strings.Contains(shown, "secret") || strings.Contains(shown, d1test.SchemaToken) || strings.Contains(shown, "/bridge/") {
			t.Errorf("shown: %s", shown)
		}
	}
}

// Two processes on one database make one log, and a hot row is won once.
func TestD1TwoProcesses(t *testing.T) {
	db := d1test.New(t)
	db1, db2 := openD1Test(t, db.Bridge, d1test.SchemaToken), openD1Test(t, db.REST, d1test.RESTToken)
	if db1.LogID() != db2.LogID() {
		t.Fatalf("logs %s and %s", db1.LogID(), db2.LogID())
	}
	var won, acked atomic.Int64
	var wait sync.WaitGroup
	for p, s := range []*Store{db1, db2} {
		l := audit.NewLog(audit.Config{Store: s})
		defer l.Close(t.Context())
		for g := range 4 {
			wait.Go(func() {
				for i := range 6 {
					c := d1Change(fmt.Sprintf("%d-%d-%d", p, g, i))
					if i%2 == 0 {
						c = d1Change(fmt.Sprint("hot ", i))
						c.Else = &audit.Change{Entries: []audit.Entry{audittest.Denied("too late")}}
					}
					err := l.Commit(t.Context(), c)
					switch {
					case err == nil && i%2 == 0:
						won.Add(1)
						acked.Add(1)
					case err == nil, errors.Is(err, audit.ErrConflict):
						acked.Add(1)
					default:
						t.Error(err)
					}
				}
			})
		}
	}
	wait.Wait()
	if won.Load() != 3 {
		t.Errorf("three rows were won %d times", won.Load())
	}
	report, err := audit.Verify(t.Context(), db1, audit.VerifyConfig{})
	if err != nil || !report.OK() || report.Records != acked.Load() {
		t.Errorf("Verify = %+v, %v; %d were acknowledged", report, err, acked.Load())
	}
}
