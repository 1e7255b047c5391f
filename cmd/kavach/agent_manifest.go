package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/wellknown"
)

// agentManifestCmd verifies a manifest in any of the three forms it stands alone
// in.
type agentManifestCmd struct {
	Manifest string `arg:"" placeholder:"FILE" help:"File with the manifest; - is standard input."`
	JWKS     string `name:"jwks" placeholder:"FILE" help:"The key set of the server that countersigned it, saved from ISSUER/.well-known/jwks.json."`
	Issuer   string `placeholder:"URL" help:"That server."`
	MinSeq   int64  `placeholder:"N" help:"Refuse one that is older than this, which you have seen already."`
	jsonFlag
}

func (c *agentManifestCmd) Run(w *world) error {
	if err := onceStdin(c.Manifest, c.JWKS); err != nil {
		return err
	}
	text, err := w.readLine(c.Manifest)
	if err != nil {
		return err
	}
	m, err := w.verifyManifest(text, c.JWKS, c.Issuer)
	if err == nil && m.Seq < c.MinSeq {
		err = fmt.Errorf("it is number %d, and %d is known", m.Seq, c.MinSeq)
	}
	if err != nil {
		return fmt.Errorf("reading the manifest %s: %w", c.Manifest, err)
	}
	// What verified as a history is shown as one.
	list, err := agent.VerifyHistory(text)
	if err != nil {
		list = []agent.Manifest{m}
	}
	if c.JSON {
		return w.printJSON(manifestContent(m, list))
	}
	if err := w.fields("id", m.ID, "seq", strconv.FormatInt(m.Seq, 10), "name", m.Name, "version", m.Version, "purpose", m.Purpose,
		"may ask for", strings.Join(m.Scopes, " "), "tools", strings.Join(m.Tools, " "), "capabilities", strings.Join(m.Capabilities, " "),
		"max depth", strconv.Itoa(m.MaxDepth), "origin", m.Origin, "trust level", m.TrustLevel,
		"key", m.Key.Thumbprint(), "until", when(m.Expires)); err != nil {
		return err
	}
	if len(list) == 1 {
		return nil
	}
	rows := make([][]string, len(list))
	for i, one := range list {
		key := "the same"
		if i == 0 || one.Key != list[i-1].Key {
			key = one.Key.Thumbprint()
		}
		rows[i] = []string{strconv.FormatInt(one.Seq, 10), one.Version, when(one.IssuedAt), key}
	}
	fmt.Fprintln(w.stdout)
	return w.table([]string{"SEQ", "VERSION", "ISSUED", "KEY"}, rows)
}

func manifestContent(m agent.Manifest, list []agent.Manifest) map[string]any {
	history := make([]map[string]any, len(list))
	for i, one := range list {
		history[i] = map[string]any{
			"seq": one.Seq, "version": one.Version, "issued": when(one.IssuedAt), "expires": when(one.Expires), "jkt": one.Key.Thumbprint(),
		}
	}
	return map[string]any{
		"id": m.ID, "seq": m.Seq, "name": m.Name, "version": m.Version, "purpose": m.Purpose, "scopes": append([]string{}, m.Scopes...),
		"tools": append([]string{}, m.Tools...), "capabilities": append([]string{}, m.Capabilities...), "max_depth": m.MaxDepth,
		"origin": m.Origin, "trust_level": m.TrustLevel, "jkt": m.Key.Thumbprint(), "expires": when(m.Expires), "history": history,
	}
}

// verifyManifest checks a manifest that stands alone. jwks and issuer are those
// of a server whose countersignature counts. jwks is empty for none; the issuer,
// which may come from the environment, then says nothing.
func (w *world) verifyManifest(text, jwks, issuer string) (agent.Manifest, error) {
	if jwks != "" && issuer == "" {
		return agent.Manifest{}, usagef("", "--jwks needs --issuer: whose countersignature counts")
	}
	check := agent.ManifestCheck{Now: w.now()}
	if jwks != "" {
		check.Issuer = issuer
		data, err := w.read(jwks)
		if err != nil {
			return agent.Manifest{}, err
		}
		keys, err := wellknown.ParseJWKS(data)
		if err != nil {
			return agent.Manifest{}, withHint(fmt.Errorf("reading the key set %s: %w", jwks, err), "save it from ISSUER/.well-known/jwks.json")
		}
		check.Countersigner = func(kid string) (agent.PublicKey, bool) {
			for _, k := range keys {
				if k.KID == kid {
					key, err := agent.NewPublicKey(k.Public)
					return key, err == nil
				}
			}
			return agent.PublicKey{}, false
		}
	}
	return check.Verify(text)
}
