package demo

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
	"github.com/kavach-dev/kavach/wellknown"
)

// GitHostConfig says whose tokens a git host takes. Issuer is needed.
type GitHostConfig struct {
	// Issuer is the kavach whose tokens it takes, byte for byte their iss.
	Issuer string
	// Client fetches the key set. Nil: a client of guard's own.
	Client *http.Client
	// Repository is what it serves. Nil: NewRepository().
	Repository *Repository
	// Report is told every decision, guard.Config.Report. Nil: nobody is, and
	// tokens with audit_required are refused.
	Report func(context.Context, guard.Decision) error
	// Need says what a request needs. Nil: NeedOf, which is what the story
	// tells; a test puts another here and sees the story fail.
	Need func(*http.Request) (guard.Need, error)
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
	// Log takes what operators should see. Nil: slog.Default.
	Log *slog.Logger
}

// GitHost is a git host that takes kavach's tokens. It shares nothing with
// kavach but public keys, which it fetches and caches. It owns one goroutine,
// which Close ends.
//
//	GET  /pull/{n}              pullrequest:read   pull/N
//	GET  /pull/{n}/diff         repository:read    pull/N            size of the diff
//	GET  /pull/{n}/archive      repository:read    pull/N            303 to another host
//	POST /pull/{n}/merge        repository:write   pull/N
//	GET  /pull/{n}/thread/{t}   pullrequest:read   pull/N/thread/T
//	POST /pull/{n}/thread/{t}   comment:write      pull/N/thread/T   size of the body
type GitHost struct {
	cfg     GitHostConfig
	keys    *guard.JWKS
	handler http.Handler
}

// Archives is where the git host sends those who want an archive: a host that
// no token of the story names.
const Archives = "https://archives.example"

// maxComment bounds the body of a comment, whatever a token allows.
const maxComment = 64 << 10

// route is one line of the table above: what a request to it needs, and what
// answers it.
type route struct {
	pattern string
	scope   string
	size    sizing
	serve   func(*GitHost, http.ResponseWriter, *http.Request, place)
}

// sizing says which bytes of a route a max_file_size is about.
type sizing int

const (
	noFile  sizing = iota // there is no file
	written               // the body of the request
	read                  // what the handler finds, and asks about itself
)

var routes = []route{
	{"GET /pull/{pull}", ReadPull, noFile, (*GitHost).pull},
	{"GET /pull/{pull}/diff", ReadRepository, read, (*GitHost).diff},
	{"GET /pull/{pull}/archive", ReadRepository, noFile, (*GitHost).archive},
	{"POST /pull/{pull}/merge", WriteRepository, noFile, (*GitHost).merge},
	{"GET /pull/{pull}/thread/{thread}", ReadPull, noFile, (*GitHost).thread},
	{"POST /pull/{pull}/thread/{thread}", WriteComment, written, (*GitHost).comment},
}

// NewGitHost makes a git host and begins fetching the key set. A Config without
// Issuer is a mistake of the program and panics.
func NewGitHost(cfg GitHostConfig) *GitHost {
	if cfg.Repository == nil {
		cfg.Repository = NewRepository()
	}
	if cfg.Need == nil {
		cfg.Need = NeedOf
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	g := &GitHost{cfg: cfg, keys: guard.NewJWKS(guard.JWKSConfig{
		Issuer: cfg.Issuer, URL: cfg.Issuer + wellknown.JWKSPath, Client: cfg.Client, Refetch: time.Second,
		Now: cfg.Now, Log: cfg.Log,
	})}
	protect := guard.Require(guard.Config{
		Resource: Resource, Verifier: g.keys, Report: cfg.Report, Now: cfg.Now, Log: cfg.Log,
		Baseline: []string{ReadPull, ReadRepository},
		NeedOf:   cfg.Need,
		// TLS ends here, so a proof over this request is enough for a side
		// effect (delegation.md §6, Proofs).
		DPoPForWrites: true,
		Counters:      guard.NewCounters(guard.CountersConfig{Now: cfg.Now}),
	})
	mux := http.NewServeMux()
	for _, one := range routes {
		mux.Handle(one.pattern, protect(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p, err := placeOf(r)
			if err != nil {
				nothingHere(w, r)
				return
			}
			one.serve(g, w, r, p)
		})))
	}
	mux.Handle("/.well-known/", wellknown.Handler(wellknown.Config{
		Resources: func(context.Context) ([]wellknown.ResourceMetadata, error) {
			m := wellknown.ResourceMetadata{Resource: Resource, AuthorizationServers: []string{cfg.Issuer}}
			for _, s := range Scopes() {
				m.ScopesSupported = append(m.ScopesSupported, s.Name)
			}
			return []wellknown.ResourceMetadata{m}, nil
		},
	}))
	mux.HandleFunc("/", nothingHere)
	g.handler = mux
	return g
}

// ServeHTTP implements http.Handler.
func (g *GitHost) ServeHTTP(w http.ResponseWriter, r *http.Request) { g.handler.ServeHTTP(w, r) }

// Close ends the background refresh of the key set.
func (g *GitHost) Close() { g.keys.Close() }

