package main

import (
	"fmt"
	"strings"
)

// usageError is a command line that cannot be meant: exit status 2.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// hintedError carries what to do about an error, printed on its own line.
type hintedError struct {
	err  error
	hint string
}

func (e *hintedError) Error() string { return e.err.Error() }
func (e *hintedError) Unwrap() error { return e.err }

// silentError is a failure whose report was already printed as data, such as
// the verdict of `kavach verify --json`: exit status 1 and nothing more to say.
type silentError struct{ err error }

func (e *silentError) Error() string { return e.err.Error() }
func (e *silentError) Unwrap() error { return e.err }

// usage marks err as a usage error with a hint ("" for none).
func usage(err error, hint string) error {
	return &usageError{&hintedError{err: err, hint: hint}}
}

// usagef is usage for an error that starts here.
func usagef(hint, format string, args ...any) error {
	return usage(fmt.Errorf(format, args...), hint)
}

// withHint adds what to do about err.
func withHint(err error, hint string) error { return &hintedError{err: err, hint: hint} }

// oneLine keeps a message on one line, whatever a file or a server put in it:
// a terminal must not be steered by somebody else's bytes.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case r < 0x20 || (r >= 0x7f && r < 0xa0) || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069):
			return '\uFFFD'
		}
		return r
	}, s)
}

// plain drops the package's name from the front of its own errors: a person at
// a terminal did not ask a package.
func plain(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	for _, prefix := range []string{"people: ", "authz: ", "audit: ", "store: ", "client: ", "mcp: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return &plainError{err: err, text: text}
}

type plainError struct {
	err  error
	text string
}

func (e *plainError) Error() string { return e.text }
func (e *plainError) Unwrap() error { return e.err }
