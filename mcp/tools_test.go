package mcp_test

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
	"github.com/kavach-dev/kavach/mcp"
)

// oauthRefusal is an error of an authorization server.
type oauthRefusal struct{ code, description string }

func (e oauthRefusal) Error() string                { return e.code }
func (e oauthRefusal) OAuthError() (string, string) { return e.code, e.description }

func TestDelegate(t *testing.T) {
	w := newWorld(t)
	v := w.content(w.everything(), "delegate",
		`{"agent":"coder","scopes":["repository:read"],"ttl_seconds":60,"audience":"https://git.example",
		  "tools":{"diff":{"pull":{"constraint_type":"exact","value":847},"format":{"constraint_type":"one_of","values":["patch","raw"],"optional":true}}},
		  "constraints":{"resources":["pr/847"],"allow_network":["git.internal"],"max_file_size":5000000,"max_calls":3,"audit_required":true},"max_depth":0}`)
	ask := w.asks[0]
	size, calls, audited := int64(5000000), int64(3), true
	want := delegation.Limits{Resources: []string{"pr/847"}, AllowNetwork: []string{"git.internal"}, MaxFileSize: &size, MaxCalls: &calls, AuditRequired: &audited}
	tools := delegation.Tools{"diff": delegation.Args(map[string]delegation.Constraint{
		"pull": delegation.Exact(847), "format": delegation.OneOfValues("patch", "raw").Optional(),
	})}
	if ask.Receiver != "coder" || !slices.Equal(ask.Scopes, []string{"repository:read"}) || ask.TTL != time.Minute ||
		!slices.Equal(ask.Audience, []string{"https://git.example"}) || !reflect.DeepEqual(ask.Tools, tools) ||
		!jcs.Equal(value(t, ask.Limits.Map()), value(t, want.Map())) || ask.MaxDepth == nil || *ask.MaxDepth != 0 || !ask.Key.IsZero() {
		t.Errorf("asked %+v", ask)
	}
	if v.Get("token").Str() != "token-for-coder" || v.Get("token_type").Str() != "Bearer" || v.Get("clamped").Bool() {
		t.Errorf("%s", jcs.Canonical(v))
	}
	if path, _ := v.Get("chain").Strings(); !slices.Equal(path, []string{"alice", "inspector", "coder"}) {
		t.Errorf("chain %v", path)
	}
	if !jcs.Equal(v.Get("constraints").Get("tools"), value(t, tools.Map())) {
		t.Errorf("constraints %s", jcs.Canonical(v.Get("constraints")))
	}
	if len(w.recorded()) != 0 {
		t.Error("the delegator records, and nobody else")
	}
}

func TestDelegateDefaults(t *testing.T) {
	w := newWorld(t)
	w.content(w.everything(), "delegate", `{"agent":"coder"}`)
	if ask := w.asks[0]; ask.TTL != 120*time.Second || len(ask.Scopes) != 0 || ask.Audience != nil || ask.MaxDepth != nil || ask.Tools != nil || !ask.Limits.IsZero() {
		t.Errorf("asked %+v", ask)
	}
}

func TestDelegateSaysThatTheTimeWasClamped(t *testing.T) {
	w := newWorld(t)
	w.delegated = func(*delegation.Chain, delegation.Ask) (delegation.Issued, error) {
		return delegation.Issued{Signed: delegation.Signed{Token: "x", LID: "l"}, ExpiresIn: 42 * time.Second, Clamped: true}, nil
	}
	v := w.content(w.everything(), "delegate", `{"agent":"coder","ttl_seconds":900}`)
	if n, _ := v.Get("expires_in").Int(); n != 42 || !v.Get("clamped").Bool() || !strings.Contains(v.Get("note").Str(), "shortened") {
		t.Errorf("%s", jcs.Canonical(v))
	}
}

