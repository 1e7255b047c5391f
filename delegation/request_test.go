package delegation_test

import (
	"errors"
	"testing"

	"github.com/kavach-dev/kavach/delegation"
)

// restricted is a chain whose root carries the limits and whose link repeats
// them, or what is given for it.
func restricted(t *testing.T, toolNames []string, members object, linkMembers ...object) *delegation.Chain {
	t.Helper()
	root := rootToken().with(object{"authorization_details": []any{tools(toolNames...), limits(members)}})
	link := linkUnder(root, reviewerKey)
	for _, m := range linkMembers {
		link = link.with(object{"authorization_details": []any{tools(toolNames...), limits(m)}})
	}
	return verified(t, join(root, link))
}

var read = delegation.Request{
	Scope: delegation.AllOf("repository:read"),
}

// Step 16, dimension by dimension: given, none, unset.
func TestDimensions(t *testing.T) {
	call := func(name string) delegation.Dimension[delegation.Call] {
		return delegation.Given(delegation.Call{Name: name})
	}
	given := delegation.Given[string]
	open := restricted(t, nil, object{})
	tooled := restricted(t, []string{"get", "list"}, object{})
	bound := restricted(t, nil, object{"resources": []string{"pr/847", "repo/*"}})
	networked := restricted(t, nil, object{"allow_network": []string{"git.internal:443", "*.cdn.internal"}})
	sized := restricted(t, nil, object{"max_file_size": 100})
	nothing := restricted(t, nil, object{"resources": []string{}, "allow_network": []string{}, "max_file_size": 0})
	counted := verified(t, rootToken().with(object{"authorization_details": []any{tools(), limits(object{"max_calls": 1})}}).String())

	for _, c := range []struct {
		name    string
		chain   *delegation.Chain
		request delegation.Request
		reason  delegation.Reason // "" permits
		detail  string
	}{
		{"scope only", open, read, "", ""},
		{"scope unset", open, delegation.Request{}, delegation.ScopeNotGranted, "unhandled:scope"},
		{"no scope needed", open, delegation.Request{Scope: delegation.NoScope()}, "", ""},
		{"scope of the root alone", open, delegation.Request{Scope: delegation.AllOf("comment:write")}, delegation.ScopeNotGranted, ""},
		{"one of two, held", open, delegation.Request{Scope: delegation.OneOf("comment:write", "repository:read")}, "", ""},
		{"one of none", open, delegation.Request{Scope: delegation.OneOf()}, delegation.ScopeNotGranted, ""},
		{"both of two", open, delegation.Request{Scope: delegation.AllOf("repository:read", "comment:write")}, delegation.ScopeNotGranted, ""},
		{"scope by prefix", open, delegation.Request{Scope: delegation.AllOf("repository")}, delegation.ScopeNotGranted, ""},
		{"empty scope", open, delegation.Request{Scope: delegation.AllOf("")}, delegation.ScopeNotGranted, ""},
		{"and", open, delegation.Request{Scope: delegation.AllOf("repository:read").And(delegation.AllOf("x"))}, delegation.ScopeNotGranted, ""},
		{"and unset", open, delegation.Request{Scope: delegation.NoScope().And(delegation.Scope{})}, delegation.ScopeNotGranted, ""},

		{"tool given where none is named", open, delegation.Request{Scope: read.Scope, Tool: call("anything")}, "", ""},
		{"tool named", tooled, delegation.Request{Scope: read.Scope, Tool: call("get")}, "", ""},
		{"tool not named", tooled, delegation.Request{Scope: read.Scope, Tool: call("merge")}, delegation.ConstraintViolated, ""},
		{"tool in another case", tooled, delegation.Request{Scope: read.Scope, Tool: call("GET")}, delegation.ConstraintViolated, ""},
		{"tool of a prototype", tooled, delegation.Request{Scope: read.Scope, Tool: call("__proto__")}, delegation.ConstraintViolated, ""},
		{"tool unset", tooled, read, delegation.ConstraintViolated, "unhandled:tools"},
		{"tool none", tooled, delegation.Request{Scope: read.Scope, Tool: delegation.None[delegation.Call]()}, delegation.ConstraintViolated, "the action has none"},

		{"resource literal", bound, delegation.Request{Scope: read.Scope, Resource: given("pr/847")}, "", ""},
		{"resource below a prefix", bound, delegation.Request{Scope: read.Scope, Resource: given("repo/a/b")}, "", ""},
		{"another resource", bound, delegation.Request{Scope: read.Scope, Resource: given("pr/848")}, delegation.ConstraintViolated, ""},
		{"below a literal", bound, delegation.Request{Scope: read.Scope, Resource: given("pr/847/files")}, delegation.ConstraintViolated, ""},
		{"the prefix itself", bound, delegation.Request{Scope: read.Scope, Resource: given("repo")}, delegation.ConstraintViolated, ""},
		{"the prefix with its slash", bound, delegation.Request{Scope: read.Scope, Resource: given("repo/")}, delegation.ConstraintViolated, ""},
		{"the entry as a resource", bound, delegation.Request{Scope: read.Scope, Resource: given("repo/*")}, delegation.ConstraintViolated, ""},
		{"path traversal", bound, delegation.Request{Scope: read.Scope, Resource: given("repo/../pr/848")}, delegation.ConstraintViolated, ""},
		{"percent-encoding", bound, delegation.Request{Scope: read.Scope, Resource: given("repo/%2e%2e/x")}, delegation.ConstraintViolated, ""},
		{"double slash", bound, delegation.Request{Scope: read.Scope, Resource: given("repo//x")}, delegation.ConstraintViolated, ""},
		{"not ASCII", bound, delegation.Request{Scope: read.Scope, Resource: given("repo/é")}, delegation.ConstraintViolated, ""},
		{"resource unset", bound, read, delegation.ConstraintViolated, "unhandled:resources"},
		{"resource none", bound, delegation.Request{Scope: read.Scope, Resource: delegation.None[string]()}, delegation.ConstraintViolated, "the action has none"},
		{"resource empty", bound, delegation.Request{Scope: read.Scope, Resource: given("")}, delegation.ConstraintViolated, ""},

		{"host and port", networked, delegation.Request{Scope: read.Scope, Network: given("git.internal:443")}, "", ""},
		{"another port", networked, delegation.Request{Scope: read.Scope, Network: given("git.internal:80")}, delegation.ConstraintViolated, ""},
		{"port not known", networked, delegation.Request{Scope: read.Scope, Network: given("git.internal")}, delegation.ConstraintViolated, ""},
		{"below a wildcard", networked, delegation.Request{Scope: read.Scope, Network: given("a.b.cdn.internal:8443")}, "", ""},
		{"the apex of a wildcard", networked, delegation.Request{Scope: read.Scope, Network: given("cdn.internal:443")}, delegation.ConstraintViolated, ""},
		{"a name that ends alike", networked, delegation.Request{Scope: read.Scope, Network: given("evilcdn.internal:443")}, delegation.ConstraintViolated, ""},
		{"a wildcard as destination", networked, delegation.Request{Scope: read.Scope, Network: given("*.cdn.internal")}, delegation.ConstraintViolated, ""},
		{"user info", networked, delegation.Request{Scope: read.Scope, Network: given("git.internal:443@evil")}, delegation.ConstraintViolated, ""},
		{"host in capitals", networked, delegation.Request{Scope: read.Scope, Network: given("GIT.internal:443")}, delegation.ConstraintViolated, ""},
		{"trailing dot", networked, delegation.Request{Scope: read.Scope, Network: given("git.internal.:443")}, delegation.ConstraintViolated, ""},
		{"network unset", networked, read, delegation.ConstraintViolated, "unhandled:allow_network"},
		{"network none", networked, delegation.Request{Scope: read.Scope, Network: delegation.None[string]()}, "", ""},

		{"size below", sized, delegation.Request{Scope: read.Scope, Size: delegation.Given(int64(100))}, "", ""},
		{"size above", sized, delegation.Request{Scope: read.Scope, Size: delegation.Given(int64(101))}, delegation.ConstraintViolated, ""},
		{"size negative", sized, delegation.Request{Scope: read.Scope, Size: delegation.Given(int64(-1))}, delegation.ConstraintViolated, ""},
		{"size unset", sized, read, delegation.ConstraintViolated, "unhandled:max_file_size"},
		{"size none", sized, delegation.Request{Scope: read.Scope, Size: delegation.None[int64]()}, "", ""},

		{"empty lists allow nothing", nothing, delegation.Request{Scope: read.Scope, Resource: given("pr/847"),
			Network: delegation.None[string](), Size: delegation.None[int64]()}, delegation.ConstraintViolated, ""},
		{"an empty network too", nothing, delegation.Request{Scope: read.Scope, Resource: given("pr/847"),
			Network: given("git.internal:443")}, delegation.ConstraintViolated, ""},
		{"a budget needs a counter", counted, read, delegation.NeedsCounter, ""},
		{"scope before budget", counted, delegation.Request{Scope: delegation.AllOf("x")}, delegation.ScopeNotGranted, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.chain.Allows(c.request)
			if c.reason == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantRefusal(t, err, c.reason)
			var refusal *delegation.Refusal
			if errors.As(err, &refusal); c.detail != "" && refusal.Detail != c.detail {
				t.Fatalf("detail %q, want %q", refusal.Detail, c.detail)
			}
		})
	}
}

