package authz

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
)

const revokeEndpoint = "/oauth/revoke"

// errForeign is the answer to who tries to end what is not theirs.
var errForeign = badRequest("invalid_grant", "the token is not yours, nor below yours")

// HandleRevoke is POST /oauth/revoke (RFC 7009). A client ends its own tokens
// and what is below them: a refresh token with its whole grant, an access token
// with everything derived from it.
func (g *Registry) HandleRevoke(w http.ResponseWriter, r *http.Request) {
	allowCORS(http.HandlerFunc(g.serveRevoke)).ServeHTTP(w, r)
}

func (g *Registry) serveRevoke(w http.ResponseWriter, r *http.Request) {
	recorded, err := g.revoke(w, r)
	if err != nil {
		g.logFailure(r.Context(), "revocation", err)
		WriteError(w, err)
		return
	}
	answer := map[string]any{} // RFC 7009 §2.2: the content is ignored
	if !recorded {
		answer["recorded"] = false // design D3
	}
	WriteJSON(w, http.StatusOK, answer)
}

func (g *Registry) revoke(w http.ResponseWriter, r *http.Request) (recorded bool, err error) {
	ctx := r.Context()
	source := addressKey(ClientAddress(r, g.cfg.TrustedProxies))
	if err = ParseForm(w, r); err == nil && !r.PostForm.Has("token") {
		err = badRequest("invalid_request", "token is missing")
	}
	var by revoker
	if err == nil {
		by, err = g.revokerOf(ctx, r)
	}
	if err != nil {
		g.cfg.Refusals.Refuse(source, revokeEndpoint, audit.Entry{
			Action: audit.Revoke, Resource: revokeEndpoint, Result: resultOf(err), Reason: oauthError(err).Code,
		})
		return false, err
	}
	plan, err := g.planRevocation(ctx, by, r.PostForm)
	if err != nil {
		return false, err
	}
	plan = g.slowed(plan, source)
	plan.entry.Action, plan.entry.Agent = audit.Revoke, by.client.ID
	if len(plan.revocations) > 0 {
		return g.narrowOnce(ctx, by.once, by.lost, plan.revocations, plan.more, plan.entry)
	}
	if by.stranger() {
		// Its id is a name that anybody can write, its key one that anybody can
		// make: as many of these as of any other stranger.
		g.cfg.Refusals.Refuse(source, revokeEndpoint, plan.entry)
		return true, plan.answer
	}
	if err := spend(ctx, g.cfg.Commit, by.once, plan.entry); err != nil {
		return false, err
	}
	return true, plan.answer
}

// revocationPlan is what a request to revoke comes to.
type revocationPlan struct {
	entry       audit.Entry
	revocations []Revocation
	more        []audit.Effect
	answer      error // what to answer if there is nothing to revoke
}

// planRevocation decides. Unknown, expired, malformed: nothing to do, 200
// (RFC 7009 §2.2). A valid token of another client that is not below the
// caller: refused. An error means that nobody knows. The hint is not needed:
// what a token is shows in the token.
//
// Who may end a token: its holder and the holders above it, by their keys
// (delegation.md §9), and the clients that the server knows to be in its path.
func (g *Registry) planRevocation(ctx context.Context, by revoker, form url.Values) (revocationPlan, error) {
	token := form.Get("token")
	nothing := revocationPlan{entry: audit.Entry{
		Resource: revokeEndpoint, Result: audit.Allowed, Reason: "unknown_token", Detail: map[string]any{},
	}}
	if form.Get("token_type_hint") == TokenTypeKey {
		return g.planKeyRevocation(ctx, by, token, form.Get("bound_token"))
	}
	if !looksLikeAccessToken(token) {
		return g.planRefreshRevocation(ctx, by.client, token, nothing)
	}
	chain, err := g.verifier.Verify(token, g.now())
	if err != nil {
		nothing.entry.Reason = string(delegation.ReasonOf(err))
		return nothing, nil
	}
	plan := revocationPlan{entry: chainEntry(chain, audit.Revoke, audit.Allowed)}
	plan.entry.Resource = chain.LID()
	switch holds, err := by.holds(chain); {
	case err != nil:
		plan.entry.Result, plan.entry.Reason, plan.answer = audit.Denied, string(delegation.HolderBindingFailed), err
		return plan, nil
	case holds:
		plan.entry.Detail["key"] = by.proof.Key.Thumbprint()
	case !by.inPath(chain):
		return g.foreign(ctx, plan, func() (bool, error) { return g.Revoked(ctx, chain) })
	}
	plan.revocations = []Revocation{g.linkRevocation(chain)}
	return plan, nil
}

// linkRevocation ends the last token of a chain and what is below it.
func (g *Registry) linkRevocation(chain *delegation.Chain) Revocation {
	var above []string
	for _, l := range chain.Links() {
		above = append(above, l.LID)
	}
	above = append(above[:len(above)-1], chain.Ancestry()...)
	return linkRevocation(chain.GrantID(), chain.LID(), above, chain.Expires(), g.now())
}

