package authz

import (
	"context"
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/delegation"
)

// signAccessToken signs the planned token: RFC 9068, through the one function
// that signs every access token. At the token endpoint no key of the receiver
// is known, so the token is plain (delegation.md §3, "Which form is issued").
func (s *Server) signAccessToken(ctx context.Context, f *flow) (string, error) {
	key, err := s.cfg.Keys.Signer(ctx, f.plan.alg)
	if err != nil {
		return "", fmt.Errorf("finding a key for %s: %w", f.plan.alg, err)
	}
	signed, err := delegation.Sign(delegation.Claims{
		Issuer: s.cfg.Issuer, Subject: f.plan.sub, ClientID: f.client.ID, GrantID: f.plan.gid,
		Audience: f.plan.resources, Scopes: f.plan.scopes,
		IssuedAt: f.now, Expires: f.plan.expires,
	}, key)
	if err != nil {
		return "", fmt.Errorf("signing an access token: %w", err)
	}
	f.lid = signed.LID
	return signed.Token, nil
}

// planToken fills in what is signed. A token never outlives its grant, which
// keeps every live token below a row that can be revoked.
func (s *Server) planToken(f *flow, cat *Catalog, what ask) *Error {
	alg, ok := cat.TokenAlg(what.resources)
	if !ok {
		// delegation.md §3: "different ones → invalid_target".
		return errTarget("these resources need different signatures; ask for one at a time")
	}
	if !carries(what.scopes, what.resources) {
		return errCarried
	}
	f.plan.alg, f.plan.scopes, f.plan.resources = alg, what.scopes, what.resources
	f.plan.expires = f.now.Truncate(time.Second).Add(s.cfg.AccessTTL)
	if end := f.grant.Expires; !end.IsZero() && f.plan.expires.After(end) {
		f.plan.expires = end.Truncate(time.Second)
		if f.plan.expires.Unix() <= f.now.Unix() { // less than the shortest life there is
			return errGrant("the authorization has ended")
		}
	}
	return nil
}
