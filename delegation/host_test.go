package delegation

import (
	"strconv"
	"strings"
	"testing"
)

// FuzzHost: the grammar has one spelling per host, and covering is reflexive.
func FuzzHost(f *testing.F) {
	for _, seed := range []string{"git.internal:443", "*.a.b", "[2001:db8::1]:1", "10.0.0.1", "[::ffff:1.2.3.4]", "a:0", "xn--a"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		h, ok := parseHost(text)
		if !ok {
			return
		}
		if h.String() != text {
			t.Fatalf("%q is written %q", text, h.String())
		}
		if !h.covers(h) {
			t.Fatalf("%q does not cover itself", text)
		}
		if h.port != 0 && !(host{name: h.name, wildcard: h.wildcard, address: h.address}).covers(h) {
			t.Fatalf("%q is not covered without its port", text)
		}
		if networkAllowed([]string{text}, text) == h.wildcard {
			t.Fatalf("%q as its own destination", text)
		}
	})
}

// String is the inverse of parseHost. Only the law above needs it.
func (h host) String() string {
	text := h.name
	switch {
	case h.wildcard:
		text = "*." + text
	case h.address && strings.Contains(text, ":"):
		text = "[" + text + "]"
	}
	if h.port != 0 {
		text += ":" + strconv.Itoa(int(h.port))
	}
	return text
}
