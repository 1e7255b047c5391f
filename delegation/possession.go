package delegation

import (
	"slices"
	"time"

	"github.com/kavach-dev/kavach/agent"
)

// Shown is what somebody was shown beside a credential. What is left empty was
// not.
type Shown struct {
	// Token is the credential that the chain was verified from.
	Token string
	// Proof is the proof that came with it, DPoP or AAT.
	Proof string
	// Method and URL are those of the request, which a DPoP proof names.
	Method, URL string
	// Audience is the resource server and Call the call of a tool there, which
	// an AAT proof names.
	Audience string
	Call     Dimension[Call]
	// Now is the time of the check.
	Now time.Time
}

// CheckProof is step 14 of delegation.md §6 for who was shown the credential
// and its proof but did not receive the request that they came with: the proof
// is by the key of the last token, over this credential, new, and for the
// request or the call as far as that is known.
//
// unchecked names what was left out: "method" and "url" of a DPoP proof, "call"
// of an AAT proof and the method and the URL that it does not speak about, or all
// of it as "proof" where a bound credential comes without one. Whether the proof
// was used before nobody can see from outside. A server that receives the request
// itself leaves nothing out: see package guard.
func (c *Chain) CheckProof(shown Shown) (unchecked []string, err error) {
	if shown.Proof == "" {
		if c.Bound() {
			return []string{"proof"}, nil
		}
		return nil, nil // a bearer token has no holder to prove
	}
	// "No cnf → Bearer only": a proof that comes with it proves nothing.
	if err := c.CheckScheme(DPoP); err != nil {
		return nil, err
	}
	if agent.IsAATProof(shown.Proof) {
		return c.checkCallProof(shown)
	}
	method, url := agent.UnverifiedProofRequest(shown.Proof)
	check := agent.ProofCheck{Method: shown.Method, URL: shown.URL, Token: shown.Token, JKT: c.JKT(), Now: shown.Now}
	if check.Method == "" {
		check.Method, unchecked = method, append(unchecked, "method")
	}
	if check.URL == "" {
		check.URL, unchecked = url, append(unchecked, "url")
	}
	if _, err := agent.VerifyProof(shown.Proof, check); err != nil {
		return unchecked, refuse(HolderBindingFailed, "", "the proof does not hold for this token and request, now")
	}
	return unchecked, nil
}

// checkCallProof is CheckProof for an AAT proof. Where the resource server is not
// known it is for one that the chain is for.
func (c *Chain) checkCallProof(shown Shown) (unchecked []string, err error) {
	if shown.Method != "" {
		unchecked = append(unchecked, "method")
	}
	if shown.URL != "" {
		unchecked = append(unchecked, "url")
	}
	call, given := shown.Call.Value()
	if !given {
		unchecked = append(unchecked, "call")
	}
	audiences := []string{shown.Audience}
	if shown.Audience == "" {
		audiences = c.Audience()
	}
	held := !c.Key().IsZero() && slices.ContainsFunc(audiences, func(audience string) bool {
		_, err := agent.VerifyAATProof(shown.Proof, agent.AATCheck{
			Key: c.Key(), LID: c.LID(), LeafJTI: c.JTI(), Audience: audience,
			Tool: call.Name, Arguments: call.Arguments, UnmatchedCall: !given, Now: shown.Now,
		})
		return err == nil
	})
	if !held {
		return unchecked, refuse(HolderBindingFailed, "", "the proof does not hold for this token and call, now")
	}
	return unchecked, nil
}
