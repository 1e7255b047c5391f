package authz_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/people"
)

// agentsTest is a registry of agents, with the people alice and bob.
type agentsTest struct {
	*registryTest
	agents *authz.Agents
}

func newAgents(t *testing.T) *agentsTest {
	t.Helper()
	at := &agentsTest{}
	at.registryTest = newRegistry(t, func(c *authz.RegistryConfig) { c.Agents = c.Store.(*faultyStore) })
	at.agents = authz.NewAgents(authz.AgentsConfig{
		Issuer: testIssuer, Store: at.store, Commit: at.log, Refusals: at.log, Registry: at.Registry, Now: at.clock.now,
	})
	at.user("usr_alice", people.Member)
	at.user("usr_bob", people.Member)
	return at
}

// applicant is an agent that wants to register.
type applicant struct {
	key      agent.PrivateKey
	manifest string
}

func (at *agentsTest) applicant(name string, change ...func(*agent.Manifest)) applicant {
	at.Helper()
	key, err := agent.GenerateKey()
	must(at.T, err)
	return at.applicantWith(key, name, change...)
}

func (at *agentsTest) applicantWith(key agent.PrivateKey, name string, change ...func(*agent.Manifest)) applicant {
	at.Helper()
	m := agent.Manifest{
		Name: name, Version: "1.0.0", Purpose: "Reviews pull requests.",
		Scopes: []string{"kavach:verify", "kavach:delegate"}, Capabilities: []string{agent.CapabilityDelegate}, MaxDepth: 2,
		IssuedAt: at.clock.now(), Expires: at.clock.now().Add(24 * time.Hour),
	}
	for _, f := range change {
		f(&m)
	}
	token, err := agent.SignManifest(m, key)
	must(at.T, err)
	return applicant{key, token}
}

func (at *agentsTest) assertion(key agent.PrivateKey) string {
	at.Helper()
	token, err := agent.SignAssertion(key, key.Public().Thumbprint(), testIssuer, at.clock.now(), time.Minute)
	must(at.T, err)
	return token
}

func (at *agentsTest) enrol(owner string) string {
	at.Helper()
	secret, _, err := at.agents.Enrol(context.Background(), cli, owner, 0)
	must(at.T, err)
	return secret.Reveal()
}

// owned registers an agent of an owner.
func (at *agentsTest) owned(owner, name string, change ...func(*agent.Manifest)) authz.Agent {
	at.Helper()
	who := at.applicant(name, change...)
	a, err := at.agents.Register(context.Background(), authz.Registration{
		Manifest: who.manifest, Assertion: at.assertion(who.key), Owner: owner, By: cli,
	})
	must(at.T, err)
	return a
}

