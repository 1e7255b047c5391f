package delegation_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"math/rand/v2"

	"github.com/kavach-dev/kavach/delegation"
	"pgregory.net/rapid"
)

// What the random authority of these tests is made of, beside constraints.
var (
	someScopes    = []string{"comment:write", "pullrequest:read", "repository:read", "repository:write"}
	someAudiences = []string{gitHost, mcpHost, "https://ci.example"}
	someTools     = []string{"get", "list", "merge", "constructor"}
	someResources = []string{"pr/847", "pr/848", "pr/847/files", "pr/*", "pr/847/*", "repo", "repo/*"}
	someHosts     = []string{"git.internal", "git.internal:443", "*.internal", "*.internal:443", "*.a.internal", "a.internal", "10.0.0.1", "10.0.0.1:443", "[::1]:443"}
	someIDs       = []string{"pr", "pr/", "pr/847", "pr/848", "pr/847/files", "pr/847/files/x", "repo", "repo/x", "repository", "other"}
	someTargets   = []string{"git.internal:443", "git.internal:80", "git.internal", "b.a.internal:443", "a.internal:443", "internal:443", "xgit.internal:443", "10.0.0.1:443", "[::1]:443", "[::1]:80"}
	someSizes     = []int64{0, 1, 5, 9}
	someHolders   = []holder{orchKey, reviewerKey, helperKey, p256("p256 holder"), ed("k4"), p256("k5"), ed("k6"), ed("k7"), ed("k8"), ed("k9"), p256("k10"), ed("k11")}
	somePeople    = []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}
)

func newForest(r chance) *forest {
	f := &forest{r: r, count: map[string]int{}, anchors: theAnchors}
	current := func(kid string) (delegation.Anchor, bool) { return f.anchors(kid) }
	f.cold = &delegation.Verifier{Issuer: issuer, Anchors: current}
	f.warm = &delegation.Verifier{Issuer: issuer, Anchors: current, Cache: delegation.NewCache()}
	return f
}

// try grows a forest and returns what it broke.
func (f *forest) try(steps int) error { return f.guarded(func() { f.grow(steps) }) }

func (f *forest) guarded(run func()) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case violation:
			err = fmt.Errorf("%s: %s\n%s", p.law, p.what, describe(f.judged))
		case error:
			if isRuntime(p) {
				err = fmt.Errorf("nothing panics: %v\n%s\n%s", p, describe(f.judged), debug.Stack())
				return
			}
			panic(p)
		default: // rapid's own, or a test that is broken
			panic(p)
		}
	}()
	run()
	return nil
}

func isRuntime(err error) bool {
	var wanted runtime.Error
	return errors.As(err, &wanted)
}

func describe(sheets []sheet) string {
	var b strings.Builder
	for i, s := range sheets {
		fmt.Fprintf(&b, "part %d: signed by %d, for %d, header %v\n  %s\n", i, s.by, s.to, s.header, text(s.claims))
	}
	return b.String()
}

// TestLaws: everything that judge and its like demand, of a few forests. rapid
// makes what breaks a law small.
func TestLaws(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := newForest(drawn{rt})
		if err := f.try(12); err != nil {
			rt.Fatal(err)
		}
	})
}

// The long run. By default it is one of a few seconds, whose decisions are the
// same every time.
//
//	KAVACH_LAWS=1h          how long (make laws DURATION=1h)
//	KAVACH_LAWS_SEED=n      which run; what is broken prints it
//	KAVACH_LAWS_FOREST=n    only that forest of the run
func TestLawsLong(t *testing.T) {
	seed, only := uint64(1), int64(-1)
	length, err := time.ParseDuration(env("KAVACH_LAWS", "0s"))
	if err != nil {
		t.Fatal(err)
	}
	if length > 0 {
		seed = uint64(time.Now().UnixNano())
	}
	if text := os.Getenv("KAVACH_LAWS_SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	if text := os.Getenv("KAVACH_LAWS_FOREST"); text != "" {
		if only, err = strconv.ParseInt(text, 10, 64); err != nil {
			t.Fatal(err)
		}
		grow(t, seed, only)
		return
	}
	run := run{seed: seed, until: time.Now().Add(length), least: leastForests, count: map[string]int{}, told: time.Now()}
	began := time.Now()
	run.all(t)
	run.report(t, time.Since(began))
}

// leastForests is what the default run grows; every kind occurs in it.
const (
	leastForests = 250
	forestSteps  = 80
)

func env(name, or string) string {
	if text := os.Getenv(name); text != "" {
		return text
	}
	return or
}

type run struct {
	seed  uint64
	until time.Time
	least int64
	next  atomic.Int64
	stop  atomic.Bool

	mu    sync.Mutex
	count map[string]int
	told  time.Time
}

