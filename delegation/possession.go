package delegation

import "github.com/kavach-dev/kavach/agent"

// CheckProof is step 14 of delegation.md §6 for who was shown the credential
// and its DPoP proof but did not receive the request that they came with: the
// proof is by the key of the last token, over the whole credential, new, and
// for shown.Method and shown.URL as far as they are given. shown.Token is the
// credential that the chain was verified from; its JKT is filled in here.
//
// unchecked names what was left out: "method" and "url", or all of it as
// "proof" where a bound credential comes without one (proof is ""). Whether the
// proof was used before nobody can see from outside. A server that receives the
// request itself leaves nothing out: see package guard.
func (c *Chain) CheckProof(proof string, shown agent.ProofCheck) (unchecked []string, err error) {
	if proof == "" {
		if c.Bound() {
			return []string{"proof"}, nil
		}
		return nil, nil // a bearer token has no holder to prove
	}
	// "No cnf → Bearer only": a proof that comes with it proves nothing.
	if err := c.CheckScheme(DPoP); err != nil {
		return nil, err
	}
	method, url := agent.UnverifiedProofRequest(proof)
	if shown.Method == "" {
		shown.Method, unchecked = method, append(unchecked, "method")
	}
	if shown.URL == "" {
		shown.URL, unchecked = url, append(unchecked, "url")
	}
	shown.JKT = c.JKT()
	if _, err := agent.VerifyProof(proof, shown); err != nil {
		return unchecked, refuse(HolderBindingFailed, "", "the proof does not hold for this token and request, now")
	}
	return unchecked, nil
}
