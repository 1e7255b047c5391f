package jcs

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
)

// strict refuses bits behind the last byte that are not zero, so that one
// value has one spelling.
var strict = base64.RawURLEncoding.Strict()

// Base64URL encodes bytes as unpadded base64url (RFC 7515 §2).
func Base64URL(data []byte) string {
	var small [128]byte // a hash, a key, a signature
	return string(AppendBase64URL(small[:0], data))
}

// AppendBase64URL appends what Base64URL returns.
func AppendBase64URL(dst, data []byte) []byte {
	return strict.AppendEncode(dst, data)
}

// DecodeBase64URL decodes canonical base64url: unpadded, no whitespace,
// trailing bits zero. Anything else is an ErrMalformed.
func DecodeBase64URL(text string) ([]byte, error) {
	data, err := AppendDecodeBase64URL(make([]byte, 0, len(text)*3/4), []byte(text))
	if err != nil {
		return nil, err
	}
	return data, nil
}

// sextets are the values of the letters; wrong is of a byte that is none.
var sextets = func() (values [256]byte) {
	for i := range values {
		values[i] = wrong
	}
	for i, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
		values[c] = byte(i)
	}
	return values
}()

const wrong = 0xff

// AppendDecodeBase64URL appends what DecodeBase64URL returns. It is not that of
// encoding/base64, which skips line breaks wherever they stand and takes twice
// the time: all bytes of all tokens come through here.
func AppendDecodeBase64URL(dst, text []byte) ([]byte, error) {
	from := len(dst)
	dst = slices.Grow(dst, len(text)*3/4)
	out := dst[from : from+len(text)*3/4]
	for ; len(text) >= 8 && len(out) >= 8; text, out = text[8:], out[6:] {
		a, b, c, d := sextets[text[0]], sextets[text[1]], sextets[text[2]], sextets[text[3]]
		e, f, g, h := sextets[text[4]], sextets[text[5]], sextets[text[6]], sextets[text[7]]
		if a|b|c|d|e|f|g|h > 63 {
			return dst, errBase64
		}
		binary.BigEndian.PutUint64(out, uint64(a)<<58|uint64(b)<<52|uint64(c)<<46|uint64(d)<<40|
			uint64(e)<<34|uint64(f)<<28|uint64(g)<<22|uint64(h)<<16)
		from += 6
	}
	for ; len(text) >= 4 && len(out) >= 3; text, out = text[4:], out[3:] {
		a, b, c, d := sextets[text[0]], sextets[text[1]], sextets[text[2]], sextets[text[3]]
		if a|b|c|d > 63 {
			return dst, errBase64
		}
		out[0], out[1], out[2] = a<<2|b>>4, b<<4|c>>2, c<<6|d
		from += 3
	}
	dst = dst[:from]
	// Two letters are one byte and four bits, three are two bytes and two bits;
	// what is no byte has to be zero. One letter is not a byte.
	switch len(text) {
	case 1:
		return dst, errBase64
	case 2:
		a, b := sextets[text[0]], sextets[text[1]]
		if a|b > 63 || b<<4 != 0 {
			return dst, errBase64
		}
		dst = append(dst, a<<2|b>>4)
	case 3:
		a, b, c := sextets[text[0]], sextets[text[1]], sextets[text[2]]
		if a|b|c > 63 || c<<6 != 0 {
			return dst, errBase64
		}
		dst = append(dst, a<<2|b>>4, b<<4|c>>2)
	}
	return dst, nil
}

var errBase64 = fmt.Errorf("%w: not canonical base64url", ErrMalformed)

// Decode32 decodes what has to be 32 bytes, a hash or a coordinate.
func Decode32(text string) (data [32]byte, err error) {
	var from [43]byte
	if len(text) != len(from) {
		return data, fmt.Errorf("%w: not 32 bytes of base64url", ErrMalformed)
	}
	copy(from[:], text)
	_, err = AppendDecodeBase64URL(data[:0], from[:])
	return data, err
}
