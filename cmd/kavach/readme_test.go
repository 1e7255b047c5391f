package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// block is one fenced block of README.md.
type block struct {
	heading, language, text string
	line                    int
}

// readmeBlocks takes README.md apart.
func readmeBlocks(t *testing.T) []block {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []block
	var open *block
	heading, n := "", 0
	for line := range strings.Lines(string(text)) {
		n++
		switch {
		case open == nil && strings.HasPrefix(line, "## "):
			heading = strings.TrimSpace(line[3:])
		case open == nil && strings.HasPrefix(line, "```"):
			open = &block{heading: heading, language: strings.TrimSpace(line[3:]), line: n}
		case open != nil && strings.HasPrefix(line, "```"):
			blocks = append(blocks, *open)
			open = nil
		case open != nil:
			open.text += line
		}
	}
	if open != nil {
		t.Fatalf("README.md:%d: the block never ends", open.line)
	}
	return blocks
}

// TestReadme walks through README.md: it starts what `make run` starts, and
// runs every other command there as it stands but for the ports, in order, in
// one folder.
func TestReadme(t *testing.T) {
	needTool(t, "bash")
	needTool(t, "curl")
	dir := t.TempDir()
	bin := buildKavach(t)
	// The commands run in the folder of the project, which holds this.
	vectors, err := filepath.Abs("../../delegation")
	if err == nil {
		err = os.Symlink(vectors, filepath.Join(dir, "delegation"))
	}
	if err != nil {
		t.Fatal(err)
	}
	public, ops, git, resource := freeLoopback(t), freeLoopback(t), freeLoopback(t), freeLoopback(t)
	ported := strings.NewReplacer("127.0.0.1:8420", public, "127.0.0.1:8421", ops, "127.0.0.1:8422", git, "127.0.0.1:9000", resource).Replace

	outputs := map[string]string{}
	started := false
	for _, b := range readmeBlocks(t) {
		switch {
		case b.language == "go":
			startReadmeServer(t, dir, ported(b.text), resource)
		case b.language != "sh":
			t.Errorf("README.md:%d: a block in %q is not run by anything", b.line, b.language)
		case strings.TrimSpace(b.text) == "make run":
			startMakeRun(t, dir, bin, "--listen", public, "--ops", ops, "--git-host", git)
			started = true
		case strings.TrimSpace(b.text) == "make test":
			// That is who is running this.
			if makeRecipe(t, "test") == "" {
				t.Errorf("README.md:%d: the Makefile has no target test", b.line)
			}
		case !started:
			t.Fatalf("README.md:%d: this comes before `make run`", b.line)
		default:
			token := ""
			if strings.Contains(b.text, "$TOKEN") {
				token = signInAndApprove(t, "http://"+public)
			}
			cmd := exec.Command("bash", "-euo", "pipefail", "-c", ported(b.text))
			cmd.Dir = dir
			cmd.Env = append(cleanEnv(), "PATH="+filepath.Dir(bin)+":"+os.Getenv("PATH"), "TOKEN="+token, "KAVACH_ISSUER=http://"+public, "KAVACH_OPS="+ops)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("README.md:%d: %v\n%s\n%s", b.line, err, b.text, out)
			}
			outputs[b.heading] += string(out)
		}
	}
	for heading, wants := range map[string][]string{
		"Connect an MCP client": {
			`401 Unauthorized`, `(?i)www-authenticate: Bearer .*resource_metadata=`, `"authorization_servers"`,
			`"command": "/.*kavach"`, `"mcp",`,
		},
		"Run an orchestrator": {
			`(?m)^diff --git `, `"text":"Close can hang`, `refused: constraint_violated: resource .*pull/848`,
			`refused: constraint_violated: resource .*pull/847/thread/4`, `refused: insufficient_scope: `,
			`refused: constraint_violated \(allow_network\): host "example.com:443"`,
		},
		"Delegate": {
			`"isError":false|"structuredContent":\{.*"token"`, `(?m)^valid, and allows the request$`,
			`└─ code-reviewer  link 1`, `(?m)refused: revoked$`, `registered release-notes`, `release-notes +dev +active`,
		},
		"Protect a resource server": {
			`200 OK`, `page handbook, for \[usr_`, `403 Forbidden`, `constraint_violated`, `401 Unauthorized`, `"authorization_servers":\[`,
			`(?m)KDT1: (\d+) vectors, (\d+) as expected$`,
		},
		"Audit":   {`delegate +allowed`, `(?m)^verdict +intact$`},
		"Operate": {`(?m)^ready$`, `(?m)^dev +operator`, `signs access tokens`, `(?m)^agent +\S+ .* lifted`, `agent\.suspend +allowed`, `code-reviewer may act again`},
	} {
		for _, want := range wants {
			if !regexp.MustCompile(want).MatchString(outputs[heading]) {
				t.Errorf("the commands of %q printed nothing like %s:\n%s", heading, want, outputs[heading])
			}
		}
	}
}