// Serve serves TLS on a listener until ctx ends, and closes it.
func (g *GitHost) Serve(ctx context.Context, l net.Listener, cert tls.Certificate) error {
	s := &http.Server{
		Handler: g, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: time.Minute, MaxHeaderBytes: 32 << 10,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13},
		// Who breaks a TLS handshake off is no event here.
		ErrorLog: slog.NewLogLogger(g.cfg.Log.Handler(), slog.LevelDebug),
	}
	drained := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(drained)
		drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		if s.Shutdown(drain) != nil {
			s.Close() // what is still running after that is cut off
		}
	})
	if err := s.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
		stop()
		return fmt.Errorf("serving the git host: %w", err)
	}
	<-drained
	return nil
}

// drainTimeout is what requests under way get.
const drainTimeout = 2 * time.Second

// place is what a path names.
type place struct {
	pull, thread int // thread is 0 where the path names none
}

// id is the resource id, as tokens name it.
func (p place) id() string {
	if p.thread == 0 {
		return PullID(p.pull)
	}
	return ThreadID(p.pull, p.thread)
}

// placeOf reads the numbers in the path of a matched route. A number has one
// spelling: pull/0847 is no pull request.
func placeOf(r *http.Request) (place, error) {
	var p place
	for name, number := range map[string]*int{"pull": &p.pull, "thread": &p.thread} {
		text := r.PathValue(name)
		if text == "" {
			continue
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || strconv.Itoa(n) != text {
			return place{}, fmt.Errorf("%s %.32q is no number", name, text)
		}
		*number = n
	}
	return p, nil
}

// NeedOf says what a request needs: the scope of its route, the pull request or
// review thread that the path names, and the size of what is written. Nothing
// here opens a connection.
func NeedOf(r *http.Request) (guard.Need, error) {
	i := slices.IndexFunc(routes, func(one route) bool { return one.pattern == r.Pattern })
	if i < 0 {
		return guard.Need{}, fmt.Errorf("no route %q", r.Pattern)
	}
	p, err := placeOf(r)
	if err != nil {
		return guard.Need{}, err
	}
	need := guard.Need{Request: delegation.Request{
		Scope:    delegation.AllOf(routes[i].scope),
		Resource: delegation.Given(p.id()),
		Network:  delegation.None[string](),
	}}
	switch routes[i].size {
	case noFile:
		need.Request.Size = delegation.None[int64]()
	case read:
		need.Later = []string{delegation.DimensionSize}
	case written:
		size, err := bodySize(r)
		if err != nil {
			return guard.Need{}, err
		}
		need.Request.Size = delegation.Given(size)
	}
	return need, nil
}

// bodySize reads the body, bounded, and puts it back: what Content-Length says
// is the sender's word.
func bodySize(r *http.Request) (int64, error) {
	body, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, maxComment))
	if err != nil {
		return 0, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return int64(len(body)), nil
}

func (g *GitHost) pull(w http.ResponseWriter, r *http.Request, p place) {
	if found, ok := g.cfg.Repository.Pull(p.pull); ok {
		answer(w, http.StatusOK, found)
		return
	}
	nothingHere(w, r)
}

func (g *GitHost) diff(w http.ResponseWriter, r *http.Request, p place) {
	diff, ok := g.cfg.Repository.Diff(p.pull)
	if !ok {
		nothingHere(w, r)
		return
	}
	if guard.Size(r.Context(), int64(len(diff))) != nil {
		return // the guard answers
	}
	w.Header().Set("Content-Type", "text/x-diff; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	io.WriteString(w, diff)
}

// archive sends the reader to another host, as git hosts do. Whether the reader
// goes there is for the reader's own token to say.
func (g *GitHost) archive(w http.ResponseWriter, r *http.Request, p place) {
	http.Redirect(w, r, Archives+"/"+p.id()+".tar.gz", http.StatusSeeOther)
}

func (g *GitHost) merge(w http.ResponseWriter, r *http.Request, p place) {
	if found, ok := g.cfg.Repository.Pull(p.pull); ok {
		answer(w, http.StatusOK, map[string]any{"merged": found.Number})
		return
	}
	nothingHere(w, r)
}

func (g *GitHost) thread(w http.ResponseWriter, r *http.Request, p place) {
	if found, ok := g.cfg.Repository.Thread(p.pull, p.thread); ok {
		answer(w, http.StatusOK, found)
		return
	}
	nothingHere(w, r)
}

func (g *GitHost) comment(w http.ResponseWriter, r *http.Request, p place) {
	text, err := io.ReadAll(r.Body)
	if err != nil || len(text) == 0 || !utf8.Valid(text) {
		answer(w, http.StatusBadRequest, map[string]string{"error": "invalid_request", "error_description": "a comment is text"})
		return
	}
	c := Comment{Path: guard.From(r.Context()).Path(), Text: string(text)}
	if !g.cfg.Repository.Comment(p.pull, p.thread, c) {
		nothingHere(w, r)
		return
	}
	answer(w, http.StatusCreated, c)
}

func nothingHere(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusNotFound, map[string]string{"error": "not_found", "error_description": "there is nothing at this path"})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	_ = e.Encode(v) // who does not read the answer does not get it
}
