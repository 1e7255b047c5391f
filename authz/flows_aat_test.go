package authz_test

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

const (
	tools   = `[{"type":"attenuating_agent_token","tools":{"diff":{},"comment":{}}}]`
	diff    = `[{"type":"attenuating_agent_token","tools":{"diff":{}}}]`
	limited = `[{"type":"attenuating_agent_token","tools":{"diff":{}}},{"type":"kavach_limits","resources":["pr/847"]}]`
	// aatOnly is a resource whose verifier knows only AAT: its tools are scopes.
	aatOnly = "https://aat.example"
	budget  = `[{"type":"attenuating_agent_token","tools":{"diff":{}}},{"type":"kavach_limits","max_calls":3}]`
)

// aatHost registers it.
func (f *flows) aatHost() {
	f.t.Helper()
	must(f.t, f.registry.AddResource(context.Background(), byOperator, authz.Resource{
		ID: aatOnly, Name: "AAT", TokenAlg: authz.AlgES256, Scopes: []authz.Scope{
			{Name: "diff", Description: "Read a diff"}, {Name: "comment", Description: "Comment"},
		},
	}))
}

// strictly verifies an AAT the way somebody does who knows only AAT: with our
// published key, and a call that the holder proves.
func (f *flows) strictly(token, resource, tool string, key agent.PrivateKey) error {
	f.t.Helper()
	var v delegation.AATStrict
	v.Audience = resource
	published, err := http.Get(f.issuer + "/.well-known/jwks.json")
	must(f.t, err)
	defer published.Body.Close()
	text, err := io.ReadAll(published.Body)
	must(f.t, err)
	set, err := jcs.Parse(text, jcs.Limits{})
	must(f.t, err)
	for jwk := range set.Get("keys").All() {
		if public, err := agent.ParsePublicKeyExtra(jwk); err == nil { // not the RSA key
			v.Anchors = append(v.Anchors, delegation.AATAnchor{Issuer: f.issuer, Key: public, KID: jwk.Get("kid").Str()})
		}
	}
	c := f.chain(token)
	now := f.clock.now()
	proof, err := agent.SignAATProof(key, agent.AATProof{
		LID: c.LID(), LeafJTI: c.JTI(), Tool: tool, Audience: resource, IssuedAt: now,
	})
	must(f.t, err)
	_, err = v.Verify(delegation.AATPresentation{Chain: []string{token}, Proof: proof, Tool: tool}, now)
	return err
}

// wantAAT checks an answer of draft-niyikiza-oauth-attenuating-agent-tokens-02
// section 6.1, and what it issued.
func (f *flows) wantAAT(name string, a answer, key agent.PublicKey, depth int, tools ...string) *delegation.Chain {
	f.t.Helper()
	if a.status != http.StatusOK || a.str("token_type") != "aat" || a.body["expires_in"] == nil {
		f.t.Fatalf("%s: %d %v", name, a.status, a.body)
	}
	c := f.chain(a.str("access_token"))
	if header(f.t, a.str("access_token"))["typ"] != "aat+jwt" || c.Plain() || c.JKT() != key.Thumbprint() || c.DepthLeft(0) != depth ||
		!slices.Equal(c.Tools().Names(), tools) {
		f.t.Errorf("%s: %v, depth %d, %v", name, header(f.t, a.str("access_token")), c.DepthLeft(0), c.Tools().Names())
	}
	details, _ := a.body["authorization_details"].([]any)
	if len(details) == 0 {
		f.t.Fatalf("%s: granted %v", name, a.body)
	}
	entry, _ := details[0].(map[string]any)
	granted, _ := entry["tools"].(map[string]any)
	if entry["type"] != "attenuating_agent_token" || len(granted) != len(tools) {
		f.t.Errorf("%s: granted %v", name, details)
	}
	return c
}

