package authz

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
)

const introspectEndpoint = "/oauth/introspect"

// introspection is the answer of RFC 7662 §2.2 about an active token.
type introspection struct {
	Active    bool              `json:"active"`
	Issuer    string            `json:"iss"`
	Subject   string            `json:"sub"`
	ClientID  string            `json:"client_id"`
	Audience  []string          `json:"aud,omitempty"`
	Scope     string            `json:"scope"`
	TokenType string            `json:"token_type,omitempty"`
	Expires   int64             `json:"exp"`
	IssuedAt  int64             `json:"iat"`
	JTI       string            `json:"jti,omitempty"`
	Grant     string            `json:"gid"`
	Confirms  map[string]string `json:"cnf,omitempty"`
	Act       *actor            `json:"act,omitempty"`
	Details   []any             `json:"authorization_details,omitempty"`
}

// actor is the nested act of RFC 8693 §4.1.
type actor struct {
	Sub string `json:"sub"`
	Act *actor `json:"act,omitempty"`
}

// inactive is the answer to every other question: whether the token never was,
// has ended, or is nothing to the caller cannot be told apart.
type inactive struct {
	Active bool `json:"active"`
}

// HandleIntrospect is POST /oauth/introspect (RFC 7662). It has no CORS: who
// calls it holds a secret.
func (g *Registry) HandleIntrospect(w http.ResponseWriter, r *http.Request) {
	answer, err := g.introspect(w, r)
	if err != nil {
		g.logFailure(r.Context(), "introspection", err)
		WriteError(w, err)
		return
	}
	WriteJSON(w, http.StatusOK, answer)
}

func (g *Registry) introspect(w http.ResponseWriter, r *http.Request) (any, error) {
	ctx := r.Context()
	refuse := func(err error) error {
		source := addressKey(ClientAddress(r, g.cfg.TrustedProxies))
		g.cfg.Refusals.Refuse(source, introspectEndpoint, audit.Entry{
			Action: audit.TokenIntrospect, Resource: introspectEndpoint, Result: resultOf(err), Reason: oauthError(err).Code,
		})
		return err
	}
	formErr := ParseForm(w, r)
	var tooLarge *Error
	if errors.As(formErr, &tooLarge) && tooLarge.Status == http.StatusRequestEntityTooLarge && r.Header.Get("Authorization") != "" {
		// No token of ours is that long: who authenticates by header is told
		// what is told of all garbage.
		r.PostForm, formErr = map[string][]string{"token": {""}}, nil
	}
	if formErr != nil {
		return nil, refuse(formErr)
	}
	auth, err := g.Authenticate(ctx, r)
	caller := auth.Client
	if err == nil && caller.Public() {
		err = unauthenticated() // RFC 7662 §2.1: "MUST also require some form of authorization"
	}
	if err != nil {
		return nil, refuse(err)
	}
	if !caller.MayIntrospect() { // §3b
		err := badRequest("unauthorized_client", "introspection is for clients added by the operator")
		return nil, g.recordIntrospection(ctx, auth, audit.Entry{Result: audit.Denied, Reason: err.Code}, err)
	}
	if !r.PostForm.Has("token") {
		err := badRequest("invalid_request", "token is missing")
		return nil, g.recordIntrospection(ctx, auth, audit.Entry{Result: audit.Denied, Reason: err.Code}, err)
	}
	answer, entry, err := g.describe(ctx, caller, r.PostForm.Get("token"))
	if err != nil {
		auth.Once = nil // it was not answered
		return nil, g.recordIntrospection(ctx, auth, audit.Entry{Result: audit.Failed, Reason: "temporarily_unavailable"}, err)
	}
	if answer == nil {
		return inactive{}, g.recordIntrospection(ctx, auth, entry, nil)
	}
	return answer, g.recordIntrospection(ctx, auth, entry, nil)
}

// recordIntrospection records, which spends the caller's assertion, and returns
// the error to answer with, if any.
func (g *Registry) recordIntrospection(ctx context.Context, auth Authenticated, e audit.Entry, answer error) error {
	e.Action, e.Agent = audit.TokenIntrospect, auth.Client.ID
	err := spend(ctx, g.cfg.Commit, auth.Once, e)
	var refusal *Error
	if err != nil && (answer == nil || errors.As(answer, &refusal)) {
		return err // a refusal too "is recorded, then answered" (design D3)
	}
	return answer
}

