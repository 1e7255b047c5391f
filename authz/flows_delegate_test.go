package authz_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/people"
)

// agent registers an agent of a person.
func (f *flows) agent(owner people.User, name string, capabilities ...string) (id string, key agent.PrivateKey) {
	f.t.Helper()
	key, err := agent.GenerateKey()
	must(f.t, err)
	now := f.clock.now()
	manifest, err := agent.SignManifest(agent.Manifest{
		Name: name, Version: "1.0.0", Purpose: "Reviews code", Scopes: []string{"repo:read"},
		Capabilities: capabilities, MaxDepth: 3, IssuedAt: now, Expires: now.Add(30 * 24 * time.Hour),
	}, key)
	must(f.t, err)
	assertion, err := agent.SignAssertion(key, key.Public().Thumbprint(), f.issuer, now, time.Minute)
	must(f.t, err)
	a, err := f.agents.Register(context.Background(), authz.Registration{
		Manifest: manifest, Assertion: assertion, Owner: owner.ID, By: authz.Actor{Agent: audit.Operator, Via: "cli"},
	})
	must(f.t, err)
	return a.ID, key
}

func newKey(t *testing.T) agent.PublicKey {
	t.Helper()
	key, err := agent.GenerateKey()
	must(t, err)
	return key.Public()
}

func TestDelegate(t *testing.T) {
	f := newFlows(t)
	ctx := context.Background()
	rev, _ := f.agent(f.alice, "code-reviewer", "read")
	orch, _ := f.agent(f.alice, "orchestrator", "read", "delegate")
	client, a := f.tokens(nil, "repo:read")
	parent := f.chain(a.str("access_token"))

	// A plain token yields a narrower plain one, for one resource, for seconds.
	size := int64(1000)
	got, err := f.server.Delegate(ctx, parent, delegation.Ask{
		Receiver: "code-reviewer", Scopes: []string{"repo:read"}, TTL: 3 * time.Minute,
		Limits: delegation.Limits{Resources: []string{"pr/847"}, MaxFileSize: &size},
	})
	must(t, err)
	c := f.chain(got.Token)
	if !c.Plain() || c.Bound() || c.Principal() != f.alice.ID || c.ClientID() != rev || c.GrantID() != parent.GrantID() ||
		!slices.Equal(c.Audience(), []string{git}) || !slices.Equal(c.Scopes(), []string{"repo:read"}) ||
		!slices.Equal(c.Limits().Resources, []string{"pr/847"}) || got.ExpiresIn != 3*time.Minute {
		t.Errorf("%+v", got.Path)
	}
	if want := []string{f.alice.ID, client, rev}; !slices.Equal(got.Path, want) {
		t.Errorf("path %v, want %v", got.Path, want)
	}
	if h := header(t, got.Token); h["alg"] != "ES256" || h["typ"] != "at+jwt" {
		t.Errorf("header %v", h)
	}
	if !slices.ContainsFunc(f.records(), func(r string) bool {
		return strings.Contains(r, `"action":"delegate"`) && strings.Contains(r, got.LID) && strings.Contains(r, parent.LID()) &&
			strings.Contains(r, `"path":["`+f.alice.ID+`","`+client+`","`+rev+`"]`) && !strings.Contains(r, got.Token)
	}) {
		t.Error("no record of it")
	}

	// With a key of an agent that may hand on it is the root of a chain.
	key := newKey(t)
	got, err = f.server.Delegate(ctx, parent, delegation.Ask{Receiver: orch, Scopes: []string{"repo:read"}, Key: key})
	must(t, err)
	if c := f.chain(got.Token); c.Plain() || c.JKT() != key.Thumbprint() || !got.Root || header(t, got.Token)["alg"] != "Ed25519" {
		t.Errorf("with a key: plain %v, bound to %s", c.Plain(), c.JKT())
	}
	// The key of one that may not: bound, and sealed.
	got, err = f.server.Delegate(ctx, parent, delegation.Ask{Receiver: rev, Scopes: []string{"repo:read"}, Key: newKey(t)})
	must(t, err)
	if c := f.chain(got.Token); !c.Bound() || got.Root || c.DepthLeft(3) != 0 {
		t.Errorf("without the capability: root %v, depth left %d", got.Root, c.DepthLeft(3))
	}

	// A life longer than the parent's is cut, and none is asked for nothing.
	f.clock.advance(9 * time.Minute)
	got, err = f.server.Delegate(ctx, parent, delegation.Ask{Receiver: rev, TTL: 15 * time.Minute})
	must(t, err)
	if !got.Clamped || got.ExpiresIn != time.Minute || len(got.Scopes) != 0 || !slices.Equal(got.Audience, []string{f.issuer + "/mcp"}) {
		t.Errorf("clamped %v, %v, %v for %v", got.Clamped, got.ExpiresIn, got.Scopes, got.Audience)
	}
}

