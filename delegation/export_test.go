package delegation

import "github.com/kavach-dev/kavach/jcs"

// Alone is one link of a verified chain, asked without the others: a law about
// edges would be trivial if every question went to every link.
func (c *Chain) Alone(i int) *Chain { return &Chain{parts: c.parts[i : i+1]} }

// Allows and Covers of a constraint, and Covers and Allows of tools, are what
// an edge is made of. The laws ask them directly, without two signatures for
// every pair.
func (c Constraint) Allows(v jcs.Value) bool { return c.allows(v) }

func (c Constraint) Covers(child Constraint) bool { return c.covers(child) }

func (t Tools) Covers(child Tools) bool { return t.covers(child) }

func (t Tools) Allows(call Call) bool {
	return (&Chain{parts: []part{{tools: t}}}).AllowsTool(Given(call)) == nil
}

// Split is step 0: header, payload and signature of every token, decoded.
func Split(token string) ([][3]string, error) {
	parts, refusal := split(token)
	if refusal != nil {
		return nil, refusal
	}
	var list [][3]string
	for _, p := range parts {
		list = append(list, [3]string{string(p.header), string(p.payload), string(p.signature)})
	}
	return list, nil
}

// Known is how many tokens of a chain the cache knows, and where in the text the
// next one begins.
func (c *Cache) Known(token string) (tokens, behind int) {
	known, behind, _ := c.lookup(token)
	return len(known), behind
}
