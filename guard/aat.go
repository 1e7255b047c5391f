package guard

import (
	"net/http"
	"slices"
	"strings"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
)

// possessionOfCall is step 14 by an AAT proof: the holder of the last token's
// key means this call, of this tool with these arguments, here and now. Such a
// proof covers what a DPoP proof leaves out, so it is enough for side effects.
func (v *visit) possessionOfCall(r *http.Request, text string) error {
	g := v.guard
	v.dpopError = invalidProof
	key := v.chain.Key()
	if key.IsZero() {
		return bindingFailed("an AAT proof needs the key in the token itself")
	}
	proof, err := agent.VerifyAATProof(text, agent.AATCheck{
		Key: key, LID: v.chain.LID(), LeafJTI: v.chain.JTI(), Audience: g.Resource, UnmatchedCall: true, Now: v.now,
	})
	if err != nil {
		return bindingFailed(strings.TrimPrefix(err.Error(), "invalid: "))
	}
	held := heldAAT(proof)
	if err := v.fresh(held); err != nil {
		return err
	}
	v.proof, v.proofText, v.call = held, Secret(text), &proof
	return v.matchEarly(r)
}

// matchEarly holds the proof to the call as far as that is known before the
// handler runs. Where it is not, the handler's question does.
func (v *visit) matchEarly(r *http.Request) error {
	if v.guard.MCP {
		if v.message == nil {
			return bindingFailed("proof: no message that it could speak for")
		}
		return v.match(v.message.Call)
	}
	if v.guard.stopAfterAuthentication {
		return nil
	}
	need, err := v.needs(r)
	if err != nil {
		return err
	}
	if call, given := need.Request.Tool.Value(); given {
		return v.match(call)
	}
	if !need.Request.Tool.Set() && slices.Contains(need.Later, delegation.DimensionTools) {
		return nil
	}
	return bindingFailed("proof: the route names no tool that it could speak for")
}

// match holds the proof to one call: "arguments that differ between proof and
// call" have another canonical form, or none that says exactly the same.
func (v *visit) match(call delegation.Call) error {
	if !v.call.Match(call.Name, call.Arguments) {
		return bindingFailed("proof: of another call")
	}
	v.mu.Lock()
	v.matched = true
	v.mu.Unlock()
	return nil
}

// speaks holds what a handler asks about to the proof, if that is one of a call:
// what is evaluated is what was proved. A question without a tool is fine once
// the proof was matched with the message that asks it.
func (v *visit) speaks(d delegation.Dimension[delegation.Call]) error {
	if v.call == nil {
		return nil
	}
	if call, given := d.Value(); given {
		return v.match(call)
	}
	if v.unmatched() {
		return bindingFailed("proof: of a call, and none was asked about")
	}
	return nil
}

// unmatched reports whether the proof is of a call that nobody has spoken about.
func (v *visit) unmatched() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.call != nil && !v.matched
}

// answerOnce lets a proof of a call serve for one call of a request that makes
// several.
func (v *visit) answerOnce(d delegation.Dimension[delegation.Call]) error {
	if _, given := d.Value(); !given || v.call == nil {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.answered {
		return &delegation.Refusal{Reason: delegation.Replayed, Part: -1, Detail: "proof: of one call"}
	}
	v.answered = true
	return nil
}
