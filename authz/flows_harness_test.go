package authz_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/people"
	"github.com/kavach-dev/kavach/store"
	"github.com/kavach-dev/kavach/store/storetest"
	"github.com/kavach-dev/kavach/templates"
)

// clock is a time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// flows is a whole authorization server on a real database with a real log.
type flows struct {
	t        *testing.T
	issuer   string
	dsn      string
	secret   authz.DeploymentSecret
	clock    *clock
	store    *store.Store
	log      *gate
	registry *authz.Registry
	agents   *authz.Agents
	people   *people.Server
	server   *authz.Server
	alice    people.User
	browsers map[string]*browser
}

const (
	git      = "https://git.example/api"
	legacy   = "https://legacy.example/"
	callback = "https://client.example/cb"
	password = "correct horse battery staple"
)

func newFlows(t *testing.T, change ...func(*authz.Config)) *flows {
	t.Helper()
	ctx := context.Background()
	f := &flows{t: t, browsers: map[string]*browser{}, clock: &clock{t: time.Now().Truncate(time.Second)}, secret: authz.NewDeploymentSecret()}
	f.dsn = storetest.DSN(t)
	var handler http.Handler
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(web.Close)
	f.issuer = web.URL

	quiet := slog.New(slog.DiscardHandler)
	var err error
	f.store, err = store.Open(ctx, store.Config{DSN: f.dsn, Token: storetest.Token, Issuer: f.issuer, MinFree: -1})
	must(t, err)
	f.log = &gate{Log: audit.NewLog(audit.Config{Store: f.store, Now: f.clock.now, Logger: quiet})}
	t.Cleanup(func() {
		_ = f.log.Close(context.Background())
		_ = f.store.Close()
	})
	keys, err := authz.OpenKeyring(ctx, authz.KeyringConfig{
		Store: f.store, Commit: f.log, Secret: f.secret, Now: f.clock.now,
	})
	must(t, err)
	f.registry, err = authz.NewRegistry(authz.RegistryConfig{
		Issuer: f.issuer, Store: f.store, Commit: f.log, Refusals: f.log, Keys: keys,
		Flows: f.store, Agents: f.store, Now: f.clock.now, Log: quiet,
		RegistrationRate: 100000,
	})
	must(t, err)
	f.agents = authz.NewAgents(authz.AgentsConfig{
		Issuer: f.issuer, Store: f.store, Commit: f.log, Refusals: f.log, Registry: f.registry, Now: f.clock.now,
	})
	pages, err := templates.New(templates.Config{Issuer: f.issuer, Logger: quiet})
	must(t, err)
	f.people, err = people.New(people.Config{
		Store: f.store, Log: f.log, Pages: pages, Issuer: f.issuer, CookieSecrets: keys.Cookie,
		Now: f.clock.now, Logger: quiet,
	})
	must(t, err)
	cfg := authz.Config{
		Issuer: f.issuer, Store: f.store, Registry: f.registry, Keys: keys, Agents: f.agents, People: f.people,
		Pages: pages, Commit: f.log, Refusals: f.log, Now: f.clock.now, Log: quiet,
	}
	for _, set := range change {
		set(&cfg)
	}
	f.server, err = authz.New(cfg)
	must(t, err)
	mux := http.NewServeMux()
	for _, p := range []string{"/.well-known/", "/oauth/", "/consent"} {
		mux.Handle(p, f.server.Handler())
	}
	mux.Handle("/", f.people.Handler())
	handler = mux

	f.alice = f.user("alice", people.Member)
	for _, r := range []authz.Resource{
		{ID: git, Name: "Git", Aware: true, TokenAlg: authz.AlgES256, Scopes: []authz.Scope{
			{Name: "repo:read", Description: "Read code"}, {Name: "repo:write", Description: "Change code", Sensitive: true},
		}},
		{ID: legacy, Name: "Legacy", TokenAlg: authz.AlgRS256, Scopes: []authz.Scope{{Name: "old:read", Description: "Read"}}},
	} {
		must(t, f.registry.AddResource(ctx, authz.Actor{Agent: audit.Operator, Via: "cli"}, r))
	}
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (f *flows) user(name string, role people.Role) people.User {
	f.t.Helper()
	u, err := f.people.CreateUser(context.Background(), people.CLI, people.NewUser{Name: name, Password: password, Role: role})
	must(f.t, err)
	return u
}

// client adds a static client; its secret is "" for a public one.
func (f *flows) client(n authz.NewClient) (id, secret string) {
	f.t.Helper()
	if n.Name == "" {
		n.Name = "Test client"
	}
	c, s, err := f.registry.AddClient(context.Background(), authz.Actor{Agent: audit.Operator, Via: "cli"}, n)
	must(f.t, err)
	return c.ID, s.Reveal()
}

// public adds a public static client with the redirect URIs, or callback.
func (f *flows) public(redirects ...string) string {
	if len(redirects) == 0 {
		redirects = []string{callback}
	}
	id, _ := f.client(authz.NewClient{Method: authz.MethodNone, RedirectURIs: redirects})
	return id
}

// register registers a client dynamically.
func (f *flows) register(redirects ...string) string {
	f.t.Helper()
	body, err := json.Marshal(map[string]any{
		"client_name": "Registered", "redirect_uris": redirects, "token_endpoint_auth_method": "none",
		"grant_types": []string{"authorization_code", "refresh_token"},
	})
	must(f.t, err)
	r, err := http.Post(f.issuer+"/oauth/register", "application/json", strings.NewReader(string(body)))
	must(f.t, err)
	got := decode(f.t, r)
	id, _ := got["client_id"].(string)
	if r.StatusCode != http.StatusCreated || id == "" {
		f.t.Fatalf("registration: %d %v", r.StatusCode, got)
	}
	return id
}

// change sets a user's role, or disables the user.
func (f *flows) change(name string, c people.UserChange) {
	f.t.Helper()
	_, err := f.people.SetUser(context.Background(), people.CLI, name, c)
	must(f.t, err)
}

// records reads the log's records as they are stored.
func (f *flows) records() []string {
	f.t.Helper()
	rows, err := storetest.Outside(f.t, f.dsn).Query(`SELECT bytes FROM audit_records ORDER BY seq`)
	must(f.t, err)
	defer rows.Close()
	var out []string
	for rows.Next() {
		var r string
		must(f.t, rows.Scan(&r))
		out = append(out, r)
	}
	must(f.t, rows.Err())
	return out
}

// recorded counts the records with a reason.
func (f *flows) recorded(reason string) int {
	f.t.Helper()
	n := 0
	for _, r := range f.records() {
		if strings.Contains(r, `"reason":"`+reason+`"`) {
			n++
		}
	}
	return n
}

// header reads the header of a token, which nobody has verified.
func header(t *testing.T, token string) map[string]any {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
	must(t, err)
	var h map[string]any
	must(t, json.Unmarshal(raw, &h))
	return h
}
