package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

const configurationFile = "../../docs/configuration.md"

// TestConfiguration keeps docs/configuration.md the table of what the binary
// takes. KAVACH_UPDATE=1 writes it.
func TestConfiguration(t *testing.T) {
	want := configurationPage(t)
	if os.Getenv("KAVACH_UPDATE") != "" {
		if err := os.WriteFile(configurationFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(configurationFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("docs/configuration.md is out of date: KAVACH_UPDATE=1 go test -run TestConfiguration ./cmd/kavach")
	}
}

// configurationPage writes the page from the grammar.
func configurationPage(t *testing.T) string {
	t.Helper()
	var grammar cli
	parser, err := newParser(&grammar, kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString(`# Configuration

<!-- Written by a test from the command line's own grammar: KAVACH_UPDATE=1 go test -run TestConfiguration ./cmd/kavach -->

Everything is a flag; there is no configuration file. What configures can be an environment variable as well: all of ` + "`serve`" + `, and where a command works. What a command does, and to whom, is said on its command line. A flag wins over its variable, and an empty variable is not set. Secrets are read from files, a terminal or standard input (` + "`-`" + `), never from an argument.

## What tests may set

| variable | meaning |
|---|---|
| ` + "`KAVACH_CLOCK`" + ` | only in a binary built with the tag ` + "`testclock`" + `: a file with seconds to add to the clock |
| ` + "`KAVACH_UPDATE`" + ` | the tests write their golden files, this page among them |
| ` + "`CI`" + ` | a test that would be skipped for a missing tool fails |
`)
	for _, leaf := range parser.Model.Leaves(true) {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", leaf.FullPath(), leaf.Help)
		for _, arg := range leaf.Positional {
			fmt.Fprintf(&b, "- `%s`: %s\n", arg.Summary(), arg.Help)
		}
		if len(leaf.Positional) > 0 {
			b.WriteString("\n")
		}
		if len(leaf.Flags) == 0 {
			continue
		}
		b.WriteString("| flag | variable | default | |\n|---|---|---|---|\n")
		for _, flag := range leaf.Flags {
			if flag.Name == "help" {
				continue
			}
			def := ""
			if flag.HasDefault && flag.Default != "" {
				def = "`" + flag.Default + "`"
			}
			if flag.Required {
				def = "required"
			}
			variable := ""
			if len(flag.Envs) > 0 {
				variable = "`" + flag.Envs[0] + "`"
			}
			fmt.Fprintf(&b, "| `--%s` | %s | %s | %s |\n", flag.Name, variable, def, cell(flag.Help))
		}
	}
	return b.String()
}

// cell keeps a help text inside its table cell.
func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }
