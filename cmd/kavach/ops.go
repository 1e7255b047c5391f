package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// ops is the operations listener (design D9): loopback by default, and never
// on the public one.
type ops struct {
	metrics *metrics
	// checks are what /readyz asks, by name, in order.
	checks []readyCheck
	// draining turns /readyz to 503 before the public listener stops, so that
	// a load balancer looks elsewhere first.
	draining atomic.Bool
}

// readyCheck is one condition of being ready.
type readyCheck struct {
	name  string
	check func(context.Context) error
}

// readyTimeout bounds one /readyz.
const readyTimeout = 2 * time.Second

func (o *ops) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", o.ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(o.metrics.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// onlyHere stands before what listens on this machine alone: it refuses a name
// that merely resolves to it, under which a web page could read profiles and
// metrics (DNS rebinding).
func onlyHere(listen string, next http.Handler) http.Handler {
	if !loopbackListen(listen) {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if host != "" && !loopbackHost(host) {
			http.Error(w, "this listener is for this machine", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// readiness is the answer of /readyz.
type readiness struct {
	Ready  bool              `json:"ready"`
	Checks map[string]string `json:"checks"`
}

func (o *ops) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	answer := readiness{Ready: true, Checks: map[string]string{}}
	for _, c := range o.checks {
		if err := c.check(ctx); err != nil {
			answer.Ready, answer.Checks[c.name] = false, err.Error()
		} else {
			answer.Checks[c.name] = "ok"
		}
	}
	if o.draining.Load() {
		answer.Ready, answer.Checks["process"] = false, "draining"
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !answer.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	json.NewEncoder(w).Encode(answer)
}
