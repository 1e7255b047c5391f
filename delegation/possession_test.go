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
		unchecked, err := c.chain.CheckProof(delegation.Shown{Proof: c.proof, Method: c.method, URL: c.url, Token: token, Now: now})
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

// An AAT proof is one as well: "`cnf` → `DPoP` with proof, or an AAT proof".
func TestCheckCallProof(t *testing.T) {
	root := rootToken()
	token := join(root, linkUnder(root, reviewerKey))
	chain, short := verified(t, token), verified(t, root.String())
	plain := verified(t, plainToken().with(object{"cnf": object{"jkt": reviewerKey.jkt()}}).String())
	sign := func(key agent.PrivateKey, of *delegation.Chain, audience string) string {
		t.Helper()
		proof, err := agent.SignAATProof(key, agent.AATProof{
			LID: of.LID(), LeafJTI: of.JTI(), Tool: "get_diff", Arguments: parseValue(t, `{"pull":847}`), Audience: audience, IssuedAt: now,
		})
		if err != nil {
			t.Fatal(err)
		}
		return proof
	}
	call := func(tool, arguments string) delegation.Dimension[delegation.Call] {
		return delegation.Given(delegation.Call{Name: tool, Arguments: parseValue(t, arguments)})
	}
	good := sign(reviewerKey.private(), chain, gitHost)
	for name, c := range map[string]struct {
		chain     *delegation.Chain
		shown     delegation.Shown
		unchecked []string
		refused   bool
	}{
		"all of it":              {chain: chain, shown: delegation.Shown{Proof: good, Audience: gitHost, Call: call("get_diff", `{"pull":8.47e2}`)}},
		"without the call":       {chain: chain, shown: delegation.Shown{Proof: good, Audience: gitHost}, unchecked: []string{"call"}},
		"without the server":     {chain: chain, shown: delegation.Shown{Proof: good, Call: call("get_diff", `{"pull":847}`)}},
		"beside a request":       {chain: chain, shown: delegation.Shown{Proof: good, Method: "POST", URL: gitHost, Call: call("get_diff", `{"pull":847}`)}, unchecked: []string{"method", "url"}},
		"other arguments":        {chain: chain, shown: delegation.Shown{Proof: good, Call: call("get_diff", `{"pull":848}`)}, refused: true},
		"another tool":           {chain: chain, shown: delegation.Shown{Proof: good, Call: call("merge", `{"pull":847}`)}, refused: true},
		"another server":         {chain: chain, shown: delegation.Shown{Proof: good, Audience: "https://mail.example"}, unchecked: []string{"call"}, refused: true},
		"for a server elsewhere": {chain: chain, shown: delegation.Shown{Proof: sign(reviewerKey.private(), chain, "https://mail.example")}, unchecked: []string{"call"}, refused: true},
		"by the parent":          {chain: chain, shown: delegation.Shown{Proof: sign(orchKey.private(), chain, gitHost)}, unchecked: []string{"call"}, refused: true},
		"of the parent's token":  {chain: chain, shown: delegation.Shown{Proof: sign(reviewerKey.private(), short, gitHost)}, unchecked: []string{"call"}, refused: true},
		"of a plain token":       {chain: plain, shown: delegation.Shown{Proof: sign(reviewerKey.private(), plain, gitHost)}, unchecked: []string{"call"}, refused: true},
	} {
		c.shown.Now = now
		unchecked, err := c.chain.CheckProof(c.shown)
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
