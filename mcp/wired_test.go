package mcp_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/api"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
	"github.com/kavach-dev/kavach/mcp"
	"github.com/kavach-dev/kavach/people"
	"github.com/kavach-dev/kavach/store"
	"github.com/kavach-dev/kavach/store/storetest"
	"github.com/kavach-dev/kavach/templates"
)

// deployment is the endpoint and the API on a real authorization server, log
// and database.
type deployment struct {
	world
	issuer   string
	keys     *authz.Keyring
	store    *store.Store
	log      *audit.Log
	registry *authz.Registry
	agents   *authz.Agents
	people   *people.Server
}

// revoker adapts the registry as the command does.
type revoker struct{ registry *authz.Registry }

func (r revoker) Revoke(ctx context.Context, caller *delegation.Chain, what mcp.Revocation) (mcp.Revoked, error) {
	done, err := r.registry.Revoke(ctx, caller, authz.RevokeTarget(what))
	return mcp.Revoked(done), err
}

const git = "https://git.example"

// newDeployment starts one; between, if given, comes between the decisions of
// the authorization server and the log.
func newDeployment(t testing.TB, between ...func(audit.Committer) audit.Committer) *deployment {
	t.Helper()
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	d := &deployment{world: world{t: t}}
	var handler http.Handler
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	t.Cleanup(web.Close)
	d.issuer, d.url = web.URL, web.URL+mcp.Path
	quiet := slog.New(slog.DiscardHandler)

	var err error
	d.store, err = store.Open(ctx, store.Config{DSN: storetest.DSN(t), Token: storetest.Token, Issuer: d.issuer, MinFree: -1})
	must(err)
	d.log = audit.NewLog(audit.Config{Store: d.store, Logger: quiet})
	t.Cleanup(func() {
		_ = d.log.Close(context.Background())
		_ = d.store.Close()
	})
	d.keys, err = authz.OpenKeyring(ctx, authz.KeyringConfig{Store: d.store, Commit: d.log, Secret: authz.NewDeploymentSecret()})
	must(err)
	d.registry, err = authz.NewRegistry(authz.RegistryConfig{
		Issuer: d.issuer, Store: d.store, Flows: d.store, Agents: d.store, Commit: d.log, Refusals: d.log, Keys: d.keys, Log: quiet,
	})
	must(err)
	d.agents = authz.NewAgents(authz.AgentsConfig{Issuer: d.issuer, Store: d.store, Commit: d.log, Refusals: d.log, Registry: d.registry})
	pages, err := templates.New(templates.Config{Issuer: d.issuer, Logger: quiet})
	must(err)
	d.people, err = people.New(people.Config{
		Store: d.store, Log: d.log, Pages: pages, Issuer: d.issuer, CookieSecrets: d.keys.Cookie, Logger: quiet,
	})
	must(err)
	var commit audit.Committer = d.log
	for _, wrap := range between {
		commit = wrap(commit)
	}
	server, err := authz.New(authz.Config{
		Issuer: d.issuer, Store: d.store, Registry: d.registry, Keys: d.keys, Agents: d.agents, People: d.people,
		Pages: pages, Commit: commit, Refusals: d.log, Log: quiet,
	})
	must(err)
	reader := audit.NewReader(audit.ReaderConfig{Store: d.store, Secrets: d.keys.Cursor})
	tools, err := mcp.New(mcp.Config{
		Issuer: d.issuer, Verifier: d.registry.Verifier(), Revocations: d.registry, Delegator: server, Revoker: revoker{d.registry},
		Auditor: reader, Agents: d.agents, Commit: d.log, Refusals: d.log, Replays: authz.NewReplays(d.store, d.log),
		Counters: authz.NewCounters(d.store, d.log),
	})
	must(err)
	programs, err := api.New(api.Config{
		Issuer: d.issuer, Verifier: d.registry.Verifier(), Revocations: d.registry, Agents: d.agents, People: d.registry,
		Auditor: reader, Resources: d.registry, Spent: d.store, Commit: d.log, Refusals: d.log,
		Replays: authz.NewReplays(d.store, d.log), Counters: authz.NewCounters(d.store, d.log),
	})
	must(err)
	mux := http.NewServeMux()
	mux.Handle(mcp.Path, tools.Handler())
	mux.Handle(api.Path+"/", programs.Handler())
	mux.Handle("/.well-known/", server.Handler())
	mux.Handle("/oauth/", server.Handler())
	handler = mux

	must(d.registry.AddResource(ctx, authz.Actor{Agent: audit.Operator, Via: "cli"}, authz.Resource{
		ID: git, Name: "Git", Aware: true, TokenAlg: authz.AlgES256, Scopes: []authz.Scope{
			{Name: "repo:read", Description: "Read code"}, {Name: "comment:write", Description: "Comment", Sensitive: true},
		},
	}))
	return d
}

