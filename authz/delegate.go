package authz

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
)

// handover is one request for a part of a verified token's authority, however
// it came in: the MCP tool delegate, token exchange, a handle. Who asks may ask
// for it, and holds the token if it is bound; everything else is decided by
// derive.
type handover struct {
	via    string // "mcp" or "exchange", for the record
	parent *delegation.Chain
	ask    delegation.Ask
	// client is the client that authenticated at the token endpoint; the zero
	// value elsewhere, and for who proved the parent's key and nothing else.
	client Client
	// card is the key card of the receiver, "" for none. It names the receiver
	// and its key, and cardOnce spends it.
	card     string
	cardOnce audit.Effect
	// asks says that a client asks for itself, so that it gets no scope but those
	// it is registered with.
	asks       bool
	registered []string
	// rest says that without scopes everything is asked for that the parent has
	// for the audience, and without audience that of the parent. Otherwise no
	// scope is asked for.
	rest bool
	// proved is the thumbprint of the key that the request proved, "" for none.
	proved string
	// handle is the hash of the handle that is redeemed, "" for none.
	handle string
	// keyProved says that the request shows possession of ask.Key besides.
	keyProved bool
}

// Delegate hands a part of parent's authority to an agent (delegation.md §7,
// Online): parent is the token the request was authorised with, ask.Receiver
// the agent's id or name. The decision, whichever it is, is recorded before it
// is returned. The error is a *delegation.Refusal or an *Error.
func (s *Server) Delegate(ctx context.Context, parent *delegation.Chain, ask delegation.Ask) (delegation.Issued, error) {
	// At MCP the caller is the subject's own last party.
	ask.Caller = ""
	h := &handover{via: "mcp", parent: parent, ask: ask}
	draft, issued, err := s.deriveFor(ctx, h)
	if err != nil {
		return delegation.Issued{}, s.refuseHandover(ctx, h, err)
	}
	if err := s.cfg.Commit.Commit(ctx, audit.Change{Entries: []audit.Entry{h.issued(draft, issued)}}); err != nil {
		s.unavailable(ctx, "recording a delegation", err)
		return delegation.Issued{}, oauthError(err)
	}
	return issued, nil
}

// deriveFor is derive for a receiver that must be named.
func (s *Server) deriveFor(ctx context.Context, h *handover) (delegation.Draft, delegation.Issued, error) {
	if h.ask.Receiver == "" {
		return delegation.Draft{}, delegation.Issued{}, badRequest("invalid_request", "name the agent that shall use the token")
	}
	return s.derive(ctx, h)
}

// refuseHandover records a refusal, and returns what to answer.
func (s *Server) refuseHandover(ctx context.Context, h *handover, err error) error {
	entry := h.entry()
	if !refusalOf(&entry, err) {
		s.unavailable(ctx, "delegation", err)
		return oauthError(err)
	}
	if err := s.cfg.Registry.record(ctx, entry); err != nil {
		s.unavailable(ctx, "recording a refused delegation", err)
		return oauthError(err)
	}
	return err
}

