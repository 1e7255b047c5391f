package delegation_test

import (
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"

	"pgregory.net/rapid"
)

// chance is where random choices come from: rapid in the tests that shrink
// what they find, a seeded generator in the long run.
type chance interface{ IntN(n int) int }

// drawn makes rapid a chance.
type drawn struct{ t *rapid.T }

func (d drawn) IntN(n int) int { return rapid.IntRange(0, n-1).Draw(d.t, "of "+strconv.Itoa(n)) }

func pick[T any](r chance, list []T) T { return list[r.IntN(len(list))] }

// rarely is true once in n times, and not for what rapid shrinks to.
func rarely(r chance, n int) bool { return r.IntN(n) == n-1 }

// subsetOf draws a subset, in the order of the list; never nil.
func subsetOf[T any](r chance, list []T) []T {
	subset := []T{}
	for mask, i := r.IntN(1<<len(list)), 0; i < len(list); i++ {
		if mask>>i&1 == 1 {
			subset = append(subset, list[i])
		}
	}
	return subset
}

// Small alphabets, so that random authority overlaps and random requests hit.
var (
	someArguments = []string{"a", "b", "c", "ключ", "*"}
	someNumbers   = []string{"0", "1", "2", "3", "5", "-1", "1.5"}
	// Other spellings of numbers, and numbers next to which doubles get rare.
	someSpellings = []string{"1.0", "10e-1", "2E0", "-0", "0.0", "1e2", "9007199254740992", "9007199254740994", "0.1", "1e20", "-1.5e0"}
	// No double is these.
	inadmissible = []string{"9007199254740993", "1.00000000000000001", "1e400", "1e-400", "-1e999", "0.1000000000000000000001"}
	someTexts    = []string{"a", "b", "1", "true", "null", "", "é", "e\u0301", "A"}
	someKinds    = []string{"exact", "range", "one_of", "not_one_of", "contains", "subset", "wildcard", "all", "any"}
)

func someNumber(r chance) any {
	switch {
	case rarely(r, 400):
		return json.Number(pick(r, inadmissible))
	case rarely(r, 8):
		return json.Number(pick(r, someSpellings))
	}
	return json.Number(pick(r, someNumbers))
}

func someScalar(r chance) any {
	switch r.IntN(8) {
	case 0, 1, 2, 3:
		return someNumber(r)
	case 4:
		return rarely(r, 2)
	case 5:
		return nil
	}
	return pick(r, someTexts)
}

func someValue(r chance, depth int) any {
	if depth > 0 {
		switch r.IntN(10) {
		case 8:
			return object{pick(r, someArguments): someValue(r, depth-1)}
		case 9:
			return someList(r, depth-1, 0)
		}
	}
	return someScalar(r)
}

func someList(r chance, depth, least int) []any {
	list := make([]any, 0, 4)
	for range least + r.IntN(4) {
		list = append(list, someValue(r, depth))
	}
	return list
}

// someRule draws a constraint in wire form.
func someRule(r chance, depth int) object {
	kinds := someKinds
	if depth == 0 {
		kinds = kinds[:7]
	}
	kind := pick(r, kinds)
	c := object{"constraint_type": kind}
	switch kind {
	case "exact":
		c["value"] = someScalar(r)
	case "one_of":
		c["values"] = someList(r, 1, 1)
	case "not_one_of", "contains", "subset":
		c[listOf[kind]] = someList(r, 1, 0)
	case "range":
		for _, side := range []string{"min", "max"} {
			if !rarely(r, 3) {
				c[side] = someNumber(r)
				if rarely(r, 3) {
					c[side+"_inclusive"] = !rarely(r, 2)
				}
			}
		}
		if low, high := c["min"], c["max"]; low != nil && high != nil && !rarely(r, 50) {
			a, _ := plain(low)
			b, _ := plain(high)
			if a, ok := a.(float64); ok {
				if b, ok := b.(float64); ok && a > b {
					c["min"], c["max"] = high, low
				}
			}
		}
	case "all", "any":
		clauses := []any{}
		for range 1 + r.IntN(3) {
			clause := someRule(r, depth-1)
			if rarely(r, 150) { // which no clause may have
				clause["optional"] = rarely(r, 2)
			}
			clauses = append(clauses, clause)
		}
		c["constraints"] = clauses
	}
	if rarely(r, 500) {
		spoil(r, c)
	}
	return c
}

