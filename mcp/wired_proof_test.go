package mcp_test

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
	"github.com/kavach-dev/kavach/people"
)

// held is a credential and the key that it is worth something with.
type held struct {
	d     *deployment
	token string
	key   agent.PrivateKey
}

// agentSignsIn registers an agent with a standing grant, which signs in with its
// key and gets a root for the scopes.
func (d *deployment) agentSignsIn(owner people.User, name, resource string, scopes ...string) held {
	d.t.Helper()
	must := func(err error) {
		d.t.Helper()
		if err != nil {
			d.t.Fatal(err)
		}
	}
	ctx, now, by := context.Background(), time.Now(), authz.Actor{Agent: audit.Operator, Via: "cli"}
	key, err := agent.GenerateKey()
	must(err)
	id := key.Public().Thumbprint()
	manifest, err := agent.SignManifest(agent.Manifest{
		Name: name, Version: "1.0.0", Purpose: "Orchestrates", Scopes: scopes, Capabilities: []string{"delegate"}, MaxDepth: 3,
		IssuedAt: now, Expires: now.Add(time.Hour),
	}, key)
	must(err)
	assertion := func() string {
		text, err := agent.SignAssertion(key, id, d.issuer, now, time.Minute)
		must(err)
		return text
	}
	_, err = d.agents.Register(ctx, authz.Registration{Manifest: manifest, Assertion: assertion(), Owner: owner.ID, By: by})
	must(err)
	_, err = d.agents.Grant(ctx, by, id, authz.AgentGrant{Scopes: scopes})
	must(err)
	h := held{d: d}
	h.key = newKey(d.t)
	form := url.Values{
		"grant_type": {"client_credentials"}, "scope": {strings.Join(scopes, " ")},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion()},
		"resource": {resource},
	}
	r := d.at("/oauth/token", http.MethodPost, form.Encode(), "", h.proof("POST", "/oauth/token"))
	if r.status != http.StatusOK {
		d.t.Fatalf("signing in: %d %s", r.status, r.body)
	}
	v, err := jcs.Parse(r.body, jcs.Limits{})
	must(err)
	h.token = v.Get("access_token").Str()
	return h
}

// at sends a request to any path of the deployment; a form goes without
// credential.
func (d *deployment) at(path, method, body, authorization, proof string) reply {
	d.t.Helper()
	r, err := http.NewRequest(method, d.issuer+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Accept", "application/json, text/event-stream")
	r.Header.Set("DPoP", proof)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		d.t.Error(err)
		return reply{}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Error(err)
	}
	return reply{resp.StatusCode, resp.Header, text}
}

// proof proves a request with the whole credential.
func (h held) proof(method, path string) string {
	h.d.t.Helper()
	text, err := agent.SignProof(h.key, agent.Proof{Method: method, URL: h.d.issuer + path, Token: h.token, IssuedAt: time.Now()})
	if err != nil {
		h.d.t.Fatal(err)
	}
	return text
}

// derive hands a credential on offline.
func (h held) derive(name string, scopes ...string) held {
	h.d.t.Helper()
	next := newKey(h.d.t)
	derived, err := delegation.Derive(h.token, h.key, next.Public(), delegation.Narrow{ClientID: name, Scopes: scopes}, time.Now())
	if err != nil {
		h.d.t.Fatal(err)
	}
	return held{h.d, derived.Chain, next}
}

const callAudit = `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"audit","arguments":{}}}`

