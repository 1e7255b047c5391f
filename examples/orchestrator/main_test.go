package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/examples/kavachtest"
)

// TestOrchestrator runs it with a real kavach and the host of ../handler.
func TestOrchestrator(t *testing.T) {
	host := kavachtest.FreeURL(t)
	kavach := kavachtest.Start(t, kavachtest.Resource{
		URL: host, Name: "Documents", Scopes: []string{"docs:read=Read documents", "docs:comment=Comment on documents"},
	})
	kavachtest.Run(t, "../handler", "--listen", strings.TrimPrefix(host, "http://"), "--resource", host, "--issuer", kavach.Issuer)
	agents := t.TempDir()
	kavach.Agent(t, agents, "editor", "docs:read docs:comment", "--capability", "delegate")
	kavach.Agent(t, agents, "proofreader", "docs:read docs:comment")
	out, err := exec.Command(kavachtest.Build(t, "."), "--issuer", kavach.Issuer, "--docs", host, "--agents", agents).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"signed in as ",
		` for docs:comment docs:read`,
		`reads the charter: 200 "We the people`,
		`comments on paragraph 1: 201 `,
		`reads the minutes: 403 `,
		`comments with the token to read: 403 `,
		`comments on paragraph 2: 403 `,
		`calls another host: refused before a byte left: elsewhere.example:443`,
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it does not say %q", want)
		}
	}
	t.Logf("\n%s", out)
	// Signing in stands in the log. What was handed on offline does not: the document
	// document host would have to report that.
	if log := kavach.Operate(t, "audit", "list", "--limit", "5"); !strings.Contains(log, "token.issue") {
		t.Errorf("the log has no sign-in:\n%s", log)
	}
}