func TestRegisterWithEnrolment(t *testing.T) {
	at := newAgents(t)
	who, token := at.applicant("reviewer"), at.enrol("usr_alice")
	made, err := at.agents.Register(context.Background(), authz.Registration{
		Manifest: who.manifest + "\n", Assertion: at.assertion(who.key), EnrolmentToken: token + "\n", Source: "192.0.2.1",
	})
	must(t, err)
	id := who.key.Public().Thumbprint()
	if made.ID != id || made.Owner != "usr_alice" || made.Name != "reviewer" || made.Status != authz.AgentActive || made.Depth() != 2 {
		t.Errorf("%+v", made)
	}
	for _, find := range []string{id, "reviewer"} {
		found, err := at.agents.FindAgent(context.Background(), "usr_alice", find)
		must(t, err)
		if found.ID != id || found.Key != who.key.Public() || !found.Active(at.clock.now()) || strings.Join(found.Scopes, " ") != "kavach:delegate kavach:verify" {
			t.Errorf("found by %s: %+v", find, found)
		}
	}
	if _, err := at.agents.FindAgent(context.Background(), "usr_bob", "reviewer"); !errors.Is(err, authz.ErrNotFound) {
		t.Errorf("bob finds alice's agent by its name: %v", err)
	}
	manifest, err := at.agents.Manifest(context.Background(), id)
	if err != nil || manifest != who.manifest {
		t.Errorf("manifest %q %v", manifest, err)
	}
	client, err := at.Client(context.Background(), id)
	if err != nil || client.Kind != authz.KindAgent || client.Method != authz.MethodKeyJWT || client.Disabled || client.ID != id {
		t.Errorf("as a client: %+v %v", client, err)
	}
	e := at.records(audit.AgentRegister)
	if len(e) != 1 || e[0].Agent != id || e[0].Sub != "usr_alice" || e[0].Resource != id || e[0].Detail["owner"] != "usr_alice" {
		t.Errorf("records %+v", e)
	}
	if e := at.records(audit.AgentEnrol); len(e) != 1 || e[0].Agent != audit.Operator || e[0].Detail["owner"] != "usr_alice" || strings.Contains(e[0].Resource, token) {
		t.Errorf("records %+v", e)
	}
	// The invitation is spent, also for somebody else.
	other := at.applicant("second")
	_, err = at.agents.Register(context.Background(), authz.Registration{
		Manifest: other.manifest, Assertion: at.assertion(other.key), EnrolmentToken: token, Source: "192.0.2.1",
	})
	if !errors.Is(err, authz.ErrEnrolment) {
		t.Errorf("the enrolment token works twice: %v", err)
	}
	// An expired manifest makes the agent and its client inactive.
	at.clock.advance(25 * time.Hour)
	found, err := at.agents.Agent(context.Background(), id)
	if err != nil || found.Active(at.clock.now()) {
		t.Errorf("active after its manifest expired: %v", err)
	}
	if client, err := at.Client(context.Background(), id); err != nil || !client.Disabled {
		t.Errorf("a client after its manifest expired: %v", err)
	}
}

