package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
)

// openKeys opens the keys of a deployment that has some.
func (p *placeFlags) openKeys(w *world) (*deployment, error) {
	d, err := p.openStore(w)
	if err != nil {
		return nil, err
	}
	sealed, err := d.store.Keys(w.ctx)
	switch {
	case err != nil:
		err = fmt.Errorf("reading the keys: %w", err)
	case len(sealed) == 0:
		err = withHint(errors.New("there are no keys yet"), "the first start of `kavach serve` makes them")
	default:
		err = d.unlock(w.ctx, w, false)
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// keyError says what to do about a change of keys that was refused.
func keyError(what string, err error) error {
	failed := fmt.Errorf("%s: %w", what, operatorError(err))
	switch {
	case errors.Is(err, authz.ErrNotFound):
		return withHint(fmt.Errorf("%s: there is no such key", what), "`kavach key list` shows them")
	case errors.Is(err, audit.ErrConflict):
		return withHint(fmt.Errorf("%s: somebody else changed the keys at the same moment", what), "`kavach key list` shows what they are now")
	case errors.Is(err, authz.ErrInvalid):
		return withHint(failed, "`kavach key list` shows the state of every key")
	}
	return failed
}

type keyRotateCmd struct {
	Purpose string        `enum:"at,mf,rv,cookie,cursor,handle,nonce," default:"" placeholder:"PURPOSE" help:"Only keys of one purpose: ${enum} (all)."`
	Alg     string        `enum:"ES256,Ed25519,RS256,secret," default:"" placeholder:"ALG" help:"Only keys of one algorithm: ${enum} (all)."`
	After   time.Duration `xor:"when" placeholder:"DURATION" help:"How long the new keys are published before they sign (10m, at least 65s)."`
	Now     bool          `xor:"when" help:"Sign with them as soon as every replica knows them, two seconds; who keeps a key set without looking again refuses the new tokens for so long."`
	Overlap time.Duration `placeholder:"DURATION" help:"How long what the old secret made is accepted after that (as long as it lives)."`
	placeFlags
	jsonFlag
}

func (c *keyRotateCmd) Run(w *world) error {
	if c.Overlap != 0 && c.Purpose == "" {
		return usagef("give --purpose", "--overlap is for keys of one purpose")
	}
	d, err := c.openKeys(w)
	if err != nil {
		return err
	}
	defer d.close()
	made, err := d.keys.Rotate(w.ctx, byOperator, authz.Rotation{
		Purpose: c.Purpose, Alg: c.Alg, After: c.After, AtOnce: c.Now, Overlap: c.Overlap,
	})
	if err != nil {
		return keyError("rotating", err)
	}
	return w.printKeys(made, c.jsonFlag)
}

type keyRetireCmd struct {
	KID string `arg:"" name:"kid" help:"The key, as kavach key list shows it."`
	placeFlags
	jsonFlag
}

func (c *keyRetireCmd) Run(w *world) error {
	d, err := c.openKeys(w)
	if err != nil {
		return err
	}
	defer d.close()
	successor, err := d.keys.Retire(w.ctx, byOperator, c.KID)
	if err != nil {
		return keyError("retiring "+oneLine(c.KID), err)
	}
	return w.printKeys([]authz.KeyInfo{successor}, c.jsonFlag)
}

type keyRevokeCmd struct {
	KID string `arg:"" name:"kid" help:"The key, as kavach key list shows it."`
	placeFlags
	jsonFlag
}

func (c *keyRevokeCmd) Run(w *world) error {
	d, err := c.openKeys(w)
	if err != nil {
		return err
	}
	defer d.close()
	successor, recorded, err := d.keys.Revoke(w.ctx, byOperator, c.KID)
	if err != nil {
		return keyError("revoking "+oneLine(c.KID), err)
	}
	if !recorded {
		w.note("the log could not be written: the record of it follows when it can")
	}
	return w.printKeys(successor, c.jsonFlag)
}

type keyResealCmd struct {
	placeFlags
}

func (c *keyResealCmd) Run(w *world) error {
	d, err := c.openKeys(w)
	if err != nil {
		return err
	}
	defer d.close()
	n, err := d.keys.Reseal(w.ctx, byOperator)
	if err != nil {
		return keyError("sealing", err)
	}
	w.note("%d keys were sealed anew; the first line of %s opens all of them", n, d.SecretFile)
	if n > 0 {
		w.note("hint: when every replica has the new line, the older ones can go")
	}
	return nil
}
