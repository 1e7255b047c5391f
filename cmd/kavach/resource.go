package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/people"
)

type resourceCmds struct {
	Add    resourceAddCmd    `cmd:"" help:"Register a resource server and its scopes."`
	List   resourceListCmd   `cmd:"" help:"List resource servers."`
	Show   resourceShowCmd   `cmd:"" help:"Show a resource server with its scopes."`
	Remove resourceRemoveCmd `cmd:"" help:"Stop issuing tokens for a resource server."`
}

// resourceAddCmd registers what kavach issues tokens for (§3a).
type resourceAddCmd struct {
	ID           string   `arg:"" optional:"" name:"url" help:"Identifier: the resource's URL, byte for byte what tokens will name as aud."`
	From         string   `placeholder:"URL" help:"Read identifier, name and scopes from the resource's own metadata (RFC 9728), once; other flags add to it."`
	Name         string   `placeholder:"TEXT" help:"Name for people (the host)."`
	Scope        []string `sep:"none" placeholder:"NAME=SENTENCE" help:"A scope and what it permits, in one sentence for people; repeatable."`
	Sensitive    []string `sep:"," placeholder:"NAME" help:"A scope to warn about; repeatable."`
	HeldBy       []string `sep:"none" placeholder:"NAME=WHO,…" help:"The roles and users that hold a scope; repeatable (everybody)."`
	Aware        bool     `name:"kavach-aware" help:"It understands chains and kavach_limits."`
	TokenAlg     string   `enum:"ES256,Ed25519,RS256" default:"ES256" help:"Signature of plain tokens: ${enum} (${default})."`
	Introspector string   `placeholder:"CLIENT" help:"Client that may introspect tokens for it."`
	placeFlags
	jsonFlag
}

// resourceView is a resource as the commands print it.
type resourceView struct {
	ID           string      `json:"resource"`
	Name         string      `json:"name"`
	Scopes       []scopeView `json:"scopes"`
	Aware        bool        `json:"kavach_aware"`
	TokenAlg     string      `json:"token_alg"`
	Introspector string      `json:"introspector,omitempty"`
	BuiltIn      bool        `json:"built_in,omitempty"`
}

type scopeView struct {
	Name        string   `json:"name"`
	Description string   `json:"description"`
	Sensitive   bool     `json:"sensitive,omitempty"`
	Roles       []string `json:"roles,omitempty"`
	Users       []string `json:"users,omitempty"`
}

func viewResource(r authz.Resource) resourceView {
	v := resourceView{
		ID: r.ID, Name: r.Name, Aware: r.Aware, TokenAlg: r.TokenAlg,
		Introspector: r.Introspector, BuiltIn: r.BuiltIn, Scopes: []scopeView{},
	}
	for _, s := range r.Scopes {
		one := scopeView{Name: s.Name, Description: s.Description, Sensitive: s.Sensitive, Users: s.Holders.Users}
		for _, role := range s.Holders.Roles {
			one.Roles = append(one.Roles, string(role))
		}
		v.Scopes = append(v.Scopes, one)
	}
	return v
}

func (c *resourceAddCmd) Run(w *world) error {
	if (c.ID == "") == (c.From == "") {
		return usagef("", "give the resource's URL or --from")
	}
	d, err := c.makeRegistry(w)
	if err != nil {
		return err
	}
	defer d.close()
	r, err := c.resource(w, d)
	if err != nil {
		return err
	}
	if err := d.registry.AddResource(w.ctx, byOperator, r); err != nil {
		adding := fmt.Errorf("adding resource %s: %w", oneLine(r.ID), operatorError(err))
		if errors.Is(err, authz.ErrExists) {
			return withHint(adding, "a scope belongs to one resource: `kavach resource list` shows what there is, `kavach resource remove` makes room")
		}
		return adding
	}
	if c.JSON {
		return w.printJSON(viewResource(r))
	}
	fmt.Fprintln(w.stdout, r.ID)
	return nil
}

