package authz

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
)

// errLost says that another request was faster.
var errLost = &Error{Status: http.StatusBadRequest, Code: "invalid_grant", Description: "it was used at the same moment"}

// serveToken answers the token endpoint (RFC 6749 section 3.2). Everything is
// decided first, then committed in one Change, then answered: nothing leaves
// before its record is durable (design D3).
func (s *Server) serveToken(w http.ResponseWriter, r *http.Request) {
	f := &flow{now: s.cfg.Now()}
	answer, err := s.token(w, r, f)
	if err != nil {
		s.refuseToken(w, r, f, err)
		return
	}
	WriteJSON(w, http.StatusOK, answer)
}

// token decides a request and commits what it issues.
func (s *Server) token(w http.ResponseWriter, r *http.Request, f *flow) (map[string]any, error) {
	ctx := r.Context()
	if err := ParseForm(w, r); err != nil {
		return nil, err
	}
	prepare, err := s.grantHandler(r.PostForm.Get("grant_type"))
	if err != nil {
		return nil, err
	}
	f.grantType = r.PostForm.Get("grant_type")
	if f.client, err = s.cfg.Registry.Authenticate(ctx, r); err != nil {
		return nil, err
	}
	if !f.client.May(f.grantType) {
		return nil, badRequest("unauthorized_client", "the client is not registered for this grant type")
	}
	if err := prepare(ctx, r, f); err != nil {
		return nil, err
	}
	answer, err := s.provider.answerToken(ctx, r, f)
	if err != nil {
		return nil, err
	}
	if f.client.Used.IsZero() && f.client.Kind != KindAgent {
		f.effects = append(f.effects, s.cfg.Registry.UseClient(f.client.ID))
	}
	err = s.cfg.Commit.Commit(ctx, audit.Change{
		Effects: f.effects,
		Entries: []audit.Entry{s.issueEntry(f)},
		// Somebody redeemed it between our look and our commit: a lost race,
		// which harms nobody.
		Else: &audit.Change{Entries: []audit.Entry{s.refusalEntry(f, errLost, "race_lost")}},
	})
	if errors.Is(err, audit.ErrConflict) {
		return nil, recorded{errLost}
	}
	if err != nil {
		return nil, recorded{fmt.Errorf("recording a token: %w", err)}
	}
	return answer, nil
}

// grantHandler finds the pre-filter of a grant type. A list of several is an
// unknown one.
func (s *Server) grantHandler(grantType string) (func(context.Context, *http.Request, *flow) error, error) {
	switch grantType {
	case "":
		return nil, badRequest("invalid_request", "grant_type is missing")
	case GrantCode:
		return s.prepareCode, nil
	case GrantRefresh:
		return s.prepareRefresh, nil
	case GrantClientCredentials:
		return s.prepareCredentials, nil
	}
	return nil, badRequest("unsupported_grant_type", "authorization_code, refresh_token and client_credentials are served")
}

// prepareCode decides about a code before fosite does: fosite revokes a used
// code's session before it looks at the verifier, and burns the challenge of a
// wrong one. Here a failed attempt changes nothing.
func (s *Server) prepareCode(ctx context.Context, r *http.Request, f *flow) error {
	form := r.PostForm
	code := form.Get("code")
	if code == "" {
		return badRequest("invalid_request", "code is missing")
	}
	row, err := s.cfg.Store.Code(ctx, HashSecret(code))
	if errors.Is(err, ErrNotFound) {
		return errGrant("the code is not valid")
	}
	if err != nil {
		return err
	}
	switch {
	case row.ClientID != f.client.ID:
		return errGrant("the code is not valid") // not a word about whose it is
	case row.RedirectSent && form.Get("redirect_uri") != row.RedirectURI,
		form.Has("redirect_uri") && form.Get("redirect_uri") != row.RedirectURI:
		// RFC 6749 section 4.1.3: "if included ... their values MUST be identical".
		return errGrant("redirect_uri is not that of the authorization request")
	case !verifies(form.Get("code_verifier"), row.Challenge):
		return errGrant("code_verifier does not fit the challenge of the authorization request")
	}
	f.code = row
	f.plan.sub, f.plan.gid = row.Sub, row.GrantID
	if !row.Used.IsZero() {
		return s.usedCode(ctx, r, f)
	}
	if !f.now.Before(row.Expires) {
		return errGrant("the code has expired")
	}
	f.grant = Grant{
		ID: row.GrantID, Kind: GrantAuthorization, Sub: row.Sub, ClientID: row.ClientID, RedirectURI: row.RedirectURI,
		Scopes: row.Scopes, Resources: row.Resources, MaxDepth: row.MaxDepth,
		Created: f.now, Used: f.now, Expires: f.now.Add(s.cfg.RefreshMax),
	}
	standing, err := s.cfg.Registry.Standing(ctx, grantStanding(f.grant, f.now))
	if err != nil {
		return err
	}
	return s.prepareGranted(ctx, r, f, standing)
}

