package guard_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
)

func calls(n int64) delegation.Limits { return delegation.Limits{MaxCalls: &n} }

// limit hands b on with limits.
func (b bound) limit(l delegation.Limits) bound {
	b.w.t.Helper()
	key := newKey(b.w.t)
	derived, err := delegation.Derive(b.token, b.key, key.Public(), delegation.Narrow{
		ClientID: "reviewer", Scopes: []string{"repository:read"}, Limits: l,
	}, b.w.clock())
	if err != nil {
		b.w.t.Fatal(err)
	}
	return bound{b.w, derived.Chain, key}
}

func (w *world) counted() guard.Config {
	cfg := w.config()
	cfg.Counters = guard.NewCounters(guard.CountersConfig{Now: w.clock})
	return cfg
}

// spend sends n requests and says how many passed.
func (b bound) spend(t *testing.T, handler http.Handler, n int) (passed int) {
	t.Helper()
	for range n {
		got := do(handler, b.send(b.proof()))
		switch {
		case got.status == 200:
			passed++
		case got.status != 403 || got.code != "constraint_violated":
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
	return passed
}

// TestCounters: a budget lasts for so many calls, and without a counter for none.
func TestCounters(t *testing.T) {
	w := newWorld(t)
	b := w.root(limited(calls(3)))
	handler := guard.Require(w.counted())(ok)
	if passed := b.spend(t, handler, 5); passed != 3 {
		t.Errorf("%d calls of 3", passed)
	}
	d := w.decided()
	if last := d[len(d)-1]; last.Reason != delegation.ConstraintViolated || last.Dimension != delegation.DimensionCalls {
		t.Errorf("%+v", last)
	}
	// A bearer token has a budget, too.
	plain := w.token(limited(calls(1)))
	for i, status := range []int{200, 403} {
		if got := do(handler, request("Bearer "+plain)); got.status != status {
			t.Errorf("%d: %d %s", i, got.status, got.body)
		}
	}
	w.decided()
	got := do(guard.Require(w.config())(ok), b.send(b.proof()))
	if d := w.decided(); got.status != 403 || got.code != "constraint_violated" || got.challenge != "" || d[0].Reason != delegation.NeedsCounter {
		t.Errorf("without a counter: %d %s, %s", got.status, got.body, d[0].Reason)
	}
}

// TestCountersBoundTheSubtree: "sibling fan-out against max_calls": however many
// children and grandchildren share a budget, it is one; and a spent child leaves
// what its parent has.
func TestCountersBoundTheSubtree(t *testing.T) {
	w := newWorld(t)
	handler := guard.Require(w.counted())(ok)
	root := w.root(limited(calls(5)))
	passed := 0
	for range 4 {
		passed += root.limit(calls(5)).spend(t, handler, 1)
		passed += root.limit(calls(2)).limit(calls(2)).spend(t, handler, 1)
	}
	if passed != 5 {
		t.Errorf("%d calls of 5", passed)
	}

	parent := w.root(limited(calls(4)))
	child := parent.limit(calls(1))
	if n := child.spend(t, handler, 3); n != 1 {
		t.Errorf("the child: %d calls of 1", n)
	}
	// All or none: the child's two refused calls cost the parent nothing.
	if n := parent.spend(t, handler, 5); n != 3 {
		t.Errorf("the parent: %d calls of the 3 that are left", n)
	}
	// An exhausted ancestor leaves nothing to anybody.
	fresh := parent.limit(calls(4))
	if n := fresh.spend(t, handler, 1); n != 0 {
		t.Error("below an exhausted ancestor a call passed")
	}
}

// TestCountersKnowLinksByLID: a jti is chosen by whoever signs; a copied one
// spends nothing of the link that it was copied from.
func TestCountersKnowLinksByLID(t *testing.T) {
	w := newWorld(t)
	handler := guard.Require(w.counted())(ok)
	named := func(c *delegation.Claims) { c.JTI = "the-same" }
	mine, yours := w.root(limited(calls(1)), named), w.root(limited(calls(1)), named)
	if n := mine.spend(t, handler, 2); n != 1 {
		t.Errorf("%d calls of 1", n)
	}
	if n := yours.spend(t, handler, 1); n != 1 {
		t.Error("a stranger's token spent this one's budget")
	}
}

// TestCountersRace: of parallel calls no more than the budget pass.
func TestCountersRace(t *testing.T) {
	w := newWorld(t)
	handler := guard.Require(w.counted())(ok)
	root := w.root(limited(calls(7)))
	var passed atomic.Int64
	var all sync.WaitGroup
	for range 24 {
		child := root.limit(calls(3))
		r := child.send(child.proof())
		all.Go(func() {
			if do(handler, r).status == 200 {
				passed.Add(1)
			}
		})
	}
	all.Wait()
	if passed.Load() != 7 {
		t.Errorf("%d calls of 7", passed.Load())
	}
}

// failing is a store of counters that cannot be asked.
type failing struct{ err error }

func (f failing) Debit(context.Context, []delegation.Budget) (bool, error) { return false, f.err }

// TestCountersUnknown: a store that fails answers 503, and nothing acted.
func TestCountersUnknown(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.Counters = failing{errors.New("away")}
	ran := false
	handler := guard.Require(cfg)(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { ran = true }))
	b := w.root(limited(calls(1)))
	got := do(handler, b.send(b.proof()))
	if got.status != 503 || got.code != "temporarily_unavailable" || got.header.Get("Retry-After") == "" || ran {
		t.Errorf("%d %s, ran %v", got.status, got.body, ran)
	}
	if d := w.decided(); d[0].Reason != delegation.StatusUnknown {
		t.Errorf("%+v", d[0])
	}
	// Who has no budget does not need the store.
	free := w.root()
	if got := do(handler, free.send(free.proof())); got.status != 200 || !ran {
		t.Errorf("without a budget: %d %s", got.status, got.body)
	}
}

// TestCountersComeLast: what is refused before costs nothing; what is lost after
// is not refunded.
func TestCountersComeLast(t *testing.T) {
	w := newWorld(t)
	b := w.root(limited(delegation.Limits{MaxCalls: new(int64(2)), Resources: []string{"pr/847"}, AuditRequired: new(true)}))
	cfg := w.counted()
	cfg.NeedOf = func(r *http.Request) (guard.Need, error) {
		return guard.Need{Request: delegation.Request{
			Scope: delegation.AllOf(r.Header.Get("Scope")), Resource: delegation.Given(r.Header.Get("Resource")),
		}}, nil
	}
	handler := guard.Require(cfg)(ok)
	send := func(proof, scope, resource string) int {
		r := b.send(proof)
		r.Header.Set("Scope", scope)
		r.Header.Set("Resource", resource)
		return do(handler, r).status
	}
	used := b.proof()
	for i, c := range []struct {
		status int
		got    int
	}{
		{403, send(b.proof(), "repository:write", "pr/847")},
		{403, send(b.proof(), "repository:read", "pr/848")},
		{200, send(used, "repository:read", "pr/847")}, // the first call
		{401, send(used, "repository:read", "pr/847")}, // a replay is not one
	} {
		if c.got != c.status {
			t.Errorf("%d: %d", i, c.got)
		}
	}
	w.mu.Lock()
	w.reportErr = errors.New("the log is away")
	w.mu.Unlock()
	if status := send(b.proof(), "repository:read", "pr/847"); status != 503 { // the second
		t.Errorf("without a record: %d", status)
	}
	w.mu.Lock()
	w.reportErr = nil
	w.mu.Unlock()
	if status := send(b.proof(), "repository:read", "pr/847"); status != 403 {
		t.Errorf("a debit was refunded: %d", status)
	}
	// Where no log is configured nothing is debited either.
	other := w.root(limited(delegation.Limits{MaxCalls: new(int64(1)), AuditRequired: new(true)}))
	silent := w.config()
	silent.Report, silent.Counters = nil, cfg.Counters
	silent.Need.Request.Resource = delegation.Given("pr/847")
	if got := do(guard.Require(silent)(ok), other.send(other.proof())); got.status != 403 {
		t.Errorf("%d %s", got.status, got.body)
	}
	heard := silent
	heard.Report = w.report
	if got := do(guard.Require(heard)(ok), other.send(other.proof())); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// TestCountersWaitForTheHandler: while a question is owed nothing is debited, and
// the answer to the last one does it.
func TestCountersWaitForTheHandler(t *testing.T) {
	w := newWorld(t)
	b := w.root(limited(delegation.Limits{MaxCalls: new(int64(1)), Resources: []string{"pr/847"}}))
	cfg := w.counted()
	cfg.Need.Later = []string{delegation.DimensionResources}
	handler := guard.Require(cfg)(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		for _, id := range r.Header.Values("Resource") {
			if guard.Resource(r.Context(), id) != nil {
				return
			}
		}
		_, _ = rw.Write([]byte("done"))
	}))
	for i, c := range []struct {
		resources []string
		status    int
	}{
		{nil, 403}, {[]string{"pr/848"}, 403},
		{[]string{"pr/847", "pr/847"}, 200}, // one request is one call
		{[]string{"pr/847"}, 403},
	} {
		r := b.send(b.proof())
		r.Header["Resource"] = c.resources
		if got := do(handler, r); got.status != c.status || (got.body == "done") != (c.status == 200) {
			t.Errorf("%d: %d %s", i, got.status, got.body)
		}
	}
}

