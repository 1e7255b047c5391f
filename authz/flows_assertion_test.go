package authz_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/authz"
)

// A request that ends a family is a use of its assertion like any other, and
// ends the family also if the assertion was used before: whoever has both may
// be the thief.
func TestReuseOfARefreshTokenSpendsTheAssertion(t *testing.T) {
	f := newFlows(t)
	key := holder(t)
	id, _ := f.client(authz.NewClient{Method: authz.MethodKeyJWT, RedirectURIs: []string{callback}, Keys: []agent.PublicKey{key.Public()}})
	assertion := func() string {
		text, err := agent.SignAssertion(key, id, f.issuer, f.clock.now(), time.Minute)
		must(t, err)
		return text
	}
	with := func(form url.Values, assertion string) url.Values {
		form.Set("client_assertion_type", jwtBearer)
		form.Set("client_assertion", assertion)
		return form
	}
	for name, used := range map[string]bool{"a new assertion": false, "a used one": true} {
		p := newProof()
		code := f.code(f.signedIn("alice"), id, p, nil)
		first := f.token(f.redeem(id, code, p, with(url.Values{}, assertion())))
		refresh := first.str("refresh_token")
		second := f.token(with(refreshForm(id, refresh, nil), assertion()))
		if second.status != http.StatusOK {
			t.Fatal(second)
		}
		f.clock.advance(30 * time.Second)
		text := assertion()
		if used {
			f.wantError(f.token(with(refreshForm(id, "no such", nil), text)), http.StatusBadRequest, "invalid_grant")
		}
		before := f.recorded("refresh_reuse")
		f.wantError(f.token(with(refreshForm(id, refresh, nil), text)), http.StatusBadRequest, "invalid_grant")
		if f.recorded("refresh_reuse") != before+1 || f.alive(second.str("access_token")) {
			t.Errorf("%s: the family lives", name)
		}
		f.wantError(f.token(with(refreshForm(id, "no such", nil), text)), http.StatusUnauthorized, "invalid_client")
	}
}

// The clocks of replicas are not the same. One that is ahead does not forget
// for the others what they would take once more.
func TestAReplicaAheadForgetsNothingTooEarly(t *testing.T) {
	f := newFlows(t)
	ahead, err := authz.NewRegistry(authz.RegistryConfig{
		Issuer: f.issuer, Store: f.store, Commit: f.log, Refusals: f.log, Flows: f.store, Agents: f.store,
		Now: func() time.Time { return f.clock.now().Add(30 * time.Second) },
	})
	must(t, err)
	p := f.program(f.alice, "orchestrator", []string{"repo:read"}, "read", "delegate")
	key := holder(t)
	root := p.signIn(key, url.Values{"resource": {git}})
	chain := f.chain(root)
	_, err = f.registry.Revoke(t.Context(), chain, authz.RevokeTarget{TokenID: chain.LID()})
	must(t, err)
	latest := f.chain(p.signIn(key, url.Values{"resource": {git}})) // the newest row is kept anyway
	_, err = f.registry.Revoke(t.Context(), latest, authz.RevokeTarget{TokenID: latest.LID()})
	must(t, err)
	f.clock.advance(5*time.Minute - 20*time.Second)

	form := url.Values{"grant_type": {"client_credentials"}, "resource": {git}}
	r := p.by(form, key)
	if a := f.do(r); a.status != http.StatusOK {
		t.Fatal(a)
	}
	again := p.by(url.Values{"grant_type": {"client_credentials"}, "resource": {git}}, key)
	again.proof = r.proof
	f.clock.advance(15 * time.Second)
	must(t, sweep(f.log, ahead))
	if f.alive(root) {
		t.Error("a revoked token lives again")
	}
	f.wantError(f.do(again), http.StatusBadRequest, "invalid_dpop_proof")
	f.clock.advance(40 * time.Second)
	must(t, sweep(f.log, ahead))
	r.proof = ""
	f.wantError(f.do(r), http.StatusUnauthorized, "invalid_client")
}
