package authz

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/audit"
)

// Resource is a resource server that kavach issues tokens for. It issues for
// no others (§3a).
type Resource struct {
	ID           string // RFC 8707 identifier, compared byte for byte
	Name         string // for people
	Scopes       []Scope
	Aware        bool   // understands chains and kavach_limits
	TokenAlg     string // "ES256" (default), "Ed25519", "RS256"
	Introspector string // client that may introspect tokens for it
	BuiltIn      bool   // ISSUER/mcp, ISSUER/api
	Created      time.Time
}

const (
	catalogStale = time.Second
	maxScopes    = 64 // of one resource, or one static client
	// recordedScopes is how many names the record has room for.
	recordedScopes = 32
)

// Catalog returns a snapshot of the resources that is at most a second old,
// and is read again when it does not know one of the named resources or
// scopes: what an operator adds is there at once.
func (g *Registry) Catalog(ctx context.Context, need ...string) (*Catalog, error) {
	now := g.now()
	g.mu.Lock()
	c, read := g.catalog, g.catalogRead
	g.mu.Unlock()
	if age := now.Sub(read); c != nil && age >= 0 && age < catalogStale && c.knows(need) {
		return c, nil
	}
	registered, err := g.cfg.Store.Resources(ctx)
	if err != nil {
		return nil, err
	}
	if err := g.makeKeys(ctx, registered); err != nil {
		return nil, err
	}
	c = newCatalog(g.cfg.Issuer, g.cfg.BaselineScopes, registered)
	g.mu.Lock()
	g.catalog, g.catalogRead = c, now
	g.mu.Unlock()
	return c, nil
}

// makeKeys makes the keys that resources ask for as soon as they are read, so
// that the JWKS document has them before the first token is signed.
func (g *Registry) makeKeys(ctx context.Context, resources []Resource) error {
	for _, r := range resources {
		if g.cfg.Keys != nil {
			if _, err := g.cfg.Keys.Signer(ctx, r.TokenAlg); err != nil {
				return fmt.Errorf("making a key for %s: %w", r.ID, err)
			}
		}
	}
	return nil
}

func (c *Catalog) knows(names []string) bool {
	for _, name := range names {
		_, scope := c.scopes[name]
		if _, resource := c.Canonical(name); !scope && !resource && name != ScopeOffline {
			return false
		}
	}
	return true
}

func (g *Registry) forgetCatalog() {
	g.mu.Lock()
	g.catalog = nil
	g.mu.Unlock()
}

// AddResource adds a resource with its scopes. The record is committed with it.
func (g *Registry) AddResource(ctx context.Context, by Actor, r Resource) error {
	r.Scopes = slices.Clone(r.Scopes)
	if r.TokenAlg == "" {
		r.TokenAlg = AlgES256
	}
	if r.Name == "" {
		r.Name = r.ID
	}
	r.BuiltIn, r.Created = false, g.now()
	g.forgetCatalog()
	catalog, err := g.Catalog(ctx)
	if err != nil {
		return err
	}
	if err := g.checkResource(ctx, catalog, &r); err != nil {
		return err
	}
	var names []string
	for _, s := range r.Scopes[:min(len(r.Scopes), recordedScopes)] {
		names = append(names, s.Name)
	}
	err = g.cfg.Commit.Commit(ctx, audit.Change{
		Effects: g.cfg.Store.InsertResource(r),
		Entries: []audit.Entry{by.entry(audit.ResourceAdd, r.ID, map[string]any{
			"scopes": names, "scope_count": len(r.Scopes), "kavach_aware": r.Aware, "token_alg": r.TokenAlg, "introspector": r.Introspector,
		})},
	})
	g.forgetCatalog()
	if errors.Is(err, audit.ErrConflict) {
		return fmt.Errorf("resource %s, or one of its scopes: %w", r.ID, ErrExists)
	}
	if err != nil {
		return fmt.Errorf("adding resource: %w", err)
	}
	return nil
}

