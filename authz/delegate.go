package authz

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
)

// Delegate hands a part of parent's authority to an agent (delegation.md §7,
// Online): parent is the token the request was authorised with, ask.Receiver
// the agent's id or name. The decision, whichever it is, is recorded before it
// is returned. The error is a *delegation.Refusal or an *Error.
func (s *Server) Delegate(ctx context.Context, parent *delegation.Chain, ask delegation.Ask) (delegation.Issued, error) {
	draft, issued, err := s.delegate(ctx, parent, &ask)
	entry := delegateEntry(parent, ask)
	if err != nil {
		var refused *delegation.Refusal
		var answer *Error
		switch {
		case errors.As(err, &refused):
			entry.Reason = string(refused.Reason)
			if refused.Dimension != "" {
				entry.Detail["dimension"] = refused.Dimension
			}
		case errors.As(err, &answer):
			entry.Reason = answer.Code
		default:
			s.unavailable(ctx, "delegation", err)
			return delegation.Issued{}, oauthError(err)
		}
		if err := s.cfg.Commit.Commit(ctx, audit.Change{Entries: []audit.Entry{entry}}); err != nil {
			s.unavailable(ctx, "recording a refused delegation", err)
			return delegation.Issued{}, oauthError(err)
		}
		return delegation.Issued{}, err
	}
	entry.Result = audit.Allowed
	entry.Path, entry.Anc = issued.Path, draft.Claims.Ancestry
	entry.Issued = []audit.Issued{{LID: issued.LID, Expires: issued.Expires.Unix()}}
	entry.Detail["scopes"], entry.Detail["audience"] = issued.Scopes, issued.Audience
	entry.Detail["ttl"] = int64(issued.ExpiresIn.Seconds())
	entry.Detail["root"], entry.Detail["bound"] = issued.Root, issued.JKT != ""
	if !issued.Limits.IsZero() {
		entry.Detail["limits"] = issued.Limits.Map()
	}
	if err := s.cfg.Commit.Commit(ctx, audit.Change{Entries: []audit.Entry{entry}}); err != nil {
		s.unavailable(ctx, "recording a delegation", err)
		return delegation.Issued{}, oauthError(err)
	}
	return issued, nil
}

// delegate decides and signs. What leaves it is not handed out before it is
// recorded.
func (s *Server) delegate(ctx context.Context, parent *delegation.Chain, ask *delegation.Ask) (delegation.Draft, delegation.Issued, error) {
	fail := func(err error) (delegation.Draft, delegation.Issued, error) {
		return delegation.Draft{}, delegation.Issued{}, err
	}
	now := s.cfg.Now()
	standing, err := s.cfg.Registry.standingOf(ctx, parent)
	if err != nil {
		return fail(err)
	}
	if standing.Dead {
		return fail(&delegation.Refusal{Reason: delegation.Revoked})
	}
	if err := s.mayDelegate(ctx, parent); err != nil {
		return fail(err)
	}
	if err := s.receiver(ctx, standing.Holder, ask); err != nil {
		return fail(err)
	}
	if ask.GrantDepth, err = s.grantDepth(ctx, parent); err != nil {
		return fail(err)
	}
	cat, err := s.cfg.Registry.Catalog(ctx, slices.Concat(ask.Scopes, ask.Audience)...)
	if err != nil {
		return fail(err)
	}
	if err := target(cat, parent, standing, ask); err != nil {
		return fail(err)
	}
	// At MCP the caller is the subject's own last party.
	ask.Caller = ""
	draft, err := parent.Exchange(*ask, now)
	if err != nil {
		return fail(err)
	}
	alg := AlgEd25519
	if !draft.Claims.Root {
		var ok bool
		if alg, ok = cat.TokenAlg(ask.Audience); !ok {
			return fail(errTarget("these resources need different signatures; name one audience"))
		}
	}
	key, err := s.cfg.Keys.Signer(ctx, alg)
	if err != nil {
		return fail(fmt.Errorf("finding a key for %s: %w", alg, err))
	}
	issued, err := draft.Sign(key)
	if err != nil {
		return fail(fmt.Errorf("signing a delegation: %w", err))
	}
	return draft, issued, nil
}

