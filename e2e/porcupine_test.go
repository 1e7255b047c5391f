package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// histories records what many hands do with many grants at once.
type histories struct {
	t         *testing.T
	server    *server
	processes []*server
	owner     *codeClient
	began     time.Time

	mu     sync.Mutex
	record []porcupine.Operation
	texts  map[string]string // short names of tokens, for the model, and the tokens
	used   map[string]bool   // of those, what was used, as far as was heard
	lost   int
}

// linearizable lets six hands work on each of so many grants, each hand at a
// process of its own choice, and checks what was recorded. It returns that.
func linearizable(t *testing.T, s *server, processes []*server, grants int, reuseEnds bool) *histories {
	t.Helper()
	h := &histories{t: t, server: s, processes: processes, owner: s.codeClient(t, fmt.Sprint("histories-", reuseEnds)), began: time.Now(), texts: map[string]string{}, used: map[string]bool{}}
	people := make([]*person, 4)
	for i := range people {
		people[i] = newPerson(t, "dev", "dev")
	}
	var all sync.WaitGroup
	next := make(chan int)
	for _, who := range people {
		all.Go(func() {
			for grant := range next {
				h.grant(grant, who)
			}
		})
	}
	for grant := range grants {
		next <- grant
	}
	close(next)
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
	h.check(t, h.record, reuseEnds, porcupine.Ok)
	return h
}

// check holds a history to the model.
func (h *histories) check(t *testing.T, history []porcupine.Operation, reuseEnds bool, want porcupine.CheckResult) {
	t.Helper()
	model := grantModel(reuseEnds)
	result := porcupine.CheckOperationsTimeout(model, history, 2*time.Minute)
	if result == want {
		return
	}
	t.Errorf("the history is %s, want %s", result, want)
	if want != porcupine.Ok {
		return
	}
	for _, part := range model.Partition(history) {
		if porcupine.CheckOperationsTimeout(model, part, time.Minute) == porcupine.Ok {
			continue
		}
		slices.SortFunc(part, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
		for _, o := range part {
			t.Logf("%8.2f–%8.2f ms: %s", float64(o.Call)/1e6, float64(o.Return)/1e6, model.DescribeOperation(o.Input, o.Output))
		}
		break
	}
}

// do records an invocation around what it does.
func (h *histories) do(hand int, a asked, act func(*http.Client) (heardBack, error)) heardBack {
	client := h.processes[rand.IntN(len(h.processes))].client()
	h.mu.Lock()
	a.Late = a.Op == "refresh" && h.used[a.Token]
	h.mu.Unlock()
	call := time.Since(h.began)
	got, err := act(client)
	end := time.Since(h.began)
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.t.Logf("%s: %v", a.Op, err)
		h.lost++
		got, end = heardBack{Lost: true}, 1<<62 // it may yet happen
	}
	if a.Op == "refresh" && got.OK {
		h.used[a.Token] = true
	}
	h.record = append(h.record, porcupine.Operation{ClientId: hand, Input: a, Call: int64(call), Output: got, Return: int64(end)})
	return got
}