// usedCode is a code that comes again, with the right verifier, from its own
// client: within two seconds a lost race; later the code, or the client, is in
// other hands, and the grant ends (authorization-server.md §2, "A used code").
func (s *Server) usedCode(ctx context.Context, r *http.Request, f *flow) error {
	if f.now.Sub(f.code.Used) < codeRace {
		return reasoned{errGrant("the code was used already"), "race_lost"}
	}
	_, err := s.provider.answerToken(ctx, r, f) // fosite's own answer to a used code: revoke
	if err == nil {
		return errors.New("authz: a used code was accepted")
	}
	return reasoned{errGrant("the code was used already"), "code_reuse"}
}

// verifies is PKCE's S256 (RFC 7636 section 4.6), for verifiers of its section
// 4.1: 43 to 128 unreserved characters.
func verifies(verifier, challenge string) bool {
	if len(verifier) < 43 || len(verifier) > 128 {
		return false
	}
	for i := range len(verifier) {
		c := verifier[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("-._~", rune(c)) {
			return false
		}
	}
	sum := sha256.Sum256([]byte(verifier))
	want := base64.RawURLEncoding.EncodeToString(sum[:])
	return subtle.ConstantTimeCompare([]byte(want), []byte(challenge)) == 1
}

// prepareRefresh decides about a refresh token: whose it is, whether it comes
// again, and whether everything it stands on still does.
func (s *Server) prepareRefresh(ctx context.Context, r *http.Request, f *flow) error {
	token := r.PostForm.Get("refresh_token")
	if token == "" {
		return badRequest("invalid_request", "refresh_token is missing")
	}
	row, grant, err := s.cfg.Store.RefreshToken(ctx, HashSecret(token))
	if errors.Is(err, ErrNotFound) {
		return errGrant("the refresh token is not valid")
	}
	if err != nil {
		return err
	}
	f.refresh, f.grant = row, grant
	f.plan.sub, f.plan.gid = grant.Sub, grant.ID
	if !grant.Live(f.now) {
		ended := errGrant("the authorization has ended")
		if grant.Revoked.IsZero() {
			return ended
		}
		return reasoned{ended, string(delegation.Revoked)}
	}
	used := !row.Used.IsZero()
	if row.ClientID != f.client.ID || used && f.now.Sub(row.Used) >= s.cfg.RefreshReplay {
		f.reuse = true
		if _, err := s.provider.answerToken(ctx, r, f); err == nil {
			return errors.New("authz: a used refresh token was accepted")
		}
		return reasoned{errGrant("the refresh token was used already"), "refresh_reuse"}
	}
	if used {
		return reasoned{errGrant("the refresh token was used already"), "race_lost"}
	}
	if !f.now.Before(row.Expires) {
		return errGrant("the refresh token has expired")
	}
	if !MatchRedirect(f.client, grant.RedirectURI) {
		return errGrant("the client has changed since it was approved")
	}
	standing, err := s.cfg.Registry.Standing(ctx, grantStanding(grant, f.now))
	if err != nil {
		return err
	}
	return s.prepareGranted(ctx, r, f, standing)
}

// prepareGranted plans a token from f.grant, narrowed to what the request asks
// and to what the person holds now.
func (s *Server) prepareGranted(ctx context.Context, r *http.Request, f *flow, standing Standing) error {
	if standing.Dead {
		return reasoned{errGrant("the authorization has ended"), string(delegation.Revoked)}
	}
	cat, err := s.cfg.Registry.Catalog(ctx, slices.Concat(f.grant.Scopes, f.grant.Resources)...)
	if err != nil {
		return err
	}
	held := standing.Held(cat, f.grant.Scopes)
	if len(held) == 0 {
		return errGrant("the person holds none of the granted scopes any more")
	}
	what, refused := narrow(cat, f.grant.Scopes, held, f.grant.Resources, r.PostForm.Get("scope"), r.PostForm["resource"])
	if refused == nil {
		refused = s.planToken(f, cat, what)
	}
	if refused != nil {
		return refused
	}
	return nil
}

// prepareCredentials is a client on its own account (RFC 6749 section 4.4): it
// may get the scopes it is registered with.
func (s *Server) prepareCredentials(ctx context.Context, r *http.Request, f *flow) error {
	if f.client.Public() || f.client.Kind != KindStatic {
		return badRequest("unauthorized_client", "client credentials are for clients that an operator added")
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
	if refused := s.planToken(f, cat, what); refused != nil {
		return refused
	}
	return nil
}
