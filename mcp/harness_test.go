package mcp_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
	"github.com/kavach-dev/kavach/mcp"
)

const issuer = "http://127.0.0.1:8420"

// world is a server with everything behind it in memory: real tokens, and
// stand-ins for the authorization server and the log.
type world struct {
	t   testing.TB
	key delegation.ServerKey
	url string

	mu        sync.Mutex // guards what follows
	entries   []audit.Entry
	refusals  []audit.Entry
	logDown   bool
	revoked   map[string]bool
	asks      []delegation.Ask
	handled   []string // credentials that handles were asked for with
	delegated func(*delegation.Chain, delegation.Ask) (delegation.Issued, error)
	revokes   []mcp.Revocation
	undo      func(mcp.Revocation) (mcp.Revoked, error)
	queries   []audit.Query
	page      audit.Page
	pageErr   error
}

func newWorld(t *testing.T, change ...func(*mcp.Config)) *world {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, key: delegation.ServerKey{KID: "at-test", Signer: private}, revoked: map[string]bool{}}
	anchor, err := w.key.Anchor()
	if err != nil {
		t.Fatal(err)
	}
	cfg := mcp.Config{
		Issuer: issuer, Version: "1.2.3",
		Verifier:  &delegation.Verifier{Issuer: issuer, Anchors: func(kid string) (delegation.Anchor, bool) { return anchor, kid == "at-test" }},
		Delegator: w, Revoker: w, Auditor: w, Revocations: w, Agents: w, Commit: w, Refusals: w,
		Origins: []string{"https://ok.example"},
	}
	for _, c := range change {
		c(&cfg)
	}
	s, err := mcp.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(mcp.Path, s.Handler())
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	w.url = server.URL + mcp.Path
	return w
}

func (w *world) Commit(_ context.Context, c audit.Change) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.logDown {
		return audit.ErrUnavailable
	}
	w.entries = append(w.entries, c.Entries...)
	return nil
}

func (w *world) Refuse(_, _ string, e audit.Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refusals = append(w.refusals, e)
}

func (w *world) Revoked(_ context.Context, c *delegation.Chain) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.revoked[c.LID()], nil
}

func (w *world) AgentNames(_ context.Context, principal, prefix string, limit int) ([]string, error) {
	var names []string
	for _, name := range []string{"code-reviewer", "coder", "orchestrator"} {
		if principal == "alice" && strings.HasPrefix(name, prefix) && len(names) < limit {
			names = append(names, name)
		}
	}
	return names, nil
}

func (w *world) Delegate(_ context.Context, parent *delegation.Chain, ask delegation.Ask) (delegation.Issued, error) {
	w.mu.Lock()
	w.asks = append(w.asks, ask)
	do := w.delegated
	w.mu.Unlock()
	if do != nil {
		return do(parent, ask)
	}
	return delegation.Issued{
		Signed: delegation.Signed{Token: "token-for-" + ask.Receiver, LID: strings.Repeat("l", 43)},
		Scopes: ask.Scopes, Audience: []string{"https://git.example"}, Limits: ask.Limits, Tools: ask.Tools,
		ExpiresIn: ask.TTL, Path: append(parent.Path(), ask.Receiver),
	}, nil
}

func (w *world) DelegateHandle(ctx context.Context, credential string, parent *delegation.Chain, ask delegation.Ask) (delegation.Issued, error) {
	w.mu.Lock()
	w.handled = append(w.handled, credential)
	w.mu.Unlock()
	issued, err := w.Delegate(ctx, parent, ask)
	if err == nil {
		issued.Signed, issued.ExpiresIn = delegation.Signed{Token: "handle-for-" + ask.Receiver}, time.Minute
	}
	return issued, err
}

func (w *world) Revoke(_ context.Context, _ *delegation.Chain, what mcp.Revocation) (mcp.Revoked, error) {
	w.mu.Lock()
	w.revokes = append(w.revokes, what)
	do := w.undo
	w.mu.Unlock()
	if do != nil {
		return do(what)
	}
	return mcp.Revoked{Revoked: []string{what.TokenID}, Below: 2, Recorded: true}, nil
}

func (w *world) Entries(_ context.Context, q audit.Query) (audit.Page, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queries = append(w.queries, q)
	return w.page, w.pageErr
}

func (w *world) Entry(_ context.Context, sight audit.Sight, id string) (audit.Stored, error) {
	if id != "0190aaaa-0000-7000-8000-000000000001" {
		return audit.Stored{}, audit.ErrNotFound
	}
	return audit.Stored{Bytes: []byte(`{"action":"login","id":"` + id + `","result":"allowed","seq":0,"time":1}`)}, nil
}

