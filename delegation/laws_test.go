package delegation_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/delegation"
	"pgregory.net/rapid"
)

// Small alphabets, so that random authority overlaps and random requests hit.
var (
	someScopes    = []string{"comment:write", "pullrequest:read", "repository:read", "repository:write"}
	someAudiences = []string{gitHost, mcpHost, "https://ci.example"}
	someTools     = []string{"get", "list", "merge"}
	someResources = []string{"pr/847", "pr/848", "pr/847/files", "pr/*", "pr/847/*", "repo", "repo/*"}
	someHosts     = []string{"git.internal", "git.internal:443", "*.internal", "*.internal:443", "*.a.internal", "a.internal", "10.0.0.1", "10.0.0.1:443", "[::1]:443"}
	someIDs       = []string{"pr", "pr/847", "pr/848", "pr/847/files", "pr/847/files/x", "repo", "repo/x", "other"}
	someTargets   = []string{"git.internal:443", "git.internal:80", "git.internal", "b.a.internal:443", "a.internal:443", "internal:443", "10.0.0.1:443", "[::1]:443", "[::1]:80"}
	someSizes     = []int64{0, 1, 5, 9}
	someHolders   = []holder{orchKey, reviewerKey, helperKey, p256("p256 holder"), ed("k4"), p256("k5"), ed("k6"), ed("k7"), ed("k8"), ed("k9")}
	somePeople    = []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}
)

// some draws a subset, in the order of the list; never nil.
func some(t *rapid.T, list []string, name string) []string {
	mask := rapid.IntRange(0, 1<<len(list)-1).Draw(t, name)
	subset := []string{}
	for i, item := range list {
		if mask>>i&1 == 1 {
			subset = append(subset, item)
		}
	}
	return subset
}

func someLimits(t *rapid.T, budget bool) delegation.Limits {
	var l delegation.Limits
	if rapid.Bool().Draw(t, "resources?") {
		l.Resources = some(t, someResources, "resources")
	}
	if rapid.Bool().Draw(t, "network?") {
		l.AllowNetwork = some(t, someHosts, "network")
	}
	if rapid.Bool().Draw(t, "size?") {
		l.MaxFileSize = size(rapid.SampledFrom(someSizes).Draw(t, "size"))
	}
	if budget && rapid.IntRange(0, 9).Draw(t, "calls?") == 0 {
		l.MaxCalls = size(rapid.SampledFrom([]int64{1, 2, 3}).Draw(t, "calls"))
	}
	if rapid.Bool().Draw(t, "audit?") {
		audit := rapid.Bool().Draw(t, "audit")
		l.AuditRequired = &audit
	}
	return l
}

func someToolSet(t *rapid.T) delegation.Tools {
	if rapid.Bool().Draw(t, "tools?") {
		return nil
	}
	set := delegation.Tools{}
	for _, name := range some(t, someTools, "tools") {
		set[name] = delegation.AllowAnyArgs
	}
	return set
}

func someRequest(t *rapid.T) delegation.Request {
	r := delegation.Request{Scope: delegation.AllOf(some(t, someScopes, "asked scopes")[:]...)}
	switch rapid.IntRange(0, 4).Draw(t, "tool") {
	case 0:
		r.Tool = delegation.None[delegation.Call]()
	case 1:
	default:
		r.Tool = delegation.Given(delegation.Call{Name: rapid.SampledFrom(someTools).Draw(t, "tool name")})
	}
	r.Resource = dimension(t, "resource", someIDs)
	r.Network = dimension(t, "network target", someTargets)
	r.Size = dimension(t, "request size", someSizes)
	return r
}

func dimension[T any](t *rapid.T, name string, list []T) delegation.Dimension[T] {
	switch rapid.IntRange(0, 4).Draw(t, name) {
	case 0:
		return delegation.None[T]()
	case 1:
		return delegation.Dimension[T]{}
	}
	return delegation.Given(rapid.SampledFrom(list).Draw(t, name+" value"))
}

// someChain signs a root and derives links until a draw says stop or nothing
// more is possible. Refused derivations are fine: they must refuse, and
// TestDeriveRefuses says with what.
func someChain(t *rapid.T) string {
	person := rapid.SampledFrom(somePeople).Draw(t, "sub")
	signed, err := delegation.Sign(delegation.Claims{
		Issuer: issuer, Subject: person, ClientID: "a", GrantID: "g",
		Audience: append(some(t, someAudiences[1:], "aud"), gitHost), IssuedAt: now, Expires: now.Add(300 * time.Second),
		Scopes: some(t, someScopes, "scopes"), Tools: someToolSet(t), Limits: someLimits(t, true),
		Root: true, Key: someHolders[0].public(), MaxDepth: rapid.IntRange(0, 8).Draw(t, "max depth"),
	}, serverKey)
	if err != nil {
		t.Fatal(err)
	}
	chain := signed.Token
	for i := 1; i < rapid.IntRange(1, 5).Draw(t, "tokens"); i++ {
		n := delegation.Narrow{
			ClientID: rapid.SampledFrom(somePeople).Draw(t, "client_id"),
			Scopes:   some(t, someScopes, "scopes"), Tools: someToolSet(t), Limits: someLimits(t, true),
			TTL: time.Duration(rapid.IntRange(0, 400).Draw(t, "ttl")) * time.Second,
		}
		if rapid.Bool().Draw(t, "audience?") {
			n.Audience = append(some(t, someAudiences[1:], "aud"), gitHost)
		}
		if rapid.Bool().Draw(t, "depth?") {
			n.MaxDepth = deep(rapid.IntRange(0, 3).Draw(t, "depth"))
		}
		for _, lighten := range []func(){
			func() {},
			func() { n.Limits = delegation.Limits{} },
			func() { n.Tools = nil },
			func() { n.Scopes, n.Audience = nil, nil },
		} {
			lighten()
			derived, err := delegation.Derive(chain, someHolders[i-1].private(), someHolders[i].public(), n, now)
			if err == nil {
				chain = derived.Chain
				break
			}
		}
		if strings.Count(chain, "~") < i {
			break
		}
	}
	return chain
}