// spoil makes a constraint that nobody may accept.
func spoil(r chance, c object) {
	switch r.IntN(9) {
	case 0:
		c["constraint_type"] = pick(r, []string{"regex", "Exact", "exact ", "", "prefix"})
	case 1:
		c["note"] = "x"
	case 2:
		delete(c, "constraint_type")
	case 3:
		c["constraint_type"] = json.Number("1")
	case 4:
		c["optional"] = pick(r, []any{nil, "true", json.Number("1")})
	case 5:
		c["min_inclusive"] = pick(r, []any{true, nil})
	case 6:
		c["value"] = pick(r, []any{[]any{}, object{}})
	case 7:
		c["values"] = pick(r, []any{[]any{}, object{}, nil})
	case 8:
		c["constraints"] = []any{}
	}
}

// near draws a child of a constraint: mostly a narrower one, often one that is
// not quite.
func near(r chance, parent object, depth int) object {
	c := maps.Clone(parent)
	delete(c, "optional")
	kind, _ := c["constraint_type"].(string)
	switch {
	case rarely(r, 10):
		return someRule(r, depth)
	case r.IntN(3) == 0:
		return c
	}
	switch kind {
	case "wildcard":
		return someRule(r, depth)
	case "one_of", "subset":
		c[listOf[kind]] = fewer(r, c[listOf[kind]])
		if values, ok := c["values"].([]any); ok && len(values) > 0 && rarely(r, 4) {
			return object{"constraint_type": "exact", "value": pick(r, values)}
		}
	case "not_one_of", "contains":
		list, _ := c[listOf[kind]].([]any)
		c[listOf[kind]] = append(slices.Clone(list), someList(r, 1, 0)...)
		if rarely(r, 4) {
			c[listOf[kind]] = fewer(r, c[listOf[kind]])
		}
	case "range":
		nearRange(r, c)
	case "all", "any":
		clauses := []any{}
		list, _ := c["constraints"].([]any)
		for _, one := range list {
			if clause, ok := one.(object); ok && !rarely(r, 6) {
				clauses = append(clauses, near(r, clause, max(depth-1, 0)))
			}
		}
		if kind == "all" && rarely(r, 3) || rarely(r, 12) {
			clauses = append(clauses, someRule(r, 0))
		}
		if rarely(r, 3) {
			slices.Reverse(clauses)
		}
		c["constraints"] = clauses
	}
	return c
}

func fewer(r chance, v any) any {
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		return v
	}
	at := r.IntN(len(list))
	list = slices.Delete(slices.Clone(list), at, at+1)
	if rarely(r, 6) {
		list = append(list, someValue(r, 1))
	}
	return list
}

func nearRange(r chance, c object) {
	for _, side := range []string{"min", "max"} {
		switch r.IntN(8) {
		case 0, 1:
			c[side] = someNumber(r)
		case 2:
			if c[side] != nil {
				c[side+"_inclusive"] = rarely(r, 2)
			}
		case 3:
			delete(c, side+"_inclusive")
		case 7:
			if rarely(r, 3) {
				delete(c, side)
				delete(c, side+"_inclusive")
			}
		}
	}
	if rarely(r, 5) {
		value := someNumber(r)
		if c["min"] != nil && rarely(r, 2) {
			value = c["min"]
		}
		maps.DeleteFunc(c, func(string, any) bool { return true })
		c["constraint_type"], c["value"] = "exact", value
	}
}

