package mcp_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
	"github.com/kavach-dev/kavach/mcp"
	"github.com/kavach-dev/kavach/people"
)

// limit hands a credential on offline, with limits.
func (h held) limit(limits delegation.Limits, scopes ...string) held {
	h.d.t.Helper()
	next := newKey(h.d.t)
	derived, err := delegation.Derive(h.token, h.key, next.Public(), delegation.Narrow{ClientID: "helper", Scopes: scopes, Limits: limits}, time.Now())
	if err != nil {
		h.d.t.Fatal(err)
	}
	return held{h.d, derived.Chain, next}
}

// present is a message with the chain and its proof in _meta.
func (h held) present(message string) string {
	h.d.t.Helper()
	cred, err := client.Hold(h.token, h.key)
	if err != nil {
		h.d.t.Fatal(err)
	}
	text, err := cred.Present([]byte(message), h.d.issuer+"/mcp", "", time.Now())
	if err != nil {
		h.d.t.Fatal(err)
	}
	return string(text)
}

// bare sends a message without any header of ours.
func (d *deployment) bare(message string) reply {
	d.t.Helper()
	r, err := http.NewRequest(http.MethodPost, d.url, strings.NewReader(message))
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		d.t.Error(err)
		return reply{}
	}
	defer resp.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(resp.Body); err != nil {
		d.t.Error(err)
	}
	return reply{resp.StatusCode, resp.Header, body.Bytes()}
}

// TestChainInMessage: /mcp takes a chain in _meta, for a call and for what calls
// no tool, once.
func TestChainInMessage(t *testing.T) {
	d := newDeployment(t)
	alice := d.user("alice", people.Member)
	root := d.agentSignsIn(alice, "orchestrator", d.issuer+"/mcp", "kavach:audit", "kavach:verify")
	link := root.derive("helper", "kavach:audit")
	message := link.present(callAudit)
	if r := d.bare(message); r.status != 200 || r.json(t).Get("result").Get("isError").Bool() || strings.Contains(string(r.body), link.token) {
		t.Errorf("a call: %d %s", r.status, r.body)
	}
	if r := d.bare(message); r.status != 401 || !strings.Contains(string(r.body), "invalid_dpop_proof") {
		t.Errorf("the same call again: %d %s", r.status, r.body)
	}
	if r := d.bare(link.present(`{"jsonrpc":"2.0","id":1,"method":"tools/list"}`)); r.status != 200 || r.json(t).Get("result").Get("tools").Len() != 4 {
		t.Errorf("the list: %d %s", r.status, r.body)
	}
	if r := d.bare(strings.Replace(link.present(callAudit), `"arguments":{}`, `"arguments":{"limit":1}`, 1)); r.status != 401 {
		t.Errorf("other arguments than proved: %d %s", r.status, r.body)
	}
	if r := d.bare("[" + link.present(callAudit) + "]"); r.status != 400 {
		t.Errorf("a batch: %d %s", r.status, r.body)
	}
	if r := d.at("/mcp", "POST", link.present(callAudit), "DPoP "+root.token, root.proof("POST", "/mcp")); r.status != 400 || !strings.Contains(string(r.body), `"malformed"`) {
		t.Errorf("two carriers: %d %s", r.status, r.body)
	}
	if r := d.bare(link.present(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"verify","arguments":{"token":"x"}}}`)); r.status != 403 {
		t.Errorf("more than the link holds: %d %s", r.status, r.body)
	}
}

// TestLongChainOverStdio: the forwarder sends what no header takes in the
// message.
func TestLongChainOverStdio(t *testing.T) {
	d := newDeployment(t)
	root := d.agentSignsIn(d.user("alice", people.Member), "orchestrator", d.issuer+"/mcp", "kavach:audit", "kavach:verify")
	resources := []string{"kavach/audit"}
	for i := range 20 {
		resources = append(resources, fmt.Sprintf("kavach/%0200d", i))
	}
	link := root.limit(delegation.Limits{Resources: resources}, "kavach:audit").limit(delegation.Limits{Resources: resources}, "kavach:audit")
	if len(link.token) <= delegation.MaxChainHeader {
		t.Fatalf("only %d bytes", len(link.token))
	}
	cred, err := client.Hold(link.token, link.key)
	if err != nil {
		t.Fatal(err)
	}
	transport := &client.Transport{Source: cred, MCP: true}
	defer transport.CloseIdleConnections()
	var out bytes.Buffer
	in := strings.NewReader(callAudit + "\n" + `{"jsonrpc":"2.0","id":8,"method":"tools/list"}` + "\n")
	if err := mcp.Stdio(t.Context(), in, &out, mcp.StdioConfig{URL: d.url, Client: &http.Client{Transport: transport}}); err != nil {
		t.Fatal(err)
	}
	answered := 0
	for line := range strings.Lines(out.String()) {
		v, err := jcs.Parse([]byte(line), jcs.Limits{})
		if err != nil || !v.Get("result").Exists() || v.Get("result").Get("isError").Bool() {
			t.Errorf("%v: %s", err, line)
		}
		answered++
	}
	if answered != 2 {
		t.Errorf("%d answers", answered)
	}
}

// TestBudgetAtMCP: siblings share what is above them, over both carriers and
// resources of ours, in whatever order they come.
func TestBudgetAtMCP(t *testing.T) {
	d := newDeployment(t)
	root := d.agentSignsIn(d.user("alice", people.Member), "orchestrator", d.issuer+"/mcp", "kavach:audit", "kavach:verify")
	parent := root.limit(delegation.Limits{MaxCalls: new(int64(5))}, "kavach:audit", "kavach:verify")
	var passed, spent atomic.Int64
	var all sync.WaitGroup
	for i := range 12 {
		child := parent.limit(delegation.Limits{MaxCalls: new(int64(2))}, "kavach:audit")
		all.Go(func() {
			var r reply
			if i%2 == 0 {
				r = d.at("/mcp", "POST", callAudit, "DPoP "+child.token, child.proof("POST", "/mcp"))
			} else {
				r = d.bare(child.present(callAudit))
			}
			switch {
			case r.status == 200:
				passed.Add(1)
			case r.status == 403 && strings.Contains(string(r.body), "constraint_violated") && strings.Contains(string(r.body), "max_calls"):
				spent.Add(1)
			default:
				t.Errorf("%d %s", r.status, r.body)
			}
		})
	}
	all.Wait()
	if passed.Load() != 5 || spent.Load() != 7 {
		t.Errorf("%d passed and %d were refused, of 5 and 7", passed.Load(), spent.Load())
	}
	// What calls nothing costs nothing and still passes.
	if r := d.at("/mcp", "POST", `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`, "DPoP "+parent.token, parent.proof("POST", "/mcp")); r.status != 200 {
		t.Errorf("the list: %d %s", r.status, r.body)
	}
}