func TestDelegateRefuses(t *testing.T) {
	f := newFlows(t)
	ctx := context.Background()
	mallory := f.user("mallory", people.Member)
	rev, _ := f.agent(f.alice, "code-reviewer", "read")
	theirs, _ := f.agent(mallory, "spy", "read", "delegate")
	_, a := f.tokens(nil, "repo:read")
	parent := f.chain(a.str("access_token"))
	sub, err := f.server.Delegate(ctx, parent, delegation.Ask{Receiver: rev, Scopes: []string{"kavach:delegate"}})
	must(t, err)
	below := f.chain(sub.Token)
	var long []string // each legal, together more than a token has room for
	for i := range 32 {
		long = append(long, fmt.Sprintf("pr/%0250d", i))
	}

	for _, c := range []struct {
		name   string
		parent *delegation.Chain
		ask    delegation.Ask
		want   string
	}{
		{"nobody", parent, delegation.Ask{Scopes: []string{"repo:read"}}, "invalid_request"},
		{"an unknown agent", parent, delegation.Ask{Receiver: "nobody", Scopes: []string{"repo:read"}}, "invalid_request"},
		{"somebody else's agent by name", parent, delegation.Ask{Receiver: "spy", Scopes: []string{"repo:read"}}, "invalid_request"},
		{"somebody else's agent by id", parent, delegation.Ask{Receiver: theirs, Scopes: []string{"repo:read"}}, "invalid_request"},
		{"a scope not held", parent, delegation.Ask{Receiver: rev, Scopes: []string{"repo:write"}}, "not_narrower"},
		{"a scope of operators", parent, delegation.Ask{Receiver: rev, Scopes: []string{"audit:read"}}, "not_narrower"},
		{"an unknown scope", parent, delegation.Ask{Receiver: rev, Scopes: []string{"bad"}}, "invalid_scope"},
		{"an unknown audience", parent, delegation.Ask{Receiver: rev, Scopes: []string{"repo:read"}, Audience: []string{"https://nowhere.example"}}, "invalid_target"},
		{"another audience", parent, delegation.Ask{Receiver: rev, Audience: []string{legacy}}, "audience_widened"},
		{"a scope of another audience", parent, delegation.Ask{Receiver: rev, Scopes: []string{"repo:read"}, Audience: []string{f.issuer + "/mcp"}}, "invalid_scope"},
		{"more than a token holds", parent, delegation.Ask{Receiver: rev, Scopes: []string{"repo:read"}, Limits: delegation.Limits{Resources: long}}, "too_large"},
		{"an agent that may not delegate", below, delegation.Ask{Receiver: rev, Scopes: []string{"kavach:delegate"}}, "access_denied"},
	} {
		got, err := f.server.Delegate(ctx, c.parent, c.ask)
		var refused *delegation.Refusal
		var answer *authz.Error
		reason := ""
		switch {
		case errors.As(err, &refused):
			reason = string(refused.Reason)
		case errors.As(err, &answer):
			reason = answer.Code
		}
		if reason != c.want || got.Token != "" {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
		}
	}
	for reason, want := range map[string]int{"not_narrower": 2, "too_large": 1} {
		if n := f.recorded(reason); n != want {
			t.Errorf("%d records of %s", n, reason)
		}
	}

	// What was handed on dies with the grant, and nothing is handed on then.
	client, b := f.tokens(nil)
	parent = f.chain(b.str("access_token"))
	sub, err = f.server.Delegate(ctx, parent, delegation.Ask{Receiver: rev, Scopes: []string{"kavach:verify"}})
	must(t, err)
	next := f.token(refreshForm(client, b.str("refresh_token"), nil))
	f.clock.advance(time.Minute)
	f.token(refreshForm(client, b.str("refresh_token"), nil)) // reuse ends the family
	if next.status != 200 || f.alive(sub.Token) {
		t.Error("what was handed on outlives its grant")
	}
	if _, err := f.server.Delegate(ctx, parent, delegation.Ask{Receiver: rev, Scopes: []string{"kavach:verify"}}); delegation.ReasonOf(err) != delegation.Revoked {
		t.Errorf("after the end of the grant: %v", err)
	}
}

// A scope the person has lost cannot be handed on any more.
func TestDelegateFollowsTheRole(t *testing.T) {
	f := newFlows(t)
	olga := f.user("olga", people.Auditor)
	f.agent(olga, "reader", "read")
	client, p := f.public(), newProof()
	code := f.code(f.signedIn("olga"), client, p, url.Values{"scope": {"kavach:delegate kavach:verify audit:read"}})
	parent := f.chain(f.token(f.redeem(client, code, p, nil)).str("access_token"))
	ask := delegation.Ask{Receiver: "reader", Scopes: []string{"audit:read", "kavach:verify"}}
	got, err := f.server.Delegate(context.Background(), parent, ask)
	must(t, err)
	if !slices.Equal(got.Scopes, []string{"audit:read", "kavach:verify"}) {
		t.Errorf("an auditor's: %v", got.Scopes)
	}
	role := people.Member
	f.change("olga", people.UserChange{Role: &role})
	got, err = f.server.Delegate(context.Background(), parent, ask)
	must(t, err)
	if !slices.Equal(got.Scopes, []string{"kavach:verify"}) {
		t.Errorf("a member's: %v", got.Scopes)
	}
	ask.Scopes = []string{"audit:read"}
	var answer *authz.Error
	if _, err = f.server.Delegate(context.Background(), parent, ask); !errors.As(err, &answer) || answer.Code != "access_denied" {
		t.Errorf("a member's audit:read: %v", err)
	}
}
