package main

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/kavach-dev/kavach/audit"
)

// metrics is what /metrics shows. Every label has a closed set of values: a
// route is the pattern it was served by, never what a caller wrote.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	inFlight prometheus.Gauge
	chores   *prometheus.CounterVec
	removed  *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kavach_http_requests_total",
			Help: "Requests on the public listener, by route, method and status code.",
		}, []string{"route", "method", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "kavach_http_request_seconds",
			Help:    "Time to answer, by route.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10},
		}, []string{"route"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kavach_http_in_flight",
			Help: "Requests being answered now.",
		}),
		chores: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kavach_housekeeping_total",
			Help: "Runs of the housekeeping, by what was done and how it went.",
		}, []string{"what", "result"}),
		removed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kavach_housekeeping_rows_total",
			Help: "Rows that had expired and were removed, by table.",
		}, []string{"table"}),
	}
	m.registry.MustRegister(m.requests, m.seconds, m.inFlight, m.chores, m.removed,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	v := buildVersion()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "kavach_build_info", Help: "1, labelled with what was built.",
		ConstLabels: prometheus.Labels{"version": v.Version, "go": v.Go},
	})
	info.Set(1)
	m.registry.MustRegister(info)
	return m
}

// watchLog adds what the audit log says of itself.
func (m *metrics) watchLog(status func() audit.Status) {
	read := func(name, help string, value func(audit.Status) float64) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help},
			func() float64 { return value(status()) }))
	}
	count := func(name, help string, value func(audit.Status) uint64) {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help},
			func() float64 { return float64(value(status())) }))
	}
	read("kavach_audit_writable", "1 while the last batch could be written, else 0: authority is not widened.",
		func(s audit.Status) float64 {
			if s.Err != nil {
				return 0
			}
			return 1
		})
	read("kavach_audit_unrecorded", "Decisions that narrowed authority and whose record waits for the log.",
		func(s audit.Status) float64 { return float64(s.Unrecorded) })
	read("kavach_audit_refusals_queued", "Refusals to unauthenticated callers waiting to be written.",
		func(s audit.Status) float64 { return float64(s.RefusalsQueued) })
	count("kavach_audit_changes_total", "Decisions committed.", func(s audit.Status) uint64 { return s.Changes })
	count("kavach_audit_batches_total", "Transactions they were committed in.", func(s audit.Status) uint64 { return s.Batches })
	count("kavach_audit_conflicts_total", "Conditions lost.", func(s audit.Status) uint64 { return s.Conflicts })
	count("kavach_audit_refusals_written_total", "Refusals written whole.", func(s audit.Status) uint64 { return s.RefusalsWritten })
	count("kavach_audit_refusals_summarised_total", "Refusals counted in summaries.", func(s audit.Status) uint64 { return s.RefusalsSummarised })
	count("kavach_audit_refusals_lost_total", "Refusals lost because the queue was full.", func(s audit.Status) uint64 { return s.RefusalsLost })
}

// watchHeld adds how many revocations this process alone enforces.
func (m *metrics) watchHeld(held func() int) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "kavach_revocations_held",
		Help: "Revocations that the database did not take: this process enforces them and tries again.",
	}, func() float64 { return float64(held()) }))
}

// measure counts and times what next answers.
func (m *metrics) measure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		m.inFlight.Inc()
		rec := &statusRecorder{ResponseWriter: w}
		defer func() {
			m.inFlight.Dec()
			route := routeLabel(r.Pattern)
			m.seconds.WithLabelValues(route).Observe(time.Since(start).Seconds())
			m.requests.WithLabelValues(route, methodLabel(r.Method), strconv.Itoa(rec.code())).Inc()
		}()
		next.ServeHTTP(rec, r)
	})
}

// routeLabel is the pattern that served a request, without its method.
func routeLabel(pattern string) string {
	if pattern == "" {
		return "none"
	}
	if _, path, ok := strings.Cut(pattern, " "); ok {
		return path
	}
	return pattern
}

// methodLabel bounds the method, which is the caller's to invent.
func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "other"
}

// statusRecorder remembers the status of an answer. Unwrap keeps flushing and
// deadlines working through it.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (r *statusRecorder) WriteHeader(status int) {
	// 1xx are announcements, not the answer.
	if r.status == 0 && status >= 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *statusRecorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Flush implements http.Flusher for handlers that ask for it by type.
func (r *statusRecorder) Flush() {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	_ = http.NewResponseController(r.ResponseWriter).Flush()
}

func (r *statusRecorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// code is the status sent, 200 if the handler wrote nothing, and a code
// outside HTTP's ranges counts as 500: the label's values stay a closed set.
func (r *statusRecorder) code() int {
	switch {
	case r.status == 0:
		return http.StatusOK
	case r.status > 599:
		return http.StatusInternalServerError
	}
	return r.status
}
