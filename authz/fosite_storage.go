package authz

import (
	"context"
	"errors"
	"net/url"
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/handler/oauth2"
	"github.com/ory/fosite/handler/pkce"
	"github.com/ory/fosite/storage"
)

var (
	_ fosite.Storage                = flowStorage{}
	_ oauth2.CoreStorage            = flowStorage{}
	_ oauth2.TokenRevocationStorage = flowStorage{}
	_ pkce.PKCERequestStorage       = flowStorage{}
	_ storage.Transactional         = flowStorage{}
)

// flowStorage is fosite's storage over one flow: reads answer from what the
// pre-filter has loaded, writes append effects. There is no row per access
// token (design D2), so what fosite does with those does nothing.
type flowStorage struct{ s *Server }

// BeginTX does nothing: the Change is already in the context.
func (flowStorage) BeginTX(ctx context.Context) (context.Context, error) { return ctx, nil }

// Commit does nothing: the handler commits once, when the answer is complete.
func (flowStorage) Commit(context.Context) error { return nil }

// Rollback does nothing: a flow that fails is never committed.
func (flowStorage) Rollback(context.Context) error { return nil }

// GetClient returns the client of the flow.
func (flowStorage) GetClient(ctx context.Context, id string) (fosite.Client, error) {
	f := flowFrom(ctx)
	if id != f.client.ID {
		return nil, fosite.ErrNotFound
	}
	return f.fositeClient(), nil
}

// ClientAssertionJWTValid is not used: the registry authenticates clients.
func (flowStorage) ClientAssertionJWTValid(context.Context, string) error {
	return errors.New("authz: fosite does not check assertions")
}

// SetClientAssertionJWT is not used.
func (flowStorage) SetClientAssertionJWT(context.Context, string, time.Time) error {
	return errors.New("authz: fosite does not check assertions")
}

// CreateAuthorizeCodeSession adds the code.
func (st flowStorage) CreateAuthorizeCodeSession(ctx context.Context, signature string, _ fosite.Requester) error {
	f := flowFrom(ctx)
	f.code.Hash = signature
	f.effects = append(f.effects, st.s.cfg.Store.AddCode(f.code))
	return nil
}

// GetAuthorizeCodeSession returns the code that was presented, and with it that
// it is used, if it is.
func (flowStorage) GetAuthorizeCodeSession(ctx context.Context, signature string, session fosite.Session) (fosite.Requester, error) {
	f := flowFrom(ctx)
	if signature == "" || signature != f.code.Hash {
		return nil, fosite.ErrNotFound
	}
	form := url.Values{}
	if f.code.RedirectSent {
		form.Set("redirect_uri", f.code.RedirectURI)
	}
	request := f.requester(f.code.GrantID, f.code.ClientID, f.code.Scopes, f.code.Resources, form, session)
	if !f.code.Used.IsZero() {
		return request, fosite.ErrInvalidatedAuthorizeCode
	}
	return request, nil
}

// InvalidateAuthorizeCodeSession burns the code and opens the grant.
func (st flowStorage) InvalidateAuthorizeCodeSession(ctx context.Context, _ string) error {
	f := flowFrom(ctx)
	f.effects = append(f.effects,
		st.s.cfg.Store.UseCode(f.code.Hash, f.now, f.grant.Expires),
		st.s.cfg.Store.AddGrant(f.grant))
	return nil
}

// CreatePKCERequestSession does nothing: the challenge stands in the code's row.
func (flowStorage) CreatePKCERequestSession(context.Context, string, fosite.Requester) error {
	return nil
}

// GetPKCERequestSession returns the challenge of the code that was presented.
func (flowStorage) GetPKCERequestSession(ctx context.Context, signature string, session fosite.Session) (fosite.Requester, error) {
	f := flowFrom(ctx)
	if signature == "" || signature != f.code.Hash {
		return nil, fosite.ErrNotFound
	}
	form := url.Values{"code_challenge": {f.code.Challenge}, "code_challenge_method": {"S256"}}
	return f.requester(f.code.GrantID, f.code.ClientID, f.code.Scopes, f.code.Resources, form, session), nil
}

