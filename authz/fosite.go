package authz

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/handler/oauth2"
	"github.com/ory/fosite/handler/pkce"
	"github.com/ory/fosite/token/hmac"

	"github.com/kavach-dev/kavach/delegation"
)

// This file and fosite_*.go are where fosite's types end. fosite is a skeleton
// (design D5): it parses again what our pre-filters have already decided on,
// runs its handler chain, and calls the storage and strategy of this package,
// which read from the flow in the context and append effects to it. Nothing is
// written before the answer is complete.

// statePlaceholder stands where a client sent no state or a short one: fosite
// wants eight characters and its configuration cannot turn that off. It never
// leaves this file.
const statePlaceholder = "kavach-no-state"

// provider runs fosite.
type provider struct {
	fosite *fosite.Fosite
	hmac   *oauth2.HMACSHAStrategyUnPrefixed
}

// fositeConfig answers what fosite's own getters would fill in on first use,
// which is a data race.
type fositeConfig struct {
	*fosite.Config
	keys *Keyring
}

// secrets authenticate codes and refresh tokens.
func (c fositeConfig) secrets() [][]byte { return c.keys.Derive("fosite", 32) }

// GetGlobalSecret returns the secret that makes new ones.
func (c fositeConfig) GetGlobalSecret(context.Context) ([]byte, error) { return c.secrets()[0], nil }

// GetRotatedGlobalSecrets returns those of which they are still accepted.
func (c fositeConfig) GetRotatedGlobalSecrets(context.Context) ([][]byte, error) {
	return c.secrets()[1:], nil
}

// GetJWKSFetcherStrategy is never called: clients are authenticated by the
// registry.
func (fositeConfig) GetJWKSFetcherStrategy(context.Context) fosite.JWKSFetcherStrategy { return nil }

// newProvider composes by hand: compose.Compose loses overrides. PKCE comes
// after code.
func newProvider(s *Server) *provider {
	conf := fositeConfig{keys: s.cfg.Keys, Config: &fosite.Config{
		AccessTokenLifespan:      s.cfg.AccessTTL,
		RefreshTokenLifespan:     s.cfg.RefreshIdle,
		AuthorizeCodeLifespan:    s.cfg.CodeTTL,
		ScopeStrategy:            fosite.ExactScopeStrategy,
		AudienceMatchingStrategy: fosite.ExactAudienceMatchingStrategy,
		EnforcePKCE:              true,
		RedirectSecureChecker:    func(context.Context, *url.URL) bool { return true }, // decided at registration
		RefreshTokenScopes:       []string{},                                           // non-nil: no scope is needed for one
		OmitRedirectScopeParam:   true,
		SanitationWhiteList:      []string{"redirect_uri"},
		ClientSecretsHasher:      noHasher{},
		ClientAuthenticationStrategy: func(ctx context.Context, _ *http.Request, _ url.Values) (fosite.Client, error) {
			return flowFrom(ctx).fositeClient(), nil // authenticated by our pre-filter
		},
	}}
	p := &provider{hmac: oauth2.NewHMACSHAStrategyUnPrefixed(&hmac.HMACStrategy{Config: conf}, conf)}
	storage := flowStorage{s}
	strategy := flowStrategy{s, p.hmac}
	code := &oauth2.AuthorizeExplicitGrantHandler{
		AccessTokenStrategy: strategy, RefreshTokenStrategy: strategy, AuthorizeCodeStrategy: strategy,
		CoreStorage: storage, TokenRevocationStorage: storage, Config: conf,
	}
	proof := &pkce.Handler{AuthorizeCodeStrategy: strategy, Storage: storage, Config: conf}
	conf.AuthorizeEndpointHandlers = fosite.AuthorizeEndpointHandlers{code, proof}
	conf.TokenEndpointHandlers = fosite.TokenEndpointHandlers{
		code, proof,
		&oauth2.RefreshTokenGrantHandler{
			AccessTokenStrategy: strategy, RefreshTokenStrategy: strategy, TokenRevocationStorage: storage, Config: conf,
		},
		&oauth2.ClientCredentialsGrantHandler{
			HandleHelper: &oauth2.HandleHelper{AccessTokenStrategy: strategy, AccessTokenStorage: storage, Config: conf},
			Config:       conf,
		},
	}
	p.fosite = &fosite.Fosite{Store: storage, Config: conf}
	return p
}

