package authz_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
)

// successor signs the manifest after the program's current one.
func (p program) successor(key agent.PrivateKey, change ...func(*agent.Manifest)) string {
	p.t.Helper()
	current, err := p.agents.Manifest(context.Background(), p.id)
	must(p.t, err)
	m := agent.Manifest{
		Name: "orchestrator", Version: "2.0.0", Purpose: "Reviews code", Scopes: []string{"repo:read"},
		Capabilities: []string{"delegate"}, MaxDepth: 3, IssuedAt: p.clock.now(), Expires: p.clock.now().Add(time.Hour),
	}
	for _, f := range change {
		f(&m)
	}
	token, err := agent.SignNextManifest(m, agent.NextManifest{Last: current, Key: key, Previous: p.key})
	must(p.t, err)
	return token
}

// update brings a manifest to the server, by an assertion of key.
func (p program) update(manifest string, key agent.PrivateKey, change ...func(*authz.ManifestUpdate)) (authz.Agent, error) {
	p.t.Helper()
	assertion, err := agent.SignAssertion(key, p.id, p.issuer, p.clock.now(), time.Minute)
	must(p.t, err)
	u := authz.ManifestUpdate{Agent: p.id, Manifest: manifest, Assertion: assertion, Source: "192.0.2.1"}
	for _, f := range change {
		f(&u)
	}
	return p.agents.Update(context.Background(), u)
}

func byOwner(u *authz.ManifestUpdate) { u.Owner, u.By = true, byOperator }

func (p program) rotated() program {
	p.t.Helper()
	next := program{p.flows, p.id, holder(p.t)}
	_, err := p.update(p.successor(next.key), next.key, byOwner)
	must(p.t, err)
	return next
}

func TestFromAKeyChangeOnOnlyTheNewKeySignsIn(t *testing.T) {
	f := newFlows(t)
	old := f.program(f.alice, "orchestrator", []string{"repo:read"}, "delegate")
	caller := f.program(f.alice, "caller", []string{"repo:read"}, "delegate")
	key := holder(t)
	root := old.signIn(key, url.Values{"resource": {git}}) // it is read, and kept for a second
	card := func(p program) answer {
		held := holder(t)
		subject := caller.signIn(held, url.Values{"resource": {git}})
		text, err := agent.SignCard(p.key, agent.Card{Agent: p.id, Audience: f.issuer, Key: holder(t).Public(), IssuedAt: f.clock.now()})
		must(t, err)
		return f.do(caller.by(exchangeForm(subject, url.Values{
			"actor_token": {text}, "actor_token_type": {authz.TokenTypeAgentKey},
		}), held))
	}
	if a := card(old); a.status != http.StatusOK {
		t.Fatalf("a card: %v %v", a, a.body)
	}
	next := old.rotated()
	f.wantError(old.ask(key, "resource", git), http.StatusUnauthorized, "invalid_client")
	f.wantError(card(old), http.StatusBadRequest, "invalid_request")
	if a := next.ask(key, "resource", git); a.status != http.StatusOK {
		t.Errorf("the new key: %v %v", a, a.body)
	}
	if a := card(next); a.status != http.StatusOK {
		t.Errorf("a card of the new key: %v %v", a, a.body)
	}
	f.wantError(old.ask(key, "resource", git), http.StatusUnauthorized, "invalid_client")
	if !f.alive(root) {
		t.Error("a key change of an agent that may act ends its tokens")
	}
	// The id is the same, and so is all that hangs on it.
	if c := f.chain(next.ask(key, "resource", git).str("access_token")); c.Principal() != old.id {
		t.Errorf("principal %s", c.Principal())
	}
	if r := f.lastRecord(audit.AgentUpdate); r["resource"] != old.id || r["detail"].(map[string]any)["key_changed"] != true {
		t.Errorf("recorded as %v", r)
	}
	list, err := f.agents.Manifests(context.Background(), old.id, 0, 10)
	must(t, err)
	m, err := agent.VerifyManifest(list[0].Token+"~"+list[1].Token, f.clock.now())
	if err != nil || len(list) != 2 || m.Key != next.key.Public() || m.ID != old.id {
		t.Errorf("the history: %+v, %v", m, err)
	}
}