func TestRegisterRefusals(t *testing.T) {
	at := newAgents(t)
	at.user("usr_gone", people.Member)
	at.exec(`UPDATE users SET disabled = 1 WHERE id = 'usr_gone'`)
	taken := at.owned("usr_alice", "taken")
	who, other := at.applicant("reviewer"), at.applicant("other")
	used := at.assertion(who.key)
	expired := at.enrol("usr_alice")
	at.exec(`UPDATE enrolments SET expires = 1`)
	late, err := agent.SignAssertion(who.key, who.key.Public().Thumbprint(), testIssuer, at.clock.now().Add(-2*time.Minute), time.Minute)
	must(t, err)
	long, err := agent.SignAssertion(who.key, who.key.Public().Thumbprint(), testIssuer, at.clock.now(), 61*time.Second)
	must(t, err)
	elsewhere, err := agent.SignAssertion(who.key, who.key.Public().Thumbprint(), testIssuer+"/oauth/token", at.clock.now(), time.Minute)
	must(t, err)
	for _, c := range []struct {
		name string
		r    authz.Registration
		want error
	}{
		{"no authority", authz.Registration{Manifest: who.manifest, Assertion: used}, authz.ErrEnrolment},
		{"unknown token", authz.Registration{Manifest: who.manifest, Assertion: used, EnrolmentToken: "x"}, authz.ErrEnrolment},
		{"expired token", authz.Registration{Manifest: who.manifest, Assertion: used, EnrolmentToken: expired}, authz.ErrEnrolment},
		{"both", authz.Registration{Manifest: who.manifest, Assertion: used, EnrolmentToken: at.enrol("usr_alice"), Owner: "usr_alice", By: cli}, authz.ErrInvalid},
		{"unknown owner", authz.Registration{Manifest: who.manifest, Assertion: used, Owner: "usr_nobody", By: cli}, authz.ErrInvalid},
		{"disabled owner", authz.Registration{Manifest: who.manifest, Assertion: used, Owner: "usr_gone", By: cli}, authz.ErrInvalid},
		{"an agent as owner", authz.Registration{Manifest: who.manifest, Assertion: used, Owner: taken.ID, By: cli}, authz.ErrInvalid},
		{"no manifest", authz.Registration{Assertion: used, Owner: "usr_alice", By: cli}, authz.ErrInvalid},
		{"assertion as manifest", authz.Registration{Manifest: used, Assertion: used, Owner: "usr_alice", By: cli}, authz.ErrInvalid},
		{"no assertion", authz.Registration{Manifest: who.manifest, Owner: "usr_alice", By: cli}, authz.ErrInvalid},
		{"manifest as assertion", authz.Registration{Manifest: who.manifest, Assertion: who.manifest, Owner: "usr_alice", By: cli}, authz.ErrInvalid},
		{"assertion of another", authz.Registration{Manifest: who.manifest, Assertion: at.assertion(other.key), Owner: "usr_alice", By: cli}, authz.ErrInvalid},
		{"late assertion", authz.Registration{Manifest: who.manifest, Assertion: late, Owner: "usr_alice", By: cli}, authz.ErrInvalid},
		{"assertion for long", authz.Registration{Manifest: who.manifest, Assertion: long, Owner: "usr_alice", By: cli}, authz.ErrInvalid},
		{"assertion for elsewhere", authz.Registration{Manifest: who.manifest, Assertion: elsewhere, Owner: "usr_alice", By: cli}, authz.ErrInvalid},
		{"taken name", func() authz.Registration {
			twin := at.applicant("taken")
			return authz.Registration{Manifest: twin.manifest, Assertion: at.assertion(twin.key), Owner: "usr_alice", By: cli}
		}(), authz.ErrExists},
	} {
		before := len(at.records(audit.AgentRefuse))
		_, err := at.agents.Register(context.Background(), c.r)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if after := len(at.records(audit.AgentRefuse)); after != before+1 {
			t.Errorf("%s: %d records of it", c.name, after-before)
		}
	}
	// None of that was held against the assertion, which is still good, once.
	_, err = at.agents.Register(context.Background(), authz.Registration{Manifest: who.manifest, Assertion: used, Owner: "usr_alice", By: cli})
	must(t, err)
	_, err = at.agents.Register(context.Background(), authz.Registration{Manifest: who.manifest, Assertion: at.assertion(who.key), Owner: "usr_alice", By: cli})
	if !errors.Is(err, authz.ErrExists) {
		t.Errorf("registered twice: %v", err)
	}
	// The same key under another name and owner is the same agent.
	again := at.applicantWith(who.key, "renamed")
	_, err = at.agents.Register(context.Background(), authz.Registration{Manifest: again.manifest, Assertion: at.assertion(who.key), Owner: "usr_bob", By: cli})
	if !errors.Is(err, authz.ErrExists) {
		t.Errorf("one id for two agents: %v", err)
	}
	// A name that alice uses is free for bob.
	at.owned("usr_bob", "taken")
}

func TestAssertionOnce(t *testing.T) {
	at := newAgents(t)
	who := at.applicant("reviewer")
	proof := at.assertion(who.key)
	_, err := at.agents.Register(context.Background(), authz.Registration{Manifest: who.manifest, Assertion: proof, Owner: "usr_alice", By: cli})
	must(t, err)
	// Even when nothing else stands in the way any more.
	at.exec(`DELETE FROM agents`)
	at.exec(`DELETE FROM manifests`)
	at.exec(`DELETE FROM agent_keys`)
	_, err = at.agents.Register(context.Background(), authz.Registration{Manifest: who.manifest, Assertion: proof, Owner: "usr_alice", By: cli})
	if !errors.Is(err, authz.ErrReplayed) {
		t.Errorf("an assertion works twice: %v", err)
	}
}

