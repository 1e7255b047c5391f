package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// inspectedChange is one line of the difference between a token and the one
// before it. From and To are "" for what is not restricted there.
type inspectedChange struct {
	// Dimension is a name of delegation.Dimension….
	Dimension string `json:"dimension"`
	// Tool and Argument say of which argument From and To speak.
	Tool     string `json:"tool,omitempty"`
	Argument string `json:"argument,omitempty"`
	// Removed and Added are members of a set: scopes, audiences, tools,
	// entries of a list.
	Removed []string `json:"removed,omitempty"`
	Added   []string `json:"added,omitempty"`
	// From and To are values.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

const unrestricted = "any"

// narrowing is what child changes against its parent, in a fixed order. What
// stays the same is left out.
func narrowing(parent, child delegation.Link) []inspectedChange {
	changes := slices.Concat(
		[]inspectedChange{
			setChange(delegation.DimensionAudience, parent.Audience, child.Audience),
			setChange(delegation.DimensionScope, parent.Scopes, child.Scopes),
		},
		toolChanges(parent.Tools, child.Tools), limitChanges(parent.Limits, child.Limits),
		[]inspectedChange{
			{Dimension: delegation.DimensionDepth, From: depthLeft(parent), To: depthLeft(child)},
			{Dimension: delegation.DimensionTTL, From: when(parent.Expires), To: when(child.Expires)},
		})
	return slices.DeleteFunc(changes, inspectedChange.none)
}

// none reports whether nothing changed.
func (c inspectedChange) none() bool {
	return len(c.Removed) == 0 && len(c.Added) == 0 && c.From == c.To
}

func limitChanges(parent, child delegation.Limits) []inspectedChange {
	return []inspectedChange{
		listChange(delegation.DimensionResources, parent.Resources, child.Resources),
		listChange(delegation.DimensionNetwork, parent.AllowNetwork, child.AllowNetwork),
		valueChange(delegation.DimensionSize, parent.MaxFileSize, child.MaxFileSize),
		valueChange(delegation.DimensionCalls, parent.MaxCalls, child.MaxCalls),
		valueChange(delegation.DimensionAudit, parent.AuditRequired, child.AuditRequired),
	}
}

// depthLeft is how many links may follow.
func depthLeft(l delegation.Link) string {
	if n := l.MaxDepth - l.Depth; n > 0 {
		return strconv.Itoa(n) + " more"
	}
	return "sealed"
}

func setChange(dimension string, parent, child []string) inspectedChange {
	return inspectedChange{Dimension: dimension, Removed: without(parent, child), Added: without(child, parent)}
}

// listChange compares lists that cover each other by more than equality, and
// where nil restricts nothing.
func listChange(dimension string, parent, child []string) inspectedChange {
	return inspectedChange{Dimension: dimension, From: listText(parent), To: listText(child)}
}

func listText(list []string) string {
	switch {
	case list == nil:
		return unrestricted
	case len(list) == 0:
		return "none"
	}
	return strings.Join(list, " ")
}

func valueChange[T any](dimension string, parent, child *T) inspectedChange {
	return inspectedChange{Dimension: dimension, From: valueText(parent), To: valueText(child)}
}

func valueText[T any](v *T) string {
	if v == nil {
		return unrestricted
	}
	return fmt.Sprint(*v)
}

// toolChanges compares the tools by name and then argument by argument. A tool
// that the parent does not name cannot be added, so what its arguments say does
// not matter.
func toolChanges(parent, child delegation.Tools) []inspectedChange {
	changes := []inspectedChange{setChange(delegation.DimensionTools, parent.Names(), child.Names())}
	before, after := toolsValue(parent), toolsValue(child)
	for _, name := range child.Names() {
		if arguments := before.Get(name); arguments.Exists() {
			changes = append(changes, argumentChanges(name, arguments, after.Get(name))...)
		}
	}
	return changes
}

// toolsValue is the wire form of tools. It was read from one, so it has one.
func toolsValue(tools delegation.Tools) jcs.Value {
	v, err := jcs.Of(tools.Map())
	if err != nil {
		return jcs.Value{}
	}
	return v
}

// argumentChanges compares the arguments of one tool.
func argumentChanges(tool string, parent, child jcs.Value) []inspectedChange {
	if parent.Len() == 0 && child.Len() == 0 {
		return nil
	}
	var names []string
	for _, v := range []jcs.Value{parent, child} {
		for name := range v.Fields() {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	var changes []inspectedChange
	for _, name := range names {
		from, to := argumentText(parent, name), argumentText(child, name)
		changes = append(changes, inspectedChange{Dimension: delegation.DimensionTools, Tool: tool, Argument: name, From: from, To: to})
	}
	return changes
}

// argumentText is what a map of arguments says of one. An empty map allows any
// argument; in every other one what is not named is refused unless "*" is.
func argumentText(arguments jcs.Value, name string) string {
	switch {
	case arguments.Get(name).Exists():
		return string(jcs.Canonical(arguments.Get(name)))
	case arguments.Len() == 0 || arguments.Get("*").Exists():
		return unrestricted
	}
	return "refused"
}

// inTree are the claims that the tree tells in its own way. Any other is shown
// as it stands.
var inTree = []string{
	"iss", "sub", "client_id", "aud", "iat", "exp", "scope", "authorization_details", "cnf", "del_depth", "del_max_depth", "par_hash",
}

// otherClaims are the rest, in the order of the token.
func otherClaims(u delegation.Unverified) []string {
	var pairs []string
	for name, claim := range u.UnverifiedClaims.Fields() {
		if !slices.Contains(inTree, name) {
			pairs = append(pairs, name, claimText(name, claim, time.Time{}))
		}
	}
	return pairs
}

// printTree shows who handed on what to whom: the first token in full, and of
// every link what it changes.
func printTree(w *world, grant delegation.UnverifiedGrant, parts []delegation.Unverified) {
	links := grant.Links()
	for i, l := range links {
		indent := ""
		fmt.Fprintln(w.stdout)
		if i == 0 {
			fmt.Fprintf(w.stdout, "%s  %s  %s\n", oneLine(l.ClientID), tokenKind(l, len(links)), left(l.Expires.Sub(w.now())))
			printMembers(w, indent, slices.Concat(rootMembers(grant, l), otherClaims(parts[i])))
		} else {
			indent = strings.Repeat("   ", i-1) + "   "
			fmt.Fprintf(w.stdout, "%s└─ %s  link %d  %s\n", indent[3:], oneLine(l.ClientID), i, left(l.Expires.Sub(w.now())))
			printMembers(w, indent, append([]string{"lid", l.LID, "key", l.JKT}, otherClaims(parts[i])...))
			printChanges(w, indent, narrowing(links[i-1], l))
		}
		if refused := refusedPart(grant, i, w.now()); refused != nil {
			fmt.Fprintf(w.stdout, "%s   !  a verifier refuses it: %s\n", indent, oneLine(refused.text()))
		}
	}
}

func (r *inspectedRefusal) text() string {
	if r.Detail == "" {
		return string(r.Reason)
	}
	return fmt.Sprintf("%s (%s)", r.Reason, r.Detail)
}

func tokenKind(l delegation.Link, tokens int) string {
	if tokens == 1 && l.MaxDepth == 0 && l.Depth == 0 {
		return "token"
	}
	return "root of a chain"
}

// rootMembers is everything that the first token restricts.
func rootMembers(grant delegation.UnverifiedGrant, l delegation.Link) []string {
	members := []string{
		"lid", l.LID, "issuer", l.Issuer, "subject", grant.Principal(), "audience", strings.Join(l.Audience, " "),
		delegation.DimensionScope, strings.Join(l.Scopes, " "),
	}
	if l.JKT != "" {
		members = append(members, "key", l.JKT)
	}
	if l.MaxDepth > 0 {
		members = append(members, delegation.DimensionDepth, depthLeft(l))
	}
	tools := toolsValue(l.Tools)
	for _, name := range l.Tools.Names() {
		members = append(members, delegation.DimensionTools, name+" "+string(jcs.Canonical(tools.Get(name))))
	}
	for _, limit := range limitChanges(delegation.Limits{}, l.Limits) {
		if !limit.none() {
			members = append(members, limit.Dimension, limit.To)
		}
	}
	return members
}

func printMembers(w *world, indent string, pairs []string) {
	for i := 0; i+1 < len(pairs); i += 2 {
		value := oneLine(pairs[i+1])
		if value == "" {
			value = "-"
		}
		fmt.Fprintf(w.stdout, "%s      %-14s %s\n", indent, oneLine(pairs[i]), value)
	}
}

// printChanges shows a difference as people read one: − what is gone, + what is
// new (and refused), → what became tighter.
func printChanges(w *world, indent string, changes []inspectedChange) {
	line := func(sign, dimension, text string) {
		fmt.Fprintf(w.stdout, "%s   %s  %-14s %s\n", indent, sign, dimension, oneLine(text))
	}
	for _, c := range changes {
		for _, gone := range c.Removed {
			line("-", c.Dimension, gone)
		}
		for _, more := range c.Added {
			line("+", c.Dimension, more)
		}
		switch {
		case c.From == c.To:
		case c.Argument != "":
			line("~", c.Dimension, c.Tool+"."+c.Argument+": "+c.From+" → "+c.To)
		default:
			line("~", c.Dimension, c.From+" → "+c.To)
		}
	}
	if len(changes) == 0 {
		line("=", "", "narrows nothing")
	}
}

// reasonAndDetail takes a refusal apart for printing: "" without one.
func reasonAndDetail(err error) (delegation.Reason, string) {
	var refusal *delegation.Refusal
	if !errors.As(err, &refusal) {
		return "", ""
	}
	if refusal.Detail != "" {
		return refusal.Reason, refusal.Detail
	}
	return refusal.Reason, refusal.Dimension
}
