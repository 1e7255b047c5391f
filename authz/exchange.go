package authz

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/kavach-dev/kavach/delegation"
)

// GrantExchange is the grant type of RFC 8693.
const GrantExchange = "urn:ietf:params:oauth:grant-type:token-exchange"

// Types of tokens, as parameters of an exchange name them.
const (
	TokenTypeAccess   = "urn:ietf:params:oauth:token-type:access_token"
	TokenTypeJWT      = "urn:ietf:params:oauth:token-type:jwt"
	TokenTypeHandle   = "urn:kavach:token-type:handle"
	TokenTypeAgentKey = "urn:kavach:token-type:agent-key"
)

// MayExchange says whether the client may exchange tokens at all (§3b): agents,
// and static clients that authenticate and were given scopes, for themselves
// (client credentials) or for nothing but this.
func (c Client) MayExchange() bool {
	if c.Kind == KindAgent {
		return true
	}
	return c.Kind == KindStatic && !c.Public() && len(c.Scopes) > 0 && (c.May(GrantClientCredentials) || c.May(GrantExchange))
}

// exchange serves the grant of RFC 8693: it finds out who asks for what and
// whether the subject is theirs, and has derive decide. What is issued is
// committed together with everything that may come once.
func (s *Server) exchange(ctx context.Context, r *http.Request, f *flow) (map[string]any, error) {
	// Who sends it comes first: a refusal to a client that authenticated is
	// recorded as its own.
	if err := s.sender(ctx, r, f); err != nil {
		return nil, err
	}
	asked, refused := readExchange(r.PostForm)
	if refused != nil {
		return nil, refused
	}
	h, err := s.subject(ctx, f, r.PostForm, asked)
	if err != nil {
		return nil, err
	}
	// "A bound subject never yields an unbound token: without a key for the
	// receiver the answer is a handle" (delegation.md §7).
	if asked.handle || h.parent.Bound() && h.ask.Receiver != "" && h.ask.Key.IsZero() && !h.ask.AAT {
		return s.exchangeHandle(ctx, f, h, asked)
	}
	draft, issued, err := s.derive(ctx, h)
	if err == nil && issued.JKT == "" && f.client.BoundTokens {
		err = errProof("this client gets only tokens that are bound by a DPoP proof")
	}
	if h.cardOnce != nil {
		f.effects = append(f.effects, h.cardOnce)
		f.lost = errCardReplayed
	}
	if err != nil {
		return nil, exchangeError(f, h, err)
	}
	*f.entry = h.issued(draft, issued)
	s.noteKey(f, h, issued)
	if err := s.commitToken(ctx, f); err != nil {
		return nil, err
	}
	return render(issued, asked.answers), nil
}

// exchangeHandle answers with a handle for the agent that is named.
func (s *Server) exchangeHandle(ctx context.Context, f *flow, h *handover, asked exchangeRequest) (map[string]any, error) {
	made, err := s.makeHandle(ctx, h, asked.subject)
	if err != nil {
		return nil, exchangeError(f, h, err)
	}
	f.effects = append(f.effects, s.cfg.Store.AddHandle(made.row))
	*f.entry = made.entry
	if err := s.commitToken(ctx, f); err != nil {
		return nil, err
	}
	return render(made.issued, TokenTypeHandle), nil
}

// sender finds out who sends an exchange. It may be nobody that a client is
// known of: then it counts what key it proves ("the client that authenticated,
// or who proves the subject's key").
func (s *Server) sender(ctx context.Context, r *http.Request, f *flow) error {
	subject := r.PostForm.Get("subject_token") // which ath may be of
	if !identifies(r) {
		var err error
		f.proof, f.proofOnce, err = s.proof(r, subject)
		return err
	}
	if err := s.identify(ctx, r, f, subject); err != nil {
		return err
	}
	if !f.client.MayExchange() && !(f.client.Kind == KindStatic && f.client.Public()) {
		return errMayNotExchange
	}
	return nil
}

// identifies says whether a request names a client.
func identifies(r *http.Request) bool {
	return len(r.Header.Values("Authorization")) > 0 || slices.ContainsFunc(
		[]string{"client_id", "client_secret", "client_assertion", "client_assertion_type"}, r.PostForm.Has)
}