// TestCountersBehindAuthenticate: "One HTTP request or one tools/call is one
// call", so several calls in one request are several.
func TestCountersBehindAuthenticate(t *testing.T) {
	w := newWorld(t)
	b := w.root(limited(calls(3)))
	handler := guard.Authenticate(w.counted())(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		tool := delegation.None[delegation.Call]()
		if name := r.Header.Get("Tool"); name != "" {
			tool = delegation.Given(delegation.Call{Name: name, Arguments: object(t, `{}`)})
		}
		request := delegation.Request{Scope: delegation.AllOf("repository:read"), Tool: tool}
		for range 2 {
			if err := guard.Allows(r.Context(), request); err != nil {
				guard.Refuse(rw, r, request, err, nil)
				return
			}
		}
		_, _ = rw.Write([]byte("done"))
	}))
	for i, c := range []struct {
		tool   string
		status int
	}{{"", 200}, {"read", 200}, {"", 403}} { // one, two, none left
		r := b.send(b.proof())
		r.Header.Set("Tool", c.tool)
		if got := do(handler, r); got.status != c.status {
			t.Errorf("%d: %d %s", i, got.status, got.body)
		}
	}
	plain := guard.Authenticate(w.config())(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if err := guard.Allows(r.Context(), delegation.Request{Scope: delegation.NoScope()}); delegation.ReasonOf(err) != delegation.NeedsCounter {
			t.Errorf("without a counter: %v", err)
		}
	}))
	do(plain, b.send(b.proof()))
}

