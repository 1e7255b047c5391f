package delegation

import (
	"maps"
	"slices"

	"github.com/kavach-dev/kavach/jcs"
)

// Tools names the tools a token is for, each with what it says about the
// arguments. An empty map names no tool: in a token whose ancestors name none
// either that means the token is restricted by scope only; below a token that
// names tools it means none of them.
type Tools map[string]Arguments

// ParseTools reads the wire form of tools, {tool: {argument: constraint}}: "An
// unknown type, an unknown member or a malformed constraint refuses the whole
// chain, also on a tool that is not called" (delegation.md §4). Ignoring one
// would drop a restriction its author meant.
func ParseTools(v jcs.Value) (Tools, error) {
	tools, refusal := parseTools(v)
	if refusal != nil {
		return nil, refusal
	}
	return tools, nil
}

// Names returns the names of the tools, sorted.
func (t Tools) Names() []string { return slices.Sorted(maps.Keys(t)) }

// Map returns the wire form for jcs.
func (t Tools) Map() map[string]any {
	wire := make(map[string]any, len(t))
	for name, arguments := range t {
		wire[name] = arguments.Map()
	}
	return wire
}

func parseTools(v jcs.Value) (Tools, *Refusal) { return parseToolsWithin(v, kdt1Limits) }

// parseToolsWithin reads tools in the sizes of a profile.
func parseToolsWithin(v jcs.Value, limits toolLimits) (Tools, *Refusal) {
	if v.Kind() != jcs.Object {
		return nil, refuse(Malformed, DimensionTools, "tools is not an object")
	}
	if over(v.Len(), limits.tools) {
		return nil, refuse(Malformed, DimensionTools, "too many tools")
	}
	// Shapes of the whole map come before types: a token that is malformed
	// anywhere is malformed, whatever else it names.
	var unknown *Refusal
	p := constraintParser{limits: limits}
	tools := make(Tools, v.Len())
	for name, wire := range v.Fields() {
		if name == "" && !limits.emptyName || over(len(name), limits.text) {
			return nil, refuse(Malformed, DimensionTools, "the name of a tool has 1 to 1024 bytes")
		}
		if wire.Kind() != jcs.Object || over(wire.Len(), limits.arguments) {
			return nil, refuse(Malformed, DimensionTools, "arguments of "+quoteShort(name))
		}
		arguments, problem := p.arguments(wire)
		if problem != "" {
			return nil, refuse(Malformed, DimensionTools, problem+", of "+quoteShort(name))
		}
		if p.unknown != "" && unknown == nil {
			unknown = refuse(UnknownConstraint, DimensionTools, p.unknown+", of "+quoteShort(name))
		}
		tools[name] = arguments
	}
	if unknown != nil {
		return nil, unknown
	}
	return tools, nil
}

// arguments reads the map of one tool.
func (p *constraintParser) arguments(v jcs.Value) (Arguments, string) {
	if v.Len() == 0 {
		return AllowAnyArgs, ""
	}
	a := Arguments{named: make([]entry, 0, v.Len())}
	for name, wire := range v.Fields() {
		if over(len(name), p.limits.text) {
			return a, errTooLong
		}
		constraint, problem := p.entry(wire)
		if problem != "" {
			return a, problem + ", for the argument " + quoteShort(name)
		}
		if constraint.node.kind == broken {
			continue // its type is unknown
		}
		if name == unnamed && wire.Get("optional").Exists() { // "absent, even `false`"
			return a, "\"*\" is not optional"
		}
		if a.add(name, constraint); a.problem != "" {
			return a, a.problem
		}
	}
	a.finish()
	return a, ""
}

// validate refuses what could not be written, or was not said.
func (t Tools) validate() *Refusal {
	if len(t) > MaxTools {
		return refuse(Malformed, DimensionTools, "more than 64 tools")
	}
	for name, arguments := range t {
		switch {
		case name == "" || len(name) > maxString:
			return refuse(Malformed, DimensionTools, "the name of a tool has 1 to 1024 bytes")
		case arguments.problem != "":
			return refuse(Malformed, DimensionTools, arguments.problem+", of "+quoteShort(name))
		case !arguments.any && !arguments.rest && len(arguments.named) == 0:
			return refuse(Malformed, DimensionTools, "say AllowAnyArgs for "+quoteShort(name))
		}
	}
	return nil
}

// allows is 6b. what says what is refused.
func (t Tools) allows(c call) (what string, ok bool) {
	arguments, ok := t[c.name]
	if !ok {
		return "tool " + quoteShort(c.name), false
	}
	what, ok = arguments.allows(c)
	return "argument " + quoteShort(what) + " of tool " + quoteShort(c.name), ok
}

// gap is where a child allows what its parent does not.
type gap struct {
	rule           string // 4p1 to 4p4 of aat02.md
	tool, argument string
}

// String is for the detail of a refusal.
func (g gap) String() string {
	if g.argument == "" {
		return "tool " + quoteShort(g.tool)
	}
	return "argument " + quoteShort(g.argument) + " of tool " + quoteShort(g.tool)
}

// covers is 4p1 to 4p4.
func (t Tools) covers(child Tools) bool { return t.gap(child) == nil }

// gap finds the first rule that fails, and the tool by its name; nil is none.
func (t Tools) gap(child Tools) *gap {
	if len(child) == 0 {
		return nil
	}
	names := child.Names()
	for _, name := range names {
		if _, ok := t[name]; !ok {
			return &gap{"4p1", name, ""}
		}
	}
	for _, rule := range []struct {
		name string
		fail func(parent, child Arguments) (argument string, failed bool)
	}{{"4p2", unnamedGap}, {"4p3", requiredGap}, {"4p4", constraintGap}} {
		for _, name := range names {
			if argument, failed := rule.fail(t[name], child[name]); failed {
				return &gap{rule.name, name, argument}
			}
		}
	}
	return nil
}

// unnamedGap is 4p2: "every child key (with `*`) is named by the parent or the
// parent has `*`; the child has `*` only if the parent has; every parent key
// other than `*` that the child omits is optional in the parent, and then the
// child has no `*`".
func unnamedGap(parent, child Arguments) (argument string, failed bool) {
	if child.rest && !parent.rest {
		return unnamed, true
	}
	for _, e := range child.named {
		if _, ok := parent.get(e.name); !ok && !parent.rest {
			return e.name, true
		}
	}
	for _, e := range parent.named {
		if _, ok := child.get(e.name); !ok && (!e.optional || child.rest) {
			return e.name, true
		}
	}
	return "", false
}

// requiredGap is 4p3: "for keys in both: parent required ⇒ child required; a
// key new under the parent's `*` may be either".
func requiredGap(parent, child Arguments) (argument string, failed bool) {
	for _, e := range child.named {
		if p, ok := parent.get(e.name); ok && !p.optional && e.optional {
			return e.name, true
		}
	}
	return "", false
}

// constraintGap is 4p4: "each child entry, `*` included, against the parent's
// entry of that name, else the parent's `*`", which is a wildcard.
func constraintGap(parent, child Arguments) (argument string, failed bool) {
	for _, e := range child.named {
		if p, ok := parent.get(e.name); ok && !p.covers(e.Constraint) {
			return e.name, true
		}
	}
	return "", false
}
