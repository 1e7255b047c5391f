package jcs_test

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/jcs"
)

func parse(t *testing.T, text string) jcs.Value {
	t.Helper()
	v, err := jcs.Parse([]byte(text), jcs.Limits{})
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":                        "",
		"only space":                     " \n",
		"trailing data":                  `{} {}`,
		"trailing comma":                 `[1,]`,
		"byte order mark":                "\ufeff{}",
		"duplicate":                      `{"a":1,"a":2}`,
		"duplicate far apart":            `{"a":1,"b":{"a":1},"c":[{"a":2}],"a":2}`,
		"duplicate after unescaping":     `{"a":1,"\u0061":2}`,
		"duplicate inside":               `[{"x":{"a":1,"a":1}}]`,
		"duplicate among many":           `{` + members(40) + `,"m17":0}`,
		"high surrogate alone":           `"\ud800"`,
		"low surrogate alone":            `"\udc00"`,
		"surrogates the wrong way round": `"\udd1e\ud834"`,
		"surrogate and letter":           `"\ud800a"`,
		"surrogate and other escape":     `"\ud800\n"`,
		"surrogate and bmp escape":       `"\ud800\u0041"`,
		"surrogate in a name":            `{"\ud800":1}`,
		"encoded surrogate":              "\"\xed\xa0\x80\"",
		"overlong":                       "\"\xc0\xaf\"",
		"stray continuation":             "\"\x80\"",
		"bad UTF-8 after an escape":      "\"\\n\xff\"",
		"bad UTF-8 in a name":            "{\"\xff\":1}",
		"control character":              "\"\x1f\"",
		"control after an escape":        "\"\\n\x01\"",
		"leading zero":                   `01`,
		"leading plus":                   `+1`,
		"bare dot":                       `1.`,
		"bare exponent":                  `1e`,
		"hexadecimal":                    `0x1`,
		"NaN":                            `NaN`,
		"single quotes":                  `{'a':1}`,
		"comment":                        `[1/*2*/]`,
		"unknown escape":                 `"\x41"`,
		"short escape":                   `"\u12"`,
		"escape at the end":              `"\`,
		"form feed as space":             "[\f]",
		"97 levels":                      strings.Repeat("[", 97) + strings.Repeat("]", 97),
		"97 levels of objects":           strings.Repeat(`{"a":`, 96) + "{}" + strings.Repeat("}", 96),
		"a million open":                 strings.Repeat("[", 1e6),
		"literal in capitals":            `True`,
		"literal cut":                    `tru`,
	} {
		v, err := jcs.Parse([]byte(text), jcs.Limits{})
		if !errors.Is(err, jcs.ErrMalformed) || v.Exists() {
			t.Errorf("%s: %v %v", name, v.Kind(), err)
		}
	}
}

func members(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = `"m` + strconv.Itoa(i) + `":` + strconv.Itoa(i)
	}
	return strings.Join(list, ",")
}

func TestLimits(t *testing.T) {
	if _, err := jcs.Parse([]byte(strings.Repeat("[", 96)+strings.Repeat("]", 96)), jcs.Limits{}); err != nil {
		t.Errorf("96 levels: %v", err)
	}
	if _, err := jcs.Parse([]byte(`[[]]`), jcs.Limits{Depth: 1}); err == nil {
		t.Error("two levels where one is allowed")
	}
	if _, err := jcs.Parse([]byte(`[[],[]]`), jcs.Limits{Depth: 2}); err != nil {
		t.Errorf("siblings count as depth: %v", err)
	}
	if _, err := jcs.Parse([]byte(`[]`), jcs.Limits{Bytes: 1}); err == nil {
		t.Error("two bytes where one is allowed")
	}
	if _, err := jcs.Parse([]byte(`{`+members(5000)+`}`), jcs.Limits{}); err != nil {
		t.Errorf("many members: %v", err)
	}
}

func TestValue(t *testing.T) {
	v := parse(t, ` { "z" : [ 1 , "two" , null , true , false , { } , [ ] ] , "a\u0062" : "x\ud834\udd1ey\/" , "" : -0.5e-3 } `)
	if v.Kind() != jcs.Object || v.Len() != 3 {
		t.Fatalf("%v with %d members", v.Kind(), v.Len())
	}
	var names []string
	for _, m := range v.Members() {
		names = append(names, m.Name)
	}
	if want := []string{"z", "ab", ""}; !reflect.DeepEqual(names, want) {
		t.Errorf("members %q, want document order %q", names, want)
	}
	list := v.Get("z").Elements()
	if len(list) != 7 {
		t.Fatalf("%d elements", len(list))
	}
	kinds := []jcs.Kind{jcs.Number, jcs.String, jcs.Null, jcs.Bool, jcs.Bool, jcs.Object, jcs.Array}
	for i, e := range list {
		if e.Kind() != kinds[i] {
			t.Errorf("element %d is %v, want %v", i, e.Kind(), kinds[i])
		}
	}
	if !list[3].Bool() || list[4].Bool() || list[0].Bool() {
		t.Error("booleans")
	}
	if got := v.Get("ab").Str(); got != "x\U0001D11Ey/" {
		t.Errorf("string %q", got)
	}
	if got := v.Get("").Number(); got != "-0.5e-3" {
		t.Errorf("number text %q", got)
	}
	if v.Get("A").Exists() || v.Get("z").Get("a").Exists() || list[1].Get("two").Exists() {
		t.Error("a member that is not there")
	}
	if s, ok := parse(t, `["a","b"]`).Strings(); !ok || !reflect.DeepEqual(s, []string{"a", "b"}) {
		t.Errorf("strings %q %v", s, ok)
	}
	if _, ok := parse(t, `["a",1]`).Strings(); ok {
		t.Error("a number among strings")
	}
	var none jcs.Value
	if none.Kind() != jcs.Invalid || none.Len() != 0 || none.Str() != "" || none.Bool() || none.Get("x").Exists() || none.Elements() != nil || none.Members() != nil {
		t.Error("the zero value is not nothing")
	}
}

func TestInt(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "-0": 0, "7": 7, "-12": -12, "9007199254740991": jcs.MaxInt, "-9007199254740991": -jcs.MaxInt,
	} {
		if n, ok := parse(t, text).Int(); !ok || n != want {
			t.Errorf("%s: %d %v", text, n, ok)
		}
	}
	for _, text := range []string{
		"1.0", "1e0", "1E2", "0.5", "9007199254740992", "-9007199254740992", "9007199254740993",
		"123456789012345678901234567890", `"1"`, "true", "null", "[1]",
	} {
		if n, ok := parse(t, text).Int(); ok {
			t.Errorf("%s is the integer %d", text, n)
		}
	}
}

func TestFloat(t *testing.T) {
	admissible := []string{
		"0", "-0", "0.0", "0e5", "0e999999999999999999999999", "-0.000e-9", "1", "1.0", "1.000000", "10", "100e-2", "0.0001e4",
		"1e20", "1e21", "1E+2", "0.1", "-0.1", "1.5e-7", "9007199254740992", "9007199254740994", "1e22", "12.50",
		"5e-324", "1.7976931348623157e308", "17976931348623157e292", "2.2250738585072014e-308",
		"1" + strings.Repeat("0", 300), "0." + strings.Repeat("0", 300) + "1", "1" + strings.Repeat("0", 5000) + "e-5000",
	}
	for _, text := range admissible {
		f, ok := parse(t, text).Float()
		if want, err := strconv.ParseFloat(text, 64); len(text) < 800 && (err != nil || f != want) || !ok {
			t.Errorf("%.40s: %v %v, want %v", text, f, ok, want)
		}
	}
	for _, text := range []string{
		"9007199254740993", "1.00000000000000001", "1e400", "-1e400", "1e-400", "1e999999999999999999999999",
		"1e-999999999999999999999999", "0.1000000000000000055511151231257827", "2e-324", "3e-324", "4.9e-324", "1.7976931348623159e308",
		"9007199254740992.1", "0.30000000000000001", "1" + strings.Repeat("0", 400), "0." + strings.Repeat("0", 400) + "1",
		"1." + strings.Repeat("0", 5000) + "1", `"1"`, "null",
	} {
		if f, ok := parse(t, text).Float(); ok {
			t.Errorf("%.40s is admissible as %v", text, f)
		}
	}
}

func TestLongNumbers(t *testing.T) {
	zeros := strings.Repeat("0", 5000)
	for text, want := range map[string]string{
		"1" + zeros + "e-5000": "1", "-25" + zeros + ".000e-5001": "-2.5", "0." + zeros + "3e5001": "3", zeros[:1] + "." + zeros: "0",
		"1." + zeros + "1": "1", strings.Repeat("9", 1000) + "e-1000": "1", strings.Repeat("123456789", 100) + "e-890": "1234567891.2345679",
	} {
		if got := string(jcs.Canonical(parse(t, text))); got != want {
			t.Errorf("%.20s…: %s, want %s", text, got, want)
		}
	}
}

// TestNumberBomb: a short text must not cost what it denotes.
func TestNumberBomb(t *testing.T) {
	v := parse(t, "[1e999999999,1e-999999999,0e999999999]")
	allocs := testing.AllocsPerRun(10, func() {
		for e := range v.All() {
			e.Float()
			_ = e.AppendCanonical(make([]byte, 0, 64))
		}
	})
	if allocs > 40 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestCanonical(t *testing.T) {
	for in, want := range map[string]string{
		// RFC 8785 §3.2.2 and §3.2.3.
		`{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}`:                                        `{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}`,
		`{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One","\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}`: "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u0080\":\"Control\",\"ö\":\"Latin Small Letter O With Diaeresis\",\"€\":\"Euro Sign\",\"😀\":\"Emoji: Grinning Face\",\"\ufb33\":\"Hebrew Letter Dalet With Dagesh\"}",
		` [ ] `: `[]`,
		` { } `: `{}`,
		`-0`:    `0`,
		`[1.0]`: `[1]`,
		"\"\\u0000\\b\\t\\n\\f\\r\\u001f\\u007f\\u2028\"": "\"\\u0000\\b\\t\\n\\f\\r\\u001f\u007f\u2028\"",
		`{"b":{"d":1,"c":2},"a":[{"z":0,"y":0}]}`:         `{"a":[{"y":0,"z":0}],"b":{"c":2,"d":1}}`,
		`{"aa":1,"a":2,"":3}`:                             `{"":3,"a":2,"aa":1}`,
		`{` + `"\ud800\udc00":1,"\uffff":2,"\ue000":3}`:   "{\"\U00010000\":1,\"\ue000\":3,\"\uffff\":2}",
	} {
		got, err := jcs.Transform([]byte(in))
		if err != nil || string(got) != want {
			t.Errorf("%s\n got %s (%v)\nwant %s", in, got, err, want)
		}
	}
	if _, err := jcs.Transform([]byte(`[1e400]`)); !errors.Is(err, jcs.ErrMalformed) {
		t.Errorf("a number beyond every double: %v", err)
	}
	if _, err := jcs.Transform([]byte(`[`)); !errors.Is(err, jcs.ErrMalformed) {
		t.Errorf("no JSON: %v", err)
	}
}

// TestNumbers is RFC 8785, appendix B.
func TestNumbers(t *testing.T) {
	for bits, want := range map[uint64]string{
		0x0000000000000000: "0", 0x8000000000000000: "0",
		0x0000000000000001: "5e-324", 0x8000000000000001: "-5e-324",
		0x7fefffffffffffff: "1.7976931348623157e+308", 0xffefffffffffffff: "-1.7976931348623157e+308",
		0x4340000000000000: "9007199254740992", 0xc340000000000000: "-9007199254740992",
		0x4430000000000000: "295147905179352830000",
		0x44b52d02c7e14af5: "9.999999999999997e+22", 0x44b52d02c7e14af6: "1e+23", 0x44b52d02c7e14af7: "1.0000000000000001e+23",
		0x444b1ae4d6e2ef4e: "999999999999999700000", 0x444b1ae4d6e2ef4f: "999999999999999900000", 0x444b1ae4d6e2ef50: "1e+21",
		0x3eb0c6f7a0b5ed8c: "9.999999999999997e-7", 0x3eb0c6f7a0b5ed8d: "0.000001",
		0x41b3de4355555553: "333333333.3333332", 0x41b3de4355555554: "333333333.33333325",
		0x41b3de4355555555: "333333333.3333333", 0x41b3de4355555556: "333333333.3333334", 0x41b3de4355555557: "333333333.33333343",
		0xbecbf647612f3696: "-0.0000033333333333333333",
		0x43143ff3c1cb0959: "1424953923781206.2",
	} {
		got, err := jcs.Marshal(math.Float64frombits(bits))
		if err != nil || string(got) != want {
			t.Errorf("%016x: %s (%v), want %s", bits, got, err, want)
		}
	}
}

func TestEqual(t *testing.T) {
	same := [][2]string{
		{`1`, `1.0`}, {`1e2`, `100`}, {`0`, `-0`}, {`"a"`, `"\u0061"`}, {`null`, ` null`},
		{`{"a":1,"b":[true,null]}`, `{"b":[true,null],"a":1.0}`}, {`[]`, `[ ]`},
	}
	for _, pair := range same {
		if !jcs.Equal(parse(t, pair[0]), parse(t, pair[1])) {
			t.Errorf("%s and %s differ", pair[0], pair[1])
		}
	}
	for _, pair := range [][2]string{
		{`1`, `"1"`}, {`1`, `2`}, {`[1,2]`, `[2,1]`}, {`{"a":1}`, `{"a":2}`}, {`{"a":1}`, `{"b":1}`},
		{`{}`, `[]`}, {`null`, `false`}, {`true`, `false`}, {`{"a":1}`, `{"a":1,"b":1}`}, {`1e400`, `1e401`}, {`"\u00e9"`, `"e\u0301"`},
	} {
		if jcs.Equal(parse(t, pair[0]), parse(t, pair[1])) {
			t.Errorf("%s and %s are equal", pair[0], pair[1])
		}
	}
	// Objects too large to be compared name by name.
	var forth, back []string
	for i := range 40 {
		forth = append(forth, fmt.Sprintf(`"%02d":[{"a":1,"b":%d}]`, i, i))
		back = append([]string{fmt.Sprintf(`"%02d":[{"b":%d.0,"a":1}]`, i, i)}, back...)
	}
	large := func(members []string) jcs.Value { return parse(t, "{"+strings.Join(members, ",")+"}") }
	if !jcs.Equal(large(forth), large(back)) {
		t.Error("the order of many members counts")
	}
	back[7] = `"32":[{"b":32,"a":2}]`
	if jcs.Equal(large(forth), large(back)) {
		t.Error("one of many members does not count")
	}
	null, err := jcs.Of(nil)
	if err != nil || !jcs.Equal(null, parse(t, `null`)) || jcs.Equal(null, jcs.Value{}) {
		t.Error("null")
	}
}

func TestOf(t *testing.T) {
	inner := parse(t, `{"q":[1,{"w":null}]}`)
	v, err := jcs.Of(map[string]any{
		"nil": nil, "bool": true, "string": "é", "int": -3, "int64": int64(jcs.MaxInt), "uint32": uint32(7),
		"float": 0.5, "strings": []string{"b", "a"}, "list": []any{1, "x", []any{}}, "map": map[string]string{"k": "v"},
		"value": inner, "values": []jcs.Value{inner.Get("q")}, "maps": []map[string]any{{"a": 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"bool":true,"float":0.5,"int":-3,"int64":9007199254740991,"list":[1,"x",[]],"map":{"k":"v"},"maps":[{"a":1}],` +
		`"nil":null,"string":"é","strings":["b","a"],"uint32":7,"value":{"q":[1,{"w":null}]},"values":[[1,{"w":null}]]}`
	if got := string(jcs.Canonical(v)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if again := parse(t, want); !jcs.Equal(v, again) {
		t.Error("built and parsed differ")
	}
	loop := map[string]any{}
	loop["loop"] = loop
	for name, x := range map[string]any{
		"invalid UTF-8": "\xff", "invalid name": map[string]any{"\xff": 1}, "big": int64(jcs.MaxInt + 1), "small": int64(-jcs.MaxInt - 1),
		"big unsigned": uint64(math.MaxUint64), "NaN": math.NaN(), "infinite": math.Inf(-1), "endless": loop,
		"struct": struct{}{}, "nothing": jcs.Value{}, "nothing inside": []any{jcs.Value{}}, "channel": []any{make(chan int)},
	} {
		if v, err := jcs.Of(x); !errors.Is(err, jcs.ErrMalformed) || v.Exists() {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := jcs.Marshal(x); !errors.Is(err, jcs.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBase64URL(t *testing.T) {
	for text, want := range map[string]string{"": "", "Zg": "f", "Zm8": "fo", "Zm9v": "foo", "_-8": "\xff\xef"} {
		got, err := jcs.DecodeBase64URL(text)
		if err != nil || string(got) != want {
			t.Errorf("%q: %q %v", text, got, err)
		}
		if back := jcs.Base64URL([]byte(want)); back != text {
			t.Errorf("%q encodes to %q", want, back)
		}
	}
	for _, text := range []string{"Zg==", "Zh", "Zm9", "Z", "Zm9v\n", "Zm\r9v", " Zm9v", "Zm9v ", "+/8", "Zm9v=", "Zm9vZ", "Zm 9v", "Zé"} {
		if got, err := jcs.DecodeBase64URL(text); !errors.Is(err, jcs.ErrMalformed) {
			t.Errorf("%q decodes to %q, %v", text, got, err)
		}
	}
}

// A body of a few bytes for each value must not take its memory many times over.
func TestLimitsValues(t *testing.T) {
	for text, n := range map[string]int{"1": 1, "[]": 1, "[1,2]": 3, `{"a":1}`: 3, `{"a":[true,null],"b":{}}`: 7} {
		if _, err := jcs.Parse([]byte(text), jcs.Limits{Values: n}); err != nil {
			t.Errorf("%s has %d values: %v", text, n, err)
		}
		if _, err := jcs.Parse([]byte(text), jcs.Limits{Values: n - 1}); n > 1 && !errors.Is(err, jcs.ErrMalformed) {
			t.Errorf("%s has no more than %d values: %v", text, n-1, err)
		}
	}
	text := []byte("[" + strings.Repeat("1,", 1<<20) + "1]")
	if n := testing.AllocsPerRun(1, func() { _, _ = jcs.Parse(text, jcs.Limits{Values: 1000}) }); n > 20 {
		t.Errorf("%v allocations for a text that is refused", n)
	}
}
