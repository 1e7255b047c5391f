package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/demo"
	"github.com/kavach-dev/kavach/guard"
)

// playDemo plays the story in this process and returns its exit status and what
// it printed.
func playDemo(t *testing.T, c demoCmd) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	w := &world{ctx: t.Context(), stdin: strings.NewReader(""), stdout: &out, stderr: &errs, now: now}
	status = w.fail(c.Run(w))
	return status, out.String(), errs.String()
}

// forgetful is a kavach whose log loses refusals.
type forgetful struct{ demo.Kavach }

func (f forgetful) Records(ctx context.Context) ([]demo.Record, error) {
	all, err := f.Kavach.Records(ctx)
	return slices.DeleteFunc(all, func(r demo.Record) bool { return r.Reason == string(delegation.Replayed) }), err
}

// damaged is a kavach whose log does not hold.
type damaged struct{ demo.Kavach }

func (d damaged) VerifyLog(ctx context.Context) (demo.Verdict, error) {
	v, err := d.Kavach.VerifyLog(ctx)
	v.OK, v.Summary = false, "1 edited"
	return v, err
}

// TestDemoOtherwise breaks one rule at a time: the story must notice, say which
// step it was, and exit 1.
func TestDemoOtherwise(t *testing.T) {
	need := func(change func(*http.Request, *guard.Need)) func(*demo.Config) {
		return func(c *demo.Config) {
			c.Need = func(r *http.Request) (guard.Need, error) {
				n, err := demo.NeedOf(r)
				change(r, &n)
				return n, err
			}
		}
	}
	for _, c := range []struct {
		name   string
		change func(*demo.Config)
		wrong  []string
	}{
		{"a write needs no more than reading", need(func(r *http.Request, n *guard.Need) {
			if n.Request.Scope.Set() && strings.HasPrefix(r.URL.Path, "/pull/847/thread/") {
				n.Request.Scope = delegation.OneOf(demo.WriteComment, demo.ReadPull)
			}
		}), []string{"write: status 201, not 403"}},
		{"every pull request is the one", need(func(r *http.Request, n *guard.Need) {
			if r.Method == http.MethodGet {
				n.Request.Resource = delegation.Given(demo.PullID(847))
			}
		}), []string{"other-pull: status 200, not 403", "refused-stopped: status 200, not 403"}},
		{"no size is too large", need(func(_ *http.Request, n *guard.Need) {
			n.Request.Size = delegation.None[int64]()
		}), []string{"size-unchecked: status 201, not 403"}},
		{"the log loses a refusal", func(c *demo.Config) { c.Kavach = forgetful{c.Kavach} },
			[]string{"replay: the log holds no record of it (git host, denied replayed)"}},
		{"the log does not hold", func(c *demo.Config) { c.Kavach = damaged{c.Kavach} },
			[]string{"the log does not hold: 1 edited"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel() // the story waits for a token to expire
			status, stdout, stderr := playDemo(t, demoCmd{change: c.change})
			if status != exitFailed || stderr != "" {
				t.Errorf("exit status %d, stderr %q", status, stderr)
			}
			_, said, _ := strings.Cut(stdout, "\nNot as told:\n")
			for _, want := range c.wrong {
				if !strings.Contains(said, "  "+want+"\n") {
					t.Errorf("it does not say %q but:\n%s", want, said)
				}
			}
		})
	}
	t.Run("for machines", func(t *testing.T) {
		status, stdout, _ := playDemo(t, demoCmd{
			jsonFlag: jsonFlag{JSON: true}, change: func(c *demo.Config) { c.Kavach = damaged{c.Kavach} },
		})
		var result demo.Result
		if err := json.Unmarshal([]byte(stdout), &result); err != nil || status != exitFailed || result.OK || len(result.Wrong) != 1 {
			t.Errorf("exit status %d, ok %v, wrong %q, %v", status, result.OK, result.Wrong, err)
		}
	})
	t.Run("no server", func(t *testing.T) {
		status, stdout, stderr := playDemo(t, demoCmd{change: func(c *demo.Config) { c.Kavach = absent{c.Kavach} }})
		if status != exitFailed || stdout != "" || stderr != "kavach: error: playing the story: starting kavach: no room\n" {
			t.Errorf("exit status %d, stdout %q, stderr %q", status, stdout, stderr)
		}
	})
}

// absent is a kavach that does not start.
type absent struct{ demo.Kavach }

func (absent) Start(context.Context) error { return errors.New("no room") }

// TestDemoServer: it serves at the same address again, also when somebody had
// the port in between, and answers nothing while it is stopped.
func TestDemoServer(t *testing.T) {
	d := &demoServer{
		w:      &world{ctx: t.Context(), stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, now: now},
		folder: filepath.Join(t.TempDir(), "data"), log: slog.New(slog.DiscardHandler),
	}
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	issuer := d.Issuer()
	records, err := d.Records(t.Context())
	if err != nil || len(records) == 0 {
		t.Errorf("%d records, %v", len(records), err)
	}
	for range 2 {
		if err := d.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	_, readErr := d.Records(t.Context())
	_, verifyErr := d.VerifyLog(t.Context())
	if !errors.Is(readErr, errStopped) || !errors.Is(verifyErr, errStopped) || !errors.Is(d.Prepare(t.Context(), nil), errStopped) {
		t.Errorf("stopped it answers %v, %v", readErr, verifyErr)
	}
	taken, err := net.Listen("tcp", strings.TrimPrefix(issuer, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(2*demoPause, func() { taken.Close() })
	if err := d.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer d.Stop()
	if d.Issuer() != issuer {
		t.Errorf("it serves at %s, not %s", d.Issuer(), issuer)
	}
	if again, err := d.Records(t.Context()); err != nil || len(again) < len(records) {
		t.Errorf("%d records, %v", len(again), err)
	}
	if v, err := d.VerifyLog(t.Context()); err != nil || !v.OK {
		t.Errorf("the log: %+v, %v", v, err)
	}
}