// linkRevocation ends a link of a grant. Nothing below it outlives it, and
// nothing at all the hour for which it stands in the feed (delegation.md §9).
func linkRevocation(grant, lid string, above []string, expires, now time.Time) Revocation {
	until := now.Add(maxAccessTTL)
	if expires.After(until) {
		until = expires
	}
	return Revocation{Kind: RevokeLink, Value: lid, Grant: grant, Path: above, Until: until, At: now}
}

func (g *Registry) planRefreshRevocation(ctx context.Context, caller Client, token string, nothing revocationPlan) (revocationPlan, error) {
	if g.cfg.Flows == nil {
		return nothing, nil
	}
	refresh, grant, err := g.cfg.Flows.RefreshToken(ctx, HashSecret(token))
	if errors.Is(err, ErrNotFound) {
		return nothing, nil
	}
	if err != nil {
		return revocationPlan{}, err
	}
	now := g.now()
	plan := revocationPlan{entry: audit.Entry{
		Resource: grant.ID, Result: audit.Allowed, Sub: grant.Sub, Grant: grant.ID, Path: path(grant.Sub, grant.ClientID),
		Detail: map[string]any{},
	}}
	if refresh.ClientID != caller.ID {
		return g.foreign(ctx, plan, func() (bool, error) {
			if !refreshLive(refresh, grant, now) {
				return true, nil
			}
			standing, err := g.Standing(ctx, grantStanding(grant, now))
			return standing.Dead, err
		})
	}
	if !grant.Live(now) {
		nothing.entry.Reason = string(delegation.Expired)
		return nothing, nil
	}
	// A used one ends the family too: its client means the authorization.
	plan.revocations = []Revocation{{
		Kind: RevokeGrant, Value: grant.ID, Until: refresh.FamilyEnd.Add(maxAccessTTL), At: now,
	}}
	plan.more = []audit.Effect{g.cfg.Flows.RevokeGrant(grant.ID, now)}
	return plan, nil
}

// foreign is the plan for a token that is not the caller's: refused if it is
// alive, 200 like everything that is not.
func (g *Registry) foreign(_ context.Context, plan revocationPlan, dead func() (bool, error)) (revocationPlan, error) {
	isDead, err := dead()
	if err != nil {
		return revocationPlan{}, err
	}
	if isDead {
		plan.entry.Reason = string(delegation.Revoked)
		return plan, nil
	}
	plan.entry.Result, plan.entry.Reason, plan.answer = audit.Denied, errForeign.Code, errForeign
	return plan, nil
}

// RevokeTarget names what shall no longer work; exactly one member is set.
type RevokeTarget struct {
	TokenID string // the lid of a token that delegate returned
	Agent   string // id or name: everything that was delegated to it
	Chain   string // a token or chain, for links that were derived offline
}

// Revocations is what no longer works.
type Revocations struct {
	Revoked  []string // lids
	Below    int      // delegations below them that had not expired
	Recorded bool     // false: it stands, but its record waits for the log
}

// errNotBelow: what does not exist and what is somebody else's cannot be told
// apart.
var errNotBelow = badRequest("invalid_grant", "there is no such live token below yours")

const (
	revokeBatch = 32   // lids in one record; what does not fit into the feed fails as one
	revokeMost  = 4096 // lids in one call
)

// Revoke ends what lies below caller: what has the same grant and a path that
// begins with the caller's, or what came from the caller's own token. The
// decision is recorded, whichever it is. Errors are *Error, or failures of the
// database or the log; after the latter this process enforces the revocation
// all the same.
func (g *Registry) Revoke(ctx context.Context, caller *delegation.Chain, what RevokeTarget) (Revocations, error) {
	named := 0
	for _, s := range []string{what.TokenID, what.Agent, what.Chain} {
		if s != "" {
			named++
		}
	}
	switch {
	case named != 1:
		return g.refuseRevoke(ctx, caller, badRequest("invalid_request", "name exactly one of token_id, agent, chain"))
	case what.Agent != "":
		return g.revokeAgent(ctx, caller, what.Agent)
	}
	rev, err := g.findBelow(ctx, caller, what)
	if errors.Is(err, errNotBelow) {
		return g.refuseRevoke(ctx, caller, errNotBelow)
	}
	if err != nil {
		return Revocations{}, fmt.Errorf("%w: finding what to revoke: %w", audit.ErrUnavailable, err)
	}
	return g.revokeLinks(ctx, caller, []Revocation{rev}, rev.Value)
}

// findBelow finds the one token that a target names.
func (g *Registry) findBelow(ctx context.Context, caller *delegation.Chain, what RevokeTarget) (Revocation, error) {
	now := g.now()
	if what.TokenID == caller.LID() {
		return g.linkRevocation(caller), nil
	}
	if what.TokenID != "" {
		found, err := g.cfg.Store.Delegations(ctx, DelegationQuery{Link: what.TokenID, Now: now, Limit: 1})
		if err != nil {
			return Revocation{}, err
		}
		if len(found) == 0 || !below(caller, found[0].Grant, found[0].Path, found[0].Above) {
			return Revocation{}, errNotBelow
		}
		d := found[0]
		if spent, err := g.spentHandle(ctx, d.LID); err != nil {
			return Revocation{}, err
		} else if spent {
			return Revocation{}, errNotBelow
		}
		return linkRevocation(d.Grant, d.LID, d.Above, d.Expires, now), nil
	}
	chain, err := g.verifier.Verify(what.Chain, now)
	if err != nil {
		return Revocation{}, errNotBelow
	}
	rev := g.linkRevocation(chain)
	if !below(caller, chain.GrantID(), chain.Path(), append(rev.Path, rev.Value)) {
		return Revocation{}, errNotBelow
	}
	return rev, nil
}