func (d *deployment) user(name string, role people.Role) people.User {
	d.t.Helper()
	u, err := d.people.CreateUser(context.Background(), people.CLI, people.NewUser{Name: name, Password: "correct horse battery staple", Role: role})
	if err != nil {
		d.t.Fatal(err)
	}
	return u
}

// signIn is what the authorization code flow leaves behind: a grant, and a
// token below it.
func (d *deployment) signIn(u people.User, client string, audience []string, scopes ...string) string {
	d.t.Helper()
	return d.signInBound(u, client, agent.PublicKey{}, audience, scopes...)
}

// signInBound is signIn for a token that is bound to a key.
func (d *deployment) signInBound(u people.User, client string, holder agent.PublicKey, audience []string, scopes ...string) string {
	d.t.Helper()
	ctx, now := context.Background(), time.Now()
	if _, err := d.registry.Client(ctx, client); err != nil {
		if _, _, err := d.registry.AddClient(ctx, authz.Actor{Agent: audit.Operator, Via: "cli"}, authz.NewClient{
			ID: client, Name: client, Method: authz.MethodNone, RedirectURIs: []string{"https://" + client + ".example/cb"},
		}); err != nil {
			d.t.Fatal(err)
		}
	}
	slices.Sort(scopes)
	gid := "grant-" + u.Name + "-" + client + "-" + time.Now().Format("150405.000000000")
	grant := authz.Grant{
		ID: gid, Kind: authz.GrantAuthorization, Sub: u.ID, ClientID: client, RedirectURI: "https://" + client + ".example/cb", Scopes: scopes,
		Resources: audience, MaxDepth: delegation.DefaultMaxDepth, Created: now, Used: now, Expires: now.Add(time.Hour),
	}
	if err := d.log.Commit(ctx, audit.Change{Effects: []audit.Effect{d.store.AddGrant(grant)}}); err != nil {
		d.t.Fatal(err)
	}
	key, err := d.keys.Signer(ctx, authz.AlgES256)
	if err != nil {
		d.t.Fatal(err)
	}
	jkt := ""
	if !holder.IsZero() {
		jkt = holder.Thumbprint()
	}
	signed, err := delegation.Sign(delegation.Claims{
		Issuer: d.issuer, Subject: u.ID, ClientID: client, Audience: audience, IssuedAt: now, Expires: now.Add(5 * time.Minute),
		Scopes: scopes, GrantID: gid, JKT: jkt,
	}, key)
	if err != nil {
		d.t.Fatal(err)
	}
	return signed.Token
}

// enrol registers an agent through the API, as `kavach agent register` does.
func (d *deployment) enrol(owner people.User, name string) string {
	d.t.Helper()
	id, _ := d.enrolKey(owner, name)
	return id
}

// enrolKey is enrol, and returns the agent's identity key too.
func (d *deployment) enrolKey(owner people.User, name string) (string, agent.PrivateKey) {
	d.t.Helper()
	now := time.Now()
	key, err := agent.GenerateKey()
	if err != nil {
		d.t.Fatal(err)
	}
	manifest, err := agent.SignManifest(agent.Manifest{
		Name: name, Version: "1.0.0", Purpose: "Reviews code.", Scopes: []string{"comment:write", "repo:read"},
		Capabilities: []string{"read", "delegate"}, MaxDepth: 2, IssuedAt: now, Expires: now.Add(time.Hour),
	}, key)
	if err != nil {
		d.t.Fatal(err)
	}
	id := key.Public().Thumbprint()
	assertion, err := agent.SignAssertion(key, id, d.issuer, now, time.Minute)
	if err != nil {
		d.t.Fatal(err)
	}
	body, err := jcs.Marshal(map[string]any{"manifest": manifest, "assertion": assertion})
	if err != nil {
		d.t.Fatal(err)
	}
	req, err := http.NewRequest("POST", d.issuer+"/api/v1/agents", strings.NewReader(string(body)))
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+d.signIn(owner, "console", []string{d.issuer + "/api"}, "agents:manage"))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(resp.Body)
	v, err := jcs.Parse(answer, jcs.Limits{})
	if resp.StatusCode != http.StatusCreated || err != nil || v.Get("id").Str() != id || v.Get("owner").Str() != owner.ID {
		d.t.Fatalf("registering %s: %d %s", name, resp.StatusCode, answer)
	}
	return id, key
}

