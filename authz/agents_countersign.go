package authz

import (
	"context"

	"github.com/kavach-dev/kavach/agent"
)

// Countersigned returns the current manifest of an active agent with our
// countersignature: it verifies standing alone for an hour, or until it
// expires. ErrNotFound: there is none to be countersigned. Whoever hands it out
// records it first.
func (a *Agents) Countersigned(ctx context.Context, id string) (string, error) {
	now := a.cfg.Now()
	found, err := a.Agent(ctx, id)
	if err == nil && (!found.Active(now) || a.cfg.Keys == nil) {
		err = ErrNotFound
	}
	if err != nil {
		return "", err
	}
	token, err := a.cfg.Store.Manifest(ctx, id)
	if err != nil {
		return "", err
	}
	kid, key, err := a.cfg.Keys.ManifestSigner(ctx)
	if err != nil {
		return "", err
	}
	expires := now.Add(agent.MaxCountersignatureLife)
	if expires.After(found.ManifestExpires) {
		expires = found.ManifestExpires
	}
	return agent.Countersign(token, agent.Countersignature{Issuer: a.cfg.Issuer, IssuedAt: now, Expires: expires}, kid, key)
}
