package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

type tokenCmds struct {
	Get     tokenGetCmd     `cmd:"" group:"agent" default:"withargs" help:"Sign in as an agent and print its token; 'kavach token' alone means this."`
	Inspect tokenInspectCmd `cmd:"" group:"offline" help:"Show what a token says, without verifying anything."`
}

// tokenInspectCmd takes a token or chain apart. Nothing it prints is verified,
// and it says so.
type tokenInspectCmd struct {
	Token string `arg:"" placeholder:"FILE" help:"File with the token, chain, manifest or assertion; - is standard input."`
	jsonFlag
}

// inspectedPart is one part of a chain as it claims to be.
type inspectedPart struct {
	LID    string          `json:"lid"`
	Header json.RawMessage `json:"unverified_header"`
	Claims json.RawMessage `json:"unverified_claims"`
}

func (c *tokenInspectCmd) Run(w *world) error {
	text, err := w.readLine(c.Token)
	if err != nil {
		return err
	}
	list, err := delegation.Inspect(text)
	if err != nil {
		return withHint(fmt.Errorf("reading the token: %w", err), "a token is one compact JWT, a chain is several joined by ~")
	}
	if c.JSON {
		parts := make([]inspectedPart, len(list))
		for i, u := range list {
			parts[i] = inspectedPart{LID: u.LID, Header: jcs.Canonical(u.UnverifiedHeader), Claims: jcs.Canonical(u.UnverifiedClaims)}
		}
		return w.printJSON(map[string]any{"verified": false, "parts": parts})
	}
	fmt.Fprintln(w.stdout, "NOT VERIFIED: this is what the token says of itself")
	for i, u := range list {
		fmt.Fprintf(w.stdout, "\npart %d: %s\n", i, unverifiedKind(u))
		pairs := []string{"  lid", u.LID}
		for _, m := range append(u.UnverifiedHeader.Members(), u.UnverifiedClaims.Members()...) {
			pairs = append(pairs, "  "+oneLine(m.Name), claimText(m.Name, m.Value, w.now()))
		}
		if err := w.fields(pairs...); err != nil {
			return err
		}
	}
	return nil
}

// unverifiedKind names a part by its typ and what it holds.
func unverifiedKind(u delegation.Unverified) string {
	switch typ := u.UnverifiedHeader.Get("typ").Str(); {
	case typ == delegation.TypeLink:
		return "link"
	case typ == delegation.TypeAccessToken && u.UnverifiedClaims.Get("del_depth").Exists():
		return "root of a chain"
	case typ == delegation.TypeAccessToken:
		return "access token"
	case typ == agent.ManifestType:
		return "agent manifest"
	case typ == "":
		return "JWT without a type"
	default:
		return oneLine(typ)
	}
}

// claimText prints one claim for people: times as times, the rest as JSON
// without the quotes of a plain string.
func claimText(name string, v jcs.Value, now time.Time) string {
	if n, ok := v.Int(); ok {
		switch name {
		case "iat", "nbf":
			return fmt.Sprintf("%d (%s)", n, when(time.Unix(n, 0)))
		case "exp":
			t := time.Unix(n, 0)
			return fmt.Sprintf("%d (%s, %s)", n, when(t), left(t.Sub(now)))
		}
	}
	if v.Kind() == jcs.String {
		return v.Str()
	}
	return string(jcs.Canonical(v))
}
