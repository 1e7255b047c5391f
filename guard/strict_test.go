package guard_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
)

// aatRoot is a root of another issuer, made with the draft alone.
func aatRoot(t *testing.T, issuer agent.PrivateKey, tools map[string]any) (string, agent.PrivateKey) {
	t.Helper()
	holder := newKey(t)
	payload, err := json.Marshal(map[string]any{
		"iss": "https://other.example", "iat": start.Unix(), "exp": start.Unix() + 600, "jti": "root-1",
		"del_depth": 0, "del_max_depth": 2,
		"cnf":                   map[string]any{"jwk": json.RawMessage(holder.Public().AppendJWK(nil))},
		"authorization_details": []any{map[string]any{"type": "attenuating_agent_token", "tools": tools}},
	})
	if err != nil {
		t.Fatal(err)
	}
	token, err := agent.SignCompact(issuer, map[string]any{"typ": "aat+jwt"}, payload)
	if err != nil {
		t.Fatal(err)
	}
	return token, holder
}

// TestStrict: a resource of the pure draft takes a call that its chain permits,
// once, and says every refusal in the one vocabulary.
func TestStrict(t *testing.T) {
	w := newWorld(t)
	key := newKey(t)
	token, holder := aatRoot(t, key, map[string]any{"comment": map[string]any{"n": map[string]any{"constraint_type": "range", "max": 5}}})
	leaf := bound{w, token, holder}
	strict := &delegation.AATStrict{Anchors: []delegation.AATAnchor{{Issuer: "https://other.example", Key: key.Public()}}}
	cfg := guard.Config{Resource: resource, Strict: strict, RequireAATAud: true, Report: w.report, Now: w.clock}
	cfg.NeedOf = func(r *http.Request) (guard.Need, error) {
		return guard.Need{Request: delegation.Request{Scope: delegation.NoScope(), Tool: delegation.Given(delegation.Call{
			Name: r.Header.Get("Tool"), Arguments: object(t, r.Header.Get("Arguments")),
		})}}, nil
	}
	handler := guard.Require(cfg)(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if guard.From(r.Context()) != nil || guard.Permit(r.Context()).Leaf().JTI != "root-1" {
			t.Error("the context holds something else than the permit")
		}
	}))
	send := func(proof, tool, arguments string, change ...func(*http.Request)) *http.Request {
		r := leaf.called(proof, "")
		r.Header.Set("Tool", tool)
		r.Header.Set("Arguments", arguments)
		for _, f := range change {
			f(r)
		}
		return r
	}
	used := leaf.ofCall("comment", `{"n":3}`)
	for _, c := range []struct {
		name   string
		r      *http.Request
		status int
		reason delegation.Reason
	}{
		{"the call", send(used, "comment", `{"n":3}`), 200, ""},
		{"again", send(used, "comment", `{"n":3}`), 401, delegation.Replayed},
		{"too large an argument", send(leaf.ofCall("comment", `{"n":6}`), "comment", `{"n":6}`), 403, delegation.ConstraintViolated},
		{"another tool", send(leaf.ofCall("merge", `{}`), "merge", `{}`), 403, delegation.ConstraintViolated},
		{"another argument than proved", send(leaf.ofCall("comment", `{"n":3}`), "comment", `{"n":4}`), 401, delegation.HolderBindingFailed},
		{"a proof that names nobody", send(leaf.ofCall("comment", `{"n":3}`, func(p *agent.AATProof) { p.Audience = "" }), "comment", `{"n":3}`), 401, delegation.HolderBindingFailed},
		{"a proof for another", send(leaf.ofCall("comment", `{"n":3}`, func(p *agent.AATProof) { p.Audience = "https://x" }), "comment", `{"n":3}`), 401, delegation.HolderBindingFailed},
		{"as Bearer", send(leaf.ofCall("comment", `{"n":3}`), "comment", `{"n":3}`, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }), 401, delegation.HolderBindingFailed},
		{"a DPoP proof", send("", "comment", `{"n":3}`, func(r *http.Request) {
			r.Header.Del("AAT-Proof")
			r.Header.Set("DPoP", leaf.proof(post))
		}), 401, delegation.HolderBindingFailed},
		{"a token of ours", send(leaf.ofCall("comment", `{"n":3}`), "comment", `{"n":3}`, func(r *http.Request) {
			r.Header.Set("Authorization", "DPoP "+w.root().token)
		}), 401, delegation.AlgNotAllowed},
	} {
		w.decided()
		got := do(handler, c.r)
		if d := w.decided(); got.status != c.status || len(d) != 1 || d[0].Reason != c.reason || (d[0].Permit != nil) != (c.status == 200 || c.reason == delegation.Replayed) {
			t.Errorf("%s: %d %s, reported %+v", c.name, got.status, got.body, d)
		}
	}
	needy := cfg
	needy.NeedOf = func(*http.Request) (guard.Need, error) {
		return guard.Need{Request: delegation.Request{
			Scope: delegation.AllOf("repository:read"), Tool: delegation.Given(delegation.Call{Name: "comment", Arguments: object(t, `{"n":3}`)}),
		}}, nil
	}
	if got := do(guard.Require(needy)(ok), send(leaf.ofCall("comment", `{"n":3}`), "comment", `{"n":3}`)); got.code != "insufficient_scope" {
		t.Errorf("a scope of a chain that holds none: %d %s", got.status, got.body)
	}
}

