package main

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/jcs"
)

// TestMCPOutlivesItsToken: a client of `kavach mcp` runs for days. What its
// agent may do is taken away and given back meanwhile, and each request gets
// what is true then.
func TestMCPOutlivesItsToken(t *testing.T) {
	dir, bin := t.TempDir(), buildKavach(t)
	public, ops := freeLoopback(t), freeLoopback(t)
	startMakeRun(t, dir, bin, "--listen", public, "--ops", ops, "--git-host", "")
	kavach := func(args ...string) {
		t.Helper()
		cmd := exec.Command(bin, args...)
		cmd.Dir, cmd.Env = dir, append(cleanEnv(), "KAVACH_ISSUER=http://"+public)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("kavach %v: %v\n%s", args, err, out)
		}
	}

	kavach("agent", "grant", "orchestrator", "--scope", "kavach:verify", "--dev")
	cmd := exec.Command(bin, "mcp", "--issuer", "http://"+public, "--key-file", filepath.Join(".kavach-dev", "agents", "orchestrator.key.json"))
	cmd.Dir, cmd.Env = dir, cleanEnv()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	answers := bufio.NewScanner(out)
	id := 0
	ping := func() jcs.Value {
		t.Helper()
		id++
		fmt.Fprintf(in, `{"jsonrpc":"2.0","id":%d,"method":"ping"}`+"\n", id)
		if !answers.Scan() {
			t.Fatal("it ended")
		}
		v, err := jcs.Parse(answers.Bytes(), jcs.Limits{})
		if n, _ := v.Get("id").Int(); err != nil || n != int64(id) {
			t.Fatalf("%v: %s", err, answers.Text())
		}
		return v
	}
	// A process beside the server has its word taken within seconds.
	until := func(what string, done func(jcs.Value) bool) {
		t.Helper()
		var v jcs.Value
		for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
			if v = ping(); done(v) {
				return
			}
		}
		t.Fatalf("%s: still %s", what, jcs.Canonical(v))
	}
	answered := func(v jcs.Value) bool { return v.Get("result").Exists() }

	if v := ping(); !answered(v) {
		t.Fatalf("at first: %s", jcs.Canonical(v))
	}
	kavach("agent", "grant", "orchestrator", "--remove", "--dev")
	until("without a grant", func(v jcs.Value) bool {
		return strings.Contains(v.Get("error").Get("message").Str(), "kavach agent grant")
	})
	kavach("agent", "grant", "orchestrator", "--scope", "kavach:verify", "--dev")
	until("with a grant again", answered)

	in.Close()
	if rest, err := io.ReadAll(out); err != nil || len(rest) > 0 {
		t.Errorf("after the end of input: %v %q", err, rest)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("at the end of input: %v", err)
	}
}
