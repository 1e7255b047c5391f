package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes the test binary answer as kavach, so that scripts run the real
// command line in processes of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kavach": main})
}

// TestScripts runs testdata/script: every command, as a manual would show it.
func TestScripts(t *testing.T) {
	params := scripts()
	params.Dir = filepath.Join("testdata", "script")
	testscript.Run(t, params)
}

// scripts is how scripts are run, wherever they are.
func scripts() testscript.Params {
	return testscript.Params{
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("KAVACH_UPDATE") != "",
		Setup:               setupScript,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"server":     cmdServer,
			"get":        cmdGet,
			"eventually": cmdEventually,
			"mode":       cmdMode,
			"capture":    cmdCapture,
			"issue":      cmdIssue,
			"tamper":     cmdTamper,
			"status":     cmdStatus,
			"freeport": func(ts *testscript.TestScript, neg bool, args []string) {
				address := freeAddress(ts)
				_, port, err := net.SplitHostPort(address)
				ts.Check(err)
				ts.Setenv(args[0], address)
				ts.Setenv(args[0]+"_PORT", port)
			},
		},
	}
}

func setupScript(env *testscript.Env) error {
	// The environment of whoever runs the tests must not configure kavach.
	kept := env.Vars[:0]
	for _, v := range env.Vars {
		if !strings.HasPrefix(v, "KAVACH_") {
			kept = append(kept, v)
		}
	}
	env.Vars = kept
	vectors, err := filepath.Abs("../../delegation/testdata")
	if err != nil {
		return err
	}
	env.Setenv("VECTORS", vectors)
	servers := &scriptServers{}
	env.Values[serversKey{}] = servers
	env.Defer(servers.killAll)
	return nil
}

type serversKey struct{}

// scriptServers are the servers that one script started.
type scriptServers struct {
	mu      sync.Mutex
	running []*scriptServer
}

// scriptServer is a `kavach serve` in a process of its own.
type scriptServer struct {
	cmd    *exec.Cmd
	stderr *lockedBuffer
	exited chan error
}

func (s *scriptServers) killAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.running {
		one.cmd.Process.Kill()
		<-one.exited
	}
	s.running = nil
}

// cmdServer starts and stops servers:
//
//	server start ARGS…   runs kavach serve ARGS…, waits until it is ready and sets
//	                     $ISSUER and $OPS (given a port 0, what was bound)
//	server log           copies what the last one wrote to stderr into the file
//	                     server.log
//	server stop          sends SIGTERM and expects exit status 0; then as log
//	server kill          sends SIGKILL
func cmdServer(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 || neg {
		ts.Fatalf("usage: server start|stop|kill|log")
	}
	servers := ts.Value(serversKey{}).(*scriptServers)
	servers.mu.Lock()
	defer servers.mu.Unlock()
	if args[0] == "start" {
		one := startServer(ts, args[1:])
		servers.running = append(servers.running, one)
		return
	}
	if len(servers.running) == 0 {
		ts.Fatalf("no server is running")
	}
	last := servers.running[len(servers.running)-1]
	switch args[0] {
	case "stop":
		start := time.Now()
		ts.Check(last.cmd.Process.Signal(syscall.SIGTERM))
		err := <-last.exited
		servers.running = servers.running[:len(servers.running)-1]
		if err != nil {
			ts.Fatalf("after SIGTERM: %v\n%s", err, last.stderr.String())
		}
		if took := time.Since(start); took > stopTimeout+5*time.Second {
			ts.Fatalf("draining took %s", took)
		}
	case "kill":
		ts.Check(last.cmd.Process.Kill())
		<-last.exited
		servers.running = servers.running[:len(servers.running)-1]
	case "log":
	default:
		ts.Fatalf("usage: server start|stop|kill|log")
	}
	ts.Check(os.WriteFile(ts.MkAbs("server.log"), []byte(last.stderr.String()), 0o600))
}

