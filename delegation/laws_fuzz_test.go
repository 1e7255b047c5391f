package delegation_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/delegation"
)

// splitAnew is step 0 once more, with strings.Split and encoding/base64:
// "charset, parts (malformed); sizes, > 9 parts (too_large); canonical base64url
// (malformed)".
func splitAnew(token string) (parts [][3]string, reason delegation.Reason) {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	large := len(token) > 57344
	var fields []string
	for _, part := range strings.Split(token, "~") {
		three := strings.Split(part, ".")
		if len(three) != 3 || strings.Trim(part, alphabet+".") != "" {
			return nil, delegation.Malformed
		}
		large = large || len(part) > 8192
		fields = append(fields, three...)
	}
	if large || len(fields) > 9*3 {
		return nil, delegation.TooLarge
	}
	for three := range slices.Chunk(fields, 3) {
		var decoded [3]string
		for i, text := range three {
			data, err := base64.RawURLEncoding.DecodeString(text)
			if err != nil || base64.RawURLEncoding.EncodeToString(data) != text {
				return nil, delegation.Malformed
			}
			decoded[i] = string(data)
		}
		parts = append(parts, decoded)
	}
	return parts, ""
}

// FuzzSplit is the token splitter against splitAnew.
func FuzzSplit(f *testing.F) {
	good := rootToken().String()
	for _, seed := range []string{
		"", "~", ".", "..", "...", "..~..", "a.b.c", "YQ.YQ.YQ", "YR.YQ.YQ", "YQ=.YQ.YQ", "YQ.YQ.YQ\n", "YQ.YQ.Y Q", good, good + "~" + good, "~" + good, good + "~",
		strings.Repeat("..~", 8) + "..", strings.Repeat("..~", 9) + "..", strings.Repeat("A", 8190) + "..", strings.Repeat("A", 8191) + "..", "é..",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		want, reason := splitAnew(token)
		got, err := delegation.Split(token)
		if delegation.ReasonOf(err) != reason || reason != "" && err == nil || !slices.Equal(got, want) {
			t.Fatalf("%q: got %q, %v, want %q, %q", token, got, err, want, reason)
		}
		if reason == "" {
			return
		}
		if _, err := verifier(t).Verify(token, now); delegation.ReasonOf(err) != reason {
			t.Fatalf("%q: Verify says %v, want %s", token, err, reason)
		}
	})
}

// FuzzSubsumption is the parser, the check and the table of subsumption against
// the oracle, for any two constraints and any value.
func FuzzSubsumption(f *testing.F) {
	for _, seed := range [][3]string{
		{`{"constraint_type":"range","min":1,"min_inclusive":false}`, `{"constraint_type":"exact","value":1.0}`, `1`},
		{`{"constraint_type":"all","constraints":[{"constraint_type":"wildcard"}]}`, `{"constraint_type":"any","constraints":[{"constraint_type":"one_of","values":["a"]}]}`, `"a"`},
		{`{"constraint_type":"subset","allowed":[1,{"a":[]}],"optional":true}`, `{"constraint_type":"subset","allowed":[]}`, `[{"a":[]}]`},
		{`{"constraint_type":"contains","required":[]}`, `{"constraint_type":"contains","required":["é",null,true]}`, `[null,true,"é"]`},
		{`{"constraint_type":"not_one_of","excluded":[-0,1e2]}`, `{"constraint_type":"not_one_of","excluded":[0,100,5]}`, `100.0`},
		{`{"constraint_type":"regex"}`, `{"constraint_type":"exact","value":9007199254740993}`, `1e400`},
	} {
		f.Add([]byte(seed[0]), []byte(seed[1]), []byte(seed[2]))
	}
	f.Fuzz(func(t *testing.T, p, c, v []byte) {
		parent, read, ok := bothRead(t, p)
		child, below, too := bothRead(t, c)
		arg, argOK := decode([]byte(`{"v":`+string(v)+`}`), true)
		if !ok || !too {
			return
		}
		covers := parent.covers(child)
		if read.Covers(below) != covers {
			t.Fatalf("%s covers %s: %v, want %v", p, c, !covers, covers)
		}
		list := probes(parent, child)
		if argOK && len(arg) == 1 {
			value, r := plain(arg["v"])
			if r != fine {
				if read.Allows(jcsOf(arg["v"])) {
					t.Fatalf("%s allows %s, which no double is", p, v)
				}
				return
			}
			list = append(list, value)
		}
		for _, value := range list {
			if _, r := plain(value); r != fine || !finite(value) {
				continue
			}
			above, inside := parent.takes(value), child.takes(value)
			if wire := jcsOf(value); read.Allows(wire) != above || below.Allows(wire) != inside || covers && inside && !above {
				t.Fatalf("%v: %s allows it %v, want %v; %s %v, want %v; the first covers the second: %v", value, p, read.Allows(wire), above,
					c, below.Allows(wire), inside, covers)
			}
		}
	})
}

// finite leaves out what a bound next to the largest double has as a neighbour.
func finite(value any) bool {
	_, err := json.Marshal(value)
	return err == nil
}

// bothRead reads a constraint with the package and with the oracle, which have
// to agree whether it is one. ok is false if it is none. The oracle knows no
// sizes but those that a kilobyte can have.
func bothRead(t *testing.T, text []byte) (rule, delegation.Constraint, bool) {
	if len(text) > 1000 || bytes.Count(text, []byte(",")) > 60 {
		return rule{}, delegation.Constraint{}, false
	}
	wire, ok := decode(text, true)
	if !ok {
		return rule{}, delegation.Constraint{}, false
	}
	if depthOf(wire) > 90 {
		return rule{}, delegation.Constraint{}, false
	}
	want, reading := ruleOf(wire, true, false)
	got, err := delegation.ParseConstraint(jcsOf(wire))
	if (err == nil) != (reading == fine) {
		t.Fatalf("%s is read: %v, want %v", text, err, reading)
	}
	return want, got, err == nil
}

func depthOf(v any) (deepest int) {
	switch v := v.(type) {
	case object:
		for _, one := range v {
			deepest = max(deepest, depthOf(one))
		}
	case []any:
		for _, one := range v {
			deepest = max(deepest, depthOf(one))
		}
	}
	return deepest + 1
}
