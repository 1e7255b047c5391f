package main

import (
	"fmt"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
)

// heldFlags name a token and the key it is bound to.
type heldFlags struct {
	TokenFile string `required:"" placeholder:"FILE" help:"File with the token or chain; - is standard input."`
	KeyFile   string `placeholder:"FILE" help:"The key it is bound to (none, for a bearer token)."`
}

// credential reads token and key.
func (f heldFlags) credential(w *world) (client.Credential, error) {
	token, err := w.readLine(f.TokenFile)
	if err != nil {
		return client.Credential{}, err
	}
	key, err := f.key(w)
	if err != nil {
		return client.Credential{}, err
	}
	return hold(token, key, f)
}

// key reads the key, if one is named.
func (f heldFlags) key(w *world) (agent.PrivateKey, error) {
	if f.KeyFile == "" {
		return agent.PrivateKey{}, nil
	}
	return w.readPrivateKey(f.KeyFile)
}

// hold puts token and key together.
func hold(token string, key agent.PrivateKey, f heldFlags) (client.Credential, error) {
	c, err := client.Hold(token, key)
	if err == nil {
		return c, nil
	}
	hint := f.TokenFile + " must be a token or chain, and " + f.KeyFile + " the key that it was made for"
	if f.KeyFile == "" {
		hint = "a bound token needs its key: --key-file holder.key.json"
	}
	return c, withHint(fmt.Errorf("taking the token %s: %w", f.TokenFile, plain(err)), hint)
}
