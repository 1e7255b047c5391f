package guard

import (
	"errors"
	"net/http"
	"strings"

	"github.com/kavach-dev/kavach/delegation"
)

// authority is what questions are asked of: a *delegation.Chain, or the one call
// that Config.Strict permitted.
type authority interface {
	AllowsScope(delegation.Scope) error
	AllowsTool(delegation.Dimension[delegation.Call]) error
	AllowsResource(delegation.Dimension[string]) error
	AllowsNetwork(delegation.Dimension[string]) error
	AllowsSize(delegation.Dimension[int64]) error
	Restricts(dimension string) bool
}

func (v *visit) authority() authority {
	if v.permit != nil {
		return oneCall{v}
	}
	return v.chain
}

// jkt is the key that a proof must be made with.
func (v *visit) jkt() string {
	if v.permit != nil {
		return v.permit.Leaf().JKT
	}
	return v.chain.JKT()
}

// prepareStrict completes the configuration of Config.Strict.
func (g *guard) prepareStrict() {
	if g.Strict == nil {
		return
	}
	switch {
	case g.Verifier != nil:
		panic("guard: Config.Verifier and Config.Strict are two profiles: a resource takes one")
	case !g.RequireAATAud:
		// delegation.md: "`guard` takes it only with `RequireAATAud`".
		panic("guard: Config.Strict needs Config.RequireAATAud")
	case g.Strict.Audience != "" && g.Strict.Audience != g.Resource:
		panic("guard: Config.Strict.Audience is not Config.Resource")
	case g.Strict.Seen != nil || g.Strict.Nonce != nil:
		panic("guard: Config.Replays and Config.Nonces stand for what Config.Strict has of them")
	case g.Revocations != nil:
		panic("guard: Config.Revocations knows nothing of the chains that Config.Strict takes")
	case g.stopAfterAuthentication && !g.MCP:
		panic("guard: Config.Strict has to know the call: use Require, or Config.MCP")
	}
	strict := *g.Strict
	strict.Audience, strict.RequireProofAudience = g.Resource, true
	g.Strict = &strict
}

// strictly runs the draft's algorithm in place of steps 0 to 15. What it does
// last, remembering the proof, is left to step 17.
func (v *visit) strictly(r *http.Request, c carried) error {
	g := v.guard
	v.unchecked = append(v.unchecked, uncheckedRevocation)
	if c.scheme != delegation.DPoP || c.proof == "" {
		v.dpopError = invalidProof
		return bindingFailed("a chain with an AAT proof is needed")
	}
	call, err := v.strictCall(r)
	if err != nil {
		return err
	}
	permit, err := g.Strict.Verify(delegation.AATPresentation{
		Chain: strings.Split(c.credential, "~"), Proof: c.proof, Tool: call.Name, Arguments: call.Arguments,
	}, v.now)
	if err != nil {
		return v.ofStep(err)
	}
	v.permit, v.credential = permit, Secret(c.credential)
	v.dpopError = invalidProof
	held := heldAAT(permit.Proof)
	if err := v.fresh(held); err != nil {
		return err
	}
	proof := permit.Proof
	v.proof, v.proofText, v.call, v.matched = held, Secret(c.proof), &proof, true
	return nil
}

// strictCall is what the request does, which must be known by now.
func (v *visit) strictCall(r *http.Request) (delegation.Call, error) {
	if v.guard.MCP {
		if v.message == nil {
			v.dpopError = invalidProof
			return delegation.Call{}, bindingFailed("proof: no message that it could speak for")
		}
		return v.message.Call, nil
	}
	need, err := v.needs(r)
	if err != nil {
		return delegation.Call{}, err
	}
	call, given := need.Request.Tool.Value()
	if !given {
		return delegation.Call{}, &delegation.Refusal{
			Reason: delegation.ConstraintViolated, Dimension: delegation.DimensionTools, Part: -1,
			Detail: "unhandled:" + delegation.DimensionTools,
		}
	}
	return call, nil
}

