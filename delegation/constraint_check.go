package delegation

import (
	"slices"

	"github.com/kavach-dev/kavach/jcs"
)

// allows is the check of aat02.md for one value as it was written in a call.
func (c Constraint) allows(v jcs.Value) bool {
	return c.node != nil && v.Exists() && admissible(v) && c.node.allows(&argument{value: v})
}

// admissible reports whether every number in a value is: "arguments as written
// in the call, at any nesting".
func admissible(v jcs.Value) bool {
	switch v.Kind() {
	case jcs.Number:
		_, ok := v.Float()
		return ok
	case jcs.Array:
		for e := range v.All() {
			if !admissible(e) {
				return false
			}
		}
	case jcs.Object:
		for _, e := range v.Fields() {
			if !admissible(e) {
				return false
			}
		}
	}
	return true
}

// argument is a value of a call whose numbers are admissible. What is costly to
// know of it is found out once, however many constraints of however many links
// ask.
type argument struct {
	value     jcs.Value
	canonical string   // "" until asked for
	elements  []string // of an array, a set; nil until asked for
	number    *float64
}

func (a *argument) bytes() string {
	if a.canonical == "" {
		a.canonical = string(jcs.Canonical(a.value))
	}
	return a.canonical
}

func (a *argument) set() []string {
	if a.elements == nil {
		a.elements = canonicalSet(a.value)
	}
	return a.elements
}

func (a *argument) float() float64 {
	if a.number == nil {
		f, _ := a.value.Float()
		a.number = &f
	}
	return *a.number
}

func (n *node) allows(a *argument) bool {
	switch n.kind {
	case exact:
		return n.values[0] == a.bytes()
	case oneOf:
		return member(a.bytes(), n.values)
	case notOneOf:
		return !member(a.bytes(), n.values)
	case contains:
		return a.value.Kind() == jcs.Array && within(n.values, a.set())
	case subsetOf:
		return a.value.Kind() == jcs.Array && within(a.set(), n.values)
	case inRange:
		return a.value.Kind() == jcs.Number && n.holds(a.float())
	case allOf:
		return !slices.ContainsFunc(n.clauses, func(clause *node) bool { return !clause.allows(a) })
	case anyOf:
		return slices.ContainsFunc(n.clauses, func(clause *node) bool { return clause.allows(a) })
	case wildcard:
		return true
	}
	return false
}

// holds reports whether a number is within the bounds of a range.
func (n *node) holds(f float64) bool {
	return !(n.min.set && (f < n.min.value || f == n.min.value && n.min.exclusive) ||
		n.max.set && (f > n.max.value || f == n.max.value && n.max.exclusive))
}

// member and within are of sorted sets.
func member(value string, set []string) bool {
	_, found := slices.BinarySearch(set, value)
	return found
}

func within(small, large []string) bool {
	if len(small) > len(large) {
		return false
	}
	for _, value := range small {
		at, found := slices.BinarySearch(large, value)
		if !found {
			return false
		}
		large = large[at+1:]
	}
	return true
}
