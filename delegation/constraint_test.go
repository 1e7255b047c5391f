package delegation_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// Constraints are judged here in tokens that were forged by hand, by what
// Verify and Allows say of them.

// forArgument is tools in which one tool, get, restricts the argument x.
func forArgument(constraint string) string { return `{"get":{"x":` + constraint + `}}` }

// toolsEntry is the authorization_details of a token.
func toolsEntry(tools string) object {
	return object{"authorization_details": []any{object{
		"type": "attenuating_agent_token", "tools": json.RawMessage(tools),
	}}}
}

// toolsUnder is what Verify says of a link with tools under a root with tools.
func toolsUnder(t testing.TB, parent, child string) error {
	t.Helper()
	root := rootToken().with(toolsEntry(parent))
	_, err := verifier(t).Verify(join(root, linkUnder(root, reviewerKey).with(toolsEntry(child))), now)
	return err
}

// called is what a token with tools says of a call.
func called(t testing.TB, tools, tool, arguments string) error {
	t.Helper()
	chain := verified(t, rootToken().with(toolsEntry(tools)).String())
	c := delegation.Call{Name: tool}
	if arguments != "" {
		c.Arguments = parseValue(t, arguments)
	}
	return chain.AllowsTool(delegation.Given(c))
}

func parseValue(t testing.TB, text string) jcs.Value {
	t.Helper()
	v, err := jcs.Parse([]byte(text), jcs.Limits{})
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

// simple writes a simple constraint.
func simple(kind, members string) string {
	if members != "" {
		members = "," + members
	}
	return `{"constraint_type":"` + kind + `"` + members + `}`
}

func clauses(kind string, clauses ...string) string {
	return simple(kind, `"constraints":[`+strings.Join(clauses, ",")+`]`)
}

// Each type as a parent of each type. Every pair that the table of aat02.md
// does not name is refused, whatever is in it.
func TestCoversEveryPairOfTypes(t *testing.T) {
	// All of these allow 5 or [5], so that nothing is refused for its values
	// but what stands in the table.
	examples := map[string]string{
		"exact": simple("exact", `"value":5`), "one_of": simple("one_of", `"values":[5]`), "not_one_of": simple("not_one_of", `"excluded":[]`),
		"contains": simple("contains", `"required":[]`), "subset": simple("subset", `"allowed":[5]`), "range": simple("range", ""),
		"all": clauses("all", simple("exact", `"value":5`)), "any": clauses("any", simple("exact", `"value":5`)), "wildcard": simple("wildcard", ""),
	}
	named := map[string][]string{
		"range": {"range", "exact"}, "one_of": {"one_of", "exact"}, "not_one_of": {"not_one_of"}, "contains": {"contains"},
		"subset": {"subset"}, "exact": {"exact"}, "all": {"all"}, "any": {"any"},
	}
	pairs := 0
	for parent, above := range examples {
		for child, below := range examples {
			pairs++
			want := parent == "wildcard" || slices.Contains(named[parent], child)
			if err := toolsUnder(t, forArgument(above), forArgument(below)); (err == nil) != want {
				t.Errorf("%s over %s: %v", parent, child, err)
			} else if err != nil {
				wantRefusal(t, err, delegation.NotNarrower, delegation.DimensionTools)
			}
		}
	}
	if pairs != 81 {
		t.Errorf("%d pairs", pairs)
	}
}

func TestCovers(t *testing.T) {
	exact := func(v string) string { return simple("exact", `"value":`+v) }
	oneOf := func(v string) string { return simple("one_of", `"values":[`+v+`]`) }
	notOneOf := func(v string) string { return simple("not_one_of", `"excluded":[`+v+`]`) }
	contains := func(v string) string { return simple("contains", `"required":[`+v+`]`) }
	subset := func(v string) string { return simple("subset", `"allowed":[`+v+`]`) }
	between := func(members string) string { return simple("range", members) }
	for _, c := range []struct {
		parent, child string
		want          bool
	}{
		{exact(`1`), exact(`1.0`), true},
		{exact(`1`), exact(`"1"`), false},
		{exact(`-0`), exact(`0`), true},
		{exact(`null`), exact(`null`), true},
		{exact(`null`), exact(`false`), false},
		{exact(`"é"`), exact(`"\u00e9"`), true},
		{exact(`"é"`), exact(`"e\u0301"`), false}, // nothing is normalised
		{oneOf(`1,"a",{"x":1,"y":2}`), oneOf(`"a"`), true},
		{oneOf(`1,"a",{"x":1,"y":2}`), oneOf(`{"y":2,"x":1.0}`), true},
		{oneOf(`1,"a"`), oneOf(`"a",1,1,"a"`), true},
		{oneOf(`1,"a"`), oneOf(`1,"A"`), false},
		{oneOf(`[1,2]`), oneOf(`[2,1]`), false},
		{oneOf(`1,2`), exact(`2e0`), true},
		{oneOf(`1,2`), exact(`3`), false},
		{notOneOf(`1`), notOneOf(`2,1`), true},
		{notOneOf(`1,2`), notOneOf(`1`), false},
		{notOneOf(``), notOneOf(``), true},
		{contains(`1`), contains(`1,2`), true},
		{contains(`1,2`), contains(`1`), false},
		{contains(``), contains(``), true},
		{subset(`1,2`), subset(`1`), true},
		{subset(`1,2`), subset(``), true},
		{subset(`1`), subset(`1,2`), false},
		{subset(``), subset(``), true},

		{between(`"min":1`), between(`"min":1`), true},
		{between(`"min":1`), between(``), false},
		{between(`"min":1`), between(`"max":5`), false},
		{between(``), between(`"min":1,"max":1`), true},
		{between(`"min":1`), between(`"min":0.5`), false},
		{between(`"min":1`), between(`"min":1.5`), true},
		{between(`"max":1`), between(`"max":1.5`), false},
		{between(`"max":1`), between(`"max":0.5`), true},
		{between(`"min":1,"min_inclusive":false`), between(`"min":1`), false},
		{between(`"min":1,"min_inclusive":false`), between(`"min":1,"min_inclusive":false`), true},
		{between(`"min":1`), between(`"min":1,"min_inclusive":false`), true},
		{between(`"max":1,"max_inclusive":false`), between(`"max":1,"max_inclusive":true`), false},
		{between(`"max":1,"max_inclusive":false`), between(`"max":0.9`), true},
		{between(`"min":-0`), between(`"min":0`), true},
		{between(`"min":9007199254740992`), between(`"min":9007199254740994`), true},
		{between(`"min":1,"max":3`), exact(`1`), true},
		{between(`"min":1,"min_inclusive":false`), exact(`1`), false},
		{between(`"max":3,"max_inclusive":false`), exact(`3`), false},
		{between(`"max":3`), exact(`3.0`), true},
		{between(``), exact(`"1"`), false},
		{between(``), exact(`null`), false},

		{clauses("all", exact(`1`)), clauses("all", exact(`1`), exact(`2`)), true},
		{clauses("all", exact(`1`), exact(`2`)), clauses("all", exact(`1`)), false},
		{clauses("all", between(`"min":0`), between(`"max":9`)), clauses("all", between(`"min":1,"max":2`)), true}, // one serves both
		{clauses("any", exact(`1`), exact(`2`)), clauses("any", exact(`2`)), true},
		{clauses("any", exact(`1`)), clauses("any", exact(`1`), exact(`2`)), false},
		{clauses("any", between(`"max":9`)), clauses("any", exact(`1`), exact(`2`)), true},
		{clauses("any", clauses("all", exact(`1`))), clauses("any", clauses("all", exact(`1`), exact(`3`))), true},
		// Sound, and refused all the same.
		{clauses("any", exact(`1`)), exact(`1`), false},
		{clauses("all", exact(`1`)), exact(`1`), false},
		{clauses("all", between(`"max":9`)), between(`"max":9`), false},
		{oneOf(`1,2`), notOneOf(`3`), false},
		{subset(`1`), oneOf(`[1]`), false},
		{exact(`1`), oneOf(`1`), false},
		{exact(`1`), between(`"min":1,"max":1`), false},
		{simple("range", ""), simple("wildcard", ""), false},
	} {
		err := toolsUnder(t, forArgument(c.parent), forArgument(c.child))
		if (err == nil) != c.want {
			t.Errorf("%s over %s: %v", c.parent, c.child, err)
		}
	}
}

// Rules 4p1 to 4p4.
func TestCoversMaps(t *testing.T) {
	five, six, any := simple("exact", `"value":5`), simple("exact", `"value":6`), simple("wildcard", "")
	optional := func(c string) string { return strings.TrimSuffix(c, "}") + `,"optional":true}` }
	required := func(c string) string { return strings.TrimSuffix(c, "}") + `,"optional":false}` }
	m := func(pairs ...string) string {
		var list []string
		for i := 0; i < len(pairs); i += 2 {
			list = append(list, `"`+pairs[i]+`":`+pairs[i+1])
		}
		return "{" + strings.Join(list, ",") + "}"
	}
	for name, c := range map[string]struct {
		parent, child string // maps of the one tool
		want          bool
	}{
		"any over any":                        {`{}`, `{}`, true},
		"{} and the star are the same":        {`{}`, m("*", any), true},
		"the star and {} are the same":        {m("*", any), `{}`, true},
		"named under any":                     {`{}`, m("x", five), true},
		"optional and new under the star":     {m("*", any), m("x", optional(five)), true},
		"any under named":                     {m("x", five), `{}`, false},
		"the star under named":                {m("x", five), m("x", five, "*", any), false},
		"a name more":                         {m("x", five), m("x", five, "y", five), false},
		"a name more under the star":          {m("x", five, "*", any), m("x", five, "y", five), true},
		"both stars":                          {m("x", five, "*", any), m("x", five, "*", any), true},
		"a required name dropped":             {m("x", five, "y", any), m("x", five), false},
		"a required name dropped, star above": {m("x", five, "y", any, "*", any), m("x", five), false},
		"an optional name dropped":            {m("x", five, "y", optional(any)), m("x", five), true},
		"dropped, and let in by the star":     {m("x", five, "y", optional(six), "*", any), m("x", five, "*", any), false},
		"dropped, the star closed":            {m("x", five, "y", optional(six), "*", any), m("x", five), true},
		"required made optional":              {m("x", five), m("x", optional(five)), false},
		"required made optional, said":        {m("x", required(five)), m("x", optional(five)), false},
		"optional made required":              {m("x", optional(five)), m("x", five), true},
		"optional stays":                      {m("x", optional(five)), m("x", optional(five)), true},
		"another value":                       {m("x", five), m("x", six), false},
		"case counts":                         {m("x", five), m("X", five), false},
		"a prototype's name":                  {m("__proto__", five), m("__proto__", five), true},
		"a prototype's name, new":             {m("x", five), m("x", five, "constructor", five), false},
		"the empty name":                      {m("", five), m("", five), true},
	} {
		err := toolsUnder(t, `{"get":`+c.parent+`}`, `{"get":`+c.child+`}`)
		if (err == nil) != c.want {
			t.Errorf("%s: %v", name, err)
		} else if err != nil {
			wantRefusal(t, err, delegation.NotNarrower, delegation.DimensionTools)
		}
	}
	wantRefusal(t, toolsUnder(t, `{"get":{}}`, `{"get":{},"Get":{}}`), delegation.NotNarrower, delegation.DimensionTools)
	wantRefusal(t, toolsUnder(t, `{}`, `{"constructor":{}}`), delegation.NotNarrower, delegation.DimensionTools)
}

func TestAllowsArguments(t *testing.T) {
	exact := func(v string) string { return simple("exact", `"value":`+v) }
	x := forArgument
	for _, c := range []struct {
		tools, arguments string
		want             bool
	}{
		{x(exact(`1`)), `{"x":1}`, true},
		{x(exact(`1`)), `{"x":1.0}`, true},
		{x(exact(`1`)), `{"x":"1"}`, false},
		{x(exact(`1`)), `{"x":true}`, false},
		{x(exact(`null`)), `{"x":null}`, true},
		{x(exact(`null`)), `{}`, false}, // a null argument is a present argument
		{x(exact(`"a"`)), `{"x":"A"}`, false},
		{x(exact(`"é"`)), `{"x":"e\u0301"}`, false},
		{x(simple("one_of", `"values":["a",[1,{"b":2}]]`)), `{"x":[1.0,{"b":2}]}`, true},
		{x(simple("one_of", `"values":["a",[1,2]]`)), `{"x":[2,1]}`, false},
		{x(simple("not_one_of", `"excluded":["a",1]`)), `{"x":"b"}`, true},
		{x(simple("not_one_of", `"excluded":["a",1]`)), `{"x":1.0}`, false},
		{x(simple("not_one_of", `"excluded":["a"]`)), `{"x":["a"]}`, true}, // takes any type
		{x(simple("not_one_of", `"excluded":[]`)), `{"x":null}`, true},
		{x(simple("not_one_of", `"excluded":["a"]`)), `{}`, false},
		{x(simple("contains", `"required":[1,2]`)), `{"x":[3,2,1,1]}`, true},
		{x(simple("contains", `"required":[1,2]`)), `{"x":[1,1]}`, false},
		{x(simple("contains", `"required":[]`)), `{"x":[]}`, true},
		{x(simple("contains", `"required":[]`)), `{"x":{}}`, false},
		{x(simple("contains", `"required":["a"]`)), `{"x":"a"}`, false},
		{x(simple("subset", `"allowed":[1,2]`)), `{"x":[2,2,2]}`, true},
		{x(simple("subset", `"allowed":[1,2]`)), `{"x":[]}`, true},
		{x(simple("subset", `"allowed":[1,2]`)), `{"x":[2,3]}`, false},
		{x(simple("subset", `"allowed":[]`)), `{"x":[]}`, true},
		{x(simple("subset", `"allowed":[]`)), `{"x":[null]}`, false},
		{x(simple("subset", `"allowed":[1]`)), `{"x":1}`, false},
		{x(simple("range", ``)), `{"x":-1e300}`, true},
		{x(simple("range", ``)), `{"x":"1"}`, false},
		{x(simple("range", ``)), `{"x":null}`, false},
		{x(simple("range", `"min":1,"max":3`)), `{"x":1}`, true},
		{x(simple("range", `"min":1,"max":3`)), `{"x":3.0}`, true},
		{x(simple("range", `"min":1,"max":3`)), `{"x":0.9999999999999999}`, false},
		{x(simple("range", `"min":1,"min_inclusive":false`)), `{"x":1}`, false},
		{x(simple("range", `"min":1,"min_inclusive":true`)), `{"x":1}`, true},
		{x(simple("range", `"max":3,"max_inclusive":false`)), `{"x":3}`, false},
		{x(simple("range", `"max":3,"max_inclusive":false`)), `{"x":2.9999999999999996}`, true},
		{x(simple("range", `"min":0`)), `{"x":-0}`, true},
		{x(simple("range", `"max":9007199254740992`)), `{"x":9007199254740994}`, false},
		{x(clauses("all", simple("range", `"min":1`), simple("range", `"max":2`))), `{"x":2}`, true},
		{x(clauses("all", simple("range", `"min":1`), simple("range", `"max":2`))), `{"x":3}`, false},
		{x(clauses("any", exact(`1`), exact(`"a"`))), `{"x":"a"}`, true},
		{x(clauses("any", exact(`1`), exact(`"a"`))), `{"x":"b"}`, false},
		{x(simple("wildcard", ``)), `{"x":{"deep":[1,null]}}`, true},
		{x(simple("wildcard", ``)), `{}`, false},
		{x(simple("wildcard", `"optional":true`)), `{}`, true},
		{x(simple("exact", `"value":1,"optional":true`)), `{}`, true},
		{x(simple("exact", `"value":1,"optional":true`)), `{"x":2}`, false},
		{x(simple("exact", `"value":1,"optional":false`)), `{}`, false},
		{x(exact(`1`)), `{"x":1,"y":1}`, false}, // closed world
		{x(exact(`1`)), `{"x":1,"X":1}`, false},
		{x(exact(`1`)), `{"x":1,"__proto__":1}`, false},
		{`{"get":{"x":` + exact(`1`) + `,"*":` + simple("wildcard", "") + `}}`, `{"x":1,"y":2}`, true},
		{`{"get":{"x":` + exact(`1`) + `,"*":` + simple("wildcard", "") + `}}`, `{"x":2,"y":2}`, false},
		{`{"get":{"*":` + simple("wildcard", "") + `}}`, `{"y":2}`, true},
		{`{"get":{"*":` + simple("wildcard", "") + `}}`, ``, true},
		{`{"get":{}}`, `{"y":2}`, true},
		{`{"get":{}}`, ``, true},
		// An argument that is called * is one that nobody named.
		{x(exact(`1`)), `{"x":1,"*":1}`, false},
		{`{"get":{"*":` + simple("wildcard", "") + `}}`, `{"*":1}`, true},
		// Numbers as they were written, at any nesting, also under a wildcard.
		{`{"get":{}}`, `{"y":9007199254740993}`, false},
		{`{"get":{}}`, `{"y":[{"z":1e400}]}`, false},
		{`{"get":{}}`, `{"y":1.00000000000000001}`, false},
		{`{"get":{}}`, `{"y":9007199254740994}`, true},
		{x(exact(`1`)), `{"x":1.00000000000000001}`, false},
		{`{"get":{}}`, `[]`, false},
		{`{"get":{}}`, `null`, false},
	} {
		err := called(t, c.tools, "get", c.arguments)
		if (err == nil) != c.want {
			t.Errorf("%s with %s: %v", c.tools, c.arguments, err)
		} else if err != nil {
			wantRefusal(t, err, delegation.ConstraintViolated, delegation.DimensionTools)
		}
	}
	// A handler that forgets the arguments gets nothing allowed, not even where
	// no argument is required.
	err := called(t, x(simple("exact", `"value":1,"optional":true`)), "get", "")
	wantRefusal(t, err, delegation.ConstraintViolated, delegation.DimensionTools)
	if !strings.Contains(err.Error(), "unhandled:tools") {
		t.Error(err)
	}
}

// Every link is asked, and the refusal says which one it was.
func TestAllowsArgumentsOfEveryLink(t *testing.T) {
	root := rootToken().with(toolsEntry(`{"get":{"*":{"constraint_type":"wildcard"}}}`))
	first := linkUnder(root, reviewerKey).with(toolsEntry(`{"get":{"n":{"constraint_type":"range","min":1,"max":9}}}`))
	second := linkUnder(first, helperKey).with(toolsEntry(`{"get":{"n":{"constraint_type":"exact","value":5}}}`))
	chain := verified(t, join(root, first, second))
	ask := func(arguments string) error {
		return chain.AllowsTool(delegation.Given(delegation.Call{Name: "get", Arguments: parseValue(t, arguments)}))
	}
	if err := ask(`{"n":5}`); err != nil {
		t.Error(err)
	}
	for arguments, part := range map[string]int{`{"n":4}`: 2, `{"n":10}`: 1, `{"n":5,"m":1}`: 1, `{}`: 1} {
		var refused *delegation.Refusal
		if err := ask(arguments); !errors.As(err, &refused) || refused.Part != part {
			t.Errorf("%s: %v, part %+v", arguments, err, refused)
		}
	}
}

// A caller who parses deeper than tokens go gets a constraint that is too deep
// to be sent, and no panic.
func TestConstraintOfDeepValue(t *testing.T) {
	const depth = jcs.MaxDepth + 10
	v, err := jcs.Parse([]byte(`{"constraint_type":"one_of","values":[`+strings.Repeat("[", depth)+strings.Repeat("]", depth)+`]}`), jcs.Limits{Depth: 2 * depth})
	if err != nil {
		t.Fatal(err)
	}
	c, err := delegation.ParseConstraint(v)
	if err != nil {
		t.Fatal(err)
	}
	if text := c.String(); text != "null" || c.Map() == nil {
		t.Errorf("%s", text)
	}
}
