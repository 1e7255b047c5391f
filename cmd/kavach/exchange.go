package main

import (
	"time"

	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
)

// exchangeCmd narrows a token online (RFC 8693), for its own holder or, with a
// key card, for another agent. What comes out is signed by the server.
type exchangeCmd struct {
	Token string `arg:"" placeholder:"FILE" help:"File with the token or chain; - is standard input."`
	agentFlags
	HolderFile string        `default:"holder.key.json" placeholder:"FILE" help:"The key the token is bound to (${default})."`
	Card       string        `placeholder:"FILE" help:"The key card of the agent that shall get it, made out to the issuer (the holder itself)."`
	Scope      string        `placeholder:"SCOPES" help:"What it shall hold, separated by spaces (what the token has)."`
	TTL        time.Duration `name:"ttl" default:"120s" help:"How long it lives (${default}, and no longer than the token)."`
	Audience   []string      `sep:"none" placeholder:"URL" help:"Resource server it is for; repeatable (those of the token)."`
	limitFlags
	MaxDepth *int `placeholder:"N" help:"How many more levels it may be handed on; 0 seals it (what the token leaves)."`
	AAT      bool `name:"aat" help:"A root for verifiers that know only AAT, with tools, for the agent of --card."`
	jsonFlag
}

func (c *exchangeCmd) Run(w *world) error {
	if err := onceStdin(c.Token, c.KeyFile, c.HolderFile, c.Card, c.Tools); err != nil {
		return err
	}
	ask, err := c.ask(w)
	if err != nil {
		return err
	}
	a, err := c.signer(w)
	if err != nil {
		return err
	}
	subject, err := heldFlags{TokenFile: c.Token, KeyFile: c.HolderFile}.credential(w)
	if err != nil {
		return err
	}
	if c.Card != "" {
		if ask.Card, err = w.readLine(c.Card); err != nil {
			return err
		}
	}
	credential, err := a.Exchange(w.ctx, subject, ask)
	if err != nil {
		return serverError("exchanging the token", c.Issuer, err)
	}
	return w.printCredential(credential, wanted{ask.Scopes, c.TTL}, c.JSON)
}

// ask puts the flags together.
func (c *exchangeCmd) ask(w *world) (client.ExchangeAsk, error) {
	ask := client.ExchangeAsk{Resources: c.Audience, TTL: c.TTL, MaxDepth: c.MaxDepth, AAT: c.AAT}
	if c.AAT && c.Card == "" {
		return ask, usagef("for an agent of your own: kavach token get --aat", "--aat needs --card: an AAT is bound to another key than the token it comes from")
	}
	if c.TTL < delegation.MinLinkTTL || c.TTL > delegation.MaxRootTTL {
		return ask, usagef("write it like 90s or 5m", "--ttl %s is not between 1s and %s", c.TTL, delegation.MaxRootTTL)
	}
	if c.Scope != "" {
		ask.Scopes = words(c.Scope)
	}
	if err := checkScopes(ask.Scopes); err != nil {
		return ask, err
	}
	var err error
	ask.Tools, ask.Limits, err = c.limits(w)
	return ask, err
}
