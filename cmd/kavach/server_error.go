package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
)

// serverError says what kept a command from getting something of the issuer:
// what the server answered, or why it did not.
func serverError(doing, issuer string, err error) error {
	var answered *client.Error
	var refused *delegation.Refusal
	switch {
	case errors.As(err, &answered):
		return answerError(doing, issuer, answered)
	case errors.As(err, &refused):
		return refused
	}
	hint := "is --issuer the address of a kavach, spelled as `kavach serve` says it when it is ready?"
	if untrusted(err) {
		hint = cacertHint
	} else if isNetwork(err) {
		hint = "is the server running, and is --issuer its address?"
	}
	return withHint(fmt.Errorf("%s: %w", doing, clientError(err)), hint)
}

const cacertHint = "--cacert FILE trusts the authority that signed its certificate"

// clientError drops the package's name wherever an error of it wraps another.
func clientError(err error) error {
	return &plainError{err: err, text: strings.ReplaceAll(urlCause(err).Error(), client.ErrFailed.Error()+": ", "")}
}

// answerError is an OAuth error, with what to do about it.
func answerError(doing, issuer string, e *client.Error) error {
	if e.Code == "" {
		return withHint(fmt.Errorf("%s: %s answers with status %d", doing, issuer, e.Status), "is --issuer the address of a kavach?")
	}
	err := fmt.Errorf("%s: %s", doing, strings.TrimSuffix(e.Code+": "+e.Description, ": "))
	switch e.Code {
	case "invalid_client":
		return withHint(err, "the agent must be registered there and active (`kavach agent register`, `kavach agent list`), --key-file its key, and --issuer spelled as the server does")
	case "invalid_scope", "unauthorized_client", "access_denied":
		return withHint(err, "an agent gets what its manifest names, its owner holds and `kavach agent grant` gave it")
	case "invalid_target":
		return withHint(err, "`kavach resource list` shows the resources that the server issues for")
	case "temporarily_unavailable":
		return withHint(err, "nothing was issued: try again in a moment")
	}
	return err
}

// isNetwork says whether nothing was answered because nobody could be reached.
func isNetwork(err error) bool {
	var n net.Error
	return errors.As(err, &n) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// untrusted says whether a certificate was not accepted.
func untrusted(err error) bool {
	var bad *tls.CertificateVerificationError
	return errors.As(err, &bad)
}
