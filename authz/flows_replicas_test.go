package authz_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/people"
)

// postTo asks an endpoint of one of several servers of the issuer.
func (f *flows) postTo(origin, path string, form url.Values, id, secret string) answer {
	f.t.Helper()
	r, err := http.NewRequest(http.MethodPost, origin+path, strings.NewReader(form.Encode()))
	must(f.t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if id != "" {
		r.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
	}
	w, err := http.DefaultClient.Do(r)
	must(f.t, err)
	defer w.Body.Close()
	a := answer{status: w.StatusCode, header: w.Header}
	_ = json.NewDecoder(w.Body).Decode(&a.body) // an answer of RFC 7009 has none
	return a
}

// What is taken away at one replica is gone at the other at once. The clock
// stands still, so whatever the other has read before and keeps for a moment it
// still has.
func TestReplicasRefuseAtOnce(t *testing.T) {
	ctx := context.Background()
	root := authz.Holder{ID: "usr_root", Role: people.Operator, Active: true}
	type given struct {
		*flows
		twin       string
		id, secret string
		access     string
		refresh    string
		orch       program
		root       string
		key        agent.PrivateKey
	}
	exchange := func(g given) answer {
		a, err := sendTo(g.twin, g.orch.by(exchangeForm(g.root, url.Values{"agent": {"reviewer"}, "req_cnf": {cnf(t, holder(t).Public())}}), g.key))
		must(t, err)
		return a
	}
	signIn := func(g given) answer {
		a, err := sendTo(g.twin, g.orch.by(url.Values{"grant_type": {"client_credentials"}, "resource": {git}}, g.key))
		must(t, err)
		return a
	}
	introspect := func(token string) func(given) bool {
		return func(g given) bool {
			text := map[string]string{"access": g.access, "refresh": g.refresh}[token]
			a := g.postTo(g.twin, "/oauth/introspect", url.Values{"token": {text}}, g.id, g.secret)
			if a.status != http.StatusOK {
				t.Errorf("introspection: %v", a)
			}
			return a.body["active"] == true
		}
	}
	refreshed := func(g given) bool {
		return g.postTo(g.twin, "/oauth/token", refreshForm(g.id, g.refresh, nil), g.id, g.secret).status == http.StatusOK
	}
	asPerson := []func(given) bool{introspect("access"), introspect("refresh"), refreshed}
	asAgent := []func(given) bool{
		func(g given) bool { return exchange(g).status == http.StatusOK },
		func(g given) bool { return signIn(g).status == http.StatusOK },
	}
	for name, c := range map[string]struct {
		takeAway func(given)
		gone     []func(given) bool
	}{
		"a client revokes its refresh token": {func(g given) {
			if a := g.postTo(g.issuer, "/oauth/revoke", url.Values{"token": {g.refresh}}, g.id, g.secret); a.status != http.StatusOK {
				t.Errorf("revoking: %v", a)
			}
		}, asPerson},
		"an operator ends the grant": {func(g given) {
			_, err := g.registry.End(ctx, byOperator, root, authz.Ending{Grant: g.chain(g.access).GrantID()})
			must(t, err)
		}, asPerson},
		"an operator ends every token until now": {func(g given) {
			g.clock.advance(1e9) // iat counts whole seconds
			_, err := g.registry.End(ctx, byOperator, root, authz.Ending{Issued: true})
			must(t, err)
		}, asPerson[:1]},
		"an operator ends the client": {func(g given) {
			_, err := g.registry.End(ctx, byOperator, root, authz.Ending{Client: g.id})
			must(t, err)
		}, asPerson[2:]},
		"the person is disabled": {func(g given) {
			disabled := true
			g.change("alice", people.UserChange{Disabled: &disabled})
		}, append(asPerson[:3:3], asAgent...)},
		"the agent is suspended": {func(g given) { g.orch.suspend() }, asAgent},
		"the agent's token is revoked": {func(g given) {
			_, err := g.registry.Revoke(ctx, g.chain(g.root), authz.RevokeTarget{TokenID: g.chain(g.root).LID()})
			must(t, err)
		}, asAgent[:1]},
		"the agent's key is revoked": {func(g given) {
			_, err := g.registry.End(ctx, byOperator, root, authz.Ending{Key: g.key.Public().Thumbprint()})
			must(t, err)
		}, asAgent},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFlows(t)
			g := given{flows: f, twin: f.twin(), key: holder(t)}
			g.id, g.secret = f.client(authz.NewClient{RedirectURIs: []string{callback}})
			p := newProof()
			a := f.token(f.redeem(g.id, f.code(f.signedIn("alice"), g.id, p, nil), p, nil), g.id, g.secret)
			g.access, g.refresh = a.str("access_token"), a.str("refresh_token")
			f.program(f.alice, "reviewer", []string{"repo:read"}, "read")
			g.orch = f.program(f.alice, "orchestrator", []string{"repo:read"}, "read", "delegate")
			g.root = g.orch.signIn(g.key, url.Values{"resource": {git}})

			// The other has read all of it just now, and it is good there.
			for i, there := range append(asPerson[:2:2], asAgent...) {
				if !there(g) {
					t.Fatalf("check %d fails before anything was taken away", i)
				}
			}
			again := g.postTo(g.twin, "/oauth/token", refreshForm(g.id, g.refresh, nil), g.id, g.secret)
			if again.status != http.StatusOK {
				t.Fatal(again)
			}
			g.access, g.refresh = again.str("access_token"), again.str("refresh_token")
			c.takeAway(g)
			for i, there := range c.gone {
				if there(g) {
					t.Errorf("check %d: it still works at the other", i)
				}
			}
		})
	}
}