// "Dropped constraint, empty map": an empty map of tools below one that names
// some allows none; it does not lift the restriction.
func TestEmptyToolsBelowARestriction(t *testing.T) {
	root := rootToken().with(object{"authorization_details": []any{tools("get")}})
	link := linkUnder(root, reviewerKey).with(object{"authorization_details": []any{tools()}})
	chain := verified(t, join(root, link))
	request := read
	request.Tool = delegation.Given(delegation.Call{Name: "get"})
	wantRefusal(t, chain.Allows(request), delegation.ConstraintViolated, "tools")
	wantRefusal(t, chain.Allows(read), delegation.ConstraintViolated, "tools")
	_, err := chain.Exchange(delegation.Ask{
		Scopes: []string{"repository:read"}, Audience: []string{gitHost}, AudienceAware: true, GrantDepth: 3,
	}, now)
	wantRefusal(t, err, delegation.NotNarrower, "tools")
}

// A link that adds limits restricts, although the root does not.
func TestLinkRestricts(t *testing.T) {
	chain := restricted(t, nil, object{}, object{"resources": []string{"pr/847"}, "audit_required": true})
	wantRefusal(t, chain.Allows(read), delegation.ConstraintViolated, "resources")
	if !chain.Restricts(delegation.DimensionAudit) || chain.Restricts(delegation.DimensionSize) {
		t.Error("Restricts does not see what the link adds")
	}
}

