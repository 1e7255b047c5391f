package guard_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
)

var everything = []string{
	delegation.DimensionScope, delegation.DimensionTools, delegation.DimensionResources,
	delegation.DimensionNetwork, delegation.DimensionSize,
}

func TestObligations(t *testing.T) {
	w := newWorld(t)
	restricted := w.token(limited(delegation.Limits{
		Resources: []string{"pulls/847"}, AllowNetwork: []string{"git.internal"}, MaxFileSize: number(1000),
	}))
	free := w.token()
	answer := func(rw http.ResponseWriter) { _, _ = rw.Write([]byte("diff")) }
	type handler = func(http.ResponseWriter, *http.Request)
	askAll := func(r *http.Request) []error {
		ctx := r.Context()
		return []error{
			guard.Scope(ctx, delegation.AllOf("repository:read")), guard.Resource(ctx, "pulls/847"),
			guard.Network(ctx, "git.internal:443"), guard.Size(ctx, 1000), guard.Tool(ctx, delegation.Call{Name: "any"}),
		}
	}
	for _, c := range []struct {
		name    string
		token   string
		later   []string
		handler handler
		status  int
		reason  delegation.Reason
		detail  string
	}{
		{"all asked", restricted, everything, func(rw http.ResponseWriter, r *http.Request) {
			for _, err := range askAll(r) {
				if err != nil {
					t.Error(err)
				}
			}
			answer(rw)
		}, 200, "", ""},
		{"nothing asked, nothing restricted", free, everything[1:], func(rw http.ResponseWriter, _ *http.Request) { answer(rw) }, 200, "", ""},
		{"scope not asked", free, everything[:1], func(rw http.ResponseWriter, _ *http.Request) { answer(rw) }, 403, delegation.ConstraintViolated, "unhandled:scope"},
		{"resource not asked", restricted, everything, func(rw http.ResponseWriter, r *http.Request) {
			_ = guard.Scope(r.Context(), delegation.NoScope())
			_, _ = guard.Network(r.Context(), "git.internal"), guard.Size(r.Context(), 1)
			answer(rw)
		}, 403, delegation.ConstraintViolated, "unhandled:resources"},
		{"asked after the first byte", restricted, everything, func(rw http.ResponseWriter, r *http.Request) {
			answer(rw)
			askAll(r)
		}, 403, delegation.ConstraintViolated, "unhandled:scope"},
		{"nothing answered", restricted, []string{delegation.DimensionResources, delegation.DimensionNetwork, delegation.DimensionSize},
			func(http.ResponseWriter, *http.Request) {}, 403, delegation.ConstraintViolated, "unhandled:resources"},
		{"an error answered before asking", restricted, []string{delegation.DimensionResources, delegation.DimensionNetwork, delegation.DimensionSize},
			func(rw http.ResponseWriter, _ *http.Request) { http.NotFound(rw, nil) }, 403, delegation.ConstraintViolated, "unhandled:resources"},
		{"another pull request", restricted, everything, func(rw http.ResponseWriter, r *http.Request) {
			_ = guard.Scope(r.Context(), delegation.NoScope())
			if guard.Resource(r.Context(), "pulls/848") == nil {
				t.Error("pulls/848 is allowed")
			}
		}, 403, delegation.ConstraintViolated, `resource "pulls/848"`},
		{"refused and answered all the same", restricted, everything, func(rw http.ResponseWriter, r *http.Request) {
			askAll(r)
			_ = guard.Resource(r.Context(), "pulls/848")
			answer(rw)
		}, 403, delegation.ConstraintViolated, `resource "pulls/848"`},
		{"refused and said so", restricted, everything, func(rw http.ResponseWriter, r *http.Request) {
			askAll(r)
			_ = guard.Resource(r.Context(), "pulls/848")
			rw.WriteHeader(http.StatusConflict)
		}, 409, delegation.ConstraintViolated, `resource "pulls/848"`},
		{"too large", restricted, everything, func(_ http.ResponseWriter, r *http.Request) { _ = guard.Size(r.Context(), 1001) }, 403, delegation.ConstraintViolated, "larger than max_file_size"},
		{"another host", restricted, everything, func(_ http.ResponseWriter, r *http.Request) {
			_ = guard.Network(r.Context(), "evil.example:443")
		}, 403, delegation.ConstraintViolated, `host "evil.example:443"`},
		{"scope refused", free, everything, func(_ http.ResponseWriter, r *http.Request) {
			_ = guard.Scope(r.Context(), delegation.AllOf("repository:write"))
		}, 403, delegation.ScopeNotGranted, "repository:write"},
		{"another tool", w.token(func(c *delegation.Claims) { c.Tools = tools(t, "get_diff") }), everything, func(_ http.ResponseWriter, r *http.Request) {
			_ = guard.Tool(r.Context(), delegation.Call{Name: "merge"})
		}, 403, delegation.ConstraintViolated, `tool "merge"`},
	} {
		w.decided()
		cfg := w.config()
		cfg.Need = guard.Need{Later: c.later}
		if !slices.Contains(c.later, delegation.DimensionScope) {
			cfg.Need.Request.Scope = delegation.NoScope()
		}
		got := do(guard.Require(cfg)(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set("X-Inner", "leak")
			rw.Header().Set("Content-Length", "4")
			if c.status == 409 {
				rw.Header().Del("Content-Length")
			}
			c.handler(rw, r)
		})), request("Bearer "+c.token))
		if got.status != c.status {
			t.Errorf("%s: %+v", c.name, got)
		}
		if c.status == 403 && (strings.Contains(got.body, "diff") || got.header.Get("X-Inner") != "" || got.header.Get("Content-Length") != "") {
			t.Errorf("%s: the answer of the handler leaks: %+v", c.name, got)
		}
		if c.status == 200 && got.body != "diff" && c.name != "" {
			t.Errorf("%s: %+v", c.name, got)
		}
		if c.reason == delegation.ScopeNotGranted && !strings.Contains(got.challenge, `scope="comment:write repository:read repository:write"`) {
			t.Errorf("%s: %+v", c.name, got)
		}
		d := w.decided()
		if c.reason == "" {
			if len(d) != 1 || !d[0].Allowed {
				t.Errorf("%s: reported %+v", c.name, d)
			}
			continue
		}
		if len(d) != 2 || !d[0].Allowed || d[1].Allowed || d[1].Reason != c.reason || d[1].Detail != c.detail {
			t.Errorf("%s: reported %+v", c.name, d)
		}
	}
}