// TestWhatIsForgottenIsNotAsked: a request that was verified in a link's last
// moment, and asks long after it, meets a budget, and a proof, that may be
// forgotten: it is refused.
func TestWhatIsForgottenIsNotAsked(t *testing.T) {
	for name, c := range map[string]struct {
		wait   time.Duration
		status int
		reason delegation.Reason
	}{
		"in time":         {time.Second, 200, ""},
		"a proof is over": {32 * time.Second, 401, delegation.HolderBindingFailed},
	} {
		w := newWorld(t)
		b := w.root(limited(calls(1)))
		handler := guard.Authenticate(w.counted())(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			w.advance(c.wait) // a body that takes its time
			request := delegation.Request{Scope: delegation.NoScope()}
			if err := guard.Allows(r.Context(), request); err != nil {
				guard.Refuse(rw, r, request, err, nil)
			}
		}))
		got := do(handler, b.send(b.proof()))
		if got.status != c.status || c.reason != "" && w.decided()[0].Reason != c.reason {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	for wait, want := range map[time.Duration]delegation.Reason{
		20 * time.Second: delegation.ConstraintViolated, 31 * time.Second: delegation.Expired, time.Hour: delegation.Expired,
	} {
		w := newWorld(t)
		cfg := w.counted()
		token := w.token(limited(calls(1)))
		if status := do(guard.Require(cfg)(ok), request("Bearer "+token)).status; status != 200 {
			t.Fatal(status)
		}
		w.advance(4*time.Minute + 59*time.Second)
		do(guard.Authenticate(cfg)(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			w.advance(wait)
			if err := guard.Allows(r.Context(), delegation.Request{Scope: delegation.NoScope()}); delegation.ReasonOf(err) != want {
				t.Errorf("after %s: %v", wait, err)
			}
		})), request("Bearer "+token))
	}
}

