package delegation_test

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// The states of a dimension.
const (
	given = iota
	none
	unset
)

// wish is a random request, in a form that the model reads too.
type wish struct {
	scopes                                            []string
	toolState, resourceState, networkState, sizeState int
	tool                                              string
	arguments, plain                                  object
	inadmissible                                      bool
	resource, network                                 string
	size                                              int64
}

func (w wish) request() delegation.Request {
	r := delegation.Request{Scope: delegation.AllOf(w.scopes...)}
	switch w.toolState {
	case given:
		data, err := json.Marshal(w.arguments)
		if err != nil {
			panic(err)
		}
		v, err := jcs.Parse(data, jcs.Limits{})
		if err != nil {
			panic(err)
		}
		r.Tool = delegation.Given(delegation.Call{Name: w.tool, Arguments: v})
	case none:
		r.Tool = delegation.None[delegation.Call]()
	}
	r.Resource = dimensionOf(w.resourceState, w.resource)
	r.Network = dimensionOf(w.networkState, w.network)
	r.Size = dimensionOf(w.sizeState, w.size)
	return r
}

func dimensionOf[T any](state int, value T) delegation.Dimension[T] {
	switch state {
	case given:
		return delegation.Given(value)
	case none:
		return delegation.None[T]()
	}
	return delegation.Dimension[T]{}
}

// askFor draws a request near to what two tokens say: mostly one that the first
// permits, or next to that.
func askFor(r chance, child, parent *sheet) wish {
	state := func() int { return max(r.IntN(14)-11, 0) }
	w := wish{toolState: state(), resourceState: state(), networkState: state(), sizeState: state()}
	for _, scope := range child.scopes {
		if !rarely(r, 3) {
			w.scopes = append(w.scopes, scope)
		}
	}
	if rarely(r, 6) {
		w.scopes = subsetOf(r, someScopes)
	}
	w.tool = pick(r, someTools)
	if names := sortedKeys(child.tools); len(names) > 0 && !rarely(r, 6) {
		w.tool = pick(r, names)
	}
	w.call(r, child.tools[w.tool], parent.tools[w.tool])
	w.resource, w.network = pick(r, someIDs), pick(r, someTargets)
	if l := child.limits.resources; len(l) > 0 && rarely(r, 2) {
		w.resource = someInside(r, someIDs, l, under)
	}
	if l := child.limits.network; len(l) > 0 && rarely(r, 2) {
		w.network = someInside(r, someTargets, l, reaches)
	}
	w.size = pick(r, someSizes)
	if l := child.limits.size; l != nil {
		w.size = max(*l+int64(r.IntN(3))-1, 0)
	}
	return w
}

// someInside picks what an entry reaches, if there is any.
func someInside(r chance, list, entries []string, reach func(entry, id string) bool) string {
	inside := make([]string, 0, len(list))
	for _, one := range list {
		if someUnder(entries, one, reach) {
			inside = append(inside, one)
		}
	}
	if len(inside) == 0 {
		return pick(r, list)
	}
	return pick(r, inside)
}

// call draws arguments near to what two worlds say of a tool.
func (w *wish) call(r chance, child, parent world) {
	w.arguments, w.plain = object{}, object{}
	for _, name := range someArguments {
		c, named := child.named[name]
		p, above := parent.named[name]
		var v any
		switch {
		case named && above:
			v = near1(r, c, probes(c, p))
		case named:
			v = near1(r, c, probes(c))
		case above && rarely(r, 3):
			v = near1(r, p, probes(p))
		case !above && (child.star && rarely(r, 4) || rarely(r, 30)):
			v, _ = plain(someValue(r, 1))
		default:
			continue
		}
		if (c.optional || rarely(r, 20)) && rarely(r, 2) {
			continue
		}
		w.plain[name], w.arguments[name] = v, spelled(r, v)
	}
	if rarely(r, 200) {
		w.arguments["a"] = []any{json.Number(pick(r, inadmissible))}
		w.plain["a"], w.inadmissible = []any{}, true
	}
}

// near1 picks a probe, mostly one that the rule takes.
func near1(r chance, c rule, list []any) any {
	list = slices.DeleteFunc(list, func(v any) bool { f, ok := v.(float64); return ok && math.IsInf(f, 0) })
	v := pick(r, list)
	if rarely(r, 4) {
		return v
	}
	for range 8 {
		if c.takes(v) {
			return v
		}
		v = pick(r, list)
	}
	for _, v := range list {
		if c.takes(v) {
			return v
		}
	}
	return v
}

// spelled writes a plain value; numbers in one of several spellings.
func spelled(r chance, v any) any {
	switch v := v.(type) {
	case float64:
		text := strconv.FormatFloat(v, 'g', -1, 64)
		if v == math.Trunc(v) && math.Abs(v) < 1e15 {
			text = strconv.FormatFloat(v, 'f', r.IntN(3), 64)
		}
		return json.Number(text)
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = spelled(r, v[i])
		}
		return list
	case object:
		m := make(object, len(v))
		for _, name := range sortedKeys(v) {
			m[name] = spelled(r, v[name])
		}
		return m
	}
	return v
}

func sortedKeys[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
