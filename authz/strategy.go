package authz

import (
	"context"
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/delegation"
)

// signAccessToken signs the planned token: RFC 9068, through the one function
// that signs every access token. The key that the request proved is the only
// one it is ever bound to.
func (s *Server) signAccessToken(ctx context.Context, f *flow) (string, error) {
	key, err := s.cfg.Keys.Signer(ctx, f.plan.alg)
	if err != nil {
		return "", fmt.Errorf("finding a key for %s: %w", f.plan.alg, err)
	}
	claims := delegation.Claims{
		Issuer: s.cfg.Issuer, Subject: f.plan.sub, ClientID: f.client.ID, GrantID: f.plan.gid,
		Audience: f.plan.resources, Scopes: f.plan.scopes,
		IssuedAt: f.now, Expires: f.plan.expires,
		Root: f.plan.root, MaxDepth: f.plan.depth, Hops: f.plan.hops,
		AAT: f.plan.aat, Tools: f.plan.tools, Limits: f.plan.limits,
	}
	if f.proof != nil {
		claims.Key = f.proof.Key
	}
	signed, err := delegation.Sign(claims, key)
	if f.plan.aat && delegation.ReasonOf(err) == delegation.TooLarge {
		return "", errDetails("more than one token has room for")
	}
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
	switch {
	case f.plan.root:
		alg = AlgEd25519 // delegation.md §2
	case !ok:
		// delegation.md §3: "different ones → invalid_target".
		return errTarget("these resources need different signatures; ask for one at a time")
	}
	if !carries(what.scopes, what.resources) {
		return errCarried
	}
	f.plan.alg, f.plan.scopes, f.plan.resources = alg, what.scopes, what.resources
	ttl := s.cfg.AccessTTL
	if f.client.Kind == KindAgent {
		ttl = s.cfg.AgentTTL
	}
	f.plan.expires = f.now.Truncate(time.Second).Add(ttl)
	if end := f.grant.Expires; !end.IsZero() && f.plan.expires.After(end) {
		f.plan.expires = end.Truncate(time.Second)
		if f.plan.expires.Unix() <= f.now.Unix() { // less than the shortest life there is
			return errGrant("the authorization has ended")
		}
	}
	return nil
}
