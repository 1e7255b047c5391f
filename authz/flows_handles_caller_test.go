package authz_test

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"testing"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
)

// chainTo derives one link of an orchestrator's token for a holder, named as
// the orchestrator names it.
func (p program) chainTo(holder agent.PrivateKey, name string) string {
	p.t.Helper()
	mine, err := agent.GenerateKey()
	must(p.t, err)
	root := p.signIn(mine, url.Values{"resource": {git}})
	derived, err := delegation.Derive(root, mine, holder.Public(), delegation.Narrow{ClientID: name, Scopes: []string{"repo:read"}, MaxDepth: new(2)}, p.clock.now())
	must(p.t, err)
	return derived.Chain
}

// What is redeemed names the same parties as what is exchanged at once: who
// asked for the handle stands in the path, as the one it proved to be
// (delegation.md §7, "Who acts").
func TestHandleKeepsWhoAskedForIt(t *testing.T) {
	f := newFlows(t)
	scopes := []string{"repo:read"}
	orch := f.program(f.alice, "orchestrator", scopes, "read", "delegate")
	worker := f.program(f.alice, "worker", scopes, "read", "delegate")
	rev := f.program(f.alice, "code-reviewer", scopes, "read", "delegate")
	for _, label := range []string{worker.id, "helper"} {
		key := holder(t)
		chain := orch.chainTo(key, label)
		_, direct := f.exchanged(worker.by(exchangeForm(chain, url.Values{"agent": {rev.id}, "req_cnf": {cnf(t, holder(t).Public())}}), key))
		made := f.do(worker.by(exchangeForm(chain, url.Values{"agent": {rev.id}}), key))
		if made.status != http.StatusOK || made.str("issued_token_type") != authz.TokenTypeHandle {
			t.Fatalf("%s: %v %v", label, made, made.body)
		}
		_, c := f.exchanged(rev.by(handleForm(made.str("access_token"), nil), holder(t)))
		want := direct.Parties()
		want[len(want)-1].Proved = true // it redeemed by its own authentication
		if !slices.Equal(c.Parties(), want) || c.DepthLeft(0) != direct.DepthLeft(0) {
			t.Errorf("%s: %+v, want %+v", label, c.Parties(), want)
		}
	}
}

// Who asked for a handle and was stopped since has handed on nothing.
func TestHandleOfWhoWasStopped(t *testing.T) {
	f := newFlows(t)
	scopes := []string{"repo:read"}
	orch := f.program(f.alice, "orchestrator", scopes, "read", "delegate")
	worker := f.program(f.alice, "worker", scopes, "read", "delegate")
	rev := f.program(f.alice, "code-reviewer", scopes, "read", "delegate")
	key := holder(t)
	chain := orch.chainTo(key, "helper")
	made := f.do(worker.by(exchangeForm(chain, url.Values{"agent": {rev.id}}), key))
	f.exec(`UPDATE agents SET status = 'suspended' WHERE id = $1`, worker.id)
	f.wantError(f.do(rev.by(handleForm(made.str("access_token"), nil), holder(t))), http.StatusBadRequest, "invalid_request")
	// Nor does it get a token itself, from the moment it was stopped.
	f.wantError(f.do(worker.by(exchangeForm(chain, nil), key)), http.StatusBadRequest, "invalid_request")
	if n := f.recorded("revoked"); n != 2 {
		t.Errorf("%d records of who was stopped", n)
	}
}

// An agent that holds what names somebody else may name itself, and fetch what
// it asked for.
func TestHandleForWhoAsksForIt(t *testing.T) {
	f := newFlows(t)
	scopes := []string{"repo:read"}
	orch := f.program(f.alice, "orchestrator", scopes, "read", "delegate")
	worker := f.program(f.alice, "worker", scopes, "read", "delegate")
	key, next := holder(t), holder(t)
	chain := orch.chainTo(key, "helper")
	made := f.do(worker.by(exchangeForm(chain, url.Values{"agent": {"worker"}}), key))
	if made.status != http.StatusOK {
		t.Fatal(made, made.body)
	}
	_, c := f.exchanged(worker.by(handleForm(made.str("access_token"), nil), next))
	if !slices.Equal(c.Path(), []string{orch.id, "helper", worker.id}) || c.JKT() != next.Public().Thumbprint() || c.Agent() != worker.id {
		t.Errorf("%v", c.Path())
	}
}

