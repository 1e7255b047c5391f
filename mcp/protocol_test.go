package mcp_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/kavach-dev/kavach/jcs"
)

var update = flag.Bool("update", false, "write the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test ./mcp -update writes it):\n%s", file, got)
	}
}

// Every list is the same for every token and in both eras, but for what
// 2026-07-28 adds.
func TestTranscripts(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ file, method string }{
		{"tools-list.json", "tools/list"},
		{"resources-list.json", "resources/list"},
		{"resource-templates-list.json", "resources/templates/list"},
		{"prompts-list.json", "prompts/list"},
	} {
		t.Run(c.method, func(t *testing.T) {
			r := w.send(w.everything(), `{"jsonrpc":"2.0","id":7,"method":"`+c.method+`"}`, "MCP-Protocol-Version", "2025-11-25")
			golden(t, c.file, indent(t, r.body))
			if again := w.send(w.token(), `{"jsonrpc":"2.0","id":7,"method":"`+c.method+`"}`); !bytes.Equal(again.body, r.body) {
				t.Errorf("another token sees\n%s", again.body)
			}
			modern := w.modern(w.token(), c.method, "", "")
			golden(t, "modern-"+c.file, indent(t, modern.body))
			if modern.status != 200 {
				t.Errorf("status %d", modern.status)
			}
		})
	}
	t.Run("server/discover", func(t *testing.T) {
		golden(t, "discover.json", indent(t, w.modern(w.token(), "server/discover", "", "").body))
	})
	t.Run("initialize", func(t *testing.T) {
		r := w.send(w.token(), `{"jsonrpc":"2.0","id":7,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
		golden(t, "initialize.json", indent(t, r.body))
	})
}

func TestVersionsNegotiated(t *testing.T) {
	w := newWorld(t)
	for asked, want := range map[string]string{
		"2024-11-05": "2024-11-05", "2025-03-26": "2025-03-26", "2025-06-18": "2025-06-18", "2025-11-25": "2025-11-25",
		"2026-07-28": "2025-11-25", "1999-01-01": "2025-11-25",
	} {
		r := w.send(w.token(), `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"`+asked+`","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
		if got := r.json(t).Get("result").Get("protocolVersion").Str(); got != want {
			t.Errorf("asked for %s, got %s: %s", asked, got, r.body)
		}
	}
}

func TestUnknownMethods(t *testing.T) {
	w := newWorld(t)
	for _, method := range []string{"tools/none", "logging/setLevel", "resources/subscribe", "tasks/list", "sampling/createMessage", "x"} {
		r := w.modern(w.token(), method, "", "")
		if code, _ := r.json(t).Get("error").Get("code").Int(); r.status != 404 || code != -32601 {
			t.Errorf("%s in 2026-07-28: %d %s", method, r.status, r.body)
		}
		r = w.send(w.token(), `{"jsonrpc":"2.0","id":1,"method":"`+method+`"}`)
		if code, _ := r.json(t).Get("error").Get("code").Int(); r.status != 200 || code != -32601 {
			t.Errorf("%s before: %d %s", method, r.status, r.body)
		}
	}
	// What the newer revision removed is unknown to it, what it added to the older.
	for _, method := range []string{"initialize", "ping"} {
		if r := w.modern(w.token(), method, "", ""); r.status != 404 {
			t.Errorf("%s in 2026-07-28: %d %s", method, r.status, r.body)
		}
	}
	r := w.send(w.token(), `{"jsonrpc":"2.0","id":1,"method":"server/discover"}`)
	if code, _ := r.json(t).Get("error").Get("code").Int(); code != -32601 {
		t.Errorf("server/discover before: %s", r.body)
	}
	for _, name := range []string{"none", "Verify", "../verify"} {
		r := w.modern(w.token(), "tools/call", name, `"name":"`+name+`","arguments":{}`)
		if code, _ := r.json(t).Get("error").Get("code").Int(); r.status != 400 || code != -32602 {
			t.Errorf("tool %s: %d %s", name, r.status, r.body)
		}
	}
}

func TestResultMetadata(t *testing.T) {
	w := newWorld(t)
	r := w.modern(w.everything(), "tools/call", "verify", `"name":"verify","arguments":{"token":"x"}`)
	result := r.json(t).Get("result")
	if result.Get("resultType").Str() != "complete" || result.Get("ttlMs").Exists() {
		t.Errorf("tools/call: %s", r.body)
	}
	r = w.modern(w.everything(), "resources/read", "kavach://identity", `"uri":"kavach://identity"`)
	result = r.json(t).Get("result")
	if ttl, ok := result.Get("ttlMs").Int(); !ok || ttl != 0 || result.Get("cacheScope").Str() != "private" || result.Get("resultType").Str() != "complete" {
		t.Errorf("resources/read: %s", r.body)
	}
	r = w.send(w.everything(), `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`)
	if result := r.json(t).Get("result"); result.Get("resultType").Exists() || result.Get("ttlMs").Exists() {
		t.Errorf("tools/list before: %s", r.body)
	}
	// Nothing can be subscribed to: the stream says so and ends.
	r = w.modern(w.everything(), "subscriptions/listen", "", `"notifications":{"toolsListChanged":true}`)
	if r.status != 200 || r.header.Get("X-Accel-Buffering") != "no" || !r.json(t).Get("result").Exists() {
		t.Errorf("subscriptions/listen: %d %v %s", r.status, r.header, r.body)
	}
}

// schemas compiles the schemas that clients see.
func schemasOf(t *testing.T, w *world) map[string][2]*jsonschema.Schema {
	t.Helper()
	r := w.send(w.token(), `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`)
	found := map[string][2]*jsonschema.Schema{}
	for _, tool := range r.json(t).Get("result").Get("tools").Elements() {
		var pair [2]*jsonschema.Schema
		for i, member := range []string{"inputSchema", "outputSchema"} {
			schema := tool.Get(member)
			if schema.Get("type").Str() != "object" || strings.Contains(string(jcs.Canonical(schema)), `"null"`) {
				t.Errorf("%s of %s: %s", member, tool.Get("name").Str(), jcs.Canonical(schema))
			}
			doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(jcs.Canonical(schema)))
			if err != nil {
				t.Fatal(err)
			}
			compiler := jsonschema.NewCompiler()
			compiler.DefaultDraft(jsonschema.Draft2020)
			if err := compiler.AddResource("s.json", doc); err != nil {
				t.Fatal(err)
			}
			if pair[i], err = compiler.Compile("s.json"); err != nil {
				t.Fatal(err)
			}
		}
		found[tool.Get("name").Str()] = pair
	}
	if len(found) != 4 {
		t.Fatalf("%d tools", len(found))
	}
	return found
}

