package delegation

// Alone is one link of a verified chain, asked without the others: a law about
// edges would be trivial if every question went to every link.
func (c *Chain) Alone(i int) *Chain { return &Chain{parts: c.parts[i : i+1]} }
