package main

import (
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/agent"
)

// agentCardCmd signs a key card: how a delegator learns the key of this agent
// without trusting whoever relays it.
type agentCardCmd struct {
	KeyFile  string        `required:"" placeholder:"FILE" help:"NAME.key.json of the agent: its identity."`
	Audience string        `required:"" placeholder:"ID" help:"Who it is for: the id of the agent that will delegate, or the issuer's URL for an exchange."`
	TTL      time.Duration `name:"ttl" default:"10m" help:"How long it is good for (${default}, which is the most)."`
	holderFlag
	jsonFlag
}

func (c *agentCardCmd) Run(w *world) error {
	if err := onceStdin(c.KeyFile, c.HolderFile); err != nil {
		return err
	}
	if c.TTL < time.Second || c.TTL > agent.MaxCardLife {
		return usagef("write it like 90s or 5m", "--ttl %s is not between 1s and %s", c.TTL, agent.MaxCardLife)
	}
	if !agent.IsID(c.Audience) && checkIssuer(c.Audience) != nil {
		return usagef("an agent's id has 43 characters; `kavach agent create` prints it, and `kavach agent show`", "--audience %q is neither an agent's id nor an issuer's URL", c.Audience)
	}
	identity, id, err := w.readIdentity(c.KeyFile)
	if err != nil {
		return err
	}
	holder, err := c.holder(w, id)
	if err != nil {
		return err
	}
	now := w.now()
	card, err := agent.SignCard(identity, agent.Card{
		Agent: id, Audience: c.Audience, Key: holder.Public(), IssuedAt: now, Expires: now.Add(c.TTL),
	})
	if err != nil {
		return err
	}
	if c.JSON {
		return w.printJSON(map[string]any{"card": card, "agent": id, "jkt": holder.Public().Thumbprint(), "expires_in": int(c.TTL.Seconds())})
	}
	fmt.Fprintln(w.stdout, card)
	return nil
}