// spentHandle says whether an id is that of a handle that was redeemed: what
// came from it does not stand on it and would live on.
func (g *Registry) spentHandle(ctx context.Context, id string) (bool, error) {
	if g.cfg.Flows == nil {
		return false, nil
	}
	handle, err := g.cfg.Flows.Handle(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return !handle.Used.IsZero(), err
}

// below: "same gid and the caller's act path begins its act path; or the
// caller's lid is in its chain or anc" (mcp.md §3).
func below(caller *delegation.Chain, grant string, path, above []string) bool {
	mine := caller.Path()
	if grant == caller.GrantID() && len(path) >= len(mine) && slices.Equal(path[:len(mine)], mine) {
		return true
	}
	return slices.Contains(above, caller.LID())
}

// revokeAgent ends everything that the caller, or who is below it, delegated to
// an agent.
func (g *Registry) revokeAgent(ctx context.Context, caller *delegation.Chain, idOrName string) (Revocations, error) {
	id, err := g.agentID(ctx, caller, idOrName)
	if errors.Is(err, ErrNotFound) {
		return g.refuseRevoke(ctx, caller, badRequest("invalid_request", "there is no such agent"))
	}
	if err != nil {
		return Revocations{}, err
	}
	done := Revocations{Revoked: []string{}, Recorded: true}
	query := DelegationQuery{Grant: caller.GrantID(), Agent: id, Path: caller.Path(), Now: g.now(), Limit: revokeBatch}
	for {
		found, err := g.cfg.Store.Delegations(ctx, query)
		if err != nil {
			return done, err
		}
		if len(found) == 0 && len(done.Revoked) > 0 {
			return done, nil
		}
		revs := make([]Revocation, len(found))
		for i, d := range found {
			revs[i] = linkRevocation(d.Grant, d.LID, d.Above, d.Expires, query.Now)
		}
		page, err := g.revokeLinks(ctx, caller, revs, id) // also when there is nothing: that is a decision
		if errors.Is(err, ErrFeedFull) {
			full := *ErrFeedFull
			full.Description = fmt.Sprintf("%d were revoked, not all; %s", len(done.Revoked), full.Description)
			return Revocations{}, &full
		}
		if err != nil {
			return done, err
		}
		done.Revoked = append(done.Revoked, page.Revoked...)
		done.Below += page.Below
		done.Recorded = done.Recorded && page.Recorded
		if len(found) < revokeBatch || len(done.Revoked) >= revokeMost {
			return done, nil
		}
		query.After = found[len(found)-1].LID
	}
}

// agentID finds an agent by id, or by name among those of the person behind
// the caller.
func (g *Registry) agentID(ctx context.Context, caller *delegation.Chain, idOrName string) (string, error) {
	if g.cfg.Agents == nil {
		return "", ErrNotFound
	}
	if agent.IsID(idOrName) {
		found, err := g.cfg.Agents.Agent(ctx, idOrName)
		return found.ID, err
	}
	holder, err := g.Holder(ctx, caller.Principal())
	if err != nil {
		return "", err
	}
	if holder.ID == "" || !agent.IsName(idOrName) {
		return "", ErrNotFound
	}
	found, err := g.cfg.Agents.AgentNamed(ctx, holder.ID, idOrName)
	return found.ID, err
}

// revokeLinks commits the revocations with their record.
func (g *Registry) revokeLinks(ctx context.Context, caller *delegation.Chain, revs []Revocation, resource string) (Revocations, error) {
	lids := make([]string, len(revs))
	for i, r := range revs {
		lids[i] = r.Value
	}
	beneath, countErr := g.cfg.Store.CountBelow(ctx, lids, g.now())
	entry := chainEntry(caller, audit.Revoke, audit.Allowed)
	entry.Resource = resource
	entry.Detail["via"], entry.Detail["revoked"], entry.Detail["below"] = "mcp", lids, beneath
	recorded, err := g.narrow(ctx, revs, nil, entry)
	if err != nil {
		return Revocations{}, err
	}
	// What was asked for is done: that nobody can count is said afterwards.
	return Revocations{Revoked: lids, Below: beneath, Recorded: recorded}, countErr
}

// refuseRevoke records a refusal and returns it.
func (g *Registry) refuseRevoke(ctx context.Context, caller *delegation.Chain, refusal *Error) (Revocations, error) {
	entry := chainEntry(caller, audit.Revoke, audit.Denied)
	entry.Resource, entry.Reason = revokeEndpoint, refusal.Code
	entry.Detail["via"] = "mcp"
	if err := g.record(ctx, entry); err != nil {
		return Revocations{}, err
	}
	return Revocations{}, refusal
}
