package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
)

// printed is standard output that remembers whether it took everything: what
// was not printed was not done, whatever a command makes of one failed write.
type printed struct {
	to     io.Writer
	failed atomic.Pointer[error]
}

func (p *printed) Write(text []byte) (int, error) {
	n, err := p.to.Write(text)
	if err != nil {
		p.failed.CompareAndSwap(nil, &err)
	}
	return n, err
}

// ended is how a command ended that printed to p. Its own error goes first,
// unless it said all that there is to say in what did not arrive.
func (p *printed) ended(err error) error {
	failed := p.failed.Load()
	var silent *silentError
	if failed == nil || err != nil && !errors.As(err, &silent) {
		return err
	}
	return printingFailed(*failed)
}

func printingFailed(err error) error { return fmt.Errorf("printing: %w", pathCause(err)) }

// withoutUser is a URL fit for a message, which may end in a log: a password
// before the @ does not come back, also of one that is refused because it has no
// scheme.
func withoutUser(address string) string {
	at := strings.LastIndex(address, "@")
	if at < 0 {
		return address
	}
	scheme := ""
	if before, _, found := strings.Cut(address[:at], "://"); found {
		scheme = before + "://"
	}
	return scheme + "[redacted]" + address[at:]
}