func TestWholeStory(t *testing.T) {
	d := newDeployment(t)
	alice, bob := d.user("alice", people.Member), d.user("bob", people.Member)
	coder := d.enrol(alice, "code-reviewer")
	d.enrol(bob, "spy")
	mine := []string{git, d.issuer + "/mcp"}
	token := d.signIn(alice, "inspector", mine, "kavach:delegate", "kavach:verify", "kavach:audit", "repo:read")
	strange := d.signIn(bob, "cursor", mine, "kavach:delegate", "kavach:verify", "kavach:audit", "repo:read")

	made := d.content(token, "delegate", `{"agent":"code-reviewer","scopes":["repo:read"],"ttl_seconds":180,"constraints":{"resources":["pr/847"],"allow_network":["git.internal"]}}`)
	id, given := made.Get("token_id").Str(), made.Get("token").Str()
	if path, _ := made.Get("chain").Strings(); !slices.Equal(path, []string{alice.ID, "inspector", coder}) {
		t.Errorf("chain %v", path)
	}
	if audience, _ := made.Get("audience").Strings(); !slices.Equal(audience, []string{git}) {
		t.Errorf("audience %v", audience)
	}

	v := d.content(token, "verify", args(`{"token":%q,"audience":%q,"request":{"scope":"repo:read","resource":"pr/847","host":"git.internal"}}`, given, git))
	if !v.Get("valid").Bool() || !v.Get("allowed").Bool() || v.Get("subject").Str() != alice.ID {
		t.Errorf("%s", jcs.Canonical(v))
	}
	v = d.content(token, "verify", args(`{"token":%q,"audience":%q,"request":{"scope":"comment:write","resource":"pr/847","host":"git.internal"}}`, given, git))
	if v.Get("allowed").Bool() || v.Get("reason").Str() != "scope_not_granted" {
		t.Errorf("%s", jcs.Canonical(v))
	}

	for name, c := range map[string]struct{ arguments, reason string }{
		"a scope it does not hold":   {`{"agent":"code-reviewer","scopes":["comment:write"]}`, "not_narrower"},
		"an unknown scope":           {`{"agent":"code-reviewer","scopes":["admin"]}`, "invalid_scope"},
		"an unknown agent":           {`{"agent":"nobody","scopes":["repo:read"]}`, "invalid_request"},
		"somebody else's agent":      {`{"agent":"spy","scopes":["repo:read"]}`, "invalid_request"},
		"an unknown audience":        {`{"agent":"code-reviewer","scopes":["repo:read"],"audience":"https://evil.example"}`, "invalid_target"},
		"a parent of one's choosing": {args(`{"agent":"code-reviewer","parent_id":%q}`, id), "invalid_arguments"},
	} {
		if text := d.refusal(token, "delegate", c.arguments); !strings.HasPrefix(text, "refused: "+c.reason+": ") {
			t.Errorf("%s: %s", name, text)
		}
	}

	// Alice finds what was done below her, and how; bob finds none of it.
	entries := d.content(token, "audit", `{"action":"delegate","result":"allowed"}`).Get("entries").Elements()
	if len(entries) != 1 || entries[0].Get("sub").Str() != alice.ID || entries[0].Get("detail").Get("via").Str() != "mcp" {
		t.Errorf("entries %v", entries)
	}
	if found := d.content(token, "audit", args(`{"lid":%q}`, id)).Get("entries").Elements(); len(found) == 0 {
		t.Error("nothing by lid")
	}
	if found := d.content(strange, "audit", args(`{"lid":%q}`, id)).Get("entries").Elements(); len(found) != 0 {
		t.Errorf("bob sees %v", found)
	}
	for _, q := range []string{args(`{"sub":%q}`, alice.ID), `{"agent":"inspector"}`, `{"q":"%"}`, `{"agent":"' OR 1=1 --"}`, `{"resource":"\" OR \"\"=\""}`} {
		for _, e := range d.content(strange, "audit", q).Get("entries").Elements() {
			if e.Get("sub").Str() != bob.ID {
				t.Errorf("%s shows bob %s", q, jcs.Canonical(e))
			}
		}
	}
	if text := d.refusal(strange, "audit", args(`{"id":%q}`, entries[0].Get("id").Str())); !strings.HasPrefix(text, "refused: not_found: ") {
		t.Error(text)
	}
	if r := d.read(strange, "kavach://chain/"+id); !strings.Contains(string(r.body), "not_found") {
		t.Errorf("%s", r.body)
	}
	if doc := document(t, d.read(token, "kavach://chain/"+id)); len(doc.Get("entries").Elements()) == 0 {
		t.Error("an empty chain")
	}

	// A cursor is for its caller and its filter, as it was made.
	page := d.content(token, "audit", `{"limit":1}`)
	cursor := page.Get("next_cursor").Str()
	d.content(token, "audit", args(`{"limit":1,"cursor":%q}`, cursor))
	flipped := []byte(cursor)
	flipped[len(flipped)/2] ^= 1
	for name, c := range map[string]struct{ token, arguments string }{
		"another filter": {token, args(`{"cursor":%q,"result":"denied"}`, cursor)},
		"another caller": {strange, args(`{"limit":1,"cursor":%q}`, cursor)},
		"edited":         {token, args(`{"limit":1,"cursor":%q}`, flipped)},
		"made up":        {token, `{"cursor":"eyJzZXEiOjB9"}`},
	} {
		if text := d.refusal(c.token, "audit", c.arguments); !strings.HasPrefix(text, "refused: invalid_cursor: ") {
			t.Errorf("%s: %s", name, text)
		}
	}

	// Only who is above may revoke; then the token is dead everywhere.
	if text := d.refusal(strange, "revoke", args(`{"token_id":%q}`, id)); !strings.HasPrefix(text, "refused: invalid_grant: ") {
		t.Error(text)
	}
	gone := d.content(token, "revoke", args(`{"token_id":%q}`, id))
	if lids, _ := gone.Get("revoked").Strings(); !slices.Equal(lids, []string{id}) || !gone.Get("recorded").Bool() {
		t.Errorf("%s", jcs.Canonical(gone))
	}
	v = d.content(token, "verify", args(`{"token":%q,"audience":%q}`, given, git))
	if v.Get("valid").Bool() || v.Get("reason").Str() != "revoked" {
		t.Errorf("%s", jcs.Canonical(v))
	}

	if r := d.send(d.signIn(alice, "inspector", mine, "repo:read"), `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"audit","arguments":{}}}`); r.status != 403 {
		t.Errorf("without kavach:audit: %d", r.status)
	}
	// Every decision of this test is in the log, whole.
	var denied []string
	operator := d.signIn(d.user("root", people.Operator), "console", []string{d.issuer + "/mcp"}, "audit:read")
	auditor := d.signIn(d.user("ann", people.Auditor), "console", []string{d.issuer + "/mcp"}, "audit:read")
	page = d.content(operator, "audit", `{"limit":1}`)
	if text := d.refusal(auditor, "audit", args(`{"limit":1,"cursor":%q}`, page.Get("next_cursor").Str())); !strings.HasPrefix(text, "refused: invalid_cursor: ") {
		t.Errorf("who sees everything, with the cursor of another who does: %s", text)
	}
	for cursor := ""; ; {
		query := `{"result":"denied","order":"oldest"}`
		if cursor != "" {
			query = args(`{"result":"denied","order":"oldest","cursor":%q}`, cursor)
		}
		page := d.content(operator, "audit", query)
		for _, e := range page.Get("entries").Elements() {
			denied = append(denied, e.Get("action").Str()+" "+e.Get("reason").Str())
		}
		if cursor = page.Get("next_cursor").Str(); cursor == "" {
			break
		}
	}
	for _, want := range []string{
		"delegate not_narrower", "delegate invalid_scope", "delegate invalid_target", "delegate invalid_arguments",
		"audit.read not_found", "audit.read invalid_cursor", "audit.read scope_not_granted", "revoke invalid_grant",
	} {
		if !slices.Contains(denied, want) {
			t.Errorf("%q is not among %v", want, denied)
		}
	}
}

