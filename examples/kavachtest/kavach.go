// Package kavachtest runs a real kavach for the tests of the examples: the
// binary, built from this tree, on loopback, with --dev.
package kavachtest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Server is a running kavach.
type Server struct {
	// Issuer is its address.
	Issuer string
	// Data is its folder.
	Data string

	binary string
}

// Resource is what a resource server is registered with.
type Resource struct {
	URL, Name string
	// Scopes are like "wiki:read=Read pages".
	Scopes []string
}

// Start builds kavach, registers the resources and serves until the test ends.
func Start(t *testing.T, resources ...Resource) *Server {
	t.Helper()
	dir := t.TempDir()
	s := &Server{Issuer: FreeURL(t), Data: filepath.Join(dir, "data"), binary: filepath.Join(dir, "kavach")}
	build(t, moduleFolder(t), s.binary, "./cmd/kavach")
	for _, r := range resources {
		args := []string{"resource", "add", r.URL, "--name", r.Name, "--kavach-aware"}
		for _, scope := range r.Scopes {
			args = append(args, "--scope", scope)
		}
		s.Operate(t, args...)
	}
	run(t, "kavach: ready ", s.binary, "serve", "--dev", "--data", s.Data, "--listen", strings.TrimPrefix(s.Issuer, "http://"), "--ops", strings.TrimPrefix(FreeURL(t), "http://"), "--git-host", "")
	return s
}

// Operate runs a command of kavach on the server's data and returns what it
// prints.
func (s *Server) Operate(t *testing.T, args ...string) string {
	t.Helper()
	return s.command(t, append(args, "--dev", "--data", s.Data)...)
}

func (s *Server) command(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(s.binary, args...)
	cmd.Env = append(os.Environ(), "KAVACH_ISSUER="+s.Issuer)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("kavach %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// Agent makes an agent whose files are put into a folder, registers it with dev
// as its owner, and grants it all its scopes. flags go to `kavach agent create`.
func (s *Server) Agent(t *testing.T, folder, name, scopes string, flags ...string) {
	t.Helper()
	s.command(t, append([]string{"agent", "create", name, "--version", "1.0.0", "--purpose", "Shows how", "--scope", scopes, "--out", folder}, flags...)...)
	enrolment := filepath.Join(t.TempDir(), "enrolment")
	if err := os.WriteFile(enrolment, []byte(s.Operate(t, "agent", "enrol", "--owner", "dev")), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(folder, name)
	s.command(t, "agent", "register", "--issuer", s.Issuer, "--key-file", file+".key.json", "--manifest", file+".manifest.jwt", "--enrolment-file", enrolment)
	s.Operate(t, "agent", "grant", name, "--scope", scopes)
}

// Run builds the program of an example and runs it until the test ends. It
// returns when the program says that it is ready: "ready URL" on standard error.
func Run(t *testing.T, folder string, args ...string) {
	t.Helper()
	run(t, "ready ", Build(t, folder), args...)
}

// Build builds the program of an example and returns its file.
func Build(t *testing.T, folder string) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "program")
	build(t, folder, binary, ".")
	return binary
}

// FreeURL is an origin on loopback that nobody serves. Its port is below those
// that systems give to connections, which could have taken it by the time that a
// program listens there.
func FreeURL(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000))
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return "http://" + address
		}
	}
	t.Fatal("no free port")
	return ""
}

func build(t *testing.T, dir, binary, what string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", binary, what)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", what, err, out)
	}
}

// moduleFolder is where kavach's own module is: its command has dependencies
// that nobody who imports the libraries needs.
func moduleFolder(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/kavach-dev/kavach").Output()
	if err != nil {
		t.Fatalf("finding kavach: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// run starts a program and waits for a line of its standard error.
func run(t *testing.T, ready, binary string, args ...string) {
	t.Helper()
	cmd := exec.Command(binary, args...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	log := &lines{ready: ready, seen: make(chan bool, 1)}
	var reading sync.WaitGroup
	reading.Go(func() { log.read(stderr) })
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		reading.Wait()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(binary), log.text())
		}
	})
	select {
	case ok := <-log.seen:
		if !ok {
			t.Fatalf("%s ended before it was ready", filepath.Base(binary))
		}
	case <-time.After(time.Minute):
		t.Fatalf("%s is not ready after a minute", filepath.Base(binary))
	}
}

// lines is what a program writes to standard error.
type lines struct {
	ready string
	seen  chan bool // gets true at the line that begins with ready, or false at the end

	mu  sync.Mutex
	all bytes.Buffer // guarded by mu
}

func (l *lines) read(r io.Reader) {
	found := false
	for scanner := bufio.NewScanner(r); scanner.Scan(); {
		l.mu.Lock()
		l.all.WriteString(scanner.Text() + "\n")
		l.mu.Unlock()
		if !found && strings.HasPrefix(scanner.Text(), l.ready) {
			found = true
			l.seen <- true
		}
	}
	if !found {
		l.seen <- false
	}
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}