// mayDelegate: an agent whose manifest lacks the capability `delegate` gets
// nothing handed on by this server (delegation.md §10).
func (s *Server) mayDelegate(ctx context.Context, parent *delegation.Chain) error {
	caller := parent.ClientID()
	if s.cfg.Agents == nil || !agent.IsID(caller) {
		return nil
	}
	a, err := s.cfg.Agents.FindAgent(ctx, "", caller)
	if errors.Is(err, ErrNotFound) {
		return nil // a client
	}
	if err != nil {
		return err
	}
	if !a.Active(s.cfg.Now()) || a.Depth() == 0 {
		return errDenied("the manifest of the calling agent does not declare the capability delegate")
	}
	return nil
}

// receiver finds the agent that is named: active, and with the same person
// behind it as behind the caller. Who it is not to be found for, does not
// learn whether it exists.
func (s *Server) receiver(ctx context.Context, person Holder, ask *delegation.Ask) error {
	if ask.Receiver == "" {
		return badRequest("invalid_request", "name the agent that shall use the token")
	}
	unknown := badRequest("invalid_request", "you have no active agent of that id or name")
	if s.cfg.Agents == nil || person.ID == "" {
		return unknown
	}
	a, err := s.cfg.Agents.FindAgent(ctx, person.ID, ask.Receiver)
	if errors.Is(err, ErrNotFound) || err == nil && (a.Owner != person.ID || !a.Active(s.cfg.Now())) {
		return unknown
	}
	if err != nil {
		return err
	}
	ask.Receiver = a.ID
	// "the one whose registered key is in req_cnf" (delegation.md §7); any other
	// key is recorded as unproven.
	ask.ReceiverProved = !ask.Key.IsZero() && ask.Key.Thumbprint() == a.Key.Thumbprint()
	if depth := a.Depth(); ask.MaxDepth == nil || *ask.MaxDepth > depth {
		ask.MaxDepth = &depth
	}
	return nil
}

// grantDepth is how many hand-overs the grant behind a plain token allows.
func (s *Server) grantDepth(ctx context.Context, parent *delegation.Chain) (int, error) {
	if !parent.Plain() {
		return 0, nil // a chain carries its own
	}
	grant, err := s.cfg.Store.Grant(ctx, parent.GrantID())
	if errors.Is(err, ErrNotFound) {
		// Client credentials: there is no grant of anybody (prepareCredentials).
		return delegation.DefaultMaxDepth, nil
	}
	return grant.MaxDepth, err
}

// target fills in the audience and leaves the scopes that the person holds now.
func target(cat *Catalog, parent *delegation.Chain, standing Standing, ask *delegation.Ask) error {
	for _, scope := range ask.Scopes {
		if _, ok := cat.Scope(scope); !ok {
			return errScope("a scope is not known here")
		}
	}
	audience, refused := canonicalResources(cat, ask.Audience)
	if refused != nil {
		return refused
	}
	if len(audience) == 0 {
		audience = cat.Default(ask.Scopes)
	}
	for _, scope := range ask.Scopes {
		if !cat.belongs(scope, audience) {
			return errScope("scope " + scope + " does not belong to the audience")
		}
		// Said before what is left out is left out, or the refusal would be
		// about something else.
		if !parent.HasScope(scope) {
			return &delegation.Refusal{Reason: delegation.NotNarrower, Dimension: delegation.DimensionScope, Detail: scope}
		}
	}
	held := standing.Held(cat, ask.Scopes)
	if len(ask.Scopes) > 0 && len(held) == 0 {
		return errDenied("the person behind this token holds none of the scopes any more")
	}
	ask.Scopes, ask.Audience, ask.AudienceAware = held, audience, cat.Aware(audience)
	return nil
}

// delegateEntry is the record of a delegation, before it is decided.
func delegateEntry(parent *delegation.Chain, ask delegation.Ask) audit.Entry {
	e := chainEntry(parent, audit.Delegate, audit.Denied)
	e.Detail["via"] = "mcp"
	// What the caller typed does not stand in the log; an agent's id does.
	if agent.IsID(ask.Receiver) {
		e.Detail["receiver"] = ask.Receiver
	}
	return e
}
