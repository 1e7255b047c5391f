package jcs_test

import (
	"bytes"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kavach-dev/kavach/jcs"
)

// checkIdentity: what was accepted has one canonical form, which parses to an
// equal value and is its own canonical form.
func checkIdentity(t interface{ Fatalf(string, ...any) }, data []byte) {
	v, err := jcs.Parse(data, jcs.Limits{})
	if err != nil {
		return
	}
	canonical := jcs.Canonical(v)
	again, err := jcs.Parse(canonical, jcs.Limits{})
	if err != nil {
		t.Fatalf("%q has the canonical form %q: %v", data, canonical, err)
	}
	if twice := jcs.Canonical(again); !bytes.Equal(canonical, twice) {
		t.Fatalf("%q has the canonical form %q, and that %q", data, canonical, twice)
	}
	if !jcs.Equal(v, again) {
		t.Fatalf("%q differs from its canonical form %q", data, canonical)
	}
	// Whatever we accept is JSON for the rest of the world.
	if !json.Valid(data) {
		t.Fatalf("%q is no JSON for encoding/json", data)
	}
	copied, err := jcs.Of([]any{v})
	if v.Kind() != jcs.Object && v.Kind() != jcs.Array && (err != nil || !jcs.Equal(copied.Elements()[0], v)) {
		t.Fatalf("%q does not copy: %v", data, err)
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/jsontestsuite/test_parsing/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		if len(data) < 1<<12 {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) { checkIdentity(t, data) })
}

// FuzzNumber compares admissibility with exact arithmetic.
func FuzzNumber(f *testing.F) {
	for _, text := range []string{"0", "-0.0", "1.0", "1e20", "9007199254740993", "1e-400", "0.1", "5e-324", "1e400", "100e-2"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, err := jcs.Parse([]byte(text), jcs.Limits{Bytes: 64})
		if err != nil || v.Kind() != jcs.Number {
			return
		}
		if at := strings.IndexAny(v.Number(), "eE"); at >= 0 && len(v.Number())-at > 6 {
			return // the oracle, unlike us, expands exponents
		}
		checkNumber(t, v)
	})
}

func checkNumber(t interface{ Fatalf(string, ...any) }, v jcs.Value) {
	exact, ok := new(big.Rat).SetString(v.Number())
	if !ok {
		t.Fatalf("%q is no number for math/big", v.Number())
	}
	_, admissible := v.Float()
	canonical, ok := new(big.Rat).SetString(string(jcs.Canonical(v)))
	if !ok {
		t.Fatalf("%q has the canonical form %q", v.Number(), jcs.Canonical(v))
	}
	nearest, _ := exact.Float64()
	overflow := nearest > 1.7976931348623157e308 || nearest < -1.7976931348623157e308
	if want := !overflow && exact.Cmp(canonical) == 0; admissible != want {
		t.Fatalf("%q is admissible: %v, want %v", v.Number(), admissible, want)
	}
	if n, isInt := v.Int(); isInt && (!exact.IsInt() || exact.Num().Int64() != n) {
		t.Fatalf("%q is the integer %d", v.Number(), n)
	}
}

func TestNumberLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?`).Draw(t, "number")
		v, err := jcs.Parse([]byte(text), jcs.Limits{})
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		checkNumber(t, v)
	})
}

func TestIdentityLaw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		data, err := json.Marshal(anything(4).Draw(t, "value"))
		if err != nil {
			t.Skip(err)
		}
		if _, err := jcs.Parse(data, jcs.Limits{}); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		checkIdentity(t, data)
	})
}

// anything draws a value that encoding/json can write.
func anything(depth int) *rapid.Generator[any] {
	leaves := []*rapid.Generator[any]{
		rapid.String().AsAny(), rapid.Float64().AsAny(), rapid.Bool().AsAny(), rapid.Int().AsAny(), rapid.Just[any](nil),
	}
	if depth == 0 {
		return rapid.OneOf(leaves...)
	}
	return rapid.OneOf(append(leaves,
		rapid.SliceOfN(anything(depth-1), 0, 5).AsAny(),
		rapid.MapOfN(rapid.String(), anything(depth-1), 0, 5).AsAny())...)
}

func BenchmarkParse(b *testing.B) {
	claims := []byte(`{"iss":"https://kavach.example","sub":"u_4kq0v6pQ1w","client_id":"N3bXc0oQ2v0w8oO1l0Jm8T1xw2yZ3x4c5v6b7n8m9a0",` +
		`"aud":["https://git.example/api"],"iat":1795000000,"exp":1795000180,"jti":"01999f4e-5d7a-7b53-8b1f-3c2d1e0f9a8b",` +
		`"scope":"pullrequest:read repository:read","del_depth":1,"del_max_depth":2,"par_hash":"cQ3v7l4pZ0Gx8o1Jm8T1xw2yZ3x4c5v6b7n8m9a0N3b",` +
		`"cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I","jwk":{"crv":"Ed25519","kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}},` +
		`"authorization_details":[{"type":"attenuating_agent_token","tools":{}},{"type":"kavach_limits","resources":["acme/shop/pulls/847"],"allow_network":["git.internal"]}]}`)
	b.SetBytes(int64(len(claims)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := jcs.Parse(claims, jcs.Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCanonical(b *testing.B) {
	v, err := jcs.Parse([]byte(`{"z":1,"b":[1,2,3],"a":{"y":"text","x":null}}`), jcs.Limits{})
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		buf = v.AppendCanonical(buf[:0])
	}
}
