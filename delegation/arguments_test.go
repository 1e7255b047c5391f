package delegation_test

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// What the constructors make is what the wire form says.
func TestConstructors(t *testing.T) {
	low, high := 1.0, 9.5
	for want, c := range map[string]delegation.Constraint{
		`{"constraint_type":"exact","value":"a"}`:                                                                      delegation.Exact("a"),
		`{"constraint_type":"exact","value":null}`:                                                                     delegation.Exact(nil),
		`{"constraint_type":"exact","optional":true,"value":7}`:                                                        delegation.Exact(7).Optional(),
		`{"constraint_type":"one_of","values":["a",1]}`:                                                                delegation.OneOfValues(1, "a", 1.0),
		`{"constraint_type":"not_one_of","excluded":[]}`:                                                               delegation.NotOneOf(),
		`{"constraint_type":"contains","required":[{"a":[true]}]}`:                                                     delegation.Contains(map[string]any{"a": []any{true}}),
		`{"allowed":["a","b"],"constraint_type":"subset"}`:                                                             delegation.Subset("b", "a"),
		`{"constraint_type":"range"}`:                                                                                  delegation.Range(delegation.Bounds{}),
		`{"constraint_type":"range","max":9.5,"max_inclusive":false,"min":1}`:                                          delegation.Range(delegation.Bounds{Min: &low, Max: &high, MaxExclusive: true}),
		`{"constraint_type":"any","constraints":[{"constraint_type":"wildcard"},{"constraint_type":"range","min":1}]}`: delegation.Any(delegation.Wildcard(), delegation.Range(delegation.Bounds{Min: &low})),
		`{"constraint_type":"all","constraints":[{"constraint_type":"exact","value":false}]}`:                          delegation.All(delegation.Exact(false)),
	} {
		if err := c.Err(); err != nil || c.String() != want {
			t.Errorf("got %s, %v, want %s", c, err, want)
			continue
		}
		parsed, err := delegation.ParseConstraint(parseValue(t, want))
		if err != nil || !reflect.DeepEqual(parsed, c) {
			t.Errorf("%s: parsed %v, %v", want, parsed, err)
		}
		text, err := json.Marshal(c.Map())
		if err != nil {
			t.Fatal(err)
		}
		if again, err := delegation.ParseConstraint(parseValue(t, string(text))); err != nil || again.String() != want {
			t.Errorf("%s through encoding/json: %s, %v", want, again, err)
		}
	}
	nan := math.NaN()
	deep := delegation.Wildcard()
	for range 32 {
		deep = delegation.Any(deep)
	}
	for name, c := range map[string]delegation.Constraint{
		"zero": {}, "NaN": delegation.Range(delegation.Bounds{Max: &nan}), "a channel": delegation.Exact(make(chan int)),
		"not UTF-8": delegation.OneOfValues("\xff"), "nothing to choose": delegation.OneOfValues(), "exact array": delegation.Exact([]any{1}),
		"exclusive without a bound": delegation.Range(delegation.Bounds{MinExclusive: true}),
		"no clause":                 delegation.All(), "an optional clause": delegation.Any(delegation.Wildcard().Optional()),
		"a bad clause": delegation.All(delegation.Any()), "too deep": deep,
		"upside down": delegation.Range(delegation.Bounds{Min: &high, Max: &low}),
	} {
		wantRefusal(t, c.Err(), delegation.Malformed, delegation.DimensionTools)
		if c.Map() != nil || c.String() != "null" {
			t.Errorf("%s has a wire form: %s", name, c)
		}
		for _, arguments := range []delegation.Arguments{
			delegation.Args(map[string]delegation.Constraint{"x": c}),
			delegation.Args(map[string]delegation.Constraint{"x": delegation.Wildcard(), "y": c}),
		} {
			_, err := delegation.Derive(rootToken().String(), orchKey.private(), reviewerKey.public(), delegation.Narrow{
				ClientID: reviewer, Scopes: []string{"repository:read"}, Tools: delegation.Tools{"get": arguments},
			}, now)
			wantRefusal(t, err, delegation.Malformed, delegation.DimensionTools)
		}
	}
}

