package main

import (
	"slices"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
)

// proofOf checks the flags about the proof of possession and returns the method
// in its spelling.
func (c *verifyCmd) proofOf() (string, error) {
	if c.Proof == "" && c.Method == "" && c.URL == "" {
		return "", nil
	}
	if c.Proof == "" || c.Method == "" || c.URL == "" {
		return "", usagef("a proof is for one request", "--proof, --method and --url go together")
	}
	if err := checkHTTP("--url", c.URL); err != nil {
		return "", err
	}
	return checkMethod(c.Method)
}

// prove is step 14 of delegation.md §6: the proof is by the key that the token
// is bound to, for this token and this request, and new. That it is shown for
// the first time (step 17) is for a server to say.
func (v *verdict) prove(proof string, check agent.ProofCheck) {
	if v.chain == nil || !v.valid {
		return // refused before
	}
	v.unchecked = slices.DeleteFunc(v.unchecked, func(s string) bool { return s == "proof" })
	check.JKT = v.chain.JKT()
	if !v.chain.Bound() {
		return // a bearer token has no holder: RFC 9449 §7.1 has a server ignore the proof
	}
	if _, err := agent.VerifyProof(proof, check); err != nil {
		v.refuse(&delegation.Refusal{Reason: delegation.HolderBindingFailed, Part: -1, Detail: err.Error()})
	}
}
