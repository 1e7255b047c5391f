package mcp_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
	"github.com/kavach-dev/kavach/mcp"
)

func TestMalformedMessages(t *testing.T) {
	w := newWorld(t)
	token := w.everything()
	for _, c := range []struct {
		name, body string
		code       int64
	}{
		{"empty", ``, -32700},
		{"not JSON", `{"jsonrpc"`, -32700},
		{"trailing data", ping + `{}`, -32700},
		{"NaN", `{"jsonrpc":"2.0","id":NaN,"method":"ping"}`, -32700},
		{"invalid UTF-8", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\xff\"}", -32700},
		{"lone surrogate", `{"jsonrpc":"2.0","id":1,"method":"ping\ud800"}`, -32700},
		{"byte order mark", "\ufeff" + ping, -32700},
		{"too many values", `{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":[` + strings.Repeat("1,", 1<<16) + `1]}}`, -32700},
		{"duplicate member", `{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/list"}`, -32700},
		{"duplicate deep in arguments", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"verify","arguments":{"token":"a","token":"b"}}}`, -32700},
		{"duplicate after unescaping", `{"jsonrpc":"2.0","id":1,"method":"ping","meth\u006fd":"tools/list"}`, -32700},
		{"depth", `{"jsonrpc":"2.0","id":1,"method":"ping","params":` + strings.Repeat(`{"a":`, 100000) + `1` + strings.Repeat(`}`, 100000) + `}`, -32700},
		{"depth of arrays", strings.Repeat(`[`, 500000), -32700},
		{"batch", `[` + ping + `]`, -32600},
		{"empty batch", `[]`, -32600},
		{"string", `"ping"`, -32600},
		{"null", `null`, -32600},
		{"name in another case", `{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}`, -32600},
		{"only in another case", `{"jsonrpc":"2.0","id":1,"Method":"ping"}`, -32600},
		{"long s", `{"jſonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"ping"}`, -32600},
		{"params in another case", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"verify","Name":"delegate","arguments":{}}}`, -32600},
		{"arguments in another case", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"verify","ARGUMENTS":{}}}`, -32600},
		{"meta in another case", `{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_Meta":{}}}`, -32600},
		{"id null", `{"jsonrpc":"2.0","id":null,"method":"ping"}`, -32600},
		{"id object", `{"jsonrpc":"2.0","id":{},"method":"ping"}`, -32600},
		{"id array", `{"jsonrpc":"2.0","id":[1],"method":"ping"}`, -32600},
		{"id boolean", `{"jsonrpc":"2.0","id":true,"method":"ping"}`, -32600},
		{"id fraction", `{"jsonrpc":"2.0","id":1.5,"method":"ping"}`, -32600},
		{"id exponent", `{"jsonrpc":"2.0","id":1e3,"method":"ping"}`, -32600},
		{"id beyond doubles", `{"jsonrpc":"2.0","id":9007199254740993,"method":"ping"}`, -32600},
		{"id of almost 1 MiB", `{"jsonrpc":"2.0","id":"` + strings.Repeat("x", 1<<20-100) + `","method":"ping"}`, -32600},
		{"no version", `{"id":1,"method":"ping"}`, -32600},
		{"other version", `{"jsonrpc":"1.0","id":1,"method":"ping"}`, -32600},
		{"no method", `{"jsonrpc":"2.0","id":1}`, -32600},
		{"method number", `{"jsonrpc":"2.0","id":1,"method":1}`, -32600},
		{"response", `{"jsonrpc":"2.0","id":1,"result":{}}`, -32600},
		{"error response", `{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}`, -32600},
		{"request and response", `{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}`, -32600},
		{"params array", `{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}`, -32602},
		{"params null", `{"jsonrpc":"2.0","id":1,"method":"ping","params":null}`, -32602},
		{"meta string", `{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":"x"}}`, -32602},
		{"no tool", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}`, -32602},
		{"tool number", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":7}}`, -32602},
		{"arguments array", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"verify","arguments":[]}}`, -32602},
		{"arguments null", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"verify","arguments":null}}`, -32602},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := w.send(token, c.body, "Content-Type", "application/json")
			if c.body == "" {
				r = w.request(http.MethodPost, token, "", "Content-Type", "application/json")
			}
			if r.status != http.StatusBadRequest {
				t.Fatalf("status %d: %.300s", r.status, r.body)
			}
			v := r.json(t)
			if code, _ := v.Get("error").Get("code").Int(); code != c.code {
				t.Errorf("code %d, want %d: %.300s", code, c.code, r.body)
			}
			if !v.Get("id").Exists() || len(r.body) > 1000 {
				t.Errorf("answer %.300s", r.body)
			}
			if r := w.send(token, ping); r.status != http.StatusOK {
				t.Errorf("the next good request: %d", r.status)
			}
		})
	}
}