// The draft's own request: client credentials with req_cnf, whose key is
// proved, and authorization_details.
func TestAATOfAnAgentsOwn(t *testing.T) {
	f := newFlows(t)
	f.aatHost()
	p := f.program(f.alice, "orchestrator", []string{"repo:read", "diff"}, "read", "delegate")
	mayNot := f.program(f.alice, "worker", []string{"repo:read"}, "read")
	key, other := holder(t), holder(t)
	mine := cnf(t, key.Public())

	c := f.wantAAT("of the draft", p.ask(key, "resource", git, "authorization_details", tools, "req_cnf", mine), key.Public(), 3, "comment", "diff")
	if r := f.lastRecord(audit.TokenIssue); r["detail"].(map[string]any)["aat"] != true || !slices.Equal(c.Scopes(), []string{"repo:read"}) {
		t.Errorf("recorded as %v, with %v", r, c.Scopes())
	}
	f.wantAAT("by its type", p.ask(key, "resource", git, "authorization_details", diff, "req_cnf", mine,
		"requested_token_type", authz.TokenTypeAAT, "del_max_depth", "1"), key.Public(), 1, "diff")
	// A sealed root is one all the same: such a verifier takes no other form.
	a := mayNot.ask(key, "resource", git, "authorization_details", diff, "req_cnf", mine)
	f.wantAAT("without the capability", a, key.Public(), 0, "diff")
	must(t, f.strictly(a.str("access_token"), git, "diff", key))
	if err := f.strictly(a.str("access_token"), git, "comment", key); err == nil {
		t.Error("a tool that was not granted is permitted")
	}
	// Limits, where they are seen.
	c = f.wantAAT("with limits", p.ask(key, "resource", git, "authorization_details", limited, "req_cnf", mine), key.Public(), 3, "diff")
	if c.Limits().Resources == nil {
		t.Error("limits were left out")
	}

	// Two resource servers with a counter each would double a budget.
	two := f.program(f.alice, "both", []string{"repo:read", "kavach:verify"}, "read")
	both := []string{"resource", git, "resource", f.issuer + "/mcp", "req_cnf", mine, "authorization_details"}
	if c = f.wantAAT("for two resources", two.ask(key, append(both, diff)...), key.Public(), 0, "diff"); len(c.Audience()) != 2 {
		t.Errorf("for %v", c.Audience())
	}
	f.wantError(two.ask(key, append(both, budget)...), http.StatusBadRequest, "invalid_authorization_details")
	a = p.ask(key, "resource", git, "authorization_details", budget, "req_cnf", mine)
	if c = f.wantAAT("a budget", a, key.Public(), 3, "diff"); c.Limits().MaxCalls == nil {
		t.Error("the budget was left out")
	}

	// Where nobody else looks at scopes, a tool is granted to who holds the
	// scope of its name.
	a = p.ask(key, "resource", aatOnly, "authorization_details", tools, "req_cnf", mine)
	f.wantAAT("at a resource that knows only AAT", a, key.Public(), 3, "diff")
	must(t, f.strictly(a.str("access_token"), aatOnly, "diff", key))

	for name, c := range map[string]struct {
		key  agent.PrivateKey
		ask  []string
		code string
	}{
		"no proof":            {agent.PrivateKey{}, []string{"authorization_details", diff, "req_cnf", mine}, "invalid_request"},
		"a proof by another":  {other, []string{"authorization_details", diff, "req_cnf", mine}, "invalid_request"},
		"no key":              {key, []string{"authorization_details", diff, "requested_token_type", authz.TokenTypeAAT}, "invalid_request"},
		"a private key":       {key, []string{"authorization_details", diff, "req_cnf", `{"jwk":{"kty":"OKP","crv":"Ed25519","d":"AA","x":"` + strings.Repeat("A", 43) + `"}}`}, "invalid_request"},
		"a key of another":    {key, []string{"authorization_details", diff, "req_cnf", cnf(t, other.Public())}, "invalid_request"},
		"no details":          {key, []string{"requested_token_type", authz.TokenTypeAAT, "req_cnf", mine}, "invalid_authorization_details"},
		"no tools":            {key, []string{"authorization_details", `[{"type":"attenuating_agent_token","tools":{}}]`, "req_cnf", mine}, "invalid_authorization_details"},
		"limits alone":        {key, []string{"authorization_details", `[{"type":"kavach_limits","resources":["a"]}]`, "req_cnf", mine}, "invalid_authorization_details"},
		"an unknown type":     {key, []string{"authorization_details", `[{"type":"payment"}]`, "req_cnf", mine}, "invalid_authorization_details"},
		"details alone":       {key, []string{"authorization_details", diff}, "invalid_authorization_details"},
		"details for our own": {key, []string{"authorization_details", diff, "req_cnf", mine, "requested_token_type", authz.TokenTypeAccess}, "invalid_authorization_details"},
		"no tool that it may": {key, []string{"resource", aatOnly, "authorization_details", strings.Replace(diff, "diff", "merge", 1), "req_cnf", mine}, "invalid_authorization_details"},
		"limits nobody sees":  {key, []string{"resource", aatOnly, "authorization_details", limited, "req_cnf", mine}, "invalid_target"},
		"a handle":            {key, []string{"requested_token_type", authz.TokenTypeHandle, "req_cnf", mine}, "invalid_request"},
		"a tool for a resource that does not own it": {key, []string{"resource", aatOnly, "resource", git, "authorization_details", diff, "req_cnf", mine}, "invalid_target"},
		"two resources, mixed":                       {key, []string{"resource", aatOnly, "resource", git, "authorization_details", limited, "req_cnf", mine}, "invalid_target"},
	} {
		ask := c.ask
		if !slices.Contains(ask, "resource") {
			ask = append([]string{"resource", git}, ask...)
		}
		if a := p.ask(c.key, ask...); a.status != http.StatusBadRequest || a.str("error") != c.code {
			t.Errorf("%s: %d %v", name, a.status, a.body)
		}
	}
}

