package jcs_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/jcs"
)

// Every text of up to four bytes of a telling alphabet, against encoding/base64
// and its own encoder: canonical is what encodes to itself.
func TestBase64URLIsCanonical(t *testing.T) {
	const alphabet = "AQgwxyz09_-+/=\n\r .~\x00\xff"
	texts := []string{""}
	for from := 0; from < len(texts) && len(texts[from]) < 4; from++ {
		for _, c := range []byte(alphabet) {
			texts = append(texts, texts[from]+string([]byte{c}))
		}
	}
	for _, text := range texts {
		for _, text := range []string{text, "AAAA" + text} {
			checkBase64(t, text)
		}
	}
	if _, err := jcs.Decode32(strings.Repeat("A", 42) + "B"); !errors.Is(err, jcs.ErrMalformed) {
		t.Errorf("32 bytes with a bit too many: %v", err)
	}
	if _, err := jcs.Decode32(strings.Repeat("A", 44)); !errors.Is(err, jcs.ErrMalformed) {
		t.Errorf("33 bytes: %v", err)
	}
}

func FuzzBase64URL(f *testing.F) {
	for _, seed := range []string{"", "AA", "AB", "AAA", "AAB", "AAAA\n", "A=", "-_-_"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) { checkBase64(t, text) })
}

func checkBase64(t *testing.T, text string) {
	t.Helper()
	want, err := base64.RawURLEncoding.Strict().DecodeString(text)
	valid := err == nil && !strings.ContainsAny(text, "\r\n")
	got, err := jcs.DecodeBase64URL(text)
	if (err == nil) != valid || valid && !bytes.Equal(got, want) || err != nil && !errors.Is(err, jcs.ErrMalformed) {
		t.Fatalf("%q: %x, %v; want %x, valid %v", text, got, err, want, valid)
	}
	if valid && jcs.Base64URL(got) != text {
		t.Fatalf("%q is written %q", text, jcs.Base64URL(got))
	}
}
