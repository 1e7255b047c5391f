package guard_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
)

// blank is a ResponseWriter that keeps nothing.
type blank struct{ h http.Header }

func (b blank) Header() http.Header         { return b.h }
func (b blank) Write(p []byte) (int, error) { return len(p), nil }
func (b blank) WriteHeader(int)             {}

// BenchmarkGuard shows what Require adds to a handler: "µs-added/op" is the time
// of a guarded request less that of the bare handler, both measured in the same
// run on the same request. A chain of n costs n signatures and one for the
// proof; a cached one, permitted before, that of the proof alone.
// "signatures/op" is the added time in verifications of Ed25519 alone.
func BenchmarkGuard(b *testing.B) {
	for _, c := range []struct {
		name   string
		links  int // 0: a plain token without a key
		cached bool
	}{
		{"bearer", 0, false}, {"bound-chain-of-1", 1, false}, {"bound-chain-of-3", 3, false}, {"bound-chain-of-4", 4, false},
		{"bound-chain-of-4-cached", 4, true}, {"bound-chain-of-5", 5, false},
	} {
		b.Run(c.name, func(b *testing.B) { benchmarkGuard(b, c.links, c.cached) })
	}
}

func benchmarkGuard(b *testing.B, links int, cached bool) {
	// Fewer than one key may have alive; then the guard is made anew.
	const proofs = 900
	w := newWorld(b)
	verifier := w.verifier()
	if cached {
		verifier.Cache = delegation.NewCache() // the guard fills it when it permits
	}
	cfg := guard.Config{
		Resource: resource, Verifier: verifier, Now: w.clock, Log: slog.New(slog.DiscardHandler),
		Need: guard.Need{Request: delegation.Request{
			Scope: delegation.AllOf("repository:read"), Resource: delegation.Given("pullrequest/847"),
			Tool: delegation.None[delegation.Call](), Network: delegation.None[string](), Size: delegation.None[int64](),
		}},
	}
	var requests []*http.Request
	if links == 0 {
		for range proofs {
			requests = append(requests, request("Bearer "+w.token()))
		}
	} else {
		chain := w.root(limited(delegation.Limits{Resources: []string{"pullrequest/*"}, AllowNetwork: []string{"git.internal"}}))
		for range links - 1 {
			chain = chain.derive("pullrequest/847")
		}
		for range proofs {
			requests = append(requests, chain.send(chain.proof()))
		}
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "diff") })
	out := blank{http.Header{}}

	bare := timeOf(func(n int) {
		for i := range n {
			handler.ServeHTTP(out, requests[i%len(requests)])
		}
	})
	signature := signatureTime(b)

	check(b, guard.Require(cfg)(handler), requests[0])
	guarded, i := guard.Require(cfg)(handler), 0
	b.ReportAllocs()
	for b.Loop() {
		if i == len(requests) {
			guarded, i = guard.Require(cfg)(handler), 0
		}
		guarded.ServeHTTP(out, requests[i])
		i++
	}
	added := float64(b.Elapsed())/float64(b.N) - float64(bare)
	b.ReportMetric(added/float64(time.Microsecond), "µs-added/op")
	b.ReportMetric(added/float64(signature), "signatures/op")
}

// check makes sure that what is measured is a request that passes.
func check(b *testing.B, h http.Handler, r *http.Request) {
	b.Helper()
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, r)
	if rec.Code != http.StatusOK {
		b.Fatalf("%d %s", rec.Code, rec.Body)
	}
}

func signatureTime(b *testing.B) time.Duration {
	key, err := agent.GenerateKey()
	if err != nil {
		b.Fatal(err)
	}
	message := make([]byte, 1200)
	sig, err := key.Sign(message)
	if err != nil {
		b.Fatal(err)
	}
	return timeOf(func(n int) {
		for range n {
			if !key.Public().Verify(message, sig) {
				b.Fatal("a signature does not verify")
			}
		}
	})
}

// timeOf returns how long one of n runs takes, for an n that takes a while.
func timeOf(run func(n int)) time.Duration {
	n := 1
	for {
		began := time.Now()
		run(n)
		if took := time.Since(began); took > 200*time.Millisecond {
			return took / time.Duration(n)
		}
		n *= 4
	}
}
