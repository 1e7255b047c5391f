package delegation_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/kavach-dev/kavach/delegation"
)

// TestChainsStandAlone: what Verify and Derive return is its own, whatever is
// read after it or beside it.
func TestChainsStandAlone(t *testing.T) {
	v := verifier(t)
	token := func(n int) string {
		chain, key := rootToken().with(object{
			"del_max_depth": 8, "jti": fmt.Sprint("jti-", n), "authorization_details": []any{
				object{"type": "attenuating_agent_token", "tools": object{
					fmt.Sprint("tool-", n): object{fmt.Sprint("argument-", n): object{"constraint_type": "exact", "value": fmt.Sprint("value-", n)}},
				}},
				object{"type": "kavach_limits", "resources": []any{fmt.Sprint("resource/", n)}},
			},
		}).String(), orchKey
		for i := range n {
			next := ed(fmt.Sprint("alone ", n, " ", i))
			derived, err := delegation.Derive(chain, key.private(), next.public(), delegation.Narrow{ClientID: fmt.Sprint("agent-", i)}, now)
			if err != nil {
				t.Error(err)
				return chain
			}
			chain, key = derived.Chain, next
		}
		return chain
	}
	seen := func(c *delegation.Chain) string {
		text := fmt.Sprint(c.Principal(), c.Path(), c.Audience(), c.JTI(), c.Revocable())
		for _, l := range c.Links() {
			text += fmt.Sprint(l.LID, l.JTI, l.ClientID, l.JKT, l.Scopes, l.Limits.Map(), l.Tools.Map())
		}
		return text
	}
	var all sync.WaitGroup
	for n := range 8 {
		all.Go(func() {
			mine := token(n)
			chain, err := v.Verify(mine, now)
			if err != nil {
				t.Error(err)
				return
			}
			before := seen(chain)
			for i := range 50 {
				if _, err := v.Verify(token((n+i)%8), now); err != nil {
					t.Error(err)
				}
			}
			if after := seen(chain); after != before {
				t.Errorf("%s\nbecame\n%s", before, after)
			}
		})
	}
	all.Wait()
}
