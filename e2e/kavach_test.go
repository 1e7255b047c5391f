// Package e2e tests the built kavach binary from outside: with the official
// clients, a real browser and the conformance tool, over HTTP on loopback. It
// imports nothing of kavach.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary is the kavach that every test runs, built once by TestMain.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "kavach-e2e-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "kavach")
	args := []string{"build", "-o", binary}
	if os.Getenv("KAVACH_E2E_RACE") != "" {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "./cmd/kavach")...)
	build.Dir = ".."
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		panic(fmt.Sprintf("building kavach: %v", err))
	}
	code := m.Run()
	endSharedCluster()
	os.RemoveAll(dir)
	os.Exit(code)
}

// server is one running kavach.
type server struct {
	t      *testing.T
	Issuer string
	Ops    string
	Data   string
	listen string // if that is not what the issuer says
	args   []string
	site   site
	cmd    *exec.Cmd
	exited chan error
	// replicas are the processes, if they are several; then Issuer and Ops are of
	// the proxy before them and there is no cmd.
	replicas []*server
	balancer *balancer
	database *database // theirs

	mu  sync.Mutex
	log bytes.Buffer
}

// freeAddress finds a loopback address nobody listens on. Its port is below
// those that systems give to connections, which could have taken it by the time
// that a program listens there.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000))
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

// site is where a server and the commands beside it run; the zero site is
// this machine as it is, with SQLite.
type site struct {
	// Data is the data folder; empty makes one.
	Data string
	// DB is the database, if it is not a file in Data.
	DB string
	// Inside is a command that runs what follows it somewhere else, such as in
	// another mount namespace.
	Inside []string
}

// command is kavach with args on that site.
func (p site) command(args ...string) *exec.Cmd {
	line := append(slices.Clone(p.Inside), append([]string{binary}, args...)...)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = os.Environ()
	if p.DB != "" {
		cmd.Env = append(cmd.Env, "KAVACH_DB="+p.DB)
	}
	return cmd
}

// start runs `kavach serve --dev` on addresses and a directory of its own and
// waits until it accepts. It is stopped with the test. KAVACH_E2E_STORE=replicas
// makes it three processes on PostgreSQL behind a proxy (replicas_test.go).
func start(t *testing.T, args ...string) *server {
	t.Helper()
	return startIn(t, site{}, args...)
}

// startIn is start on another site.
func startIn(t *testing.T, p site, args ...string) *server {
	t.Helper()
	if os.Getenv("KAVACH_E2E_STORE") == "replicas" && p.Data == "" && p.DB == "" && p.Inside == nil {
		return startReplicas(t, args...)
	}
	if p.Data == "" {
		p.Data = filepath.Join(t.TempDir(), "data")
	}
	listen := freeAddress(t)
	s := &server{t: t, Issuer: "http://" + listen, Ops: freeAddress(t), Data: p.Data, site: p}
	s.args = append([]string{"serve", "--dev", "--listen", listen, "--ops", s.Ops, "--data", s.Data, "--git-host", ""}, args...)
	s.run()
	t.Cleanup(func() { s.kill(); s.complain() })
	return s
}

func (s *server) run() {
	s.t.Helper()
	for _, r := range s.replicas {
		r.run()
	}
	if s.replicas != nil {
		return
	}
	s.cmd = s.site.command(s.args...)
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	s.cmd.Stdout = io.Discard
	ready, drained := make(chan struct{}), make(chan struct{})
	if s.exited, err = spawn(s.cmd, drained); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		defer close(drained)
		var once sync.Once
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			s.mu.Lock()
			s.log.WriteString(lines.Text() + "\n")
			s.mu.Unlock()
			if strings.HasPrefix(lines.Text(), "kavach: ready ") {
				once.Do(func() { close(ready) })
			}
		}
	}()
	select {
	case <-ready:
	case err := <-s.exited:
		s.t.Fatalf("kavach ended before it was ready: %v\n%s", err, s.output())
	case <-time.After(60 * time.Second):
		s.t.Fatalf("kavach was not ready within a minute\n%s", s.output())
	}
}

// spawn starts a program that dies with the test, even one that is killed. It
// is waited for once drained is closed; then exited has how it ended.
func spawn(cmd *exec.Cmd, drained <-chan struct{}) (exited chan error, err error) {
	dieWithUs(cmd)
	exited = make(chan error, 1)
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // dies with the thread that started it: it must not end before
		err := cmd.Start()
		started <- err
		if err == nil {
			<-drained
			exited <- cmd.Wait()
		}
	}()
	return exited, <-started
}

// kill ends the server as a power cut would.
func (s *server) kill() {
	for _, r := range s.replicas {
		r.kill()
	}
	if s.cmd == nil {
		return
	}
	s.cmd.Process.Kill()
	<-s.exited
	s.cmd = nil
}

// stop asks the server to drain and returns how it ended.
func (s *server) stop() error {
	if s.replicas != nil {
		return stopAll(s.replicas)
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	err := <-s.exited
	s.cmd = nil
	return err
}

func (s *server) output() string {
	var all strings.Builder
	for _, r := range s.replicas {
		all.WriteString(r.output())
	}
	if s.replicas != nil {
		return all.String()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// complain fails the test if the server panicked or raced meanwhile.
func (s *server) complain() {
	out := s.output()
	for _, bad := range []string{"panic:", "DATA RACE", "panic serving"} {
		if strings.Contains(out, bad) {
			s.t.Errorf("the server's log has %q:\n%s", bad, out)
			return
		}
	}
	if s.t.Failed() {
		s.t.Logf("server log:\n%s", out)
	}
}

// cli runs an operator command beside the server and returns its stdout.
func (s *server) cli(stdin string, args ...string) string {
	s.t.Helper()
	out, err := s.tryCLI(stdin, args...)
	if err != nil {
		s.t.Fatalf("kavach %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func (s *server) tryCLI(stdin string, args ...string) (string, error) {
	cmd := s.site.command(append(args, "--dev", "--data", s.Data)...)
	cmd.Env = append(cmd.Env, "KAVACH_ISSUER="+s.Issuer)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%w: %s", err, stderr.String())
	}
	return stdout.String(), nil
}

// offline runs a command that needs no server in a directory of its own.
func (s *server) offline(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Dir = dir
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("kavach %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String()
}

// need skips the test when a tool is missing; under CI that is a failure.
func need(t *testing.T, what string, present bool) {
	t.Helper()
	if present {
		return
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing; `make test` installs it", what)
	}
	t.Skipf("%s is missing; `make test` installs it", what)
}

func needNode(t *testing.T) {
	t.Helper()
	_, err := os.Stat(filepath.Join("node", "node_modules", "@modelcontextprotocol", "client"))
	need(t, "e2e/node/node_modules", err == nil)
}

// node runs a script of e2e/node and returns its stdout; exit 1 fails the test.
func (s *server) node(t *testing.T, env []string, script string, args ...string) string {
	t.Helper()
	return command(t, append([]string{"ISSUER=" + s.Issuer}, env...), "node", append([]string{script}, args...)...)
}

// command runs a program in e2e/node and returns its stdout; if it fails, so
// does the test.
func command(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = "node"
	cmd.Env = append(os.Environ(), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s\n%s", filepath.Base(name), strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// getJSON fetches a document and decodes it.
func getJSON(t *testing.T, url string, into any) *http.Response {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return response
}
