package delegation_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
)

// An orchestrator narrows its root for a reviewer, without asking anybody.
func ExampleDerive() {
	orchestrator, reviewer := newKey(), newKey()
	root, verifier := issueRoot(orchestrator.Public())

	derived, err := delegation.Derive(root, orchestrator, reviewer.Public(), delegation.Narrow{
		ClientID: "code-reviewer",
		Scopes:   []string{"repository:read"},
		Audience: []string{"https://git.example"},
		TTL:      3 * time.Minute,
		Limits: delegation.Limits{
			Resources:    []string{"pullrequest/847"},
			AllowNetwork: []string{"git.internal"},
		},
		MaxDepth: new(int), // 0: the reviewer cannot hand it on
	}, time.Now())
	if err != nil {
		log.Fatal(err)
	}

	chain, err := verifier.Verify(derived.Chain, time.Now())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(chain.Path(), chain.Scopes(), chain.Limits().Resources)
	// Output: [alice orchestrator code-reviewer] [repository:read] [pullrequest/847]
}

// A resource server verifies a chain offline and decides about one request. The
// holder's proof and revocation are separate steps (package guard does all).
func ExampleVerifier() {
	orchestrator := newKey()
	credential, verifier := issueRoot(orchestrator.Public())

	chain, err := verifier.Verify(credential, time.Now())
	if err != nil {
		log.Fatal(err)
	}
	if err := chain.For("https://git.example"); err != nil {
		log.Fatal(err)
	}
	err = chain.Allows(delegation.Request{
		Scope:    delegation.AllOf("repository:write"),
		Resource: delegation.Given("pullrequest/847"),
		Network:  delegation.None[string](),
		Size:     delegation.None[int64](),
	})
	var refusal *delegation.Refusal
	if errors.As(err, &refusal) {
		fmt.Println(refusal.Reason, refusal.Detail)
	}
	// Output: scope_not_granted repository:write
}

func newKey() agent.PrivateKey {
	key, err := agent.GenerateKey()
	if err != nil {
		log.Fatal(err)
	}
	return key
}

// issueRoot plays the authorization server.
func issueRoot(holder agent.PublicKey) (root string, verifier *delegation.Verifier) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	key := delegation.ServerKey{KID: "at-example", Signer: private}
	anchor, err := key.Anchor()
	if err != nil {
		log.Fatal(err)
	}
	now := time.Now()
	signed, err := delegation.Sign(delegation.Claims{
		Issuer: "https://auth.example", Subject: "alice", ClientID: "orchestrator", GrantID: "grant-1",
		Audience: []string{"https://git.example"}, Scopes: []string{"repository:read"},
		IssuedAt: now, Expires: now.Add(delegation.DefaultRootTTL),
		Root: true, Key: holder, MaxDepth: delegation.DefaultMaxDepth,
	}, key)
	if err != nil {
		log.Fatal(err)
	}
	return signed.Token, &delegation.Verifier{Issuer: "https://auth.example", Anchors: delegation.AnchorSet(anchor)}
}