// What Derive made verifies, and if the leaf permits a request, every prefix
// permits it.
func TestLawEveryPrefixPermits(t *testing.T) {
	v := verifier(t)
	rapid.Check(t, func(t *rapid.T) {
		token := someChain(t)
		leaf, err := v.Verify(token, now)
		if err != nil {
			t.Fatalf("what Derive made does not verify: %v", err)
		}
		request := someRequest(t)
		if leaf.Allows(request) != nil {
			return
		}
		parts := strings.Split(token, "~")
		for i := 1; i < len(parts); i++ {
			prefix, err := v.Verify(strings.Join(parts[:i], "~"), now)
			if err != nil {
				t.Fatalf("prefix of %d: %v", i, err)
			}
			if err := prefix.Allows(request); err != nil {
				t.Fatalf("the leaf permits what a prefix of %d refuses: %v", i, err)
			}
		}
	})
}

// Every edge narrows, seen without the other links: if the verifier accepts a
// child below a parent, whatever a token with only the child's claims permits,
// a token with only the parent's permits.
func TestLawEveryEdgeNarrows(t *testing.T) {
	v := verifier(t)
	accepted := 0
	rapid.Check(t, func(t *rapid.T) {
		type authority struct {
			scopes []string
			tools  []string
			limits delegation.Limits
		}
		draw := func() authority {
			return authority{some(t, someScopes, "scopes"), some(t, someTools, "tools"), someLimits(t, false)}
		}
		p, c := draw(), draw()
		// Half the children start from their parent, or few would be accepted.
		if rapid.Bool().Draw(t, "near") {
			c.scopes, c.tools = p.scopes, p.tools
			c.limits = nearer(c.limits, p.limits)
		}
		claims := func(a authority) object {
			details := []any{tools(a.tools...)}
			if !a.limits.IsZero() {
				details = append(details, limits(a.limits.Map()))
			}
			return object{"scope": strings.Join(a.scopes, " "), "authorization_details": details}
		}
		root := rootToken().with(claims(p))
		if _, err := v.Verify(join(root, linkUnder(root, reviewerKey).with(claims(c))), now); err != nil {
			return
		}
		if len(c.tools) == 0 && len(p.tools) > 0 {
			return // alone it would be a token restricted by scope only
		}
		accepted++
		parent, err := v.Verify(root.String(), now)
		if err != nil {
			t.Fatal(err)
		}
		child, err := v.Verify(rootToken().with(claims(c)).String(), now)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			request := someRequest(t)
			if child.Allows(request) == nil && parent.Allows(request) != nil {
				t.Fatalf("%+v permits what its parent %+v refuses: %+v", c, p, request)
			}
		}
	})
	if accepted == 0 {
		t.Error("no pair was accepted: the law was not tried")
	}
}

// nearer mixes a drawn child with its parent, member by member.
func nearer(child, parent delegation.Limits) delegation.Limits {
	if parent.Resources != nil && child.Resources == nil {
		child.Resources = parent.Resources
	}
	if parent.AllowNetwork != nil && child.AllowNetwork == nil {
		child.AllowNetwork = parent.AllowNetwork
	}
	if parent.MaxFileSize != nil && child.MaxFileSize == nil {
		child.MaxFileSize = parent.MaxFileSize
	}
	if parent.AuditRequired != nil {
		child.AuditRequired = parent.AuditRequired
	}
	return child
}

// Any byte changed → refused.
func TestLawAnyByteChanged(t *testing.T) {
	v := verifier(t)
	rapid.Check(t, func(t *rapid.T) {
		token := []byte(someChain(t))
		i := rapid.IntRange(0, len(token)-1).Draw(t, "at")
		to := rapid.Byte().Draw(t, "to")
		if token[i] == to {
			return
		}
		token[i] = to
		if _, err := v.Verify(string(token), now); err == nil {
			t.Fatalf("byte %d changed to %q, and it verifies", i, to)
		}
	})
}