// Names with a meaning in other languages are just names.
func TestHarmlessNames(t *testing.T) {
	w := newWorld(t)
	r := w.send(w.everything(), `{"jsonrpc":"2.0","id":"__proto__","method":"ping","params":{"__proto__":{"x":1},"constructor":1}}`)
	if r.status != 200 || r.json(t).Get("id").Str() != "__proto__" {
		t.Errorf("%d %s", r.status, r.body)
	}
	for _, id := range []string{`"a"`, `0`, `-1`, `9007199254740991`, `""`} {
		r := w.send(w.everything(), `{"jsonrpc":"2.0","id":`+id+`,"method":"ping"}`)
		if got := string(jcs.Canonical(r.json(t).Get("id"))); r.status != 200 || got != id {
			t.Errorf("id %s came back as %s", id, got)
		}
	}
}

func TestHeadersAgree(t *testing.T) {
	w := newWorld(t)
	token := w.everything()
	meta := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{` + modernMeta + `,"name":"verify","arguments":{"token":"x"}}}`
	list := `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{` + modernMeta + `}}`
	version, method, name := []string{"MCP-Protocol-Version", "2026-07-28"}, []string{"Mcp-Method", "tools/call"}, []string{"Mcp-Name", "verify"}
	join := func(lists ...[]string) (all []string) {
		for _, l := range lists {
			all = append(all, l...)
		}
		return all
	}
	for _, c := range []struct {
		name    string
		body    string
		headers []string
		status  int
		code    int64
	}{
		{"all agree", meta, join(version, method, name), 200, 0},
		{"name in base64", meta, join(version, method, []string{"Mcp-Name", "=?base64?dmVyaWZ5?="}), 200, 0},
		{"no name where there is none", list, join(version, []string{"Mcp-Method", "tools/list"}), 200, 0},
		{"no version header", meta, join(method, name), 400, -32020},
		{"no method header", meta, join(version, name), 400, -32020},
		{"no name header", meta, join(version, method), 400, -32020},
		{"other version header", meta, join([]string{"MCP-Protocol-Version", "2025-11-25"}, method, name), 400, -32020},
		{"other method", meta, join(version, []string{"Mcp-Method", "tools/list"}, name), 400, -32020},
		{"method in another case", meta, join(version, []string{"Mcp-Method", "Tools/Call"}, name), 400, -32020},
		{"other name", meta, join(version, method, []string{"Mcp-Name", "delegate"}), 400, -32020},
		{"bad base64", meta, join(version, method, []string{"Mcp-Name", "=?base64?%?="}), 400, -32020},
		{"method twice", meta, join(version, method, method, name), 400, -32020},
		{"name twice", meta, join(version, method, name, []string{"Mcp-Name", "delegate"}), 400, -32020},
		{"version twice", meta, join(version, version, method, name), 400, -32020},
		{"Last-Event-ID", meta, join(version, method, name, []string{"Last-Event-ID", "1"}), 400, -32020},
		{"name where there is none", list, join(version, []string{"Mcp-Method", "tools/list"}, name), 400, -32020},
		{"no _meta", ping, version, 400, -32602},
		{"no capabilities", `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}`, join(version, []string{"Mcp-Method", "tools/list"}), 400, -32602},
		{"version number", `{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":1}}}`, nil, 400, -32602},
		{"a version to come", strings.ReplaceAll(list, "2026-07-28", "2027-01-01"), []string{"MCP-Protocol-Version", "2027-01-01", "Mcp-Method", "tools/list"}, 400, -32022},
		{"older, unknown version", ping, []string{"MCP-Protocol-Version", "1999-01-01"}, 400, -32022},
		{"older, known version", ping, []string{"MCP-Protocol-Version", "2025-06-18"}, 200, 0},
		{"older, none", ping, nil, 200, 0},
		{"older with a wrong method header", ping, []string{"Mcp-Method", "tools/list"}, 400, -32020},
		{"older with a wrong name header", ping, []string{"Mcp-Name", "verify"}, 400, -32020},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := w.send(token, c.body, c.headers...)
			code, _ := r.json(t).Get("error").Get("code").Int()
			if r.status != c.status || code != c.code {
				t.Errorf("%d %d, want %d %d: %s", r.status, code, c.status, c.code, r.body)
			}
		})
	}
	r := w.send(token, ping, "MCP-Protocol-Version", "1999-01-01")
	data := r.json(t).Get("error").Get("data")
	supported, _ := data.Get("supported").Strings()
	if data.Get("requested").Str() != "1999-01-01" || len(supported) != 5 || supported[0] != "2026-07-28" {
		t.Errorf("data %s", jcs.Canonical(data))
	}
}