// TestReadmeLinks: what README.md points to is there.
func TestReadmeLinks(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`\]\(([^)#]+)\)`).FindAllStringSubmatch(string(text), -1) {
		if strings.Contains(m[1], "://") {
			continue
		}
		if _, err := os.Stat(filepath.Join("../..", m[1])); err != nil {
			t.Errorf("README.md points to %s: %v", m[1], err)
		}
	}
}

// makeRecipe returns the recipe of a Makefile target.
func makeRecipe(t *testing.T, target string) string {
	t.Helper()
	text, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	recipe, inside := "", false
	for line := range strings.Lines(string(text)) {
		switch {
		case strings.HasPrefix(line, target+":"):
			inside = true
		case inside && strings.HasPrefix(line, "\t"):
			recipe += strings.TrimSpace(line) + "\n"
		case inside && strings.TrimSpace(line) != "":
			inside = false
		}
	}
	return strings.TrimSpace(recipe)
}

// buildKavach builds the command once for a test.
func buildKavach(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "kavach")
	out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("building kavach: %v\n%s", err, out)
	}
	return bin
}

// cleanEnv is the environment without what would configure kavach or the shell.
func cleanEnv() []string {
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, "KAVACH_") && name != "PATH" && name != "BASH_ENV" && !strings.HasSuffix(strings.ToLower(name), "_proxy") {
			env = append(env, v)
		}
	}
	return env
}

// freeLoopback finds a loopback address that nobody listens on.
func freeLoopback(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// startMakeRun starts what `make run` starts, on other ports, and waits until it
// is ready.
func startMakeRun(t *testing.T, dir, bin string, places ...string) {
	t.Helper()
	args, ok := strings.CutPrefix(makeRecipe(t, "run"), "bin/kavach ")
	if !ok {
		t.Fatalf("`make run` does not run kavach: %s", makeRecipe(t, "run"))
	}
	cmd := exec.Command(bin, append(strings.Fields(args), places...)...)
	cmd.Dir, cmd.Env = dir, cleanEnv()
	waitFor(t, cmd, "kavach: ready ")
}

// startReadmeServer builds the Go program of README.md and starts it. It is
// built inside the module, in a folder that ./... does not see.
func startReadmeServer(t *testing.T, dir, program, address string) {
	t.Helper()
	src, err := os.MkdirTemp("testdata", "readme-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(src)
	if err := os.WriteFile(filepath.Join(src, "main.go"), []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "resource-server")
	for _, args := range [][]string{{"vet", "./" + src}, {"build", "-o", bin, "./" + src}} {
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			t.Fatalf("the program of README.md: go %s: %v\n%s", args[0], err, out)
		}
	}
	cmd := exec.Command(bin)
	cmd.Dir = dir
	waitFor(t, cmd, "")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the program of README.md does not listen: %v", err)
		}
	}
}

// waitFor starts a process that ends with the test and waits for a line of its
// stderr that begins with ready ("" for none).
func waitFor(t *testing.T, cmd *exec.Cmd, ready string) {
	t.Helper()
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	log := &lockedBuffer{}
	go func() {
		lines := bufio.NewScanner(pipe)
		for lines.Scan() {
			log.Write([]byte(lines.Text() + "\n"))
			if ready != "" && strings.HasPrefix(lines.Text(), ready) {
				said <- lines.Text()
			}
		}
		io.Copy(io.Discard, pipe)
		close(said)
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		gone := make(chan struct{})
		go func() { cmd.Wait(); close(gone) }()
		select {
		case <-gone:
		case <-time.After(15 * time.Second):
			cmd.Process.Kill()
			<-gone
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(cmd.Path), log.String())
		}
	})
	if ready == "" {
		return
	}
	select {
	case line := <-said:
		if line == "" {
			t.Fatalf("%s ended:\n%s", filepath.Base(cmd.Path), log.String())
		}
	case <-time.After(60 * time.Second):
		t.Fatalf("%s was not ready in a minute:\n%s", filepath.Base(cmd.Path), log.String())
	}
}

// TestMakefile: at most eight targets, and those that the documents name.
func TestMakefile(t *testing.T) {
	text, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	targets := regexp.MustCompile(`(?m)^([a-z]+):`).FindAllSubmatch(text, -1)
	if len(targets) > 8 {
		t.Errorf("the Makefile has %d targets", len(targets))
	}
	for _, want := range []string{"run", "build", "test", "check", "bench"} {
		if makeRecipe(t, want) == "" {
			t.Errorf("the Makefile has no target %s", want)
		}
	}
	if !bytes.Contains(text, []byte("npm ci")) {
		t.Error("make test does not install the real clients")
	}
}
