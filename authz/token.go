package authz

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/kavach-dev/kavach/delegation"
)

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
	if f.proof != nil && s.cfg.Nonces != nil {
		// RFC 9449 section 8.2: a new one with a success spares the client a
		// refusal.
		w.Header().Set("DPoP-Nonce", s.cfg.Nonces.Nonce(f.jkt(), f.now))
	}
	WriteJSON(w, http.StatusOK, answer)
}

// token decides a request and commits what it issues.
func (s *Server) token(w http.ResponseWriter, r *http.Request, f *flow) (map[string]any, error) {
	if err := ParseForm(w, r); err != nil {
		return nil, err
	}
	grant, err := s.grantHandler(r.PostForm.Get("grant_type"))
	if err != nil {
		return nil, err
	}
	f.grantType = r.PostForm.Get("grant_type")
	return grant(r.Context(), r, f)
}

// granter decides a token request of one grant type and commits its answer.
type granter func(ctx context.Context, r *http.Request, f *flow) (map[string]any, error)

// grantHandler finds who serves a grant type. A list of several is an unknown
// one.
func (s *Server) grantHandler(grantType string) (granter, error) {
	switch grantType {
	case "":
		return nil, badRequest("invalid_request", "grant_type is missing")
	case GrantCode:
		return s.granted(s.prepareCode), nil
	case GrantRefresh:
		return s.granted(s.prepareRefresh), nil
	case GrantClientCredentials:
		return s.granted(s.prepareCredentials), nil
	case GrantExchange:
		return s.exchange, nil
	}
	return nil, badRequest("unsupported_grant_type", "authorization_code, refresh_token, client_credentials and token exchange are served")
}

// granted serves a grant of fosite's, whose pre-filter is prepare.
func (s *Server) granted(prepare func(context.Context, *http.Request, *flow) error) granter {
	return func(ctx context.Context, r *http.Request, f *flow) (map[string]any, error) {
		if err := s.identify(ctx, r, f, ""); err != nil {
			return nil, err
		}
		if !f.client.May(f.grantType) {
			return nil, badRequest("unauthorized_client", "the client is not registered for this grant type")
		}
		if r.PostForm.Has("authorization_details") && f.grantType != GrantClientCredentials {
			return nil, errGrantDetails
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
		if err := s.commitToken(ctx, f); err != nil {
			return nil, err
		}
		return answer, nil
	}
}

// identify finds out who sends a token request, and which key it proves.
// credential is the token that the request presents as a subject, "" for none.
// Nothing is spent yet.
func (s *Server) identify(ctx context.Context, r *http.Request, f *flow, credential string) error {
	auth, err := s.cfg.Registry.Authenticate(ctx, r)
	if err != nil {
		return err
	}
	f.client = auth.Client
	if f.proof, f.proofOnce, err = s.proof(r, credential); err != nil {
		return err
	}
	if refused := checkProof(f.client, f.proof); refused != nil {
		return refused
	}
	// From here on the request gets a decision, and that spends the assertion.
	f.assertion = auth.Once
	return nil
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
	case !f.boundTo(row.JKT):
		// RFC 9449 section 10. The code stays what it was.
		return reasoned{errGrant("the code is bound to another key"), string(delegation.HolderBindingFailed)}
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
	if row.ClientID == f.client.ID && !f.boundTo(row.JKT) {
		// RFC 9449 section 5. Who has the token without its key has nothing, and
		// must not end the family either.
		return reasoned{errGrant("the refresh token is bound to another key"), string(delegation.HolderBindingFailed)}
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
