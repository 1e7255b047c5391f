package delegation

import "slices"

// covers is the table of subsumption of aat02.md: whatever the child allows,
// the parent allows. It knows no more than the table: "everything else is
// refused, also where it would be sound". Whether either is optional does not
// count here.
//
// A pair of clauses is only compared while the pair above it is, and that is
// one pair, so the work is at most the product of the two trees.
func (c Constraint) covers(child Constraint) bool {
	return c.node != nil && child.node != nil && c.node.covers(child.node)
}

func (n *node) covers(child *node) bool {
	switch {
	case child.kind == broken:
		return false
	case n.kind == wildcard:
		return true
	case n.kind == inRange && child.kind == exact:
		// "a number that the parent's check accepts"
		return child.min.set && n.holds(child.min.value)
	case n.kind == oneOf && child.kind == exact:
		return member(child.values[0], n.values)
	case n.kind != child.kind:
		return false
	}
	switch n.kind {
	case exact:
		return n.values[0] == child.values[0]
	case oneOf, subsetOf:
		return within(child.values, n.values)
	case notOneOf, contains:
		return within(n.values, child.values)
	case inRange:
		return n.min.covers(child.min, 1) && n.max.covers(child.max, -1)
	case allOf:
		// "each parent clause covers at least one child clause (one child
		// clause may serve several)"
		for _, clause := range n.clauses {
			if !slices.ContainsFunc(child.clauses, clause.covers) {
				return false
			}
		}
		return true
	case anyOf:
		// "each child clause covered by at least one parent clause"
		for _, clause := range child.clauses {
			if !slices.ContainsFunc(n.clauses, func(parent *node) bool { return parent.covers(clause) }) {
				return false
			}
		}
		return true
	}
	return false
}

// covers compares one side of two ranges: "parent bound absent, or child bound
// present and at least as tight; at equal bounds an exclusive parent needs an
// exclusive child". sign is 1 for min, −1 for max.
func (b bound) covers(child bound, sign float64) bool {
	switch {
	case !b.set:
		return true
	case !child.set:
		return false
	case child.value == b.value:
		return child.exclusive || !b.exclusive
	}
	return sign*child.value > sign*b.value
}