func TestArgs(t *testing.T) {
	a := delegation.Args(map[string]delegation.Constraint{
		"x": delegation.Exact(1), "y": delegation.Wildcard().Optional(), "*": delegation.Wildcard(),
	})
	if !a.Rest() || a.Any() || !slices.Equal(a.Names(), []string{"x", "y"}) {
		t.Errorf("%+v", a)
	}
	for name, want := range map[string]string{"x": `{"constraint_type":"exact","value":1}`, "y": `{"constraint_type":"wildcard","optional":true}`, "z": `{"constraint_type":"wildcard","optional":true}`} {
		if c, ok := a.Get(name); !ok || c.String() != want {
			t.Errorf("%s: %v %v", name, c, ok)
		}
	}
	wire, err := jcs.Marshal(delegation.Tools{"get": a, "all": delegation.AllowAnyArgs}.Map())
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := delegation.ParseTools(parseValue(t, string(wire)))
	if err != nil || !reflect.DeepEqual(parsed, delegation.Tools{"get": a, "all": delegation.AllowAnyArgs}) {
		t.Errorf("%s: %+v, %v", wire, parsed, err)
	}
	for _, bad := range []delegation.Arguments{
		{}, delegation.Args(nil), delegation.Args(map[string]delegation.Constraint{"*": delegation.Exact(1)}),
		delegation.Args(map[string]delegation.Constraint{"*": delegation.Wildcard().Optional()}),
	} {
		_, err := delegation.Derive(rootToken().String(), orchKey.private(), reviewerKey.public(), delegation.Narrow{
			ClientID: reviewer, Scopes: []string{"repository:read"}, Tools: delegation.Tools{"get": bad},
		}, now)
		wantRefusal(t, err, delegation.Malformed, delegation.DimensionTools)
	}
}

// Constraints go through Derive, Verify, Exchange and Sign as they are.
func TestConstraintsAreHandedOn(t *testing.T) {
	pull := delegation.Args(map[string]delegation.Constraint{"pull": delegation.OneOfValues(846, 847), "format": delegation.Exact("diff").Optional()})
	narrow := delegation.Narrow{ClientID: reviewer, Scopes: []string{"repository:read"}, Tools: delegation.Tools{"get": pull}}
	root := rootToken().with(object{"authorization_details": []any{tools("get", "merge")}})
	derived, err := delegation.Derive(root.String(), orchKey.private(), reviewerKey.public(), narrow, now)
	if err != nil {
		t.Fatal(err)
	}
	chain := verified(t, derived.Chain)
	if !reflect.DeepEqual(chain.Tools(), narrow.Tools) {
		t.Errorf("%+v", chain.Tools())
	}
	tighter := delegation.Tools{"get": delegation.Args(map[string]delegation.Constraint{"pull": delegation.Exact(847)})}
	ask := delegation.Ask{
		Receiver: "helper", Key: helperKey.public(), Scopes: []string{"repository:read"}, Audience: chain.Audience(),
		AudienceAware: true, Tools: tighter, TTL: time.Minute,
	}
	key := delegation.ServerKey{KID: "at-ed", Signer: server.signer}
	exchanged := func(ask delegation.Ask) *delegation.Chain {
		t.Helper()
		draft, err := chain.Exchange(ask, now)
		if err != nil {
			t.Fatal(err)
		}
		issued, err := draft.Sign(key)
		if err != nil {
			t.Fatal(err)
		}
		return verified(t, issued.Token)
	}
	if got := exchanged(ask).Tools(); !reflect.DeepEqual(got, tighter) {
		t.Errorf("%+v", got)
	}
	ask.Tools = nil
	if got := exchanged(ask).Tools(); !reflect.DeepEqual(got, narrow.Tools) {
		t.Errorf("what nobody narrows is not kept: %+v", got)
	}
	for name, wider := range map[string]delegation.Arguments{
		"any": delegation.AllowAnyArgs, "a value more": delegation.Args(map[string]delegation.Constraint{"pull": delegation.OneOfValues(847, 848)}),
		"sound, and not in the table": delegation.Args(map[string]delegation.Constraint{"pull": delegation.Any(delegation.Exact(847))}),
	} {
		ask.Tools = delegation.Tools{"get": wider}
		if _, err := chain.Exchange(ask, now); delegation.ReasonOf(err) != delegation.NotNarrower {
			t.Errorf("%s: %v", name, err)
		}
		narrow.Tools = ask.Tools
		_, err := delegation.Derive(derived.Chain, reviewerKey.private(), helperKey.public(), narrow, now)
		wantRefusal(t, err, delegation.NotNarrower, delegation.DimensionTools)
	}
}
