// Command verify-only decides about one token with the package delegation. It is
// a module of its own, as somebody else's program is, so its go.mod and go.sum
// show what that costs: one library.
//
//	verify-only JWKS-FILE ISSUER AUDIENCE SCOPE < TOKEN-FILE
package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/wellknown"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: verify-only JWKS-FILE ISSUER AUDIENCE SCOPE < TOKEN-FILE")
		os.Exit(2)
	}
	path, err := decide(os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("allowed, for", strings.Join(path, " > "))
}

// decide verifies a token, then asks whether it allows what is wanted. What it
// cannot know is whether the holder of the key is there: a chain needs a proof,
// which package guard checks.
func decide(keys, issuer, audience, scope string, in io.Reader) ([]string, error) {
	text, err := os.ReadFile(keys)
	if err != nil {
		return nil, err
	}
	published, err := wellknown.ParseJWKS(text)
	if err != nil {
		return nil, err
	}
	var anchors []delegation.Anchor
	for _, key := range published {
		// The set has keys for other purposes, too: those are no anchors.
		if anchor, err := delegation.NewAnchor(key.KID, key.Public); err == nil {
			anchors = append(anchors, anchor)
		}
	}
	token, err := io.ReadAll(io.LimitReader(in, delegation.MaxChainBody))
	if err != nil {
		return nil, err
	}
	verifier := &delegation.Verifier{Issuer: issuer, Anchors: delegation.AnchorSet(anchors...)}
	chain, err := verifier.Verify(strings.TrimSpace(string(token)), time.Now())
	if err != nil {
		return nil, err
	}
	if err := chain.For(audience); err != nil {
		return nil, err
	}
	return chain.Path(), chain.Allows(delegation.Request{
		Scope:    delegation.AllOf(scope),
		Tool:     delegation.None[delegation.Call](),
		Resource: delegation.None[string](),
		Network:  delegation.None[string](),
		Size:     delegation.None[int64](),
	})
}
