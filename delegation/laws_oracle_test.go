package delegation_test

import (
	"encoding/json"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// An oracle for constraints, written from the rules of AAT-02 and from nothing
// in the package: it reads values as encoding/json does, compares numbers as
// doubles and knows no canonical bytes. Where it and the package differ, one of
// them is wrong.

// rule is one constraint.
type rule struct {
	kind             string
	values           []any // of exact (one), one_of, not_one_of, contains, subset
	min, max         *float64
	minOpen, maxOpen bool
	clauses          []rule
	optional         bool
}

// reading is what the oracle thinks of a text.
type reading int

const (
	fine reading = iota
	malformed
	unknownType
)

// worse keeps the first problem, and a shape before a type.
func worse(a, b reading) reading {
	if a == malformed || b == fine {
		return a
	}
	return b
}

// plain turns numbers into doubles. An inadmissible one is malformed: its
// double does not denote what the text does.
func plain(v any) (any, reading) {
	switch v := v.(type) {
	case json.Number:
		f, ok := admissible(string(v))
		if !ok {
			return nil, malformed
		}
		return f, fine
	case int:
		return float64(v), fine
	case []any:
		list := make([]any, len(v))
		for i := range v {
			one, r := plain(v[i])
			if r != fine {
				return nil, r
			}
			list[i] = one
		}
		return list, fine
	case object:
		m := make(object, len(v))
		for name := range v {
			one, r := plain(v[name])
			if r != fine {
				return nil, r
			}
			m[name] = one
		}
		return m, fine
	}
	return v, fine
}

// admissible: the shortest decimal that reads back as the nearest double, which
// is what RFC 8785 writes, must be the number that the text is.
func admissible(text string) (float64, bool) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, false
	}
	if len(text) < 16 && !strings.ContainsAny(text, "eE") {
		return f, true // at most 15 digits
	}
	if at := strings.IndexAny(text, "eE"); at >= 0 && len(text)-at > 6 {
		return 0, false // no double has such an exponent, and big.Rat would expand it
	}
	exact, _ := new(big.Rat).SetString(text)
	short, _ := new(big.Rat).SetString(strconv.FormatFloat(f, 'g', -1, 64))
	return f, exact.Cmp(short) == 0
}

// same compares two plain values: 1 is 1.0, "1" is not, members have no order.
func same(a, b any) bool {
	switch a := a.(type) {
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return false
		}
		for i := range a {
			if !same(a[i], b[i]) {
				return false
			}
		}
		return true
	case object:
		b, ok := b.(object)
		if !ok || len(a) != len(b) {
			return false
		}
		for name := range a {
			other, ok := b[name]
			if !ok || !same(a[name], other) {
				return false
			}
		}
		return true
	}
	switch b.(type) {
	case []any, object:
		return false
	}
	return a == b
}

func in(v any, list []any) bool {
	for _, one := range list {
		if same(one, v) {
			return true
		}
	}
	return false
}

func allIn(list, of []any) bool {
	for _, one := range list {
		if !in(one, of) {
			return false
		}
	}
	return true
}

var listOf = map[string]string{"one_of": "values", "not_one_of": "excluded", "contains": "required", "subset": "allowed"}

// ruleOf reads a constraint. top is an entry of a map, which alone may be
// optional; star the entry "*".
func ruleOf(wire any, top, star bool) (rule, reading) {
	m, ok := wire.(object)
	if !ok {
		return rule{}, malformed
	}
	c := rule{}
	c.kind, ok = m["constraint_type"].(string)
	if !ok {
		return rule{}, malformed
	}
	known, result := 1, fine
	if optional, there := m["optional"]; there {
		c.optional, ok = optional.(bool)
		switch {
		case !ok && top: // whatever the type
			return rule{}, malformed
		case !slices.Contains(someKinds, c.kind): // nobody knows what is a member of it
			return rule{}, unknownType
		case !top || star:
			return rule{}, malformed
		}
		known++
	}
	bound := func(name string) *float64 {
		v, there := m[name]
		if !there {
			return nil
		}
		known++
		number, r := plain(v)
		f, ok := number.(float64)
		if r != fine || !ok {
			result = malformed
		}
		return &f
	}
	open := func(name string, bound *float64) bool {
		v, there := m[name]
		if !there {
			return false
		}
		known++
		inclusive, ok := v.(bool)
		if !ok || bound == nil {
			result = malformed
		}
		return !inclusive
	}
	switch c.kind {
	case "wildcard":
	case "exact":
		v, there := m["value"]
		one, r := plain(v)
		switch one.(type) {
		case []any, object:
			r = malformed
		}
		if !there || r != fine {
			return rule{}, malformed
		}
		known++
		c.values = []any{one}
	case "one_of", "not_one_of", "contains", "subset":
		list, ok := m[listOf[c.kind]].([]any)
		if !ok || len(list) > 64 || c.kind == "one_of" && len(list) == 0 {
			return rule{}, malformed
		}
		known++
		v, r := plain(list)
		if r != fine {
			return rule{}, r
		}
		c.values = v.([]any)
	case "range":
		c.min, c.max = bound("min"), bound("max")
		c.minOpen, c.maxOpen = open("min_inclusive", c.min), open("max_inclusive", c.max)
		if result == fine && c.min != nil && c.max != nil && *c.min > *c.max {
			result = malformed
		}
	case "all", "any":
		list, ok := m["constraints"].([]any)
		if !ok || len(list) == 0 {
			return rule{}, malformed
		}
		known++
		for _, one := range list {
			clause, r := ruleOf(one, false, false)
			result = worse(result, r)
			c.clauses = append(c.clauses, clause)
		}
	default:
		return rule{}, unknownType
	}
	if known != len(m) || star && c.kind != "wildcard" {
		return rule{}, malformed
	}
	return c, result
}