// Whoever signs in while the key changes: once the new one has worked, the one
// before does not any more; once the change is answered, the new one does.
func TestSigningInWhileTheKeyChanges(t *testing.T) {
	f := newFlows(t)
	old := f.program(f.alice, "orchestrator", []string{"repo:read"}, "delegate")
	next := program{f, old.id, holder(t)}
	manifest := old.successor(next.key)
	var seen, changed, done atomic.Bool
	var wg sync.WaitGroup
	for _, p := range []program{old, old, next, next} {
		var requests []request
		for range 60 {
			requests = append(requests, p.by(url.Values{"grant_type": {"client_credentials"}, "resource": {git}}, holder(t)))
		}
		wg.Go(func() {
			for i := 0; i < len(requests) && (i < 20 || !done.Load() || i < 40); i++ {
				newWorked, answered := seen.Load(), changed.Load()
				a, err := f.try(requests[i])
				if err != nil {
					t.Error(err)
					return
				}
				ok := a.status == http.StatusOK
				if !ok && a.status != http.StatusUnauthorized {
					t.Errorf("%d %v", a.status, a.body)
				}
				switch {
				case p.key.Public() == old.key.Public() && ok && (newWorked || answered):
					t.Error("the key before works after the new one did, or after the change was answered")
				case p.key.Public() == next.key.Public() && !ok && answered:
					t.Error("the new key does not work after the change was answered")
				case p.key.Public() == next.key.Public() && ok:
					seen.Store(true)
				}
			}
		})
	}
	_, err := old.update(manifest, next.key, byOwner)
	must(t, err)
	changed.Store(true)
	done.Store(true)
	wg.Wait()
	// However the requests above fell: they may all have come before the change.
	if a := next.ask(holder(t), "resource", git); a.status != http.StatusOK {
		t.Errorf("the new key: %d %v", a.status, a.body)
	}
	f.wantError(old.ask(holder(t), "resource", git), http.StatusUnauthorized, "invalid_client")
}

func TestAnUpdateOnItsOwn(t *testing.T) {
	f := newFlows(t)
	p := f.program(f.alice, "orchestrator", []string{"repo:read", "repo:write"}, "delegate")
	key := holder(t)
	narrow := p.successor(p.key, func(m *agent.Manifest) { m.Capabilities, m.Name = nil, "narrow" })
	updated, err := p.update(narrow, p.key)
	if err != nil || updated.Name != "narrow" || updated.ManifestSeq != 2 || updated.Depth() != 0 {
		t.Fatalf("%+v, %v", updated, err)
	}
	f.clock.advance(2 * time.Second)
	a := p.ask(key, "scope", "repo:read repo:write", "resource", git)
	if a.str("scope") != "repo:read" || f.chain(a.str("access_token")).DepthLeft(0) != 0 {
		t.Errorf("more than the manifest says: %v", a.body)
	}
	if r := f.lastRecord(audit.AgentUpdate); r["agent"] != p.id || r["sub"] != f.alice.ID {
		t.Errorf("recorded as %v", r)
	}
	// The current one again changes nothing and shows who has the key.
	if again, err := p.update(narrow, p.key); err != nil || again.ManifestSeq != 2 {
		t.Errorf("the current one again: %+v, %v", again, err)
	}
	// Renewed after it has expired, which gets no tokens in between.
	f.clock.advance(2 * time.Hour)
	f.wantError(p.ask(key, "resource", git), http.StatusUnauthorized, "invalid_client")
	if _, err := p.update(p.successor(p.key), p.key); err != nil {
		t.Errorf("renewing: %v", err)
	}
	f.clock.advance(2 * time.Second)
	if a := p.ask(key, "resource", git); a.status != http.StatusOK {
		t.Errorf("renewed: %v %v", a, a.body)
	}
}

