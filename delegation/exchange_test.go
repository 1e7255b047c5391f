package delegation_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/delegation"
)

var serverKey = delegation.ServerKey{KID: "at-ed", Signer: server.signer}

func ask() delegation.Ask {
	return delegation.Ask{
		Receiver: reviewer, Scopes: []string{"repository:read"}, Audience: []string{gitHost},
		AudienceAware: true, GrantDepth: delegation.DefaultMaxDepth,
	}
}

func exchange(t *testing.T, subject *delegation.Chain, a delegation.Ask) (delegation.Draft, *delegation.Chain) {
	t.Helper()
	draft, err := subject.Exchange(a, now)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := draft.Sign(serverKey)
	if err != nil {
		t.Fatal(err)
	}
	chain := verified(t, issued.Token)
	if issued.LID != chain.LID() || issued.JTI != chain.JTI() || issued.JKT != chain.JKT() || !slices.Equal(issued.Path, chain.Path()) {
		t.Errorf("Issued %+v does not describe the token", issued)
	}
	return draft, chain
}

// The MCP tool delegate: a person's plain token, handed to an agent.
func TestExchangePlain(t *testing.T) {
	subject := verified(t, plainToken().String())
	a := ask()
	a.TTL = 180 * time.Second
	draft, got := exchange(t, subject, a)
	if !got.Plain() || got.Bound() || got.Principal() != alice || got.GrantID() != "grant-1" || got.ClientID() != reviewer {
		t.Errorf("%+v", draft.Claims)
	}
	if path := strings.Join(got.Path(), " "); path != "user-alice orchestrator code-reviewer" {
		t.Errorf("path %s", path)
	}
	parties := got.Parties()
	if !parties[0].Proved || !parties[1].Proved || parties[2].Proved || got.Agent() != orch {
		t.Errorf("parties %+v", parties)
	}
	if !slices.Equal(got.Scopes(), []string{"repository:read"}) || got.For(gitHost) != nil || got.Expires() != now.Add(180*time.Second) {
		t.Errorf("%+v", draft.Claims)
	}
	r := got.Revocable()
	if r.Grant != "grant-1" || !slices.Equal(r.Ancestry, []string{subject.LID()}) || !slices.Contains(r.Clients, orch) {
		t.Errorf("%+v", r)
	}
	// "r = the grant's depth − length of act", and never more than was left.
	if left := got.DepthLeft(3); left != 1 {
		t.Errorf("depth left %d", left)
	}
}

func TestExchangeToKeyMakesARoot(t *testing.T) {
	subject := verified(t, plainToken().String())
	a := ask()
	a.Key, a.ReceiverProved = reviewerKey.public(), true
	_, got := exchange(t, subject, a)
	if got.Plain() || got.JKT() != reviewerKey.jkt() || got.DepthLeft(0) != 2 || got.Agent() != reviewer {
		t.Errorf("%+v", got.Links())
	}
	a.MaxDepth = deep(0)
	draft, got := exchange(t, subject, a)
	if !got.Plain() || got.JKT() != reviewerKey.jkt() || got.DepthLeft(3) != 0 || draft.Claims.Root {
		t.Errorf("without depth the form is plain: %+v", draft.Claims)
	}
	a.MaxDepth, a.AudienceAware = nil, false
	if _, got = exchange(t, subject, a); !got.Plain() || got.JKT() != reviewerKey.jkt() {
		t.Error("a resource that knows no chains gets a plain token")
	}
}

// alice → orch → rev by a link, then online to a helper.
func TestExchangeChain(t *testing.T) {
	root := rootToken().with(object{"authorization_details": []any{tools(), limits(object{"resources": []string{"pr/*"}})}})
	subject := verified(t, join(root, linkUnder(root, reviewerKey)))
	a := ask()
	a.Receiver, a.Key = "helper", helperKey.public()
	a.Limits.Resources = []string{"pr/847"}
	_, got := exchange(t, subject, a)
	if path := strings.Join(got.Path(), " "); path != "user-alice orchestrator code-reviewer helper" {
		t.Errorf("path %s", path)
	}
	if p := got.Parties(); !p[1].Proved || p[2].Proved || p[3].Proved {
		t.Errorf("the name in a link stays unproved: %+v", p)
	}
	links := subject.Links()
	want := []string{links[0].LID, orchKey.jkt(), links[1].LID, reviewerKey.jkt()}
	if !slices.Equal(got.Ancestry(), want) {
		t.Errorf("anc %v", got.Ancestry())
	}
	if got.DepthLeft(3) != 1 || !slices.Equal(got.Limits().Resources, []string{"pr/847"}) {
		t.Errorf("depth %d, %+v", got.DepthLeft(3), got.Limits())
	}
	// And once more: the subject's own anc comes first.
	a = ask()
	a.Receiver, a.Key = "fourth", ed("fourth").public()
	_, next := exchange(t, got, a)
	if !slices.Equal(next.Ancestry(), append(want, got.LID(), helperKey.jkt())) {
		t.Errorf("anc %v", next.Ancestry())
	}
	// Depth 1 was left; now none is.
	a.Receiver, a.Key = "fifth", ed("fifth").public()
	_, err := next.Exchange(a, now)
	wantRefusal(t, err, delegation.DepthInvalid)
}

