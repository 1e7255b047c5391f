package guard

import (
	"bufio"
	"errors"
	"maps"
	"net"
	"net/http"
	"time"

	"github.com/kavach-dev/kavach/delegation"
)

// run calls the handler and holds its answer back until what it owes is
// discharged.
func (v *visit) run(w http.ResponseWriter, r *http.Request, next http.Handler) {
	gw := &gate{w: w, v: v, r: r, before: maps.Clone(w.Header())}
	next.ServeHTTP(gw, r)
	gw.finish()
	if v.audited && v.guard.Report != nil {
		d := v.decision(r, v.need)
		d.Allowed, d.Phase, d.Status = true, After, gw.status
		if gw.replaced != nil {
			d.Allowed, d.Reason = false, gw.replaced.refusal.Reason
			d.Dimension, d.Detail = gw.replaced.refusal.Dimension, gw.replaced.refusal.Detail
		}
		if err := v.guard.Report(r.Context(), d); err != nil {
			v.guard.Log.ErrorContext(r.Context(), "an outcome was not recorded", "error", err)
		}
	}
}

// A gate is the ResponseWriter of a guarded handler (mcp.md §2: "an answer
// whose obligations were not discharged before the first body byte or side
// effect is replaced by 403 and reported"). It has no Unwrap, which would lead
// around it.
type gate struct {
	w        http.ResponseWriter
	v        *visit
	r        *http.Request
	before   http.Header // what was set outside the handler
	status   int         // of the final header, 0 until it is written
	replaced *answer     // what was answered in place of the handler's answer
}

func (g *gate) Header() http.Header { return g.w.Header() }

func (g *gate) WriteHeader(status int) {
	if g.status != 0 {
		return
	}
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		g.w.WriteHeader(status) // informational, the answer is still to come
		return
	}
	if g.stop(status) {
		return
	}
	g.status = status
	g.w.WriteHeader(status)
}

func (g *gate) Write(p []byte) (int, error) {
	g.WriteHeader(http.StatusOK)
	if g.replaced != nil {
		return len(p), nil // swallowed
	}
	return g.w.Write(p)
}

// stop answers in place of the handler if it must not answer with the status.
func (g *gate) stop(status int) bool {
	g.v.mu.Lock()
	refused, owed := g.v.refused, ""
	if len(g.v.owed) > 0 {
		owed = g.v.owed[0]
	}
	g.v.mu.Unlock()
	switch {
	case refused != nil && (owed != "" || status < http.StatusBadRequest):
		g.replace(*refused)
	case owed != "":
		g.replace(g.unhandled(owed))
	case status >= http.StatusBadRequest:
		return false
	default:
		// Behind Authenticate the handler may have forgotten to ask Allows.
		err := g.v.pass(g.r.Context())
		if err == nil {
			return false
		}
		a := g.v.guard.answerTo(g.v, g.v.need.Scope, err)
		g.v.report(g.r, g.v.need, a)
		g.replace(a)
	}
	return true
}

// unhandled is the refusal of an answer for which nobody asked about a
// dimension that the token restricts. It is the handler's fault.
func (g *gate) unhandled(dimension string) answer {
	refusal := &delegation.Refusal{
		Reason: delegation.ConstraintViolated, Dimension: dimension, Part: -1, Detail: "unhandled:" + dimension,
	}
	a := g.v.guard.answerTo(g.v, g.v.need.Scope, refusal)
	g.v.report(g.r, g.v.need, a)
	g.v.guard.Log.ErrorContext(g.r.Context(), "a handler answered without asking about a dimension it declared",
		"dimension", dimension, "path", g.r.URL.Path)
	return a
}

func (g *gate) replace(a answer) {
	h := g.w.Header()
	clear(h)
	maps.Copy(h, g.before)
	g.status, g.replaced = a.status, &a
	a.write(g.w)
}

// finish answers if the handler did not.
func (g *gate) finish() {
	if g.status == 0 && !g.stop(http.StatusOK) {
		g.status = http.StatusOK
	}
}

// FlushError is for http.ResponseController; flushing sends the header.
func (g *gate) FlushError() error {
	g.WriteHeader(http.StatusOK)
	if g.replaced != nil {
		return nil
	}
	return http.NewResponseController(g.w).Flush()
}

// Flush implements http.Flusher.
func (g *gate) Flush() { _ = g.FlushError() }

// errHeld: a hijacked connection would leave the guard's sight.
var errHeld = errors.New("guard: the handler still owes a question about the token")

// Hijack hands the connection over once nothing is owed.
func (g *gate) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	g.v.mu.Lock()
	held := len(g.v.owed) > 0 || g.v.refused != nil
	g.v.mu.Unlock()
	if held || g.replaced != nil {
		return nil, nil, errHeld
	}
	if err := g.v.pass(g.r.Context()); err != nil {
		return nil, nil, err
	}
	conn, rw, err := http.NewResponseController(g.w).Hijack()
	if err == nil && g.status == 0 {
		g.status = http.StatusSwitchingProtocols
	}
	return conn, rw, err
}

// SetReadDeadline is for http.ResponseController.
func (g *gate) SetReadDeadline(t time.Time) error {
	return http.NewResponseController(g.w).SetReadDeadline(t)
}

// SetWriteDeadline is for http.ResponseController.
func (g *gate) SetWriteDeadline(t time.Time) error {
	return http.NewResponseController(g.w).SetWriteDeadline(t)
}

// EnableFullDuplex is for http.ResponseController.
func (g *gate) EnableFullDuplex() error {
	return http.NewResponseController(g.w).EnableFullDuplex()
}