// What the library would explain in terms of its own types.
func TestParamsOfAnotherForm(t *testing.T) {
	w := newWorld(t)
	for method, params := range map[string]string{
		"prompts/get":         `{"name":"delegate_safely","arguments":{"task":1}}`,
		"completion/complete": `{"ref":"x","argument":[]}`,
		"initialize":          `{"protocolVersion":7}`,
		"tools/list":          `{"cursor":"eA=="}`,
		"resources/list":      `{"cursor":7}`,
	} {
		r := w.send(w.everything(), `{"jsonrpc":"2.0","id":3,"method":"`+method+`","params":`+params+`}`)
		v := r.json(t)
		code, _ := v.Get("error").Get("code").Int()
		id, _ := v.Get("id").Int()
		if code != -32602 || id != 3 || strings.Contains(string(r.body), "Go ") || strings.Contains(string(r.body), "json:") {
			t.Errorf("%s: %d %s", method, r.status, r.body)
		}
	}
}

// "Recorded is … every tools/call, resource read": also one that the library
// cannot decode.
func TestParamsThatCannotBeDecodedAreRecorded(t *testing.T) {
	for method, params := range map[string]string{
		"tools/call":     `{"name":"verify","arguments":{"token":"x","audience":1e400}}`,
		"resources/read": `{"uri":"kavach://identity","arguments":{"x":1e400}}`,
	} {
		w := newWorld(t)
		r := w.send(w.everything(), `{"jsonrpc":"2.0","id":3,"method":"`+method+`","params":`+params+`}`)
		code, _ := r.json(t).Get("error").Get("code").Int()
		if r.status != http.StatusBadRequest || code != -32602 {
			t.Errorf("%s: %d %s", method, r.status, r.body)
		}
		if len(w.entries) != 1 || w.entries[0].Result != audit.Denied || w.entries[0].Reason != "malformed" {
			t.Errorf("%s: the log has %+v", method, w.entries)
		}
		w.logDown = true
		if r := w.send(w.everything(), `{"jsonrpc":"2.0","id":3,"method":"`+method+`","params":`+params+`}`); r.status != http.StatusServiceUnavailable {
			t.Errorf("%s, without the log: %d %s", method, r.status, r.body)
		}
	}
}

