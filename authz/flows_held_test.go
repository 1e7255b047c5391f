package authz_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/kavach-dev/kavach/audit"
)

// "The process holds the revocation in memory and enforces it at once" (design
// D3): also where an agent signs in.
func TestSigningInUnderAHeldRevocation(t *testing.T) {
	f := newFlows(t)
	p := f.program(f.alice, "orchestrator", []string{"repo:read"}, "read", "delegate")
	p.signIn(holder(t), url.Values{"resource": {git}})
	f.log.fail(audit.ErrUnavailable)
	if _, err := f.agents.RemoveGrant(t.Context(), byOperator, p.id); err == nil || f.registry.HeldRevocations() != 1 {
		t.Fatalf("%v, %d held", err, f.registry.HeldRevocations())
	}
	f.log.fail(nil)
	f.wantError(p.ask(holder(t), "resource", git), http.StatusBadRequest, "invalid_grant")
}

// "Every refusal with reason replayed, revoked, key_reuse, refresh_reuse:
// whole, always" (audit.md §1), whoever it is given to.
func TestReusedKeysAreRecordedWhole(t *testing.T) {
	f := newFlows(t)
	orch := f.program(f.alice, "orchestrator", []string{"repo:read"}, "read", "delegate")
	key := holder(t)
	chain := orch.chainTo(key, "helper")
	other := holder(t)
	a, _ := f.exchanged(request{form: exchangeForm(chain, url.Values{"req_cnf": {cnf(t, other.Public())}}), proof: f.dpop(key, "")})
	for range 12 { // more than is written down whole for a stranger
		again := exchangeForm(a.str("access_token"), url.Values{"req_cnf": {cnf(t, key.Public())}})
		f.wantError(f.do(request{form: again, proof: f.dpop(other, "")}), http.StatusBadRequest, "invalid_request")
	}
	if n := f.recorded("key_reuse"); n != 12 {
		t.Errorf("%d records of 12", n)
	}
}