// Exchange never widens: whatever the result permits, the subject permits; it
// ends no later, is for no one else, hands on no further; and its path is the
// subject's, then who was named.
func TestLawExchangeNeverWidens(t *testing.T) {
	v := verifier(t)
	rapid.Check(t, func(t *rapid.T) {
		subject, err := v.Verify(someChain(t), now)
		if err != nil {
			t.Fatal(err)
		}
		for round := range 3 {
			a := delegation.Ask{
				Receiver: rapid.SampledFrom(append(somePeople, "")).Draw(t, "receiver"),
				Caller:   rapid.SampledFrom([]string{"", "", "", "b", "z"}).Draw(t, "caller"),
				Scopes:   some(t, someScopes, "scopes"), Audience: append(some(t, someAudiences[1:], "aud"), gitHost),
				AudienceAware: rapid.Bool().Draw(t, "aware"), Tools: someToolSet(t), Limits: someLimits(t, true),
				TTL:        time.Duration(rapid.IntRange(0, 400).Draw(t, "ttl")) * time.Second,
				GrantDepth: rapid.IntRange(0, 4).Draw(t, "grant depth"), ReceiverProved: rapid.Bool().Draw(t, "proved"),
				KeyByProof: rapid.Bool().Draw(t, "key by proof"),
			}
			if rapid.Bool().Draw(t, "light") {
				a.Limits, a.Tools, a.Scopes, a.Audience, a.AudienceAware = delegation.Limits{}, nil, nil, []string{gitHost}, true
			}
			if rapid.Bool().Draw(t, "key?") {
				a.Key = rapid.SampledFrom(someHolders).Draw(t, "key").public()
			}
			if rapid.Bool().Draw(t, "depth?") {
				a.MaxDepth = deep(rapid.IntRange(0, 9).Draw(t, "depth"))
			}
			draft, err := subject.Exchange(a, now)
			if err != nil {
				return
			}
			issued, err := draft.Sign(serverKey)
			if err != nil {
				t.Fatalf("a draft cannot be signed: %v", err)
			}
			result, err := v.Verify(issued.Token, now)
			if err != nil {
				t.Fatal(err)
			}
			if problem := wider(t, subject, result, a); problem != "" {
				t.Fatalf("round %d, %+v: %s", round, a, problem)
			}
			// "A chain read as path and the act made from it name the same
			// parties in the same order (a law)."
			if path := pathOfAct(t, issued.Token); !slices.Equal(path, result.Path()) || !slices.Equal(path, issued.Path) {
				t.Fatalf("round %d, %+v: act names %v, the path is %v", round, a, path, result.Path())
			}
			subject = result
		}
	})
}

// pathOfAct reads sub, the nested act from the inside out, and client_id, as
// anybody who knows RFC 8693 does.
func pathOfAct(t *rapid.T, token string) []string {
	type actor struct {
		Sub string
		Act *actor
	}
	var claims struct {
		Sub      string
		ClientID string `json:"client_id"`
		Act      *actor
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	if err != nil {
		t.Fatal(err)
	}
	actors := []string{claims.ClientID}
	for act := claims.Act; act != nil; act = act.Act {
		actors = append(actors, act.Sub)
	}
	actors = append(actors, claims.Sub)
	slices.Reverse(actors)
	return slices.Compact(actors)
}

func wider(t *rapid.T, subject, result *delegation.Chain, a delegation.Ask) string {
	for range 20 {
		request := someRequest(t)
		if result.Allows(request) == nil && subject.Allows(request) != nil {
			return fmt.Sprintf("the result permits %+v", request)
		}
	}
	want := subject.Path()
	for _, id := range []string{a.Caller, a.Receiver} {
		if id != "" && want[len(want)-1] != id {
			want = append(want, id)
		}
	}
	handedOn := a.Receiver != "" || !a.Key.IsZero() && a.Key.Thumbprint() != subject.JKT()
	left := subject.DepthLeft(a.GrantDepth)
	if handedOn {
		left--
	}
	revoked := subject.Revocable()
	switch {
	case !slices.Equal(result.Path(), want):
		return fmt.Sprintf("path %v, want %v", result.Path(), want)
	case result.ClientID() != want[len(want)-1]:
		return "client_id is not the user"
	case result.Expires().After(subject.Expires()):
		return "it outlives the subject"
	case subject.Bound() && !result.Bound():
		return "a bound subject yields an unbound token"
	case result.DepthLeft(a.GrantDepth) > left:
		return fmt.Sprintf("depth %d of %d", result.DepthLeft(a.GrantDepth), left)
	case result.Principal() != subject.Principal() || result.GrantID() != subject.GrantID():
		return "another principal or grant"
	}
	for _, aud := range result.Audience() {
		if !slices.Contains(subject.Audience(), aud) {
			return "another audience"
		}
	}
	// Whatever revokes the subject revokes the result.
	got := result.Revocable()
	for _, id := range slices.Concat(revoked.LIDs, revoked.Keys, revoked.Ancestry) {
		if !slices.Contains(got.Ancestry, id) {
			return id + " is not in anc"
		}
	}
	for _, id := range revoked.Clients {
		if !slices.Contains(got.Clients, id) {
			return id + " is not among the parties"
		}
	}
	return ""
}
