package main

import (
	"slices"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
)

// tokenGetCmd signs in as an agent: client credentials, with a private_key_jwt
// assertion by its identity key, bound to its holder key.
type tokenGetCmd struct {
	agentFlags
	holderFlag
	Scope    string   `placeholder:"SCOPES" help:"What it shall hold, separated by spaces (all that the agent has there)."`
	Resource []string `sep:"none" placeholder:"URL" help:"Resource server it is for; repeatable (the server's choice)."`
	MaxDepth *int     `placeholder:"N" help:"How many levels it may be handed on (what the grant allows)."`
	jsonFlag
}

func (c *tokenGetCmd) Run(w *world) error {
	ask := client.Ask{Scopes: words(c.Scope), Resources: c.Resource, MaxDepth: c.MaxDepth}
	if err := onceStdin(c.KeyFile, c.HolderFile); err != nil {
		return err
	}
	if err := checkScopes(ask.Scopes); err != nil {
		return err
	}
	if c.MaxDepth != nil && (*c.MaxDepth < 0 || *c.MaxDepth > delegation.MaxDepth) {
		return usagef("", "--max-depth %d is not between 0 and %d", *c.MaxDepth, delegation.MaxDepth)
	}
	a, err := c.signer(w)
	if err != nil {
		return err
	}
	if ask.Holder, err = c.holder(w, a.ID()); err != nil {
		return err
	}
	credential, err := a.Token(w.ctx, ask)
	if err != nil {
		return serverError("signing in", c.Issuer, err)
	}
	return w.printCredential(credential, wanted{scopes: ask.Scopes}, c.JSON)
}

// checkScopes refuses what cannot be a scope before anybody is asked.
func checkScopes(scopes []string) error {
	for _, scope := range scopes {
		if !agent.IsScope(scope) {
			return usagef("", "--scope holds %q, which is not a scope", scope)
		}
	}
	return nil
}

// without is what list holds and other does not.
func without(list, other []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(other, s) })
}
