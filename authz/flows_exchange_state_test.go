package authz_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
)

// A subject that has ended in whatever way is no subject, and the record says
// in which.
func TestExchangeOfWhatHasEnded(t *testing.T) {
	f := newFlows(t)
	ctx := t.Context()
	orch := f.program(f.alice, "orchestrator", []string{"repo:read"}, "read", "delegate")
	rev := f.program(f.alice, "code-reviewer", []string{"repo:read"}, "read")
	key := holder(t)
	refused := func(name, reason string, r request) {
		t.Helper()
		before := f.recorded(reason)
		f.wantError(f.do(r), http.StatusBadRequest, "invalid_request")
		if n := f.recorded(reason) - before; n != 1 {
			t.Errorf("%s: %d records of %s", name, n, reason)
		}
	}
	whole := url.Values{"resource": {git}}

	root := orch.signIn(key, whole)
	f.clock.advance(5 * time.Minute)
	refused("expired", "expired", orch.by(exchangeForm(root, nil), key))

	root = orch.signIn(key, whole)
	next := holder(t)
	derived, err := delegation.Derive(root, key, next.Public(), delegation.Narrow{ClientID: rev.id, Scopes: []string{"repo:read"}}, f.clock.now())
	must(t, err)
	parent := f.chain(root)
	_, err = f.registry.Revoke(ctx, parent, authz.RevokeTarget{Chain: derived.Chain})
	must(t, err)
	refused("a revoked link", "revoked", rev.by(exchangeForm(derived.Chain, nil), next))
	f.exchanged(orch.by(exchangeForm(root, nil), key)) // its parent lives

	// What came from a revoked token, also when it is exchanged once more.
	_, sub := f.exchanged(orch.by(exchangeForm(root, url.Values{"agent": {rev.id}, "req_cnf": {cnf(t, next.Public())}}), key))
	a, _ := f.exchanged(orch.by(exchangeForm(root, url.Values{"agent": {rev.id}, "req_cnf": {cnf(t, next.Public())}}), key))
	_, err = f.registry.Revoke(ctx, parent, authz.RevokeTarget{TokenID: parent.LID()})
	must(t, err)
	refused("from a revoked token", "revoked", rev.by(exchangeForm(a.str("access_token"), nil), next))
	if dead, err := f.registry.Revoked(ctx, sub); err != nil || !dead {
		t.Errorf("dead %v, %v", dead, err)
	}

	// Suspended: the agent that would get it, then the agent whose it is. Its
	// holder could still prove the key.
	root = orch.signIn(key, whole)
	f.exec(`UPDATE agents SET status = 'suspended' WHERE id = $1`, rev.id)
	f.wantError(f.do(orch.by(exchangeForm(root, url.Values{"agent": {rev.id}, "req_cnf": {cnf(t, next.Public())}}), key)), http.StatusBadRequest, "invalid_request")
	// Resumed at once, it gets one at once.
	f.exec(`UPDATE agents SET status = 'active' WHERE id = $1`, rev.id)
	f.exchanged(orch.by(exchangeForm(root, url.Values{"agent": {rev.id}, "req_cnf": {cnf(t, next.Public())}}), key))
	f.exec(`UPDATE agents SET status = 'suspended' WHERE id = $1`, rev.id)
	f.wantError(f.do(orch.by(exchangeForm(root, url.Values{"actor_token": {rev.card(next.Public())}, "actor_token_type": {authz.TokenTypeAgentKey}}), key)), http.StatusBadRequest, "invalid_request")
	f.exec(`UPDATE agents SET status = 'suspended' WHERE id = $1`, orch.id)
	r := request{form: exchangeForm(root, nil), proof: f.dpop(key, root)}
	refused("suspended", "revoked", r)
}

// Without its record nothing leaves, and what may come once was not spent.
func TestExchangeWithoutTheLog(t *testing.T) {
	f := newFlows(t)
	orch := f.program(f.alice, "orchestrator", []string{"repo:read"}, "read", "delegate")
	rev := f.program(f.alice, "code-reviewer", []string{"repo:read"}, "read")
	key := holder(t)
	root := orch.signIn(key, url.Values{"resource": {git}})
	made := f.handle(root, delegation.Ask{Receiver: rev.id, Scopes: []string{"repo:read"}})
	for name, r := range map[string]request{
		"a token":  orch.by(exchangeForm(root, nil), key),
		"a handle": rev.by(handleForm(made.Token, nil), holder(t)),
	} {
		f.log.fail(audit.ErrUnavailable)
		a := f.do(r)
		if a.status != http.StatusServiceUnavailable || a.str("error") != "temporarily_unavailable" || a.header.Get("Retry-After") == "" || a.str("access_token") != "" {
			t.Errorf("%s: %v", name, a)
		}
		f.log.fail(nil)
		f.exchanged(r)
	}
}

