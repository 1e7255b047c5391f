package authz_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/people"
	"github.com/kavach-dev/kavach/store"
	"github.com/kavach-dev/kavach/store/storetest"
)

const testIssuer = "https://auth.example"

var errDatabase = errors.New("the database is away (SECRET-CANARY)")

// faultyStore is the real store, whose reads can be told to fail.
type faultyStore struct {
	*store.Store
	away atomic.Bool
}

func (s *faultyStore) Client(ctx context.Context, id string) (authz.Client, error) {
	if s.away.Load() {
		return authz.Client{}, errDatabase
	}
	return s.Store.Client(ctx, id)
}

func (s *faultyStore) Standing(ctx context.Context, q authz.StandingQuery) (authz.Standing, error) {
	if s.away.Load() {
		return authz.Standing{}, errDatabase
	}
	return s.Store.Standing(ctx, q)
}

func (s *faultyStore) RefreshToken(ctx context.Context, hash string) (authz.RefreshToken, authz.Grant, error) {
	if s.away.Load() {
		return authz.RefreshToken{}, authz.Grant{}, errDatabase
	}
	return s.Store.RefreshToken(ctx, hash)
}

func (s *faultyStore) Feed(ctx context.Context, now time.Time) (authz.FeedState, error) {
	if s.away.Load() {
		return authz.FeedState{}, errDatabase
	}
	return s.Store.Feed(ctx, now)
}

// gate is the real log, which can be told to refuse.
type gate struct {
	*audit.Log
	refuse atomic.Pointer[error]
}

func (g *gate) Commit(ctx context.Context, c audit.Change) error {
	if err := g.refuse.Load(); err != nil {
		return *err
	}
	return g.Log.Commit(ctx, c)
}

func (g *gate) fail(err error) {
	if err == nil {
		g.refuse.Store(nil)
		return
	}
	g.refuse.Store(&err)
}

// registryTest is a registry on a real database with a real log.
type registryTest struct {
	*testing.T
	clock  *clock
	dsn    string
	store  *faultyStore
	log    *gate
	keys   *authz.Keyring
	secret authz.DeploymentSecret
	*authz.Registry
}

func newRegistry(t *testing.T, change ...func(*authz.RegistryConfig)) *registryTest {
	t.Helper()
	rt := &registryTest{
		T: t, clock: &clock{t: time.Unix(1_800_000_000, 0)}, dsn: storetest.DSN(t),
		secret: authz.NewDeploymentSecret(),
	}
	ctx := context.Background()
	s, err := store.Open(ctx, store.Config{DSN: rt.dsn, Token: storetest.Token, Issuer: testIssuer, MinFree: -1})
	must(t, err)
	rt.store = &faultyStore{Store: s}
	rt.log = &gate{Log: audit.NewLog(audit.Config{Store: s, Now: rt.clock.now, Logger: slog.New(slog.DiscardHandler)})}
	t.Cleanup(func() {
		_ = rt.log.Close(context.Background())
		_ = s.Close()
	})
	rt.keys, err = authz.OpenKeyring(ctx, authz.KeyringConfig{Store: s, Commit: rt.log, Secret: rt.secret, Now: rt.clock.now})
	must(t, err)
	cfg := authz.RegistryConfig{
		Issuer: testIssuer, Store: rt.store, Flows: rt.store, Agents: rt.store, Commit: rt.log, Refusals: rt.log, Keys: rt.keys, Now: rt.clock.now,
	}
	for _, f := range change {
		f(&cfg)
	}
	rt.Registry, err = authz.NewRegistry(cfg)
	must(t, err)
	return rt
}

func (rt *registryTest) commit(effects ...audit.Effect) {
	rt.Helper()
	must(rt.T, rt.log.Commit(context.Background(), audit.Change{Effects: effects}))
}

// exec writes to the database behind everybody's back.
func (rt *registryTest) exec(query string, args ...any) {
	rt.Helper()
	_, err := storetest.Outside(rt.T, rt.dsn).Exec(query, args...)
	must(rt.T, err)
}

