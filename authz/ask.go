package authz

import (
	"slices"
	"strings"
)

const (
	// maxAudiences bounds `aud` (delegation.md §3).
	maxAudiences = 8
	// maxCarried bounds the text of the scopes and resources of one token, in
	// bytes: with what else stands in it, in base64url and signed by RSA, the
	// token is then below delegation.MaxToken.
	maxCarried = 4500
)

// carries reports whether one token has room for the scopes and resources.
func carries(scopes, resources []string) bool {
	n := 0
	for _, s := range scopes {
		n += len(s) + len(" ")
	}
	for _, r := range resources {
		n += len(r) + len(`"",`)
	}
	return n <= maxCarried
}

// errCarried is the answer to who asks for more than that.
var errCarried = errScope("the scopes are more than one token has room for; ask for some of them")

// An ask is what a request asks for, after the catalog has understood it.
type ask struct {
	scopes    []string // sorted
	resources []string // sorted; those asked for, or those that own the scopes
}

func errTarget(text string) *Error { return badRequest("invalid_target", text) }
func errScope(text string) *Error  { return badRequest("invalid_scope", text) }
func errGrant(text string) *Error  { return badRequest("invalid_grant", text) }

// splitScope reads a scope parameter. offline_access goes: it is accepted
// without being asked about, and a client registered for refresh tokens gets
// one anyway (authorization-server.md §4).
func splitScope(parameter string) []string {
	var out []string
	for _, s := range strings.Split(parameter, " ") {
		if s != "" && s != ScopeOffline && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return out
}

// canonicalResources maps each resource parameter to the exact audience it
// names (RFC 8707 section 2: "MUST be an absolute URI"; unknown →
// invalid_target).
func canonicalResources(cat *Catalog, asked []string) ([]string, *Error) {
	var out []string
	for _, r := range asked {
		id, ok := cat.Canonical(r)
		if !ok {
			return nil, errTarget("the resource is not known here")
		}
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	if len(out) > maxAudiences {
		return nil, errTarget("at most eight resources can be asked for at once")
	}
	slices.Sort(out)
	return out, nil
}

// resolveAsk understands what an authorization request asks for.
//
// A scope nobody knows is an error. A known scope of a resource that was not
// asked for is left out (RFC 6749 section 3.3: the server "MAY fully or
// partially ignore the scope requested", and says so in the answer), unless the
// client asks to hand on (kavach:delegate) and the owner understands what it is
// handed: then it is what the client may hand on.
func resolveAsk(cat *Catalog, scope string, resources []string) (ask, *Error) {
	scopes := splitScope(scope)
	for _, s := range scopes {
		if _, ok := cat.Scope(s); !ok {
			return ask{}, errScope("a scope is not known here")
		}
	}
	asked, err := canonicalResources(cat, resources)
	if err != nil {
		return ask{}, err
	}
	if len(asked) == 0 {
		asked = slices.Clone(cat.Default(scopes))
		slices.Sort(asked)
	}
	if len(asked) > maxAudiences {
		return ask{}, errTarget("the scopes belong to more than eight resources")
	}
	if len(scopes) == 0 {
		scopes = defaultScopes(cat, asked)
	}
	handsOn := slices.Contains(scopes, ScopeDelegate)
	scopes = slices.DeleteFunc(scopes, func(s string) bool {
		owners := cat.Owners(s)
		return !cat.belongs(s, asked) && !(handsOn && cat.Aware(owners))
	})
	if len(scopes) == 0 {
		return ask{}, errScope("none of the scopes belongs to the resource")
	}
	if _, ok := cat.TokenAlg(asked); !ok {
		return ask{}, errTarget("these resources need different signatures; ask for them one at a time")
	}
	if !carries(scopes, asked) {
		return ask{}, errCarried
	}
	return ask{scopes, asked}, nil
}

// defaultScopes is what is asked when no scope is: the baseline of our own
// resource, elsewhere every scope that is not marked sensitive.
func defaultScopes(cat *Catalog, resources []string) []string {
	var out []string
	for _, id := range resources {
		r, _ := cat.Resource(id)
		if r.BuiltIn {
			out = append(out, cat.Baseline()...)
			continue
		}
		for _, s := range r.Scopes {
			if !s.Sensitive {
				out = append(out, s.Name)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// narrow applies the `scope` and `resource` parameters of a token request to
// what was granted: for this token only, never wider (RFC 6749 section 6, RFC
// 8707 section 2.2). held is what of granted the person still holds.
func narrow(cat *Catalog, granted, held, grantedResources []string, scope string, resources []string) (ask, *Error) {
	asked, err := canonicalResources(cat, resources)
	if err != nil {
		return ask{}, err
	}
	for _, r := range asked {
		if !slices.Contains(grantedResources, r) {
			return ask{}, errTarget("the resource was not granted")
		}
	}
	if len(asked) == 0 {
		asked = grantedResources
	}
	scopes := slices.Clone(held)
	if want := splitScope(scope); len(want) > 0 {
		for _, s := range want {
			if !slices.Contains(granted, s) {
				return ask{}, errScope("the scope was not granted")
			}
		}
		scopes = intersect(want, held)
	}
	if slices.Contains(scopes, ScopeDelegate) && !slices.ContainsFunc(asked, foreign(cat)) {
		// "Such a token is only ever sent to kavach": what the client may hand
		// on travels in the token for our own resource, which is all that MCP
		// clients name here. A client that wants less narrows the scope.
		asked = append(slices.Clone(asked), slices.DeleteFunc(slices.Clone(grantedResources), func(r string) bool { return !foreign(cat)(r) })...)
	}
	return fit(cat, scopes, asked)
}

// foreign reports whether a resource is somebody else's.
func foreign(cat *Catalog) func(id string) bool {
	return func(id string) bool {
		r, known := cat.Resource(id)
		return known && !r.BuiltIn
	}
}

// fit leaves the scopes that belong to the resources, and the resources that
// own one of them.
func fit(cat *Catalog, scopes, resources []string) (ask, *Error) {
	var out ask
	for _, s := range scopes {
		if cat.belongs(s, resources) {
			out.scopes = append(out.scopes, s)
		}
	}
	for _, r := range resources {
		if slices.ContainsFunc(out.scopes, func(s string) bool { return cat.belongs(s, []string{r}) }) {
			out.resources = append(out.resources, r)
		}
	}
	if len(out.scopes) == 0 {
		return ask{}, errScope("none of the granted scopes belongs to the resource")
	}
	slices.Sort(out.scopes)
	slices.Sort(out.resources)
	return out, nil
}

func intersect(a, b []string) []string {
	var out []string
	for _, x := range a {
		if slices.Contains(b, x) {
			out = append(out, x)
		}
	}
	return out
}
