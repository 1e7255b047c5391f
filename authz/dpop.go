package authz

import (
	"net/http"
	"slices"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
)

// tokenEndpoint is where tokens are issued, below the issuer: what the htu of
// a proof at it must name.
const tokenEndpoint = "/oauth/token"

// Nonces makes and knows the nonces of DPoP proofs (RFC 9449 section 8), one
// and the same for every process. What guard.NewNonces makes of [Keyring.Nonce]
// is such, and serves the resources of this server as well.
type Nonces interface {
	// Nonce returns the nonce that the holder of a key should use now.
	Nonce(jkt string, now time.Time) string
	// Valid reports whether a nonce was made for the holder not long ago.
	Valid(nonce, jkt string, now time.Time) bool
}

// errProof is the answer to a DPoP proof that does not hold (RFC 9449 section
// 5: "invalid_dpop_proof").
func errProof(text string) *Error { return badRequest("invalid_dpop_proof", text) }

// errProofReplayed is the answer to a proof that was used before.
var errProofReplayed = errProof("the proof was used before")

// proof verifies the DPoP proof of a token request, if it carries one: nil
// without a DPoP header. credential is the token that the request presents as
// a subject, which the proof may name in ath; "" if it presents none. The
// effects spend the proof and belong into the Change of the answer; if they
// are lost, the answer is errProofReplayed. Errors are *Error.
func (s *Server) proof(r *http.Request, credential string) (*agent.VerifiedProof, []audit.Effect, error) {
	return s.cfg.Registry.proof(r, tokenEndpoint, credential, s.cfg.Nonces)
}

// proof is that of a request to an endpoint below the issuer.
func (g *Registry) proof(r *http.Request, endpoint, credential string, nonces Nonces) (*agent.VerifiedProof, []audit.Effect, error) {
	header := r.Header.Values("DPoP")
	if len(header) == 0 {
		return nil, nil, nil
	}
	if len(header) > 1 { // RFC 9449 section 4.3: "not more than one DPoP HTTP request header field"
		return nil, nil, errProof("send one DPoP header")
	}
	now := g.now()
	p, err := agent.VerifyProof(header[0], agent.ProofCheck{
		Method: r.Method, URL: g.cfg.Issuer + endpoint, Token: credential, TokenOptional: true, Now: now,
	})
	if err != nil {
		return nil, nil, errProof("the DPoP proof does not hold for this request, now")
	}
	if nonces != nil && !nonces.Valid(p.Nonce, p.Key.Thumbprint(), now) {
		// RFC 9449 section 8.
		return nil, nil, &Error{
			Status: http.StatusBadRequest, Code: "use_dpop_nonce", Description: "put the nonce of the DPoP-Nonce header into the proof",
			Nonce: nonces.Nonce(p.Key.Thumbprint(), now),
		}
	}
	return &p, []audit.Effect{g.cfg.Store.Once(p.ReplayKey(), p.Until())}, nil
}

// checkProof holds a verified proof, or that there is none, against what is
// known of the client.
func checkProof(c Client, p *agent.VerifiedProof) *Error {
	switch {
	case p == nil && c.BoundTokens:
		// RFC 9449 section 5.2: "MUST reject token requests from the client that
		// do not contain the DPoP header".
		return errProof("this client gets only tokens that are bound by a DPoP proof")
	case p != nil && c.Kind == KindAgent && slices.Contains(c.Keys, p.Key):
		// delegation.md §7: "delegation keys are made per delegation, the
		// identity key signs manifests, cards and assertions only".
		return errProof("an agent's identity key does not bind tokens; prove a key made for this")
	}
	return nil
}

// boundTo checks the key that a code or a refresh token is bound to.
func (f *flow) boundTo(jkt string) bool { return jkt == "" || f.jkt() == jkt }