func TestDelegateWithPublicKey(t *testing.T) {
	w := newWorld(t)
	key, err := agent.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := jcs.Marshal(key.Public().JWK())
	if err != nil {
		t.Fatal(err)
	}
	v := w.content(w.everything(), "delegate", `{"agent":"coder","public_key":`+string(jwk)+`}`)
	if v.Get("token_type").Str() != "DPoP" || v.Get("note").Str() == "" || !w.asks[0].Key.Equal(key.Public()) {
		t.Errorf("%s", jcs.Canonical(v))
	}
	for name, bad := range map[string]string{
		"private key":          `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}`,
		"small order":          `{"kty":"OKP","crv":"Ed25519","x":"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`,
		"off the curve":        `{"kty":"EC","crv":"P-256","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"}`,
		"curve of another kty": `{"kty":"EC","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
	} {
		if text := w.refusal(w.everything(), "delegate", `{"agent":"coder","public_key":`+bad+`}`); !strings.Contains(text, "public_key") {
			t.Errorf("%s: %s", name, text)
		}
	}
	if len(w.asks) != 1 {
		t.Errorf("%d asks", len(w.asks))
	}
}

// A refusal has the reason by name and says what to do.
func TestDelegateRefusals(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		err  error
		want []string
	}{
		{&delegation.Refusal{Reason: delegation.NotNarrower, Dimension: "scope", Detail: "repository:write", Part: -1}, []string{"refused: not_narrower: ", "scope repository:write is not in your token; you hold kavach:audit kavach:delegate kavach:verify"}},
		{oauthRefusal{"invalid_scope", "a scope is not known here"}, []string{"refused: invalid_scope: a scope is not known here; you hold kavach:audit"}},
		{&delegation.Refusal{Reason: delegation.NotNarrower, Dimension: "resources", Part: -1}, []string{"refused: not_narrower: resources", "kavach://identity"}},
		{&delegation.Refusal{Reason: delegation.AudienceWidened, Part: -1}, []string{"refused: audience_widened: ", "resource server"}},
		{&delegation.Refusal{Reason: delegation.DepthInvalid, Part: -1}, []string{"refused: depth_invalid: ", "any further"}},
		{&delegation.Refusal{Reason: delegation.PartyRepeated, Part: -1}, []string{"refused: party_repeated: ", "another one"}},
		{&delegation.Refusal{Reason: delegation.KeyReuse, Part: -1}, []string{"refused: key_reuse: ", "new one"}},
		{&delegation.Refusal{Reason: delegation.OutlivesParent, Part: -1}, []string{"refused: outlives_parent: ", "new one"}},
		{&delegation.Refusal{Reason: delegation.NeedsCounter, Part: -1}, []string{"refused: needs_counter: ", "max_calls"}},
		{&delegation.Refusal{Reason: delegation.HolderBindingFailed, Part: -1}, []string{"refused: holder_binding_failed: ", "public_key"}},
		{oauthRefusal{"invalid_target", "no such resource server"}, []string{"refused: invalid_target: no such resource server"}},
		{oauthRefusal{"temporarily_unavailable", "secret detail"}, []string{"refused: temporarily_unavailable: "}},
		{audit.ErrUnavailable, []string{"refused: temporarily_unavailable: "}},
		{errors.New("pq: relation secret_table does not exist"), []string{"failed: server_error: "}},
		{oauthRefusal{"server_error", "secret stack"}, []string{"failed: server_error: "}},
	} {
		w.set(func() {
			w.delegated = func(*delegation.Chain, delegation.Ask) (delegation.Issued, error) { return delegation.Issued{}, c.err }
		})
		text := w.refusal(w.everything(), "delegate", `{"agent":"coder"}`)
		for _, want := range c.want {
			if !strings.Contains(text, want) {
				t.Errorf("%v: %q does not say %q", c.err, text, want)
			}
		}
		if strings.Contains(text, "secret") {
			t.Errorf("%v leaks: %s", c.err, text)
		}
	}
}

func TestInvalidArgumentsAreRecorded(t *testing.T) {
	w := newWorld(t)
	for tool, c := range map[string]struct{ arguments, action string }{
		"delegate": {`{"agent":"coder","parent_id":"grant-of-somebody"}`, audit.Delegate},
		"verify":   {`{}`, audit.Verified},
		"audit":    {`{"result":"x"}`, audit.AuditRead},
		"revoke":   {`{}`, audit.Revoke},
	} {
		w.refusal(w.everything(), tool, c.arguments)
		e := w.last()
		if e.Action != c.action || e.Result != audit.Denied || e.Reason != "invalid_arguments" || e.Resource != "kavach/"+tool ||
			e.Sub != "alice" || e.Grant != "grant-1" || len(e.Chain) != 1 || e.Detail["via"] != "mcp" {
			t.Errorf("%s: %+v", tool, e)
		}
	}
	if len(w.asks) != 0 {
		t.Error("a parent was taken from a parameter")
	}
}

func TestVerify(t *testing.T) {
	w := newWorld(t)
	caller := w.everything()
	c := claims("repository:read", "comment:write")
	c.Audience = []string{"https://git.example"}
	c.Limits.Resources = []string{"pr/847"}
	c.Limits.AllowNetwork = []string{"git.internal"}
	token := w.sign(c)

	v := w.content(caller, "verify", `{"token":"`+token+`","audience":"https://git.example"}`)
	if !v.Get("valid").Bool() || v.Get("allowed").Exists() || v.Get("subject").Str() != "alice" {
		t.Errorf("%s", jcs.Canonical(v))
	}
	if unchecked, _ := v.Get("unchecked").Strings(); !slices.Equal(unchecked, []string{"request"}) {
		t.Errorf("unchecked %v", unchecked)
	}
	link := v.Get("chain").Elements()[0]
	if scopes, _ := link.Get("scopes").Strings(); !slices.Equal(scopes, []string{"comment:write", "repository:read"}) || link.Get("client_id").Str() != "inspector" {
		t.Errorf("link %s", jcs.Canonical(link))
	}
	if strings.Contains(string(jcs.Canonical(v)), token) {
		t.Error("the token is in the answer")
	}
	if e := w.last(); e.Action != audit.Verified || e.Result != audit.Allowed || e.Detail["valid"] != true || e.Detail["token_id"] != link.Get("token_id").Str() {
		t.Errorf("recorded %+v", e)
	}

	for _, q := range []struct {
		name, more string
		valid      bool
		allowed    bool
		reason     string
	}{
		{"what it is for", `"audience":"https://git.example","request":{"scope":"repository:read","resource":"pr/847","host":"git.internal","without":["size"]}`, true, true, ""},
		{"another thread", `"audience":"https://git.example","request":{"scope":"repository:read","resource":"pr/848","host":"git.internal"}`, true, false, "constraint_violated"},
		{"another host", `"audience":"https://git.example","request":{"scope":"repository:read","resource":"pr/847","host":"evil.example"}`, true, false, "constraint_violated"},
		{"another scope", `"audience":"https://git.example","request":{"scope":"repository:write","resource":"pr/847","host":"git.internal"}`, true, false, "scope_not_granted"},
		{"nothing said about the resource", `"audience":"https://git.example","request":{"scope":"repository:read","host":"git.internal"}`, true, false, "constraint_violated"},
		{"nothing said about the network", `"audience":"https://git.example","request":{"scope":"repository:read","resource":"pr/847"}`, true, false, "constraint_violated"},
		{"no network", `"audience":"https://git.example","request":{"scope":"repository:read","resource":"pr/847","without":["network"]}`, true, true, ""},
		{"another audience", `"audience":"https://other.example","request":{"scope":"repository:read","resource":"pr/847","host":"git.internal"}`, false, false, "audience_mismatch"},
		{"trailing slash", `"audience":"https://git.example/","request":{}`, false, false, "audience_mismatch"},
	} {
		t.Run(q.name, func(t *testing.T) {
			v := w.content(caller, "verify", `{"token":"`+token+`",`+q.more+`}`)
			if v.Get("valid").Bool() != q.valid || v.Get("allowed").Bool() != q.allowed || v.Get("reason").Str() != q.reason {
				t.Errorf("%s", jcs.Canonical(v))
			}
		})
	}
}

func TestVerifyRefuses(t *testing.T) {
	w := newWorld(t)
	caller := w.everything()
	expired := claims("a")
	expired.IssuedAt, expired.Expires = time.Now().Add(-time.Hour), time.Now().Add(-time.Second)
	revoked := w.token("b")
	signed, err := delegation.Sign(claims("c"), w.key)
	if err != nil {
		t.Fatal(err)
	}
	w.set(func() { w.revoked[signed.LID] = true })
	broken := revoked[:len(revoked)-8] + "AAAAAAAA"
	for name, c := range map[string]struct{ token, reason string }{
		"expired":               {w.sign(expired), "expired"},
		"revoked":               {signed.Token, "revoked"},
		"garbage":               {"x.y.z", "malformed"},
		"one part":              {"x", "malformed"},
		"signature":             {broken, "signature_invalid"},
		"manifest":              {"eyJhbGciOiJFZDI1NTE5IiwidHlwIjoiYWdlbnQtbWFuaWZlc3Qrand0In0.e30.AAAA", "bad_typ"},
		"many dots":             {strings.Repeat(".", 57344), "malformed"},
		"many links":            {strings.Repeat("a~", 20) + "a", "malformed"},
		"link of a plain token": {revoked + "~" + revoked, "depth_invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			v := w.content(caller, "verify", `{"token":"`+c.token+`","request":{"scope":"a"}}`)
			if v.Get("valid").Bool() || v.Get("allowed").Bool() {
				t.Fatalf("%s", jcs.Canonical(v))
			}
			if reason := v.Get("reason").Str(); reason != c.reason && name != "link of a plain token" {
				t.Errorf("reason %s, want %s", reason, c.reason)
			}
			if len(c.token) > 20 && strings.Contains(string(jcs.Canonical(v)), c.token[:20]) {
				t.Error("the token is in the answer")
			}
		})
	}
}

func TestVerifyListsTheProofAsUnchecked(t *testing.T) {
	w := newWorld(t, func(c *mcp.Config) { c.Revocations = nil })
	c := claims("a")
	c.JKT = strings.Repeat("A", 43)
	v := w.content(w.everything(), "verify", `{"token":"`+w.sign(c)+`"}`)
	if unchecked, _ := v.Get("unchecked").Strings(); !slices.Equal(unchecked, []string{"audience", "proof", "request", "revocation"}) {
		t.Errorf("unchecked %v", unchecked)
	}
}

func TestAudit(t *testing.T) {
	w := newWorld(t)
	w.page = audit.Page{Entries: []audit.Stored{{Seq: 3, Bytes: []byte(`{"action":"login","id":"x","result":"allowed","seq":3,"time":5}`)}}, Next: "n"}
	v := w.content(w.everything(), "audit", `{"agent":"coder","action":"delegate","result":"denied","resource":"r","sub":"s","grant":"g","since":"2026-01-02T03:04:05Z","until":"2026-01-02T03:04:05.5+01:00","q":"p","order":"oldest","cursor":"c","limit":1000000000}`)
	q := w.queries[0]
	want := audit.Query{
		Sight: audit.Sight{Grant: "grant-1", Path: []string{"alice", "inspector"}, Person: "alice"},
		Agent: "coder", Action: "delegate", Result: "denied", Resource: "r", Sub: "s", Grant: "g", Prefix: "p", Ascending: true, Cursor: "c", Limit: 100,
		Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixMilli(), Until: time.Date(2026, 1, 2, 2, 4, 5, 5e8, time.UTC).UnixMilli(),
	}
	if !slices.Equal(q.Sight.Path, want.Sight.Path) {
		t.Errorf("sight %+v", q.Sight)
	}
	q.Sight.Path, want.Sight.Path = nil, nil
	if q.Sight.All || q.Sight.Person != "alice" || q.Limit != 100 || q.Agent != want.Agent || q.Since != want.Since || q.Until != want.Until ||
		!q.Ascending || q.Prefix != "p" || q.Cursor != "c" {
		t.Errorf("asked %+v", q)
	}
	entries := v.Get("entries").Elements()
	if len(entries) != 1 || entries[0].Get("action").Str() != "login" || v.Get("next_cursor").Str() != "n" {
		t.Errorf("%s", jcs.Canonical(v))
	}
	if e := w.last(); e.Action != audit.AuditRead || e.Result != audit.Allowed || e.Detail["entries"] != 1 {
		t.Errorf("recorded %+v", e)
	}
	w.content(w.token("audit:read"), "audit", `{}`)
	if q := w.queries[1]; !q.Sight.All || q.Limit != 20 {
		t.Errorf("asked %+v", q)
	}
	// Somebody acting for alice sees what is below that agent, not all of hers.
	c := claims(mcp.ScopeAudit)
	c.ClientID, c.Act = "rev", []delegation.Party{{ID: "rev", Proved: true}, {ID: "orch", Proved: true}}
	w.content(w.sign(c), "audit", `{}`)
	if q := w.queries[2]; q.Sight.Person != "" || !slices.Equal(q.Sight.Path, []string{"alice", "orch", "rev"}) {
		t.Errorf("asked %+v", q)
	}
}

func TestAuditRefuses(t *testing.T) {
	w := newWorld(t)
	w.pageErr = audit.ErrCursor
	if text := w.refusal(w.everything(), "audit", `{"cursor":"eyJ0YW1wZXJlZCI6MX0"}`); !strings.HasPrefix(text, "refused: invalid_cursor: ") {
		t.Error(text)
	}
	if e := w.last(); e.Reason != "invalid_cursor" {
		t.Errorf("%+v", e)
	}
	w.pageErr = errors.New("database secret")
	if text := w.refusal(w.everything(), "audit", `{}`); text != "failed: server_error: the server could not finish this; nothing was handed out" {
		t.Error(text)
	}
	for _, arguments := range []string{`{"action":"nothing.such"}`, `{"since":"yesterday"}`, `{"id":"x","agent":"y"}`, `{"lid":"' OR 1=1 --"}`} {
		if text := w.refusal(w.everything(), "audit", arguments); !strings.HasPrefix(text, "refused: invalid_arguments: ") {
			t.Errorf("%s: %s", arguments, text)
		}
	}
	if text := w.refusal(w.everything(), "audit", `{"id":"0190aaaa-0000-7000-8000-00000000ffff"}`); !strings.HasPrefix(text, "refused: not_found: ") {
		t.Error(text)
	}
	v := w.content(w.everything(), "audit", `{"id":"0190aaaa-0000-7000-8000-000000000001"}`)
	if len(v.Get("entries").Elements()) != 1 {
		t.Errorf("%s", jcs.Canonical(v))
	}
}

func TestRevoke(t *testing.T) {
	w := newWorld(t)
	id := strings.Repeat("A", 43)
	v := w.content(w.everything(), "revoke", `{"token_id":"`+id+`"}`)
	if n, _ := v.Get("below").Int(); n != 2 || !v.Get("recorded").Bool() || w.revokes[0].TokenID != id {
		t.Errorf("%s", jcs.Canonical(v))
	}
	w.undo = func(mcp.Revocation) (mcp.Revoked, error) {
		return mcp.Revoked{Revoked: []string{id}}, errors.New("counting")
	}
	if v := w.content(w.everything(), "revoke", `{"agent":"coder"}`); v.Get("below").Exists() || v.Get("recorded").Bool() {
		t.Errorf("%s", jcs.Canonical(v))
	}
	w.undo = func(mcp.Revocation) (mcp.Revoked, error) {
		return mcp.Revoked{}, oauthRefusal{"invalid_grant", "there is no such live token below yours"}
	}
	if text := w.refusal(w.everything(), "revoke", `{"chain":"a~b"}`); !strings.HasPrefix(text, "refused: invalid_grant: there is no such") {
		t.Error(text)
	}
}

func value(t *testing.T, x any) jcs.Value {
	t.Helper()
	v, err := jcs.Of(x)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