// "The client is an agent or sent `req_cnf`" (delegation.md §3): another client
// gets a root of our own typ too, if it sends the key that it proves.
func TestAClientThatSendsItsKey(t *testing.T) {
	f := newFlows(t)
	id, secret := f.client(authz.NewClient{GrantTypes: []string{authz.GrantClientCredentials}, Scopes: []string{"repo:read"}})
	key := holder(t)
	ask := func(change url.Values) answer {
		form := url.Values{"grant_type": {authz.GrantClientCredentials}, "resource": {git}}
		for name, values := range change {
			form[name] = values
		}
		return f.do(request{form: form, client: [2]string{id, secret}, proof: f.dpop(key, "")})
	}
	if c := f.chain(ask(nil).str("access_token")); !c.Plain() {
		t.Error("a root that nobody asked for")
	}
	a := ask(url.Values{"req_cnf": {cnf(t, key.Public())}})
	if c := f.chain(a.str("access_token")); c.Plain() || header(t, a.str("access_token"))["typ"] != "at+jwt" || a.str("token_type") != "DPoP" {
		t.Errorf("%v", a.body)
	}
	f.wantAAT("an AAT", ask(url.Values{"req_cnf": {cnf(t, key.Public())}, "authorization_details": {diff}}), key.Public(), 3, "diff")
	f.wantError(ask(url.Values{"req_cnf": {cnf(t, holder(t).Public())}}), http.StatusBadRequest, "invalid_request")
}

