package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// documents is examples/handler in a process of its own: a resource server that
// has of kavach its public keys and nothing else.
func documents(t *testing.T, issuer string) (resource string) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "handler")
	build := exec.Command("go", "build", "-o", program, "./handler")
	build.Dir = filepath.Join("..", "examples")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building examples/handler: %v\n%s", err, out)
	}
	listen := freeAddress(t)
	resource = "http://" + listen
	cmd := exec.Command(program, "-listen", listen, "-resource", resource, "-issuer", issuer)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready, ended := make(chan bool, 1), make(chan struct{})
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(stderr)
		ready <- lines.Scan() && lines.Text() == "ready "+resource
		_, _ = io.Copy(io.Discard, stderr)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		_ = cmd.Wait()
	})
	select {
	case ok := <-ready:
		if !ok {
			t.Fatal("examples/handler did not begin to serve")
		}
	case <-time.After(time.Minute):
		t.Fatal("examples/handler did not begin to serve within a minute")
	}
	return resource
}

// TestStopped is issue 3, Show 3: kavach is killed. Whoever has its public keys
// still verifies, and authority is still handed on: five hops, with files and
// commands alone.
func TestStopped(t *testing.T) {
	s := &study{server: start(t, "--agent-ttl", "15m"), dir: t.TempDir()}
	resource := documents(t, s.Issuer)
	s.cli("", "resource", "add", resource, "--name", "Documents", "--kavach-aware", "--scope", "docs:read=Read documents", "--scope", "docs:comment=Comment")
	const scopes = "docs:comment docs:read"
	author := s.newAgent(t, "author", scopes, "--capability", "delegate", "--max-depth", "5")
	s.cli("", "agent", "grant", author.ID, "--scope", scopes, "--max-depth", "5")

	s.holder(t, "0.json")
	s.must(t, "0.jwt", "token", "--issuer", s.Issuer, "--key-file", author.KeyFile, "--holder-file", "0.json", "--resource", resource, "--scope", scopes)
	s.keySet(t)
	read := func(t *testing.T, hop int, path string) ran {
		t.Helper()
		return s.run(t, "call", resource+path, "--token-file", fmt.Sprint(hop, ".jwt"), "--key-file", fmt.Sprint(hop, ".json"), "--include")
	}
	if r := read(t, 0, "/docs/charter"); r.status != 0 {
		t.Fatalf("while kavach runs: %d %s", r.status, r.stderr)
	}

	s.kill()
	if r := s.run(t, "health", "--ops", s.Ops); r.status != 1 {
		t.Fatalf("kavach is not stopped: %d %s%s", r.status, r.stdout, r.stderr)
	}
	if r := s.run(t, "token", "--issuer", s.Issuer, "--key-file", author.KeyFile, "--holder-file", "0.json"); r.status != 1 {
		t.Fatalf("somebody signed in: %d", r.status)
	}
	if r := read(t, 0, "/docs/charter"); r.status != 0 || !strings.Contains(r.stdout, "We the people") {
		t.Errorf("the root: %d %s%s", r.status, r.stdout, r.stderr)
	}

	const hops = 5
	for hop := 1; hop <= hops; hop++ {
		s.holder(t, fmt.Sprint(hop, ".json"))
		narrower := map[int][]string{1: {"--scope", scopes}, hops: {"--scope", "docs:read", "--resource", "docs/charter", "--max-file-size", "1000"}}
		flags := narrower[hop]
		if flags == nil {
			flags = []string{"--scope", "docs:read"}
		}
		s.must(t, fmt.Sprint(hop, ".jwt"), append([]string{"delegate", "--parent", fmt.Sprint(hop-1, ".jwt"), "--key-file", fmt.Sprint(hop-1, ".json"),
			"--to", fmt.Sprint(hop, ".json.pub"), "--agent", fmt.Sprint("helper-", hop)}, flags...)...)
	}
	verify := func(file string, more ...string) ran {
		return s.run(t, append([]string{"verify", file, "--jwks", "jwks.json", "--issuer", s.Issuer, "--audience", resource, "--json"}, more...)...)
	}
	asked := []string{"--scope", "docs:read", "--without", "network", "--size", "41", "--resource"}
	var verdict struct {
		Valid, Allowed bool
		Reason         string
		Path           []string
		Chain          []map[string]any
	}
	r := verify("5.jwt", append(asked, "docs/charter")...)
	decode(t, r.stdout, &verdict)
	if path := []string{author.ID, "helper-1", "helper-2", "helper-3", "helper-4", "helper-5"}; r.status != 0 || !verdict.Valid || !verdict.Allowed ||
		!slices.Equal(verdict.Path, path) || len(verdict.Chain) != hops+1 {
		t.Errorf("verify: %d %s%s", r.status, r.stdout, r.stderr)
	}
	r = verify("5.jwt", append(asked, "docs/minutes")...)
	if decode(t, r.stdout, &verdict); r.status != 1 || verdict.Allowed || verdict.Reason != "constraint_violated" {
		t.Errorf("verify of another document: %d %s%s", r.status, r.stdout, r.stderr)
	}
	if r := read(t, hops, "/docs/charter"); r.status != 0 || !strings.Contains(r.stdout, "We the people") {
		t.Errorf("five hops: %d %s%s", r.status, r.stdout, r.stderr)
	}

	// And what was refused before still is.
	r = read(t, hops, "/docs/minutes")
	if said := `refused: constraint_violated: resource "docs/minutes" (status 403 of ` + strings.TrimPrefix(resource, "http://") + ")"; r.status != 1 || r.says(t) != said {
		t.Errorf("another document: %d %s", r.status, r.stderr)
	}
	s.holder(t, "6.json")
	r = s.run(t, "delegate", "--parent", "5.jwt", "--key-file", "5.json", "--to", "6.json.pub", "--agent", "helper-6", "--scope", "docs:read")
	if r.status != 1 || !strings.HasPrefix(r.says(t), "refused: depth_invalid") {
		t.Errorf("a sixth hop: %d %s", r.status, r.stderr)
	}
	for name, chain := range map[string]string{
		"signature_invalid": newEd25519().link(s.read(t, "1.jwt"), readKey(t, s.file("6.json")), "stranger"),
		"depth_invalid":     readKey(t, s.file("5.json")).link(s.read(t, "5.jwt"), readKey(t, s.file("6.json")), "sixth"),
	} {
		s.write(t, "6.jwt", chain)
		r := verify("6.jwt")
		if decode(t, r.stdout, &verdict); r.status != 1 || verdict.Valid || verdict.Reason != name {
			t.Errorf("verify, not %s: %d %s%s", name, r.status, r.stdout, r.stderr)
		}
		printed := read(t, 6, "/docs/charter")
		if got := answer(t, printed.stdout); printed.status != 1 || got.StatusCode != http.StatusUnauthorized || challenged(got.Header) != "invalid_token" {
			t.Errorf("not %s: %d %s%s", name, printed.status, printed.stdout, printed.stderr)
		}
	}
}