func fits(t *testing.T, s *jsonschema.Schema, text string) bool {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(v) == nil
}

// What a schema refuses the tool refuses, and the reverse: the schemas are what
// clients see of the rules, not other rules.
func TestSchemasAreTheRules(t *testing.T) {
	w := newWorld(t)
	schemas := schemasOf(t, w)
	key := `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	for tool, cases := range map[string]map[string]bool{
		"delegate": {
			`{"agent":"coder"}`: true, `{}`: false, `{"agent":""}`: false, `{"agent":7}`: false, `{"agent":null}`: false,
			`{"agent":"coder","more":1}`: false, `{"agent":"coder","Agent":"x"}`: false,
			`{"agent":"coder","scopes":[]}`: true, `{"agent":"coder","scopes":["a:b"]}`: true, `{"agent":"coder","scopes":["a","a"]}`: false,
			`{"agent":"coder","scopes":["a b"]}`: false, `{"agent":"coder","scopes":"a"}`: false, `{"agent":"coder","scopes":[1]}`: false,
			`{"agent":"coder","ttl_seconds":1}`: true, `{"agent":"coder","ttl_seconds":900}`: true, `{"agent":"coder","ttl_seconds":901}`: false,
			`{"agent":"coder","ttl_seconds":0}`: false, `{"agent":"coder","ttl_seconds":-5}`: false, `{"agent":"coder","ttl_seconds":"60"}`: false,
			`{"agent":"coder","ttl_seconds":1.5}`: false, `{"agent":"coder","ttl_seconds":true}`: false,
			`{"agent":"coder","max_depth":0}`: true, `{"agent":"coder","max_depth":8}`: true, `{"agent":"coder","max_depth":9}`: false,
			`{"agent":"coder","audience":"https://git.example"}`: true, `{"agent":"coder","audience":["https://git.example"]}`: false,
			`{"agent":"coder","public_key":` + key + `}`: true, `{"agent":"coder","public_key":{}}`: false, `{"agent":"coder","public_key":"x"}`: false,
			`{"agent":"coder","handle":true}`: true, `{"agent":"coder","handle":false,"public_key":` + key + `}`: true, `{"agent":"coder","handle":"yes"}`: false,
			`{"agent":"coder","public_key":{"kty":"RSA","crv":"P-256","x":"AAAA"}}`:                                                            false,
			`{"agent":"coder","tools":{"audit":{}}}`:                                                                                           true,
			`{"agent":"coder","tools":{"audit":{"limit":{"constraint_type":"range","min":1,"max":10,"max_inclusive":false,"optional":true}}}}`: true,
			`{"agent":"coder","tools":{"audit":{"q":{"constraint_type":"any","constraints":[{"constraint_type":"exact","value":"a"}]}}}}`:      true,
			`{"agent":"coder","tools":{"audit":{"q":{"constraint_type":"regex"}}}}`:                                                            false,
			`{"agent":"coder","tools":{"audit":{"q":{"value":"a"}}}}`:                                                                          false,
			`{"agent":"coder","tools":{"audit":{"q":"a"}}}`:                                                                                    false,
			`{"agent":"coder","tools":{"audit":{"q":{"constraint_type":"one_of","values":[]}}}}`:                                               false,
			`{"agent":"coder","tools":{"audit":{"q":{"constraint_type":"exact","value":"a","flags":1}}}}`:                                      false,
			`{"agent":"coder","tools":["audit"]}`:                                                                                              false,
			`{"agent":"coder","constraints":{}}`:                                                                                               true,
			`{"agent":"coder","constraints":{"resources":["pr/847"]}}`:                                                                         true,
			`{"agent":"coder","constraints":{"resources":[]}}`:                                                                                 true,
			`{"agent":"coder","constraints":{"resources":"pr/847"}}`:                                                                           false,
			`{"agent":"coder","constraints":{"allow_network":["git.internal"]}}`:                                                               true,
			`{"agent":"coder","constraints":{"max_file_size":5000000}}`:                                                                        true,
			`{"agent":"coder","constraints":{"max_file_size":-1}}`:                                                                             false,
			`{"agent":"coder","constraints":{"max_file_size":"5MB"}}`:                                                                          false,
			`{"agent":"coder","constraints":{"max_file_size":9007199254740992}}`:                                                               false,
			`{"agent":"coder","constraints":{"max_calls":3}}`:                                                                                  true,
			`{"agent":"coder","constraints":{"max_calls":0}}`:                                                                                  false,
			`{"agent":"coder","constraints":{"audit_required":true}}`:                                                                          true,
			`{"agent":"coder","constraints":{"audit_required":1}}`:                                                                             false,
			`{"agent":"coder","constraints":{"until":"tomorrow"}}`:                                                                             false,
			`{"agent":"coder","parent_id":"someone-else"}`:                                                                                     false,
			`{"agent":"coder","parent":"eyJ"}`:                                                                                                 false,
			`{"agent":"` + strings.Repeat("a", 129) + `"}`:                                                                                     false,
			`{"agent":"coder","constraints":{"resources":["a","a"]}}`:                                                                          false,
			`{"agent":"coder","constraints":{"resources":["pr 847"]}}`:                                                                         false,
			`{"agent":"coder","constraints":{"allow_network":["git.internal:8443"]}}`:                                                          true,
		},
		"verify": {
			`{"token":"x"}`: true, `{}`: false, `{"token":""}`: false, `{"token":7}`: false,
			`{"token":"x","proof":"y"}`: true, `{"token":"x","proof":""}`: false, `{"token":"x","proof":"a b"}`: false, `{"token":"x","proof":7}`: false,
			`{"token":"x","audience":"https://git.example"}`: true, `{"token":"x","request":{}}`: true, `{"token":"x","request":[]}`: false,
			`{"token":"x","request":{"scope":"a","resource":"r","host":"h","size":1}}`: true,
			`{"token":"x","request":{"tool":"t","arguments":{"a":1}}}`:                 true,
			`{"token":"x","request":{"tool":"t","arguments":[]}}`:                      false,
			`{"token":"x","request":{"size":-1}}`:                                      false,
			`{"token":"x","request":{"size":1.5}}`:                                     false,
			`{"token":"x","request":{"without":["network","size"]}}`:                   true,
			`{"token":"x","request":{"without":["resource"]}}`:                         false,
			`{"token":"x","request":{"scope":"a b"}}`:                                  false,
			`{"token":"x","request":{"method":"GET","url":"https://git.example/x"}}`:   true,
			`{"token":"x","request":{"method":"get"}}`:                                 false,
			`{"token":"x","request":{"url":"https://git.example/a b"}}`:                false,
		},
		"audit": {
			`{}`: true, `{"agent":"a"}`: true, `{"result":"denied"}`: true, `{"result":"maybe"}`: false, `{"action":"delegate"}`: true,
			`{"action":"'; DROP TABLE audit_records; --"}`: false, `{"lid":"x"}`: false, `{"lid":"` + strings.Repeat("A", 43) + `"}`: true,
			`{"limit":1}`: true, `{"limit":100}`: true, `{"limit":0}`: false, `{"limit":"5"}`: false, `{"order":"oldest"}`: true, `{"order":"seq"}`: false,
			`{"q":"kavach/"}`: true, `{"q":""}`: false, `{"sort":"time"}`: false, `{"id":"0190aaaa-0000-7000-8000-000000000001"}`: true,
			`{"cursor":7}`: false, `{"since":7}`: false,
		},
		"revoke": {
			`{}`: false, `{"agent":"coder"}`: true, `{"token_id":"` + strings.Repeat("A", 43) + `"}`: true, `{"token_id":"x"}`: false,
			`{"chain":"a~b"}`: true, `{"agent":"coder","chain":"a~b"}`: false, `{"agent":""}`: false,
		},
	} {
		for arguments, ok := range cases {
			if fits(t, schemas[tool][0], arguments) != ok {
				t.Errorf("the schema of %s says %v to %s", tool, !ok, arguments)
			}
			result := w.call(w.everything(), tool, arguments)
			refused := strings.HasPrefix(textOf(result), "refused: invalid_arguments: ")
			if refused == ok {
				t.Errorf("%s %s: %s", tool, arguments, jcs.Canonical(result))
			}
			if content := result.Get("structuredContent"); content.Exists() && !fits(t, schemas[tool][1], string(jcs.Canonical(content))) {
				t.Errorf("the result of %s %s does not fit its outputSchema: %s", tool, arguments, jcs.Canonical(content))
			}
		}
	}
}
