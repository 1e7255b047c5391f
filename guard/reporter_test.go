package guard_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
)

func TestReporterTells(t *testing.T) {
	w, l := newWorld(t), newFakeLog(t)
	r := w.reporter(l, nil)
	h := w.reporting(r, http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		if guard.Resource(req.Context(), strings.TrimPrefix(req.URL.Path, "/api/")) == nil {
			_, _ = rw.Write([]byte("diff"))
		}
	}), func(c *guard.Config) { c.Need.Later = []string{delegation.DimensionResources} })
	leaf := w.root(limited(delegation.Limits{Resources: []string{"other"}}))
	proof := leaf.proof()
	if got := do(h, leaf.send(proof)); got.status != 403 {
		t.Fatalf("%+v", got)
	}
	plain := w.token()
	if got := do(h, bearer(plain)); got.status != 200 {
		t.Fatalf("%+v", got)
	}
	w.advance(10 * time.Minute)
	foreign := w.token(func(c *delegation.Claims) { c.Audience = []string{"https://wiki.example"} })
	for _, req := range []*http.Request{leaf.send(leaf.proof(func(p *agent.Proof) { p.IssuedAt = w.clock() })), bearer(plain), bearer(foreign), request(), bearer("x")} {
		if got := do(h, req); got.status != 401 {
			t.Fatalf("%+v", got)
		}
	}
	closed(t, r)

	allowed := l.with(guard.ActionAccess, "allowed")
	if len(allowed) != 2 {
		t.Fatalf("%+v", allowed)
	}
	if e := allowed[0]; e.Credential != leaf.token || e.Proof != proof || e.Method != "GET" || e.URL != resource+"/diff" || e.Resource != resource ||
		e.Observed != start.UnixMilli() || e.Detail.Method != "GET" || e.LID != "" {
		t.Errorf("a bound token: %+v", e)
	}
	if e := allowed[1]; e.Credential != plain || e.Proof != "" || e.URL != "" {
		t.Errorf("a bearer token: %+v", e)
	}
	denied := l.with(guard.ActionAccess, "denied")
	if len(denied) != 6 {
		t.Fatalf("%+v", denied)
	}
	byReason := map[string]told{}
	for _, e := range denied {
		byReason[e.Reason+e.LID] = e
	}
	// The question that was refused belongs to the request that was let in.
	if e := byReason["constraint_violated"]; e.Detail.Of != allowed[0].ID || e.Resource != resource+"/diff" || e.Detail.Dimension != "resources" || e.Proof != proof {
		t.Errorf("%+v", e)
	}
	// A chain that has run out goes with its proof; everything else that is not
	// genuine here is only named.
	if e := byReason["expired"]; e.Credential != leaf.token || e.Proof == "" || e.Proof == proof {
		t.Errorf("%+v", e)
	}
	for key, token := range map[string]string{"expired": plain, "audience_mismatch": foreign} {
		parts, err := delegation.Inspect(token)
		if err != nil {
			t.Fatal(err)
		}
		if e, there := byReason[key+parts[0].LID]; !there || e.Credential != "" || e.Proof != "" {
			t.Errorf("%s: %+v", key, e)
		}
	}
	for _, key := range []string{"no_credentials", "malformed"} {
		if e, there := byReason[key]; !there || e.Credential != "" || e.Resource != resource {
			t.Errorf("%s: %+v", key, e)
		}
	}
}