// claims are those of a person's token for a client of hers.
func claims(scopes ...string) delegation.Claims {
	now := time.Now()
	return delegation.Claims{
		Issuer: issuer, Subject: "alice", ClientID: "inspector", Audience: []string{issuer + "/mcp"},
		IssuedAt: now, Expires: now.Add(5 * time.Minute), Scopes: scopes, GrantID: "grant-1",
	}
}

func (w *world) sign(c delegation.Claims) string {
	w.t.Helper()
	signed, err := delegation.Sign(c, w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	return signed.Token
}

func (w *world) token(scopes ...string) string { return w.sign(claims(scopes...)) }

// everything is a token that may call every tool.
func (w *world) everything() string {
	return w.token(mcp.ScopeAudit, mcp.ScopeDelegate, mcp.ScopeVerify)
}

type reply struct {
	status int
	header http.Header
	body   []byte
}

// json is the answer as a value; for a stream, its last event.
func (r reply) json(t testing.TB) jcs.Value {
	t.Helper()
	body := r.body
	if strings.HasPrefix(r.header.Get("Content-Type"), "text/event-stream") {
		events := strings.Split(strings.TrimSpace(string(body)), "\n\n")
		_, data, _ := strings.Cut(events[len(events)-1], "data: ")
		body = []byte(data)
	}
	v, err := jcs.Parse(body, jcs.Limits{})
	if err != nil {
		t.Fatalf("answer %d is no JSON: %v: %s", r.status, err, r.body)
	}
	return v
}

func (w *world) send(token, body string, headers ...string) reply {
	w.t.Helper()
	return w.request(http.MethodPost, token, body, headers...)
}

func (w *world) request(method, token, body string, headers ...string) reply {
	w.t.Helper()
	req, err := http.NewRequest(method, w.url, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Accept", "application/json, text/event-stream")
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
			continue
		}
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Error(err)
		return reply{}
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Error(err)
	}
	return reply{resp.StatusCode, resp.Header, got}
}

const modernMeta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}`

// modern sends a request of 2026-07-28.
func (w *world) modern(token, method, name, params string, headers ...string) reply {
	w.t.Helper()
	if params != "" {
		params = "," + params
	}
	all := []string{"MCP-Protocol-Version", "2026-07-28", "Mcp-Method", method}
	if name != "" {
		all = append(all, "Mcp-Name", name)
	}
	return w.send(token, `{"jsonrpc":"2.0","id":7,"method":"`+method+`","params":{`+modernMeta+params+`}}`, append(all, headers...)...)
}

// call calls a tool the way of 2025-11-25 and returns its result.
func (w *world) call(token, tool, arguments string) jcs.Value {
	w.t.Helper()
	r := w.send(token, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"`+tool+`","arguments":`+arguments+`}}`,
		"MCP-Protocol-Version", "2025-11-25")
	if r.status != http.StatusOK {
		w.t.Fatalf("tools/call %s: %d %s", tool, r.status, r.body)
	}
	result := r.json(w.t).Get("result")
	if result.Kind() != jcs.Object {
		w.t.Fatalf("tools/call %s: %s", tool, r.body)
	}
	return result
}

// content is the structured content of a call that must succeed, checked
// against its text block.
func (w *world) content(token, tool, arguments string) jcs.Value {
	w.t.Helper()
	result := w.call(token, tool, arguments)
	if result.Get("isError").Bool() {
		w.t.Fatalf("%s refused: %s", tool, jcs.Canonical(result))
	}
	structured := result.Get("structuredContent")
	text, err := jcs.Parse([]byte(textOf(result)), jcs.Limits{})
	if err != nil || !jcs.Equal(text, structured) {
		w.t.Errorf("%s: text block is not the structured content: %s", tool, jcs.Canonical(result))
	}
	return structured
}

// refusal is the text of a call that must be refused.
func (w *world) refusal(token, tool, arguments string) string {
	w.t.Helper()
	result := w.call(token, tool, arguments)
	if !result.Get("isError").Bool() || result.Get("structuredContent").Exists() {
		w.t.Fatalf("%s %s was not refused: %s", tool, arguments, jcs.Canonical(result))
	}
	return textOf(result)
}

func textOf(result jcs.Value) string {
	content := result.Get("content").Elements()
	if len(content) != 1 {
		return ""
	}
	return content[0].Get("text").Str()
}

func (w *world) recorded() []audit.Entry {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.entries)
}

func (w *world) last() audit.Entry {
	w.t.Helper()
	entries := w.recorded()
	if len(entries) == 0 {
		w.t.Fatal("nothing was recorded")
	}
	return entries[len(entries)-1]
}

func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// indent is for golden files.
func indent(t *testing.T, b []byte) []byte {
	t.Helper()
	canonical, err := jcs.Transform(b)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, canonical, "", "  "); err != nil {
		t.Fatal(err)
	}
	return append(out.Bytes(), '\n')
}

func args(format string, a ...any) string { return fmt.Sprintf(format, a...) }
