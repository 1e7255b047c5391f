package authz_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/people"
)

// alice → orch → rev: the orchestrator's own token, exchanged for the reviewer
// whose key card names the key.
func TestExchangeForAnAgentWithACard(t *testing.T) {
	f := newFlows(t)
	orch := f.program(f.alice, "orchestrator", []string{"repo:read", "repo:write"}, "read", "delegate")
	rev := f.program(f.alice, "code-reviewer", []string{"repo:read"}, "read", "delegate")
	mine, theirs := holder(t), holder(t)
	root := orch.signIn(mine, url.Values{"resource": {git}})

	a, c := f.exchanged(orch.by(exchangeForm(root, url.Values{
		"actor_token": {rev.card(theirs.Public())}, "actor_token_type": {authz.TokenTypeAgentKey},
		"scope": {"repo:read"}, "resource": {git}, "requested_expires_in": {"180"}, "del_max_depth": {"1"},
		"authorization_details": {`[{"type":"attenuating_agent_token","tools":{"diff":{}}},{"type":"kavach_limits","resources":["pr/847"],"allow_network":["git.internal"]}]`},
	}), mine))
	if c.Plain() || c.JKT() != theirs.Public().Thumbprint() || c.Principal() != orch.id || c.ClientID() != rev.id ||
		c.DepthLeft(0) != 1 || a.body["expires_in"] != 180.0 || a.str("scope") != "repo:read" || a.str("issued_token_type") != authz.TokenTypeAccess {
		t.Errorf("%v: %+v", a.body, c.Links())
	}
	if !slices.Equal(c.Path(), []string{orch.id, rev.id}) || c.Agent() != rev.id {
		t.Errorf("path %v, agent %s", c.Path(), c.Agent())
	}
	subject := f.chain(root)
	if !slices.Equal(c.Ancestry(), []string{subject.LID(), mine.Public().Thumbprint()}) || c.GrantID() != subject.GrantID() {
		t.Errorf("anc %v", c.Ancestry())
	}
	if details, _ := a.body["authorization_details"].([]any); len(details) != 2 || !slices.Equal(c.Limits().Resources, []string{"pr/847"}) {
		t.Errorf("details %v", a.body["authorization_details"])
	}
	r := f.lastRecord("delegate")
	detail, _ := r["detail"].(map[string]any)
	if r["agent"] != orch.id || r["result"] != "allowed" || detail["via"] != "exchange" || detail["receiver"] != rev.id || detail["key_proved"] != true {
		t.Errorf("record %v", r)
	}
	for _, text := range f.records() {
		if strings.Contains(text, a.str("access_token")) || strings.Contains(text, root) {
			t.Error("a token stands in the log")
		}
	}

	// What it was exchanged from kills it.
	_, err := f.registry.Revoke(t.Context(), subject, authz.RevokeTarget{TokenID: subject.LID()})
	must(t, err)
	if f.alive(a.str("access_token")) {
		t.Error("it outlives what it came from")
	}
}

