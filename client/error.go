package client

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ErrFailed is the root of what goes wrong here, except that refusals of a
// Transport are also a *delegation.Refusal.
var ErrFailed = errors.New("client")

// Error is what an OAuth endpoint answered. It never holds a token.
type Error struct {
	// Status is the HTTP status.
	Status int
	// Code is the error code of RFC 6749 section 5.2 and its extensions, ""
	// if the answer was not of that form.
	Code string
	// Description is the server's sentence for people.
	Description string
	// RetryAfter is how long the server asks to wait; 0 if it does not say.
	RetryAfter time.Duration
}

// Error writes "token endpoint: 400 invalid_scope: description".
func (e *Error) Error() string {
	text := "token endpoint: " + strconv.Itoa(e.Status)
	if e.Code != "" {
		text += " " + e.Code
	}
	if e.Description != "" {
		text += ": " + e.Description
	}
	return text
}

// Is makes every Error an ErrFailed.
func (e *Error) Is(target error) bool { return target == ErrFailed }

// failed makes an ErrFailed of a sentence.
func failed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrFailed}, args...)...)
}

// maxDescription bounds what a server can put into our errors.
const maxDescription = 200

// clean makes a server's text fit for an error: the characters of RFC 6749
// section 5.2, not too many, and none of the secrets that were sent to it.
// Whatever else looks like a JWT goes, too.
func clean(text string, secrets ...string) string {
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, redacted)
		}
	}
	for {
		at := strings.Index(text, "eyJ")
		if at < 0 {
			break
		}
		end := at
		for end < len(text) && (text[end] == '.' || text[end] == '~' || text[end] == '-' || text[end] == '_' ||
			text[end] >= '0' && text[end] <= '9' || text[end] >= 'A' && text[end] <= 'Z' || text[end] >= 'a' && text[end] <= 'z') {
			end++
		}
		text = text[:at] + redacted + text[end:]
	}
	text = strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return '?'
		}
		return r
	}, text)
	if len(text) > maxDescription {
		text = text[:maxDescription] + "..."
	}
	return text
}
