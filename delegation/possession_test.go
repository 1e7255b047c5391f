package delegation_test

import (
	"slices"
	"testing"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
)

// Whoever was shown a token and its proof checks all of the proof that it knows
// the request for, and says what it left out.
func TestCheckProof(t *testing.T) {
	root := rootToken()
	token := join(root, linkUnder(root, reviewerKey))
	const url = "https://git.internal/pull/847"
	sign := func(key agent.PrivateKey, about string) string {
		t.Helper()
		proof, err := agent.SignProof(key, agent.Proof{Method: "GET", URL: url, Token: about, IssuedAt: now})
		if err != nil {
			t.Fatal(err)
		}
		return proof
	}
	good := sign(reviewerKey.private(), token)
	chain, bearer := verified(t, token), verified(t, plainToken().String())
	for name, c := range map[string]struct {
		chain     *delegation.Chain
		proof     string
		method    string
		url       string
		unchecked []string
		refused   bool
	}{
		"all of it":                 {chain: chain, proof: good, method: "GET", url: url},
		"without the request":       {chain: chain, proof: good, unchecked: []string{"method", "url"}},
		"without the method":        {chain: chain, proof: good, url: url, unchecked: []string{"method"}},
		"for another method":        {chain: chain, proof: good, method: "POST", url: url, refused: true},
		"for another URL":           {chain: chain, proof: good, url: url + "/diff", unchecked: []string{"method"}, refused: true},
		"by another key":            {chain: chain, proof: sign(orchKey.private(), token), method: "GET", url: url, refused: true},
		"for another token":         {chain: chain, proof: sign(reviewerKey.private(), root.String()), method: "GET", url: url, refused: true},
		"none":                      {chain: chain, unchecked: []string{"proof"}},
		"something else":            {chain: chain, proof: "x", unchecked: []string{"method", "url"}, refused: true},
		"none for a bearer token":   {chain: bearer},
		"a proof of a bearer token": {chain: bearer, proof: good, refused: true},
	} {
		unchecked, err := c.chain.CheckProof(c.proof, agent.ProofCheck{Method: c.method, URL: c.url, Token: token, Now: now})
		if !slices.Equal(unchecked, c.unchecked) {
			t.Errorf("%s: left out %v", name, unchecked)
		}
		if c.refused {
			wantRefusal(t, err, delegation.HolderBindingFailed)
		} else if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
