package client

import (
	"context"
	"net/url"
	"strconv"
	"strings"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// Ask is what to sign in for.
type Ask struct {
	// Scopes may be empty: the server then gives all that the agent has for the
	// resources.
	Scopes []string
	// Resources are the servers that the token is for.
	Resources []string
	// MaxDepth is how many hand-overs the token shall allow (del_max_depth);
	// nil leaves it to the server.
	MaxDepth *int
	// Holder is the key to bind the token to; zero makes one. It is never the
	// identity key.
	Holder agent.PrivateKey
	// AAT asks for a root that verifiers take which know only AAT
	// (draft-niyikiza-oauth-attenuating-agent-tokens). It grants Tools, and holds
	// Limits where the resource sees them. What is granted may be less. Without
	// AAT both must be nil.
	AAT    bool
	Tools  delegation.Tools
	Limits delegation.Limits
}

// Token signs in once (client credentials, private_key_jwt) and returns a token
// bound to the holder key. A server that answers with an unbound token is
// refused.
func (a *Agent) Token(ctx context.Context, ask Ask) (Credential, error) {
	holder, err := a.holder(ask.Holder)
	if err != nil {
		return Credential{}, err
	}
	form := url.Values{"grant_type": {"client_credentials"}}
	narrow(form, ask.Scopes, ask.Resources, ask.MaxDepth)
	if !ask.AAT && (ask.Tools != nil || !ask.Limits.IsZero()) {
		return Credential{}, failed("tools and limits are for an AAT; narrow another token with Exchange")
	}
	if ask.AAT {
		form.Set("requested_token_type", typeAAT)
		if err := confirm(form, holder.Public()); err != nil {
			return Credential{}, err
		}
		if err := restrict(form, ask.Tools, ask.Limits); err != nil {
			return Credential{}, err
		}
	}
	return a.grant(ctx, tokenRequest{form: form, prover: holder, holder: holder, aat: ask.AAT})
}

// confirm writes the key that the answer shall be bound to.
func confirm(form url.Values, key agent.PublicKey) error {
	cnf, err := jcs.Marshal(map[string]any{"jwk": key.JWK()})
	if err != nil {
		return failed("writing req_cnf: %w", err)
	}
	form.Set("req_cnf", string(cnf))
	return nil
}

// restrict writes tools and limits.
func restrict(form url.Values, tools delegation.Tools, limits delegation.Limits) error {
	details := delegation.Details(tools, limits)
	if details == nil {
		return nil
	}
	text, err := jcs.Marshal(details)
	if err != nil {
		return failed("writing authorization_details: %w", err)
	}
	form.Set("authorization_details", string(text))
	return nil
}

// narrow writes the parameters that every grant has.
func narrow(form url.Values, scopes, resources []string, maxDepth *int) {
	if len(scopes) > 0 {
		form.Set("scope", strings.Join(scopes, " "))
	}
	if len(resources) > 0 {
		form["resource"] = resources
	}
	if maxDepth != nil {
		form.Set("del_max_depth", strconv.Itoa(*maxDepth))
	}
}
