package delegation_test

import (
	"encoding/json"
	"testing"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
	"pgregory.net/rapid"
)

// Subsumption against brute force: two constraints, or two maps of arguments,
// and every value near to what either of them names.

// jcsOf is what the package reads of something in wire form.
func jcsOf(wire any) jcs.Value {
	data, err := json.Marshal(wire)
	if err != nil {
		panic(err)
	}
	v, err := jcs.Parse(data, jcs.Limits{})
	if err != nil {
		panic(err)
	}
	return v
}

// reason of a reading.
var readings = map[reading]delegation.Reason{fine: "", malformed: delegation.Malformed, unknownType: delegation.UnknownConstraint}

func agree(what string, wire any, r reading, err error) {
	if delegation.ReasonOf(err) != readings[r] {
		broken("the oracle reads the same", "%s %s: %v, want %q", what, jcs.Canonical(jcsOf(wire)), err, readings[r])
	}
}

// pair is one parent and one child of constraints.
func (f *forest) pair() {
	r := f.r
	p := someRule(r, 3)
	c := near(r, p, 3)
	parent, first := ruleOf(p, true, false)
	child, second := ruleOf(c, true, false)
	read, err := delegation.ParseConstraint(jcsOf(p))
	agree("constraint", p, first, err)
	below, err := delegation.ParseConstraint(jcsOf(c))
	agree("constraint", c, second, err)
	if first != fine || second != fine {
		f.saw("pair/not read")
		return
	}
	covers := parent.covers(child)
	if read.Covers(below) != covers {
		broken("the table of subsumption", "%s covers %s: %v, want %v", read, below, !covers, covers)
	}
	f.sawPair(parent, child, covers)
	again, err := delegation.ParseConstraint(jcsOf(read.Map()))
	if err != nil || again.String() != read.String() {
		broken("written and read again it is the same", "%s becomes %s, %v", read, again, err)
	}
	for _, v := range probes(parent, child) {
		v, r := plain(v)
		if r != fine {
			continue
		}
		arg := jcsOf(v)
		above, inside := parent.takes(v), child.takes(v)
		if read.Allows(arg) != above || again.Allows(arg) != above || below.Allows(arg) != inside {
			broken("the check of the oracle", "%s allows %s: %v and after writing %v, want %v; %s: %v, want %v", read, jcs.Canonical(arg),
				read.Allows(arg), again.Allows(arg), above, below, below.Allows(arg), inside)
		}
		if covers && inside && !above {
			broken("what a child permits, its parent permits", "%s covers %s, which allows %s", read, below, jcs.Canonical(arg))
		}
	}
}

func (f *forest) sawPair(parent, child rule, covers bool) {
	verdict := " refused"
	if covers {
		verdict = " covered"
	}
	f.saw("pair/" + parent.kind + " " + child.kind + verdict)
}

// toolPair is one parent and one child of what tools say of their arguments.
func (f *forest) toolPair() {
	r := f.r
	p := object{}
	for _, name := range someTools[:1+r.IntN(2)] {
		p[name] = someWorld(r)
	}
	c := nearTools(r, p)
	parent, first := worldsOf(p)
	child, second := worldsOf(c)
	read, err := delegation.ParseTools(jcsOf(p))
	agree("tools", p, first, err)
	below, err := delegation.ParseTools(jcsOf(c))
	agree("tools", c, second, err)
	if first != fine || second != fine {
		return
	}
	covers := parent.covers(child)
	if read.Covers(below) != covers {
		broken("the rules 4p1 to 4p4", "%s covers %s: %v, want %v", jcs.Canonical(jcsOf(p)), jcs.Canonical(jcsOf(c)), !covers, covers)
	}
	f.saw(map[bool]string{true: "pair/tools covered", false: "pair/tools refused"}[covers])
	for range 6 {
		w := wish{tool: pick(r, someTools[:2])}
		w.call(r, child[w.tool], parent[w.tool])
		call := delegation.Call{Name: w.tool, Arguments: jcsOf(w.arguments)}
		above, inside := takes(parent, w), takes(child, w)
		if read.Allows(call) != above && len(read) > 0 || below.Allows(call) != inside && len(below) > 0 {
			broken("the closed world of the oracle", "%s%s: %s allows it %v, want %v; %s %v, want %v", w.tool, jcs.Canonical(call.Arguments),
				jcs.Canonical(jcsOf(p)), read.Allows(call), above, jcs.Canonical(jcsOf(c)), below.Allows(call), inside)
		}
		if covers && inside && !above {
			broken("what a child permits, its parent permits", "%s%s", w.tool, jcs.Canonical(call.Arguments))
		}
		f.saw(map[bool]string{true: "call/permitted", false: "call/refused"}[inside])
	}
}

func takes(t worlds, w wish) bool {
	world, known := t[w.tool]
	return known && !w.inadmissible && world.takes(w.plain)
}

// TestLawSubsumption shrinks; TestLawsLong has the numbers.
func TestLawSubsumption(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		f := newForest(drawn{rt})
		if err := f.guarded(func() {
			for range 5 {
				f.pair()
				f.toolPair()
			}
		}); err != nil {
			rt.Fatal(err)
		}
	})
}
