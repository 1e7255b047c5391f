package jcs_test

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/kavach-dev/kavach/jcs"
)

// A second opinion, which shares no code with the package: the texts that it is
// to accept, told by encoding/json and what that does not refuse, and the
// canonical form, written from RFC 8785 over what encoding/json reads.

// strictly reports whether a text is one of those that Parse accepts.
func strictly(data []byte) bool {
	return utf8.Valid(data) && json.Valid(data) && !loneSurrogates(data) && nesting(data) <= jcs.MaxDepth && !repeats(data)
}

// nesting counts brackets outside of strings.
func nesting(data []byte) (deepest int) {
	depth, inside := 0, false
	for i := 0; i < len(data); i++ {
		switch c := data[i]; {
		case inside && c == '\\':
			i++
		case c == '"':
			inside = !inside
		case inside:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}

// loneSurrogates looks for escapes of half a character. The text is valid JSON.
func loneSurrogates(data []byte) bool {
	at := func(i int) rune {
		if i+6 > len(data) || data[i] != '\\' || data[i+1] != 'u' {
			return -1
		}
		n, err := strconv.ParseUint(string(data[i+2:i+6]), 16, 32)
		if err != nil {
			return -1
		}
		return rune(n)
	}
	for i := 0; i < len(data); i++ {
		if data[i] != '\\' {
			continue
		}
		r := at(i)
		switch {
		case r < 0:
			i++
		case !utf16.IsSurrogate(r):
			i += 5
		case utf16.DecodeRune(r, at(i+6)) == utf8.RuneError:
			return true
		default:
			i += 11
		}
	}
	return false
}

// repeats reports whether a name stands twice in an object.
func repeats(data []byte) bool {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	type level struct {
		names map[string]bool
		value bool // the next token is the value of a member
	}
	stack := []level{{}}
	for {
		token, err := d.Token()
		if err == io.EOF {
			return false
		}
		if err != nil {
			return true
		}
		top := &stack[len(stack)-1]
		if name, isText := token.(string); isText && top.names != nil && !top.value {
			if top.names[name] {
				return true
			}
			top.names[name], top.value = true, true
			continue
		}
		top.value = false
		switch token {
		case json.Delim('{'):
			stack = append(stack, level{names: map[string]bool{}})
		case json.Delim('['):
			stack = append(stack, level{})
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:len(stack)-1]
		}
	}
}

// canonicalOf writes what encoding/json has read; ok is false for a number that
// has no double.
func canonicalOf(v any) (text string, ok bool) {
	switch v := v.(type) {
	case nil:
		return "null", true
	case bool:
		return strconv.FormatBool(v), true
	case string:
		return quoted(v), true
	case json.Number:
		f, err := strconv.ParseFloat(string(v), 64)
		return shortest(f), err == nil
	case []any:
		var list []string
		for _, e := range v {
			text, ok := canonicalOf(e)
			if !ok {
				return "", false
			}
			list = append(list, text)
		}
		return "[" + strings.Join(list, ",") + "]", true
	}
	members := v.(map[string]any)
	var names, list []string
	for name := range members {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b))) })
	for _, name := range names {
		text, ok := canonicalOf(members[name])
		if !ok {
			return "", false
		}
		list = append(list, quoted(name)+":"+text)
	}
	return "{" + strings.Join(list, ",") + "}", true
}

// quoted is RFC 8785 §3.2.2.2.
func quoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		if short, named := map[rune]string{'"': `\"`, '\\': `\\`, '\b': `\b`, '\f': `\f`, '\n': `\n`, '\r': `\r`, '\t': `\t`}[r]; named {
			b.WriteString(short)
			continue
		}
		if r < 0x20 {
			b.WriteString(`\u00` + strconv.FormatInt(int64(r>>4), 16) + strconv.FormatInt(int64(r&15), 16))
			continue
		}
		b.WriteRune(r)
	}
	return b.String() + `"`
}

// shortest is Number::toString of ECMA-262, by its cases: digits are the
// shortest that read back as f, and the point stands behind the first n.
func shortest(f float64) string {
	if f == 0 {
		return "0"
	}
	sign := ""
	if math.Signbit(f) {
		sign, f = "-", -f
	}
	mantissa, exponent, _ := strings.Cut(strconv.FormatFloat(f, 'e', -1, 64), "e")
	digits := strings.Replace(mantissa, ".", "", 1)
	e, _ := strconv.Atoi(exponent)
	k, n := len(digits), e+1
	switch {
	case k <= n && n <= 21:
		return sign + digits + strings.Repeat("0", n-k)
	case 0 < n && n <= 21:
		return sign + digits[:n] + "." + digits[n:]
	case -6 < n && n <= 0:
		return sign + "0." + strings.Repeat("0", -n) + digits
	}
	power := strconv.Itoa(n - 1)
	if n > 0 {
		power = "+" + power
	}
	if k > 1 {
		digits = digits[:1] + "." + digits[1:]
	}
	return sign + digits + "e" + power
}

func secondOpinion(t interface{ Fatalf(string, ...any) }, data []byte) {
	v, err := jcs.Parse(data, jcs.Limits{})
	if want := strictly(data); want != (err == nil) {
		t.Fatalf("%q is accepted: %v, want %v: %v", data, err == nil, want, err)
	}
	if err != nil {
		return
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var read any
	if err := d.Decode(&read); err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	want, ok := canonicalOf(read)
	got, err := jcs.Transform(data)
	if ok != (err == nil) || ok && string(got) != want {
		t.Fatalf("%q has the canonical form %q (%v), want %q (%v)", data, got, err, want, ok)
	}
	if ok && string(jcs.Canonical(v)) != want {
		t.Fatalf("%q has the canonical form %q, want %q", data, jcs.Canonical(v), want)
	}
}

func seeds(f *testing.F) {
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
	for _, text := range []string{`{"\u0061":1,"a":2}`, `"\ud83d\ude00"`, `"\ude00\ud83d"`, `"\\ud800"`, "\ufeff{}", `[1e21,1e-7,-0.0,123456789012345680000,5e-324]`,
		`{"\ue000":1,"😀":2,"é":3}`, `"\u0000\u007f\u2028/\/"`, strings.Repeat("[", 97), `[1E400]`, `{"a":1}{}`} {
		f.Add([]byte(text))
	}
}

// FuzzStrict is the strict parser and the canonical form against the second
// opinion.
func FuzzStrict(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, data []byte) { secondOpinion(t, data) })
}

// FuzzReader reads one text after another with one Reader: nothing of the first
// may be seen in the second.
func FuzzReader(f *testing.F) {
	f.Add([]byte(`{"a":[1,2,3],"b":{"c":"d"}}`), []byte(`{"a":1}`))
	f.Add([]byte(`{"a":`), []byte(`[]`))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		var r jcs.Reader
		_, _ = r.Parse(first, jcs.Limits{})
		again, err := r.Parse(second, jcs.Limits{})
		alone, want := jcs.Parse(second, jcs.Limits{})
		if (err == nil) != (want == nil) || err == nil && !bytes.Equal(jcs.Canonical(again), jcs.Canonical(alone)) {
			t.Fatalf("%q after %q: %v, %v", second, first, err, want)
		}
	})
}