// DeletePKCERequestSession does nothing: a failed attempt must not burn the
// challenge, and a good one burns the code.
func (flowStorage) DeletePKCERequestSession(context.Context, string) error { return nil }

// CreateAccessTokenSession does nothing (design D2).
func (flowStorage) CreateAccessTokenSession(context.Context, string, fosite.Requester) error {
	return nil
}

// GetAccessTokenSession knows none (design D2).
func (flowStorage) GetAccessTokenSession(context.Context, string, fosite.Session) (fosite.Requester, error) {
	return nil, fosite.ErrNotFound
}

// DeleteAccessTokenSession does nothing (design D2).
func (flowStorage) DeleteAccessTokenSession(context.Context, string) error { return nil }

// CreateRefreshTokenSession adds the next refresh token of the family.
func (st flowStorage) CreateRefreshTokenSession(ctx context.Context, signature, _ string, _ fosite.Requester) error {
	f := flowFrom(ctx)
	end := f.grant.Expires
	expires := f.now.Add(st.s.cfg.RefreshIdle)
	if expires.After(end) {
		expires = end
	}
	jkt := ""
	if f.client.Public() {
		// RFC 9449 section 5: "the refresh token MUST be bound to the respective
		// public key". Of another client its authentication is the binding.
		jkt = f.jkt()
	}
	f.effects = append(f.effects, st.s.cfg.Store.AddRefreshToken(RefreshToken{
		Hash: signature, GrantID: f.grant.ID, ClientID: f.client.ID, JKT: jkt,
		Created: f.now, Expires: expires, FamilyEnd: end,
	}))
	return nil
}

// GetRefreshTokenSession answers not-found inside the replay window, and
// inactive after it or to another client: then fosite ends the family.
func (flowStorage) GetRefreshTokenSession(ctx context.Context, signature string, session fosite.Session) (fosite.Requester, error) {
	f := flowFrom(ctx)
	if signature == "" || signature != f.refresh.Hash {
		return nil, fosite.ErrNotFound
	}
	request := f.requester(f.grant.ID, f.refresh.ClientID, f.grant.Scopes, f.grant.Resources, nil, session)
	switch {
	case f.reuse:
		return request, fosite.ErrInactiveToken
	case !f.refresh.Used.IsZero():
		return nil, fosite.ErrNotFound
	}
	return request, nil
}

// DeleteRefreshTokenSession does nothing: the row of a used token stays, its
// reuse is how a theft is seen.
func (flowStorage) DeleteRefreshTokenSession(context.Context, string) error { return nil }

// RotateRefreshToken burns the presented token, if its grant still lives.
func (st flowStorage) RotateRefreshToken(ctx context.Context, _, _ string) error {
	f := flowFrom(ctx)
	f.effects = append(f.effects,
		st.s.cfg.Store.UseRefreshToken(f.refresh.Hash, f.now),
		st.s.cfg.Store.TouchGrant(f.grant.ID, f.now))
	return nil
}

// RevokeRefreshToken ends the family.
func (st flowStorage) RevokeRefreshToken(ctx context.Context, requestID string) error {
	f := flowFrom(ctx)
	f.effects = append(f.effects, st.s.cfg.Store.RevokeGrant(requestID, f.now))
	return nil
}

// RevokeAccessToken ends every token with the grant's id.
func (flowStorage) RevokeAccessToken(ctx context.Context, requestID string) error {
	f := flowFrom(ctx)
	// It may be forgotten when nothing issued from the grant can be alive
	// (delegation.md §9).
	f.revocations = append(f.revocations, Revocation{
		Kind: RevokeGrant, Value: requestID, Until: f.now.Add(maxAccessTTL + time.Minute), At: f.now,
	})
	return nil
}
