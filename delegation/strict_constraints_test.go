package delegation_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/jcs"
)

// toolsOf puts the text of tools into a token.
func toolsOf(t testing.TB, text string) func(*aatToken) {
	return func(x *aatToken) {
		x.claims["authorization_details"] = authority("TOOLS")
		respell(t, `"TOOLS"`, text)(x)
	}
}

// mapOf is the map of the tool that is called, with one constraint.
func mapOf(constraint string) string { return `{"read":{"x":` + constraint + `}}` }

func nestedIn(kind string, depth int) string {
	return strings.Repeat(`{"constraint_type":"`+kind+`","constraints":[`, depth-1) + `{"constraint_type":"wildcard"}` +
		strings.Repeat(`]}`, depth-1)
}

// "Well-formed constraints (3n root, 4o edge; every map of every token, called
// or not)."
func TestStrictWellFormed(t *testing.T) {
	good := []string{
		`{"constraint_type":"exact","value":null}`,
		`{"constraint_type":"exact","value":false}`,
		`{"constraint_type":"one_of","values":[[1,{"a":null}]]}`,
		`{"constraint_type":"not_one_of","excluded":[]}`,
		`{"constraint_type":"contains","required":[]}`,
		`{"constraint_type":"subset","allowed":[{}]}`,
		`{"constraint_type":"range"}`,
		`{"constraint_type":"range","min":1,"max":1.0,"min_inclusive":false,"max_inclusive":false}`,
		`{"constraint_type":"wildcard","optional":false}`,
		`{"constraint_type":"wildcard","optional":true}`,
		nestedIn("all", 32), nestedIn("any", 32),
	}
	bad := []string{
		`{}`, `{"constraint_type":7}`, `{"constraint_type":"regex","pattern":".*"}`, `{"constraint_type":"Exact","value":1}`,
		`7`, `null`, `[]`, `"wildcard"`,
		`{"constraint_type":"exact"}`, `{"constraint_type":"exact","value":[]}`, `{"constraint_type":"exact","value":{}}`,
		`{"constraint_type":"exact","value":1,"note":""}`,
		`{"constraint_type":"one_of","values":[]}`, `{"constraint_type":"one_of","values":"a"}`, `{"constraint_type":"one_of"}`,
		`{"constraint_type":"not_one_of","excluded":{}}`, `{"constraint_type":"not_one_of"}`,
		`{"constraint_type":"contains","required":null}`, `{"constraint_type":"contains","allowed":[]}`,
		`{"constraint_type":"subset","allowed":1}`, `{"constraint_type":"subset","required":[]}`,
		`{"constraint_type":"range","min":2,"max":1}`, `{"constraint_type":"range","min":"1"}`, `{"constraint_type":"range","max":null}`,
		`{"constraint_type":"range","min_inclusive":true}`, `{"constraint_type":"range","min":1,"max_inclusive":true}`,
		`{"constraint_type":"range","min":1,"min_inclusive":0}`, `{"constraint_type":"range","value":1}`,
		`{"constraint_type":"range","min":1e400}`,
		`{"constraint_type":"wildcard","value":1}`, `{"constraint_type":"wildcard","optional":1}`, `{"constraint_type":"wildcard","optional":null}`,
		`{"constraint_type":"all","constraints":[]}`, `{"constraint_type":"any","constraints":[]}`, `{"constraint_type":"all"}`,
		`{"constraint_type":"any","constraints":{"constraint_type":"wildcard"}}`, `{"constraint_type":"all","constraints":[7]}`,
		// "On a clause … the member must be absent, even `false`."
		`{"constraint_type":"all","constraints":[{"constraint_type":"wildcard","optional":false}]}`,
		`{"constraint_type":"any","constraints":[{"constraint_type":"wildcard","optional":true}]}`,
		`{"constraint_type":"any","constraints":[{"constraint_type":"wildcard"},{"constraint_type":"regex"}]}`,
		nestedIn("all", 33), nestedIn("any", 33), nestedIn("all", 400),
	}
	star := []string{
		`{"constraint_type":"wildcard","optional":false}`, `{"constraint_type":"wildcard","optional":true}`,
		`{"constraint_type":"exact","value":1}`, `{"constraint_type":"all","constraints":[{"constraint_type":"wildcard"}]}`, `{}`, `null`,
	}
	verify := func(token int, tools, want string) {
		t.Helper()
		c := newAAT(t, 1)
		c.args = `{}`
		c.tools = object{"read": object{}, "other": object{}}
		c.edit[token] = toolsOf(t, tools)
		if token == 0 { // the child is what it may be below anything
			c.edit[1] = toolsOf(t, `{"read":`+tools[len(`{"read":`):])
		}
		if got := c.verify(); (got == "3n/4o") != (want == "3n/4o") {
			t.Errorf("token %d with %s: step %q", token, tools, got)
		}
	}
	for token := range 2 {
		for _, text := range good {
			verify(token, mapOf(text), "")
		}
		for _, text := range bad {
			verify(token, mapOf(text), "3n/4o")
			// "Called or not."
			verify(token, `{"read":{},"other":{"x":`+text+`}}`, "3n/4o")
		}
		for _, text := range star {
			verify(token, `{"read":{"*":`+text+`}}`, "3n/4o")
		}
	}
}

