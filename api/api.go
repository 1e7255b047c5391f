package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
	"github.com/kavach-dev/kavach/jcs"
)

// Path is where the resource is, below the issuer; the endpoints are at
// Path + "/v1/…".
const Path = "/api"

// entriesPath is where the log is read and written to.
const entriesPath = Path + "/v1/audit/entries"

const (
	scopeAgents     = "agents:manage"
	scopeAudit      = "kavach:audit"
	scopeAuditRead  = "audit:read"
	scopeAuditWrite = "audit:write"
)

// maxBody bounds a request ("Bodies 64 KiB"); see maxReportBody for reports.
const maxBody = 64 << 10

// maxValues bounds what a body is taken apart into: two bytes a value would make
// a hundred megabytes of 2 MiB. A batch of 500 entries with every member has
// fewer than 25,000.
const maxValues = 1 << 15

// Auditor reads the log. A *audit.Reader is one.
type Auditor interface {
	Entries(ctx context.Context, q audit.Query) (audit.Page, error)
	Entry(ctx context.Context, sight audit.Sight, id string) (audit.Stored, error)
	// Written returns those of the entries that the writer has in the log.
	Written(ctx context.Context, by string, ids []string) (map[string]audit.Stored, error)
}

// Spent makes the effects that let a proof be used up. A *store.Store is one.
type Spent interface {
	// Once must hit one row: key is there for the first time, and stays until
	// then.
	Once(key string, until time.Time) audit.Effect
	// Again must hit one row: key is there.
	Again(key string) audit.Effect
}

// Resources knows the resource servers. A *authz.Registry is one.
type Resources interface {
	Catalog(ctx context.Context, need ...string) (*authz.Catalog, error)
}

// Agents is the registry of agents. A *authz.Agents is one.
type Agents interface {
	Register(ctx context.Context, r authz.Registration) (authz.Agent, error)
	FindAgent(ctx context.Context, owner, idOrName string) (authz.Agent, error)
	Agents(ctx context.Context, owner, after string, limit int) ([]authz.Agent, error)
	Update(ctx context.Context, u authz.ManifestUpdate) (authz.Agent, error)
	Manifests(ctx context.Context, id string, after int64, limit int) ([]authz.SignedManifest, error)
	Countersigned(ctx context.Context, id string) (string, error)
	Suspend(ctx context.Context, by authz.Actor, agentID, why string) (recorded bool, err error)
	Resume(ctx context.Context, by authz.Actor, agentID string) error
}

// People knows the person behind a principal. A *authz.Registry is one.
type People interface {
	Holder(ctx context.Context, principal string) (authz.Holder, error)
}

// Config is what the API is made of.
type Config struct {
	// Issuer is the configured issuer URL, without a trailing slash.
	Issuer string
	// Verifier and Revocations authenticate callers. Without Revocations
	// tokens live until they expire.
	Verifier    guard.Verifier
	Revocations guard.Revocations
	// Replays remembers used proofs for every process that serves the API. Nil:
	// in memory.
	Replays guard.Replays
	// Nonces, if set, makes every proof carry a nonce of this server.
	Nonces guard.Nonces
	// Counters debits the budgets of tokens with max_calls for every process that
	// serves the API. Nil: such tokens are refused.
	Counters guard.Counters
	// Agents, People and Auditor stand behind the endpoints.
	Agents  Agents
	People  People
	Auditor Auditor
	// Revoker ends grants and keys. Nil: there are no such endpoints.
	Revoker Revoker
	// Resources says who may report on what, Spent which proofs were reported.
	Resources Resources
	Spent     Spent
	// Commit records calls before they are answered.
	Commit audit.Committer
	// Refusals records refusals to callers without a usable token.
	Refusals authz.Refusals
	// TrustedProxies may say in X-Forwarded-For whom they speak for.
	TrustedProxies []netip.Prefix
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
	// Log takes what operators should see. Nil: discarded.
	Log *slog.Logger
}

