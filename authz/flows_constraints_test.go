package authz_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"testing"

	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// What a tool may be called with goes through an exchange, a handle and an
// introspection as it was said, and only gets narrower.
func TestExchangeWithArgumentConstraints(t *testing.T) {
	f := newFlows(t)
	orch := f.program(f.alice, "orchestrator", []string{"repo:read"}, "read", "delegate")
	rev := f.program(f.alice, "code-reviewer", []string{"repo:read"}, "read", "delegate")
	mine, theirs := holder(t), holder(t)
	root := orch.signIn(mine, url.Values{"resource": {git}})
	entry := func(tools string) string {
		return `[{"type":"attenuating_agent_token","tools":` + tools + `}]`
	}
	pulls := `{"diff":{"pull":{"constraint_type":"range","max":900,"min":800},"*":{"constraint_type":"wildcard"}},"list":{}}`
	first, c := f.exchanged(orch.by(exchangeForm(root, url.Values{
		"actor_token": {rev.card(theirs.Public())}, "actor_token_type": {authz.TokenTypeAgentKey}, "resource": {git},
		"authorization_details": {entry(pulls)},
	}), mine))
	call := func(c *delegation.Chain, tool, arguments string) error {
		v, err := jcs.Parse([]byte(arguments), jcs.Limits{})
		must(t, err)
		return c.AllowsTool(delegation.Given(delegation.Call{Name: tool, Arguments: v}))
	}
	if err := call(c, "diff", `{"pull":847,"format":"patch"}`); err != nil {
		t.Error(err)
	}
	if err := call(c, "diff", `{"pull":901}`); delegation.ReasonOf(err) != delegation.ConstraintViolated {
		t.Error(err)
	}
	var granted []map[string]any
	text, err := json.Marshal(first.body["authorization_details"])
	must(t, err)
	must(t, json.Unmarshal(text, &granted))
	if said, _ := jcs.Marshal(granted[0]["tools"]); string(said) != canonical(t, pulls) {
		t.Errorf("granted %s", said)
	}

	token := first.str("access_token")
	narrowed := func(tools string) request {
		return rev.by(exchangeForm(token, url.Values{"authorization_details": {entry(tools)}}), theirs)
	}
	a, c := f.exchanged(narrowed(`{"diff":{"pull":{"constraint_type":"exact","value":847}}}`))
	if err := call(c, "diff", `{"pull":847}`); err != nil {
		t.Error(err)
	}
	for _, arguments := range []string{`{"pull":848}`, `{"pull":847,"format":"patch"}`, `{}`} {
		if err := call(c, "diff", arguments); delegation.ReasonOf(err) != delegation.ConstraintViolated {
			t.Errorf("%s: %v", arguments, err)
		}
	}
	if err := call(c, "list", `{}`); delegation.ReasonOf(err) != delegation.ConstraintViolated {
		t.Error(err)
	}
	if fmt.Sprint(a.body["authorization_details"]) == fmt.Sprint(first.body["authorization_details"]) {
		t.Error("the answer says what was there before")
	}

	for name, tools := range map[string]string{
		"any arguments":              `{"diff":{}}`,
		"a wider range":              `{"diff":{"pull":{"constraint_type":"range","min":800,"max":901}}}`,
		"the range without an end":   `{"diff":{"pull":{"constraint_type":"range","min":800}}}`,
		"the argument left out":      `{"diff":{"*":{"constraint_type":"wildcard"}}}`,
		"the argument optional":      `{"diff":{"pull":{"constraint_type":"exact","value":847,"optional":true}}}`,
		"another tool":               `{"merge":{}}`,
		"an unknown type":            `{"diff":{"pull":{"constraint_type":"pattern","value":"8*"}}}`,
		"an unknown member":          `{"diff":{"pull":{"constraint_type":"exact","value":847,"note":""}}}`,
		"a number that is not exact": `{"diff":{"pull":{"constraint_type":"exact","value":847.00000000000000001}}}`,
	} {
		if a := f.do(narrowed(tools)); a.status != http.StatusBadRequest || a.str("error") != "invalid_authorization_details" {
			t.Errorf("%s: %v %v", name, a, a.body)
		}
	}

	// A handle stands for the same.
	a = f.do(orch.by(exchangeForm(root, url.Values{
		"requested_token_type": {authz.TokenTypeHandle}, "agent": {rev.id}, "resource": {git}, "authorization_details": {entry(pulls)},
	}), mine))
	if a.status != http.StatusOK {
		t.Fatal(a.body)
	}
	_, c = f.exchanged(rev.by(exchangeForm(a.str("access_token"), url.Values{"subject_token_type": {authz.TokenTypeHandle}}), theirs))
	if err := call(c, "diff", `{"pull":847}`); err != nil {
		t.Error(err)
	}
	if err := call(c, "diff", `{"pull":7}`); delegation.ReasonOf(err) != delegation.ConstraintViolated {
		t.Error(err)
	}

	// A budget is for one resource, and what has one is handed on no further.
	budget := `[{"type":"kavach_limits","max_calls":3}]`
	_, c = f.exchanged(orch.by(exchangeForm(root, url.Values{
		"actor_token": {rev.card(holder(t).Public())}, "actor_token_type": {authz.TokenTypeAgentKey}, "resource": {git}, "authorization_details": {budget},
	}), mine))
	if calls := c.Limits().MaxCalls; calls == nil || *calls != 3 {
		t.Errorf("%+v", c.Limits())
	}
}

func canonical(t *testing.T, text string) string {
	t.Helper()
	data, err := jcs.Transform([]byte(text))
	must(t, err)
	return string(data)
}
