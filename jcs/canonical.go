package jcs

import (
	"cmp"
	"fmt"
	"slices"
)

// Canonical returns the canonical bytes of a value (RFC 8785). Numbers become
// the nearest double; one beyond the range of a double has no canonical form,
// so it keeps its text (Transform refuses it, and Float says so). The canonical
// form of the zero Value is null.
func Canonical(v Value) []byte {
	return v.AppendCanonical(nil)
}

// Transform parses a JSON text and returns its canonical bytes. A number beyond
// the range of a double is malformed.
func Transform(data []byte) ([]byte, error) {
	v, err := Parse(data, Limits{})
	if err != nil {
		return nil, err
	}
	for i := range v.d.nodes {
		if v.d.nodes[i].kind == Number {
			text := v.d.text(int32(i))
			if _, err := nearest(text); err != nil {
				return nil, fmt.Errorf("%w: the number %.40s has no canonical form", ErrMalformed, text)
			}
		}
	}
	return v.AppendCanonical(make([]byte, 0, len(data))), nil
}

// Equal reports whether two values have the same canonical bytes: 1 equals 1.0,
// the order of members does not count, that of elements does.
func Equal(a, b Value) bool {
	if a.Kind() != b.Kind() || a.Len() != b.Len() {
		return false
	}
	switch a.Kind() {
	case Number:
		if a.Number() == b.Number() {
			return true
		}
		return string(a.AppendCanonical(nil)) == string(b.AppendCanonical(nil))
	case Array:
		i, j := a.i+1, b.i+1
		for range a.Len() {
			if !Equal(Value{a.d, i}, Value{b.d, j}) {
				return false
			}
			i, j = a.d.nodes[i].end, b.d.nodes[j].end
		}
		return true
	case Object:
		if a.Len() > 16 { // to look every name up would cost the square
			return string(a.AppendCanonical(nil)) == string(b.AppendCanonical(nil))
		}
		for name, e := range a.Fields() {
			other := b.Get(name)
			if !other.Exists() || !Equal(e, other) {
				return false
			}
		}
		return true
	default:
		return a.text() == b.text()
	}
}

// AppendCanonical appends the canonical bytes of the value to dst.
func (v Value) AppendCanonical(dst []byte) []byte {
	if v.d == nil {
		return append(dst, "null"...)
	}
	return v.d.appendCanonical(dst, v.i)
}

func (d *document) appendCanonical(dst []byte, at int32) []byte {
	n := &d.nodes[at]
	switch n.kind {
	case Null:
		return append(dst, "null"...)
	case Bool:
		return append(dst, d.text(at)...)
	case Number:
		f, err := nearest(d.text(at))
		if err != nil {
			return append(dst, d.text(at)...)
		}
		return appendNumber(dst, f)
	case String:
		return appendString(dst, d.text(at))
	case Array:
		dst = append(dst, '[')
		i := at + 1
		for k := range n.n {
			if k > 0 {
				dst = append(dst, ',')
			}
			dst = d.appendCanonical(dst, i)
			i = d.nodes[i].end
		}
		return append(dst, ']')
	default:
		return d.appendObject(dst, at)
	}
}

func (d *document) appendObject(dst []byte, at int32) []byte {
	n := &d.nodes[at]
	var small [16]int32
	order := small[:0]
	sorted := true
	for i := at + 1; i < n.end; i = d.nodes[i+1].end {
		if k := len(order); k > 0 && compareUTF16(d.text(order[k-1]), d.text(i)) > 0 {
			sorted = false
		}
		order = append(order, i)
	}
	if !sorted {
		slices.SortFunc(order, func(a, b int32) int {
			return compareUTF16(d.text(a), d.text(b))
		})
	}
	dst = append(dst, '{')
	for k, i := range order {
		if k > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, d.text(i))
		dst = append(dst, ':')
		dst = d.appendCanonical(dst, i+1)
	}
	return append(dst, '}')
}

// compareUTF16 orders names by UTF-16 code units (RFC 8785 §3.2.3). That is the
// order of UTF-8 bytes, except that characters above U+FFFF, whose first byte
// is F0 or more and whose first unit is a surrogate, come before U+E000 to
// U+FFFF, whose first byte is EE or EF.
func compareUTF16(a, b string) int {
	for i := range min(len(a), len(b)) {
		x, y := a[i], b[i]
		if x == y {
			continue
		}
		if x >= 0xEE && y >= 0xEE && (x >= 0xF0) != (y >= 0xF0) {
			return cmp.Compare(y, x)
		}
		return cmp.Compare(x, y)
	}
	return cmp.Compare(len(a), len(b))
}

// AppendString appends the canonical form of a string, which must be UTF-8.
func AppendString(dst []byte, s string) []byte { return appendString(dst, s) }

// appendString writes a string as RFC 8785 §3.2.2.2 says: the two-character
// escapes where JSON has them, \u00xx for the other control characters, and
// everything else as it is.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); i++ {
		if i = skipPlain(s, i); i == len(s) {
			break
		}
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, '\\', 'b')
		case '\t':
			dst = append(dst, '\\', 't')
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\f':
			dst = append(dst, '\\', 'f')
		case '\r':
			dst = append(dst, '\\', 'r')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	dst = append(dst, s[from:]...)
	return append(dst, '"')
}
