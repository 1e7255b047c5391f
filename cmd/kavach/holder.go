package main

import (
	"errors"
	"fmt"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/jcs"
)

type holderCmds struct {
	New  holderNewCmd  `cmd:"" help:"Make a key that a delegation can be bound to."`
	Show holderShowCmd `cmd:"" help:"Print the public half of such a key."`
}

// holderNewCmd makes a delegation key, which is no identity: one for each
// delegation, thrown away with it.
type holderNewCmd struct {
	Out string `default:"holder.key.json" placeholder:"FILE" help:"File for the private key (${default})."`
	jsonFlag
}

func (c *holderNewCmd) Run(w *world) error {
	if c.Out == "-" { // standard output is for the public key
		return usagef("name a file", "--out writes a private key, and not to standard output")
	}
	key, err := agent.GenerateKey()
	if err != nil {
		return err
	}
	private, err := key.MarshalJWK()
	if err != nil {
		return err
	}
	if err := writeNew(c.Out, append(private, '\n'), 0o600); err != nil {
		return err
	}
	// The public JWK is JSON either way: --json changes nothing.
	fmt.Fprintf(w.stdout, "%s\n", key.Public().AppendJWK(nil))
	w.note("wrote %s (keep it secret)", c.Out)
	return nil
}

// holderShowCmd prints again what `holder new` printed.
type holderShowCmd struct {
	KeyFile string `arg:"" default:"holder.key.json" placeholder:"FILE" help:"The key file (${default})."`
	jsonFlag
}

func (c *holderShowCmd) Run(w *world) error {
	key, err := w.readPrivateKey(c.KeyFile)
	if err != nil {
		return err
	}
	fmt.Fprintf(w.stdout, "%s\n", key.Public().AppendJWK(nil))
	return nil
}

// readPrivateKey reads a key file and warns if others can read it too.
func (w *world) readPrivateKey(name string) (agent.PrivateKey, error) {
	key, _, err := w.readIdentity(name)
	return key, err
}

// readIdentity is readPrivateKey for the key of an agent, and returns its id:
// that of an agent that has changed its key stands in the file.
func (w *world) readIdentity(name string) (agent.PrivateKey, string, error) {
	data, err := w.read(name)
	if err != nil {
		return agent.PrivateKey{}, "", err
	}
	key, id, err := agent.ParseIdentity(data)
	if err != nil {
		if v, parseErr := jcs.Parse(data, jcs.Limits{Bytes: agent.MaxToken}); parseErr == nil && v.Get("kty").Exists() && !v.Get("d").Exists() {
			err = errors.New("it holds a public key")
		}
		return agent.PrivateKey{}, "", withHint(fmt.Errorf("reading the key file %s: %w", name, err),
			"a key file is one private JWK, as `kavach agent create` and `kavach holder new` write it")
	}
	w.warnIfShared(name)
	return key, id, nil
}

// readPublicKey reads a public JWK. A private one is refused: it was given
// away already if it got this far, and must not be taken for good.
func (w *world) readPublicKey(name string) (agent.PublicKey, error) {
	data, err := w.read(name)
	if err != nil {
		return agent.PublicKey{}, err
	}
	v, err := jcs.Parse(data, jcs.Limits{Bytes: agent.MaxToken})
	if err != nil {
		return agent.PublicKey{}, fmt.Errorf("reading the public key %s: %w", name, err)
	}
	if v.Get("d").Exists() {
		return agent.PublicKey{}, withHint(fmt.Errorf("reading the public key %s: it holds a private key", name),
			"a receiver hands out the public JWK that `kavach holder new` prints, and keeps the file it writes")
	}
	key, err := agent.ParsePublicKeyExtra(v)
	if err != nil {
		return agent.PublicKey{}, fmt.Errorf("reading the public key %s: %w", name, err)
	}
	return key, nil
}
