package jcs

import (
	"fmt"
	"strings"
)

// Parse reads one JSON text. It is strict as the package documentation says;
// every error is an ErrMalformed.
func Parse(data []byte, limits Limits) (Value, error) {
	var r Reader
	return r.Parse(data, limits)
}

// A Reader parses one text after the other and reuses what it built for the one
// before, for who reads many and keeps no Value. The zero Reader is ready. It is
// not safe for several goroutines.
type Reader struct{ doc document }

// Parse is the function of that name, but that the Value and all that was taken
// out of it is good until the next call only. The strings stay.
func (r *Reader) Parse(data []byte, limits Limits) (Value, error) {
	if limits.Depth == 0 {
		limits.Depth = MaxDepth
	}
	if limits.Bytes == 0 || limits.Bytes > maxBytes {
		limits.Bytes = maxBytes
	}
	if len(data) > limits.Bytes {
		return Value{}, fmt.Errorf("%w: %d bytes are more than %d", ErrMalformed, len(data), limits.Bytes)
	}
	p := parser{
		// One copy: names, strings and numbers are then substrings, and the
		// caller may reuse its buffer.
		s:     string(data),
		depth: limits.Depth,
		most:  limits.Values,
	}
	p.source, p.nodes = p.s, r.doc.nodes[:0]
	if cap(p.nodes) == 0 {
		p.nodes = make([]node, 0, p.estimate())
	}
	p.space()
	if err := p.value(); err != nil {
		return Value{}, err
	}
	p.space()
	if p.i != len(p.s) {
		return Value{}, p.fail("data after the value")
	}
	r.doc = p.document
	return Value{d: &r.doc}, nil
}

// estimate is how many nodes the text has if no string in it has one of these
// characters: one for the text, one for a name or an element behind each. What
// else a text claims to have it has to show.
func (p *parser) estimate() int {
	n := 1
	for _, c := range [...]string{":", ",", "{", "["} {
		n += strings.Count(p.s, c)
	}
	return min(n, 256)
}

// A parser walks the text once and appends nodes in document order.
type parser struct {
	s     string
	i     int // next byte
	depth int // containers that may still be opened
	most  int // values that there may be; 0: any number
	document
}

func (p *parser) fail(what string) error {
	return fmt.Errorf("%w: %s at byte %d", ErrMalformed, what, p.i)
}

func (p *parser) space() {
	for p.i < len(p.s) && p.s[p.i] <= ' ' { // where nearly none is
		switch p.s[p.i] {
		case ' ', '\t', '\n', '\r':
			p.i++
		default:
			return
		}
	}
}

func (p *parser) value() error {
	if p.i >= len(p.s) {
		return p.fail("unexpected end")
	}
	if p.most > 0 && len(p.nodes) >= p.most {
		return p.fail("too many values")
	}
	switch c := p.s[p.i]; c {
	case '{':
		return p.object()
	case '[':
		return p.array()
	case '"':
		return p.str()
	case 't':
		return p.word("true", Bool)
	case 'f':
		return p.word("false", Bool)
	case 'n':
		return p.word("null", Null)
	default:
		if c == '-' || isDigit(c) {
			return p.number()
		}
		return p.fail("unexpected character")
	}
}