// describe says what caller may know of a token: nil is inactive. The entry
// says why. An error means that nobody knows whether the token is active.
func (g *Registry) describe(ctx context.Context, caller Client, token string) (any, audit.Entry, error) {
	if !looksLikeAccessToken(token) {
		return g.describeRefresh(ctx, caller, token)
	}
	chain, err := g.verifier.Verify(token, g.now())
	if err != nil {
		return nil, audit.Entry{Result: audit.Denied, Reason: string(delegation.ReasonOf(err))}, nil
	}
	entry := audit.Entry{
		Result: audit.Denied, Sub: chain.Principal(), Path: chain.Path(),
		Grant: chain.GrantID(), Chain: auditChain(chain), Anc: chain.Ancestry(),
	}
	catalog, err := g.Catalog(ctx, chain.Audience()...)
	if err != nil {
		return nil, entry, err
	}
	if !mayKnow(caller, chain, catalog) {
		entry.Reason = "not_owner"
		return nil, entry, nil
	}
	standing, err := g.standingOf(ctx, chain)
	if err != nil {
		return nil, entry, err
	}
	if standing.Dead {
		entry.Reason = string(delegation.Revoked)
		return nil, entry, nil
	}
	// "Losing a role takes effect at the next refresh, introspection and feed"
	// (§4).
	scopes := standing.Held(catalog, chain.Scopes())
	if len(scopes) == 0 && len(chain.Scopes()) > 0 {
		entry.Reason = "access_denied"
		return nil, entry, nil
	}
	entry.Result = audit.Allowed
	return describeChain(chain, scopes), entry, nil
}

func describeChain(chain *delegation.Chain, scopes []string) introspection {
	answer := introspection{
		Active: true, Issuer: chain.Issuer(), Subject: chain.Principal(), ClientID: chain.ClientID(),
		Audience: chain.Audience(), Scope: strings.Join(scopes, " "), TokenType: chain.Scheme(),
		Expires: chain.Expires().Unix(), IssuedAt: chain.IssuedAt().Unix(), JTI: chain.JTI(), Grant: chain.GrantID(),
	}
	if chain.Bound() {
		answer.Confirms = map[string]string{"jkt": chain.JKT()}
	}
	if len(chain.Ancestry()) > 0 || chain.Len() > 1 {
		for _, id := range chain.Path()[1:] {
			answer.Act = &actor{Sub: id, Act: answer.Act}
		}
	}
	if chain.Restricts(delegation.DimensionTools) || !chain.Limits().IsZero() || !chain.Plain() {
		// Who is told of the scopes alone would take them for all there is.
		answer.Details = delegation.Details(chain.Tools(), chain.Limits())
	}
	return answer
}

// mayKnow: the token's owner, and the introspection client of a resource that
// the token is for (§2).
func mayKnow(caller Client, chain *delegation.Chain, catalog *Catalog) bool {
	if owner := chain.Links()[0]; owner.ClientID == caller.ID {
		return true
	}
	return slices.ContainsFunc(chain.Audience(), func(id string) bool {
		resource, ok := catalog.Resource(id)
		return ok && resource.Introspector != "" && resource.Introspector == caller.ID
	})
}

// describeRefresh: "refresh tokens only to their owner" (§2).
func (g *Registry) describeRefresh(ctx context.Context, caller Client, token string) (any, audit.Entry, error) {
	unknown := audit.Entry{Result: audit.Denied, Reason: "unknown_token"}
	if g.cfg.Flows == nil || token == "" {
		return nil, unknown, nil
	}
	refresh, grant, err := g.cfg.Flows.RefreshToken(ctx, HashSecret(token))
	if errors.Is(err, ErrNotFound) {
		return nil, unknown, nil
	}
	if err != nil {
		return nil, unknown, err
	}
	entry := audit.Entry{Result: audit.Denied, Sub: grant.Sub, Grant: grant.ID}
	now := g.now()
	switch {
	case refresh.ClientID != caller.ID:
		entry.Reason = "not_owner"
		return nil, entry, nil
	case !refreshLive(refresh, grant, now):
		entry.Reason = string(delegation.Expired)
		return nil, entry, nil
	}
	standing, err := g.Standing(ctx, grantStanding(grant, now))
	if err != nil {
		return nil, entry, err
	}
	if standing.Dead {
		entry.Reason = string(delegation.Revoked)
		return nil, entry, nil
	}
	catalog, err := g.Catalog(ctx, grant.Scopes...)
	if err != nil {
		return nil, entry, err
	}
	scopes := standing.Held(catalog, grant.Scopes)
	if len(scopes) == 0 { // a refresh would be refused
		entry.Reason = "access_denied"
		return nil, entry, nil
	}
	entry.Result = audit.Allowed
	return introspection{
		Active: true, Issuer: g.cfg.Issuer, Subject: grant.Sub, ClientID: refresh.ClientID,
		Scope:   strings.Join(scopes, " "),
		Expires: refresh.Expires.Unix(), IssuedAt: refresh.Created.Unix(), Grant: grant.ID,
	}, entry, nil
}

// refreshLive says that a refresh token could be used now.
func refreshLive(t RefreshToken, grant Grant, now time.Time) bool {
	return t.Used.IsZero() && now.Before(t.Expires) && now.Before(t.FamilyEnd) && grant.Live(now)
}

// grantStanding is what a code or a refresh token stands on.
func grantStanding(grant Grant, now time.Time) StandingQuery {
	return StandingQuery{
		Principal: grant.Sub, Parties: []string{grant.ClientID}, Grants: []string{grant.ID}, Now: now,
	}
}

// looksLikeAccessToken tells access tokens and chains, which have at least two
// dots, from everything else.
func looksLikeAccessToken(token string) bool { return strings.Count(token, ".") >= 2 }
