package authz

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/kavach-dev/kavach/delegation"
)

// prepareCredentials is a client on its own account (RFC 6749 section 4.4): it
// may get the scopes it is registered with.
func (s *Server) prepareCredentials(ctx context.Context, r *http.Request, f *flow) error {
	if refused := s.readCredentialsAAT(r, f); refused != nil {
		return refused
	}
	if f.client.Kind == KindAgent {
		return s.prepareAgent(ctx, r, f)
	}
	if f.client.Public() || f.client.Kind != KindStatic {
		return badRequest("unauthorized_client", "client credentials are for clients that an operator added")
	}
	if err := s.clientStands(ctx, f); err != nil {
		return err
	}
	want := splitScope(r.PostForm.Get("scope"))
	for _, scope := range want {
		if !slices.Contains(f.client.Scopes, scope) {
			return errScope("the client is not registered for this scope")
		}
	}
	if len(want) == 0 {
		want = slices.Clone(f.client.Scopes)
	}
	cat, err := s.cfg.Registry.Catalog(ctx, slices.Concat(want, r.PostForm["resource"])...)
	if err != nil {
		return err
	}
	resources, refused := canonicalResources(cat, r.PostForm["resource"])
	if refused != nil {
		return refused
	}
	if len(resources) == 0 {
		resources = cat.Default(want)
	}
	what, refused := fit(cat, want, resources)
	if refused != nil {
		return refused
	}
	if len(what.resources) > maxAudiences {
		return errTarget("the scopes belong to more than eight resources; ask for some of them")
	}
	// There is no grant of a person: what a client has of itself is below the
	// client, and ends with it.
	f.plan.sub, f.plan.gid = f.client.ID, f.client.ID
	asked, refused := askedDepth(r.PostForm.Get("del_max_depth"))
	if refused != nil {
		return refused
	}
	depth := delegation.DefaultMaxDepth
	if asked != nil {
		depth = min(depth, *asked)
	}
	return s.planOwn(f, cat, what, depth)
}

// clientStands refuses a client that was revoked, and a key that was: what it
// got would be dead.
func (s *Server) clientStands(ctx context.Context, f *flow) error {
	q := StandingQuery{Principal: f.client.ID, Grants: []string{f.client.ID}, Now: f.now}
	if f.proof != nil {
		q.Keys = []string{f.jkt()}
	}
	standing, err := s.cfg.Registry.Standing(ctx, q)
	if err == nil && standing.Dead {
		err = reasoned{errGrant("the client, or this key, was revoked"), string(delegation.Revoked)}
	}
	return err
}

// planOwn plans the token of a client on its own account, in the form that is
// due to it.
func (s *Server) planOwn(f *flow, cat *Catalog, what ask, depth int) error {
	form := delegation.Form{
		AudienceAware: cat.Aware(what.resources), Agent: f.client.Kind == KindAgent,
		KeySent: f.plan.keySent, Depth: depth, AAT: f.plan.aat,
	}
	if f.proof != nil {
		form.Key = f.proof.Key
	}
	f.plan.root, f.plan.depth = form.Root(), depth
	if refused := f.planAAT(cat, what); refused != nil {
		return refused
	}
	if refused := s.planToken(f, cat, what); refused != nil {
		return refused
	}
	return nil
}

// prepareAgent is an agent on its own authentication (authorization-server.md
// §5): what it gets is asked ∩ manifest ∩ grant ∩ owner's, below its standing
// grant.
func (s *Server) prepareAgent(ctx context.Context, r *http.Request, f *flow) error {
	grant, standing, err := s.cfg.Store.AgentStanding(ctx, f.client.ID, f.jkt(), f.now)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	f.plan.sub = f.client.ID
	if err != nil || !grant.Revoked.IsZero() {
		return badRequest("unauthorized_client", "nothing was granted to this agent; its owner or an operator can")
	}
	f.grant, f.plan.gid = grant, grant.ID
	held := s.cfg.Registry.held.covers(StandingQuery{
		Principal: f.client.ID, Grants: []string{grant.ID}, Keys: []string{f.jkt()}, Now: f.now,
	})
	switch hours, err := ParseHours(grant.Hours); {
	case err != nil:
		return err // it was checked when it was granted
	case standing.Dead || held:
		return reasoned{errGrant("the agent, its owner, its grant or this key was suspended or revoked"), string(delegation.Revoked)}
	case !grant.Live(f.now):
		return errGrant("the grant of this agent has ended")
	case !hours.Include(f.now):
		return errHours
	}
	asked, refused := askedDepth(r.PostForm.Get("del_max_depth"))
	if refused != nil {
		return refused
	}
	what, refused, err := s.agentAsk(ctx, r, f.client, grant, standing)
	if err != nil {
		return err
	}
	if refused != nil {
		return refused
	}
	cat, err := s.cfg.Registry.Catalog(ctx, what.resources...)
	if err != nil {
		return err
	}
	depth := min(grant.MaxDepth, f.client.MaxDepth)
	if asked != nil {
		depth = min(depth, *asked)
	}
	if err := s.planOwn(f, cat, what, depth); err != nil {
		return err
	}
	if !f.plan.root && depth < grant.MaxDepth {
		f.plan.hops = &depth
	}
	if f.proof != nil {
		f.notes = append(f.notes, s.cfg.Registry.cfg.Store.HoldAgentKey(f.client.ID, f.jkt(), f.plan.expires))
	}
	return nil
}

// errHours is the answer at an hour at which a standing grant gives nothing.
var errHours = reasoned{errDenied("the grant of this agent gives no tokens at this hour"), "outside_hours"}

// agentAsk works out what an agent gets of what it asks for. It is never an
// error to ask for more than it may have: the answer's scope says what it got.
func (s *Server) agentAsk(ctx context.Context, r *http.Request, c Client, grant Grant, standing Standing) (ask, *Error, error) {
	may := intersect(c.Scopes, grant.Scopes)
	want := splitScope(r.PostForm.Get("scope"))
	cat, err := s.cfg.Registry.Catalog(ctx, slices.Concat(may, r.PostForm["resource"])...)
	if err != nil {
		return ask{}, nil, err
	}
	resources, refused := canonicalResources(cat, r.PostForm["resource"])
	switch {
	case refused != nil:
		return ask{}, refused, nil
	case len(want) == 0 && len(resources) == 0:
		// delegation.md §3: "no scope either → ISSUER/mcp with its baseline".
		want, resources = cat.Baseline(), []string{cat.MCP()}
	case len(want) == 0:
		want = may
	}
	scopes := intersect(want, may)
	if len(scopes) == 0 {
		return ask{}, errScope("none of these scopes is both in the agent's manifest and granted to it"), nil
	}
	held := standing.Held(cat, scopes)
	if len(held) == 0 {
		return ask{}, errDenied("the owner of this agent holds none of these scopes"), nil
	}
	if len(resources) == 0 {
		resources = cat.Default(held)
	}
	what, refused := fit(cat, held, resources)
	if refused == nil && len(what.resources) > maxAudiences {
		refused = errTarget("the scopes belong to more than eight resources; ask for some of them")
	}
	return what, refused, nil
}

// askedDepth reads the form parameter del_max_depth: nil if it is not there.
func askedDepth(text string) (*int, *Error) {
	if text == "" {
		return nil, nil
	}
	if len(text) != 1 || text[0] < '0' || text[0] > '0'+delegation.MaxDepth {
		return nil, badRequest("invalid_request", "del_max_depth is a number from 0 to 8")
	}
	depth := int(text[0] - '0')
	return &depth, nil
}