// A person's plain token: alice → client → rev, and what each part of the
// request does.
func TestExchangeWhoActs(t *testing.T) {
	f := newFlows(t)
	orch := f.program(f.alice, "orchestrator", []string{"repo:read"}, "read", "delegate")
	rev := f.program(f.alice, "code-reviewer", []string{"repo:read"}, "read")
	key := holder(t)
	root := orch.signIn(key, url.Values{"resource": {git}})
	sealedTo := func(change url.Values) (answer, *delegation.Chain) {
		t.Helper()
		return f.exchanged(orch.by(exchangeForm(root, change), key))
	}

	// For oneself: the key stays, nobody is added, the form is plain.
	a, c := sealedTo(url.Values{"requested_token_type": {authz.TokenTypeJWT}})
	if !c.Plain() || c.JKT() != key.Public().Thumbprint() || !slices.Equal(c.Path(), []string{orch.id}) ||
		a.str("issued_token_type") != authz.TokenTypeJWT || a.str("scope") != "repo:read" || c.DepthLeft(3) != 3 {
		t.Errorf("for oneself: %v %v", a.body, c.Path())
	}
	// A key of one's own, sent or carded: a hand-over, from oneself to oneself.
	next := holder(t)
	_, c = sealedTo(url.Values{"req_cnf": {cnf(t, next.Public())}})
	if c.Plain() || c.JKT() != next.Public().Thumbprint() || !slices.Equal(c.Path(), []string{orch.id}) || c.DepthLeft(0) != 2 {
		t.Errorf("another key: %v, depth %d", c.Path(), c.DepthLeft(0))
	}
	if detail, _ := f.lastRecord("delegate")["detail"].(map[string]any); detail["key_proved"] != false {
		t.Errorf("an unproven key is recorded as %v", detail)
	}
	// The key that an agent is registered with names it.
	_, c = sealedTo(url.Values{"req_cnf": {cnf(t, rev.key.Public())}})
	if !slices.Equal(c.Path(), []string{orch.id, rev.id}) || c.Agent() != rev.id || c.DepthLeft(0) != 0 {
		t.Errorf("a registered key: %v, agent %s", c.Path(), c.Agent())
	}
	// An agent that is only named, with a key.
	_, c = sealedTo(url.Values{"agent": {"code-reviewer"}, "req_cnf": {cnf(t, holder(t).Public())}})
	if parties := c.Parties(); len(parties) != 2 || parties[1].ID != rev.id || parties[1].Proved || c.Agent() != orch.id {
		t.Errorf("a named agent: %+v", parties)
	}
	// "del_max_depth" missing: all that is left; asked too much: the same.
	_, c = sealedTo(url.Values{"req_cnf": {cnf(t, holder(t).Public())}, "del_max_depth": {"8"}})
	if c.DepthLeft(0) != 2 {
		t.Errorf("depth %d", c.DepthLeft(0))
	}
}

// A chain is a subject as a token is, and who holds its key need not be a
// client: "the client that authenticated, or who proves the subject's key".
func TestExchangeOfAChainByItsHolder(t *testing.T) {
	f := newFlows(t)
	orch := f.program(f.alice, "orchestrator", []string{"repo:read"}, "read", "delegate")
	mine, theirs := holder(t), holder(t)
	root := orch.signIn(mine, url.Values{"resource": {git}})
	derived, err := delegation.Derive(root, mine, theirs.Public(), delegation.Narrow{
		ClientID: "helper", Scopes: []string{"repo:read"}, Limits: delegation.Limits{Resources: []string{"pr/*"}},
	}, f.clock.now())
	must(t, err)
	chain := derived.Chain
	for name, proof := range map[string]string{"ath of the chain": f.dpop(theirs, chain), "no ath": f.dpop(theirs, "")} {
		_, c := f.exchanged(request{form: exchangeForm(chain, url.Values{"resource": {git}}), proof: proof})
		if !c.Plain() || c.JKT() != theirs.Public().Thumbprint() || !slices.Equal(c.Path(), []string{orch.id, "helper"}) ||
			!slices.Equal(c.Limits().Resources, []string{"pr/*"}) || len(c.Ancestry()) != 4 {
			t.Errorf("%s: %v %v", name, c.Path(), c.Ancestry())
		}
	}
	// A client that authenticates and proves the key stands after it.
	rev := f.program(f.alice, "code-reviewer", []string{"repo:read"}, "read")
	_, c := f.exchanged(rev.by(exchangeForm(chain, nil), theirs))
	if !slices.Equal(c.Path(), []string{orch.id, "helper", rev.id}) || c.JKT() != theirs.Public().Thumbprint() || c.Agent() != rev.id {
		t.Errorf("path %v", c.Path())
	}
	for name, r := range map[string]request{
		"without a proof":          {form: exchangeForm(chain, nil)},
		"the key of the parent":    {form: exchangeForm(chain, nil), proof: f.dpop(mine, "")},
		"by an agent, another key": rev.by(exchangeForm(chain, nil), holder(t)),
		"ath of another token":     {form: exchangeForm(chain, nil), proof: f.dpop(theirs, root)},
	} {
		if a := f.do(r); a.status != http.StatusBadRequest || a.str("error") != "invalid_request" && a.str("error") != "invalid_dpop_proof" {
			t.Errorf("%s: %v", name, a)
		}
	}
	// A link alone, and one below another root of the same key.
	parts := strings.Split(chain, "~")
	f.wantError(f.do(request{form: exchangeForm(parts[1], nil), proof: f.dpop(theirs, "")}), http.StatusBadRequest, "invalid_request")
	spliced := orch.signIn(mine, url.Values{"resource": {git}}) + "~" + parts[1]
	f.wantError(f.do(request{form: exchangeForm(spliced, nil), proof: f.dpop(theirs, "")}), http.StatusBadRequest, "invalid_request")
}

