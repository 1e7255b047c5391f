package delegation_test

import (
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
)

func size(n int64) *int64 { return &n }
func deep(n int) *int     { return &n }

func TestDerive(t *testing.T) {
	root := rootToken().with(object{"authorization_details": []any{tools("get", "list"), limits(object{"resources": []string{"pr/*"}})}})
	derived, err := delegation.Derive(root.String(), orchKey.private(), reviewerKey.public(), delegation.Narrow{
		ClientID: reviewer, Scopes: []string{"repository:read"}, Audience: []string{gitHost}, TTL: time.Minute,
		Tools:    delegation.Tools{"get": delegation.AllowAnyArgs},
		Limits:   delegation.Limits{Resources: []string{"pr/847"}, MaxFileSize: size(1000)},
		MaxDepth: deep(1),
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	chain := verified(t, derived.Chain)
	links := chain.Links()
	leaf := links[1]
	if derived.LID() != leaf.LID || derived.JTI != leaf.JTI || !derived.Expires.Equal(leaf.Expires) || derived.Clamped {
		t.Errorf("Derive says %+v, the link is %+v", derived, leaf)
	}
	if leaf.Expires != now.Add(time.Minute) || leaf.Depth != 1 || leaf.MaxDepth != 2 || leaf.ClientID != reviewer || leaf.Confirmed {
		t.Errorf("%+v", leaf)
	}
	err = chain.Allows(delegation.Request{
		Scope: delegation.AllOf("repository:read"), Tool: delegation.Given(delegation.Call{Name: "get"}),
		Resource: delegation.Given("pr/847"), Size: delegation.Given(int64(1000)),
	})
	if err != nil {
		t.Error(err)
	}

	// What is left out stays as the parent has it.
	second, err := delegation.Derive(derived.Chain, reviewerKey.private(), helperKey.public(),
		delegation.Narrow{ClientID: "helper"}, now)
	if err != nil {
		t.Fatal(err)
	}
	chain = verified(t, second.Chain)
	leaf = chain.Links()[2]
	if len(leaf.Scopes) != 0 || leaf.Tools.Names()[0] != "get" || leaf.Limits.Resources[0] != "pr/847" ||
		*leaf.Limits.MaxFileSize != 1000 || leaf.Audience[0] != gitHost || leaf.MaxDepth != 2 {
		t.Errorf("%+v", leaf)
	}
	if second.Clamped || leaf.Expires != derived.Expires {
		t.Errorf("a default is cut without a word: %+v", second)
	}

	// And now it is sealed.
	_, err = delegation.Derive(second.Chain, helperKey.private(), ed("more").public(), delegation.Narrow{ClientID: "x"}, now)
	wantRefusal(t, err, delegation.DepthInvalid)
}

func TestDeriveWithP256(t *testing.T) {
	holder := p256("p256 holder")
	root := rootToken().with(object{"cnf": holder.cnf()})
	derived, err := delegation.Derive(root.String(), holder.private(), p256("another").public(),
		delegation.Narrow{ClientID: reviewer, Scopes: []string{"repository:read"}}, now)
	if err != nil {
		t.Fatal(err)
	}
	verified(t, derived.Chain)
}

// "card | absent | SHA-256 of the receiver's key card, when there was one | label".
func TestDeriveNamesTheCard(t *testing.T) {
	card, err := agent.SignCard(helperKey.private(), agent.Card{
		Audience: helperKey.public().Thumbprint(), Key: reviewerKey.public(), IssuedAt: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(card))
	for given, want := range map[string]string{"": "", card: base64.RawURLEncoding.EncodeToString(sum[:])} {
		derived, err := delegation.Derive(rootToken().String(), orchKey.private(), reviewerKey.public(),
			delegation.Narrow{ClientID: reviewer, Card: given}, now)
		if err != nil {
			t.Fatal(err)
		}
		if leaf := verified(t, derived.Chain).Links()[1]; leaf.Confirmed {
			t.Error("a label confirms nothing")
		}
		parts, err := delegation.Inspect(derived.Chain)
		if err != nil {
			t.Fatal(err)
		}
		if claim := parts[1].UnverifiedClaims.Get("card"); claim.Str() != want || claim.Exists() != (want != "") {
			t.Errorf("card %q, want %q", claim.Str(), want)
		}
	}
}

func TestDeriveClamps(t *testing.T) {
	root := rootToken().with(object{"exp": now.Unix() + 3000})
	for _, c := range []struct {
		ttl, want time.Duration
		clamped   bool
	}{
		{0, 120 * time.Second, false},
		{time.Second, time.Second, false},
		{900 * time.Second, 900 * time.Second, false},
		{901 * time.Second, 900 * time.Second, true},
		{24 * time.Hour, 900 * time.Second, true},
	} {
		derived, err := delegation.Derive(root.String(), orchKey.private(), reviewerKey.public(),
			delegation.Narrow{ClientID: reviewer, TTL: c.ttl}, now)
		if err != nil {
			t.Fatal(err)
		}
		if derived.Expires.Sub(now) != c.want || derived.Clamped != c.clamped {
			t.Errorf("ttl %v: %v, clamped %v", c.ttl, derived.Expires.Sub(now), derived.Clamped)
		}
	}
}

func TestDeriveRefuses(t *testing.T) {
	root := rootToken().with(object{"authorization_details": []any{tools("get"), limits(object{"resources": []string{"pr/*"}, "max_calls": 5})}})
	good := delegation.Narrow{ClientID: reviewer, Scopes: []string{"repository:read"}, Audience: []string{gitHost}}
	with := func(edit func(*delegation.Narrow)) delegation.Narrow { n := good; edit(&n); return n }
	link := linkUnder(root, reviewerKey)
	for _, c := range []struct {
		name   string
		parent string
		key    agent.PrivateKey
		to     agent.PublicKey
		narrow delegation.Narrow
		at     time.Time
		reason delegation.Reason
	}{
		{"no token", "x", orchKey.private(), reviewerKey.public(), good, now, delegation.Malformed},
		{"a plain token", plainToken().String(), orchKey.private(), reviewerKey.public(), good, now, delegation.DepthInvalid},
		{"sealed", root.with(object{"del_max_depth": 0}).String(), orchKey.private(), reviewerKey.public(), good, now, delegation.DepthInvalid},
		{"expired", root.String(), orchKey.private(), reviewerKey.public(), good, now.Add(time.Hour), delegation.Expired},
		{"expired now", root.String(), orchKey.private(), reviewerKey.public(), good, now.Add(290 * time.Second), delegation.Expired},
		{"not its key", root.String(), reviewerKey.private(), helperKey.public(), good, now, delegation.HolderBindingFailed},
		{"the key of an ancestor", join(root, link), orchKey.private(), helperKey.public(), good, now, delegation.HolderBindingFailed},
		{"no key", root.String(), agent.PrivateKey{}, helperKey.public(), good, now, delegation.HolderBindingFailed},
		{"no receiver", root.String(), orchKey.private(), agent.PublicKey{}, good, now, delegation.Malformed},
		{"to itself", root.String(), orchKey.private(), orchKey.public(), good, now, delegation.KeyReuse},
		{"back to an ancestor", join(root, link), reviewerKey.private(), orchKey.public(), good, now, delegation.KeyReuse},
		{"a scope more", root.String(), orchKey.private(), reviewerKey.public(),
			with(func(n *delegation.Narrow) { n.Scopes = []string{"repository:write"} }), now, delegation.NotNarrower},
		{"a scope twice", root.String(), orchKey.private(), reviewerKey.public(),
			with(func(n *delegation.Narrow) { n.Scopes = []string{"repository:read", "repository:read"} }), now, delegation.Malformed},
		{"an audience more", root.String(), orchKey.private(), reviewerKey.public(),
			with(func(n *delegation.Narrow) { n.Audience = []string{"https://elsewhere.example"} }), now, delegation.AudienceWidened},
		{"no audience", root.String(), orchKey.private(), reviewerKey.public(),
			with(func(n *delegation.Narrow) { n.Audience = []string{} }), now, delegation.Malformed},
		{"a tool more", root.String(), orchKey.private(), reviewerKey.public(),
			with(func(n *delegation.Narrow) { n.Tools = delegation.Tools{"merge": delegation.AllowAnyArgs} }), now, delegation.NotNarrower},
		{"any argument, by accident", root.String(), orchKey.private(), reviewerKey.public(),
			with(func(n *delegation.Narrow) { n.Tools = delegation.Tools{"get": {}} }), now, delegation.Malformed},
		{"no tool at all", root.String(), orchKey.private(), reviewerKey.public(),
			with(func(n *delegation.Narrow) { n.Tools = delegation.Tools{} }), now, delegation.NotNarrower},
		{"a wider resource", root.String(), orchKey.private(), reviewerKey.public(),
			with(func(n *delegation.Narrow) { n.Limits.Resources = []string{"pr"} }), now, delegation.NotNarrower},
		{"a resource in another spelling", root.String(), orchKey.private(), reviewerKey.public(),
			with(func(n *delegation.Narrow) { n.Limits.Resources = []string{"pr/../x"} }), now, delegation.Malformed},
		{"a larger budget", root.String(), orchKey.private(), reviewerKey.public(),
			with(func(n *delegation.Narrow) { n.Limits.MaxCalls = size(6) }), now, delegation.NotNarrower},
		{"deeper than the parent", root.String(), orchKey.private(), reviewerKey.public(),
			with(func(n *delegation.Narrow) { n.MaxDepth = deep(3) }), now, delegation.DepthInvalid},
		{"depth −1", root.String(), orchKey.private(), reviewerKey.public(),
			with(func(n *delegation.Narrow) { n.MaxDepth = deep(-1) }), now, delegation.DepthInvalid},
		{"half a second", root.String(), orchKey.private(), reviewerKey.public(),
			with(func(n *delegation.Narrow) { n.TTL = time.Second / 2 }), now, delegation.Malformed},
		{"a negative time", root.String(), orchKey.private(), reviewerKey.public(),
			with(func(n *delegation.Narrow) { n.TTL = -time.Second }), now, delegation.Malformed},
		{"nobody", root.String(), orchKey.private(), reviewerKey.public(),
			with(func(n *delegation.Narrow) { n.ClientID = "" }), now, delegation.Malformed},
		{"too much", root.String(), orchKey.private(), reviewerKey.public(),
			with(func(n *delegation.Narrow) { n.Limits.AllowNetwork = longNetworks() }), now, delegation.TooLarge},
		{"a parent from the future", root.with(object{"iat": now.Unix() + 31}).String(), orchKey.private(), reviewerKey.public(), good, now, delegation.NotYetValid},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := delegation.Derive(c.parent, c.key, c.to, c.narrow, c.at)
			wantRefusal(t, err, c.reason)
		})
	}
}

// A parent of a server whose clock is ahead: iat = max(now, p.iat).
func TestDeriveFromAheadOfTime(t *testing.T) {
	root := rootToken().with(object{"iat": now.Unix() + 20})
	derived, err := delegation.Derive(root.String(), orchKey.private(), reviewerKey.public(),
		delegation.Narrow{ClientID: reviewer, TTL: time.Minute}, now)
	if err != nil {
		t.Fatal(err)
	}
	if leaf := verified(t, derived.Chain).Links()[1]; leaf.IssuedAt != now.Add(20*time.Second) || leaf.Expires != now.Add(time.Minute) {
		t.Errorf("%v to %v", leaf.IssuedAt, leaf.Expires)
	}
	_, err = delegation.Derive(root.String(), orchKey.private(), reviewerKey.public(),
		delegation.Narrow{ClientID: reviewer, TTL: 20 * time.Second}, now)
	wantRefusal(t, err, delegation.Expired)
}

func longNetworks() []string {
	var list []string
	for i := range 32 {
		label := strings.Repeat(string(rune('a'+i%26)), 60)
		list = append(list, strings.Repeat(label+".", 3)+label)
	}
	return list
}
