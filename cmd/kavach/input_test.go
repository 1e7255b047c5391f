package main

import (
	"context"
	"io"
	"strings"
	"testing"
)

// TestReadingEndsWithTheCommand: who forgot to pipe something in can leave.
func TestReadingEndsWithTheCommand(t *testing.T) {
	never, typed := io.Pipe() // a terminal at which nobody types
	defer typed.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	var out, diag strings.Builder
	w := &world{ctx: ctx, stdin: never, stdout: &out, stderr: &diag, now: now}
	if code := w.run([]string{"token", "inspect", "-"}); code != exitFailed || diag.String() != "kavach: error: reading -: interrupted\n" {
		t.Errorf("exit status %d, %q", code, diag.String())
	}
}