// derive is the one function that hands authority on (delegation.md §7,
// Online): it decides, and signs what is to be handed out. Nothing of it may
// leave before it is recorded. The error is a *delegation.Refusal, an *Error, or
// a failure of the database.
func (s *Server) derive(ctx context.Context, h *handover) (delegation.Draft, delegation.Issued, error) {
	fail := func(err error) (delegation.Draft, delegation.Issued, error) {
		return delegation.Draft{}, delegation.Issued{}, err
	}
	now, ask := s.cfg.Now(), &h.ask
	if err := s.name(ctx, h); err != nil {
		return fail(err)
	}
	standing, err := s.cfg.Registry.Standing(ctx, h.standsOn(s.cfg.Registry.chainQuery(h.parent)))
	if err != nil {
		return fail(err)
	}
	if standing.Dead {
		return fail(&delegation.Refusal{Reason: delegation.Revoked, Part: -1})
	}
	if err := s.user(ctx, h, standing); err != nil {
		return fail(err)
	}
	if err := s.mayHandOn(ctx, h); err != nil {
		return fail(err)
	}
	if ask.GrantDepth, err = s.fromGrant(ctx, h.parent); err != nil {
		return fail(err)
	}
	cat, err := s.cfg.Registry.Catalog(ctx, slices.Concat(ask.Scopes, ask.Audience)...)
	if err != nil {
		return fail(err)
	}
	if err := h.target(cat, standing); err != nil {
		return fail(err)
	}
	if ask.AAT {
		if err := h.aat(cat); err != nil {
			return fail(err)
		}
	}
	draft, err := h.parent.Exchange(*ask, now)
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

// mayHandOn: an agent whose manifest lacks the capability `delegate` gets
// nothing handed on by this server (delegation.md §10). Narrowing for oneself
// is no handing on.
func (s *Server) mayHandOn(ctx context.Context, h *handover) error {
	holder := h.parent.ClientID()
	other := h.ask.Caller != "" && h.ask.Caller != holder
	rebound := !h.ask.Key.IsZero() && h.ask.Key.Thumbprint() != h.parent.JKT()
	if h.ask.Receiver == "" && !other && !rebound {
		return nil
	}
	a, err := s.agentOf(ctx, holder)
	if errors.Is(err, ErrNotFound) {
		return nil // a client
	}
	if err != nil {
		return err
	}
	// That it is not suspended is known from step 15.
	if !s.cfg.Now().Before(a.ManifestExpires) || a.Depth() == 0 {
		return errDenied("the manifest of the calling agent does not declare the capability delegate")
	}
	return nil
}

// fromGrant is how many hand-overs the grant behind a token allows (a chain
// carries its own depth), and refuses at an hour at which the grant gives none:
// "checked when a token is issued" (delegation.md §5). Of the grant it counts
// what it was at most a second ago; whether it was revoked is known from step 15.
func (s *Server) fromGrant(ctx context.Context, parent *delegation.Chain) (int, error) {
	id := parent.GrantID()
	if id == parent.Principal() {
		return delegation.DefaultMaxDepth, nil // a client's own: there is no grant of anybody
	}
	now := s.cfg.Now()
	grant, err := s.grants.read(id, now, func() (Grant, error) { return s.cfg.Store.Grant(ctx, id) })
	if errors.Is(err, ErrNotFound) {
		return delegation.DefaultMaxDepth, nil
	}
	if err != nil {
		return 0, err
	}
	if hours, err := ParseHours(grant.Hours); err != nil || !hours.Include(now) {
		return 0, errHours
	}
	return grant.MaxDepth, nil
}

// target fills in the audience and leaves the scopes that the person holds now.
func (h *handover) target(cat *Catalog, standing Standing) error {
	ask := &h.ask
	for _, scope := range ask.Scopes {
		if _, ok := cat.Scope(scope); !ok {
			return errScope("a scope is not known here")
		}
	}
	audience, refused := canonicalResources(cat, ask.Audience)
	if refused != nil {
		return refused
	}
	for _, id := range audience {
		if !slices.Contains(h.parent.Audience(), id) {
			return &delegation.Refusal{Reason: delegation.AudienceWidened, Dimension: delegation.DimensionAudience, Detail: id, Part: -1}
		}
	}
	if len(audience) == 0 {
		audience = h.audience(cat)
	}
	if h.rest && len(ask.Scopes) == 0 {
		ask.Scopes = slices.DeleteFunc(h.parent.Scopes(), func(scope string) bool {
			return !cat.belongs(scope, audience) || h.asks && !slices.Contains(h.registered, scope)
		})
		if len(ask.Scopes) == 0 && len(h.parent.Scopes()) > 0 {
			return errScope("none of the token's scopes belongs to the resource and to the client")
		}
	}
	for _, scope := range ask.Scopes {
		// Said before what is left out is left out, or the refusal would be
		// about something else.
		if !h.parent.HasScope(scope) {
			return &delegation.Refusal{Reason: delegation.NotNarrower, Dimension: delegation.DimensionScope, Detail: scope, Part: -1}
		}
		if h.asks && !slices.Contains(h.registered, scope) {
			return errScope("the client is not registered for this scope")
		}
		if !cat.belongs(scope, audience) {
			return errScope("scope " + scope + " does not belong to the audience")
		}
	}
	held := standing.Held(cat, ask.Scopes)
	if len(ask.Scopes) > 0 && len(held) == 0 {
		return errDenied("the person behind this token holds none of the scopes any more")
	}
	ask.Scopes, ask.Audience, ask.AudienceAware = held, audience, cat.Aware(audience)
	return nil
}

// audience is that of a request that names none.
func (h *handover) audience(cat *Catalog) []string {
	if !h.rest {
		return cat.Default(h.ask.Scopes)
	}
	if len(h.ask.Scopes) == 0 {
		return h.parent.Audience()
	}
	// What the parent is for, as far as it owns what is asked.
	own := slices.DeleteFunc(h.parent.Audience(), func(id string) bool {
		return !slices.ContainsFunc(h.ask.Scopes, func(scope string) bool { return cat.belongs(scope, []string{id}) })
	})
	if len(own) == 0 {
		return cat.Default(h.ask.Scopes)
	}
	return own
}
