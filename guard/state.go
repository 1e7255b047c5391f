package guard

import (
	"context"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
)

// Step 17 of delegation.md §6: "state, last and in this order: proof replay
// (replayed), counters, audit if required; then permit".

// heldProof is a proof of possession that held, of either kind. The kinds share
// what is remembered: one jti of one key passes once.
type heldProof struct {
	jkt, replayKey, nonce string
	until                 time.Time
}

func heldDPoP(p agent.VerifiedProof) *heldProof {
	return &heldProof{p.Key.Thumbprint(), p.ReplayKey(), p.Nonce, p.Until()}
}

func heldAAT(p agent.VerifiedAATProof) *heldProof {
	return &heldProof{p.Key.Thumbprint(), p.ReplayKey(), p.Nonce, p.Until()}
}

// once uses the proof up, unless it was used before.
func (v *visit) once(ctx context.Context) error {
	if v.proof == nil {
		return nil
	}
	v.using.Do(func() { v.usedErr = v.guard.use(ctx, *v.proof) })
	return v.usedErr
}

// pass is what an answer needs of step 17 whatever the handler asked.
func (v *visit) pass(ctx context.Context) error {
	if v.unmatched() {
		return bindingFailed("proof: of a call, and none was asked about")
	}
	return v.once(ctx)
}

func (g *guard) use(ctx context.Context, p heldProof) error {
	now := g.Now()
	if now.After(p.until) {
		// A body may take its time after the proof was checked. What is
		// remembered of proofs ends with them, so this one could pass again.
		return &delegation.Refusal{Reason: delegation.HolderBindingFailed, Part: -1, Detail: "proof: too old by now"}
	}
	fresh, err := g.used.once(ctx, p.jkt, p.replayKey, now, p.until)
	switch {
	case err != nil:
		// Not known to be new is not good enough, and no replay either.
		g.Log.ErrorContext(ctx, "whether a proof was used before is unknown", "error", err)
		return &delegation.Refusal{Reason: delegation.StatusUnknown, Part: -1, Detail: "proof"}
	case !fresh:
		return &delegation.Refusal{Reason: delegation.Replayed, Part: -1, Detail: "proof"}
	}
	return nil
}

// countable refuses a token with a budget where nobody counts. It comes before
// anything is used up.
func (v *visit) countable() error {
	if v.chain == nil || v.guard.Counters != nil {
		return nil
	}
	return v.chain.AllowsUncounted()
}

// charge debits the request, once. again debits it once more if it was charged
// before: for one request that makes several calls.
func (v *visit) charge(ctx context.Context, again bool) error {
	first := false
	v.charging.Do(func() { first, v.chargedErr = true, v.debit(ctx) })
	if first || !again || v.chargedErr != nil {
		return v.chargedErr
	}
	return v.debit(ctx)
}

// debit takes one call off the budget of every link. "Nothing is refunded",
// whatever becomes of the request after that.
func (v *visit) debit(ctx context.Context) error {
	if err := v.countable(); err != nil {
		return err
	}
	budgets := v.chain.Budgets()
	if len(budgets) == 0 {
		return nil
	}
	g := v.guard
	for _, b := range budgets {
		// As with proofs: what is forgotten by now would be whole again.
		if !g.Now().Before(b.Until.Add(delegation.CounterGrace / 2)) {
			return &delegation.Refusal{Reason: delegation.Expired, Dimension: delegation.DimensionTTL, Part: -1, Detail: "a link has ended by now"}
		}
	}
	ok, err := g.Counters.Debit(ctx, budgets)
	switch {
	case err != nil:
		g.Log.ErrorContext(ctx, "whether a budget is left is unknown", "error", err)
		return &delegation.Refusal{Reason: delegation.StatusUnknown, Dimension: delegation.DimensionCalls, Part: -1, Detail: "counter"}
	case !ok:
		return &delegation.Refusal{
			Reason: delegation.ConstraintViolated, Dimension: delegation.DimensionCalls, Part: -1, Detail: "max_calls: no call is left",
		}
	}
	return nil
}
