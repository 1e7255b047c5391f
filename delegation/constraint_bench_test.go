package delegation_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/delegation"
)

// worstTrees are constraints that cost the most to compare and to check for the
// bytes they take, each of n clauses. In every one the clause that is looked
// for comes last: both lists run in the same order and only the last of the
// parent's fits, or only the last of the child's.
var worstTrees = map[string]func(n int) delegation.Constraint{
	"none": func(int) delegation.Constraint { return delegation.Wildcard() },
	// Each of the parent's clauses looks through the child's.
	"all": func(n int) delegation.Constraint {
		return inGroups(n, delegation.All, func(i int) delegation.Constraint { return delegation.NotOneOf(i) })
	},
	// Each of the child's looks through the parent's.
	"any": func(n int) delegation.Constraint {
		return inGroups(n, delegation.Any, func(i int) delegation.Constraint { return delegation.Exact(i) })
	},
	// Sets that differ in their last member alone.
	"sets": func(n int) delegation.Constraint {
		return inGroups(n/8, delegation.Any, func(i int) delegation.Constraint {
			var values []any
			for j := range 32 {
				values = append(values, strings.Repeat("a", 4)+fmt.Sprintf("%02d", j))
			}
			return delegation.Subset(append(values, fmt.Sprintf("b%d", i))...)
		})
	},
	// One group in each of 31 levels.
	"deep": func(n int) delegation.Constraint {
		c := delegation.Any(delegation.Exact("x"))
		for i := range min(n/2, 30) {
			c = delegation.Any(delegation.Exact(i), delegation.Exact(-i), c)
		}
		return c
	},
}

// inGroups spreads n clauses over groups of 64, which is how many an array may
// have.
func inGroups(n int, group func(...delegation.Constraint) delegation.Constraint, clause func(int) delegation.Constraint) delegation.Constraint {
	var groups, list []delegation.Constraint
	for i := range max(n, 1) {
		if list = append(list, clause(i)); len(list) == 64 {
			groups, list = append(groups, group(list...)), nil
		}
	}
	if len(list) > 0 {
		groups = append(groups, group(list...))
	}
	return group(groups...)
}

// worstChain is nine tokens with the largest tree of a kind that fits into
// 57,344 bytes.
func worstChain(t testing.TB, tree func(n int) delegation.Constraint) (chain string) {
	t.Helper()
	build := func(n int) (string, bool) {
		tools := delegation.Tools{"get": delegation.Args(map[string]delegation.Constraint{"x": tree(n)})}
		root := rootToken().with(object{"del_max_depth": 8, "authorization_details": []any{
			object{"type": "attenuating_agent_token", "tools": tools.Map()},
		}})
		chain, key := root.String(), orchKey
		for i := range delegation.MaxLinks - 1 {
			next := ed(fmt.Sprintf("worst %d", i))
			derived, err := delegation.Derive(chain, key.private(), next.public(), delegation.Narrow{ClientID: reviewer, Tools: tools}, now)
			if err != nil {
				if delegation.ReasonOf(err) != delegation.TooLarge {
					t.Fatal(err)
				}
				return "", false
			}
			chain, key = derived.Chain, next
		}
		return chain, len(root.String()) <= delegation.MaxToken
	}
	for n := 8; n <= 256; n += 8 {
		longer, fits := build(n)
		if !fits {
			break
		}
		chain = longer
	}
	return chain
}

// BenchmarkWorstConstraints verifies nine links with the largest constraint
// trees that fit and asks them about a call: "worst legal constraint tree over 8
// edges: bounded" (delegation.md §11). none is the same chain without a tree,
// which the others are to be compared with.
func BenchmarkWorstConstraints(b *testing.B) {
	elements := make([]string, 20000)
	for i := range elements {
		elements[i] = fmt.Sprintf("%q", fmt.Sprint("a", i))
	}
	// A large array: what is costly to know of it is found out once.
	large := parseValue(b, `{"x":[`+strings.Join(elements, ",")+`]}`)
	for _, name := range []string{"none", "all", "any", "sets", "deep"} {
		token := worstChain(b, worstTrees[name])
		v := verifier(b)
		b.Run("tree="+name+"/verify", func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(token)))
			for b.Loop() {
				if _, err := v.Verify(token, now); err != nil {
					b.Fatal(err)
				}
			}
		})
		chain := verified(b, token)
		for _, call := range []struct {
			name string
			with delegation.Call
		}{{"small", delegation.Call{Name: "get", Arguments: parseValue(b, `{"x":"x"}`)}}, {"large", delegation.Call{Name: "get", Arguments: large}}} {
			b.Run("tree="+name+"/call="+call.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					_ = chain.AllowsTool(delegation.Given(call.with))
				}
			})
		}
	}
}