// subject verifies the subject, and that whoever sends the request may exchange
// it: steps 0 to 12 and 14 of delegation.md §6. Step 15 is derive's.
func (s *Server) subject(ctx context.Context, f *flow, form url.Values, asked exchangeRequest) (*handover, error) {
	if asked.subjectType == TokenTypeHandle {
		if asked.narrows() {
			return nil, badRequest("invalid_request", "a handle stands for what was asked when it was made; send nothing but it")
		}
		h, err := s.redeem(ctx, f, asked.subject)
		if err == nil {
			f.about(h)
		}
		return h, err
	}
	parent, err := s.cfg.Registry.verifier.Verify(asked.subject, f.now)
	if err != nil {
		return nil, subjectError(err)
	}
	h := &handover{via: "exchange", parent: parent, ask: asked.ask, card: asked.card, rest: true, proved: f.jkt(), client: f.client}
	if h.ask.TTL == 0 {
		h.ask.TTL = s.cfg.AgentTTL
	}
	if err := s.mayExchange(ctx, f, h); err != nil {
		return nil, err
	}
	if h.ask.Key.IsZero() && h.card == "" && f.proof != nil && h.ask.Receiver == "" {
		// The request's own proof "binds the result only if no other key is
		// given".
		h.ask.Key, h.ask.KeyByProof = f.proof.Key, true
	}
	return h, s.proveKey(form, f, h)
}

// mayExchange finds out on whose behalf the subject is exchanged, and refuses
// who has no part in it: "possession of an unbound token is not holding it"
// (delegation.md §7). Nothing falls back to the client's own authority.
func (s *Server) mayExchange(ctx context.Context, f *flow, h *handover) error {
	parties := h.parent.Parties()
	last := parties[len(parties)-1]
	holds := h.parent.Bound() && f.jkt() == h.parent.JKT()
	known := f.client.ID != "" && !f.client.Public()
	if known || holds {
		f.about(h)
	}
	switch {
	case h.parent.Bound() && !holds:
		return reasoned{
			badRequest("invalid_request", "subject_token is bound: prove its key with a DPoP proof for this endpoint"),
			string(delegation.HolderBindingFailed),
		}
	case known && (holds || f.client.ID == last.ID || f.client.ID == h.parent.MayAct()):
		h.ask.Caller, h.asks, h.registered = f.client.ID, true, f.client.Scopes
		return nil
	case known:
		return reasoned{badRequest("unauthorized_client", "subject_token was not issued to this client"), "not_owner"}
	case !holds:
		return unauthenticated()
	}
	// Who proves the key, and is no client that authenticates. A link's client
	// is its delegator's word; of a single token it is whom we issued it to.
	if h.parent.Len() > 1 {
		return nil
	}
	holder, err := s.cfg.Registry.cachedClient(ctx, last.ID)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	// To leave the authentication out must not help: §3b binds the client all
	// the same.
	if public := holder.Kind == KindStatic && holder.Public(); !public {
		if !holder.MayExchange() {
			return errMayNotExchange
		}
		h.asks, h.registered = true, holder.Scopes
	}
	return nil
}

// errMayNotExchange is the answer of §3b.
var errMayNotExchange = badRequest("unauthorized_client", "token exchange is for agents and for clients that an operator gave scopes")

// about makes the record of the request one of the handover, which is known
// from here on.
func (f *flow) about(h *handover) {
	entry := h.entry()
	f.entry = &entry
}

// subjectError is the answer to a subject_token that does not verify: it says
// nothing about why, the record does.
func subjectError(err error) error {
	reason := delegation.ReasonOf(err)
	if reason == "" {
		return err
	}
	return reasoned{badRequest("invalid_request", "subject_token is not a live access token or chain of this issuer"), string(reason)}
}

// render is the answer of RFC 8693 section 2.2.1.
func render(issued delegation.Issued, as string) map[string]any {
	kind := delegation.Bearer
	switch {
	case as == TokenTypeHandle:
		kind = "N_A"
	case as == TokenTypeAAT:
		kind = aatScheme
	case issued.JKT != "":
		kind = delegation.DPoP
	}
	answer := map[string]any{
		"access_token": issued.Token, "issued_token_type": as, "token_type": kind,
		"expires_in": int64(issued.ExpiresIn.Seconds()), "scope": strings.Join(issued.Scopes, " "),
	}
	tools := issued.Tools
	if len(tools) == 0 {
		tools = nil
	}
	if details := delegation.Details(tools, issued.Limits); details != nil {
		// RFC 9396 section 7: "MUST also return the authorization_details as
		// granted".
		answer["authorization_details"] = details
	}
	return answer
}