func TestUpdatesThatAreRefused(t *testing.T) {
	f := newFlows(t)
	p := f.program(f.alice, "orchestrator", []string{"repo:read"}, "delegate")
	other := f.program(f.alice, "other", []string{"repo:read"}, "delegate")
	bob := f.user("bob", "member")
	ctx := context.Background()
	enrol := func(made authz.Secret, _ authz.Enrolment, err error) string {
		t.Helper()
		must(t, err)
		return made.Reveal()
	}
	first, err := f.agents.Manifest(ctx, p.id)
	must(t, err)
	fresh := holder(t)
	change, plain := p.successor(fresh), p.successor(p.key)
	used, err := agent.SignAssertion(p.key, p.id, f.issuer, f.clock.now(), time.Minute)
	must(t, err)
	_, err = p.update(first, p.key, func(u *authz.ManifestUpdate) { u.Assertion = used })
	must(t, err)
	long, err := agent.SignAssertion(p.key, p.id, f.issuer, f.clock.now(), 61*time.Second)
	must(t, err)
	with := func(token string) func(*authz.ManifestUpdate) {
		return func(u *authz.ManifestUpdate) { u.EnrolmentToken = token }
	}
	parts := strings.Split(plain, ".")
	edited := parts[0] + "." + parts[1][:len(parts[1])-4] + "AAAA." + parts[2]
	for _, c := range []struct {
		name     string
		manifest string
		key      agent.PrivateKey
		change   func(*authz.ManifestUpdate)
		want     error
	}{
		{"a key change alone", change, fresh, nil, authz.ErrOwnerNeeded},
		{"a key change by the key before", change, p.key, byOwner, authz.ErrInvalid},
		{"an enrolment for somebody new", change, fresh, with(enrol(f.agents.Enrol(ctx, byOperator, f.alice.ID, 0))), authz.ErrEnrolment},
		{"an enrolment for another agent", change, fresh, with(enrol(f.agents.EnrolKey(ctx, byOperator, other.id, 0))), authz.ErrEnrolment},
		{"an enrolment of another owner", change, fresh, with(enrol(f.agents.Enrol(ctx, byOperator, bob.ID, 0))), authz.ErrEnrolment},
		{"an enrolment of nobody", change, fresh, with("kve_x"), authz.ErrEnrolment},
		{"another agent's key", p.successor(other.key), other.key, byOwner, authz.ErrExists},
		{"another agent's name", p.successor(p.key, func(m *agent.Manifest) { m.Name = "other" }), p.key, nil, authz.ErrExists},
		{"an assertion of another", plain, other.key, nil, authz.ErrInvalid},
		{"an assertion again", plain, p.key, func(u *authz.ManifestUpdate) { u.Assertion = used }, authz.ErrReplayed},
		{"an assertion that lives too long", plain, p.key, func(u *authz.ManifestUpdate) { u.Assertion = long }, authz.ErrInvalid},
		{"no assertion", plain, p.key, func(u *authz.ManifestUpdate) { u.Assertion = "" }, authz.ErrInvalid},
		{"of another agent", plain, p.key, func(u *authz.ManifestUpdate) { u.Agent = other.id }, authz.ErrInvalid},
		{"of nobody", plain, p.key, func(u *authz.ManifestUpdate) { u.Agent = strings.Repeat("x", 43) }, authz.ErrNotFound},
		{"edited", edited, p.key, byOwner, authz.ErrInvalid},
	} {
		var changes []func(*authz.ManifestUpdate)
		if c.change != nil {
			changes = append(changes, c.change)
		}
		if a, err := p.update(c.manifest, c.key, changes...); !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v", c.name, a, err)
		}
		if now, err := f.agents.Manifest(ctx, p.id); err != nil || now != first {
			t.Fatalf("%s: it was taken", c.name)
		}
	}
	// The word of the owner is good once, and for this.
	token := enrol(f.agents.EnrolKey(ctx, byOperator, p.id, 0))
	who := holder(t)
	m, err := agent.SignManifest(agent.Manifest{
		Name: "new", Version: "1.0.0", Purpose: "p", IssuedAt: f.clock.now(), Expires: f.clock.now().Add(time.Hour),
	}, who)
	must(t, err)
	assertion, err := agent.SignAssertion(who, who.Public().Thumbprint(), f.issuer, f.clock.now(), time.Minute)
	must(t, err)
	if _, err := f.agents.Register(ctx, authz.Registration{Manifest: m, Assertion: assertion, EnrolmentToken: token}); !errors.Is(err, authz.ErrEnrolment) {
		t.Errorf("an enrolment for a key change registers: %v", err)
	}
	if _, err := p.update(change, fresh, with(token)); err != nil {
		t.Fatalf("a key change with the word of the owner: %v", err)
	}
	next := program{f, p.id, fresh}
	if _, err := next.update(next.successor(holder(t)), fresh, with(token)); err == nil {
		t.Error("the word of the owner works twice")
	}
	// What was replaced does not come back, nor the key of it.
	for name, again := range map[string]string{"the first": first, "the one that lost": plain} {
		if _, err := next.update(again, p.key, byOwner); !errors.Is(err, authz.ErrInvalid) {
			t.Errorf("%s comes back: %v", name, err)
		}
	}
	if _, err := next.update(next.successor(p.key), p.key, byOwner); !errors.Is(err, authz.ErrExists) {
		t.Errorf("a key comes back: %v", err)
	}
	// Nobody else gets the key that was given up, either.
	m, err = agent.SignManifest(agent.Manifest{
		Name: "heir", Version: "1.0.0", Purpose: "p", IssuedAt: f.clock.now(), Expires: f.clock.now().Add(time.Hour),
	}, p.key)
	must(t, err)
	assertion, err = agent.SignAssertion(p.key, p.id, f.issuer, f.clock.now(), time.Minute)
	must(t, err)
	if _, err := f.agents.Register(ctx, authz.Registration{Manifest: m, Assertion: assertion, Owner: bob.ID, By: byOperator}); !errors.Is(err, authz.ErrExists) {
		t.Errorf("an id that is taken: %v", err)
	}
}

