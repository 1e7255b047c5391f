package api_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/api"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
	"github.com/kavach-dev/kavach/store"
	"github.com/kavach-dev/kavach/store/storetest"
)

const (
	git     = "https://git.internal"
	gitHost = "git-host"
	wiki    = "https://wiki.internal"
)

// desk is the API on a real log and registry, for reports.
type desk struct {
	t        *testing.T
	url      string
	log      *audit.Log
	reader   *audit.Reader
	registry *authz.Registry
	key      delegation.ServerKey

	mu   sync.Mutex // guards what follows
	now  time.Time
	down bool
}

// Commit implements audit.Committer.
func (d *desk) Commit(ctx context.Context, c audit.Change) error {
	d.mu.Lock()
	down := d.down
	d.mu.Unlock()
	if down {
		return audit.ErrUnavailable
	}
	return d.log.Commit(ctx, c)
}

func (d *desk) clock() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

func (d *desk) advance(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = d.now.Add(by)
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	ctx := context.Background()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	d := &desk{t: t, now: time.Unix(1_795_000_000, 0)}
	quiet := slog.New(slog.DiscardHandler)
	db, err := store.Open(ctx, store.Config{DSN: storetest.DSN(t), Token: storetest.Token, Issuer: issuer, MinFree: -1})
	must(err)
	d.log = audit.NewLog(audit.Config{Store: db, Logger: quiet, Now: d.clock})
	t.Cleanup(func() {
		_ = d.log.Close(context.Background())
		_ = db.Close()
	})
	keys, err := authz.OpenKeyring(ctx, authz.KeyringConfig{Store: db, Commit: d.log, Secret: authz.NewDeploymentSecret()})
	must(err)
	d.registry, err = authz.NewRegistry(authz.RegistryConfig{
		Issuer: issuer, Store: db, Flows: db, Agents: db, Commit: d.log, Refusals: d.log, Keys: keys, Log: quiet, Now: d.clock,
	})
	must(err)
	d.key, err = keys.Signer(ctx, authz.AlgEd25519)
	must(err)
	d.reader = audit.NewReader(audit.ReaderConfig{Store: db})
	s, err := api.New(api.Config{
		Issuer: issuer, Verifier: d.registry.Verifier(), Agents: &world{}, People: &world{}, Auditor: d.reader,
		Resources: d.registry, Spent: db, Commit: d, Refusals: d.log, Now: d.clock,
	})
	must(err)
	web := httptest.NewServer(s.Handler())
	t.Cleanup(web.Close)
	d.url = web.URL

	by := authz.Actor{Agent: audit.Operator, Via: "cli"}
	for client, resource := range map[string]string{gitHost: git, "wiki-host": wiki, "repo-host": git + "/vault"} {
		_, _, err = d.registry.AddClient(ctx, by, authz.NewClient{ID: client, Name: client, Scopes: []string{"audit:write"}})
		must(err)
		must(d.registry.AddResource(ctx, by, authz.Resource{
			ID: resource, Name: client, Aware: true, Introspector: client, Scopes: []authz.Scope{{Name: client + ":use", Description: "Use it"}},
		}))
	}
	return d
}

// sign makes a token or root for the audience.
func (d *desk) sign(change func(*delegation.Claims)) string {
	d.t.Helper()
	c := delegation.Claims{
		Issuer: issuer, Subject: "usr_alice", ClientID: "orchestrator", Audience: []string{git}, GrantID: "grant-1",
		IssuedAt: d.clock(), Expires: d.clock().Add(5 * time.Minute), Scopes: []string{"git-host:use"},
	}
	change(&c)
	signed, err := delegation.Sign(c, d.key)
	if err != nil {
		d.t.Fatal(err)
	}
	return signed.Token
}

// reporter is a token that a client got for itself.
func (d *desk) reporter(client string, scopes ...string) string {
	return d.sign(func(c *delegation.Claims) {
		c.Subject, c.ClientID, c.Audience, c.GrantID, c.Scopes = client, client, []string{issuer + "/api"}, "", scopes
		c.GrantID = "grant-of-" + client
		c.Expires = d.clock().Add(time.Hour)
	})
}

// credential is a chain and the key that its holder proves.
type credential struct {
	text string
	key  agent.PrivateKey
}

func (d *desk) secret() agent.PrivateKey {
	d.t.Helper()
	key, err := agent.GenerateKey()
	if err != nil {
		d.t.Fatal(err)
	}
	return key
}

// chain is what the orchestrator handed to the reviewer.
func (d *desk) chain(audience string) credential {
	d.t.Helper()
	holder, reviewer := d.secret(), d.secret()
	root := d.sign(func(c *delegation.Claims) {
		c.Root, c.MaxDepth, c.Key, c.Audience = true, 2, holder.Public(), []string{audience}
	})
	derived, err := delegation.Derive(root, holder, reviewer.Public(), delegation.Narrow{
		ClientID: "code-reviewer", Scopes: []string{"git-host:use"}, TTL: 2 * time.Minute,
	}, d.clock())
	if err != nil {
		d.t.Fatal(err)
	}
	return credential{derived.Chain, reviewer}
}

func (d *desk) proof(c credential, method, url string) string {
	d.t.Helper()
	proof, err := agent.SignProof(c.key, agent.Proof{Method: method, URL: url, Token: c.text, IssuedAt: d.clock()})
	if err != nil {
		d.t.Fatal(err)
	}
	return proof
}

// said is an entry as a reporter sends it, after changes of members; nil
// removes one.
func (d *desk) said(pairs ...any) map[string]any {
	e := map[string]any{
		"id": delegation.NewJTI(d.clock()), "observed": d.clock().UnixMilli(), "action": "rs.access",
		"resource": git + "/pulls/847", "result": "allowed",
	}
	for i := 0; i < len(pairs); i += 2 {
		e[pairs[i].(string)] = pairs[i+1]
		if pairs[i+1] == nil {
			delete(e, pairs[i].(string))
		}
	}
	return e
}

// proved is an entry with chain and proof.
func (d *desk) proved(c credential, pairs ...any) map[string]any {
	url := git + "/pulls/847"
	return d.said(append([]any{
		"credential", c.text, "proof", d.proof(c, "GET", url), "method", "GET", "url", url,
	}, pairs...)...)
}

func (d *desk) post(token string, entries ...map[string]any) reply {
	d.t.Helper()
	body, err := jcs.Marshal(map[string]any{"entries": entries})
	if err != nil {
		d.t.Fatal(err)
	}
	return d.send("POST", "/api/v1/audit/entries", token, string(body))
}

func (d *desk) send(method, path, token, body string, headers ...string) reply {
	d.t.Helper()
	req, err := http.NewRequest(method, d.url+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	r := reply{status: resp.StatusCode, header: resp.Header, body: string(text)}
	if r.json, err = jcs.Parse(text, jcs.Limits{}); err != nil {
		d.t.Fatalf("%d is no JSON: %s", r.status, text)
	}
	return r
}

// records are what the log holds under an action, the oldest first.
func (d *desk) records(action string) []audit.Stored {
	d.t.Helper()
	page, err := d.reader.Entries(context.Background(), audit.Query{Sight: audit.Sight{All: true}, Action: action, Ascending: true, Limit: 500})
	if err != nil {
		d.t.Fatal(err)
	}
	return page.Entries
}

// record is the one record of an entry.
func (d *desk) record(e map[string]any) audit.Entry {
	d.t.Helper()
	stored, err := d.reader.Entry(context.Background(), audit.Sight{All: true}, e["id"].(string))
	if err != nil {
		d.t.Fatal(err)
	}
	return stored.Entry
}
