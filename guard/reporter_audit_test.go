package guard_test

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
)

// audit_required: the record is durable before the action runs, or it does not
// run.
func TestReporterAuditRequired(t *testing.T) {
	w, l := newWorld(t), newFakeLog(t)
	r := w.reporter(l, func(c *guard.ReporterConfig) { c.Wait = 10 * time.Second })
	ran := 0
	status := http.StatusCreated
	handler := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		ran++
		if had := l.with(guard.ActionAccess, "allowed"); len(had) == 0 || had[len(had)-1].Detail.Phase != guard.Before {
			t.Errorf("the action runs before its record: %+v", had)
		}
		w.advance(10 * time.Minute) // it takes long
		rw.WriteHeader(status)
	})
	h := w.reporting(r, handler, nil)
	leaf := w.root(limited(delegation.Limits{AuditRequired: flag(true)}))
	proof := leaf.proof()
	l.lose = 2 // the answer is lost: it is asked again, under the same id
	if got := do(h, leaf.send(proof)); got.status != 201 || ran != 1 {
		t.Fatalf("%+v, ran %d times", got, ran)
	}
	until(t, "the outcome is told", func() bool { return len(l.all()) == 2 })
	before, after := l.all()[0], l.all()[1]
	if before.Detail.Phase != guard.Before || before.Result != "allowed" || before.Credential != leaf.token || before.Proof != proof || before.Detail.Of != "" {
		t.Errorf("%+v", before)
	}
	if after.Detail.Phase != guard.After || after.Detail.Of != before.ID || after.Detail.Status != 201 || after.Result != "allowed" ||
		after.Proof != proof || after.Requested != start.UnixMilli() || after.Observed != start.Add(10*time.Minute).UnixMilli() {
		t.Errorf("%+v", after)
	}
	leaf = w.root(limited(delegation.Limits{AuditRequired: flag(true)}), func(c *delegation.Claims) {
		c.IssuedAt, c.Expires = w.clock(), w.clock().Add(time.Minute)
	})
	status = http.StatusBadGateway
	fresh := w.clock()
	if got := do(h, leaf.send(leaf.at(fresh))); got.status != 502 {
		t.Fatalf("%+v", got)
	}
	until(t, "the outcome is told", func() bool { return len(l.all()) == 4 })
	if e := l.all()[3]; e.Result != "failed" || e.Detail.Status != 502 || e.Reason != "server_error" {
		t.Errorf("%+v", e)
	}
	closed(t, r)
}

func TestReporterAuditRequiredLogAway(t *testing.T) {
	for name, c := range map[string]struct {
		answer func([]told) (int, int)
		hold   bool
		told   bool // surely: that the action did not begin
	}{
		"down":             {always(503), false, true},
		"slow":             {nil, true, true},
		"refused":          {always(400), false, false},
		"not signed in":    {always(401), false, false},
		"not the resource": {func([]told) (int, int) { return 403, 0 }, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			w, l := newWorld(t), newFakeLog(t)
			if c.hold {
				l.hold = make(chan struct{})
			}
			l.say(c.answer)
			r := w.reporter(l, func(c *guard.ReporterConfig) { c.Wait = 200 * time.Millisecond })
			h := w.reporting(r, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the action runs without a record") }), nil)
			leaf := w.root(limited(delegation.Limits{AuditRequired: flag(true)}))
			if got := do(h, leaf.send(leaf.proof())); got.status != 503 || got.header.Get("Retry-After") == "" {
				t.Errorf("%+v", got)
			}
			l.say(nil)
			if c.hold {
				close(l.hold)
			}
			closed(t, r)
			ended := l.with(guard.ActionAccess, "failed")
			if c.told && len(ended) != 1 || len(l.all()) > 1+len(ended) {
				t.Fatalf("%+v", l.all())
			}
			if len(ended) == 1 && (ended[0].Detail.Phase != guard.After || ended[0].Detail.Status != 503 || ended[0].Detail.Of == "" || ended[0].Detail.Of == ended[0].ID) {
				t.Errorf("%+v", ended[0])
			}
		})
	}
}

// An entry that the log will never take does not hold up the others, and is
// missed.
func TestReporterDrops(t *testing.T) {
	for name, answer := range map[string]func([]told) (int, int){
		"named": func(batch []told) (int, int) {
			for i, e := range batch {
				if e.Action == "rs.poison" {
					return 400, i
				}
			}
			return 0, -1
		},
		"conflict": func(batch []told) (int, int) {
			for i, e := range batch {
				if e.Action == "rs.poison" {
					return 409, i
				}
			}
			return 0, -1
		},
		"not named": func(batch []told) (int, int) {
			for _, e := range batch {
				if e.Action == "rs.poison" {
					return 400, -1
				}
			}
			return 0, -1
		},
		"too large together": func(batch []told) (int, int) {
			if len(batch) > 3 || batch[0].Action == "rs.poison" {
				return 413, -1
			}
			for _, e := range batch {
				if e.Action == "rs.poison" {
					return 413, -1
				}
			}
			return 0, -1
		},
	} {
		w, l := newWorld(t), newFakeLog(t)
		l.hold = make(chan struct{})
		n := 0
		r := w.reporter(l, func(c *guard.ReporterConfig) {
			c.Action = func(guard.Decision) string {
				if n++; n == 7 {
					return "rs.poison"
				}
				return "rs.read"
			}
		})
		h := w.reporting(r, ok, nil)
		for range 20 {
			do(h, bearer(w.token()))
		}
		l.say(answer)
		close(l.hold)
		until(t, name+": the others are delivered", func() bool { return len(l.with("rs.read", "allowed")) == 19 })
		closed(t, r)
		if dropped := l.with(guard.ActionDropped, "failed"); len(dropped) != 1 || dropped[0].Detail.Count != 1 {
			t.Errorf("%s: %+v", name, dropped)
		}
	}
	// A redirect would carry chains elsewhere.
	w, l, elsewhere := newWorld(t), newFakeLog(t), newFakeLog(t)
	l.say(always(503))
	r := w.reporter(l, func(c *guard.ReporterConfig) {
		c.URL = redirecting(t, elsewhere.url)
	})
	do(w.reporting(r, ok, nil), bearer(w.token()))
	ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
	defer cancel()
	if err := r.Close(ctx); !errors.Is(err, guard.ErrReport) {
		t.Errorf("a lost entry is not told: %v", err)
	}
	if elsewhere.posts != 0 {
		t.Error("the reporter follows a redirect")
	}
}
