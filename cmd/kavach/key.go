package main

import (
	"fmt"

	"github.com/kavach-dev/kavach/authz"
)

type keyCmds struct {
	List   keyListCmd   `cmd:"" help:"List the server's keys, without anything secret."`
	Rotate keyRotateCmd `cmd:"" help:"Make new keys; the old ones verify until nothing of them is alive."`
	Retire keyRetireCmd `cmd:"" help:"Have another key sign in place of one, at once."`
	Revoke keyRevokeCmd `cmd:"" help:"In an emergency: refuse all that a key signed, at once."`
	Reseal keyResealCmd `cmd:"" help:"Seal the keys with the first line of the secret file."`
}

type keyListCmd struct {
	placeFlags
	jsonFlag
}

// keyView is a key as the commands print it.
type keyView struct {
	KID     string `json:"kid"`
	Purpose string `json:"purpose"`
	Alg     string `json:"alg"`
	State   string `json:"state"`
	Public  bool   `json:"in_jwks"`
	Created string `json:"created"`
	Signs   string `json:"signs_from"`
	Rests   string `json:"signs_until,omitempty"`
	Ends    string `json:"accepted_until,omitempty"`
	Revoked string `json:"revoked,omitempty"`
	Stale   bool   `json:"sealed_with_older_secret,omitempty"`
}

func viewKey(k authz.KeyInfo) keyView {
	return keyView{
		KID: k.KID, Purpose: k.Purpose, Alg: k.Alg, State: string(k.State), Public: k.Published(), Created: when(k.Created),
		Signs: when(k.Signs), Rests: when(k.Rests), Ends: when(k.Ends), Revoked: when(k.Revoked), Stale: k.Stale,
	}
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
	var keys []authz.KeyInfo
	if len(sealed) > 0 {
		if err := d.unlock(w.ctx, w, false); err != nil {
			return err
		}
		keys = d.keys.List()
	}
	if err := w.printKeys(keys, c.jsonFlag); err != nil {
		return err
	}
	for _, k := range keys {
		if k.Stale {
			w.note("hint: some keys are sealed with an older line of the secret file: `kavach key reseal`")
			break
		}
	}
	return nil
}

// printKeys prints a list of keys.
func (w *world) printKeys(keys []authz.KeyInfo, form jsonFlag) error {
	views, rows := []keyView{}, [][]string{}
	for _, k := range keys {
		v := viewKey(k)
		what := purposes[v.Purpose]
		if what == "" {
			what = v.Purpose
		}
		until := v.Ends
		if v.Revoked != "" {
			until = v.Revoked
		}
		views = append(views, v)
		rows = append(rows, []string{v.KID, v.Alg, what, yes(v.Public), v.State, v.Signs, until})
	}
	if form.JSON {
		return w.printJSON(views)
	}
	if err := w.table([]string{"KEY", "ALG", "PURPOSE", "IN JWKS", "STATE", "SIGNS FROM", "ACCEPTED UNTIL"}, rows); err != nil {
		return fmt.Errorf("printing: %w", err)
	}
	return nil
}