func TestBoundTokensAtOurOwnResources(t *testing.T) {
	d := newDeployment(t)
	alice := d.user("alice", people.Member)
	root := d.agentSignsIn(alice, "orchestrator", d.issuer+"/mcp", "kavach:audit", "kavach:verify")
	verifier := d.registry.Verifier()
	if c, err := verifier.Verify(root.token, time.Now()); err != nil || c.Plain() {
		t.Fatalf("no root: %v", err)
	}
	link := root.derive("helper", "kavach:audit")
	for name, h := range map[string]held{"a root": root, "a chain": link} {
		proof := h.proof("POST", "/mcp")
		if r := d.at("/mcp", "POST", callAudit, "DPoP "+h.token, proof); r.status != 200 || r.json(t).Get("result").Get("isError").Bool() {
			t.Errorf("%s at /mcp: %d %s", name, r.status, r.body)
		}
		// The same proof again, and for another URL.
		again := d.at("/mcp", "POST", callAudit, "DPoP "+h.token, proof)
		if again.status != 401 || !strings.Contains(string(again.body), "invalid_dpop_proof") ||
			!slices.ContainsFunc(again.header.Values("WWW-Authenticate"), func(c string) bool { return strings.HasPrefix(c, "DPoP ") }) {
			t.Errorf("%s, the proof again: %d %s %v", name, again.status, again.body, again.header)
		}
		if r := d.at("/api/v1/audit/entries", "GET", "", "DPoP "+h.token, h.proof("GET", "/mcp")); r.status != 401 {
			t.Errorf("%s, a proof for another URL: %d %s", name, r.status, r.body)
		}
		if r := d.at("/mcp", "POST", callAudit, "Bearer "+h.token, h.proof("POST", "/mcp")); r.status != 401 ||
			!strings.Contains(string(r.body), "invalid_token") {
			t.Errorf("%s as Bearer: %d %s", name, r.status, r.body)
		}
		stranger := held{d, h.token, newKey(t)}
		if r := d.at("/mcp", "POST", callAudit, "DPoP "+h.token, stranger.proof("POST", "/mcp")); r.status != 401 {
			t.Errorf("%s, proved by another key: %d %s", name, r.status, r.body)
		}
	}
	// The chain holds less than its root.
	call := `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"verify","arguments":{"token":"x"}}}`
	if r := d.at("/mcp", "POST", call, "DPoP "+link.token, link.proof("POST", "/mcp")); r.status != 403 {
		t.Errorf("more than the link holds: %d %s", r.status, r.body)
	}
	// The API is a resource of its own.
	other := d.agentSignsIn(alice, "other", d.issuer+"/api", "kavach:audit")
	for name, h := range map[string]held{"a root": other, "a chain": other.derive("helper", "kavach:audit")} {
		proof := h.proof("GET", "/api/v1/audit/entries")
		if r := d.at("/api/v1/audit/entries?limit=1", "GET", "", "DPoP "+h.token, proof); r.status != 200 {
			t.Errorf("%s at the API: %d %s", name, r.status, r.body)
		}
		if r := d.at("/api/v1/audit/entries", "GET", "", "DPoP "+h.token, proof); r.status != 401 {
			t.Errorf("%s at the API, the proof again: %d %s", name, r.status, r.body)
		}
		stranger := held{d, h.token, newKey(t)}
		if r := d.at("/api/v1/audit/entries", "GET", "", "DPoP "+h.token, stranger.proof("GET", "/api/v1/audit/entries")); r.status != 401 {
			t.Errorf("%s at the API, proved by another key: %d %s", name, r.status, r.body)
		}
	}
	reader := audit.NewReader(audit.ReaderConfig{Store: d.store, Secrets: d.keys.Cursor})
	page, err := reader.Entries(context.Background(), audit.Query{Sight: audit.Sight{All: true}, Action: audit.TokenRefuse, Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	replayed := 0
	for _, e := range page.Entries {
		if e.Entry.Reason == "replayed" && e.Entry.Grant != "" && len(e.Entry.Chain) > 0 {
			replayed++
		}
	}
	if replayed != 4 {
		t.Errorf("%d records say replayed and by what chain, want 4", replayed)
	}
	// What was tried without its key is named too, and nobody is said to have
	// acted. These records are not awaited.
	unproved := map[string]int{}
	for deadline := time.Now().Add(10 * time.Second); len(unproved) < 2 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		page, err := reader.Entries(context.Background(), audit.Query{Sight: audit.Sight{All: true}, Action: audit.TokenRefuse, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		clear(unproved)
		for _, e := range page.Entries {
			if e.Entry.Reason != "holder_binding_failed" {
				continue
			}
			if e.Entry.Agent != "" || e.Entry.Sub == "" || e.Entry.Grant == "" || len(e.Entry.Chain) == 0 {
				t.Fatalf("unproved: %+v", e.Entry)
			}
			unproved[e.Entry.Detail["via"].(string)]++
		}
	}
	if unproved["mcp"] == 0 || unproved["api"] == 0 {
		t.Errorf("records of what was tried without its key: %v", unproved)
	}

	// Of many uses of one proof one wins.
	proof := root.proof("POST", "/mcp")
	var wg sync.WaitGroup
	var statuses [20]int
	for i := range statuses {
		wg.Go(func() {
			statuses[i] = d.at("/mcp", "POST", callAudit, "DPoP "+root.token, proof).status
		})
	}
	wg.Wait()
	won := 0
	for _, status := range statuses {
		if status == 200 {
			won++
		} else if status != 401 {
			t.Errorf("a loser got %d", status)
		}
	}
	if won != 1 {
		t.Errorf("%d of 20 won", won)
	}
}