// To take back what an agent was given reaches the handle that it has not
// redeemed, and nobody else's.
func TestRevokingAnAgentReachesItsHandles(t *testing.T) {
	f := newFlows(t)
	scopes := []string{"repo:read"}
	orch := f.program(f.alice, "orchestrator", scopes, "read", "delegate")
	rev := f.program(f.alice, "code-reviewer", scopes, "read", "delegate")
	worker := f.program(f.alice, "worker", scopes, "read", "delegate")
	mine := holder(t)
	root := orch.signIn(mine, url.Values{"resource": {git}})
	taken := f.handle(root, delegation.Ask{Receiver: rev.id, Scopes: scopes})
	kept := f.handle(root, delegation.Ask{Receiver: worker.id, Scopes: scopes})
	asked := f.do(orch.by(exchangeForm(root, url.Values{"agent": {rev.id}}), mine)).str("access_token")
	done, err := f.registry.Revoke(t.Context(), f.chain(root), authz.RevokeTarget{Agent: rev.id})
	must(t, err)
	if want := []string{authz.HashSecret(taken.Token), authz.HashSecret(asked)}; len(done.Revoked) != 2 || !slices.Contains(done.Revoked, want[0]) || !slices.Contains(done.Revoked, want[1]) {
		t.Errorf("revoked %v, want %v", done.Revoked, want)
	}
	before := f.recorded("revoked")
	for _, handle := range []string{taken.Token, asked} {
		f.wantError(f.do(rev.by(handleForm(handle, nil), holder(t))), http.StatusBadRequest, "invalid_request")
	}
	if n := f.recorded("revoked") - before; n != 2 {
		t.Errorf("%d records", n)
	}
	f.exchanged(worker.by(handleForm(kept.Token, nil), holder(t)))
}

// Whoever redeems a handle has looked before it was taken back, and commits
// afterwards: what was revoked meanwhile loses there.
func TestARevokedHandleLosesAtItsCommit(t *testing.T) {
	f := newFlows(t)
	orch := f.program(f.alice, "orchestrator", []string{"repo:read"}, "read", "delegate")
	rev := f.program(f.alice, "code-reviewer", []string{"repo:read"}, "read", "delegate")
	root := orch.signIn(holder(t), url.Values{"resource": {git}})
	ask := delegation.Ask{Receiver: rev.id, Scopes: []string{"repo:read"}}
	taken, kept := authz.HashSecret(f.handle(root, ask).Token), authz.HashSecret(f.handle(root, ask).Token)
	_, err := f.registry.Revoke(t.Context(), f.chain(root), authz.RevokeTarget{TokenID: taken})
	must(t, err)
	use := func(hash string) error {
		return f.log.Commit(t.Context(), audit.Change{Effects: []audit.Effect{f.store.UseHandle(hash, f.clock.now())}})
	}
	if err := use(taken); !errors.Is(err, audit.ErrConflict) {
		t.Errorf("a handle that was revoked: %v", err)
	}
	must(t, use(kept))
}

// A handle that was redeemed is no live token any more: to revoke it would end
// nothing, and must not be said to have. What came from it is ended by its own
// id or with its agent.
func TestRevokingAHandleThatWasRedeemed(t *testing.T) {
	f := newFlows(t)
	orch := f.program(f.alice, "orchestrator", []string{"repo:read"}, "read", "delegate")
	rev := f.program(f.alice, "code-reviewer", []string{"repo:read"}, "read", "delegate")
	root := orch.signIn(holder(t), url.Values{"resource": {git}})
	made := f.handle(root, delegation.Ask{Receiver: rev.id, Scopes: []string{"repo:read"}})
	a, c := f.exchanged(rev.by(handleForm(made.Token, nil), holder(t)))
	if done, err := f.registry.Revoke(t.Context(), f.chain(root), authz.RevokeTarget{TokenID: authz.HashSecret(made.Token)}); err == nil {
		t.Errorf("said to be revoked: %v", done.Revoked)
	}
	_, err := f.registry.Revoke(t.Context(), f.chain(root), authz.RevokeTarget{TokenID: c.LID()})
	must(t, err)
	if f.alive(a.str("access_token")) {
		t.Error("what came from the handle lives")
	}
}
