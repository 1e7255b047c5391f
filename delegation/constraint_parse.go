package delegation

import (
	"slices"

	"github.com/kavach-dev/kavach/jcs"
)

// maxConstraintDepth is that of both profiles: "a simple constraint is 1,
// all/any is 1 + deepest clause; limit 32".
const maxConstraintDepth = 32

const errTooDeep = "constraints nested more than 32 deep"

// toolLimits are the sizes of a profile; 0 is no limit.
type toolLimits struct {
	tools     int // in a token
	arguments int // that one tool names
	nodes     int // constraints in a token, clauses included
	items     int // of an array in a constraint
	text      int // bytes of a string in a constraint, or of a name
	// emptyName lets a tool have no name at all.
	emptyName bool
}

// delegation.md §1: "64 tools, 32 arguments a tool, constraint depth 32, 4096
// constraint nodes a token, 64 array items, strings 1024 B".
var kdt1Limits = toolLimits{tools: MaxTools, arguments: maxArguments, nodes: 4096, items: 64, text: maxString}

// aat02.md: "256 tools, 64 constraints a tool".
var strictLimits = toolLimits{tools: StrictMaxTools, arguments: StrictMaxConstraints, emptyName: true}

// over reports whether a size is beyond a limit.
func over(n, limit int) bool { return limit > 0 && n > limit }

// ParseConstraint reads the wire form of a constraint as it stands beside the
// name of an argument. Its refusals are unknown_constraint for a type that
// aat02.md does not have, malformed for everything else.
func ParseConstraint(v jcs.Value) (Constraint, error) {
	p := constraintParser{limits: kdt1Limits}
	c, problem := p.entry(v)
	switch {
	case problem != "":
		return Constraint{}, refuse(Malformed, DimensionTools, problem)
	case p.unknown != "":
		return Constraint{}, refuse(UnknownConstraint, DimensionTools, p.unknown)
	}
	return c, nil
}

// constraintParser reads the constraints of one token. Shapes come before
// types: what is malformed anywhere is malformed, whatever else it names.
type constraintParser struct {
	limits  toolLimits
	nodes   int
	unknown string // the first type that is not known
}

// entry reads the constraint of a named argument, where alone optional stands.
func (p *constraintParser) entry(v jcs.Value) (Constraint, string) {
	optional := v.Get("optional")
	if optional.Exists() && optional.Kind() != jcs.Bool {
		return Constraint{}, "optional is not a boolean"
	}
	known := 1
	if optional.Exists() {
		known++
	}
	n, problem := p.node(v, known, 1)
	return Constraint{node: n, optional: optional.Bool()}, problem
}

// node reads a constraint of which as many members are known already. What is
// of an unknown type comes back as one that allows nothing.
func (p *constraintParser) node(v jcs.Value, known, depth int) (*node, string) {
	name := v.Get("constraint_type")
	if name.Kind() != jcs.String {
		return nil, "a constraint without a constraint_type"
	}
	if depth > maxConstraintDepth {
		return nil, errTooDeep
	}
	if p.nodes++; over(p.nodes, p.limits.nodes) {
		return nil, "more than 4096 constraints"
	}
	n := &node{depth: 1}
	problem := ""
	switch name.Str() {
	case kindNames[exact]:
		n.kind, known = exact, known+1
		problem = p.exact(n, v.Get("value"))
	case kindNames[oneOf]:
		n.kind, known = oneOf, known+1
		problem = p.list(n, v)
	case kindNames[notOneOf]:
		n.kind, known = notOneOf, known+1
		problem = p.list(n, v)
	case kindNames[contains]:
		n.kind, known = contains, known+1
		problem = p.list(n, v)
	case kindNames[subsetOf]:
		n.kind, known = subsetOf, known+1
		problem = p.list(n, v)
	case kindNames[inRange]:
		n.kind = inRange
		problem = p.bounds(n, v, &known)
	case kindNames[allOf]:
		n.kind, known = allOf, known+1
		problem = p.clauses(n, v.Get("constraints"), depth)
	case kindNames[anyOf]:
		n.kind, known = anyOf, known+1
		problem = p.clauses(n, v.Get("constraints"), depth)
	case kindNames[wildcard]:
		n.kind = wildcard
	default:
		// Nobody knows which members are its own.
		if p.unknown == "" {
			p.unknown = "the type " + quoteShort(name.Str())
		}
		return n, ""
	}
	if problem == "" && v.Len() != known {
		problem = "an unknown member of a constraint of the type " + kindNames[n.kind]
	}
	return n, problem
}