// Server is the API.
type Server struct {
	cfg   Config
	guard func(http.Handler) http.Handler
}

// New makes a Server.
func New(cfg Config) (*Server, error) {
	for _, missing := range []struct {
		absent bool
		name   string
	}{
		{cfg.Issuer == "", "Issuer"}, {cfg.Verifier == nil, "Verifier"}, {cfg.Agents == nil, "Agents"},
		{cfg.People == nil, "People"}, {cfg.Auditor == nil, "Auditor"}, {cfg.Commit == nil, "Commit"},
		{cfg.Refusals == nil, "Refusals"}, {cfg.Resources == nil, "Resources"}, {cfg.Spent == nil, "Spent"},
	} {
		if missing.absent {
			return nil, errors.New("api: Config." + missing.name + " is missing")
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Server{cfg: cfg}
	s.guard = guard.Authenticate(guard.Config{
		Resource: cfg.Issuer + Path, Verifier: cfg.Verifier, Revocations: cfg.Revocations,
		SharedAudience: true,
		DPoPForWrites:  true, // TLS ends here (delegation.md §6)
		Replays:        cfg.Replays, Nonces: cfg.Nonces, Counters: cfg.Counters, Report: s.report, Now: cfg.Now, Log: cfg.Log,
	})
	return s, nil
}

// Handler serves everything below Path.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v1/agents", s.registerAgent)
	mux.Handle("GET /api/v1/agents", s.guarded(s.listAgents))
	mux.Handle("GET /api/v1/agents/{id}", s.guarded(s.showAgent))
	mux.HandleFunc("POST /api/v1/agents/{id}/manifests", s.updateAgent)
	mux.Handle("GET /api/v1/agents/{id}/manifests", s.guarded(s.listManifests))
	mux.Handle("POST /api/v1/agents/{id}/suspend", s.guarded(s.suspendAgent))
	mux.Handle("POST /api/v1/agents/{id}/resume", s.guarded(s.resumeAgent))
	s.revocations(mux)
	mux.Handle("GET "+entriesPath, s.guarded(s.listEntries))
	mux.Handle("POST "+entriesPath, s.guarded(s.reportEntries))
	mux.Handle("GET "+entriesPath+"/{id}", s.guarded(s.showEntry))
	for path, allow := range map[string]string{
		"/api/v1/agents": "GET, POST", "/api/v1/agents/{id}": "GET",
		"/api/v1/agents/{id}/manifests": "GET, POST", "/api/v1/agents/{id}/suspend": "POST", "/api/v1/agents/{id}/resume": "POST",
		entriesPath: "GET, POST", entriesPath + "/{id}": "GET",
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Allow", allow)
			fail(w, http.StatusMethodNotAllowed, "invalid_request", "use "+allow)
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fail(w, http.StatusNotFound, "not_found", "there is nothing here")
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		limit, said := int64(maxBody), "64 KiB"
		if r.URL.Path == entriesPath {
			limit, said = maxReportBody, "2 MiB"
		}
		if r.ContentLength > limit {
			fail(w, http.StatusRequestEntityTooLarge, "invalid_request", "the body is larger than "+said)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, limit)
		mux.ServeHTTP(w, r)
	})
}

// guarded lets only verified tokens through.
func (s *Server) guarded(next func(http.ResponseWriter, *http.Request, *delegation.Chain)) http.Handler {
	return s.guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next(w, r, guard.From(r.Context()))
	}))
}