// TestEnrolmentRace: one invitation, many who present it.
func TestEnrolmentRace(t *testing.T) {
	at := newAgents(t)
	token := at.enrol("usr_alice")
	const n = 20
	applicants := make([]authz.Registration, n)
	for i := range applicants {
		who := at.applicant("agent-" + string(rune('a'+i)))
		applicants[i] = authz.Registration{Manifest: who.manifest, Assertion: at.assertion(who.key), EnrolmentToken: token}
	}
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range applicants {
		wg.Go(func() { _, errs[i] = at.agents.Register(context.Background(), applicants[i]) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, authz.ErrEnrolment) {
			t.Errorf("a loser hears %v", err)
		}
	}
	list, err := at.agents.Agents(context.Background(), "", "", 100)
	must(t, err)
	if won != 1 || len(list) != 1 || len(at.records(audit.AgentRegister)) != 1 {
		t.Errorf("%d won, %d agents, %d records", won, len(list), len(at.records(audit.AgentRegister)))
	}
}

func TestRegisterNeedsTheLog(t *testing.T) {
	at := newAgents(t)
	who, token := at.applicant("reviewer"), at.enrol("usr_alice")
	at.log.fail(audit.ErrUnavailable)
	r := authz.Registration{Manifest: who.manifest, Assertion: at.assertion(who.key), EnrolmentToken: token}
	if _, err := at.agents.Register(context.Background(), r); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("registered without a record: %v", err)
	}
	if _, _, err := at.agents.Enrol(context.Background(), cli, "usr_alice", 0); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("enrolled without a record: %v", err)
	}
	at.log.fail(nil)
	_, err := at.agents.Register(context.Background(), r)
	must(t, err)
}