// "Narrowing for oneself is exchange that names nobody and keeps the key."
func TestExchangeForOneself(t *testing.T) {
	root := rootToken().with(object{"del_max_depth": 1})
	chain := join(root, linkUnder(root, reviewerKey))
	for _, c := range []struct {
		name, token string
		left        int
	}{
		{"plain", plainToken().String(), 3},
		{"bound", plainToken().with(object{"cnf": object{"jkt": orchKey.jkt()}}).String(), 3},
		{"root", rootToken().String(), 3},
		{"sealed chain", chain, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			subject := verified(t, c.token)
			a := ask()
			a.Receiver = ""
			_, got := exchange(t, subject, a)
			if !got.Plain() || got.JKT() != subject.JKT() || !slices.Equal(got.Path(), subject.Path()) || got.ClientID() != subject.ClientID() {
				t.Errorf("%+v of %v", got.Links(), got.Path())
			}
			// "Depth reset through exchange": it is never more than before.
			if left := got.DepthLeft(3); left != c.left {
				t.Errorf("depth left %d, want %d", left, c.left)
			}
			// Naming the key it has anyway changes nothing.
			if subject.JKT() == reviewerKey.jkt() {
				a.Key = reviewerKey.public()
			} else if subject.Bound() {
				a.Key = orchKey.public()
			}
			if _, again := exchange(t, subject, a); !again.Plain() || again.JKT() != subject.JKT() {
				t.Errorf("with its own key: %+v", again.Links())
			}
			a.Receiver, a.Key = "helper", helperKey.public()
			if _, err := got.Exchange(a, now); c.left == 0 {
				wantRefusal(t, err, delegation.DepthInvalid)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestExchangeClampsTime(t *testing.T) {
	subject := verified(t, plainToken().String())
	for _, c := range []struct {
		ttl, want time.Duration
		clamped   bool
	}{
		{0, 120 * time.Second, false},
		{time.Second, time.Second, false},
		{290 * time.Second, 290 * time.Second, false},
		{291 * time.Second, 290 * time.Second, true},
		{900 * time.Second, 290 * time.Second, true},
	} {
		a := ask()
		a.TTL = c.ttl
		draft, got := exchange(t, subject, a)
		if got.Expires().Sub(now) != c.want || draft.Clamped != c.clamped {
			t.Errorf("ttl %v: %v, clamped %v", c.ttl, got.Expires().Sub(now), draft.Clamped)
		}
	}
	_, err := subject.Exchange(ask(), now.Add(290*time.Second))
	wantRefusal(t, err, delegation.Expired)
}

func TestExchangeRefuses(t *testing.T) {
	plain := verified(t, plainToken().String())
	acted := verified(t, plainToken().with(object{"client_id": reviewer, "act": object{"sub": reviewer, "act": object{"sub": orch}}}).String())
	bound := verified(t, plainToken().with(object{"cnf": object{"jkt": orchKey.jkt()}}).String())
	limited := func(names []string, members object) *delegation.Chain {
		return verified(t, plainToken().with(object{"authorization_details": []any{tools(names...), limits(members)}}).String())
	}
	root := rootToken()
	chain := verified(t, join(root, linkUnder(root, reviewerKey)))
	ancient := verified(t, rootToken().with(object{"anc": strings.Fields(strings.Repeat("x ", 31))}).String())
	after := verified(t, rootToken().with(object{"anc": []string{helperKey.jkt()}}).String())
	for _, c := range []struct {
		name    string
		subject *delegation.Chain
		edit    func(*delegation.Ask)
		reason  delegation.Reason
	}{
		{"a scope more", plain, func(a *delegation.Ask) { a.Scopes = []string{"repository:write"} }, delegation.NotNarrower},
		{"a scope of the root alone", chain, func(a *delegation.Ask) {
			a.Receiver, a.Key, a.Scopes = "helper", helperKey.public(), []string{"comment:write"}
		}, delegation.NotNarrower},
		{"another audience", plain, func(a *delegation.Ask) { a.Audience = []string{"https://elsewhere.example"} }, delegation.AudienceWidened},
		{"an audience of the root alone", chain, func(a *delegation.Ask) {
			a.Receiver, a.Key, a.Audience = "helper", helperKey.public(), []string{mcpHost}
		}, delegation.AudienceWidened},
		{"no audience", plain, func(a *delegation.Ask) { a.Audience = nil }, delegation.Malformed},
		{"no grant depth", plain, func(a *delegation.Ask) { a.GrantDepth = 0 }, delegation.DepthInvalid},
		{"depth used up by act", acted, func(a *delegation.Ask) { a.Receiver, a.GrantDepth = "helper", 2 }, delegation.DepthInvalid},
		{"negative depth", plain, func(a *delegation.Ask) { a.MaxDepth = deep(-1) }, delegation.Malformed},
		{"negative time", plain, func(a *delegation.Ask) { a.TTL = -1 }, delegation.Malformed},

		{"to the principal", plain, func(a *delegation.Ask) { a.Receiver = alice }, delegation.PartyRepeated},
		{"to itself", plain, func(a *delegation.Ask) { a.Receiver = orch }, delegation.PartyRepeated},
		{"to the caller", plain, func(a *delegation.Ask) { a.Caller, a.Receiver = "server-a", "server-a" }, delegation.PartyRepeated},
		{"back in a circle", acted, func(a *delegation.Ask) { a.Receiver = orch }, delegation.PartyRepeated},
		{"a caller from the middle", acted, func(a *delegation.Ask) { a.Caller, a.Receiver = orch, "helper" }, delegation.PartyRepeated},
		{"to the name in the last link", chain, func(a *delegation.Ask) { a.Key = helperKey.public() }, delegation.PartyRepeated},

		{"a bound subject, no key", bound, func(*delegation.Ask) {}, delegation.HolderBindingFailed},
		{"a chain, no key", chain, func(a *delegation.Ask) { a.Receiver = "helper" }, delegation.HolderBindingFailed},
		{"a bound subject, its own key", bound, func(a *delegation.Ask) { a.Key = orchKey.public() }, delegation.KeyReuse},
		{"another caller, no key", bound, func(a *delegation.Ask) { a.Caller, a.Receiver = "server-a", "" }, delegation.HolderBindingFailed},
		{"the key of an ancestor", chain, func(a *delegation.Ask) { a.Receiver, a.Key = "helper", orchKey.public() }, delegation.KeyReuse},
		{"a key of anc", after, func(a *delegation.Ask) { a.Key = helperKey.public() }, delegation.KeyReuse},
		{"anc of 33", ancient, func(a *delegation.Ask) { a.Key = helperKey.public() }, delegation.TooLarge},

		{"a budget", limited(nil, object{"max_calls": 9}), func(*delegation.Ask) {}, delegation.NotNarrower},
		{"a tool more", limited([]string{"get"}, object{}), func(a *delegation.Ask) { a.Tools = delegation.Tools{"merge": delegation.AllowAnyArgs} }, delegation.NotNarrower},
		{"tools forgotten", limited([]string{"get"}, object{}), func(a *delegation.Ask) { a.Tools = delegation.Tools{} }, delegation.NotNarrower},
		{"any argument, by accident", plain, func(a *delegation.Ask) { a.Tools = delegation.Tools{"get": {}} }, delegation.Malformed},
		{"a wider resource", limited(nil, object{"resources": []string{"pr/847"}}), func(a *delegation.Ask) { a.Limits.Resources = []string{"pr/*"} }, delegation.NotNarrower},
		{"a wider network", limited(nil, object{"allow_network": []string{"a"}}), func(a *delegation.Ask) { a.Limits.AllowNetwork = []string{"*.a"} }, delegation.NotNarrower},
		{"a larger file", limited(nil, object{"max_file_size": 5}), func(a *delegation.Ask) { a.Limits.MaxFileSize = size(6) }, delegation.NotNarrower},
		{"no audit", limited(nil, object{"audit_required": true}), func(a *delegation.Ask) { no := false; a.Limits.AuditRequired = &no }, delegation.NotNarrower},
		{"a limit in another spelling", plain, func(a *delegation.Ask) { a.Limits.AllowNetwork = []string{"A"} }, delegation.Malformed},
		{"limits for a server that ignores them", limited(nil, object{"max_file_size": 5}), func(a *delegation.Ask) { a.AudienceAware = false }, delegation.AudienceWidened},
		{"tools for a server that ignores them", plain, func(a *delegation.Ask) {
			a.Tools, a.AudienceAware = delegation.Tools{"get": delegation.AllowAnyArgs}, false
		}, delegation.AudienceWidened},
		{"a new budget for two servers", plain, func(a *delegation.Ask) {
			a.Limits.MaxCalls, a.Audience = size(3), []string{gitHost, mcpHost}
		}, delegation.NotNarrower},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := ask()
			c.edit(&a)
			draft, err := c.subject.Exchange(a, now)
			wantRefusal(t, err, c.reason)
			if draft.Claims.Subject != "" {
				t.Error("a refusal must not come with claims")
			}
		})
	}
}

// A resource server exchanges what it was given: the caller stands between.
func TestExchangeByAnotherCaller(t *testing.T) {
	subject := verified(t, plainToken().String())
	a := ask()
	a.Caller, a.Receiver = "server-a", ""
	_, got := exchange(t, subject, a)
	if path := strings.Join(got.Path(), " "); path != "user-alice orchestrator server-a" || got.Agent() != "server-a" {
		t.Errorf("path %s", path)
	}
	a.Receiver = reviewer
	_, got = exchange(t, subject, a)
	if path := strings.Join(got.Path(), " "); path != "user-alice orchestrator server-a code-reviewer" {
		t.Errorf("path %s", path)
	}
}

// "For the same key: always allowed": who proves the subject's key and names
// nobody keeps it, also if it is another client and no hand-over is left.
func TestExchangeKeepsTheKey(t *testing.T) {
	root := rootToken().with(object{"del_max_depth": 1})
	sealed := verified(t, join(root, linkUnder(root, reviewerKey)))
	a := ask()
	a.Receiver, a.Caller, a.Key, a.KeyByProof = "", "server-a", reviewerKey.public(), true
	draft, got := exchange(t, sealed, a)
	if path := strings.Join(got.Path(), " "); path != "user-alice orchestrator code-reviewer server-a" || got.Agent() != "server-a" {
		t.Errorf("path %s", path)
	}
	if !got.Plain() || got.JKT() != reviewerKey.jkt() || got.DepthLeft(3) != 0 || draft.Claims.Root {
		t.Errorf("%+v", draft.Claims)
	}
	// A name that was only asserted is proved when it authenticates.
	a.Caller = reviewer
	if _, got = exchange(t, sealed, a); got.Agent() != reviewer || len(got.Path()) != 3 {
		t.Errorf("%+v", got.Parties())
	}
	// Whoever brings a key by proof alone, and is no agent, gets no root.
	plain := verified(t, plainToken().String())
	a = ask()
	a.Receiver, a.Key, a.KeyByProof = "", helperKey.public(), true
	if draft, got = exchange(t, plain, a); !got.Plain() || got.JKT() != helperKey.jkt() || got.DepthLeft(3) != 2 {
		t.Errorf("%+v", draft.Claims)
	}
	a.KeyByProof = false
	if _, got = exchange(t, plain, a); got.Plain() || got.DepthLeft(3) != 2 {
		t.Errorf("a key that was sent: %+v", got.Links())
	}
}

// RFC 8693 section 4.4: whom a token names in may_act, and nobody whom a chain
// or a may_act of more members seems to name.
func TestMayAct(t *testing.T) {
	for _, c := range []struct {
		claim any
		want  string
	}{
		{object{"sub": "server-a"}, "server-a"}, {object{"sub": "server-a", "iss": "https://elsewhere.example"}, ""},
		{object{"sub": 7}, ""}, {"server-a", ""}, {object{}, ""},
	} {
		if got := verified(t, plainToken().with(object{"may_act": c.claim}).String()).MayAct(); got != c.want {
			t.Errorf("%v: %q", c.claim, got)
		}
	}
	root := rootToken().with(object{"may_act": object{"sub": "server-a"}})
	if got := verified(t, join(root, linkUnder(root, reviewerKey))).MayAct(); got != "" {
		t.Errorf("of a chain: %q", got)
	}
}

// An agent on its own authority: sub is client_id, and stands in the path once.
func TestExchangeOfAnAgentsOwn(t *testing.T) {
	subject := verified(t, plainToken().with(object{"sub": orch}).String())
	_, got := exchange(t, subject, ask())
	if path := strings.Join(got.Path(), " "); path != "orchestrator code-reviewer" || got.DepthLeft(3) != 2 {
		t.Errorf("path %s, depth %d", path, got.DepthLeft(3))
	}
}
