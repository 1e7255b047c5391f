package delegation

import (
	"strings"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/jcs"
)

const (
	// MetaKey is the member of `_meta` in the params of an MCP message that
	// holds a Presentation (delegation.md §6, Proofs).
	MetaKey = "kavach/aat"
	// AATProofHeader is the header of an HTTP request that holds the AAT proof
	// where the chain is in Authorization: DPoP. A DPoP header does not come
	// with it. The draft names no header; this one is kavach's own.
	AATProofHeader = "AAT-Proof"
	// MessageMethod begins the aat_tool of a proof for an MCP message that calls
	// no tool: "mcp:tools/list". A colon is in no name of an MCP tool.
	MessageMethod = "mcp:"
)

// Presentation is a chain with the AAT proof for one call, as a JSON body
// carries it.
type Presentation struct {
	// Chain are the tokens, root first: aat_chain.
	Chain []string
	// Proof is aat_pop.
	Proof string
}

// ParsePresentation reads {"aat_chain":[…],"aat_pop":"…"}. Other members are
// ignored, as the draft demands. Nothing of it is verified. An error is a
// *Refusal with malformed or too_large.
func ParsePresentation(v jcs.Value) (Presentation, error) {
	chain, ok := v.Get("aat_chain").Strings()
	proof := v.Get("aat_pop")
	if v.Kind() != jcs.Object || !ok || len(chain) == 0 || proof.Kind() != jcs.String || proof.Str() == "" {
		return Presentation{}, refuse(Malformed, "", "a presentation is aat_chain, a list of tokens, and aat_pop")
	}
	if len(chain) > MaxLinks || len(proof.Str()) > agent.MaxAATProof {
		return Presentation{}, refuse(TooLarge, "", "presentation")
	}
	size := len(chain) - 1
	for _, token := range chain {
		size += len(token)
		// One string of two tokens would be another list with the same chain.
		if token == "" || strings.Contains(token, "~") {
			return Presentation{}, refuse(Malformed, "", "aat_chain holds something that is no token")
		}
	}
	if size > MaxChainBody {
		return Presentation{}, refuse(TooLarge, "", "presentation")
	}
	return Presentation{Chain: chain, Proof: proof.Str()}, nil
}

// Present makes the presentation of a chain, root~link~…~leaf.
func Present(chain, proof string) Presentation {
	return Presentation{Chain: strings.Split(chain, "~"), Proof: proof}
}

// Credential is the chain in its one string form.
func (p Presentation) Credential() string { return strings.Join(p.Chain, "~") }

// Map returns the members, for jcs.
func (p Presentation) Map() map[string]any {
	return map[string]any{"aat_chain": p.Chain, "aat_pop": p.Proof}
}

// Exact reports whether every number among the arguments is exactly what its
// canonical form denotes (aat02.md, "Admissible number"). Only then do a proof
// over the canonical arguments and the text of the call say the same.
func (c Call) Exact() bool { return admissible(c.Arguments) }

// Key returns the key that a proof must be made with: the cnf.jwk of the last
// token of a chain. It is zero for a plain token, which names at most the
// thumbprint of a key; see JKT.
func (c *Chain) Key() agent.PublicKey { return c.leaf().key }
