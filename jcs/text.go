package jcs

import (
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// What a byte is inside a string.
const (
	plain = iota
	upper // of a character beyond ASCII
	quote
	backslash
	control
)

var class = func() (c [256]uint8) {
	for i := range c {
		switch {
		case i < 0x20:
			c[i] = control
		case i >= utf8.RuneSelf:
			c[i] = upper
		}
	}
	c['"'], c['\\'] = quote, backslash
	return c
}()

// skipPlain returns where the first byte that may not be plain stands from i on,
// eight bytes at a time.
func skipPlain(s string, i int) int {
	for ; len(s)-i >= 8; i += 8 {
		if found := notPlain(eight(s[i:])); found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	return i
}

// eight is the first eight bytes, the first of them lowest.
func eight(s string) uint64 {
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// notPlain has the high bit of the lowest byte that is not plain. Bytes above
// that one may have it too, since a difference borrows from them.
func notPlain(w uint64) uint64 {
	const each, high = 0x0101010101010101, 0x8080808080808080
	quote, backslash := w^each*'"', w^each*'\\'
	return ((w-each*0x20)&^w | (quote-each)&^quote | (backslash-each)&^backslash | w) & high
}

// str reads a string and appends its node. Without escapes its contents stand in
// the text.
func (p *parser) str() error {
	p.i++
	s, from := p.s, p.i
	ascii := true
	for i := from; i < len(s); i++ {
		if i = skipPlain(s, i); i == len(s) {
			break
		}
		kind := class[s[i]]
		if kind == plain {
			continue
		}
		switch kind {
		case upper:
			ascii = false
		case quote:
			p.i = i
			text := s[from:i]
			if !ascii && !utf8.ValidString(text) {
				return p.fail("invalid UTF-8 in the string that ends")
			}
			p.leaf(String, from, i)
			p.i++
			return nil
		case backslash:
			p.i = i
			return p.escaped(from)
		case control:
			p.i = i
			return p.fail("control character in a string")
		}
	}
	p.i = len(p.s)
	return p.fail("unexpected end of a string")
}

// escaped reads the rest of a string that has at least one escape; p.i is at
// the first.
func (p *parser) escaped(from int) error {
	buf := make([]byte, 0, p.i-from+32)
	for {
		run := from
		for p.i < len(p.s) && p.s[p.i] != '"' && p.s[p.i] != '\\' {
			if p.s[p.i] < 0x20 {
				return p.fail("control character in a string")
			}
			p.i++
		}
		buf = append(buf, p.s[run:p.i]...)
		if p.i >= len(p.s) {
			return p.fail("unexpected end of a string")
		}
		if p.s[p.i] == '"' {
			if !utf8.Valid(buf) {
				return p.fail("invalid UTF-8 in the string that ends")
			}
			p.leafOf(String, string(buf))
			p.i++
			return nil
		}
		r, err := p.escape()
		if err != nil {
			return err
		}
		buf = utf8.AppendRune(buf, r)
		from = p.i
	}
}

// escape reads one escape sequence; p.i is at its backslash.
func (p *parser) escape() (rune, error) {
	if len(p.s)-p.i < 2 {
		return 0, p.fail("unexpected end of a string")
	}
	c := p.s[p.i+1]
	if c != 'u' {
		p.i += 2
		switch c {
		case '"', '\\', '/':
			return rune(c), nil
		case 'b':
			return '\b', nil
		case 'f':
			return '\f', nil
		case 'n':
			return '\n', nil
		case 'r':
			return '\r', nil
		case 't':
			return '\t', nil
		}
		return 0, p.fail("unknown escape")
	}
	r, ok := p.hex4(p.i)
	if !ok {
		return 0, p.fail("malformed \\u escape")
	}
	if !utf16.IsSurrogate(r) {
		p.i += 6
		return r, nil
	}
	// A surrogate is half a character: UTF-8 cannot hold it alone, and readers
	// that replace it would make two names equal that are not.
	low, ok := p.hex4(p.i + 6)
	if !ok {
		return 0, p.fail("lone surrogate")
	}
	pair := utf16.DecodeRune(r, low)
	if pair == utf8.RuneError {
		return 0, p.fail("lone surrogate")
	}
	p.i += 12
	return pair, nil
}

// hex4 decodes \uXXXX at a position.
func (p *parser) hex4(at int) (rune, bool) {
	if len(p.s)-at < 6 || p.s[at] != '\\' || p.s[at+1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range []byte(p.s[at+2 : at+6]) {
		r <<= 4
		switch {
		case isDigit(c):
			r |= rune(c - '0')
		case 'a' <= c && c <= 'f':
			r |= rune(c-'a') + 10
		case 'A' <= c && c <= 'F':
			r |= rune(c-'A') + 10
		default:
			return 0, false
		}
	}
	return r, true
}