func TestPanicIsAnError(t *testing.T) {
	w := newWorld(t)
	w.delegated = func(*delegation.Chain, delegation.Ask) (delegation.Issued, error) { panic("secret") }
	r := w.send(w.everything(), `{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"delegate","arguments":{"agent":"x"}}}`)
	if code, _ := r.json(t).Get("error").Get("code").Int(); code != -32603 || strings.Contains(string(r.body), "secret") {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := w.send(w.everything(), ping); r.status != 200 {
		t.Errorf("afterwards: %d", r.status)
	}
}

// "Every row also means … an audit entry".
func TestMalformedMessagesAreRecorded(t *testing.T) {
	w := newWorld(t)
	for body, reason := range map[string]string{
		`[]`: "malformed", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"none"}}`: "malformed",
	} {
		w.send(w.everything(), body)
		if e := w.last(); e.Action != audit.TokenRefuse || e.Result != audit.Denied || e.Reason != reason || e.Sub != "alice" {
			t.Errorf("%s: %+v", body, e)
		}
	}
	w.send(w.everything(), ping, "Mcp-Method", "tools/list")
	if e := w.last(); e.Reason != "header_mismatch" {
		t.Errorf("%+v", e)
	}
	w.send("", ping, "Origin", "null")
	w.send("", ping, "Host", "evil.example")
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.refusals) != 2 || w.refusals[0].Reason != "origin_not_allowed" || w.refusals[1].Reason != "host_not_allowed" {
		t.Errorf("%+v", w.refusals)
	}
}

func TestNotifications(t *testing.T) {
	w := newWorld(t)
	for _, method := range []string{"notifications/initialized", "notifications/cancelled", "notifications/unknown"} {
		r := w.send(w.everything(), `{"jsonrpc":"2.0","method":"`+method+`","params":{"requestId":1}}`)
		if r.status != http.StatusAccepted || len(r.body) != 0 {
			t.Errorf("%s: %d %s", method, r.status, r.body)
		}
	}
}

// two clients, the same request ids, each call with a marker of its own;
// meanwhile a third cancels those ids.
func TestAnswersDoNotCross(t *testing.T) {
	w := newWorld(t)
	alice := w.everything()
	c := claims(mcp.ScopeDelegate)
	c.Subject, c.ClientID, c.GrantID = "bob", "cursor", "grant-2"
	bob := w.sign(c)
	release := make(chan struct{})
	var waiting sync.WaitGroup
	waiting.Add(200)
	w.delegated = func(parent *delegation.Chain, ask delegation.Ask) (delegation.Issued, error) {
		waiting.Done()
		<-release
		return delegation.Issued{
			Signed:    delegation.Signed{Token: parent.Principal() + "/" + ask.Receiver, LID: strings.Repeat("l", 43)},
			ExpiresIn: ask.TTL, Path: append(parent.Path(), ask.Receiver),
		}, nil
	}
	var calls sync.WaitGroup
	for i := range 100 {
		for _, who := range []struct{ name, token string }{{"alice", alice}, {"bob", bob}} {
			calls.Go(func() {
				marker := fmt.Sprintf("agent-%s-%d", who.name, i)
				r := w.send(who.token, args(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"delegate","arguments":{"agent":%q}}}`, i, marker))
				v := r.json(t)
				id, _ := v.Get("id").Int()
				got := v.Get("result").Get("structuredContent").Get("token").Str()
				if id != int64(i) || got != who.name+"/"+marker {
					t.Errorf("%s got %s", marker, r.body)
				}
			})
		}
	}
	waiting.Wait() // all 200 are under way
	stranger := w.token()
	for i := range 100 {
		w.send(stranger, args(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%d}}`, i))
	}
	close(release)
	calls.Wait()
}

func TestNoSessions(t *testing.T) {
	w := newWorld(t)
	r := w.send(w.everything(), `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`,
		"Mcp-Session-Id", "stolen")
	if r.status != 200 || r.header.Get("Mcp-Session-Id") != "" {
		t.Fatalf("%d, session %q: %s", r.status, r.header.Get("Mcp-Session-Id"), r.body)
	}
	if r := w.send(w.everything(), ping, "Mcp-Session-Id", "stolen"); r.status != 200 {
		t.Errorf("a session id that means nothing: %d", r.status)
	}
}