// An AAT by exchange: for a key whose possession is shown, of what the subject
// holds.
func TestAATByExchange(t *testing.T) {
	f := newFlows(t)
	f.aatHost()
	orch := f.program(f.alice, "orchestrator", []string{"repo:read", "diff"}, "read", "delegate")
	rev := f.program(f.alice, "code-reviewer", []string{"repo:read"}, "read", "delegate")
	key, next := holder(t), holder(t)
	root := orch.signIn(key, url.Values{"resource": {git}})
	ask := func(subject string, change url.Values) answer {
		form := exchangeForm(subject, url.Values{
			"requested_token_type": {authz.TokenTypeAAT}, "req_cnf": {cnf(t, next.Public())}, "authorization_details": {diff},
			"req_cnf_proof": {f.dpop(next, "")}, "agent": {rev.id},
		})
		for name, values := range change {
			if form[name] = values; values == nil {
				form.Del(name)
			}
		}
		return f.do(orch.by(form, key))
	}
	a := ask(root, nil)
	f.wantAAT("proved by a proof of its own", a, next.Public(), 2, "diff")
	if a.str("issued_token_type") != authz.TokenTypeAAT || a.str("scope") != "repo:read" {
		t.Errorf("%v", a.body)
	}
	must(t, f.strictly(a.str("access_token"), git, "diff", next))
	if r := f.lastRecord(audit.Delegate); r["detail"].(map[string]any)["key_proved"] != true || r["detail"].(map[string]any)["aat"] != true {
		t.Errorf("recorded as %v", r)
	}
	f.wantAAT("a proof about the subject", ask(root, url.Values{"req_cnf_proof": {f.dpop(next, root)}}), next.Public(), 2, "diff")
	card := url.Values{"agent": nil, "req_cnf_proof": nil, "req_cnf": nil, "actor_token": {rev.card(next.Public())}, "actor_token_type": {authz.TokenTypeAgentKey}}
	f.wantAAT("shown by a key card", ask(root, card), next.Public(), 2, "diff")

	// The tools of the subject are what is there if none are named.
	narrow := ask(root, url.Values{"authorization_details": {tools}})
	f.wantAAT("of an AAT", narrow, next.Public(), 2, "comment", "diff")

	proof := f.dpop(next, "")
	f.wantAAT("a proof", ask(root, url.Values{"req_cnf_proof": {proof}}), next.Public(), 2, "diff")
	old, err := agent.SignProof(next, agent.Proof{Method: "POST", URL: f.issuer + "/oauth/token", IssuedAt: f.clock.now().Add(-time.Minute)})
	must(t, err)
	for name, c := range map[string]struct {
		change url.Values
		code   string
	}{
		"that proof again":       {url.Values{"req_cnf_proof": {proof}}, "invalid_dpop_proof"},
		"an old proof":           {url.Values{"req_cnf_proof": {old}}, "invalid_dpop_proof"},
		"a proof about another":  {url.Values{"req_cnf_proof": {f.dpop(next, "x")}}, "invalid_dpop_proof"},
		"a proof by another key": {url.Values{"req_cnf_proof": {f.dpop(holder(t), "")}}, "invalid_request"},
		"no proof":               {url.Values{"req_cnf_proof": nil}, "invalid_request"},
		"no key":                 {url.Values{"req_cnf": nil, "req_cnf_proof": nil, "agent": nil}, "invalid_request"},
		"the subject's key":      {url.Values{"req_cnf": {cnf(t, key.Public())}, "req_cnf_proof": {f.dpop(key, "")}, "agent": nil}, "invalid_request"},
		"no tools":               {url.Values{"authorization_details": nil}, "invalid_authorization_details"},
		"empty tools":            {url.Values{"authorization_details": {`[{"type":"attenuating_agent_token","tools":{}}]`}}, "invalid_authorization_details"},
	} {
		if a := ask(root, c.change); a.status != http.StatusBadRequest || a.str("error") != c.code {
			t.Errorf("%s: %d %v", name, a.status, a.body)
		}
	}
	// A proof of the key is worth saying also where no AAT is asked for.
	a = ask(root, url.Values{"requested_token_type": nil})
	if r := f.lastRecord(audit.Delegate); a.str("token_type") != "DPoP" || r["detail"].(map[string]any)["key_proved"] != true {
		t.Errorf("%v, recorded as %v", a.body, r)
	}

	// At a resource that knows only AAT.
	plain := orch.signIn(key, url.Values{"resource": {aatOnly}})
	elsewhere := url.Values{"agent": nil}
	a = ask(plain, elsewhere)
	f.wantAAT("for who knows only AAT", a, next.Public(), 2, "diff")
	must(t, f.strictly(a.str("access_token"), aatOnly, "diff", next))
	f.wantError(ask(plain, url.Values{"agent": nil, "authorization_details": {limited}}), http.StatusBadRequest, "invalid_target")
	f.wantError(ask(plain, url.Values{"agent": nil, "authorization_details": {strings.Replace(diff, "diff", "comment", 1)}}),
		http.StatusBadRequest, "invalid_authorization_details")
	// There our own form of it would hide the restriction.
	f.wantError(ask(plain, url.Values{"agent": nil, "requested_token_type": nil}), http.StatusBadRequest, "invalid_target")
}
