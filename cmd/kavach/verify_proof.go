package main

import (
	"slices"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// checkProof checks the flags about the proof of possession, and puts the method
// into the spelling of a request.
func (c *verifyCmd) checkProof() (err error) {
	if c.Proof == "" && (c.Method != "" || c.URL != "") {
		return usagef("", "--method and --url say what --proof must be for")
	}
	if c.Method != "" {
		if c.Method, err = checkMethod(c.Method); err != nil {
			return err
		}
	}
	if c.URL != "" {
		return checkHTTP("--url", c.URL)
	}
	return nil
}

// prove is step 14 of delegation.md §6: the proof is by the key that the token
// is bound to, for this token, new, and for method and URL as far as they were
// given; what was not is listed as unchecked. That it is shown for the first
// time (step 17) only a server can say.
func (v *verdict) prove(proof string, check agent.ProofCheck) {
	if v.chain == nil || !v.valid {
		return // refused before
	}
	// "No cnf → Bearer only": a proof that comes with it proves nothing.
	if err := v.chain.CheckScheme(delegation.DPoP); err != nil {
		v.refuse(err)
		return
	}
	v.unchecked = slices.DeleteFunc(v.unchecked, func(s string) bool { return s == "proof" })
	says := unverifiedClaims(proof)
	if check.Method == "" {
		check.Method, v.unchecked = says.Get("htm").Str(), append(v.unchecked, "method")
	}
	if check.URL == "" {
		check.URL, v.unchecked = says.Get("htu").Str(), append(v.unchecked, "url")
	}
	check.JKT = v.chain.JKT()
	if _, err := agent.VerifyProof(proof, check); err != nil {
		v.refuse(&delegation.Refusal{Reason: delegation.HolderBindingFailed, Part: -1, Detail: "the proof does not hold for this token and request, now"})
	}
}

// unverifiedClaims is what a proof says of itself.
func unverifiedClaims(proof string) jcs.Value {
	c, err := agent.SplitCompact(proof)
	if err != nil {
		return jcs.Value{}
	}
	v, err := jcs.Parse(c.UnverifiedPayload, jcs.Limits{})
	if err != nil {
		return jcs.Value{}
	}
	return v
}
