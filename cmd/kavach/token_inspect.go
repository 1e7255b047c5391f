package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

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
	// The rest is there for what reads as a token or chain of ours.
	ExpiresIn *int64            `json:"expires_in,omitempty"`
	Narrowing []inspectedChange `json:"narrowing,omitempty"`
	Refused   *inspectedRefusal `json:"refused,omitempty"`
}

// inspectedRefusal is what a verifier would have against a part.
type inspectedRefusal struct {
	Reason delegation.Reason `json:"reason"`
	Detail string            `json:"detail,omitempty"`
}

func (c *tokenInspectCmd) Run(w *world) error {
	text, err := w.readLine(c.Token)
	if err != nil {
		return err
	}
	parts, err := delegation.Inspect(text)
	if err != nil {
		return withHint(fmt.Errorf("reading the token: %w", err), "a token is one compact JWT, a chain is several joined by ~")
	}
	grant, unread := delegation.UnverifiedHeld(text)
	unchecked := []string{"signature"}
	if unread == nil {
		unchecked = uncheckedOf(grant)
	}
	if c.JSON {
		return w.printJSON(map[string]any{
			"verified": false, "parts": inspectedParts(parts, grant, w.now()), "unchecked": unchecked,
		})
	}
	fmt.Fprintln(w.stdout, "NOT VERIFIED: this is what the token says of itself")
	if unread == nil {
		printTree(w, grant, parts)
	} else {
		err = printParts(w, parts)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(w.stdout, "\nunchecked: %s\n", strings.Join(unchecked, ", "))
	return nil
}

// uncheckedOf names the steps of delegation.md §6 that looking at a token
// leaves open.
func uncheckedOf(grant delegation.UnverifiedGrant) []string {
	unchecked := []string{"signature", "issuer", "audience", "revocation", "request"}
	if grant.JKT() != "" {
		unchecked = append(unchecked, "proof")
	}
	return unchecked
}

// inspectedParts is the content of --json. grant is empty for what is no token.
func inspectedParts(parts []delegation.Unverified, grant delegation.UnverifiedGrant, now time.Time) []inspectedPart {
	list := make([]inspectedPart, len(parts))
	for i, u := range parts {
		list[i] = inspectedPart{LID: u.LID, Header: jcs.Canonical(u.UnverifiedHeader), Claims: jcs.Canonical(u.UnverifiedClaims)}
	}
	links := grant.Links()
	for i, l := range links {
		seconds := secondsLeft(l.Expires, now)
		list[i].ExpiresIn = &seconds
		if i > 0 {
			list[i].Narrowing = narrowing(links[i-1], l)
		}
		list[i].Refused = refusedPart(grant, i, now)
	}
	return list
}

func refusedPart(grant delegation.UnverifiedGrant, i int, now time.Time) *inspectedRefusal {
	reason, detail := reasonAndDetail(grant.Refuses(i, now))
	if reason == "" {
		return nil
	}
	return &inspectedRefusal{Reason: reason, Detail: detail}
}

// printParts shows what is no token of ours member by member.
func printParts(w *world, parts []delegation.Unverified) error {
	for i, u := range parts {
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
