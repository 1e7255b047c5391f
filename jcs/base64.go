package jcs

import (
	"bytes"
	"encoding/base64"
	"fmt"
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

// AppendDecodeBase64URL appends what DecodeBase64URL returns.
func AppendDecodeBase64URL(dst, text []byte) ([]byte, error) {
	// encoding/base64 skips line breaks wherever they stand.
	if bytes.IndexByte(text, '\n') >= 0 || bytes.IndexByte(text, '\r') >= 0 {
		return dst, fmt.Errorf("%w: line break in base64url", ErrMalformed)
	}
	dst, err := strict.AppendDecode(dst, text)
	if err != nil {
		return dst, fmt.Errorf("%w: not canonical base64url", ErrMalformed)
	}
	return dst, nil
}

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
