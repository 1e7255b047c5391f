package main

import (
	"bytes"
	"errors"
	"io"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/kavach-dev/kavach/demo"
)

// fullDisk is a standard output that takes nothing.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// "exit 0, 1 (failed)": what could not be printed was not done. A handle works
// once, so a token that went nowhere must not look like one that did.
func TestPrintingFails(t *testing.T) {
	key := filepath.Join(t.TempDir(), "holder.key.json")
	for _, args := range [][]string{
		{"version"},
		{"holder", "new", "--out", key},
		{"proof", "--key-file", key, "--method", "GET", "--url", "https://git.internal/"},
	} {
		var errs bytes.Buffer
		w := &world{ctx: t.Context(), stdin: strings.NewReader(""), stdout: fullDisk{}, stderr: &errs, now: now}
		if status := w.run(args); status != exitFailed || !strings.Contains(errs.String(), "kavach: error: printing: no space left on device\n") {
			t.Errorf("%v: exit status %d, %q", args, status, errs.String())
		}
	}
}

// closedPipe is a reader that has gone away after the first line.
type closedPipe struct{ lines int }

func (p *closedPipe) Write(text []byte) (int, error) {
	if p.lines++; p.lines > 1 {
		return 0, syscall.EPIPE
	}
	return len(text), nil
}

// The story ends where nobody reads it, and says that it did not come to its
// end.
func TestDemoUnread(t *testing.T) {
	var errs bytes.Buffer
	w := &world{ctx: t.Context(), stdin: strings.NewReader(""), stdout: &closedPipe{}, stderr: &errs, now: now}
	err := (&demoCmd{}).Run(w)
	if !errors.Is(err, syscall.EPIPE) {
		t.Errorf("it ends with %v", err)
	}
}

// A password in a URL comes back in no message: those stand in logs.
func TestNoPasswordInErrors(t *testing.T) {
	for _, args := range [][]string{
		{"call", "https://dev:hunter2@git.internal/", "--token-file", "x"},
		{"proof", "--key-file", "x", "--method", "GET", "--url", "https://dev:hunter2@git.internal/"},
		{"token", "--issuer", "https://dev:hunter2@auth.example", "--key-file", "x"},
		{"mcp", "--issuer", "https://dev:hunter2@auth.example/%zz", "--key-file", "x"},
		{"call", "https://dev:hunter2@git.internal/%zz", "--token-file", "x"},
		{"call", "dev:hunter2@git.internal/pull/847", "--token-file", "x"},
		{"token", "--issuer", "https:/dev:hunter2@auth.example", "--key-file", "x"},
	} {
		var errs bytes.Buffer
		w := &world{ctx: t.Context(), stdin: strings.NewReader(""), stdout: io.Discard, stderr: &errs, now: now}
		if status := w.run(args); status != exitUsage || errs.Len() == 0 || strings.Contains(errs.String(), "hunter2") {
			t.Errorf("%v: exit status %d, %q", args, status, errs.String())
		}
	}
}

// A server that repeats the token in its error puts it into no message.
func TestNoTokenInErrors(t *testing.T) {
	answer := httptest.NewRecorder()
	answer.WriteHeader(401)
	resp := answer.Result()
	resp.Request = httptest.NewRequest("GET", "https://git.internal/", nil)
	err := statusError(resp, []byte(`{"error":"invalid_request","error_description":"bad eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2ln"}`))
	if want := "refused: invalid_request: bad [redacted] (status 401 of git.internal)"; err.Error() != want {
		t.Errorf("%q, not %q", err, want)
	}
}

// A transcript that is not whole is none: the story does not end as if it were.
func TestDemoTranscriptCut(t *testing.T) {
	name := filepath.Join(t.TempDir(), "transcript")
	err := (&demoCmd{Transcript: name, change: func(c *demo.Config) {
		transcript, ok := c.Transcript.(*printed)
		if !ok {
			t.Fatal("nobody looks after the transcript")
		}
		transcript.to = fullDisk{}
	}}).Run(&world{ctx: t.Context(), stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, now: now})
	if !errors.Is(err, syscall.ENOSPC) || err.Error() != "writing "+name+": no space left on device" {
		t.Errorf("it ends with %v", err)
	}
}
