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