// ofStep says a refusal of the draft's algorithm in the one vocabulary. The
// step itself is its detail.
func (v *visit) ofStep(err error) error {
	var refused *delegation.StrictRefusal
	if !errors.As(err, &refused) {
		return err
	}
	reason := reasonOfStep(refused.Step)
	if reason == delegation.HolderBindingFailed {
		v.dpopError = invalidProof
	}
	return &delegation.Refusal{Reason: reason, Part: refused.Part, Detail: strings.TrimPrefix(refused.Error(), "refused: ")}
}

// stepReasons translate the steps of the draft's section 8.
var stepReasons = map[string]delegation.Reason{
	"1": delegation.Malformed, "2a": delegation.TooLarge, "2b": delegation.TooLarge, "2c": delegation.DuplicateJTI,
	"3a": delegation.AlgNotAllowed, "3b": delegation.SignatureInvalid, "3c": delegation.DepthInvalid, "3d": delegation.Malformed,
	"3e": delegation.Expired, "3f": delegation.NotYetValid, "3g": delegation.Malformed, "3h": delegation.Malformed,
	"3i": delegation.DepthInvalid, "3j": delegation.Malformed, "3k": delegation.IssuerMismatch, "3l": delegation.Malformed,
	"3m": delegation.Malformed, "3n/4o": delegation.Malformed,
	"4a": delegation.AlgNotAllowed, "4b": delegation.SignatureInvalid, "4c": delegation.IssMismatch, "4d": delegation.DepthInvalid,
	"4e": delegation.DepthInvalid, "4f": delegation.DepthInvalid, "4g": delegation.DepthInvalid, "4h": delegation.OutlivesParent,
	"4i": delegation.Expired, "4j": delegation.OutlivesParent, "4k": delegation.NotYetValid, "4l": delegation.Malformed,
	"4m": delegation.DepthInvalid, "4n": delegation.Malformed, "4p1": delegation.NotNarrower, "4p2": delegation.NotNarrower,
	"4p3": delegation.NotNarrower, "4p4": delegation.NotNarrower, "4q": delegation.ParHashMismatch, "5": delegation.DepthInvalid,
	"6a": delegation.ConstraintViolated, "6b": delegation.ConstraintViolated, "6c": delegation.AudienceMismatch,
	"7i": delegation.Replayed,
}

func reasonOfStep(step string) delegation.Reason {
	if reason, ok := stepReasons[step]; ok {
		return reason
	}
	if strings.HasPrefix(step, "7") {
		return delegation.HolderBindingFailed
	}
	return delegation.Malformed // 4b1 to 4b5
}

// oneCall is the authority of a permit: the call that was proved, whatever it
// reads or writes, and no scope.
type oneCall struct{ v *visit }

func (oneCall) AllowsScope(s delegation.Scope) error {
	if s.Set() && len(s.Names()) == 0 {
		return nil
	}
	return &delegation.Refusal{
		Reason: delegation.ScopeNotGranted, Dimension: delegation.DimensionScope, Part: -1, Detail: "an AAT chain holds no scope",
	}
}

func (o oneCall) AllowsTool(d delegation.Dimension[delegation.Call]) error {
	call, given := d.Value()
	switch {
	case given && o.v.call.Match(call.Name, call.Arguments):
		return nil
	case d.Set() && !given && o.v.message != nil && strings.HasPrefix(o.v.call.Tool, delegation.MessageMethod):
		return nil // a message that calls no tool, and that was permitted as it stands
	}
	return &delegation.Refusal{
		Reason: delegation.ConstraintViolated, Dimension: delegation.DimensionTools, Part: -1, Detail: "not the tool that was permitted",
	}
}

func (oneCall) AllowsResource(delegation.Dimension[string]) error { return nil }
func (oneCall) AllowsNetwork(delegation.Dimension[string]) error  { return nil }
func (oneCall) AllowsSize(delegation.Dimension[int64]) error      { return nil }

func (oneCall) Restricts(dimension string) bool { return dimension == delegation.DimensionTools }
