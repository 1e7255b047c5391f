package mcp

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"runtime/debug"

	mcpgo "github.com/mark3labs/mcp-go/mcp"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/guard"
)

const (
	corsHeaders = "Authorization, Content-Type, Accept, DPoP, AAT-Proof, MCP-Protocol-Version, Mcp-Method, Mcp-Name, Mcp-Session-Id, Last-Event-ID"
	corsExposed = "WWW-Authenticate, Mcp-Session-Id, MCP-Protocol-Version, DPoP-Nonce"
)

// Handler serves the endpoint. The order is mcp.md §1's: body limit, CORS,
// Origin, Host, guard, method, then the message.
func (s *Server) Handler() http.Handler {
	guarded := guard.Authenticate(guard.Config{
		Resource: s.cfg.Issuer + Path, Verifier: s.cfg.Verifier, Revocations: s.cfg.Revocations,
		SharedAudience: true, Baseline: s.cfg.Baseline,
		DPoPForWrites: true, // TLS ends here (delegation.md §6)
		MCP:           true, // chain and AAT proof may come in _meta
		Replays:       s.cfg.Replays, Nonces: s.cfg.Nonces, Counters: s.cfg.Counters, Report: s.report, Now: s.cfg.Now, Log: s.cfg.Log,
	})(http.HandlerFunc(s.serveAuthenticated))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if r.ContentLength > maxBody {
			s.turnAway(w, r, http.StatusRequestEntityTooLarge, "too_large", "the body is larger than 1 MiB")
			return
		}
		if r.Body != nil {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		}
		origin, ok := s.hosts.origin(r.Header)
		if ok {
			allowOrigin(w.Header(), origin)
		}
		if r.Method == http.MethodOptions && ok && s.hosts.host(r) {
			preflight(w)
			return
		}
		if !ok {
			s.turnAway(w, r, http.StatusForbidden, "origin_not_allowed", "this origin is not allowed")
			return
		}
		if !s.hosts.host(r) {
			s.turnAway(w, r, http.StatusForbidden, "host_not_allowed", "this host name is not allowed")
			return
		}
		guarded.ServeHTTP(w, r)
	})
}

// allowOrigin lets the pages of one allowed origin read the answer. There are
// no cookies here, so no credentials mode is offered.
func allowOrigin(h http.Header, origin string) {
	h.Add("Vary", "Origin")
	if origin != "" {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Expose-Headers", corsExposed)
	}
}

func preflight(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Allow", "POST, OPTIONS")
	h.Set("Access-Control-Allow-Methods", "POST, OPTIONS")
	h.Set("Access-Control-Allow-Headers", corsHeaders)
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
}

// serveAuthenticated is what guard lets through: the token is genuine, for this
// resource, unexpired and not revoked. What the call needs is decided here.
func (s *Server) serveAuthenticated(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", "POST, OPTIONS")
		refuse(w, http.StatusMethodNotAllowed, "invalid_request", "send JSON-RPC messages with POST")
		return
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, "invalid_request", "the content type must be application/json")
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			refuse(w, http.StatusRequestEntityTooLarge, "invalid_request", "the body is larger than 1 MiB")
		} else {
			refuse(w, http.StatusBadRequest, "invalid_request", "the body could not be read")
		}
		return
	}
	m, failure := parseMessage(body)
	if failure == nil {
		m, failure = m.bare(body)
	}
	if failure == nil {
		failure = m.agree(r.Header)
	}
	if failure != nil {
		s.fail(w, r, &call{message: m, chain: guard.From(r.Context())}, failure)
		return
	}
	if m.notification {
		// None of them asks for anything here, and one of them, cancelled, would
		// be matched by the library by its request id alone: in a server without
		// sessions it would cancel a stranger's call. Closing the stream cancels.
		w.WriteHeader(http.StatusAccepted)
		return
	}
	c := &call{message: m, chain: guard.From(r.Context()), credential: guard.Credential(r.Context())}
	if !s.authorize(w, r, c) {
		return
	}
	if failure := m.decodes(); failure != nil {
		s.fail(w, r, c, failure)
		return
	}
	s.forward(w, r, c)
}

