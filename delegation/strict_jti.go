package delegation

import (
	"strings"

	"github.com/kavach-dev/kavach/jcs"
)

// scanJTI is step 2c: it finds the string jti of a payload "using minimal JSON
// parsing", before any signature held. It follows strings and brackets only; of
// several members of that name the first counts, and the strict parse refuses
// them later. ok is false where there is no member jti on the first level, or
// it is no string.
func scanJTI(payload []byte) (jti string, ok bool) {
	s := scanner{text: string(payload)}
	s.space()
	if !s.take('{') {
		return "", false
	}
	for {
		s.space()
		name, isString := s.literal()
		if !isString {
			return "", false
		}
		s.space()
		if !s.take(':') {
			return "", false
		}
		s.space()
		if name == `"jti"` || strings.IndexByte(name, '\\') >= 0 && unescape(name) == "jti" {
			value, isString := s.literal()
			if !isString {
				return "", false
			}
			v, err := jcs.Parse([]byte(value), jcs.Limits{})
			return v.Str(), err == nil
		}
		if !s.skip() {
			return "", false
		}
		if !s.take(',') {
			return "", false
		}
	}
}

// unescape returns "" for what is no strict string.
func unescape(literal string) string {
	v, err := jcs.Parse([]byte(literal), jcs.Limits{})
	if err != nil {
		return ""
	}
	return v.Str()
}

type scanner struct {
	text string
	i    int // next byte
}

func (s *scanner) space() {
	for s.i < len(s.text) && strings.IndexByte(" \t\r\n", s.text[s.i]) >= 0 {
		s.i++
	}
}

func (s *scanner) take(c byte) bool {
	if s.i >= len(s.text) || s.text[s.i] != c {
		return false
	}
	s.i++
	return true
}

// literal reads a string with its quotes.
func (s *scanner) literal() (text string, ok bool) {
	from := s.i
	if !s.take('"') {
		return "", false
	}
	for s.i < len(s.text) {
		switch s.text[s.i] {
		case '\\':
			s.i += 2
		case '"':
			s.i++
			return s.text[from:s.i], true
		default:
			s.i++
		}
	}
	return "", false
}

// skip goes to the comma after a value of the first level. It is false at the
// end of the object.
func (s *scanner) skip() bool {
	for depth := 0; s.i < len(s.text); {
		switch s.text[s.i] {
		case '"':
			if _, ok := s.literal(); !ok {
				return false
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth < 0 {
				return false
			}
		case ',':
			if depth == 0 {
				return true
			}
		}
		s.i++
	}
	return false
}
