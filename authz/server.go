package authz

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/people"
	"github.com/kavach-dev/kavach/templates"
)

// Lives of what the server hands out, when the configuration is silent.
const (
	defaultCodeTTL     = 60 * time.Second
	defaultAccessTTL   = 10 * time.Minute
	defaultAgentTTL    = 5 * time.Minute
	defaultRefreshIdle = 30 * 24 * time.Hour
	defaultRefreshMax  = 90 * 24 * time.Hour
	defaultReplay      = 30 * time.Second
	pendingTTL         = 10 * time.Minute
	// waitingPerMinute bounds the rows that one address, signed in or not, can
	// make of requests that wait.
	waitingPerMinute = 600
	// maxAccessTTL: the revocation feed forgets after an hour, so no access
	// token may outlive it (delegation.md §1, §9).
	maxAccessTTL = time.Hour
	// codeRace is how long after its redemption a code used again by its own
	// client is a lost race and not a theft (authorization-server.md §2).
	codeRace = 2 * time.Second
)

// Config is what a Server is made of.
type Config struct {
	// Issuer is the configured issuer URL, without a trailing slash.
	Issuer string
	// Store holds what authorizations need.
	Store FlowStore
	// Registry knows clients, resources, scopes, keys and revocations.
	Registry *Registry
	// Keys signs tokens.
	Keys *Keyring
	// Agents knows agents. Nil: there are none.
	Agents AgentDirectory
	// People knows who is signed in.
	People *people.Server
	// Pages renders what people see.
	Pages *templates.Pages
	// Commit writes what is decided together with its record.
	Commit audit.Committer
	// Refusals records refusals to callers that did not authenticate.
	Refusals Refusals
	// CodeTTL is how long a code lives. Zero: 60 s.
	CodeTTL time.Duration
	// AccessTTL is how long an access token lives, at most an hour. Zero: 10 min.
	AccessTTL time.Duration
	// AgentTTL is how long an access token lives that an agent gets on its own
	// authentication, at most an hour. Zero: 5 min.
	AgentTTL time.Duration
	// Nonces makes and checks the nonces of DPoP proofs. Nil: none is asked for.
	Nonces Nonces
	// RefreshIdle is how long a refresh token lives unused. Zero: 30 d.
	RefreshIdle time.Duration
	// RefreshMax is how long a family lives. Zero: 90 d.
	RefreshMax time.Duration
	// RefreshReplay is how long a used refresh token may come again without
	// ending its family. Zero: 30 s; negative: not at all.
	RefreshReplay time.Duration
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
	// Log takes what operators should see. Nil: discarded.
	Log *slog.Logger
}

// Server is the OAuth 2.1 authorization server: its endpoints and pages, and
// the one function by which authority is handed on.
type Server struct {
	cfg      Config
	provider *provider
	waiting  limiter // requests that wait for a person, by address
	agents   recent[Agent]
	grants   recent[Grant]
}

// New makes a Server. It reads and writes nothing yet.
func New(cfg Config) (*Server, error) {
	for _, missing := range []struct {
		absent bool
		name   string
	}{
		{cfg.Issuer == "", "Issuer"}, {cfg.Store == nil, "Store"}, {cfg.Registry == nil, "Registry"},
		{cfg.Keys == nil, "Keys"}, {cfg.People == nil, "People"}, {cfg.Pages == nil, "Pages"},
		{cfg.Commit == nil, "Commit"}, {cfg.Refusals == nil, "Refusals"},
	} {
		if missing.absent {
			return nil, errors.New("authz: Config." + missing.name + " is missing")
		}
	}
	setDuration(&cfg.CodeTTL, defaultCodeTTL)
	setDuration(&cfg.AccessTTL, defaultAccessTTL)
	setDuration(&cfg.AgentTTL, defaultAgentTTL)
	setDuration(&cfg.RefreshIdle, defaultRefreshIdle)
	setDuration(&cfg.RefreshMax, defaultRefreshMax)
	cfg.RefreshReplay = cmp.Or(cfg.RefreshReplay, defaultReplay)
	if max(cfg.AccessTTL, cfg.AgentTTL) > maxAccessTTL {
		return nil, errors.New("authz: access tokens may live an hour at most: the revocation feed forgets after that")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, waiting: limiter{perMinute: waitingPerMinute}}
	s.provider = newProvider(s)
	return s, nil
}

func setDuration(d *time.Duration, def time.Duration) {
	if *d <= 0 {
		*d = def
	}
}

// Handler serves the OAuth endpoints, the well-known documents, and the pages
// that belong to an authorization. Login and account pages are package
// people's.
func (s *Server) Handler() http.Handler {
	reg := s.cfg.Registry
	mux := http.NewServeMux()
	mux.Handle("/.well-known/", reg.WellKnown())
	mux.HandleFunc("/oauth/register", reg.HandleRegister)
	mux.HandleFunc("/oauth/introspect", reg.HandleIntrospect)
	mux.HandleFunc("/oauth/revoke", reg.HandleRevoke)
	mux.HandleFunc(FeedPath, reg.HandleFeed)
	mux.Handle(tokenEndpoint, allowCORS(http.HandlerFunc(s.serveToken)))
	mux.HandleFunc("/oauth/authorize", s.serveAuthorize)
	mux.Handle("/consent", s.cfg.People.Protect(http.HandlerFunc(s.serveConsent)))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		WriteError(w, &Error{Status: http.StatusNotFound, Code: "not_found", Description: "there is no such endpoint"})
	})
	return mux
}

// Expired lists what may be removed of the tables of authorizations: pending
// requests, codes, handles, refresh tokens and grants.
func (s *Server) Expired() []audit.Expired {
	return s.cfg.Store.ExpiredFlows(s.cfg.Now().Add(-audit.ClockSkew))
}

// AgentDirectory finds agents for [Server.Delegate].
type AgentDirectory interface {
	// FindAgent returns an agent by its id, or by its name among the agents
	// of owner, in whatever state it is; ErrNotFound if there is none.
	FindAgent(ctx context.Context, owner, idOrName string) (Agent, error)
}