// A Chain that did not come out of Verify allows nothing.
func TestZeroChain(t *testing.T) {
	for name, chain := range map[string]*delegation.Chain{"nil": nil, "zero": {}} {
		t.Run(name, func(t *testing.T) {
			for _, err := range []error{
				chain.Allows(delegation.Request{Scope: delegation.NoScope()}),
				chain.AllowsScope(delegation.NoScope()), chain.AllowsUncounted(),
				chain.AllowsTool(delegation.None[delegation.Call]()), chain.AllowsResource(delegation.None[string]()),
				chain.AllowsNetwork(delegation.None[string]()), chain.AllowsSize(delegation.None[int64]()),
				chain.For(""), chain.ForAmong(""), chain.CheckScheme("Bearer"), chain.CheckScheme("DPoP"),
			} {
				if !errors.Is(err, delegation.ErrRefused) {
					t.Errorf("got %v, want a refusal", err)
				}
			}
			if _, err := chain.Exchange(delegation.Ask{}, now); !errors.Is(err, delegation.ErrRefused) {
				t.Errorf("Exchange: %v", err)
			}
			if chain.Principal() != "" || chain.ClientID() != "" || chain.Agent() != "" || len(chain.Links()) != 0 ||
				len(chain.Scopes()) != 0 || len(chain.Revocable().LIDs) != 0 || chain.Len() != 0 {
				t.Error("a zero chain says something")
			}
		})
	}
}
