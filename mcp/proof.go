package mcp

import (
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// proof is a DPoP proof that was shown together with a token, "" for none, and
// what is known of the request that it came with.
type proof struct{ text, method, url string }

// check is step 14 of delegation.md §6: the key, the hash of the whole token and
// the time, and method and URL as far as they are known. It says what it left
// out. Whether the proof was used before nobody can see from outside.
func (p proof) check(chain *delegation.Chain, token string, now time.Time) (unchecked []string, err error) {
	if p.text == "" {
		if chain.Bound() {
			return []string{"proof"}, nil
		}
		return nil, nil // a bearer token has no holder to prove
	}
	// "No cnf → Bearer only": a proof that comes with it proves nothing.
	if err := chain.CheckScheme(delegation.DPoP); err != nil {
		return nil, err
	}
	own := p.claims()
	check := agent.ProofCheck{Method: p.method, URL: p.url, Token: token, JKT: chain.JKT(), Now: now}
	if p.method == "" {
		check.Method, unchecked = own.Get("htm").Str(), append(unchecked, "method")
	}
	if p.url == "" {
		check.URL, unchecked = own.Get("htu").Str(), append(unchecked, "url")
	}
	if _, err := agent.VerifyProof(p.text, check); err != nil {
		return unchecked, &delegation.Refusal{Reason: delegation.HolderBindingFailed, Part: -1, Detail: "the proof does not hold for this token and request, now"}
	}
	return unchecked, nil
}

// claims is what the proof says of itself; nothing in it is verified.
func (p proof) claims() jcs.Value {
	c, err := agent.SplitCompact(p.text)
	if err != nil {
		return jcs.Value{}
	}
	v, err := jcs.Parse(c.UnverifiedPayload, jcs.Limits{})
	if err != nil {
		return jcs.Value{}
	}
	return v
}