// "256 tools, 64 constraints a tool."
func TestStrictCounts(t *testing.T) {
	many := func(n int, value string) string {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf(`"%d":%s`, i, value)
		}
		return strings.Join(list, ",")
	}
	optional := `{"constraint_type":"wildcard","optional":true}`
	for _, n := range []struct {
		tools string
		step  string
	}{
		{`{"read":{},` + many(255, `{}`) + `}`, ""},
		{`{"read":{},` + many(256, `{}`) + `}`, "3n/4o"},
		{`{"read":{"path":` + optional + `,` + many(63, optional) + `}}`, ""},
		{`{"read":{"path":` + optional + `,` + many(64, optional) + `}}`, "3n/4o"},
	} {
		c := newAAT(t, 0)
		c.edit[0] = toolsOf(t, n.tools)
		if got := c.verify(); got != n.step {
			t.Errorf("%.60s…: step %q, not %q", n.tools, got, n.step)
		}
	}
}

// 6b: the closed world, nulls, names outside ASCII, an argument called "*".
func TestStrictClosedWorld(t *testing.T) {
	for _, c := range []struct{ tools, tool, args, step string }{
		{`{"read":{}}`, "read", `{}`, ""},
		{`{"read":{}}`, "read", `{"anything":null}`, ""},
		{`{"read":{}}`, "Read", `{}`, "6b"},
		{`{"read":{}}`, "read ", `{}`, "6b"},
		{`{"read":{}}`, "toString", `{}`, "6b"},
		{`{"":{}}`, "", `{}`, "7c"}, // a tool without a name cannot be proved
		{`{"read":{"x":{"constraint_type":"wildcard"}}}`, "read", `{}`, "6b"},
		// "A null argument is a present argument."
		{`{"read":{"x":{"constraint_type":"wildcard"}}}`, "read", `{"x":null}`, ""},
		{`{"read":{"x":{"constraint_type":"exact","value":null}}}`, "read", `{"x":null}`, ""},
		{`{"read":{"x":{"constraint_type":"exact","value":null,"optional":true}}}`, "read", `{"x":false}`, "6b"},
		{`{"read":{"x":{"constraint_type":"exact","value":null,"optional":true}}}`, "read", `{}`, ""},
		{`{"read":{"x":{"constraint_type":"wildcard"}}}`, "read", `{"x":1,"y":2}`, "6b"},
		{`{"read":{"x":{"constraint_type":"wildcard"}}}`, "read", `{"X":1}`, "6b"},
		// "An argument literally called `*` is an unnamed argument."
		{`{"read":{"*":{"constraint_type":"wildcard"}}}`, "read", `{"*":1}`, ""},
		{`{"read":{"x":{"constraint_type":"wildcard"}}}`, "read", `{"x":1,"*":1}`, "6b"},
		{`{"read":{"x":{"constraint_type":"wildcard"},"*":{"constraint_type":"wildcard"}}}`, "read", `{"*":1}`, "6b"},
		{`{"read":{"x":{"constraint_type":"exact","value":1},"*":{"constraint_type":"wildcard"}}}`, "read", `{"x":2}`, "6b"},
		// Bytes, no normal form: é is one code point here and two there.
		{`{"l\u00e9s":{"\u00e9":{"constraint_type":"exact","value":"\u00e9"}}}`, "l\u00e9s", `{"é":"\u00e9"}`, ""},
		{`{"l\u00e9s":{}}`, "le\u0301s", `{}`, "6b"},
		{`{"read":{"\u00e9":{"constraint_type":"wildcard"}}}`, "read", `{"e\u0301":1}`, "6b"},
		{`{"read":{"x":{"constraint_type":"exact","value":"\u00e9"}}}`, "read", `{"x":"e\u0301"}`, "6b"},
		{`{"https://tools.example/\ud83d\ude00":{}}`, "https://tools.example/😀", `{}`, ""},
		{`{"read":{"__proto__":{"constraint_type":"exact","value":1}}}`, "read", `{"__proto__":1}`, ""},
		{`{"read":{"x":{"constraint_type":"contains","required":[]}}}`, "read", `{"x":[]}`, ""},
		{`{"read":{"x":{"constraint_type":"contains","required":[]}}}`, "read", `{"x":"a"}`, "6b"},
		{`{"read":{"x":{"constraint_type":"contains","required":[1,2]}}}`, "read", `{"x":[2,3,1.0,2]}`, ""},
		{`{"read":{"x":{"constraint_type":"subset","allowed":[]}}}`, "read", `{"x":[]}`, ""},
		{`{"read":{"x":{"constraint_type":"subset","allowed":[]}}}`, "read", `{"x":[null]}`, "6b"},
		{`{"read":{"x":{"constraint_type":"subset","allowed":[1]}}}`, "read", `{"x":{"0":1}}`, "6b"},
		{`{"read":{"x":{"constraint_type":"not_one_of","excluded":["a"]}}}`, "read", `{"x":["a"]}`, ""},
		{`{"read":{"x":{"constraint_type":"one_of","values":[{"b":1,"a":2}]}}}`, "read", `{"x":{"a":2,"b":1.0}}`, ""},
		{`{"read":{"x":{"constraint_type":"range"}}}`, "read", `{"x":1}`, ""},
		{`{"read":{"x":{"constraint_type":"range"}}}`, "read", `{"x":"1"}`, "6b"},
	} {
		a := newAAT(t, 0)
		a.edit[0], a.tool, a.args = toolsOf(t, c.tools), c.tool, c.args
		if got := a.verify(); got != c.step {
			t.Errorf("%s called as %q %s: step %q, not %q", c.tools, c.tool, c.args, got, c.step)
		}
	}
	// Arguments that are no object are none.
	a := newAAT(t, 0)
	p := a.build()
	p.Arguments = jsonText(`["/a"]`)
	if step := stepOf(strictError(a.verifier.Verify(p, time.Unix(aatNow, 0)))); step != "6b" {
		t.Errorf("arguments in a list: step %q", step)
	}
	p.Arguments = jcs.Value{}
	if step := stepOf(strictError(a.verifier.Verify(p, time.Unix(aatNow, 0)))); step != "6b" {
		t.Errorf("without the argument: step %q", step)
	}
}

