package mcp_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
	"github.com/kavach-dev/kavach/mcp"
)

func newKey(t testing.TB) agent.PrivateKey {
	t.Helper()
	key, err := agent.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// callBound calls a tool with a token that is bound to key, and proves it.
func (w *world) callBound(endpoint, token string, key agent.PrivateKey, tool, arguments string) jcs.Value {
	w.t.Helper()
	proof, err := agent.SignProof(key, agent.Proof{Method: "POST", URL: endpoint, Token: token, IssuedAt: time.Now()})
	if err != nil {
		w.t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, w.url, strings.NewReader(
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"`+tool+`","arguments":`+arguments+`}}`))
	if err != nil {
		w.t.Fatal(err)
	}
	for name, value := range map[string]string{
		"Authorization": "DPoP " + token, "DPoP": proof, "Content-Type": "application/json",
		"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25",
	} {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		w.t.Fatalf("%s: %d %s %v", tool, resp.StatusCode, body, err)
	}
	return reply{resp.StatusCode, resp.Header, body}.json(w.t).Get("result")
}

// "A bound parent never yields an unbound token (a handle instead)", and who
// may have a token may ask for a handle.
func TestDelegateGivesAHandle(t *testing.T) {
	w := newWorld(t)
	key := newKey(t)
	c := claims(mcp.ScopeDelegate)
	c.JKT = key.Public().Thumbprint()
	token := w.sign(c)
	for name, result := range map[string]jcs.Value{
		"bound":          w.callBound(issuer+mcp.Path, token, key, "delegate", `{"agent":"coder","scopes":["a"]}`),
		"asked and bare": w.call(w.everything(), "delegate", `{"agent":"coder","scopes":["a"],"handle":true}`),
	} {
		v := result.Get("structuredContent")
		if v.Get("handle").Str() != "handle-for-coder" || v.Get("token").Exists() || v.Get("token_id").Exists() || v.Get("token_type").Str() != "N_A" {
			t.Errorf("%s: %s", name, jcs.Canonical(result))
		}
		if n, _ := v.Get("expires_in").Int(); n != 60 || !strings.Contains(v.Get("note").Str(), "redeems") {
			t.Errorf("%s: %s", name, jcs.Canonical(v))
		}
		if !fits(t, schemasOf(t, w)["delegate"][1], string(jcs.Canonical(v))) {
			t.Errorf("%s: it does not fit its schema: %s", name, jcs.Canonical(v))
		}
	}
	if len(w.handled) != 2 || !slices.Contains(w.handled, token) {
		t.Error("the handle does not stand on the token of the request")
	}
	jwk, err := jcs.Marshal(newKey(t).Public().JWK())
	if err != nil {
		t.Fatal(err)
	}
	made := w.callBound(issuer+mcp.Path, token, key, "delegate", `{"agent":"coder","public_key":`+string(jwk)+`}`).Get("structuredContent")
	if made.Get("token_type").Str() != "DPoP" || made.Get("handle").Exists() {
		t.Errorf("with a key: %s", jcs.Canonical(made))
	}
	if text := w.refusal(w.everything(), "delegate", `{"agent":"coder","handle":true,"public_key":`+string(jwk)+`}`); !strings.Contains(text, "exclude") {
		t.Error(text)
	}
}

// A proof is judged as far as the request is known, and the rest is named.
func TestVerifyProof(t *testing.T) {
	w := newWorld(t)
	key, other := newKey(t), newKey(t)
	c := claims("a")
	c.JKT = key.Public().Thumbprint()
	token := w.sign(c)
	prove := func(key agent.PrivateKey, p agent.Proof) string {
		t.Helper()
		if p.IssuedAt.IsZero() {
			p.IssuedAt = time.Now()
		}
		if p.Method == "" {
			p.Method, p.URL = "GET", "https://git.example/pulls/847"
		}
		text, err := agent.SignProof(key, p)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	good := prove(key, agent.Proof{Token: token})
	whole := `{"scope":"a","method":"GET","url":"https://git.example/pulls/847?x=1"}`
	for _, c := range []struct {
		name, token, proof, request string
		valid                       bool
		unchecked                   []string
	}{
		{"everything known", token, good, whole, true, []string{"audience"}},
		{"nothing known", token, good, "", true, []string{"audience", "method", "request", "url"}},
		{"the method known", token, good, `{"scope":"a","method":"GET"}`, true, []string{"audience", "url"}},
		{"no proof", token, "", whole, true, []string{"audience", "proof"}},
		{"another method", token, good, `{"scope":"a","method":"POST","url":"https://git.example/pulls/847"}`, false, nil},
		{"another url", token, good, `{"scope":"a","method":"GET","url":"https://git.example/pulls/848"}`, false, nil},
		{"another key", token, prove(other, agent.Proof{Token: token}), "", false, nil},
		{"another token", token, prove(key, agent.Proof{Token: token + "x"}), "", false, nil},
		{"no ath", token, prove(key, agent.Proof{}), "", false, nil},
		{"too old", token, prove(key, agent.Proof{Token: token, IssuedAt: time.Now().Add(-2 * time.Minute)}), "", false, nil},
		{"no proof at all", token, "x.y.z", "", false, nil},
		{"the token as its own proof", token, token, "", false, nil},
		{"for a token without a key", w.token("a"), prove(key, agent.Proof{Token: w.token("a")}), "", false, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			arguments := `{"token":"` + c.token + `"`
			if c.proof != "" {
				arguments += `,"proof":"` + c.proof + `"`
			}
			if c.request != "" {
				arguments += `,"request":` + c.request
			}
			v := w.content(w.everything(), "verify", arguments+`}`)
			if v.Get("valid").Bool() != c.valid {
				t.Fatalf("%s", jcs.Canonical(v))
			}
			unchecked, _ := v.Get("unchecked").Strings()
			switch {
			case c.valid && !slices.Equal(unchecked, c.unchecked):
				t.Errorf("unchecked %v", unchecked)
			case !c.valid && v.Get("reason").Str() != string(delegation.HolderBindingFailed):
				t.Errorf("%s", jcs.Canonical(v))
			case !c.valid && v.Get("allowed").Bool():
				t.Errorf("allowed without its proof: %s", jcs.Canonical(v))
			}
			if text := string(jcs.Canonical(v)); strings.Contains(text, c.token) || c.proof != "" && strings.Contains(text, c.proof) {
				t.Error("the answer repeats what it was shown")
			}
		})
	}
}

// An AAT proof is judged like a DPoP proof, for the call where that is known.
func TestVerifyCallProof(t *testing.T) {
	w := newWorld(t)
	key := newKey(t)
	c := claims("a")
	c.Root, c.MaxDepth, c.Key = true, 1, key.Public()
	token := w.sign(c)
	parts, err := delegation.Inspect(token)
	if err != nil {
		t.Fatal(err)
	}
	arguments, err := jcs.Of(map[string]any{"pull": 847, "text": strings.Repeat("x", agent.MaxToken)})
	if err != nil {
		t.Fatal(err)
	}
	proof, err := agent.SignAATProof(key, agent.AATProof{
		LID: parts[0].LID, LeafJTI: parts[0].UnverifiedClaims.Get("jti").Str(), Tool: "comment", Arguments: arguments,
		Audience: issuer + "/mcp", IssuedAt: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		more      string
		valid     bool
		unchecked []string
	}{
		"the call":      {`,"audience":"` + issuer + `/mcp","request":{"tool":"comment","arguments":` + string(jcs.Canonical(arguments)) + `}`, true, nil},
		"nothing known": {``, true, []string{"audience", "call", "request"}},
		"another call":  {`,"request":{"tool":"comment","arguments":{"pull":848}}`, false, []string{"audience"}},
	} {
		v := w.content(w.everything(), "verify", `{"token":"`+token+`","proof":"`+proof+`"`+c.more+`}`)
		unchecked, _ := v.Get("unchecked").Strings()
		if v.Get("valid").Bool() != c.valid || !slices.Equal(unchecked, c.unchecked) ||
			!c.valid && v.Get("reason").Str() != string(delegation.HolderBindingFailed) {
			t.Errorf("%s: %s", name, jcs.Canonical(v))
		}
	}
}

// The whole way: an orchestrator with a bound token asks through MCP, and the
// reviewer fetches its token with its own key. Nothing in the transcript works
// as a credential for anybody else.
func TestHandleIsRedeemed(t *testing.T) {
	d := newDeployment(t)
	alice := d.user("alice", "member")
	coder, identity := d.enrolKey(alice, "code-reviewer")
	key, fetched := newKey(t), newKey(t)
	token := d.signInBound(alice, "inspector", key.Public(), []string{git, d.issuer + "/mcp"}, "kavach:delegate", "kavach:verify", "repo:read")
	result := d.callBound(d.issuer+mcp.Path, token, key, "delegate", args(`{"agent":%q,"scopes":["repo:read"],"constraints":{"resources":["pr/847"]}}`, coder))
	made := result.Get("structuredContent")
	handle := made.Get("handle").Str()
	if handle == "" {
		t.Fatalf("%s", jcs.Canonical(result))
	}
	if r := d.send(handle, ping); r.status != http.StatusUnauthorized {
		t.Errorf("a handle as a token: %d", r.status)
	}
	redeem := func(by agent.PrivateKey, id string) (int, map[string]any) {
		t.Helper()
		assertion, err := agent.SignAssertion(by, id, d.issuer, time.Now(), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		proof, err := agent.SignProof(fetched, agent.Proof{Method: "POST", URL: d.issuer + "/oauth/token", IssuedAt: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		form := url.Values{
			"grant_type": {authz.GrantExchange}, "subject_token": {handle}, "subject_token_type": {authz.TokenTypeHandle},
			"client_assertion": {assertion}, "client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
		}
		req, err := http.NewRequest(http.MethodPost, d.issuer+"/oauth/token", strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("DPoP", proof)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var body map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, body
	}
	spy, spyKey := d.enrolKey(d.user("bob", "member"), "spy")
	if status, body := redeem(spyKey, spy); status != http.StatusBadRequest || body["error"] != "invalid_request" {
		t.Errorf("redeemed by another agent: %d %v", status, body)
	}
	status, body := redeem(identity, coder)
	if status != http.StatusOK || body["token_type"] != "DPoP" || body["scope"] != "repo:read" {
		t.Fatalf("%d %v", status, body)
	}
	got, err := d.registry.Verifier().Verify(body["access_token"].(string), time.Now())
	if err != nil || got.JKT() != fetched.Public().Thumbprint() || !slices.Equal(got.Path(), []string{alice.ID, "inspector", coder}) ||
		!slices.Equal(got.Limits().Resources, []string{"pr/847"}) {
		t.Errorf("%v", err)
	}
	if status, _ := redeem(identity, coder); status != http.StatusBadRequest {
		t.Errorf("redeemed twice: %d", status)
	}
	// Of a key that is the agent's registered one it is known whose it is; the
	// note says that of no other.
	for _, c := range []struct {
		key  agent.PublicKey
		said bool
	}{{newKey(t).Public(), true}, {identity.Public(), false}} {
		jwk, err := jcs.Marshal(c.key.JWK())
		if err != nil {
			t.Fatal(err)
		}
		result := d.callBound(d.issuer+mcp.Path, token, key, "delegate", args(`{"agent":%q,"scopes":["repo:read"],"public_key":%s}`, coder, jwk))
		note := result.Get("structuredContent").Get("note").Str()
		if result.Get("structuredContent").Get("token").Str() == "" || strings.Contains(note, "nothing proves") != c.said {
			t.Errorf("%s", jcs.Canonical(result))
		}
	}
}
