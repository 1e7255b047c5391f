package delegation_test

import (
	"testing"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// FuzzConstraint reads any JSON as the tools of a token: nothing panics, every
// failure is a refusal of a fixed reason, and what is read is written, read
// again and is the same. What allows a call still does when it went through the
// wire.
func FuzzConstraint(f *testing.F) {
	call := `{"x":[1,"a",{"b":null}],"y":2.5}`
	for _, constraint := range []string{
		simple("exact", `"value":1.0`), simple("one_of", `"values":["a",{"b":1},[2]]`), simple("not_one_of", `"excluded":[]`),
		simple("contains", `"required":[1],"optional":true`), simple("subset", `"allowed":[1,"a",{"b":null}]`),
		simple("range", `"min":-0,"max":1e20,"max_inclusive":false`), simple("wildcard", ""), simple("regex", `"pattern":"."`),
		clauses("all", clauses("any", simple("range", ""), simple("exact", `"value":"\u00e9"`))),
		simple("exact", `"value":9007199254740993`), `{}`, `null`,
	} {
		f.Add([]byte(forArgument(constraint)), []byte(call))
	}
	f.Add([]byte(`{"get":{"*":{"constraint_type":"wildcard"},"x":{"constraint_type":"wildcard","optional":true}},"":{}}`), []byte(`{"*":1}`))
	f.Fuzz(func(t *testing.T, text, arguments []byte) {
		wire, err := jcs.Parse(text, jcs.Limits{})
		if err != nil {
			return
		}
		tools, err := delegation.ParseTools(wire)
		if err != nil {
			if reason := delegation.ReasonOf(err); tools != nil || reason != delegation.Malformed && reason != delegation.UnknownConstraint {
				t.Fatalf("%s: %v, %v", text, tools, err)
			}
			return
		}
		written, err := jcs.Of(tools.Map())
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		again, err := delegation.ParseTools(written)
		if err != nil {
			t.Fatalf("%s is not read again: %v", jcs.Canonical(written), err)
		}
		if twice, err := jcs.Marshal(again.Map()); err != nil || string(twice) != string(jcs.Canonical(written)) {
			t.Fatalf("%s became %s, %v", jcs.Canonical(written), twice, err)
		}
		// A map covers itself: whoever hands on all that it has can do so.
		if !tools.Covers(again) || !again.Covers(tools) {
			t.Fatalf("%s does not cover itself", jcs.Canonical(written))
		}
		given, err := jcs.Parse(arguments, jcs.Limits{})
		if err != nil {
			return
		}
		for name := range tools {
			c := delegation.Call{Name: name, Arguments: given}
			if before, after := tools.Allows(c), again.Allows(c); before != after {
				t.Fatalf("%s with %s: %v, written %v", text, arguments, before, after)
			}
		}
	})
}
