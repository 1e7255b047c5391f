package delegation

import "time"

// CounterGrace is how long after the end of a link its budget is still
// remembered. A request that was verified in the link's last moment, or by a
// clock that is a little behind, must find it: forgotten, it would be whole
// again.
const CounterGrace = time.Minute

// Budget is the max_calls of one link: how many calls it may pay for, itself and
// everything below it.
type Budget struct {
	// LID identifies the link, and nothing else does: a jti is chosen by
	// whoever signs, and would let one link spend what another has.
	LID string
	// Grant is the gid of the chain, for who gives every grant its share of a
	// store: an agent may get any number of roots from one.
	Grant string
	// Limit is the number of calls, at least 1.
	Limit int64
	// Until is when the link ends. The budget is remembered until CounterGrace
	// after that.
	Until time.Time
}

// Budgets lists the links that carry max_calls, root first. Whoever acts on a
// request debits every one of them before, all or none (delegation.md §5: "every
// link that carries it is debited, keyed by `lid`"): the budget of a link bounds
// everything below it, however many children share it.
func (c *Chain) Budgets() []Budget {
	if c.empty() {
		return nil
	}
	var budgets []Budget
	for i := range c.parts {
		p := &c.parts[i]
		if n := p.limits.MaxCalls; n != nil {
			budgets = append(budgets, Budget{LID: p.lid, Grant: c.GrantID(), Limit: *n, Until: time.Unix(p.exp, 0)})
		}
	}
	return budgets
}

// AllowsBudgeted is Allows for who debits Budgets before acting: it does not
// refuse with needs_counter.
func (c *Chain) AllowsBudgeted(r Request) error {
	for _, check := range []func() error{
		func() error { return c.AllowsScope(r.Scope) },
		func() error { return c.AllowsTool(r.Tool) },
		func() error { return c.AllowsResource(r.Resource) },
		func() error { return c.AllowsNetwork(r.Network) },
		func() error { return c.AllowsSize(r.Size) },
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}
