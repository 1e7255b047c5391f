// Command kavach is the authorization server, the MCP server and the tools
// around them, in one binary.
//
// Its manners: data goes to stdout and nothing else does; everything said to a
// person goes to stderr as "kavach: error: …", "kavach: hint: …" or
// "kavach: …"; "-" reads standard input; --json prints for machines; the exit
// status is 0 when it worked, 1 when it failed and 2 when it was called wrongly.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// Exit statuses (design §4.9).
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() { os.Exit(mainExit()) }

// mainExit runs the process's own command line and returns its exit status.
func mainExit() int {
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup means it to go on
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	// A second signal does not wait for what the first one began.
	context.AfterFunc(ctx, stop)
	w := &world{ctx: ctx, stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, now: now}
	return w.run(os.Args[1:])
}

// world is everything outside the process that a command may touch: commands
// get it as an argument and reach for nothing else, so tests can drive them.
type world struct {
	ctx            context.Context
	stdin          io.Reader
	stdout, stderr io.Writer
	now            func() time.Time
}

// run parses args, runs the command they name and returns the exit status.
func (w *world) run(args []string) int {
	exited := -1
	var grammar cli
	parser, err := newParser(&grammar,
		kong.Writers(w.stdout, w.stderr),
		kong.Exit(func(code int) { exited = code; panic(exitPanic{}) }),
	)
	if err != nil {
		panic(err) // the grammar is a constant: a test would have seen this
	}
	if len(args) == 0 {
		w.helpOnStderr(parser)
		return exitUsage
	}
	var kctx *kong.Context
	func() {
		defer func() {
			if p := recover(); p != nil {
				if _, ours := p.(exitPanic); !ours {
					panic(p)
				}
			}
		}()
		kctx, err = parser.Parse(hyphenated(parser.Model.Node, plainly(args)))
	}()
	if exited >= 0 {
		return exited // --help printed itself
	}
	if err != nil {
		return w.fail(usage(err, helpHint(err, kctx)))
	}
	if err := refuseSecretArguments(args); err != nil {
		return w.fail(err)
	}
	inside, out := *w, &printed{to: w.stdout}
	inside.stdout = out
	return w.fail(out.ended(kctx.Run(&inside)))
}

// exitPanic unwinds kong out of a parse that --help has already answered.
type exitPanic struct{}

// helpOnStderr prints the command list where diagnostics go: a bare "kavach"
// asked for no data.
func (w *world) helpOnStderr(parser *kong.Kong) {
	parser.Stdout = w.stderr
	if kctx, err := kong.Trace(parser, nil); err == nil {
		_ = kctx.PrintUsage(false)
	}
}

// fail says what went wrong and returns the exit status that goes with it.
func (w *world) fail(err error) int {
	if err == nil {
		return exitOK
	}
	var silent *silentError
	if !errors.As(err, &silent) {
		fmt.Fprintf(w.stderr, "kavach: error: %s\n", oneLine(err.Error()))
	}
	var hinted *hintedError
	if errors.As(err, &hinted) && hinted.hint != "" {
		for line := range strings.SplitSeq(hinted.hint, "\n") {
			fmt.Fprintf(w.stderr, "kavach: hint: %s\n", line)
		}
	}
	var u *usageError
	if errors.As(err, &u) {
		return exitUsage
	}
	return exitFailed
}

// note tells a person what happened, on stderr.
func (w *world) note(format string, args ...any) {
	fmt.Fprintf(w.stderr, "kavach: "+format+"\n", args...)
}

// helpHint names the help page that fits the command that was being parsed.
func helpHint(err error, kctx *kong.Context) string {
	var parse *kong.ParseError
	if kctx == nil && errors.As(err, &parse) {
		kctx = parse.Context
	}
	if kctx != nil {
		if cmd := kctx.Selected(); cmd != nil {
			return "run `" + cmd.FullPath() + " --help`"
		}
	}
	return "run `kavach --help`"
}