func (g *Registry) checkResource(ctx context.Context, catalog *Catalog, r *Resource) error {
	if problem := checkIdentifier(r.ID); problem != "" {
		return invalid("resource %q: %s", r.ID, problem)
	}
	if id, taken := catalog.Canonical(r.ID); taken {
		if catalog.byID[id].BuiltIn {
			return invalid("resource %q is kavach's own", r.ID)
		}
		return fmt.Errorf("resource %s: %w", id, ErrExists)
	}
	if err := checkName(r.Name, "a resource"); err != nil {
		return err
	}
	switch r.TokenAlg {
	case AlgES256, AlgEd25519, AlgRS256:
	default:
		return invalid("token_alg is ES256, Ed25519 or RS256")
	}
	if len(r.Scopes) == 0 || len(r.Scopes) > maxScopes {
		return invalid("a resource has 1 to %d scopes", maxScopes)
	}
	folded := map[string]string{}
	for _, s := range builtInScopes() {
		folded[strings.ToLower(s.Name)] = s.Name
	}
	folded[ScopeOffline] = ScopeOffline
	for i := range r.Scopes {
		s := &r.Scopes[i]
		if !scopeName.MatchString(s.Name) {
			return invalid("scope %q: 1 to 128 characters from A-Z a-z 0-9 . _ : / - beginning with a letter or digit", s.Name)
		}
		if other, taken := folded[strings.ToLower(s.Name)]; taken {
			return invalid("scope %q is the same as %q, or differs only by case", s.Name, other)
		}
		folded[strings.ToLower(s.Name)] = s.Name
		if owners := catalog.owners[s.Name]; len(owners) > 0 {
			return fmt.Errorf("scope %s belongs to %s: %w", s.Name, owners[0], ErrExists)
		}
		if s.Description == "" {
			s.Description = "Use " + s.Name + " at " + r.Name
			if len(s.Description) > 200 {
				s.Description = "Use " + s.Name
			}
		}
		if err := checkName(s.Description, "a scope's purpose"); err != nil {
			return err
		}
		if s.Holders.Nobody {
			return invalid("scope %q: name who holds it", s.Name)
		}
		for _, role := range s.Holders.Roles {
			if !role.Valid() {
				return invalid("scope %q: a role is member, auditor or operator", s.Name)
			}
		}
	}
	if r.Introspector != "" {
		c, err := g.Client(ctx, r.Introspector)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err != nil || !c.MayIntrospect() {
			return invalid("client %q cannot introspect: it must be a static client that authenticates, or an agent", r.Introspector)
		}
	}
	return nil
}

// checkIdentifier says what is wrong with a resource identifier (RFC 8707:
// absolute URI, no fragment), or nothing.
func checkIdentifier(id string) string {
	if id == "" || len(id) > 256 {
		return "it must be 1 to 256 bytes"
	}
	for i := range len(id) {
		if c := id[i]; c <= 0x20 || c >= 0x7f || strings.IndexByte("\\\"<>^`{|}#*@", c) >= 0 {
			return "it must be a URI without fragment, userinfo or wildcard"
		}
	}
	u, err := url.Parse(id)
	if err != nil || u.Opaque != "" || u.Hostname() == "" {
		return "it must be an absolute URI with a host"
	}
	if port, ok := strings.CutPrefix(u.Host[len(hostOnly(u.Host)):], ":"); ok && !isPort(port) {
		return "its port is not one"
	}
	if u.Host != strings.ToLower(u.Host) {
		return "write its host in lower case: identifiers are compared byte for byte"
	}
	if strings.HasPrefix(id, "https://") {
		return ""
	}
	if _, _, ok := splitLoopback(id); ok {
		return ""
	}
	return "it must be https, or http on 127.0.0.1, [::1] or localhost"
}

// RemoveResource removes a registered resource and its scopes: no token is
// issued for it any more; those that are out live on to their expiry.
func (g *Registry) RemoveResource(ctx context.Context, by Actor, id string) error {
	if id == g.cfg.Issuer+"/mcp" || id == g.cfg.Issuer+"/api" {
		return invalid("resource %q is kavach's own", id)
	}
	err := g.cfg.Commit.Commit(ctx, audit.Change{
		Effects: g.cfg.Store.DeleteResource(id),
		Entries: []audit.Entry{by.entry(audit.ResourceRemove, id, map[string]any{})},
		Narrows: true,
	})
	g.forgetCatalog()
	if errors.Is(err, audit.ErrConflict) {
		return fmt.Errorf("resource %s: %w", id, ErrNotFound)
	}
	if err != nil && !errors.Is(err, audit.ErrUnrecorded) {
		return fmt.Errorf("removing resource: %w", err)
	}
	return err
}