// turnAway refuses somebody who was not asked who they are.
func (s *Server) turnAway(w http.ResponseWriter, r *http.Request, status int, reason, description string) {
	s.cfg.Refusals.Refuse(s.cfg.Source(r), Path, audit.Entry{
		Action: audit.TokenRefuse, Result: audit.Denied, Reason: reason, Resource: s.cfg.Issuer + Path, Detail: map[string]any{"via": "mcp"},
	})
	refuse(w, status, "invalid_request", description)
}

// fail answers a message that cannot be served, after recording that.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, c *call, failure *rpcError) {
	e := s.entry(c, audit.TokenRefuse, audit.Denied)
	e.Reason, e.Resource = failure.reason(), s.cfg.Issuer+Path
	if err := s.record(r.Context(), e); err != nil {
		unavailable(w)
		return
	}
	failure.write(w, c.message.id)
}

// forward hands the message to the library. Headers of sessions and of
// resumption mean nothing here and are dropped.
func (s *Server) forward(w http.ResponseWriter, r *http.Request, c *call) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	defer context.AfterFunc(r.Context(), func() {
		if !errors.Is(r.Context().Err(), context.DeadlineExceeded) {
			cancel() // the caller has gone
		}
	})()
	c.deadline, _ = r.Context().Deadline()
	inner := r.Clone(withCall(ctx, c))
	inner.Header.Del(mcpgo.HeaderSessionID)
	inner.Header.Del(mcpgo.HeaderLastEventID)
	text := c.message.body()
	inner.Body, inner.ContentLength = io.NopCloser(bytes.NewReader(text)), int64(len(text))
	a := &answer{ResponseWriter: w, call: c}
	defer func() {
		if problem := recover(); problem != nil {
			if a.started || problem == http.ErrAbortHandler {
				panic(problem)
			}
			s.cfg.Log.Error("panic while serving a message", "method", c.message.method, "panic", problem, "stack", string(debug.Stack()))
			a.call.instead = &rpcError{http.StatusOK, mcpgo.INTERNAL_ERROR, "the server could not finish this", nil}
			a.WriteHeader(http.StatusOK)
		}
	}()
	s.transport.ServeHTTP(a, inner)
}

// refuse answers with kavach's JSON error.
func refuse(w http.ResponseWriter, status int, code, description string) {
	body := `{"error":"` + code + `","error_description":"` + description + `"}`
	writeJSON(w, status, []byte(body))
}

// unparsable begins the library's error about params that it cannot decode. No
// result of ours holds it: in text it would be escaped.
var unparsable = []byte(`"error":{"code":-32600,`)

// answer is the ResponseWriter of one call. A handler of this package that has
// something to say which the library cannot (an error code, an HTTP status)
// leaves it in call.instead, and answer writes that in place of the library's.
type answer struct {
	http.ResponseWriter
	call    *call
	started bool
	swallow bool
}

func (a *answer) WriteHeader(status int) {
	if a.started {
		return
	}
	a.started = true
	h := a.Header()
	if instead := a.call.instead; instead != nil {
		a.swallow = true
		if instead.status == http.StatusServiceUnavailable {
			h.Set("Retry-After", "5")
		}
		instead.write(a.ResponseWriter, a.call.message.id)
		return
	}
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if media, _, _ := mime.ParseMediaType(h.Get("Content-Type")); media == "text/event-stream" {
		h.Set("X-Accel-Buffering", "no")
	}
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if a.swallow {
		return len(p), nil
	}
	if bytes.Contains(p, unparsable) {
		// The library says which Go type it failed to fill.
		a.swallow = true
		body := (&rpcError{code: mcpgo.INVALID_PARAMS, message: a.call.message.unreadable()}).body(a.call.message.id)
		if _, err := a.ResponseWriter.Write(body); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	return a.ResponseWriter.Write(p)
}

// Flush makes streams stream; the library looks for it.
func (a *answer) Flush() {
	if f, ok := a.ResponseWriter.(http.Flusher); ok && !a.swallow {
		f.Flush()
	}
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