// resource puts the flags together.
func (c *resourceAddCmd) resource(w *world, d *deployment) (authz.Resource, error) {
	r := authz.Resource{ID: c.ID}
	if c.From != "" {
		var err error
		if r, err = fromMetadata(w.ctx, c.From); err != nil {
			return r, err
		}
	}
	r.Aware, r.TokenAlg, r.Introspector = c.Aware, c.TokenAlg, c.Introspector
	if c.Name != "" {
		r.Name = c.Name
	}
	if r.Name == "" {
		r.Name = hostOf(r.ID)
	}
	for _, text := range c.Scope {
		name, sentence, _ := strings.Cut(text, "=")
		if sentence == "" {
			return r, usagef("write --scope 'repository:read=Read repositories'", "--scope %q has no sentence that says what it permits", text)
		}
		if i := slices.IndexFunc(r.Scopes, func(s authz.Scope) bool { return s.Name == name }); i >= 0 && c.From != "" {
			r.Scopes[i].Description = sentence // what the operator says counts
			continue
		}
		r.Scopes = append(r.Scopes, authz.Scope{Name: name, Description: sentence})
	}
	find := func(flag, name string) (*authz.Scope, error) {
		i := slices.IndexFunc(r.Scopes, func(s authz.Scope) bool { return s.Name == name })
		if i < 0 {
			return nil, usagef("add it with --scope", "--%s names %q, which is no --scope of this resource", flag, name)
		}
		return &r.Scopes[i], nil
	}
	for _, name := range c.Sensitive {
		s, err := find("sensitive", name)
		if err != nil {
			return r, err
		}
		s.Sensitive = true
	}
	for _, text := range c.HeldBy {
		name, who, _ := strings.Cut(text, "=")
		s, err := find("held-by", name)
		if err != nil {
			return r, err
		}
		if who == "" {
			return r, usagef("write --held-by 'repository:write=operator,alice'", "--held-by %q names nobody", text)
		}
		for one := range strings.SplitSeq(who, ",") {
			if slices.Contains(roles, one) {
				s.Holders.Roles = append(s.Holders.Roles, people.Role(one))
				continue
			}
			user, err := d.user(w, one)
			if err != nil {
				return r, err
			}
			s.Holders.Users = append(s.Holders.Users, user.ID)
		}
	}
	return r, nil
}

type resourceListCmd struct {
	placeFlags
	jsonFlag
}

func (c *resourceListCmd) Run(w *world) error {
	d, err := c.openRegistry(w)
	if err != nil {
		return err
	}
	defer d.close()
	catalog, err := d.registry.Catalog(w.ctx)
	if err != nil {
		return fmt.Errorf("listing resources: %w", err)
	}
	views := []resourceView{}
	for _, r := range catalog.Resources() {
		views = append(views, viewResource(r))
	}
	if c.JSON {
		return w.printJSON(views)
	}
	rows := make([][]string, len(views))
	for i, v := range views {
		names := make([]string, len(v.Scopes))
		for j, s := range v.Scopes {
			names[j] = s.Name
		}
		rows[i] = []string{v.ID, v.Name, v.TokenAlg, yes(v.Aware), strings.Join(names, " ")}
	}
	return w.table([]string{"RESOURCE", "NAME", "ALG", "AWARE", "SCOPES"}, rows)
}

type resourceShowCmd struct {
	ID string `arg:"" name:"url" help:"Identifier of the resource."`
	placeFlags
	jsonFlag
}

func (c *resourceShowCmd) Run(w *world) error {
	d, err := c.openRegistry(w)
	if err != nil {
		return err
	}
	defer d.close()
	catalog, err := d.registry.Catalog(w.ctx, c.ID)
	if err != nil {
		return fmt.Errorf("reading resources: %w", err)
	}
	r, ok := catalog.Resource(c.ID)
	if !ok {
		return withHint(fmt.Errorf("no resource %s", c.ID), "`kavach resource list` shows them")
	}
	v := viewResource(r)
	if c.JSON {
		return w.printJSON(v)
	}
	if err := w.fields("resource", v.ID, "name", v.Name, "token alg", v.TokenAlg,
		"kavach-aware", yes(v.Aware), "introspector", v.Introspector, "built in", yes(v.BuiltIn)); err != nil {
		return err
	}
	fmt.Fprintln(w.stdout)
	rows := make([][]string, len(v.Scopes))
	for i, s := range v.Scopes {
		holders := "everybody"
		if who := append(slices.Clone(s.Roles), s.Users...); len(who) > 0 {
			holders = strings.Join(who, ",")
		}
		rows[i] = []string{s.Name, yes(s.Sensitive), holders, s.Description}
	}
	return w.table([]string{"SCOPE", "SENSITIVE", "HELD BY", "PERMITS"}, rows)
}

type resourceRemoveCmd struct {
	ID string `arg:"" name:"url" help:"Identifier of the resource."`
	placeFlags
}

func (c *resourceRemoveCmd) Run(w *world) error {
	d, err := c.openRegistry(w)
	if err != nil {
		return err
	}
	defer d.close()
	err = d.registry.RemoveResource(w.ctx, byOperator, c.ID)
	if errors.Is(err, authz.ErrNotFound) {
		return withHint(fmt.Errorf("no resource %s", c.ID), "`kavach resource list` shows them")
	}
	if err != nil {
		return fmt.Errorf("removing resource %s: %w", c.ID, operatorError(err))
	}
	w.note("removed %s", oneLine(c.ID))
	return nil
}

// yes prints a bool in a table.
func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