// takes is the check of a plain value.
func (c rule) takes(v any) bool {
	list, isList := v.([]any)
	switch c.kind {
	case "wildcard":
		return true
	case "exact", "one_of":
		return in(v, c.values)
	case "not_one_of":
		return !in(v, c.values)
	case "contains":
		return isList && allIn(c.values, list)
	case "subset":
		return isList && allIn(list, c.values)
	case "range":
		f, ok := v.(float64)
		return ok && (c.min == nil || f > *c.min || f == *c.min && !c.minOpen) &&
			(c.max == nil || f < *c.max || f == *c.max && !c.maxOpen)
	case "all":
		for _, clause := range c.clauses {
			if !clause.takes(v) {
				return false
			}
		}
		return true
	case "any":
		for _, clause := range c.clauses {
			if clause.takes(v) {
				return true
			}
		}
	}
	return false
}

// covers is the table of subsumption, row by row.
func (c rule) covers(child rule) bool {
	switch c.kind + " " + child.kind {
	case "range range":
		return (c.min == nil || child.min != nil && (*child.min > *c.min || *child.min == *c.min && (!c.minOpen || child.minOpen))) &&
			(c.max == nil || child.max != nil && (*child.max < *c.max || *child.max == *c.max && (!c.maxOpen || child.maxOpen)))
	case "range exact", "one_of exact", "exact exact":
		return c.takes(child.values[0])
	case "one_of one_of", "subset subset":
		return allIn(child.values, c.values)
	case "not_one_of not_one_of", "contains contains":
		return allIn(c.values, child.values)
	case "all all":
		for _, p := range c.clauses {
			if !covered(child.clauses, func(q rule) bool { return p.covers(q) }) {
				return false
			}
		}
		return true
	case "any any":
		for _, q := range child.clauses {
			if !covered(c.clauses, func(p rule) bool { return p.covers(q) }) {
				return false
			}
		}
		return true
	}
	return c.kind == "wildcard"
}

func covered(clauses []rule, by func(rule) bool) bool {
	for _, one := range clauses {
		if by(one) {
			return true
		}
	}
	return false
}

// world is what is said of the arguments of one tool.
type world struct {
	named map[string]rule
	star  bool
}

func worldOf(wire any) (world, reading) {
	m, ok := wire.(object)
	if !ok || len(m) > 32 {
		return world{}, malformed
	}
	w, result := world{named: map[string]rule{}, star: len(m) == 0}, fine
	for name, constraint := range m {
		c, r := ruleOf(constraint, true, name == "*")
		result = worse(result, r)
		if name == "*" {
			w.star = true
			continue
		}
		w.named[name] = c
	}
	return w, result
}

// takes is the closed world: arguments are plain.
func (w world) takes(arguments object) bool {
	for name, v := range arguments {
		if c, named := w.named[name]; named && !c.takes(v) || !named && !w.star {
			return false
		}
	}
	for name, c := range w.named {
		if _, given := arguments[name]; !given && !c.optional {
			return false
		}
	}
	return true
}

// covers is 4p2 to 4p4 of AAT-02.
func (w world) covers(child world) bool {
	for name, c := range child.named {
		p, named := w.named[name]
		if !named && !w.star || named && !p.optional && c.optional || named && !p.covers(c) {
			return false
		}
	}
	for name, p := range w.named {
		if _, there := child.named[name]; !there && (!p.optional || child.star) {
			return false
		}
	}
	return w.star || !child.star
}

// worlds are the tools of one token.
type worlds map[string]world

func worldsOf(wire any) (worlds, reading) {
	m, ok := wire.(object)
	if !ok || len(m) > 64 {
		return nil, malformed
	}
	list, result := worlds{}, fine
	for name, arguments := range m {
		w, r := worldOf(arguments)
		if name == "" {
			r = malformed
		}
		result = worse(result, r)
		list[name] = w
	}
	return list, result
}

// covers is 4p1, then the rest per tool.
func (t worlds) covers(child worlds) bool {
	for name, w := range child {
		if p, there := t[name]; !there || !p.covers(w) {
			return false
		}
	}
	return true
}