// "Every (parent, child) pair of types": what the table does not have is
// refused, also where it would be sound.
func TestStrictPairs(t *testing.T) {
	one := map[string]string{
		"exact":      `{"constraint_type":"exact","value":5}`,
		"one_of":     `{"constraint_type":"one_of","values":[5]}`,
		"not_one_of": `{"constraint_type":"not_one_of","excluded":[6]}`,
		"contains":   `{"constraint_type":"contains","required":[5]}`,
		"subset":     `{"constraint_type":"subset","allowed":[5]}`,
		"range":      `{"constraint_type":"range","min":5,"max":5}`,
		"all":        `{"constraint_type":"all","constraints":[{"constraint_type":"exact","value":5}]}`,
		"any":        `{"constraint_type":"any","constraints":[{"constraint_type":"exact","value":5}]}`,
		"wildcard":   `{"constraint_type":"wildcard"}`,
	}
	pairs := 0
	for parent, above := range one {
		for child, below := range one {
			want := "4p4"
			if parent == child || parent == "wildcard" || child == "exact" && (parent == "range" || parent == "one_of") {
				want = ""
			}
			c := newAAT(t, 1)
			c.args = `{"x":5}`
			c.edit[0], c.edit[1] = toolsOf(t, mapOf(above)), toolsOf(t, mapOf(below))
			got := c.verify()
			if got == "6b" { // the value is no array: the edge was taken
				got = ""
			}
			if got != want {
				t.Errorf("%s under %s: step %q, not %q", child, parent, got, want)
			}
			pairs++
		}
	}
	if pairs != 81 {
		t.Errorf("%d pairs", pairs)
	}
}