// A static client exchanges what was issued to it, within its own scopes, and a
// DPoP proof binds what comes out.
func TestExchangeByAStaticClient(t *testing.T) {
	f := newFlows(t)
	id, secret := f.client(authz.NewClient{Scopes: []string{"repo:read", "repo:write"}})
	own := f.token(url.Values{"grant_type": {"client_credentials"}}, id, secret).str("access_token")
	a, c := f.exchanged(request{form: exchangeForm(own, url.Values{"scope": {"repo:read"}}), client: [2]string{id, secret}})
	if a.str("token_type") != "Bearer" || c.Bound() || !slices.Equal(c.Path(), []string{id}) || c.For(git) != nil {
		t.Errorf("%v", a.body)
	}
	key := holder(t)
	_, c = f.exchanged(request{form: exchangeForm(own, nil), client: [2]string{id, secret}, proof: f.dpop(key, "")})
	if c.JKT() != key.Public().Thumbprint() || !c.Plain() {
		t.Errorf("with a proof: plain %v, %s", c.Plain(), c.JKT())
	}
	_, c = f.exchanged(request{form: exchangeForm(own, url.Values{"req_cnf": {cnf(t, key.Public())}}), client: [2]string{id, secret}})
	if c.JKT() != key.Public().Thumbprint() || c.Plain() {
		t.Errorf("with req_cnf: plain %v, %s", c.Plain(), c.JKT())
	}
	// What restricts it is said in the same words wherever it is said.
	a, _ = f.exchanged(request{form: exchangeForm(own, url.Values{"authorization_details": {`[{"type":"kavach_limits","max_file_size":5}]`}}), client: [2]string{id, secret}})
	granted, _ := a.body["authorization_details"].([]any)
	seen, _ := f.introspect(id, secret, a.str("access_token"))["authorization_details"].([]any)
	if len(granted) != 1 || len(seen) != 2 || fmt.Sprint(seen[1]) != fmt.Sprint(granted[0]) {
		t.Errorf("granted %v, introspected %v", granted, seen)
	}

	// a person approved more than the client is registered to ask for.
	web, webSecret := f.client(authz.NewClient{
		RedirectURIs: []string{callback}, Scopes: []string{"repo:read"}, GrantTypes: []string{authz.GrantCode, authz.GrantExchange},
	})
	p := newProof()
	form := f.redeem(web, f.code(f.signedIn("alice"), web, p, url.Values{"scope": {"repo:read kavach:verify"}, "resource": {git, f.issuer + "/mcp"}}), p, nil)
	form.Del("client_id")
	approved := f.token(form, web, webSecret).str("access_token")
	if got := f.chain(approved).Scopes(); !slices.Equal(got, []string{"kavach:verify", "repo:read"}) {
		t.Fatalf("approved %v", got)
	}
	f.wantError(f.do(request{form: exchangeForm(approved, url.Values{"scope": {"kavach:verify"}}), client: [2]string{web, webSecret}}), http.StatusBadRequest, "invalid_scope")
	a, c = f.exchanged(request{form: exchangeForm(approved, nil), client: [2]string{web, webSecret}})
	if a.str("scope") != "repo:read" || !slices.Equal(c.Path(), []string{f.alice.ID, web}) {
		t.Errorf("of %v: %v", c.Path(), a.body)
	}
	f.clock.advance(9*time.Minute + 30*time.Second)
	a, _ = f.exchanged(request{form: exchangeForm(own, nil), client: [2]string{id, secret}})
	if a.body["expires_in"] != 30.0 {
		t.Errorf("it outlives its subject: %v", a.body["expires_in"])
	}
}

