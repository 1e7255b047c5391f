package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/delegation"
)

// delegateCmd derives the next link of a chain with the holder's key. Neither
// server nor network is asked.
type delegateCmd struct {
	Parent   string        `required:"" placeholder:"FILE" help:"File with the chain to hand on; - is standard input."`
	KeyFile  string        `required:"" placeholder:"FILE" help:"The key the chain is bound to."`
	Scope    string        `required:"" placeholder:"SCOPES" help:"What to hand on, separated by spaces; no more than the chain has."`
	TTL      time.Duration `name:"ttl" default:"120s" help:"How long it lives (${default}, at most 15m, and no longer than the chain)."`
	Audience []string      `sep:"none" placeholder:"URL" help:"Resource server it is for; repeatable (those of the chain)."`
	limitFlags
	MaxDepth *int `placeholder:"N" help:"How many more links may follow; 0 seals it (what the chain leaves)."`
	receiverFlags
	jsonFlag
}

func (c *delegateCmd) Run(w *world) error {
	if err := onceStdin(c.Parent, c.KeyFile, c.To, c.Card, c.Manifest, c.Tools); err != nil {
		return err
	}
	if err := c.checkReceiver(); err != nil {
		return err
	}
	narrow, err := c.narrow(w)
	if err != nil {
		return err
	}
	parent, err := w.readLine(c.Parent)
	if err != nil {
		return err
	}
	key, err := w.readPrivateKey(c.KeyFile)
	if err != nil {
		return err
	}
	to, err := c.receiver(w, parent, &narrow)
	if err != nil {
		return err
	}
	derived, err := delegation.Derive(parent, key, to, narrow, w.now())
	if err != nil {
		return withHint(err, delegateHint(err))
	}
	if c.JSON {
		return w.printJSON(map[string]any{
			"chain": derived.Chain, "token_id": derived.LID(), "agent": narrow.ClientID, "confirmed": c.Card != "",
			"expires_in": secondsLeft(derived.Expires, w.now()), "clamped": derived.Clamped,
		})
	}
	fmt.Fprintln(w.stdout, derived.Chain)
	if derived.Clamped {
		w.note("it lives until %s, with what it comes from", when(derived.Expires))
	}
	return nil
}

// narrow puts the flags together.
func (c *delegateCmd) narrow(w *world) (delegation.Narrow, error) {
	n := delegation.Narrow{
		Scopes: words(c.Scope), Audience: c.Audience, TTL: c.TTL, MaxDepth: c.MaxDepth,
	}
	if n.TTL < delegation.MinLinkTTL || n.TTL > delegation.MaxLinkTTL {
		return n, usagef("write it like 90s or 5m", "--ttl %s is not between 1s and 15m", c.TTL)
	}
	if err := checkScopes(n.Scopes); err != nil {
		return n, err
	}
	var err error
	n.Tools, n.Limits, err = c.limits(w)
	return n, err
}

// delegateHint says what to do about a refusal to derive.
func delegateHint(err error) string {
	var refused *delegation.Refusal
	if !errors.As(err, &refused) {
		return ""
	}
	switch refused.Reason {
	case delegation.Malformed:
		if refused.Dimension == delegation.DimensionNetwork {
			return "write it like git.internal, git.internal:443 or *.internal"
		}
	case delegation.NotNarrower, delegation.AudienceWidened:
		if refused.Dimension == delegation.DimensionTools {
			return "name tools and arguments that the chain has, under the same types of constraint (`kavach token inspect` shows them); a chain without any gets them from its server: `kavach exchange`, with the receiver's --card"
		}
		if refused.Dimension == delegation.DimensionCalls {
			return "a budget is at most that of the chain, and for one resource server: --audience URL"
		}
		return "a link can only narrow: `kavach token inspect` shows what the chain has"
	case delegation.DepthInvalid:
		return "the chain allows fewer levels, is sealed, or is a plain token, which only its own server can hand on: `kavach exchange`, with the receiver's --card"
	case delegation.Expired:
		return "get a new token, and derive from that"
	case delegation.KeyReuse:
		return "every link needs a key of its own: the receiver runs `kavach holder new`"
	case delegation.SignatureInvalid, delegation.HolderBindingFailed:
		return "--key-file is not the key that the last link is bound to"
	}
	return ""
}