// TestStrictMeta: behind Authenticate the call is in the message.
func TestStrictMeta(t *testing.T) {
	w := newWorld(t)
	key := newKey(t)
	token, holder := aatRoot(t, key, map[string]any{"comment": map[string]any{}})
	leaf := bound{w, token, holder}
	asked := delegation.Call{Name: "comment", Arguments: object(t, `{"n":1}`)}
	handler := guard.Authenticate(guard.Config{
		Resource: resource, RequireAATAud: true, MCP: true, Now: w.clock,
		Strict: &delegation.AATStrict{Anchors: []delegation.AATAnchor{{Issuer: "https://other.example", Key: key.Public()}}},
	})(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		request := delegation.Request{Scope: delegation.NoScope(), Tool: delegation.Given(asked)}
		if err := guard.Allows(r.Context(), request); err != nil {
			guard.Refuse(rw, r, request, err, nil)
		}
	}))
	message := func() *http.Request { return posted(leaf.presented(callMessage, leaf.ofCall("comment", `{"n":1}`))) }
	if got := do(handler, message()); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := do(handler, posted(callMessage)); got.status != 401 {
		t.Errorf("nothing presented: %d %s", got.status, got.body)
	}
	asked.Name = "merge"
	if got := do(handler, message()); got.status == 200 {
		t.Error("the handler did something else than was permitted")
	}
	// With the proof in a header the message is still what it is about.
	r := httptest.NewRequest(http.MethodPost, resource, strings.NewReader(listMessage))
	r.Header.Set("Authorization", "DPoP "+token)
	r.Header.Set("AAT-Proof", leaf.ofCall("comment", `{"n":1}`))
	if got := do(handler, r); got.status == 200 {
		t.Errorf("the proof of a call for a list: %d", got.status)
	}
}

// TestStrictIsConfiguredWhole: the profile is not taken by halves.
func TestStrictIsConfiguredWhole(t *testing.T) {
	w := newWorld(t)
	good := func() guard.Config {
		return guard.Config{Resource: resource, Strict: &delegation.AATStrict{}, RequireAATAud: true}
	}
	guard.Require(good())
	for name, change := range map[string]func(*guard.Config){
		"without RequireAATAud": func(c *guard.Config) { c.RequireAATAud = false },
		"with a Verifier, too":  func(c *guard.Config) { c.Verifier = w.verifier() },
		"with Revocations":      func(c *guard.Config) { c.Revocations = w },
		"for somebody else":     func(c *guard.Config) { c.Strict.Audience = "https://x.example" },
		"with a nonce of its own": func(c *guard.Config) {
			c.Strict.Nonce = func(string) bool { return true }
		},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: taken", name)
				}
			}()
			cfg := good()
			change(&cfg)
			guard.Require(cfg)
		}()
	}
	defer func() {
		if recover() == nil {
			t.Error("Authenticate without MCP: taken")
		}
	}()
	guard.Authenticate(good())
}