// someWorld draws the argument map of a tool.
func someWorld(r chance) object {
	w := object{}
	if rarely(r, 4) {
		return w
	}
	for range 1 + r.IntN(3) {
		name := pick(r, someArguments)
		if name == "*" {
			w[name] = object{"constraint_type": "wildcard"}
			if rarely(r, 25) { // which "*" may not have, or be
				w[name] = pick(r, []object{{"constraint_type": "wildcard", "optional": false}, {"constraint_type": "wildcard", "optional": true},
					{"constraint_type": "exact", "value": "a"}, {"constraint_type": "wildcard", "value": "a"}})
			}
			continue
		}
		c := someRule(r, 2)
		if rarely(r, 3) {
			c["optional"] = !rarely(r, 4)
		}
		w[name] = c
	}
	return w
}

func nearWorld(r chance, parent object) object {
	if rarely(r, 20) {
		return someWorld(r)
	}
	if len(parent) == 0 && rarely(r, 3) {
		return object{}
	}
	w := object{}
	open := len(parent) == 0 || parent["*"] != nil
	for _, name := range slices.Sorted(maps.Keys(parent)) {
		p, ok := parent[name].(object)
		if name == "*" || !ok {
			continue
		}
		optional, _ := p["optional"].(bool)
		if optional && rarely(r, 3) || rarely(r, 20) {
			continue
		}
		c := near(r, p, 2)
		if optional && rarely(r, 2) || rarely(r, 20) {
			c["optional"] = true
		}
		w[name] = c
	}
	if open && rarely(r, 2) || rarely(r, 20) {
		if name := pick(r, someArguments); name != "*" && w[name] == nil {
			w[name] = someRule(r, 1)
		}
	}
	if open && rarely(r, 2) || rarely(r, 30) {
		w["*"] = object{"constraint_type": "wildcard"}
	}
	return w
}

func someToolMap(r chance) object {
	if rarely(r, 3) {
		return object{}
	}
	m := object{}
	for _, name := range subsetOf(r, someTools) {
		m[name] = someWorld(r)
	}
	return m
}

func nearTools(r chance, parent object) object {
	m := object{}
	for _, name := range slices.Sorted(maps.Keys(parent)) {
		if w, ok := parent[name].(object); ok && !rarely(r, 5) {
			m[name] = nearWorld(r, w)
		}
	}
	if rarely(r, 25) {
		m[pick(r, someTools)] = someWorld(r)
	}
	return m
}

// probes are values near every bound and member of constraints, inside and
// outside of them, as plain values.
func probes(rules ...rule) []any {
	list := []any{nil, "zz", 7.25, []any{}, []any{"zz"}, true}
	for _, c := range rules {
		list = c.probes(list)
	}
	return list
}

func (c rule) probes(list []any) []any {
	for _, bound := range []*float64{c.min, c.max} {
		if bound != nil {
			list = append(list, *bound, math.Nextafter(*bound, math.Inf(-1)), math.Nextafter(*bound, math.Inf(1)), *bound-1, *bound+1,
				[]any{*bound}, strconv.FormatFloat(*bound, 'g', -1, 64))
		}
	}
	if c.min != nil && c.max != nil {
		list = append(list, (*c.min+*c.max)/2)
	}
	for i, v := range c.values {
		list = append(list, v, []any{v}, []any{v, "zz"}, []any{v, v})
		if f, ok := v.(float64); ok {
			list = append(list, math.Nextafter(f, 99), strconv.FormatFloat(f, 'g', -1, 64))
		}
		if s, ok := v.(string); ok {
			list = append(list, s+"x", s+"\u0301")
		}
		rest := slices.Delete(slices.Clone(c.values), i, i+1)
		list = append(list, rest)
	}
	if len(c.values) > 0 {
		list = append(list, c.values, append(slices.Clone(c.values), "zz"))
	}
	for _, clause := range c.clauses {
		list = clause.probes(list)
	}
	return list
}