// The log is away: what is allowed waits on the disk, also for the next process,
// and what lies there is of no use to a thief.
func TestReporterSurvives(t *testing.T) {
	w, l := newWorld(t), newFakeLog(t)
	dir := filepath.Join(t.TempDir(), "reports")
	file := filepath.Join(dir, "reports.jsonl")
	spilling := func(c *guard.ReporterConfig) { c.SpillDir = dir }
	r := w.reporter(l, spilling)
	h := w.reporting(r, ok, nil)
	l.say(always(503))
	leaf, plain := w.root(), w.token()
	for i := range 5 {
		if got := do(h, leaf.send(leaf.proof())); got.status != 200 {
			t.Fatalf("%+v", got)
		}
		if got := do(h, bearer(plain)); got.status != 200 {
			t.Fatalf("%+v", got)
		}
		if i == 0 {
			until(t, "the log is found to be away", func() bool { text, _ := os.ReadFile(file); return len(text) > 0 })
		}
	}
	do(h, bearer("x")) // refusals do not wait on the disk
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	if err := r.Report(context.Background(), guard.Decision{Request: request(), Allowed: true}); err == nil {
		t.Error("a closed reporter takes entries")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	signature := plain[strings.LastIndexByte(plain, '.'):]
	if n := strings.Count(string(text), "\n"); n != 11 || contains(string(text), plain, signature) || !contains(string(text), leaf.token) {
		t.Errorf("%d lines on the disk:\n%s", n, text)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	// A crash left half a line, and somebody's editor one that is nothing.
	text = append([]byte("nothing\n"), text...)
	if err := os.WriteFile(file, append(text, `{"id":"0190aaaa`...), 0o600); err != nil {
		t.Fatal(err)
	}
	r = w.reporter(l, spilling) // the log is still away
	if got := do(w.reporting(r, ok, nil), leaf.send(leaf.proof())); got.status != 200 {
		t.Fatalf("%+v", got)
	}
	l.say(nil)
	until(t, "everything is delivered", func() bool { return len(l.with(guard.ActionAccess, "allowed")) == 11 })
	until(t, "the file is empty", func() bool { info, err := os.Stat(file); return err == nil && info.Size() == 0 })
	closed(t, r)
	if dropped := l.with(guard.ActionDropped, "failed"); len(dropped) != 1 || dropped[0].Detail.Count != 1 {
		t.Errorf("what could not be read is not told: %+v", dropped)
	}
	if summary := l.with(guard.ActionSummary, "denied"); len(summary) != 1 || summary[0].Detail.Count != 1 || summary[0].Reason != "malformed" {
		t.Errorf("%+v", summary)
	}
	lids := 0
	for _, e := range l.with(guard.ActionAccess, "allowed") {
		if e.LID != "" && e.Credential == "" {
			lids++
		}
	}
	if lids != 5 {
		t.Errorf("%d bearer tokens are named", lids)
	}
}

// Nobody is let in without a place for the record.
func TestReporterFull(t *testing.T) {
	for name, change := range map[string]func(*guard.ReporterConfig){
		"memory": func(c *guard.ReporterConfig) { c.Queue = 4 },
		"disk": func(c *guard.ReporterConfig) {
			c.Queue, c.SpillBytes, c.SpillDir = 4, 2000, t.TempDir()
		},
	} {
		w, l := newWorld(t), newFakeLog(t)
		l.hold = make(chan struct{})
		r := w.reporter(l, change)
		ran := 0
		h := w.reporting(r, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { ran++ }), nil)
		passed, refused := 0, 0
		for refused < 3 {
			switch got := do(h, bearer(w.token())); got.status {
			case 200:
				passed++
			case 503:
				refused++
			default:
				t.Fatalf("%s: %+v", name, got)
			}
			if passed > 50 {
				t.Fatalf("%s: nothing is full", name)
			}
		}
		if passed < 4 || ran != passed {
			t.Errorf("%s: %d passed, %d ran", name, passed, ran)
		}
		close(l.hold)
		until(t, "room again", func() bool { return do(h, bearer(w.token())).status == 200 })
		closed(t, r)
		if n := len(l.with(guard.ActionAccess, "allowed")); n != ran {
			t.Errorf("%s: %d of %d are in the log", name, n, ran)
		}
	}
}

// Refusals never stop a request, and none is lost without a trace.
func TestReporterCountsRefusals(t *testing.T) {
	w, l := newWorld(t), newFakeLog(t)
	l.hold = make(chan struct{})
	r := w.reporter(l, func(c *guard.ReporterConfig) { c.Queue = 20 })
	h := w.reporting(r, ok, func(c *guard.Config) { c.Need.Request.Scope = delegation.AllOf("repository:admin") })
	a, b := w.token(), w.token()
	for range 50 {
		for _, token := range []string{a, b} {
			if got := do(h, bearer(token)); got.status != 403 {
				t.Fatalf("%+v", got)
			}
		}
	}
	close(l.hold)
	closed(t, r)
	whole, counted := map[string]int64{}, map[string]int64{}
	for _, e := range l.with(guard.ActionAccess, "denied") {
		parts, err := delegation.Inspect(e.Credential)
		if err != nil {
			t.Fatal(err)
		}
		whole[parts[0].LID]++
	}
	for _, e := range l.with(guard.ActionSummary, "denied") {
		if e.Reason != "scope_not_granted" || e.Detail.First == 0 || e.Detail.Last < e.Detail.First || e.Resource != resource {
			t.Errorf("%+v", e)
		}
		counted[e.LID] += e.Detail.Count
	}
	for _, token := range []string{a, b} {
		parts, err := delegation.Inspect(token)
		if err != nil {
			t.Fatal(err)
		}
		if lid := parts[0].LID; whole[lid]+counted[lid] != 50 || counted[lid] == 0 {
			t.Errorf("%d whole, %d counted", whole[lid], counted[lid])
		}
	}

	// Strangers are counted beyond ten a window although there is room, each
	// address for itself; a stolen proof used again is never only counted.
	w, l = newWorld(t), newFakeLog(t)
	r = w.reporter(l, func(c *guard.ReporterConfig) {
		c.Source = func(r *http.Request) string { return r.Header.Get("X-From") }
	})
	h = w.reporting(r, ok, nil)
	for range 30 {
		for _, from := range []string{"a", "b"} {
			req := request()
			req.Header.Set("X-From", from)
			do(h, req)
		}
	}
	leaf := w.root()
	proof := leaf.proof()
	for range 30 {
		do(h, leaf.send(proof))
	}
	w.advance(2 * time.Minute)
	until(t, "the window ends", func() bool { return len(l.with(guard.ActionSummary, "denied")) == 2 })
	closed(t, r)
	replays := 0
	for _, e := range l.with(guard.ActionAccess, "denied") {
		if e.Reason == "replayed" {
			replays++
		}
	}
	if n := len(l.with(guard.ActionAccess, "denied")); n != 20+29 || replays != 29 {
		t.Errorf("%d whole, %d replays", n, replays)
	}
	for _, e := range l.with(guard.ActionSummary, "denied") {
		if e.Detail.Count != 20 || e.Reason != "no_credentials" {
			t.Errorf("%+v", e)
		}
	}
}

// Any number of requests while the log comes and goes and loses answers: what
// was let in is there once.
func TestReporterRace(t *testing.T) {
	w, l := newWorld(t), newFakeLog(t)
	r := w.reporter(l, func(c *guard.ReporterConfig) { c.SpillDir, c.Queue = t.TempDir(), 64 })
	var mu sync.Mutex
	ran := 0
	h := w.reporting(r, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		ran++
	}), nil)
	posts := 0
	l.say(func([]told) (int, int) {
		if posts++; posts%3 == 0 {
			return 503, -1
		}
		return 0, -1
	})
	l.lose = 3
	server := httptest.NewServer(h)
	defer server.Close()
	good, bad := w.token(), w.token(scopes("comment:write"))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 100 {
				token := good
				if i%4 == 0 {
					token = bad
				}
				req, err := http.NewRequest(http.MethodGet, server.URL+"/api/diff", nil)
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("Authorization", "Bearer "+token)
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				_ = resp.Body.Close()
			}
		})
	}
	all.Wait()
	l.say(nil)
	closed(t, r)
	if n := len(l.with(guard.ActionAccess, "allowed")); ran != 600 || n != ran {
		t.Errorf("%d ran, %d are in the log", ran, n)
	}
	refusals := int64(len(l.with(guard.ActionAccess, "denied")))
	for _, e := range l.with(guard.ActionSummary, "denied") {
		refusals += e.Detail.Count
	}
	if refusals != 200 {
		t.Errorf("%d refusals are told", refusals)
	}
}
