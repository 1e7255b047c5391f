package delegation

import (
	"slices"
	"strings"

	"github.com/kavach-dev/kavach/jcs"
)

// Arguments says which arguments a tool may be called with, in a closed world:
// one that is not named is refused unless there is "*". Its zero value is
// refused by Derive and Exchange: any argument at all has to be said. It is
// immutable.
type Arguments struct {
	any   bool
	named []entry // sorted; without "*"
	// rest is "*": every argument that is not named.
	rest bool
	// required are how many of named are.
	required int
	problem  string
}

type entry struct {
	name string
	Constraint
}

// AllowAnyArgs allows every argument; on the wire an empty map.
var AllowAnyArgs = Arguments{any: true, rest: true}

// unnamed is the key for every argument that is not named.
const unnamed = "*"

// Args allows the named arguments and no other, each under its constraint. An
// argument is required unless its constraint is Optional. The name "*" stands
// for every argument that is not named; its constraint is Wildcard. Args of
// nothing allows a call without arguments only through "*", so an empty map is
// refused: it would be AllowAnyArgs on the wire.
func Args(named map[string]Constraint) Arguments {
	a := Arguments{}
	for name, constraint := range named {
		a.add(name, constraint)
	}
	a.finish()
	if len(named) == 0 {
		a.problem = "say AllowAnyArgs, or name an argument"
	}
	return a
}

// add takes one entry. "`*` must be a wildcard", and is never optional.
func (a *Arguments) add(name string, c Constraint) {
	problem := c.problem()
	switch {
	case problem != "":
	case name == unnamed && (c.node.kind != wildcard || c.optional):
		problem = "\"*\" is a wildcard"
	case name == unnamed:
		a.rest = true
		return
	}
	if problem != "" {
		a.problem = problem
	}
	if !c.optional {
		a.required++
	}
	a.named = append(a.named, entry{name, c})
}

func (a *Arguments) finish() {
	slices.SortFunc(a.named, func(x, y entry) int { return strings.Compare(x.name, y.name) })
}

// Any reports whether there is no restriction at all.
func (a Arguments) Any() bool { return a.rest && len(a.named) == 0 }

// Rest reports whether arguments that are not named are allowed.
func (a Arguments) Rest() bool { return a.rest }

// Names returns the named arguments, sorted.
func (a Arguments) Names() []string {
	names := make([]string, 0, len(a.named))
	for _, e := range a.named {
		names = append(names, e.name)
	}
	return names
}

// Get returns the constraint of an argument: its own, or a wildcard where
// arguments that are not named are allowed.
func (a Arguments) Get(name string) (c Constraint, ok bool) {
	if c, ok := a.get(name); ok {
		return c, true
	}
	if a.rest {
		return Wildcard().Optional(), true
	}
	return Constraint{}, false
}

// get finds a named argument. One that is called "*" is never named.
func (a Arguments) get(name string) (Constraint, bool) {
	at, found := slices.BinarySearchFunc(a.named, name, func(e entry, name string) int { return strings.Compare(e.name, name) })
	if !found {
		return Constraint{}, false
	}
	return a.named[at].Constraint, true
}

// Map returns the wire form for jcs.
func (a Arguments) Map() map[string]any {
	wire := make(map[string]any, len(a.named)+1)
	for _, e := range a.named {
		wire[e.name] = e.Map()
	}
	if a.rest && !a.any {
		wire[unnamed] = Wildcard().Map()
	}
	return wire
}

// call is a call of a tool as every link is asked about it.
type call struct {
	name      string
	arguments []namedArgument
}

type namedArgument struct {
	name string
	argument
}

// measure reads a call. ok is false if its arguments are no object, or hold a
// number that is not admissible, which no link allows.
func measure(c Call) (m call, ok bool) {
	m.name = c.Name
	if !c.Arguments.Exists() {
		return m, true
	}
	if c.Arguments.Kind() != jcs.Object || !admissible(c.Arguments) {
		return m, false
	}
	m.arguments = make([]namedArgument, 0, c.Arguments.Len())
	for name, value := range c.Arguments.Fields() {
		m.arguments = append(m.arguments, namedArgument{name, argument{value: value}})
	}
	return m, true
}

// allows is 6b of aat02.md for one tool: "named argument → its constraint; else
// `*` → pass; else refuse; then every named required argument that is missing →
// refuse". what names the argument that is refused.
func (a Arguments) allows(c call) (what string, ok bool) {
	missing := a.required
	for i := range c.arguments {
		given := &c.arguments[i]
		constraint, named := a.get(given.name)
		switch {
		case named && !constraint.node.allows(&given.argument), !named && !a.rest:
			return given.name, false
		case named && !constraint.optional:
			missing--
		}
	}
	if missing == 0 {
		return "", true
	}
	for _, e := range a.named {
		if !e.optional && !slices.ContainsFunc(c.arguments, func(g namedArgument) bool { return g.name == e.name }) {
			return e.name, false
		}
	}
	return "", false
}
