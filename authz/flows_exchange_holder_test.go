package authz_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/kavach-dev/kavach/authz"
)

// To leave the authentication out does not help: who proves the key of its own
// token is held to what it may do as the client it is (authorization-server.md
// §3b).
func TestExchangeByKeyAloneIsNoWayAround(t *testing.T) {
	f := newFlows(t)
	both := func(name string, r, key request, code string) {
		t.Helper()
		for how, request := range map[string]request{"authenticated": r, "by its key alone": key} {
			if a := f.do(request); a.status != http.StatusBadRequest || a.str("error") != code {
				t.Errorf("%s, %s: %d %v", name, how, a.status, a.body["error"])
			}
		}
	}

	// A client that people sign in to, and that was given no scopes.
	id, secret := f.client(authz.NewClient{RedirectURIs: []string{callback}})
	basic := [2]string{id, secret}
	key, p := holder(t), newProof()
	code := f.code(f.signedIn("alice"), id, p, url.Values{"scope": {"repo:read"}, "resource": {git}})
	redeem := request{form: f.redeem(id, code, p, nil), client: basic, proof: f.dpop(key, "")}
	redeem.form.Del("client_id")
	token := f.do(redeem).str("access_token")
	both("a client without scopes",
		request{form: exchangeForm(token, nil), client: basic, proof: f.dpop(key, token)},
		request{form: exchangeForm(token, nil), proof: f.dpop(key, token)}, "unauthorized_client")

	// An agent that was handed what its manifest does not ask for.
	orch := f.program(f.alice, "orchestrator", []string{"repo:read", "repo:write"}, "read", "delegate")
	rev := f.program(f.alice, "code-reviewer", []string{"repo:read"}, "read")
	mine, theirs := holder(t), holder(t)
	root := orch.signIn(mine, url.Values{"resource": {git}})
	for name, change := range map[string]url.Values{
		"carded": {"actor_token": {rev.card(theirs.Public())}, "actor_token_type": {authz.TokenTypeAgentKey}},
		"named":  {"agent": {rev.id}, "req_cnf": {cnf(t, theirs.Public())}},
	} {
		a, _ := f.exchanged(orch.by(exchangeForm(root, change), mine))
		token, more := a.str("access_token"), url.Values{"scope": {"repo:write"}}
		both("an agent "+name,
			rev.by(exchangeForm(token, more), theirs), request{form: exchangeForm(token, more), proof: f.dpop(theirs, "")}, "invalid_scope")
		if a, _ := f.exchanged(request{form: exchangeForm(token, nil), proof: f.dpop(theirs, "")}); a.str("scope") != "repo:read" {
			t.Errorf("an agent %s gets %s", name, a.str("scope"))
		}
	}
}
