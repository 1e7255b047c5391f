package delegation

import (
	"slices"

	"github.com/kavach-dev/kavach/jcs"
)

// Tools names the tools a token is for, each with what it says about the
// arguments. An empty map names no tool: in a token whose ancestors name none
// either that means the token is restricted by scope only; below a token that
// names tools it means none of them.
type Tools map[string]Arguments

// Arguments says which arguments a tool may be called with. Its zero value is
// refused by Derive and Exchange: any argument at all has to be said.
type Arguments struct{ any bool }

// AllowAnyArgs allows every argument; on the wire an empty map.
var AllowAnyArgs = Arguments{any: true}

// ParseTools reads the wire form of tools, {tool: {argument: constraint}}. This
// revision knows no constraint type, so an argument map with members is refused
// as a whole: unknown_constraint if they name a type, malformed otherwise
// (delegation.md §4: "An unknown type, an unknown member or a malformed
// constraint refuses the whole chain, also on a tool that is not called").
// Ignoring one would drop a restriction its author meant.
func ParseTools(v jcs.Value) (Tools, error) {
	tools, refusal := parseTools(v)
	if refusal != nil {
		return nil, refusal
	}
	return tools, nil
}

// Names returns the names of the tools, sorted.
func (t Tools) Names() []string {
	names := make([]string, 0, len(t))
	for name := range t {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Map returns the wire form for jcs.
func (t Tools) Map() map[string]any {
	wire := make(map[string]any, len(t))
	for name := range t {
		wire[name] = map[string]any{}
	}
	return wire
}

func parseTools(v jcs.Value) (Tools, *Refusal) {
	if v.Kind() != jcs.Object {
		return nil, refuse(Malformed, DimensionTools, "tools is not an object")
	}
	if v.Len() > MaxTools {
		return nil, refuse(Malformed, DimensionTools, "more than 64 tools")
	}
	// Shapes of the whole map come before types: a token that is malformed
	// anywhere is malformed, whatever else it names.
	var unknown *Refusal
	tools := make(Tools, v.Len())
	for name, arguments := range v.Fields() {
		if name == "" || len(name) > maxString {
			return nil, refuse(Malformed, DimensionTools, "the name of a tool has 1 to 1024 bytes")
		}
		if arguments.Kind() != jcs.Object || arguments.Len() > maxArguments {
			return nil, refuse(Malformed, DimensionTools, "arguments of "+quoteShort(name))
		}
		for argument, constraint := range arguments.Fields() {
			if constraint.Get("constraint_type").Kind() != jcs.String || len(argument) > maxString {
				return nil, refuse(Malformed, DimensionTools, "constraint in "+quoteShort(name))
			}
			if unknown == nil {
				unknown = refuse(UnknownConstraint, DimensionTools,
					quoteShort(constraint.Get("constraint_type").Str())+" in "+quoteShort(name))
			}
		}
		tools[name] = AllowAnyArgs
	}
	if unknown != nil {
		return nil, unknown
	}
	return tools, nil
}

// validate refuses what could not be written, or was not said.
func (t Tools) validate() *Refusal {
	if len(t) > MaxTools {
		return refuse(Malformed, DimensionTools, "more than 64 tools")
	}
	for name, arguments := range t {
		if name == "" || len(name) > maxString {
			return refuse(Malformed, DimensionTools, "the name of a tool has 1 to 1024 bytes")
		}
		if !arguments.any {
			return refuse(Malformed, DimensionTools, "say AllowAnyArgs for "+quoteShort(name))
		}
	}
	return nil
}

func (t Tools) allows(call Call) bool {
	arguments, ok := t[call.Name]
	return ok && arguments.any
}

// covers is rule 4p1 of aat02.md: every tool of the child exists in the parent.
func (t Tools) covers(child Tools) bool {
	for name := range child {
		if parent, ok := t[name]; !ok || !parent.any {
			return false
		}
	}
	return true
}