// authorize is step 16 for an endpoint: "/api/v1/x/… resource kavach/api/x". It
// answers itself when a link refuses, after the refusal was recorded.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request, chain *delegation.Chain, action, resource string, scopes ...string) bool {
	request := delegation.Request{
		Scope: delegation.OneOf(scopes...), Tool: delegation.None[delegation.Call](),
		Resource: delegation.Given(resource), Network: delegation.None[string](), Size: delegation.None[int64](),
	}
	err := guard.Allows(r.Context(), request)
	if err == nil {
		return true
	}
	var refused *delegation.Refusal
	if !errors.As(err, &refused) {
		s.broken(w, "judging a request", err)
		return false
	}
	switch refused.Reason {
	case delegation.Replayed, delegation.StatusUnknown, delegation.HolderBindingFailed, delegation.Expired:
		// Steps 14 and 17: nothing is wrong with what was asked. guard reports it.
		guard.Refuse(w, r, request, refused, nil)
		return false
	}
	e := entry(chain, action, audit.Denied, resource)
	e.Reason = string(refused.Reason)
	e.Detail["dimension"] = refused.Dimension
	if s.record(w, r, e) {
		guard.Refuse(w, r, request, refused, nil)
	}
	return false
}

// report records what guard refused. Refusals of step 16 are not here: authorize
// records them together with what was asked.
func (s *Server) report(ctx context.Context, d guard.Decision) error {
	if d.Allowed || d.Status == http.StatusForbidden {
		return nil
	}
	e := audit.Entry{
		Action: audit.TokenRefuse, Result: audit.Denied, Resource: s.cfg.Issuer + Path, Detail: map[string]any{"via": "api"},
	}
	if d.Chain != nil {
		e = entry(d.Chain, e.Action, e.Result, e.Resource)
	}
	e.Reason = string(d.Reason)
	// "To authenticated callers, and every refusal with reason replayed,
	// revoked, key_reuse, refresh_reuse: whole, always."
	switch {
	case d.Reason == delegation.KeyReuse:
	case d.Chain == nil:
		s.cfg.Refusals.Refuse(s.source(d.Request), Path, e)
		return nil
	case d.Reason == delegation.HolderBindingFailed:
		// The chain is genuine; who sent it did not show to be its holder.
		e.Agent = ""
		s.cfg.Refusals.Refuse(s.source(d.Request), Path, e)
		return nil
	}
	return s.cfg.Commit.Commit(ctx, audit.Change{Entries: []audit.Entry{e}})
}

// entry begins the audit entry of a call.
func entry(chain *delegation.Chain, action, result, resource string) audit.Entry {
	return audit.Entry{
		Action: action, Result: result, Resource: resource, Path: chain.Path(), Agent: chain.Agent(),
		Sub: chain.Principal(), Grant: chain.GrantID(), Chain: parties(chain), Anc: chain.Ancestry(), Detail: map[string]any{"via": "api"},
	}
}

// parties is a chain as records show it.
func parties(chain *delegation.Chain) (list []audit.Party) {
	for _, l := range chain.Links() {
		list = append(list, audit.Party{LID: l.LID, JTI: l.JTI, ClientID: l.ClientID, Confirmed: l.Confirmed, JKT: l.JKT})
	}
	return list
}

// record writes an entry; without it there is no answer but 503.
func (s *Server) record(w http.ResponseWriter, r *http.Request, e audit.Entry) bool {
	err := s.cfg.Commit.Commit(r.Context(), audit.Change{Entries: []audit.Entry{e}})
	if err == nil {
		return true
	}
	if !errors.Is(err, audit.ErrUnavailable) {
		s.cfg.Log.Error("recording a call", "err", err)
	}
	unavailable(w)
	return false
}

func (s *Server) broken(w http.ResponseWriter, doing string, err error) {
	s.cfg.Log.Error(doing, "err", err)
	unavailable(w)
}

func unavailable(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "5")
	fail(w, http.StatusServiceUnavailable, "temporarily_unavailable", "try again in a moment")
}

func fail(w http.ResponseWriter, status int, code, description string) {
	answer(w, status, map[string]any{"error": code, "error_description": description})
}

func answer(w http.ResponseWriter, status int, content map[string]any) {
	body, err := jcs.Marshal(content)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":"server_error"}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}
