package main

import "fmt"

type keyCmds struct {
	List keyListCmd `cmd:"" help:"List the server's keys, without anything secret."`
}

type keyListCmd struct {
	placeFlags
	jsonFlag
}

// keyView is a key as the command prints it.
type keyView struct {
	KID     string `json:"kid"`
	Purpose string `json:"purpose"`
	Alg     string `json:"alg"`
	Created string `json:"created"`
	Public  bool   `json:"in_jwks"`
}

// purposes says in words what a key is for.
var purposes = map[string]string{
	"at":     "signs access tokens",
	"mf":     "countersigns manifests",
	"rv":     "signs the revocation feed",
	"cookie": "seals browser sessions",
	"cursor": "seals cursors",
	"handle": "authenticates codes and refresh tokens",
	"nonce":  "authenticates DPoP nonces",
}

func (c *keyListCmd) Run(w *world) error {
	d, err := c.openStore(w)
	if err != nil {
		return err
	}
	defer d.close()
	sealed, err := d.store.Keys(w.ctx)
	if err != nil {
		return fmt.Errorf("reading the keys: %w", err)
	}
	views := []keyView{}
	if len(sealed) > 0 {
		if err := d.unlock(w.ctx, w, false); err != nil {
			return err
		}
		for _, k := range d.keys.List() {
			views = append(views, keyView{KID: k.KID, Purpose: k.Purpose, Alg: k.Alg, Created: when(k.Created), Public: k.Public != nil})
		}
	}
	if c.JSON {
		return w.printJSON(views)
	}
	rows := make([][]string, len(views))
	for i, v := range views {
		what := purposes[v.Purpose]
		if what == "" {
			what = v.Purpose
		}
		rows[i] = []string{v.KID, v.Alg, what, yes(v.Public), v.Created}
	}
	if err := w.table([]string{"KEY", "ALG", "PURPOSE", "IN JWKS", "CREATED"}, rows); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	return nil
}
