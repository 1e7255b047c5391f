package mcp_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
	"github.com/kavach-dev/kavach/mcp"
)

func (w *world) read(token, uri string) reply {
	w.t.Helper()
	return w.send(token, args(`{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":%q}}`, uri))
}

func document(t *testing.T, r reply) jcs.Value {
	t.Helper()
	contents := r.json(t).Get("result").Get("contents").Elements()
	if len(contents) != 1 || contents[0].Get("mimeType").Str() != "application/json" {
		t.Fatalf("%d %s", r.status, r.body)
	}
	v, err := jcs.Parse([]byte(contents[0].Get("text").Str()), jcs.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestIdentity(t *testing.T) {
	w := newWorld(t)
	token := w.token("repository:read")
	r := w.read(token, "kavach://identity")
	v := document(t, r)
	if scopes, _ := v.Get("scopes").Strings(); v.Get("subject").Str() != "alice" || v.Get("client_id").Str() != "inspector" || !slices.Equal(scopes, []string{"repository:read"}) {
		t.Errorf("%s", jcs.Canonical(v))
	}
	if strings.Contains(string(r.body), token) {
		t.Error("the token is in the answer")
	}
	if e := w.last(); e.Action != audit.ResourceRead || e.Result != audit.Allowed || e.Resource != "kavach/identity" {
		t.Errorf("%+v", e)
	}
}

func TestReadLog(t *testing.T) {
	w := newWorld(t)
	lid := strings.Repeat("A", 43)
	w.page = audit.Page{Entries: []audit.Stored{{Bytes: []byte(`{"action":"delegate","id":"x","result":"allowed","seq":3,"time":5}`)}}}
	v := document(t, w.read(w.token(mcp.ScopeAudit), "kavach://chain/"+lid))
	if v.Get("token_id").Str() != lid || len(v.Get("entries").Elements()) != 1 || w.queries[0].LID != lid || !w.queries[0].Ascending {
		t.Errorf("%s, asked %+v", jcs.Canonical(v), w.queries[0])
	}
	v = document(t, w.read(w.token("audit:read"), "kavach://audit/0190aaaa-0000-7000-8000-000000000001"))
	if v.Get("action").Str() != "login" {
		t.Errorf("%s", jcs.Canonical(v))
	}
	for _, uri := range []string{"kavach://chain/" + lid, "kavach://audit/x", "kavach://other"} {
		r := w.read(w.token(mcp.ScopeVerify), uri)
		if r.status != 403 || !strings.Contains(r.header.Get("WWW-Authenticate"), `scope="kavach:audit kavach:verify"`) {
			t.Errorf("%s without the scope: %d %s", uri, r.status, r.header.Get("WWW-Authenticate"))
		}
	}
}

// -32002 before 2026-07-28, -32602 and 400 since.
func TestResourceNotFound(t *testing.T) {
	w := newWorld(t)
	token := w.token(mcp.ScopeAudit)
	for _, uri := range []string{
		"kavach://chain/" + strings.Repeat("A", 43), "kavach://chain/x", "kavach://chain/' OR 1=1", "kavach://audit/x",
		"kavach://audit/../identity", "kavach://other", "kavach://identity/x", "file:///etc/passwd", "kavach://IDENTITY",
	} {
		r := w.read(token, uri)
		failure := r.json(t).Get("error")
		if code, _ := failure.Get("code").Int(); r.status != 200 || code != -32002 || failure.Get("data").Get("uri").Str() != uri {
			t.Errorf("%s: %d %s", uri, r.status, r.body)
		}
		r = w.modern(token, "resources/read", uri, args(`"uri":%q`, uri))
		if code, _ := r.json(t).Get("error").Get("code").Int(); r.status != 400 || code != -32602 {
			t.Errorf("%s in 2026-07-28: %d %s", uri, r.status, r.body)
		}
	}
}

func TestRestrictedTokenReadsNoResource(t *testing.T) {
	w := newWorld(t)
	c := claims(mcp.ScopeAudit)
	c.Tools = delegation.Tools{"audit": delegation.AllowAnyArgs}
	if r := w.read(w.sign(c), "kavach://identity"); r.status != 403 || r.header.Get("WWW-Authenticate") != "" {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func TestPrompt(t *testing.T) {
	w := newWorld(t)
	r := w.send(w.token(), `{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"delegate_safely","arguments":{"task":"review #847","agent":"coder"}}}`)
	messages := r.json(t).Get("result").Get("messages").Elements()
	if len(messages) != 1 || !strings.Contains(messages[0].Get("content").Get("text").Str(), "review #847") {
		t.Errorf("%s", r.body)
	}
	for _, arguments := range []string{`{}`, `{"task":" "}`, `{"task":"x","more":"y"}`, `{"task":"` + strings.Repeat("x", 5000) + `"}`} {
		r := w.send(w.token(), `{"jsonrpc":"2.0","id":1,"method":"prompts/get","params":{"name":"delegate_safely","arguments":`+arguments+`}}`)
		if code, _ := r.json(t).Get("error").Get("code").Int(); code != -32602 {
			t.Errorf("%s: %s", arguments, r.body)
		}
	}
}

func TestCompletion(t *testing.T) {
	w := newWorld(t)
	complete := func(token, argument, typed string) []string {
		r := w.send(token, args(`{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"delegate_safely"},"argument":{"name":%q,"value":%q}}}`, argument, typed))
		values, ok := r.json(t).Get("result").Get("completion").Get("values").Strings()
		if !ok {
			t.Errorf("%s", r.body)
		}
		return values
	}
	token := w.token(mcp.ScopeDelegate, "repository:read", "repository:write")
	for _, c := range []struct {
		argument, typed string
		want            []string
	}{
		{"agent", "cod", []string{"code-reviewer", "coder"}}, {"agent", "x", []string{}},
		{"scopes", "repo", []string{"repository:read", "repository:write"}},
		{"scopes", "repository:read repo", []string{"repository:read repository:write"}},
		{"task", "r", []string{}},
	} {
		if got := complete(token, c.argument, c.typed); !slices.Equal(got, c.want) {
			t.Errorf("%s %q: %v", c.argument, c.typed, got)
		}
	}
	if got := complete(w.token(), "agent", ""); len(got) != 0 {
		t.Errorf("agents without %s: %v", mcp.ScopeDelegate, got)
	}
	r := w.send(token, `{"jsonrpc":"2.0","id":1,"method":"completion/complete","params":{"ref":{"type":"ref/prompt","name":"none"},"argument":{"name":"x","value":""}}}`)
	if code, _ := r.json(t).Get("error").Get("code").Int(); code != -32602 {
		t.Errorf("%s", r.body)
	}
}
