package authz

import (
	"context"
	"errors"
	"net/url"

	"github.com/ory/fosite"
	"github.com/ory/fosite/handler/oauth2"
)

var _ oauth2.CoreStrategy = flowStrategy{}

// flowStrategy makes and checks tokens for fosite. Access tokens are RFC 9068
// JWTs (strategy.go). Codes and refresh tokens are fosite's HMAC tokens; what
// is stored, and what fosite calls their signature, is the SHA-256 of the whole
// text, so that a thief of the database holds nothing to present.
type flowStrategy struct {
	s    *Server
	hmac *oauth2.HMACSHAStrategyUnPrefixed
}

// errNotHere says that fosite asked for something it has no part in here.
var errNotHere = errors.New("authz: access tokens are not checked by fosite")

// AccessTokenSignature has none to give: access tokens have no rows.
func (flowStrategy) AccessTokenSignature(context.Context, string) string { return "" }

// GenerateAccessToken signs the token that the flow has planned.
func (st flowStrategy) GenerateAccessToken(ctx context.Context, _ fosite.Requester) (token, signature string, err error) {
	token, err = st.s.signAccessToken(ctx, flowFrom(ctx))
	return token, "", err
}

// ValidateAccessToken is never used: the registry verifies.
func (flowStrategy) ValidateAccessToken(context.Context, fosite.Requester, string) error {
	return errNotHere
}

// RefreshTokenSignature is the hash a refresh token is stored by.
func (flowStrategy) RefreshTokenSignature(_ context.Context, token string) string {
	return HashSecret(token)
}

// GenerateRefreshToken makes a refresh token.
func (st flowStrategy) GenerateRefreshToken(ctx context.Context, r fosite.Requester) (token, signature string, err error) {
	token, _, err = st.hmac.GenerateRefreshToken(ctx, r)
	return token, HashSecret(token), err
}

// ValidateRefreshToken checks the token's own MAC and its life, by our clock.
func (st flowStrategy) ValidateRefreshToken(ctx context.Context, _ fosite.Requester, token string) error {
	f := flowFrom(ctx)
	if !f.now.Before(f.refresh.Expires) || st.hmac.Enigma.Validate(ctx, token) != nil {
		return fosite.ErrTokenExpired // fosite answers anything else with invalid_request
	}
	return nil
}

// AuthorizeCodeSignature is the hash a code is stored by.
func (flowStrategy) AuthorizeCodeSignature(_ context.Context, code string) string {
	return HashSecret(code)
}

// GenerateAuthorizeCode makes a code.
func (st flowStrategy) GenerateAuthorizeCode(ctx context.Context, r fosite.Requester) (token, signature string, err error) {
	token, _, err = st.hmac.GenerateAuthorizeCode(ctx, r)
	return token, HashSecret(token), err
}

// ValidateAuthorizeCode checks the code's own MAC and its life, by our clock.
func (st flowStrategy) ValidateAuthorizeCode(ctx context.Context, _ fosite.Requester, code string) error {
	f := flowFrom(ctx)
	if !f.now.Before(f.code.Expires) {
		return fosite.ErrTokenExpired
	}
	return st.hmac.Enigma.Validate(ctx, code)
}

// flowClient is a client as fosite may see it: it answers what our pre-filter
// has decided for this one request, so fosite's own matchers (loopback ports,
// audiences by path prefix, scopes without case) decide nothing. It does not
// implement OpenIDConnectClient, so no request object is ever read.
type flowClient struct{ f *flow }

// GetID returns the id.
func (c flowClient) GetID() string { return c.f.client.ID }

// GetHashedSecret has none to give: the registry authenticates.
func (flowClient) GetHashedSecret() []byte { return nil }

// GetRedirectURIs returns the one that was matched.
func (c flowClient) GetRedirectURIs() []string { return []string{c.f.code.RedirectURI} }

// GetGrantTypes returns what the client is registered for.
func (c flowClient) GetGrantTypes() fosite.Arguments { return c.f.client.GrantTypes }

// GetResponseTypes returns the only one there is.
func (flowClient) GetResponseTypes() fosite.Arguments { return fosite.Arguments{"code"} }

// GetScopes returns the scopes this request may be about.
func (c flowClient) GetScopes() fosite.Arguments { return c.f.scopes() }

// IsPublic reports whether the client cannot keep a secret.
func (c flowClient) IsPublic() bool { return c.f.client.Public() }

// GetAudience returns the resources this request may be about: every client's
// audience must hold them or each refresh fails.
func (c flowClient) GetAudience() fosite.Arguments { return c.f.resources() }

// namedClient is a client of whom only the id counts: the one a code or a
// refresh token was issued to.
type namedClient struct {
	flowClient
	id string
}

// GetID returns the id.
func (c namedClient) GetID() string { return c.id }

func (f *flow) fositeClient() fosite.Client { return flowClient{f} }

// requester is a stored request as fosite reads it.
func (f *flow) requester(id, clientID string, scopes, resources []string, form url.Values, session fosite.Session) fosite.Requester {
	if form == nil {
		form = url.Values{}
	}
	return &fosite.Request{
		ID: id, RequestedAt: f.now, Client: namedClient{flowClient{f}, clientID},
		RequestedScope: scopes, GrantedScope: scopes,
		RequestedAudience: resources, GrantedAudience: resources,
		Form: form, Session: session,
	}
}