// startServer runs kavach serve and waits for its ready line.
func startServer(ts *testscript.TestScript, args []string) *scriptServer {
	// Exec looks kavach up in the script's PATH, where testscript put it.
	path := ""
	for dir := range strings.SplitSeq(ts.Getenv("PATH"), string(os.PathListSeparator)) {
		if info, err := os.Stat(filepath.Join(dir, "kavach")); err == nil && !info.IsDir() {
			path = filepath.Join(dir, "kavach")
			break
		}
	}
	if path == "" {
		ts.Fatalf("no kavach in PATH")
	}
	ops := freeAddress(ts)
	full := append([]string{"serve", "--ops", ops}, args...)
	s := &scriptServer{cmd: exec.Command(path, full...), stderr: &lockedBuffer{}, exited: make(chan error, 1)}
	s.cmd.Dir = ts.MkAbs(".")
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "KAVACH_ISSUER", "KAVACH_DATA", "KAVACH_DB", "KAVACH_DB_FILE", "KAVACH_D1_TOKEN", "KAVACH_LISTEN", "KAVACH_TLS_CERT", "KAVACH_TLS_KEY"} {
		s.cmd.Env = append(s.cmd.Env, name+"="+ts.Getenv(name))
	}
	pipe, err := s.cmd.StderrPipe()
	ts.Check(err)
	ts.Check(s.cmd.Start())
	ready := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(pipe)
		for lines.Scan() {
			s.stderr.Write([]byte(lines.Text() + "\n"))
			if issuer, ok := strings.CutPrefix(lines.Text(), "kavach: ready "); ok {
				ready <- issuer
			}
		}
		io.Copy(io.Discard, pipe)
		s.exited <- s.cmd.Wait()
	}()
	select {
	case issuer := <-ready:
		ts.Setenv("ISSUER", issuer)
		ts.Setenv("OPS", ops)
		return s
	case err := <-s.exited:
		ts.Fatalf("kavach serve ended before it was ready: %v\n%s", err, s.stderr.String())
	case <-time.After(60 * time.Second):
		s.cmd.Process.Kill()
		ts.Fatalf("kavach serve was not ready in a minute\n%s", s.stderr.String())
	}
	return nil
}

// lockedBuffer collects what a process writes.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// freeAddress finds a loopback address that nobody listens on.
func freeAddress(ts *testscript.TestScript) string {
	l, err := listenLoopback()
	ts.Check(err)
	defer l.Close()
	return l.Addr().String()
}

// cmdGet asks a server and compares the status:
//
//	get STATUS URL [FILE]   GET, the body into FILE
//	get STATUS URL FILE -d key=value…   POST of a form
func cmdGet(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("usage: get STATUS URL [FILE] [-d key=value…]")
	}
	client := &http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	var resp *http.Response
	var err error
	if len(args) > 3 && args[3] == "-d" {
		form := url.Values{}
		for _, pair := range args[4:] {
			key, value, _ := strings.Cut(pair, "=")
			form.Add(key, value)
		}
		resp, err = client.PostForm(args[1], form)
	} else {
		resp, err = client.Get(args[1])
	}
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	if len(args) > 2 {
		ts.Check(os.WriteFile(ts.MkAbs(args[2]), body, 0o600))
	}
	if got := fmt.Sprint(resp.StatusCode); got != args[0] {
		ts.Fatalf("%s answers %s, want %s\n%s", args[1], got, args[0], body)
	}
}

// cmdEventually asks until the answer matches a pattern, for ten seconds:
// eventually PATTERN URL.
func cmdEventually(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 || neg {
		ts.Fatalf("usage: eventually PATTERN URL")
	}
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	var body []byte
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(args[1])
		ts.Check(err)
		body, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		ts.Check(err)
		if pattern.Match(body) {
			return
		}
	}
	ts.Fatalf("%s never answers %s:\n%s", args[1], args[0], body)
}

// cmdMode checks the permissions of a file: mode 0600 FILE.
func cmdMode(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: mode MODE FILE")
	}
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); (got == args[0]) == neg {
		ts.Fatalf("%s has mode %s", args[1], got)
	}
}

// cmdCapture puts the last standard output, trimmed, or the group of a pattern
// in it, into a variable: capture NAME [PATTERN].
func cmdCapture(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 || len(args) > 2 || neg {
		ts.Fatalf("usage: capture NAME [PATTERN]")
	}
	text := strings.TrimSpace(ts.ReadFile("stdout"))
	if len(args) == 2 {
		found := regexp.MustCompile(args[1]).FindStringSubmatch(text)
		if len(found) != 2 {
			ts.Fatalf("%s is not in:\n%s", args[1], text)
		}
		text = found[1]
	}
	ts.Setenv(args[0], text)
}

// cmdStatus runs a command and compares its exit status: status 2 kavach fly.
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("usage: status N COMMAND…")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("%s: exit status %d, want %s", strings.Join(args[1:], " "), got, args[0])
	}
}

// cmdTamper runs SQL on a database, past every guard: tamper FILE SQL…
func cmdTamper(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("usage: tamper FILE SQL…")
	}
	if err := tamper(ts.MkAbs(args[0]), args[1:]); err != nil {
		ts.Fatalf("tamper: %v", err)
	}
}

// needTool skips a test for a missing tool; under CI that is a failure.
func needTool(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err == nil || !errors.Is(err, exec.ErrNotFound) {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing: `make test` installs what the tests need", name)
	}
	t.Skipf("%s is missing: `make test` installs what the tests need", name)
}
