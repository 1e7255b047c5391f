package authz

import (
	"context"
	"net/http"
	"slices"
	"strconv"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
)

// TokenTypeKey is the token_type_hint of a request to revoke a key: token is
// its thumbprint.
const TokenTypeKey = "urn:kavach:token-type:key"

// A revoker is who sends a request to revoke: a client, the holder of a key, or
// both in one.
type revoker struct {
	client Client
	proof  *agent.VerifiedProof // nil without
	// once spends what the request was authenticated with; lost is the answer
	// if that was used before.
	once []audit.Effect
	lost *Error
}

// revokerOf finds out who sends a request. A proof of possession is enough: a
// holder of a link that was derived offline is no client of anybody.
func (g *Registry) revokerOf(ctx context.Context, r *http.Request) (revoker, error) {
	by := revoker{lost: Replayed()}
	proof, once, err := g.proof(r, revokeEndpoint, r.PostForm.Get("token"), g.cfg.Nonces)
	if err != nil {
		return by, err
	}
	if proof != nil {
		by.proof, by.once, by.lost = proof, once, errProofReplayed
		if !identifies(r) {
			return by, nil
		}
	}
	auth, err := g.Authenticate(ctx, r)
	by.client, by.once = auth.Client, slices.Concat(by.once, auth.Once)
	return by, err
}

// stranger says that nothing is known of who it is: no record of it counts as
// that of a caller that authenticated.
func (by revoker) stranger() bool { return by.client.ID == "" || by.client.Public() }

// holds says whether who asks proved a key of the chain's last link or of one
// above it: "whoever proves (DPoP over this request, `ath` of the chain) a key
// of that link or an ancestor" (delegation.md §9). The error is for a proof by
// such a key that is not of this chain.
func (by revoker) holds(chain *delegation.Chain) (bool, *Error) {
	if by.proof == nil {
		return false, nil
	}
	of, jkt := chain.Revocable(), by.proof.Key.Thumbprint()
	if !slices.Contains(of.Keys, jkt) && !slices.Contains(of.Ancestry, jkt) {
		return false, nil
	}
	if !by.proof.HasATH {
		return false, errProof("put the hash of the token into the proof (ath)")
	}
	return true, nil
}

// inPath says whether a client is one that the server knows to be in the path
// of the token's root: "a holder revokes itself and what is below it".
func (by revoker) inPath(chain *delegation.Chain) bool {
	if by.client.ID == "" {
		return false
	}
	return chain.Links()[0].ClientID == by.client.ID ||
		slices.ContainsFunc(chain.Parties(), func(p delegation.Party) bool { return p.ID == by.client.ID && p.Proved })
}

// planKeyRevocation ends a key, for who proves it: a key that is known to
// others is nobody's to keep, so this is not undone by its holder. Strangers who
// make keys cannot take the room of those that matter here: an agent's that the
// server knows, and that of a live token or link, bound, which the caller shows.
func (g *Registry) planKeyRevocation(ctx context.Context, by revoker, jkt, bound string) (revocationPlan, error) {
	plan := revocationPlan{entry: audit.Entry{Resource: revokeEndpoint, Result: audit.Denied, Detail: map[string]any{}}}
	if by.proof == nil || by.proof.Key.Thumbprint() != jkt {
		plan.entry.Reason = string(delegation.HolderBindingFailed)
		plan.answer = badRequest("invalid_grant", "a key is revoked by a DPoP proof of it; token is its thumbprint")
		return plan, nil
	}
	most := strangersKeysMost
	if bound != "" {
		chain, err := g.verifier.Verify(bound, g.now())
		if err != nil {
			plan.entry.Reason, plan.answer = string(delegation.ReasonOf(err)), badRequest("invalid_grant", "bound_token is not valid")
			return plan, nil
		}
		plan.entry = chainEntry(chain, audit.Revoke, audit.Denied)
		if of := chain.Revocable(); !slices.Contains(of.Keys, jkt) && !slices.Contains(of.Ancestry, jkt) {
			plan.entry.Resource, plan.entry.Reason = revokeEndpoint, string(delegation.HolderBindingFailed)
			plan.answer = badRequest("invalid_grant", "nothing in bound_token is bound to the key")
			return plan, nil
		}
		most = heldKeysMost
	} else if g.cfg.Agents != nil {
		known, err := g.cfg.Agents.AgentKeyKnown(ctx, jkt)
		if err != nil {
			return plan, err
		}
		if known {
			most = heldKeysMost
		}
	}
	plan.entry.Result, plan.entry.Resource, plan.entry.Detail["kind"] = audit.Allowed, jkt, string(RevokeKey)
	plan.revocations = []Revocation{{Kind: RevokeKey, Value: jkt, At: g.now(), Most: most}}
	return plan, nil
}

const (
	// strangersKeysMost is how many keys may be revoked by more than whom the
	// server knows. Anybody can make a key and prove it, and its revocation stays:
	// without a bound strangers could make the feed too large for everybody.
	strangersKeysMost = 4096
	// heldKeysMost is the same for keys that something here is bound to: who can
	// derive links can make as many of them.
	heldKeysMost = 2 * strangersKeysMost
	// heldKeysPerMinute is how many of them one address may send.
	heldKeysPerMinute = 10
)

// errKeysFull is the answer to one key more.
var errKeysFull = &Error{
	Status: http.StatusTooManyRequests, Code: feedFull, RetryAfter: 60,
	Description: "too many keys are revoked already: show a token of the key (bound_token), revoke the token, or ask the owner of the agent or an operator",
}

// slowed turns the plan to revoke a key into a refusal where the address has
// sent too many.
func (g *Registry) slowed(plan revocationPlan, source string) revocationPlan {
	if len(plan.revocations) != 1 || plan.revocations[0].Kind != RevokeKey {
		return plan
	}
	_, wait, ok := g.keyLimiter.take(source, g.now())
	if ok {
		return plan
	}
	plan.revocations, plan.entry.Result, plan.entry.Reason = nil, audit.Denied, "too_many_keys"
	plan.answer = &Error{
		Status: http.StatusTooManyRequests, Code: "temporarily_unavailable", RetryAfter: wait,
		Description: "too many keys from this address; try again in " + strconv.Itoa(wait) + " s",
	}
	return plan
}