// named gives what a server handed out a short name.
func (h *histories) named(kind, text string) string {
	if text == "" {
		return ""
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	name := fmt.Sprint(kind, len(h.texts))
	h.texts[name] = text
	return name
}

func (h *histories) text(name string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.texts[name]
}

// known is what the hands on one grant have seen of it.
type known struct {
	mu   sync.Mutex
	list []string
}

func (k *known) add(names ...string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, name := range names {
		if name != "" {
			k.list = append(k.list, name)
		}
	}
}

// pick is the newest of a kind, now and then an older one; "" if there is none.
func (k *known) pick(kind string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var of []string
	for _, name := range k.list {
		if strings.HasPrefix(name, kind) {
			of = append(of, name)
		}
	}
	switch {
	case len(of) == 0:
		return ""
	case rand.IntN(4) == 0:
		return of[rand.IntN(len(of))]
	}
	return of[len(of)-1]
}

// grant is the whole life of one.
func (h *histories) grant(grant int, who *person) {
	r := h.owner.request("kavach:verify", nil)
	seen := &known{}
	issued := h.do(0, asked{Grant: grant, Op: "issue"}, func(*http.Client) (heardBack, error) {
		back, err := who.authorize(r.url, choice{})
		if err != nil {
			return heardBack{}, err
		}
		code := back.Query().Get("code")
		if code == "" {
			return heardBack{}, fmt.Errorf("no code: %s", back.Query().Get("error"))
		}
		return heardBack{OK: true, Access: h.named("code", code)}, nil
	})
	if !issued.OK {
		return
	}
	seen.add(issued.Access)
	var hands sync.WaitGroup
	for hand := range 6 {
		hands.Go(func() {
			for i := range 7 {
				h.act(grant, hand, seen, r.verifier, i)
			}
		})
	}
	hands.Wait()
}

// act does one thing with a grant. The first thing every hand does is to redeem.
func (h *histories) act(grant, hand int, seen *known, verifier string, i int) {
	a := asked{Grant: grant}
	switch n := rand.IntN(100); {
	case i == 0 || n < 5:
		a.Op, a.Token = "redeem", seen.pick("code")
	case n < 45:
		a.Op, a.Token = "refresh", seen.pick("refresh")
	case n < 50 && i > 3:
		a.Op, a.Token = "revoke", seen.pick("refresh")
	case n < 75:
		a.Op, a.Token = "introspect", seen.pick("access")
	default:
		a.Op, a.Token = "introspect", seen.pick("refresh")
	}
	if a.Token == "" {
		time.Sleep(5 * time.Millisecond)
		return
	}
	text := h.text(a.Token)
	token := func(form url.Values) func(*http.Client) (heardBack, error) {
		return func(c *http.Client) (heardBack, error) {
			got, err := post(c, h.server.Issuer+"/oauth/token", form, h.owner.basic())
			switch {
			case err != nil:
				return heardBack{}, err
			case got.Status == http.StatusServiceUnavailable:
				return heardBack{}, fmt.Errorf("%d", got.Status)
			case got.Status != http.StatusOK && got.Error != "invalid_grant":
				h.t.Errorf("%s: %+v", a.Op, got)
			}
			return heardBack{OK: got.Status == http.StatusOK, Access: h.named("access", got.Access), Refresh: h.named("refresh", got.Refresh)}, nil
		}
	}
	var act func(*http.Client) (heardBack, error)
	switch a.Op {
	case "redeem":
		act = token(url.Values{"grant_type": {"authorization_code"}, "redirect_uri": {h.owner.Redirect}, "code": {text}, "code_verifier": {verifier}})
	case "refresh":
		act = token(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {text}})
	case "revoke":
		act = func(c *http.Client) (heardBack, error) {
			got, err := post(c, h.server.Issuer+"/oauth/revoke", url.Values{"token": {text}}, h.owner.basic())
			if err == nil && got.Status != http.StatusOK {
				err = fmt.Errorf("%d", got.Status)
			}
			return heardBack{OK: true}, err
		}
	case "introspect":
		act = func(c *http.Client) (heardBack, error) {
			var answer struct{ Active bool }
			request, _ := http.NewRequestWithContext(h.t.Context(), "POST", h.server.Issuer+"/oauth/introspect", strings.NewReader(url.Values{"token": {text}}.Encode()))
			request.Header = h.owner.basic()
			request.Header.Set("Content-Type", formType)
			response, err := c.Do(request)
			if err != nil {
				return heardBack{}, err
			}
			defer response.Body.Close()
			if response.StatusCode != http.StatusOK {
				return heardBack{}, fmt.Errorf("%d", response.StatusCode)
			}
			err = json.NewDecoder(response.Body).Decode(&answer)
			return heardBack{OK: answer.Active}, err
		}
	}
	got := h.do(hand, a, act)
	seen.add(got.Access, got.Refresh)
}

// TestLinearizable is E27: whatever six hands do at once with one grant can be
// put into one order in which a single register would have answered the same.
func TestLinearizable(t *testing.T) {
	for _, reuseEnds := range []bool{true, false} {
		replay := map[bool]string{true: "0s", false: "10m"}[reuseEnds]
		flags := append([]string{"--refresh-replay", replay}, loadFlags...)
		for name, begin := range map[string]func() (*server, []*server){
			"SQLite, two processes": func() (*server, []*server) {
				s := startIn(t, site{}, flags...)
				return s, []*server{s, s.beside(t, flags...)}
			},
			"PostgreSQL, three replicas": func() (*server, []*server) {
				s := startReplicas(t, flags...)
				return s, s.replicas
			},
		} {
			t.Run(name+", replay "+replay, func(t *testing.T) {
				s, processes := begin()
				h := linearizable(t, s, processes, times(15, 300), reuseEnds)
				wins, ops := map[string]int{}, map[string]int{}
				for _, o := range h.record {
					ops[o.Input.(asked).Op]++
					if o.Output.(heardBack).OK {
						wins[o.Input.(asked).Op]++
					}
				}
				t.Logf("E27: %d invocations on %d grants linearizable, %d without answer; asked %v, of which yes %v", len(h.record), times(15, 300), h.lost, ops, wins)
				h.mutated(t, reuseEnds)
			})
		}
	}
}

// mutated: the same history with one lie in it is rejected, so the checker sees
// what it is there for.
func (h *histories) mutated(t *testing.T, reuseEnds bool) {
	used := map[string]int64{} // tokens that were used, and since when
	for _, o := range h.record {
		if a := o.Input.(asked); o.Output.(heardBack).OK && (a.Op == "redeem" || a.Op == "refresh") {
			used[a.Token] = o.Return
		}
	}
	for name, lie := range map[string]struct {
		op     string
		told   bool // what was said
		claims heardBack
	}{
		"a code is redeemed twice":             {"redeem", false, heardBack{OK: true, Access: "access-lie", Refresh: "refresh-lie"}},
		"a code that was good is refused":      {"redeem", true, heardBack{}},
		"a refresh token is used twice":        {"refresh", false, heardBack{OK: true, Access: "access-lie", Refresh: "refresh-lie"}},
		"a used refresh token is still active": {"introspect", false, heardBack{OK: true}},
	} {
		at := slices.IndexFunc(h.record, func(o porcupine.Operation) bool {
			a, got := o.Input.(asked), o.Output.(heardBack)
			since, was := used[a.Token]
			return a.Op == lie.op && !got.Lost && got.OK == lie.told && was && (a.Op != "introspect" || o.Call > since)
		})
		if at < 0 {
			t.Errorf("there is nothing to lie about: %s", name)
			continue
		}
		history := slices.Clone(h.record)
		history[at].Output = lie.claims
		h.check(t, history, reuseEnds, porcupine.Illegal)
	}
}
