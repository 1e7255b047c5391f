package main

import (
	"fmt"
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
	AAT      bool     `name:"aat" help:"A root for verifiers that know only AAT: it names the tools it is for."`
	Tool     []string `sep:"none" placeholder:"NAME" help:"With --aat: tool it may call, with any arguments; repeatable."`
	Details  string   `placeholder:"FILE" help:"With --aat: file with authorization_details, which say what the arguments of tools may be; - is standard input."`
	jsonFlag
}

func (c *tokenGetCmd) Run(w *world) error {
	ask := client.Ask{Scopes: words(c.Scope), Resources: c.Resource, MaxDepth: c.MaxDepth}
	if err := onceStdin(c.KeyFile, c.HolderFile, c.Details); err != nil {
		return err
	}
	if err := checkScopes(ask.Scopes); err != nil {
		return err
	}
	if c.MaxDepth != nil && (*c.MaxDepth < 0 || *c.MaxDepth > delegation.MaxDepth) {
		return usagef("", "--max-depth %d is not between 0 and %d", *c.MaxDepth, delegation.MaxDepth)
	}
	if err := c.tools(w, &ask); err != nil {
		return err
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

// tools reads what an AAT shall grant.
func (c *tokenGetCmd) tools(w *world, ask *client.Ask) error {
	ask.AAT = c.AAT
	switch named := len(c.Tool) > 0; {
	case !c.AAT && (named || c.Details != ""):
		return usagef("narrow another token with kavach exchange", "--tool and --details are for --aat")
	case c.AAT && named == (c.Details != ""):
		return usagef("", "--aat takes the tools it is for, by --tool or in --details")
	case named:
		ask.Tools = delegation.Tools{}
		for _, name := range c.Tool {
			ask.Tools[name] = delegation.AllowAnyArgs
		}
	case c.Details != "":
		text, err := w.read(c.Details)
		if err != nil {
			return err
		}
		if ask.Tools, ask.Limits, err = delegation.ParseDetails(text); err != nil {
			return fmt.Errorf("reading %s: %w", c.Details, err)
		}
	}
	return nil
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
