package jcs

import (
	"encoding/base64"
	"fmt"
)

// strict refuses bits behind the last byte that are not zero, so that one
// value has one spelling.
var strict = base64.RawURLEncoding.Strict()

// Base64URL encodes bytes as unpadded base64url (RFC 7515 §2).
func Base64URL(data []byte) string {
	return strict.EncodeToString(data)
}

// DecodeBase64URL decodes canonical base64url: unpadded, no whitespace,
// trailing bits zero. Anything else is an ErrMalformed.
func DecodeBase64URL(text string) ([]byte, error) {
	// encoding/base64 skips line breaks wherever they stand.
	for i := range len(text) {
		if text[i] == '\n' || text[i] == '\r' {
			return nil, fmt.Errorf("%w: line break in base64url", ErrMalformed)
		}
	}
	data, err := strict.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%w: not canonical base64url", ErrMalformed)
	}
	return data, nil
}