func (p *parser) word(w string, kind Kind) error {
	if len(p.s)-p.i < len(w) || p.s[p.i:p.i+len(w)] != w {
		return p.fail("unknown literal")
	}
	p.leaf(kind, p.i, p.i+len(w))
	p.i += len(w)
	return nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func (p *parser) digits() bool {
	from := p.i
	for p.i < len(p.s) && isDigit(p.s[p.i]) {
		p.i++
	}
	return p.i > from
}

// number reads RFC 8259 §6:
//
//	[ "-" ] ( "0" / digit1-9 *DIGIT ) [ "." 1*DIGIT ] [ ("e" / "E") [ "-" / "+" ] 1*DIGIT ]
func (p *parser) number() error {
	from := p.i
	if p.s[p.i] == '-' {
		p.i++
	}
	if p.i < len(p.s) && p.s[p.i] == '0' {
		p.i++
	} else if !p.digits() {
		return p.fail("malformed number")
	}
	if p.i < len(p.s) && p.s[p.i] == '.' {
		p.i++
		if !p.digits() {
			return p.fail("malformed number")
		}
	}
	if p.i < len(p.s) && (p.s[p.i] == 'e' || p.s[p.i] == 'E') {
		p.i++
		if p.i < len(p.s) && (p.s[p.i] == '+' || p.s[p.i] == '-') {
			p.i++
		}
		if !p.digits() {
			return p.fail("malformed number")
		}
	}
	p.leaf(Number, from, p.i)
	return nil
}

func (p *parser) open(kind Kind) (int, error) {
	if p.depth == 0 {
		return 0, p.fail("nested too deeply")
	}
	p.depth--
	p.i++
	p.nodes = append(p.nodes, node{kind: kind})
	p.space()
	return len(p.nodes) - 1, nil
}

func (p *parser) close(at, n int) {
	p.i++
	p.depth++
	p.nodes[at].n = int32(n)
	p.nodes[at].end = int32(len(p.nodes))
}

func (p *parser) array() error {
	at, err := p.open(Array)
	if err != nil {
		return err
	}
	if p.i < len(p.s) && p.s[p.i] == ']' {
		p.close(at, 0)
		return nil
	}
	for n := 1; ; n++ {
		if err := p.value(); err != nil {
			return err
		}
		p.space()
		if p.i >= len(p.s) {
			return p.fail("unexpected end")
		}
		switch p.s[p.i] {
		case ',':
			p.i++
			p.space()
		case ']':
			p.close(at, n)
			return nil
		default:
			return p.fail("expected a comma or the end of the array")
		}
	}
}

func (p *parser) object() error {
	at, err := p.open(Object)
	if err != nil {
		return err
	}
	if p.i < len(p.s) && p.s[p.i] == '}' {
		p.close(at, 0)
		return nil
	}
	for n := 1; ; n++ {
		if p.i >= len(p.s) || p.s[p.i] != '"' {
			return p.fail("expected a name")
		}
		if err := p.str(); err != nil { // the name
			return err
		}
		p.space()
		if p.i >= len(p.s) || p.s[p.i] != ':' {
			return p.fail("expected a colon")
		}
		p.i++
		p.space()
		if err := p.value(); err != nil {
			return err
		}
		p.space()
		if p.i >= len(p.s) {
			return p.fail("unexpected end")
		}
		switch p.s[p.i] {
		case ',':
			p.i++
			p.space()
		case '}':
			p.close(at, n)
			if p.duplicate(at) {
				return p.fail("duplicate member in the object that ends")
			}
			return nil
		default:
			return p.fail("expected a comma or the end of the object")
		}
	}
}

// duplicate reports whether the object at a node has two members of one name.
// Names that ascend, as those of a canonical text do, are distinct. Other small
// objects, which is nearly all, are compared pairwise; a map keeps an object of
// a hundred thousand members from costing its square.
func (d *document) duplicate(at int) bool {
	if d.ascending(at) {
		return false
	}
	count := int(d.nodes[at].n)
	if count > 16 {
		seen := make(map[string]struct{}, count)
		for i := int32(at) + 1; i < d.nodes[at].end; i = d.nodes[i+1].end {
			if _, twice := seen[d.text(i)]; twice {
				return true
			}
			seen[d.text(i)] = struct{}{}
		}
		return false
	}
	for i := int32(at) + 1; i < d.nodes[at].end; i = d.nodes[i+1].end {
		for j := d.nodes[i+1].end; j < d.nodes[at].end; j = d.nodes[j+1].end {
			if d.text(i) == d.text(j) {
				return true
			}
		}
	}
	return false
}

// ascending reports whether every name of the object is above the one before.
func (d *document) ascending(at int) bool {
	last := ""
	for i := int32(at) + 1; i < d.nodes[at].end; i = d.nodes[i+1].end {
		name := d.text(i)
		if i > int32(at)+1 && name <= last {
			return false
		}
		last = name
	}
	return true
}