// With the receiver's public key the result is a root: nothing in it is of use
// without that key, and links can be appended to it offline.
func TestDelegateToAKey(t *testing.T) {
	d := newDeployment(t)
	alice := d.user("alice", people.Member)
	coder := d.enrol(alice, "code-reviewer")
	token := d.signIn(alice, "inspector", []string{git, d.issuer + "/mcp"}, "kavach:delegate", "kavach:verify", "repo:read")
	key, err := agent.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := jcs.Marshal(key.Public().JWK())
	if err != nil {
		t.Fatal(err)
	}
	made := d.content(token, "delegate", args(`{"agent":%q,"scopes":["repo:read"],"public_key":%s,"max_depth":1}`, coder, jwk))
	if made.Get("token_type").Str() != "DPoP" {
		t.Errorf("%s", jcs.Canonical(made))
	}
	root := made.Get("token").Str()
	v := d.content(token, "verify", args(`{"token":%q,"audience":%q}`, root, git))
	unchecked, _ := v.Get("unchecked").Strings()
	if !v.Get("valid").Bool() || !slices.Contains(unchecked, "proof") {
		t.Errorf("%s", jcs.Canonical(v))
	}
	next, err := agent.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	derived, err := delegation.Derive(root, key, next.Public(), delegation.Narrow{ClientID: "helper", Scopes: []string{"repo:read"}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	v = d.content(token, "verify", args(`{"token":%q,"audience":%q,"request":{"scope":"repo:read"}}`, derived.Chain, git))
	if !v.Get("valid").Bool() || !v.Get("allowed").Bool() || len(v.Get("chain").Elements()) != 2 || v.Get("chain").Elements()[1].Get("confirmed").Bool() {
		t.Errorf("%s", jcs.Canonical(v))
	}
	if r := d.send(derived.Chain, ping); r.status != 401 {
		t.Errorf("a chain without proof: %d", r.status)
	}
	gone := d.content(token, "revoke", args(`{"chain":%q}`, derived.Chain))
	if lids, _ := gone.Get("revoked").Strings(); len(lids) != 1 {
		t.Errorf("%s", jcs.Canonical(gone))
	}
	if v := d.content(token, "verify", args(`{"token":%q}`, derived.Chain)); v.Get("reason").Str() != "revoked" {
		t.Errorf("%s", jcs.Canonical(v))
	}
	if v := d.content(token, "verify", args(`{"token":%q}`, root)); !v.Get("valid").Bool() {
		t.Errorf("revoking a link killed its parent: %s", jcs.Canonical(v))
	}
}

// "the same bytes with resource: ISSUER/mcp at … for clients that fall back;
// ISSUER/api has its own document", where the challenges say.
func TestMetadataIsWhereTheChallengeSays(t *testing.T) {
	d := newDeployment(t)
	get := func(url string) jcs.Value {
		t.Helper()
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		v, err := jcs.Parse(body, jcs.Limits{})
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %s", url, resp.StatusCode, body)
		}
		return v
	}
	for path, resource := range map[string]string{mcp.Path: "/mcp", "/api/v1/agents": "/api"} {
		resp, err := http.Get(d.issuer + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		_, rest, _ := strings.Cut(resp.Header.Get("WWW-Authenticate"), `resource_metadata="`)
		url, _, _ := strings.Cut(rest, `"`)
		v := get(url)
		servers, _ := v.Get("authorization_servers").Strings()
		if v.Get("resource").Str() != d.issuer+resource || !slices.Equal(servers, []string{d.issuer}) {
			t.Errorf("%s: %s", url, jcs.Canonical(v))
		}
	}
	bare, own := get(d.issuer+"/.well-known/oauth-protected-resource"), get(d.issuer+"/.well-known/oauth-protected-resource/mcp")
	if !jcs.Equal(bare, own) {
		t.Errorf("%s is not %s", jcs.Canonical(bare), jcs.Canonical(own))
	}
	if scopes, _ := own.Get("scopes_supported").Strings(); !slices.Equal(scopes, []string{"kavach:audit", "kavach:delegate", "kavach:verify"}) {
		t.Errorf("scopes %v", scopes)
	}
}