// An agent that declares no delegation narrows for itself and hands on nothing.
func TestExchangeWithoutTheCapability(t *testing.T) {
	f := newFlows(t)
	reader := f.program(f.alice, "reader", []string{"repo:read"}, "read")
	rev := f.program(f.alice, "code-reviewer", []string{"repo:read"}, "read")
	key := holder(t)
	token := reader.signIn(key, url.Values{"resource": {git}})
	_, c := f.exchanged(reader.by(exchangeForm(token, url.Values{"requested_expires_in": {"30"}}), key))
	if c.JKT() != key.Public().Thumbprint() || c.DepthLeft(3) != 0 {
		t.Errorf("depth %d", c.DepthLeft(3))
	}
	for name, change := range map[string]url.Values{
		"another agent": {"agent": {rev.id}, "req_cnf": {cnf(t, holder(t).Public())}},
		"another key":   {"req_cnf": {cnf(t, holder(t).Public())}},
		"a handle":      {"agent": {rev.id}},
	} {
		if a := f.do(reader.by(exchangeForm(token, change), key)); a.status != http.StatusBadRequest || a.str("error") != "access_denied" {
			t.Errorf("%s: %v", name, a)
		}
	}
}

// What is bound to a revoked key would be dead, so it is not made; and what a
// standing grant gives at some hours only, it gives through exchange at those
// hours only.
func TestExchangeKeepsToGrantAndKey(t *testing.T) {
	f := newFlows(t)
	orch := f.program(f.alice, "orchestrator", []string{"repo:read"}, "read", "delegate")
	rev := f.program(f.alice, "code-reviewer", []string{"repo:read"}, "read")
	key, stolen := holder(t), holder(t).Public()
	root := orch.signIn(key, url.Values{"resource": {git}})
	f.exec(`INSERT INTO revocations (seq, kind, value, path, until, at) VALUES (1000, 'key', $1, '[]', 0, 0)`, stolen.Thumbprint())
	for name, change := range map[string]url.Values{
		"sent":   {"req_cnf": {cnf(t, stolen)}},
		"carded": {"actor_token": {rev.card(stolen)}, "actor_token_type": {authz.TokenTypeAgentKey}},
	} {
		a := f.do(orch.by(exchangeForm(root, change), key))
		if a.status != http.StatusBadRequest || a.str("error") != "invalid_request" {
			t.Errorf("a revoked key, %s: %v", name, a)
		}
	}
	if n := f.recorded("revoked"); n != 2 {
		t.Errorf("%d records of a revoked key", n)
	}

	// A card is for one agent's key and one issuer, and ends.
	for name, card := range map[string]agent.Card{
		"for somebody else": {Audience: orch.id, Key: holder(t).Public(), IssuedAt: f.clock.now()},
		"expired":           {Audience: f.issuer, Key: holder(t).Public(), IssuedAt: f.clock.now().Add(-11 * time.Minute)},
		"of tomorrow":       {Audience: f.issuer, Key: holder(t).Public(), IssuedAt: f.clock.now().Add(time.Hour)},
	} {
		text, err := agent.SignCard(rev.key, card)
		must(t, err)
		a := f.do(orch.by(exchangeForm(root, url.Values{"actor_token": {text}, "actor_token_type": {authz.TokenTypeAgentKey}}), key))
		if a.status != http.StatusBadRequest || a.str("error") != "invalid_request" {
			t.Errorf("a card %s: %v", name, a)
		}
	}

	day := f.clock.now().UTC().Weekday()
	other := []string{"su", "mo", "tu", "we", "th", "fr", "sa"}[(int(day)+3)%7]
	_, err := f.agents.Grant(t.Context(), authz.Actor{Agent: audit.Operator, Via: "cli"}, orch.id, authz.AgentGrant{
		Scopes: []string{"repo:read"}, Hours: other + " 00-24 UTC",
	})
	must(t, err)
	f.clock.advance(2 * time.Second)
	f.wantError(f.do(orch.by(exchangeForm(root, nil), key)), http.StatusBadRequest, "access_denied")
	if n := f.recorded("outside_hours"); n != 1 {
		t.Errorf("%d records of another hour", n)
	}
}

// §3b binds whom a token was issued to, also where only its key is proved.
func TestExchangeOfARegisteredClientsToken(t *testing.T) {
	f := newFlows(t)
	for name, c := range map[string]struct {
		client string
		status int
	}{"registered": {f.register(callback), http.StatusBadRequest}, "static": {f.public(), http.StatusOK}} {
		key, p := holder(t), newProof()
		code := f.code(f.signedIn("alice"), c.client, p, url.Values{"scope": {"repo:read"}, "resource": {git}})
		token := f.do(request{form: f.redeem(c.client, code, p, nil), proof: f.dpop(key, "")}).str("access_token")
		a := f.do(request{form: exchangeForm(token, nil), proof: f.dpop(key, token)})
		if a.status != c.status || c.status != http.StatusOK && a.str("error") != "unauthorized_client" {
			t.Errorf("%s: %v %v", name, a, a.body)
		}
	}
}
