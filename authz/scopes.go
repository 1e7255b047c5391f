package authz

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/kavach-dev/kavach/people"
)

// Scopes of kavach's own resources (§3a).
const (
	ScopeVerify       = "kavach:verify"
	ScopeDelegate     = "kavach:delegate"
	ScopeAudit        = "kavach:audit"
	ScopeAgentsManage = "agents:manage"
	ScopeAuditRead    = "audit:read"
	ScopeAuditWrite   = "audit:write"
	ScopeAdmin        = "kavach:admin"
	// ScopeOffline is accepted everywhere and belongs to no resource.
	ScopeOffline = "offline_access"
)

// scopeName is a scope token of delegation §1.
var scopeName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$`)

// Scope is one permission at a resource.
type Scope struct {
	Name        string
	Description string // one sentence for people
	Sensitive   bool
	Holders     Holders
}

// Holders says which people hold a scope. The zero value is everybody.
type Holders struct {
	Users  []string      // user ids
	Roles  []people.Role // exactly these: a role does not bring the ones below it
	Nobody bool          // clients and agents only; of built-in scopes
}

// Holder is a person as far as scopes are concerned. The zero value is
// nobody and holds nothing.
type Holder struct {
	ID     string
	Role   people.Role
	Active bool
}

// builtInScopes is the one list that ISSUER/mcp and ISSUER/api share.
func builtInScopes() []Scope {
	return []Scope{
		{Name: ScopeVerify, Description: "Check whether a token is valid and what it allows"},
		{Name: ScopeDelegate, Description: "Hand parts of its own permissions to your agents, and take them back"},
		{Name: ScopeAudit, Description: "Read the audit log of what it and what is below it did"},
		{Name: ScopeAgentsManage, Description: "Register and manage your agents", Sensitive: true},
		{Name: ScopeAuditRead, Description: "Read the whole audit log", Sensitive: true,
			Holders: Holders{Roles: []people.Role{people.Auditor, people.Operator}}},
		{Name: ScopeAuditWrite, Description: "Report to the audit log what a resource server decided",
			Holders: Holders{Nobody: true}},
		{Name: ScopeAdmin, Description: "Administer users, clients, resources, keys and approvals", Sensitive: true,
			Holders: Holders{Roles: []people.Role{people.Operator}}},
	}
}

// defaultBaseline is what a client gets that asks for nothing.
var defaultBaseline = []string{ScopeAudit, ScopeDelegate, ScopeVerify}

// Catalog is a snapshot of the resources and their scopes. It does not change.
type Catalog struct {
	issuer   string
	baseline []string
	byID     map[string]Resource
	scopes   map[string]Scope
	owners   map[string][]string // resources by scope, the default one first
	aliases  map[string]string   // other spellings of an identifier
}

func newCatalog(issuer string, baseline []string, registered []Resource) *Catalog {
	c := &Catalog{
		issuer: issuer, baseline: baseline,
		byID: map[string]Resource{}, scopes: map[string]Scope{},
		owners: map[string][]string{}, aliases: map[string]string{},
	}
	// The built-in ones come first: nothing in the database replaces them.
	mcp, api := issuer+"/mcp", issuer+"/api"
	c.add(Resource{ID: mcp, Name: "kavach", Scopes: builtInScopes(), Aware: true, TokenAlg: AlgES256, BuiltIn: true})
	c.add(Resource{ID: api, Name: "kavach API", Scopes: builtInScopes(), Aware: true, TokenAlg: AlgES256, BuiltIn: true})
	for _, r := range registered {
		if _, taken := c.byID[r.ID]; !taken {
			c.add(r)
		}
	}
	// Many clients send the bare origin, or what a URL library made of it.
	for _, form := range []string{mcp + "/", issuer, issuer + "/", originOf(issuer), originOf(issuer) + "/"} {
		if _, taken := c.byID[form]; !taken {
			c.aliases[form] = mcp
		}
	}
	for _, r := range registered {
		// An empty path and "/" are the same resource (RFC 3986 §6.2.3); URL
		// libraries turn one into the other.
		if origin := originOf(r.ID); r.ID == origin {
			c.aliases[origin+"/"] = r.ID
		} else if r.ID == origin+"/" {
			c.aliases[origin] = r.ID
		}
	}
	return c
}

func (c *Catalog) add(r Resource) {
	c.byID[r.ID] = r
	for _, s := range r.Scopes {
		if _, known := c.scopes[s.Name]; !known {
			c.scopes[s.Name] = s
		}
		c.owners[s.Name] = append(c.owners[s.Name], r.ID)
	}
}

// originOf is scheme://host[:port] of a URI.
func originOf(uri string) string {
	i := strings.Index(uri, "://")
	if i < 0 {
		return uri
	}
	if j := strings.IndexAny(uri[i+3:], "/?#"); j >= 0 {
		return uri[:i+3+j]
	}
	return uri
}

// Resources lists all, the built-in ones included, by identifier.
func (c *Catalog) Resources() []Resource {
	list := slices.Collect(maps.Values(c.byID))
	slices.SortFunc(list, func(a, b Resource) int { return strings.Compare(a.ID, b.ID) })
	return list
}

// Resource returns the resource with exactly that identifier.
func (c *Catalog) Resource(id string) (Resource, bool) {
	r, ok := c.byID[id]
	return r, ok
}

// Canonical maps what a client sent as resource to an identifier: itself, or
// the one it is another spelling of.
func (c *Catalog) Canonical(resource string) (id string, ok bool) {
	if _, ok := c.byID[resource]; ok {
		return resource, true
	}
	id, ok = c.aliases[resource]
	return id, ok
}

// MCP is the identifier of kavach's own MCP server.
func (c *Catalog) MCP() string { return c.issuer + "/mcp" }

// API is the identifier of kavach's own API.
func (c *Catalog) API() string { return c.issuer + "/api" }

// Scope returns the scope of that name, whichever resource it belongs to.
func (c *Catalog) Scope(name string) (Scope, bool) {
	s, ok := c.scopes[name]
	return s, ok
}

// Owners returns the resources a scope belongs to: one, or both of kavach's
// own, ISSUER/mcp first.
func (c *Catalog) Owners(scope string) []string { return slices.Clone(c.owners[scope]) }

// belongs says whether a scope belongs to one of the resources.
func (c *Catalog) belongs(scope string, resources []string) bool {
	return slices.ContainsFunc(c.owners[scope], func(id string) bool { return slices.Contains(resources, id) })
}

// holds says whether a person holds a scope now.
func (c *Catalog) holds(h Holder, scope string) bool {
	s, ok := c.scopes[scope]
	if !ok || !h.Active || h.ID == "" || s.Holders.Nobody {
		return false
	}
	if len(s.Holders.Users) == 0 && len(s.Holders.Roles) == 0 {
		return true
	}
	return slices.Contains(s.Holders.Users, h.ID) || slices.Contains(s.Holders.Roles, h.Role)
}

// Held returns those of the scopes that a person holds now, sorted.
func (c *Catalog) Held(h Holder, scopes []string) []string {
	held := []string{}
	for _, s := range scopes {
		if c.holds(h, s) {
			held = append(held, s)
		}
	}
	slices.Sort(held)
	return slices.Compact(held)
}

// Default returns the audiences of a request that names none: the resources
// that own the scopes, and ISSUER/mcp if there are no scopes (delegation §3).
// kavach's own scopes mean ISSUER/mcp. Scopes of no resource count for nothing.
func (c *Catalog) Default(scopes []string) []string {
	var audiences []string
	for _, s := range scopes {
		if owners := c.owners[s]; len(owners) > 0 && !slices.Contains(audiences, owners[0]) {
			audiences = append(audiences, owners[0])
		}
	}
	if len(audiences) == 0 {
		return []string{c.MCP()}
	}
	slices.Sort(audiences)
	return audiences
}

// Baseline returns the scopes of ISSUER/mcp for who asks for nothing, sorted.
func (c *Catalog) Baseline() []string { return slices.Clone(c.baseline) }

// TokenAlg returns the algorithm that all the audiences want of a plain token;
// not ok if they differ or one is unknown (delegation §3: invalid_target).
func (c *Catalog) TokenAlg(audiences []string) (alg string, ok bool) {
	for _, id := range audiences {
		r, known := c.byID[id]
		if !known || alg != "" && r.TokenAlg != alg {
			return "", false
		}
		alg = r.TokenAlg
	}
	return alg, alg != ""
}

// Aware says whether every one of the audiences understands chains.
func (c *Catalog) Aware(audiences []string) bool {
	for _, id := range audiences {
		if !c.byID[id].Aware {
			return false
		}
	}
	return len(audiences) > 0
}