// noHasher refuses: secrets are checked by the registry.
type noHasher struct{}

func (noHasher) Compare(context.Context, []byte, []byte) error {
	return errors.New("authz: fosite does not check secrets")
}

func (noHasher) Hash(context.Context, []byte) ([]byte, error) {
	return nil, errors.New("authz: fosite does not make secrets")
}

// issueCode makes the code of an approved request. f.code says what it stands
// for; its effect is appended to f.
func (p *provider) issueCode(ctx context.Context, f *flow) (string, error) {
	ctx = withFlow(ctx, f)
	form := url.Values{
		"response_type": {"code"}, "client_id": {f.client.ID}, "redirect_uri": {f.code.RedirectURI},
		"scope": {strings.Join(f.code.Scopes, " ")}, "audience": f.code.Resources,
		"state":          {statePlaceholder},
		"code_challenge": {f.code.Challenge}, "code_challenge_method": {"S256"},
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/oauth/authorize?"+form.Encode(), nil)
	if err != nil {
		return "", errorFrom(err)
	}
	request, err := p.fosite.NewAuthorizeRequest(ctx, r)
	if err != nil {
		return "", errorFrom(err)
	}
	for _, scope := range f.code.Scopes {
		request.GrantScope(scope)
	}
	for _, audience := range f.code.Resources {
		request.GrantAudience(audience)
	}
	response, err := p.fosite.NewAuthorizeResponse(ctx, request, &fosite.DefaultSession{Subject: f.code.Sub})
	if err != nil {
		return "", errorFrom(err)
	}
	return response.GetParameters().Get("code"), nil
}

// answerToken runs a token request that the pre-filter has let through, and
// returns the members of the answer.
func (p *provider) answerToken(ctx context.Context, r *http.Request, f *flow) (map[string]any, error) {
	ctx = withFlow(ctx, f)
	// fosite reads again what has been decided, not what was sent: to it
	// offline_access is a scope, and audience a parameter.
	form := maps.Clone(r.PostForm)
	form["scope"], form["audience"] = []string{strings.Join(f.plan.scopes, " ")}, f.plan.resources
	r = r.WithContext(ctx)
	r.PostForm, r.Form = form, form
	request, err := p.fosite.NewAccessRequest(ctx, r, &fosite.DefaultSession{Subject: f.plan.sub})
	if err != nil {
		return nil, errorFrom(err)
	}
	response, err := p.fosite.NewAccessResponse(ctx, request)
	if err != nil {
		return nil, errorFrom(err)
	}
	// fosite counts with its own clock, and knows nothing of narrowing.
	response.SetExpiresIn(f.plan.expires.Sub(f.now.Truncate(time.Second)))
	response.SetScopes(f.plan.scopes)
	response.SetTokenType(delegation.Bearer)
	if f.proof != nil {
		response.SetTokenType(delegation.DPoP) // RFC 9449 section 5
	}
	if f.plan.aat {
		response.SetTokenType(aatScheme)
		// RFC 9396 section 7: "MUST also return the authorization_details as
		// granted".
		response.SetExtra("authorization_details", delegation.Details(f.plan.tools, f.plan.limits))
	}
	return response.ToMap(), nil
}

// errorFrom turns what fosite says into our error. Its hints and debug texts
// never leave the process.
func errorFrom(err error) error {
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	var theirs *fosite.RFC6749Error
	if !errors.As(err, &theirs) || theirs.CodeField >= 500 || !strings.HasPrefix(theirs.ErrorField, "invalid_") &&
		!strings.HasPrefix(theirs.ErrorField, "un") {
		return err
	}
	return &Error{Status: theirs.CodeField, Code: theirs.ErrorField, Description: descriptions[theirs.ErrorField]}
}

// descriptions are what we say about the errors fosite finds.
var descriptions = map[string]string{
	"invalid_grant":   "the code or token is not valid for this request",
	"invalid_request": "the request is malformed",
	"invalid_scope":   "the scope cannot be granted",
}
