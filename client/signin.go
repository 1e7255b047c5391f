package client

import (
	"context"
	"net/url"
	"strconv"
	"strings"

	"github.com/kavach-dev/kavach/agent"
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
	return a.grant(ctx, tokenRequest{form: form, prover: holder, holder: holder})
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
