package delegation

import (
	"errors"
	"fmt"
	"slices"

	"github.com/kavach-dev/kavach/jcs"
)

// Constraint says what one argument of a tool may be (aat02.md). It is
// immutable: one comes from ParseConstraint or from one of the constructors
// below. The zero Constraint allows nothing and cannot be written; nor can what
// a constructor made of what has no exact JSON form (a NaN, a value that is not
// UTF-8), or of nothing where something is needed. Err says so, and Derive,
// Exchange and Sign refuse it.
type Constraint struct {
	node     *node
	optional bool
}

// kind is the type of a constraint.
type kind uint8

const (
	broken kind = iota // the zero value: allows and covers nothing
	exact
	oneOf
	notOneOf
	contains
	subsetOf
	inRange
	allOf
	anyOf
	wildcard
)

// kindNames are the constraint_type of each kind, byte for byte.
var kindNames = [...]string{
	exact: "exact", oneOf: "one_of", notOneOf: "not_one_of", contains: "contains", subsetOf: "subset",
	inRange: "range", allOf: "all", anyOf: "any", wildcard: "wildcard",
}

// listNames is the member that holds the values of a kind.
var listNames = [len(kindNames)]string{oneOf: "values", notOneOf: "excluded", contains: "required", subsetOf: "allowed"}

// node is a constraint without what only an entry of a map says.
type node struct {
	kind kind
	// values are those of a list, or the one of exact, in canonical bytes:
	// "membership by JCS bytes". A list is a set, sorted.
	values []string
	// min and max are those of a range. In exact, min is the value if that is
	// a number.
	min, max bound
	clauses  []*node
	depth    int
	problem  string // of a broken one
}

// bound is one side of a range.
type bound struct {
	set, exclusive bool
	value          float64
}

// Bounds are those of a Range. Each may be absent; a bound is inclusive unless
// it says otherwise.
type Bounds struct {
	Min, Max                   *float64
	MinExclusive, MaxExclusive bool
}

// Exact allows one string, number, boolean or null (nil).
func Exact(value any) Constraint { return construct(exact, "value", value) }

// OneOfValues (one_of) allows a value of the list, which is not empty.
func OneOfValues(values ...any) Constraint { return construct(oneOf, "values", slices.Clone(values)) }

// NotOneOf allows every value that is not in the list.
func NotOneOf(excluded ...any) Constraint {
	return construct(notOneOf, "excluded", slices.Concat([]any{}, excluded))
}

// Contains allows an array that has every one of these.
func Contains(required ...any) Constraint {
	return construct(contains, "required", slices.Concat([]any{}, required))
}

// Subset allows an array of which every element is one of these.
func Subset(allowed ...any) Constraint {
	return construct(subsetOf, "allowed", slices.Concat([]any{}, allowed))
}

// Range allows a number between bounds.
func Range(b Bounds) Constraint {
	wire := map[string]any{"constraint_type": kindNames[inRange]}
	for _, side := range []struct {
		name      string
		value     *float64
		exclusive bool
	}{{"min", b.Min, b.MinExclusive}, {"max", b.Max, b.MaxExclusive}} {
		if side.value != nil {
			wire[side.name] = *side.value
		}
		if side.exclusive { // beside no bound it is refused
			wire[side.name+"_inclusive"] = false
		}
	}
	return parsed(wire)
}

// All allows what every clause allows.
func All(clauses ...Constraint) Constraint { return compound(allOf, clauses) }

// Any allows what at least one clause allows.
func Any(clauses ...Constraint) Constraint { return compound(anyOf, clauses) }

// Wildcard allows every value. An argument that may be left out is
// Wildcard().Optional().
func Wildcard() Constraint { return Constraint{node: &node{kind: wildcard, depth: 1}} }

// Optional is the constraint for an argument that may be left out. It cannot be
// a clause of another.
func (c Constraint) Optional() Constraint {
	c.optional = true
	return c
}

// IsOptional reports whether the argument may be left out.
func (c Constraint) IsOptional() bool { return c.optional }