func TestEnrolRefuses(t *testing.T) {
	at := newAgents(t)
	for name, c := range map[string]struct {
		owner string
		ttl   time.Duration
	}{
		"nobody": {"usr_nobody", 0}, "no owner": {"", 0}, "for ever": {"usr_alice", 31 * 24 * time.Hour}, "backwards": {"usr_alice", -time.Hour},
	} {
		if _, _, err := at.agents.Enrol(context.Background(), cli, c.owner, c.ttl); !errors.Is(err, authz.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	token := at.enrol("usr_alice")
	must(t, sweep(at.log, at.agents))
	at.clock.advance(time.Hour)
	who := at.applicant("late")
	if _, err := at.agents.Register(context.Background(), authz.Registration{Manifest: who.manifest, Assertion: at.assertion(who.key), EnrolmentToken: token}); !errors.Is(err, authz.ErrEnrolment) {
		t.Errorf("an hour later: %v", err)
	}
	at.clock.advance(audit.ClockSkew)
	must(t, sweep(at.log, at.agents))
	if _, err := at.store.Enrolment(context.Background(), authz.HashSecret(token)); !errors.Is(err, authz.ErrNotFound) {
		t.Errorf("not swept: %v", err)
	}
}

func TestListAgents(t *testing.T) {
	at := newAgents(t)
	for _, name := range []string{"alpha", "beta", "alp_x"} {
		at.owned("usr_alice", name)
	}
	at.owned("usr_bob", "alpine")
	var ids []string
	for after := ""; ; {
		page, err := at.agents.Agents(context.Background(), "", after, 3)
		must(t, err)
		for _, a := range page {
			ids = append(ids, a.ID)
			after = a.ID
		}
		if len(page) < 3 {
			break
		}
	}
	if len(ids) != 4 {
		t.Errorf("%d agents on the pages", len(ids))
	}
	mine, err := at.agents.Agents(context.Background(), "usr_alice", "", 10)
	if err != nil || len(mine) != 3 {
		t.Errorf("%d agents of alice, %v", len(mine), err)
	}
	for principal, want := range map[string]string{"usr_alice": "alp_x alpha", mine[0].ID: "alp_x alpha", "usr_bob": "alpine", "usr_nobody": ""} {
		names, err := at.agents.AgentNames(context.Background(), principal, "alp", 10)
		if err != nil || strings.Join(names, " ") != want {
			t.Errorf("%s completes %q, %v", principal, names, err)
		}
	}
	// No character of a prefix is a pattern.
	for _, prefix := range []string{"al%", "al_", "%"} {
		if names, err := at.agents.AgentNames(context.Background(), "usr_alice", prefix, 10); err != nil || len(names) != 0 {
			t.Errorf("%q completes %q, %v", prefix, names, err)
		}
	}
	if _, err := at.agents.Agent(context.Background(), "alpha"); !errors.Is(err, authz.ErrNotFound) {
		t.Errorf("a name is no id: %v", err)
	}
}

func TestGrant(t *testing.T) {
	at := newAgents(t)
	a := at.owned("usr_alice", "reviewer")
	ctx := context.Background()
	if _, err := at.agents.StandingGrant(ctx, a.ID); !errors.Is(err, authz.ErrNotFound) {
		t.Errorf("a grant from nowhere: %v", err)
	}
	first, err := at.agents.Grant(ctx, cli, a.ID, authz.AgentGrant{Scopes: []string{"kavach:verify", "kavach:delegate", "kavach:verify"}})
	must(t, err)
	if first.MaxDepth != 2 || strings.Join(first.Scopes, " ") != "kavach:delegate kavach:verify" || first.Sub != a.ID {
		t.Errorf("%+v", first)
	}
	one := 1
	second, err := at.agents.Grant(ctx, cli, a.ID, authz.AgentGrant{Scopes: []string{"kavach:verify"}, MaxDepth: &one})
	must(t, err)
	got, err := at.agents.StandingGrant(ctx, a.ID)
	must(t, err)
	if second.ID != first.ID || got.ID != first.ID || strings.Join(got.Scopes, " ") != "kavach:verify" || got.MaxDepth != 1 {
		t.Errorf("the second grant did not replace the first: %+v", got)
	}
	token := at.token(a.ID, a.ID, got.ID, []string{"kavach:verify"})
	if at.dead(token) {
		t.Error("a token of the grant is dead")
	}
	recorded, err := at.agents.RemoveGrant(ctx, cli, a.ID)
	if err != nil || !recorded {
		t.Errorf("removing: %v %v", recorded, err)
	}
	if _, err := at.agents.StandingGrant(ctx, a.ID); !errors.Is(err, authz.ErrNotFound) {
		t.Errorf("removed, but there: %v", err)
	}
	if _, err := at.agents.RemoveGrant(ctx, cli, a.ID); !errors.Is(err, authz.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if !at.dead(token) {
		t.Error("a token of the removed grant lives")
	}
	third, err := at.agents.Grant(ctx, cli, a.ID, authz.AgentGrant{Scopes: []string{"kavach:verify"}})
	must(t, err)
	if got, err := at.agents.StandingGrant(ctx, a.ID); err != nil || got.ID != third.ID || third.ID == first.ID {
		t.Errorf("a new grant after the removal: %+v, %v", got, err)
	}
	if !at.dead(token) || at.dead(at.token(a.ID, a.ID, third.ID, []string{"kavach:verify"})) {
		t.Error("the new grant wakes the old tokens, or gives none")
	}
	if e := at.records(audit.AgentGrant); len(e) != 4 || e[2].Detail["removed"] != true || e[0].Grant != first.ID || e[0].Resource != a.ID {
		t.Errorf("records %+v", e)
	}
}

func TestGrantRefuses(t *testing.T) {
	at := newAgents(t)
	ctx := context.Background()
	wide := at.owned("usr_alice", "wide", func(m *agent.Manifest) {
		m.Scopes = append(m.Scopes, "audit:read", "audit:write", "no:such")
	})
	sealed := at.owned("usr_alice", "sealed", func(m *agent.Manifest) { m.Capabilities = nil })
	depth := func(n int) *int { return &n }
	for name, c := range map[string]struct {
		id   string
		by   authz.Actor
		spec authz.AgentGrant
		want error
	}{
		"no scope":                 {wide.ID, cli, authz.AgentGrant{}, authz.ErrInvalid},
		"not in the manifest":      {wide.ID, cli, authz.AgentGrant{Scopes: []string{"kavach:audit"}}, authz.ErrInvalid},
		"of no resource":           {wide.ID, cli, authz.AgentGrant{Scopes: []string{"no:such"}}, authz.ErrInvalid},
		"not the owner's":          {wide.ID, cli, authz.AgentGrant{Scopes: []string{"audit:read"}}, authz.ErrInvalid},
		"an operator's to give":    {wide.ID, authz.Actor{Agent: "user:usr_alice", Via: "api"}, authz.AgentGrant{Scopes: []string{"audit:write"}}, authz.ErrInvalid},
		"deeper than the manifest": {wide.ID, cli, authz.AgentGrant{Scopes: []string{"kavach:verify"}, MaxDepth: depth(3)}, authz.ErrInvalid},
		"negative depth":           {wide.ID, cli, authz.AgentGrant{Scopes: []string{"kavach:verify"}, MaxDepth: depth(-1)}, authz.ErrInvalid},
		"may not delegate":         {sealed.ID, cli, authz.AgentGrant{Scopes: []string{"kavach:verify"}, MaxDepth: depth(1)}, authz.ErrInvalid},
		"no agent":                 {strings.Repeat("x", 43), cli, authz.AgentGrant{Scopes: []string{"kavach:verify"}}, authz.ErrNotFound},
		"a name":                   {"wide", cli, authz.AgentGrant{Scopes: []string{"kavach:verify"}}, authz.ErrNotFound},
	} {
		if _, err := at.agents.Grant(ctx, c.by, c.id, c.spec); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := len(at.records(audit.AgentGrant)); n != 0 {
		t.Errorf("%d grants recorded", n)
	}
	if g, err := at.agents.Grant(ctx, cli, sealed.ID, authz.AgentGrant{Scopes: []string{"kavach:verify"}}); err != nil || g.MaxDepth != 0 {
		t.Errorf("without the capability: %+v %v", g, err)
	}
	if _, err := at.agents.Grant(ctx, cli, wide.ID, authz.AgentGrant{Scopes: []string{"audit:write"}}); err != nil {
		t.Errorf("an operator gives audit:write: %v", err)
	}
	at.log.fail(audit.ErrUnavailable)
	if _, err := at.agents.Grant(ctx, cli, wide.ID, authz.AgentGrant{Scopes: []string{"kavach:verify"}}); !errors.Is(err, audit.ErrUnavailable) {
		t.Errorf("granted without a record: %v", err)
	}
}

// The largest manifest there is, and a grant of all of it, fit into a record.
func TestTheLargestManifestFitsIntoARecord(t *testing.T) {
	at := newAgents(t)
	for size := 124; ; size -= 4 {
		r := authz.Resource{ID: "https://large.example", Name: "Large"}
		for i := range 64 {
			r.Scopes = append(r.Scopes, authz.Scope{Name: fmt.Sprintf("s%02d:%s", i, strings.Repeat("x", size-4)), Description: "Read"})
		}
		key, err := agent.GenerateKey()
		must(t, err)
		m := agent.Manifest{
			Name: "large", Version: "1.0.0", Purpose: "p", Capabilities: []string{agent.CapabilityDelegate}, MaxDepth: 2,
			IssuedAt: at.clock.now(), Expires: at.clock.now().Add(24 * time.Hour),
		}
		for _, s := range r.Scopes {
			m.Scopes = append(m.Scopes, s.Name)
		}
		if _, err := agent.SignManifest(m, key); err != nil {
			continue // larger than a manifest may be
		}
		must(t, at.AddResource(context.Background(), cli, r))
		a := at.owned("usr_alice", "large", func(change *agent.Manifest) { change.Scopes, change.Purpose = m.Scopes, m.Purpose })
		_, err = at.agents.Grant(context.Background(), cli, a.ID, authz.AgentGrant{Scopes: m.Scopes})
		must(t, err)
		return
	}
}