// TestCountersAreBounded: memory is, by root and in all, and what is full refuses
// instead of forgetting.
func TestCountersAreBounded(t *testing.T) {
	now := start
	c := guard.NewCounters(guard.CountersConfig{Now: func() time.Time { return now }})
	debit := func(grant, lid string) (bool, error) {
		return c.Debit(context.Background(), []delegation.Budget{{LID: lid, Grant: grant, Limit: 2, Until: start.Add(time.Minute)}})
	}
	n := 0
	for ; ; n++ {
		if ok, err := debit("greedy", fmt.Sprint(n)); err != nil {
			break
		} else if !ok || n > 1<<20 {
			t.Fatalf("the %d. link: %v", n, ok)
		}
	}
	if ok, err := debit("greedy", "0"); !ok || err != nil {
		t.Errorf("a budget that is remembered: %v, %v", ok, err)
	}
	if ok, err := debit("greedy", "0"); ok || err != nil {
		t.Errorf("a budget that is spent: %v, %v", ok, err)
	}
	if ok, err := debit("modest", "x"); !ok || err != nil {
		t.Errorf("somebody else, after %d links: %v, %v", n, ok, err)
	}
	now = start.Add(time.Minute + delegation.CounterGrace)
	if ok, _ := debit("greedy", "0"); ok {
		t.Error("a spent budget was forgotten within the grace")
	}
	now = now.Add(time.Second)
	if ok, err := debit("greedy", "new"); !ok || err != nil {
		t.Errorf("after all have ended: %v, %v", ok, err)
	}
}

// TestCountersOfOneProcess: two replicas with a budget each are no budget.
func TestCountersOfOneProcess(t *testing.T) {
	w := newWorld(t)
	cfg := w.counted()
	cfg.Replicas, cfg.Replays = 2, onlyOnce{}
	defer func() {
		if recover() == nil {
			t.Error("counters in memory were taken for two replicas")
		}
	}()
	guard.Require(cfg)
}

type onlyOnce struct{}

func (onlyOnce) Once(context.Context, string, time.Time) (bool, error) { return true, nil }

// TestCountersUnasked: httptest alone would not see a debit for a request that
// never came to the handler.
func TestCountersUnasked(t *testing.T) {
	w := newWorld(t)
	b := w.root(limited(calls(1)))
	handler := guard.Require(w.counted())(ok)
	for range 3 { // without a proof nothing is spent
		r := httptest.NewRequest(http.MethodGet, resource+"/diff", nil)
		r.Header.Set("Authorization", "DPoP "+b.token)
		if got := do(handler, r); got.status != 401 {
			t.Fatalf("%d", got.status)
		}
	}
	if n := b.spend(t, handler, 1); n != 1 {
		t.Error("a request without proof spent the budget")
	}
}

// TestRootsOfAGrantShare: an agent gets as many roots as it asks for, so what it
// can fill of the memory for budgets is the share of its grant.
func TestRootsOfAGrantShare(t *testing.T) {
	w := newWorld(t)
	budget := func() delegation.Budget {
		chain, err := w.config().Verifier.Verify(w.root(limited(calls(3))).token, w.clock())
		if err != nil {
			t.Fatal(err)
		}
		return chain.Budgets()[0]
	}
	a, b := budget(), budget()
	if a.LID == b.LID || a.Grant != b.Grant || a.Grant == "" {
		t.Errorf("two roots of one grant: %+v and %+v", a, b)
	}
}
