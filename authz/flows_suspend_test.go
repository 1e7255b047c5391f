package authz_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
)

func (p program) suspend() {
	p.t.Helper()
	recorded, err := p.agents.Suspend(context.Background(), byOperator, p.id, "its key was in a log")
	if err != nil || !recorded {
		p.t.Fatal(recorded, err)
	}
}

// "Suspension reaches roots with that client_id, confirmed keys, and links
// carrying the name."
func TestWhatASuspensionReaches(t *testing.T) {
	f := newFlows(t)
	scopes := []string{"repo:read"}
	orch := f.program(f.alice, "orchestrator", scopes, "delegate")
	worker := f.program(f.alice, "worker", scopes, "delegate")
	workerKey, carded, orchKey := holder(t), holder(t), holder(t)
	root := orch.signIn(orchKey, url.Values{"resource": {git}})
	own := worker.signIn(workerKey, url.Values{"resource": {git}})
	below := func(name string, key agent.PublicKey) string {
		t.Helper()
		link, err := delegation.Derive(root, orchKey, key, delegation.Narrow{
			ClientID: name, Scopes: scopes, TTL: time.Minute,
		}, f.clock.now())
		must(t, err)
		return link.Chain
	}
	exchanged, _ := f.exchanged(orch.by(exchangeForm(root, url.Values{
		"actor_token": {worker.card(carded.Public())}, "actor_token_type": {authz.TokenTypeAgentKey},
	}), orchKey))
	reached := map[string]string{
		"its own root":                             own,
		"a link that names it":                     below(worker.id, holder(t).Public()),
		"a link with another name to its key":      below("helper", workerKey.Public()),
		"a link with another name to a carded key": below("helper", carded.Public()),
		"what was exchanged for it":                exchanged.str("access_token"),
	}
	spared := map[string]string{
		"who delegated to it":     root,
		"a link to somebody else": below("helper", holder(t).Public()),
	}
	look := func(when string, dead bool) {
		t.Helper()
		for name, token := range reached {
			if f.alive(token) == dead {
				t.Errorf("%s: %s is alive: %t", when, name, dead)
			}
		}
		for name, token := range spared {
			if !f.alive(token) {
				t.Errorf("%s: %s is dead", when, name)
			}
		}
	}
	look("before", false)
	if a := worker.ask(workerKey, "resource", git); a.status != http.StatusOK { // it is read, and kept for a second
		t.Fatal(a)
	}
	worker.suspend()
	look("suspended", true)
	f.wantError(worker.ask(workerKey, "resource", git), http.StatusBadRequest, "invalid_grant")
	f.clock.advance(2 * time.Second)
	f.wantError(worker.ask(workerKey, "resource", git), http.StatusUnauthorized, "invalid_client")
	f.wantError(f.do(orch.by(exchangeForm(root, url.Values{"agent": {worker.id}, "req_cnf": {cnf(t, holder(t).Public())}}), orchKey)),
		http.StatusBadRequest, "invalid_request")
	// Whoever has its key does not get a token bound to it, either.
	f.wantError(orch.ask(workerKey, "resource", git), http.StatusBadRequest, "invalid_grant")
	if r := f.lastRecord(audit.AgentSuspend); r["resource"] != worker.id || r["detail"].(map[string]any)["why"] != "its key was in a log" {
		t.Errorf("recorded as %v", r)
	}
	worker.suspend() // again is no error
	must(t, f.agents.Resume(context.Background(), byOperator, worker.id))
	look("resumed", false)
	f.clock.advance(2 * time.Second)
	if a := worker.ask(workerKey, "resource", git); a.status != http.StatusOK {
		t.Errorf("resumed: %v %v", a, a.body)
	}
	if err := f.agents.Resume(context.Background(), byOperator, worker.id); !errors.Is(err, authz.ErrNotSuspended) {
		t.Errorf("resumed twice: %v", err)
	}
	worker.suspend()
	look("suspended again", true)
	if _, err := f.agents.Suspend(context.Background(), byOperator, "worker", ""); !errors.Is(err, authz.ErrNotFound) {
		t.Errorf("a name is no id: %v", err)
	}
}

// An agent whose identity key was stolen: it is suspended, gets a new key, and
// is resumed. What the thief got is dead for good.
func TestAfterAnIdentityKeyWasStolen(t *testing.T) {
	f := newFlows(t)
	p := f.program(f.alice, "orchestrator", []string{"repo:read"}, "delegate")
	stolen := p.signIn(holder(t), url.Values{"resource": {git}})
	p.suspend()
	if _, err := p.update(p.successor(p.key), p.key); !errors.Is(err, authz.ErrOwnerNeeded) {
		t.Errorf("a suspended agent changes its manifest: %v", err)
	}
	next := p.rotated()
	if f.alive(stolen) {
		t.Error("a key change wakes a suspended agent")
	}
	f.clock.advance(2 * time.Second)
	must(t, f.agents.Resume(context.Background(), byOperator, p.id))
	if f.alive(stolen) {
		t.Error("what was had by a stolen key comes back")
	}
	f.wantError(p.ask(holder(t), "resource", git), http.StatusUnauthorized, "invalid_client")
	if token := next.signIn(holder(t), url.Values{"resource": {git}}); !f.alive(token) {
		t.Error("what the new key gets is dead")
	}
}

// A suspension does not wait for the log, nor for the database.
func TestASuspensionThatCannotBeWritten(t *testing.T) {
	f := newFlows(t)
	p := f.program(f.alice, "orchestrator", []string{"repo:read"}, "delegate")
	token := p.signIn(holder(t), url.Values{"resource": {git}})
	f.log.fail(audit.ErrUnavailable)
	if _, err := p.agents.Suspend(context.Background(), byOperator, p.id, ""); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("nothing was written: %v", err)
	}
	if f.alive(token) {
		t.Error("it is not enforced")
	}
	f.log.fail(nil)
	must(t, sweep(f.log, f.registry))
	if a, err := f.agents.Agent(context.Background(), p.id); err != nil || a.Status != authz.AgentSuspended || f.alive(token) {
		t.Errorf("it was not made up for: %+v, %v", a, err)
	}
	// Asked for again and resumed before what waits could be written: it stays
	// resumed.
	must(t, f.agents.Resume(context.Background(), byOperator, p.id))
	f.log.fail(audit.ErrUnavailable)
	if _, err := p.agents.Suspend(context.Background(), byOperator, p.id, ""); err == nil {
		t.Error("nothing was written, and no error")
	}
	f.log.fail(nil)
	p.suspend()
	must(t, f.agents.Resume(context.Background(), byOperator, p.id))
	must(t, sweep(f.log, f.registry))
	if !f.alive(token) {
		t.Error("what was asked for before the resumption comes after it")
	}
	p.suspend()
	// Resumed in another process, which this one must not overrule.
	f.exec(`UPDATE agents SET status = 'active'`)
	f.exec(`UPDATE revocations SET until = 1`)
	if !f.alive(token) {
		t.Error("what was committed is enforced from memory for ever")
	}
}