// Many bring the next manifest at once: one of them is the next.
func TestOneOfManyUpdatesWins(t *testing.T) {
	f := newFlows(t)
	p := f.program(f.alice, "orchestrator", []string{"repo:read"}, "delegate")
	var wg sync.WaitGroup
	var won atomic.Int64
	keys, manifests := make([]agent.PrivateKey, 8), make([]string, 8)
	for i := range keys {
		keys[i] = holder(t)
		manifests[i] = p.successor(keys[i])
	}
	for i, manifest := range manifests {
		wg.Go(func() {
			switch _, err := p.update(manifest, keys[i], byOwner); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, authz.ErrRaceLost) && !errors.Is(err, authz.ErrInvalid):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	list, err := f.agents.Manifests(context.Background(), p.id, 0, 10)
	if err != nil || won.Load() != 1 || len(list) != 2 {
		t.Errorf("%d won, %d manifests, %v", won.Load(), len(list), err)
	}
}

// An agent with a history registers with all of it, and brings several at once
// to a server that lacks more than the last.
func TestAHistoryIsTakenOver(t *testing.T) {
	f := newFlows(t)
	ctx := context.Background()
	first, second, third := holder(t), holder(t), holder(t)
	draft := agent.Manifest{
		Name: "traveller", Version: "1.0.0", Purpose: "p", Scopes: []string{"repo:read"},
		IssuedAt: f.clock.now(), Expires: f.clock.now().Add(time.Hour),
	}
	m1, err := agent.SignManifest(draft, first)
	must(t, err)
	m2, err := agent.SignNextManifest(draft, agent.NextManifest{Last: m1, Key: second, Previous: first})
	must(t, err)
	id := first.Public().Thumbprint()
	assertion, err := agent.SignAssertion(second, id, f.issuer, f.clock.now(), time.Minute)
	must(t, err)
	if _, err := f.agents.Register(ctx, authz.Registration{Manifest: m2, Assertion: assertion, Owner: f.alice.ID, By: byOperator}); !errors.Is(err, authz.ErrInvalid) {
		t.Errorf("a manifest without its history: %v", err)
	}
	a, err := f.agents.Register(ctx, authz.Registration{Manifest: m1 + "~" + m2, Assertion: assertion, Owner: f.alice.ID, By: byOperator})
	if err != nil || a.ID != id || a.ManifestSeq != 2 || a.Key != second.Public() {
		t.Fatalf("%+v, %v", a, err)
	}
	m3, err := agent.SignNextManifest(draft, agent.NextManifest{Last: m2, Key: third, Previous: second})
	must(t, err)
	m4, err := agent.SignNextManifest(draft, agent.NextManifest{Last: m3, Key: third})
	must(t, err)
	p := program{f, id, third}
	if _, err := p.update(strings.Join([]string{m1, m2, m3, m4}, "~"), third); !errors.Is(err, authz.ErrOwnerNeeded) {
		t.Errorf("a key change inside a history: %v", err)
	}
	if a, err := p.update(strings.Join([]string{m2, m3, m4}, "~"), third, byOwner); err != nil || a.ManifestSeq != 4 {
		t.Errorf("%+v, %v", a, err)
	}
	list, err := f.agents.Manifests(ctx, id, 1, 2)
	if err != nil || len(list) != 2 || list[0].Token != m2 || list[1].Token != m3 {
		t.Errorf("%+v, %v", list, err)
	}
}