// client adds a static client.
func (rt *registryTest) client(n authz.NewClient) (authz.Client, string) {
	rt.Helper()
	if n.Name == "" {
		n.Name = "a client"
	}
	c, secret, err := rt.AddClient(context.Background(), authz.Actor{Agent: audit.Operator, Via: "cli"}, n)
	must(rt.T, err)
	return c, secret.Reveal()
}

// user adds a person.
func (rt *registryTest) user(id string, role people.Role) {
	rt.Helper()
	rt.commit(rt.store.InsertUser(people.User{ID: id, Name: strings.ToLower(id), Role: role, Created: rt.clock.now()}, "x"))
}

// agent adds an agent.
func (rt *registryTest) agent(owner, name string) string {
	rt.Helper()
	key := holderKey(rt.T).Public()
	rt.commit(rt.store.InsertAgent(authz.Agent{
		ID: key.Thumbprint(), Owner: owner, Name: name, Status: authz.AgentActive, Version: "1.0.0", Purpose: "p",
		Capabilities: []string{agent.CapabilityDelegate}, MaxDepth: 3, Key: key, ManifestSeq: 1,
		ManifestExpires: rt.clock.now().Add(time.Hour), Created: rt.clock.now(),
	}))
	return key.Thumbprint()
}

// token signs a plain access token of a client for a principal.
func (rt *registryTest) token(sub, client, gid string, scopes []string, aud ...string) string {
	rt.Helper()
	return rt.sign(delegation.Claims{
		Subject: sub, ClientID: client, GrantID: gid, Scopes: scopes, Audience: aud,
	}, authz.AlgES256).Token
}

func (rt *registryTest) sign(c delegation.Claims, alg string) delegation.Signed {
	rt.Helper()
	c.Issuer, c.IssuedAt = testIssuer, rt.clock.now()
	if c.Expires.IsZero() {
		c.Expires = c.IssuedAt.Add(10 * time.Minute)
	}
	if len(c.Audience) == 0 {
		c.Audience = []string{testIssuer + "/mcp"}
	}
	key, err := rt.keys.Signer(context.Background(), alg)
	must(rt.T, err)
	signed, err := delegation.Sign(c, key)
	must(rt.T, err)
	return signed
}

func (rt *registryTest) chain(token string) *delegation.Chain {
	rt.Helper()
	c, err := rt.Verifier().Verify(token, rt.clock.now())
	must(rt.T, err)
	return c
}

// delegate hands a token on as the server does, with its record.
func (rt *registryTest) delegate(parent, receiver string, scopes ...string) string {
	rt.Helper()
	p := rt.chain(parent)
	draft, err := p.Exchange(delegation.Ask{
		Receiver: receiver, Scopes: scopes, Audience: p.Audience(), GrantDepth: 4, TTL: 5 * time.Minute,
	}, rt.clock.now())
	must(rt.T, err)
	key, err := rt.keys.Signer(context.Background(), authz.AlgES256)
	must(rt.T, err)
	issued, err := draft.Sign(key)
	must(rt.T, err)
	e := audit.Entry{
		Action: audit.Delegate, Result: audit.Allowed, Agent: p.Agent(), Sub: p.Principal(), Grant: p.GrantID(),
		Path: issued.Path, Anc: draft.Claims.Ancestry, Issued: []audit.Issued{{LID: issued.LID, Expires: issued.Expires.Unix()}},
	}
	for _, l := range p.Links() {
		e.Chain = append(e.Chain, audit.Party{LID: l.LID, JTI: l.JTI, ClientID: l.ClientID})
	}
	must(rt.T, rt.log.Commit(context.Background(), audit.Change{Entries: []audit.Entry{e}}))
	return issued.Token
}

// derive appends a link offline.
func (rt *registryTest) derive(parent string, key agent.PrivateKey, to agent.PublicKey, name string) string {
	rt.Helper()
	derived, err := delegation.Derive(parent, key, to, delegation.Narrow{ClientID: name, Scopes: []string{"kavach:verify"}}, rt.clock.now())
	must(rt.T, err)
	return derived.Chain
}