// Err says why a constraint cannot be written, nil if it can.
func (c Constraint) Err() error {
	if problem := c.problem(); problem != "" {
		return refuse(Malformed, DimensionTools, problem)
	}
	return nil
}

func (c Constraint) problem() string {
	switch {
	case c.node == nil:
		return "a constraint says nothing"
	case c.node.kind == broken:
		return c.node.problem
	}
	return ""
}

// Map returns the wire form for jcs, nil if there is none.
func (c Constraint) Map() map[string]any {
	if c.Err() != nil {
		return nil
	}
	wire := c.node.wire()
	if c.optional {
		wire["optional"] = true
	}
	return wire
}

// String returns the wire form, canonical, and null if there is none.
func (c Constraint) String() string {
	if c.Err() != nil {
		return "null"
	}
	text, err := jcs.Marshal(c.Map())
	if err != nil {
		return "null"
	}
	return string(text)
}

func (n *node) wire() map[string]any {
	wire := map[string]any{"constraint_type": kindNames[n.kind]}
	switch n.kind {
	case exact:
		wire["value"] = plain(n.values[0])
	case oneOf, notOneOf, contains, subsetOf:
		list := make([]any, 0, len(n.values))
		for _, value := range n.values {
			list = append(list, plain(value))
		}
		wire[listNames[n.kind]] = list
	case inRange:
		n.min.write(wire, "min")
		n.max.write(wire, "max")
	case allOf, anyOf:
		list := make([]any, 0, len(n.clauses))
		for _, clause := range n.clauses {
			list = append(list, clause.wire())
		}
		wire["constraints"] = list
	}
	return wire
}

func (b bound) write(wire map[string]any, name string) {
	if b.set {
		wire[name] = b.value
	}
	if b.exclusive {
		wire[name+"_inclusive"] = false
	}
}

// plain is a canonical value in the types that both jcs.Of and encoding/json
// write. Every number in a constraint is admissible, so none is lost.
func plain(canonical string) any {
	v, err := jcs.Parse([]byte(canonical), jcs.Limits{Depth: len(canonical) + 1}) // whoever parsed it chose the depth
	if err != nil {
		panic("delegation: a canonical value is not JSON: " + err.Error())
	}
	return plainValue(v)
}

func plainValue(v jcs.Value) any {
	switch v.Kind() {
	case jcs.Bool:
		return v.Bool()
	case jcs.Number:
		f, _ := v.Float()
		return f
	case jcs.String:
		return v.Str()
	case jcs.Array:
		list := make([]any, 0, v.Len())
		for e := range v.All() {
			list = append(list, plainValue(e))
		}
		return list
	case jcs.Object:
		members := make(map[string]any, v.Len())
		for name, e := range v.Fields() {
			members[name] = plainValue(e)
		}
		return members
	}
	return nil
}

// construct makes a constraint of one member, which may be what has no JSON
// form.
func construct(k kind, member string, value any) Constraint {
	return parsed(map[string]any{"constraint_type": kindNames[k], member: value})
}

// parsed takes the way of every constraint, so that a constructor makes nothing
// that the parser would not take.
func parsed(wire map[string]any) Constraint {
	v, err := jcs.Of(wire)
	if err != nil {
		return broke("a constraint: " + err.Error())
	}
	c, err := ParseConstraint(v)
	var refused *Refusal
	if errors.As(err, &refused) {
		return broke(refused.Detail)
	}
	return c
}

func broke(problem string) Constraint {
	return Constraint{node: &node{problem: problem}}
}

func compound(k kind, clauses []Constraint) Constraint {
	n := &node{kind: k}
	for _, clause := range clauses {
		if problem := clause.problem(); problem != "" {
			return broke(problem)
		}
		if clause.optional {
			return broke("a clause of a constraint is not optional")
		}
		n.clauses = append(n.clauses, clause.node)
		n.depth = max(n.depth, clause.node.depth)
	}
	if n.depth++; n.depth > maxConstraintDepth {
		return broke(errTooDeep)
	}
	if len(clauses) == 0 {
		return broke(fmt.Sprintf("%q without a clause", kindNames[k]))
	}
	return Constraint{node: n}
}