func (p *constraintParser) exact(n *node, v jcs.Value) string {
	switch v.Kind() {
	case jcs.String, jcs.Number, jcs.Bool, jcs.Null:
	default:
		return "exact needs a value that is a string, a number, a boolean or null"
	}
	if problem := p.value(v); problem != "" {
		return problem
	}
	n.values = []string{string(jcs.Canonical(v))}
	n.min.value, n.min.set = v.Float() // a number here is admissible
	return ""
}

// list reads a set of values.
func (p *constraintParser) list(n *node, v jcs.Value) string {
	name := listNames[n.kind]
	list := v.Get(name)
	switch {
	case list.Kind() != jcs.Array:
		return kindNames[n.kind] + " needs an array " + name
	case n.kind == oneOf && list.Len() == 0:
		return "one_of needs a value"
	}
	if problem := p.value(list); problem != "" {
		return problem
	}
	n.values = canonicalSet(list)
	return ""
}

// canonicalSet returns the elements of an array in canonical bytes, sorted and
// distinct.
func canonicalSet(list jcs.Value) []string {
	ends := make([]int, 0, list.Len())
	var buffer []byte
	for e := range list.All() {
		buffer = e.AppendCanonical(buffer)
		ends = append(ends, len(buffer))
	}
	text, from := string(buffer), 0
	set := make([]string, 0, len(ends))
	for _, end := range ends {
		set = append(set, text[from:end])
		from = end
	}
	slices.Sort(set)
	return slices.Compact(set)
}

func (p *constraintParser) bounds(n *node, v jcs.Value, known *int) string {
	for _, side := range []struct {
		into            *bound
		name, inclusive string
	}{{&n.min, "min", "min_inclusive"}, {&n.max, "max", "max_inclusive"}} {
		limit, flag := v.Get(side.name), v.Get(side.inclusive)
		if limit.Exists() {
			*known++
			if limit.Kind() != jcs.Number {
				return side.name + " is not a number"
			}
			if side.into.value, side.into.set = limit.Float(); !side.into.set {
				return errInadmissible
			}
		}
		if flag.Exists() {
			*known++
			if flag.Kind() != jcs.Bool || !limit.Exists() {
				return side.inclusive + " is a boolean beside " + side.name
			}
			side.into.exclusive = !flag.Bool()
		}
	}
	if n.min.set && n.max.set && n.min.value > n.max.value {
		return "min is above max"
	}
	return ""
}

func (p *constraintParser) clauses(n *node, list jcs.Value, depth int) string {
	if list.Kind() != jcs.Array || list.Len() == 0 {
		return kindNames[n.kind] + " needs an array constraints with a clause"
	}
	if over(list.Len(), p.limits.items) {
		return errTooMany
	}
	n.clauses = make([]*node, 0, list.Len())
	for clause := range list.All() {
		child, problem := p.node(clause, 1, depth+1)
		if problem != "" {
			return problem
		}
		n.clauses = append(n.clauses, child)
		n.depth = max(n.depth, child.depth+1)
	}
	return ""
}

const (
	errTooMany      = "an array of more than 64 in a constraint"
	errTooLong      = "a string of more than 1024 bytes in a constraint"
	errInadmissible = "a number that no double holds exactly"
)

// value checks a value of a constraint at any nesting.
func (p *constraintParser) value(v jcs.Value) string {
	switch v.Kind() {
	case jcs.Number:
		if _, admissible := v.Float(); !admissible {
			return errInadmissible
		}
	case jcs.String:
		if over(len(v.Str()), p.limits.text) {
			return errTooLong
		}
	case jcs.Array:
		if over(v.Len(), p.limits.items) {
			return errTooMany
		}
		for e := range v.All() {
			if problem := p.value(e); problem != "" {
				return problem
			}
		}
	case jcs.Object:
		for name, e := range v.Fields() {
			if over(len(name), p.limits.text) {
				return errTooLong
			}
			if problem := p.value(e); problem != "" {
				return problem
			}
		}
	}
	return ""
}