// each refused, in the protocol's words,
// and recorded with its reason.
func TestExchangeRefuses(t *testing.T) {
	f := newFlows(t)
	mallory := f.user("mallory", people.Member)
	orch := f.program(f.alice, "orchestrator", []string{"repo:read"}, "read", "delegate")
	rev := f.program(f.alice, "code-reviewer", []string{"repo:read"}, "read")
	spy := f.program(mallory, "spy", []string{"repo:read", "repo:write"}, "read", "delegate")
	key := holder(t)
	root := orch.signIn(key, url.Values{"resource": {git}})
	public, tokens := f.tokens(nil, "repo:read")
	id, secret := f.client(authz.NewClient{Scopes: []string{"repo:read"}})
	wide, wideSecret := f.client(authz.NewClient{Scopes: []string{"repo:read", "kavach:verify"}})
	own := f.token(url.Values{"grant_type": {"client_credentials"}, "scope": {"repo:read"}}, wide, wideSecret).str("access_token")
	both := f.token(url.Values{"grant_type": {"client_credentials"}}, wide, wideSecret).str("access_token")
	basic := func(form url.Values) request { return request{form: form, client: [2]string{wide, wideSecret}} }
	mine := func(change url.Values) request { return orch.by(exchangeForm(root, change), key) }
	card := func(p program, k agent.PublicKey) url.Values {
		return url.Values{"actor_token": {p.card(k)}, "actor_token_type": {authz.TokenTypeAgentKey}}
	}
	with := func(values url.Values, name, value string) url.Values { values[name] = []string{value}; return values }
	details := func(text string) request { return mine(url.Values{"authorization_details": {text}}) }

	for _, c := range []struct {
		name   string
		r      request
		status int
		code   string
	}{
		{"A-95 a scope more", mine(url.Values{"scope": {"repo:read repo:write"}}), 400, "invalid_scope"},
		{"A-95 an unknown scope", mine(url.Values{"scope": {"nothing"}}), 400, "invalid_scope"},
		{"A-95 a scope of the client and not of the subject", basic(exchangeForm(own, url.Values{"scope": {"kavach:verify"}})), 400, "invalid_scope"},
		{"A-95 a scope of another resource", basic(exchangeForm(both, url.Values{"scope": {"repo:read"}, "resource": {f.issuer + "/mcp"}})), 400, "invalid_scope"},

		{"A-97 somebody else's client", basic(exchangeForm(tokens.str("access_token"), nil)), 400, "unauthorized_client"},
		{"A-97 a resource server's client", request{form: exchangeForm(own, nil), client: [2]string{id, secret}}, 400, "unauthorized_client"},
		{"A-97 somebody else's agent, with the token", spy.by(exchangeForm(root, nil), holder(t)), 400, "invalid_request"},
		{"A-97 the client itself, which authenticates by name alone", request{form: with(exchangeForm(tokens.str("access_token"), nil), "client_id", public)}, 401, "invalid_client"},
		{"A-97 nobody", request{form: exchangeForm(own, nil)}, 401, "invalid_client"},
		{"A-97 a registered client", request{form: with(exchangeForm(own, nil), "client_id", f.register(callback))}, 400, "unauthorized_client"},

		{"A-98 an unknown resource", mine(url.Values{"resource": {"https://nowhere.example"}}), 400, "invalid_target"},
		{"A-98 an unknown audience", mine(url.Values{"audience": {"nowhere"}}), 400, "invalid_target"},
		{"A-98 a wider resource", mine(url.Values{"resource": {git, legacy}}), 400, "invalid_target"},
		{"A-98 another resource", mine(url.Values{"resource": {legacy}}), 400, "invalid_target"},
		{"A-98 another resource, a scope of the first", mine(url.Values{"resource": {legacy}, "scope": {"repo:read"}}), 400, "invalid_target"},

		{"A-99 a card by another agent's key", mine(url.Values{"actor_token": {spy.card(holder(t).Public())}, "actor_token_type": {authz.TokenTypeAgentKey}}), 400, "invalid_request"},
		{"A-99 a card and another key", mine(with(card(rev, holder(t).Public()), "req_cnf", cnf(t, holder(t).Public()))), 400, "invalid_request"},
		{"A-99 a card without its type", mine(url.Values{"actor_token": {rev.card(holder(t).Public())}}), 400, "invalid_request"},
		{"A-99 an access token as actor", mine(url.Values{"actor_token": {own}, "actor_token_type": {authz.TokenTypeAccess}}), 400, "invalid_request"},
		{"A-99 an access token as card", mine(url.Values{"actor_token": {own}, "actor_token_type": {authz.TokenTypeAgentKey}}), 400, "invalid_request"},
		{"A-99 itself again", mine(card(orch, holder(t).Public())), 400, "invalid_request"},
		{"A-99 depth 200", mine(url.Values{"del_max_depth": {"200"}}), 400, "invalid_request"},
		{"A-99 depth -1", mine(url.Values{"del_max_depth": {"-1"}}), 400, "invalid_request"},
		{"A-103 an agent of somebody else", mine(url.Values{"agent": {spy.id}, "req_cnf": {cnf(t, holder(t).Public())}}), 400, "invalid_request"},
		{"A-103 an unknown agent", mine(url.Values{"agent": {"nobody"}, "req_cnf": {cnf(t, holder(t).Public())}}), 400, "invalid_request"},
		{"A-103 the key that is in the chain already", mine(url.Values{"agent": {rev.id}, "req_cnf": {cnf(t, key.Public())}}), 400, "invalid_request"},

		{"A-101 an unknown type", details(`[{"type":"kavach_limit"}]`), 400, "invalid_authorization_details"},
		{"A-101 an unknown member", details(`[{"type":"kavach_limits","maxFileSize":5}]`), 400, "invalid_authorization_details"},
		{"A-101 a number in words", details(`[{"type":"kavach_limits","max_file_size":"5MB"}]`), 400, "invalid_authorization_details"},
		{"A-101 a number with an exponent", details(`[{"type":"kavach_limits","max_file_size":5e6}]`), 400, "invalid_authorization_details"},
		{"A-101 a member twice", details(`[{"type":"kavach_limits","max_file_size":1,"max_file_size":2}]`), 400, "invalid_authorization_details"},
		{"A-101 another spelling of a host", details(`[{"type":"kavach_limits","allow_network":["GIT.internal"]}]`), 400, "invalid_authorization_details"},
		{"A-101 dots in a resource", details(`[{"type":"kavach_limits","resources":["pr/../1"]}]`), 400, "invalid_authorization_details"},
		{"A-101 a budget of nothing", details(`[{"type":"kavach_limits","max_calls":0}]`), 400, "invalid_authorization_details"},
		{"A-101 no array", details(`{"type":"kavach_limits"}`), 400, "invalid_authorization_details"},

		{"A-38 a refresh token", basic(exchangeForm(tokens.str("refresh_token"), nil)), 400, "invalid_request"},
		{"A-38 a refresh token by its type", basic(exchangeForm(tokens.str("refresh_token"), url.Values{"subject_token_type": {"urn:ietf:params:oauth:token-type:refresh_token"}})), 400, "invalid_request"},
		{"an ID token by its type", basic(exchangeForm(own, url.Values{"subject_token_type": {"urn:ietf:params:oauth:token-type:id_token"}})), 400, "invalid_request"},
		{"no subject", basic(exchangeForm(own, url.Values{"subject_token": nil})), 400, "invalid_request"},
		{"two subjects", basic(exchangeForm(own, url.Values{"subject_token": {own, own}})), 400, "invalid_request"},
		{"no subject type", basic(exchangeForm(own, url.Values{"subject_token_type": nil})), 400, "invalid_request"},
		{"a key card as subject", basic(exchangeForm(rev.card(key.Public()), nil)), 400, "invalid_request"},
		{"garbage", basic(exchangeForm("a.b.c", nil)), 400, "invalid_request"},
		{"a type that is not issued", mine(url.Values{"requested_token_type": {"urn:ietf:params:oauth:token-type:id_token"}}), 400, "invalid_request"},
		{"a private key to be bound to", mine(url.Values{"req_cnf": {`{"jwk":{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}}`}}), 400, "invalid_request"},
		{"a thumbprint to be bound to", mine(url.Values{"req_cnf": {`{"jkt":"` + orch.id + `"}`}}), 400, "invalid_request"},
		{"a life of nothing", mine(url.Values{"requested_expires_in": {"0"}}), 400, "invalid_request"},
		{"a life in another spelling", mine(url.Values{"requested_expires_in": {"+60"}}), 400, "invalid_request"},
		{"the agent's identity key as proof", orch.by(exchangeForm(root, nil), orch.key), 400, "invalid_dpop_proof"},
		{"a bound token without a proof", orch.by(exchangeForm(root, nil), agent.PrivateKey{}), 400, "invalid_request"},
	} {
		a := f.do(c.r)
		if a.status != c.status || a.str("error") != c.code || a.str("access_token") != "" {
			t.Errorf("%s: %v %v, want %d %s", c.name, a, a.body["error_description"], c.status, c.code)
		}
	}
	for reason, least := range map[string]int{"not_narrower": 1, "not_owner": 2, "holder_binding_failed": 2, "party_repeated": 1, "key_reuse": 1} {
		if n := f.recorded(reason); n < least {
			t.Errorf("%d records of %s", n, reason)
		}
	}
	// After all that: a healthy one.
	f.exchanged(mine(nil))
}