// TestDimensionsStatedFirst: what a route states is decided before the handler.
func TestDimensionsStatedFirst(t *testing.T) {
	w := newWorld(t)
	restricted := w.token(limited(delegation.Limits{Resources: []string{"pulls/847"}, AllowNetwork: []string{"git.internal"}, MaxFileSize: number(1000)}))
	base := delegation.Request{
		Scope: delegation.AllOf("repository:read"), Resource: delegation.Given("pulls/847"),
		Network: delegation.None[string](), Size: delegation.None[int64](),
	}
	for name, c := range map[string]struct {
		change func(*delegation.Request)
		status int
	}{
		"as allowed":       {func(*delegation.Request) {}, 200},
		"another resource": {func(r *delegation.Request) { r.Resource = delegation.Given("pulls/848") }, 403},
		"no resource":      {func(r *delegation.Request) { r.Resource = delegation.None[string]() }, 403},
		"another host":     {func(r *delegation.Request) { r.Network = delegation.Given("evil.example") }, 403},
		"too large":        {func(r *delegation.Request) { r.Size = delegation.Given(int64(1001)) }, 403},
		"size forgotten":   {func(r *delegation.Request) { r.Size = delegation.Dimension[int64]{} }, 403},
	} {
		cfg := w.config()
		cfg.Need.Request = base
		c.change(&cfg.Need.Request)
		if got := do(guard.Require(cfg)(ok), request("Bearer "+restricted)); got.status != c.status {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestAuditRequired(t *testing.T) {
	w := newWorld(t)
	token := w.token(limited(delegation.Limits{AuditRequired: flag(true)}))
	cfg := w.config()
	ran := false
	handler := http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		if d := w.decisions; len(d) != 1 || d[0].Phase != guard.Before || !d[0].Allowed {
			t.Errorf("the action runs before its record: %+v", d)
		}
		ran = true
		rw.WriteHeader(http.StatusCreated)
	})
	if got := do(guard.Require(cfg)(handler), request("Bearer "+token)); got.status != 201 || !ran {
		t.Errorf("%+v", got)
	}
	if d := w.decided(); len(d) != 2 || d[1].Phase != guard.After || d[1].Status != 201 || !d[1].Allowed {
		t.Errorf("reported %+v", d)
	}
	ran, w.reportErr = false, http.ErrServerClosed
	if got := do(guard.Require(cfg)(handler), request("Bearer "+token)); got.status != 503 || ran {
		t.Errorf("the log is away: %+v, ran %v", got, ran)
	}
	cfg.Report = nil
	if got := do(guard.Require(cfg)(handler), request("Bearer "+token)); got.status != 403 || ran {
		t.Errorf("there is no log: %+v, ran %v", got, ran)
	}
}

// TestGateOnTheWire: streaming, informational answers and hijacking go through
// what the guard puts in front of the handler, and only when nothing is owed.
func TestGateOnTheWire(t *testing.T) {
	w := newWorld(t)
	restricted := w.token(limited(delegation.Limits{Resources: []string{"pulls/847"}}))
	cfg := w.config()
	cfg.Need.Later = []string{delegation.DimensionResources}
	var hijackErr error
	mux := http.NewServeMux()
	mux.HandleFunc("/stream", func(rw http.ResponseWriter, r *http.Request) {
		rw.WriteHeader(http.StatusEarlyHints)
		if guard.Resource(r.Context(), "pulls/847") != nil {
			return
		}
		_, _ = rw.Write([]byte("a"))
		if err := http.NewResponseController(rw).Flush(); err != nil {
			t.Error(err)
		}
		_, _ = rw.Write([]byte("b"))
	})
	mux.HandleFunc("/flush", func(rw http.ResponseWriter, _ *http.Request) {
		rw.(http.Flusher).Flush()
		_, _ = rw.Write([]byte("leak"))
	})
	mux.HandleFunc("/hijack", func(rw http.ResponseWriter, _ *http.Request) {
		_, _, hijackErr = http.NewResponseController(rw).Hijack()
	})
	mux.HandleFunc("/unwrap", func(rw http.ResponseWriter, _ *http.Request) {
		if _, there := rw.(interface{ Unwrap() http.ResponseWriter }); there {
			t.Error("the guard can be walked around")
		}
	})
	server := httptest.NewServer(guard.Require(cfg)(mux))
	defer server.Close()
	get := func(path string) (int, string) {
		req, err := http.NewRequest(http.MethodGet, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+restricted)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body := new(strings.Builder)
		if err := resp.Write(body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, body.String()
	}
	if status, body := get("/stream"); status != 200 || !strings.Contains(body, "a") || !strings.Contains(body, "b") {
		t.Errorf("stream: %d %s", status, body)
	}
	if status, body := get("/flush"); status != 403 || strings.Contains(body, "leak") {
		t.Errorf("flush: %d %s", status, body)
	}
	if status, _ := get("/hijack"); status != 403 || hijackErr == nil {
		t.Errorf("hijack: %d %v", status, hijackErr)
	}
	if status, _ := get("/unwrap"); status != 403 {
		t.Errorf("unwrap: %d", status)
	}
}
