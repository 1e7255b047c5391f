package client

import (
	"fmt"
	"io"
	"log/slog"
)

// Token is a credential: an access token, a chain or a handle. It prints as
// "[redacted]"; string(t) is the text.
type Token string

const redacted = "[redacted]"

// String hides the token.
func (Token) String() string { return redacted }

// GoString hides the token.
func (Token) GoString() string { return redacted }

// Format hides the token from every verb.
func (Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue hides the token.
func (Token) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText hides the token from encoders.
func (Token) MarshalText() ([]byte, error) { return []byte(redacted), nil }
