package delegation_test

import (
	"encoding/json"
	"testing"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
)

// What Details writes ParseDetails reads, and nothing looser.
func TestParseDetails(t *testing.T) {
	max, yes := int64(5), true
	for name, c := range map[string]struct {
		tools  delegation.Tools
		limits delegation.Limits
	}{
		"nothing":   {},
		"no tool":   {tools: delegation.Tools{}},
		"tools":     {tools: delegation.Tools{"get": delegation.AllowAnyArgs}},
		"limits":    {limits: delegation.Limits{Resources: []string{}, MaxFileSize: &max}},
		"all of it": {delegation.Tools{"get": delegation.AllowAnyArgs}, delegation.Limits{AllowNetwork: []string{"git.internal"}, AuditRequired: &yes}},
	} {
		list := delegation.Details(c.tools, c.limits)
		if list == nil {
			list = []any{}
		}
		text, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		tools, limits, err := delegation.ParseDetails(text)
		if err != nil || (tools == nil) != (c.tools == nil) || len(tools) != len(c.tools) || (limits.Resources == nil) != (c.limits.Resources == nil) ||
			len(limits.Map()) != len(c.limits.Map()) {
			t.Errorf("%s: %s read as %v %+v, %v", name, text, tools, limits, err)
		}
	}
	for _, bad := range []string{
		``, `{}`, `null`, `[null]`, `[7]`, `[{}]`, `[{"type":"x"}]`, `[{"type":"kavach_limits"},{"type":"kavach_limits"}]`,
		`[{"type":"attenuating_agent_token"}]`, `[{"type":"attenuating_agent_token","tools":{},"more":1}]`,
		`[{"type":"attenuating_agent_token","tools":{}},{"type":"attenuating_agent_token","tools":{}}]`,
		`[{"type":"kavach_limits","type":"kavach_limits"}]`, `[{"type":"kavach_limits","resources":null}]`, `[] []`,
	} {
		if _, _, err := delegation.ParseDetails([]byte(bad)); delegation.ReasonOf(err) != delegation.Malformed {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestParseConfirmation(t *testing.T) {
	want := helperKey.public()
	text, err := json.Marshal(map[string]any{"jwk": want.JWK()})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := delegation.ParseConfirmation(text); err != nil || got != want {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{
		``, `{}`, `[]`, `{"jkt":"` + want.Thumbprint() + `"}`, `{"jwk":null}`, `{"jwk":{}}`, string(text[:len(text)-1]) + `,"jkt":"x"}`,
		`{"jwk":{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}}`,
		`{"jwk":{"kty":"OKP","crv":"Ed25519","x":"AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}}`,
	} {
		if got, err := delegation.ParseConfirmation([]byte(bad)); delegation.ReasonOf(err) != delegation.Malformed || got != (agent.PublicKey{}) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