// all grows forests on every processor.
func (r *run) all(t *testing.T) {
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for !r.stop.Load() {
				i := r.next.Add(1) - 1
				if i >= r.least && time.Now().After(r.until) {
					r.next.Add(-1)
					return
				}
				count, ok := grow(t, r.seed, i)
				if !ok {
					r.stop.Store(true)
					return
				}
				r.add(t, count)
			}
		})
	}
	workers.Wait()
}

// add takes over what one forest saw, and says every five minutes how far the
// run is.
func (r *run) add(t *testing.T, count map[string]int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for kind, n := range count {
		r.count[kind] += n
	}
	if time.Since(r.told) > 5*time.Minute {
		r.told = time.Now()
		chains, pairs := r.cases()
		t.Logf("seed %d: %d chains and %d pairs, %s to go", r.seed, chains, pairs, time.Until(r.until).Round(time.Second))
	}
}

// cases are the chains that were judged, and the pairs of constraints or tools.
func (r *run) cases() (chains, pairs int) {
	for kind, n := range r.count {
		switch {
		case strings.HasPrefix(kind, "tokens/"), kind == "refused/a byte":
			chains += n
		case strings.HasPrefix(kind, "pair/"):
			pairs += n
		}
	}
	return chains, pairs
}

// grow runs one forest of a run, and makes small what it breaks.
func grow(t *testing.T, seed uint64, i int64) (map[string]int, bool) {
	rec := &recorder{from: rand.New(rand.NewPCG(seed, uint64(i)))}
	f := newForest(rec)
	err := f.try(forestSteps)
	if err == nil {
		return f.count, true
	}
	law, _, _ := strings.Cut(err.Error(), ":")
	smallest, small := smaller(law, rec.draws)
	if small == nil {
		small = err
	}
	t.Errorf("KAVACH_LAWS_SEED=%d KAVACH_LAWS_FOREST=%d\n%v\nmade smaller, %d draws of %d:\n%v", seed, i, err, len(smallest), len(rec.draws), small)
	return nil, false
}

// report prints the cases per kind, and fails for a kind that never occurred:
// what was not tried was not shown.
func (r *run) report(t *testing.T, took time.Duration) {
	cases, pairs := r.cases()
	t.Logf("seed %d: %d forests, %d chains and %d pairs in %s on %d processors (%.0f a second)", r.seed, r.next.Load(), cases, pairs, took.Round(time.Second/10),
		runtime.GOMAXPROCS(0), float64(cases)/took.Seconds())
	for _, kind := range slices.Sorted(maps.Keys(r.count)) {
		t.Logf("%10d  %s", r.count[kind], kind)
	}
	for _, kind := range kindsWanted() {
		if r.count[kind] == 0 {
			t.Errorf("never occurred: %s", kind)
		}
	}
}

func kindsWanted() []string {
	list := []string{"cold", "refused/a byte", "alg/Ed25519", "alg/ES256", "root/Ed25519", "root/ES256", "constraint/*", "derive/made", "exchange/made", "exchange/root",
		"request/permitted", "request/refused", "exchange/request permitted", "exchange/request refused"}
	for _, o := range operations {
		list = append(list, "op/"+o.name)
	}
	for _, e := range edits {
		list = append(list, "edit/"+e.name)
	}
	for n := range 9 {
		list = append(list, "accepted/"+strconv.Itoa(n+1))
	}
	for _, kind := range someKinds {
		list = append(list, "constraint/"+kind, "edge/"+kind+" "+kind, "edge/wildcard "+kind)
	}
	for _, parent := range someKinds {
		for _, child := range someKinds {
			if parent != "wildcard" {
				list = append(list, "pair/"+parent+" "+child+" refused")
			}
			if parent == child || parent == "wildcard" || child == "exact" && (parent == "range" || parent == "one_of") {
				list = append(list, "pair/"+parent+" "+child+" covered")
			}
		}
	}
	list = append(list, "edge/range exact", "edge/one_of exact", "pair/not read", "pair/tools covered", "pair/tools refused", "call/permitted", "call/refused",
		"strict/", "strict/6b")
	for _, limit := range []string{"resources", "allow_network", "max_file_size", "max_calls", "audit_required"} {
		list = append(list, "limit/"+limit)
	}
	for _, reason := range []delegation.Reason{"", delegation.TooLarge, delegation.Malformed, delegation.BadType, delegation.AlgNotAllowed, delegation.UnknownRoot,
		delegation.SignatureInvalid, delegation.UnknownConstraint, delegation.IssuerMismatch, delegation.IssMismatch, delegation.DuplicateJTI,
		delegation.ParHashMismatch, delegation.DepthInvalid, delegation.PrincipalAltered, delegation.AudienceWidened, delegation.NotYetValid,
		delegation.OutlivesParent, delegation.Expired, delegation.NotNarrower, delegation.KeyReuse} {
		list = append(list, "reason/"+string(reason))
	}
	return list
}