// refreshToken adds a grant with a refresh token and returns the token.
func (rt *registryTest) refreshToken(sub, client, gid string, scopes ...string) string {
	rt.Helper()
	token := rand.Text()
	now := rt.clock.now()
	rt.commit(
		rt.store.AddGrant(authz.Grant{
			ID: gid, Kind: authz.GrantAuthorization, Sub: sub, ClientID: client, Scopes: scopes,
			Resources: []string{testIssuer + "/mcp"}, Created: now, Expires: now.Add(24 * time.Hour),
		}),
		rt.store.AddRefreshToken(authz.RefreshToken{
			Hash: authz.HashSecret(token), GrantID: gid, ClientID: client, Created: now,
			Expires: now.Add(time.Hour), FamilyEnd: now.Add(24 * time.Hour),
		}),
	)
	return token
}

func (rt *registryTest) dead(token string) bool {
	rt.Helper()
	dead, err := rt.Revoked(context.Background(), rt.chain(token))
	must(rt.T, err)
	return dead
}

// records returns the entries of an action, oldest first.
func (rt *registryTest) records(action string) []audit.Entry {
	rt.Helper()
	reader := audit.NewReader(audit.ReaderConfig{Store: rt.store.Store, Secrets: rt.keys.Cursor})
	page, err := reader.Entries(context.Background(), audit.Query{
		Sight: audit.Sight{All: true}, Action: action, Ascending: true, Limit: 500,
	})
	must(rt.T, err)
	var entries []audit.Entry
	for _, s := range page.Entries {
		entries = append(entries, s.Entry)
	}
	return entries
}

// waitFor waits for a record that nobody waits for.
func (rt *registryTest) waitFor(action, reason string) audit.Entry {
	rt.Helper()
	for range 300 {
		entries := rt.records(action)
		if i := slices.IndexFunc(entries, func(e audit.Entry) bool { return e.Reason == reason }); i >= 0 {
			return entries[i]
		}
		time.Sleep(10 * time.Millisecond)
	}
	rt.Fatalf("no record %s with reason %s", action, reason)
	return audit.Entry{}
}

// reply is an answer in a test.
type reply struct {
	status int
	header http.Header
	body   string
}

func (a reply) json(t *testing.T) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(a.body), &m); err != nil {
		t.Fatalf("answer %d is not JSON: %q", a.status, a.body)
	}
	return m
}

func serve(h http.HandlerFunc, r *http.Request) reply {
	w := httptest.NewRecorder()
	h(w, r)
	return reply{w.Code, w.Header(), w.Body.String()}
}

// post sends a form; auth is "id", "secret" for Basic.
func post(h http.HandlerFunc, form url.Values, basic ...string) reply {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if len(basic) == 2 {
		r.SetBasicAuth(url.QueryEscape(basic[0]), url.QueryEscape(basic[1]))
	}
	return serve(h, r)
}

// wantRefusal checks the form of an OAuth error and that it says nothing it
// must not.
func wantRefusal(t *testing.T, a reply, status int, code string) {
	t.Helper()
	if a.status != status || a.json(t)["error"] != code {
		t.Fatalf("want %d %s, got %d %s", status, code, a.status, a.body)
	}
	if a.header.Get("Cache-Control") != "no-store" || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("an error must be no-store JSON: %v", a.header)
	}
	if status == http.StatusUnauthorized && a.header.Get("WWW-Authenticate") == "" {
		t.Error("401 without WWW-Authenticate")
	}
	if status == http.StatusServiceUnavailable && a.header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	if strings.Contains(a.body, "CANARY") || strings.Contains(a.body, "database") {
		t.Errorf("internal text in %s", a.body)
	}
}

// holderKey makes the key of a bound token.
func holderKey(t *testing.T) agent.PrivateKey {
	t.Helper()
	key, err := agent.GenerateKey()
	must(t, err)
	return key
}
