package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/mcp"
)

// mcpCmd is the MCP server of clients that start a program instead of calling
// an address. It is a thin client of a running kavach and opens no database.
type mcpCmd struct {
	agentFlags
	Scope       string `placeholder:"SCOPES" help:"What its token shall hold, separated by spaces (all that the agent has at ISSUER/mcp)."`
	PrintConfig bool   `help:"Print the entry for Claude Desktop and exit."`
}

func (c *mcpCmd) Run(w *world) error {
	if c.KeyFile == "-" {
		return usagef("name a file", "standard input is for the client's messages")
	}
	scopes := words(c.Scope)
	if err := checkScopes(scopes); err != nil {
		return err
	}
	a, err := c.signer(w)
	if err != nil {
		return err
	}
	if c.PrintConfig {
		return c.printConfig(w)
	}
	endpoint := c.Issuer + mcp.Path
	// It stays signed in when its token is revoked, too: the session is a
	// client.Renewer.
	transport, err := c.callTransport(w, a.Stay(client.Ask{Scopes: scopes, Resources: []string{endpoint}}))
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	err = mcp.Stdio(w.ctx, w.stdin, w.stdout, mcp.StdioConfig{
		URL: endpoint, Client: &http.Client{Transport: transport}, Log: w.logger(), Explain: c.explain,
	})
	if errors.Is(err, context.Canceled) {
		return nil // told to stop
	}
	return plain(err)
}

// explain puts an error into the words that the command line has for it, with
// the hint, which a model can act on as well as a person.
func (c *mcpCmd) explain(err error) string {
	err = serverError("kavach", c.Issuer, err)
	text := oneLine(err.Error())
	var hinted *hintedError
	if errors.As(err, &hinted) && hinted.hint != "" {
		text += " (" + oneLine(hinted.hint) + ")"
	}
	return text
}

// printConfig prints what goes into claude_desktop_config.json. A client starts
// the program in a folder of its own: every path is absolute.
func (c *mcpCmd) printConfig(w *world) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	args := []string{"mcp", "--issuer", c.Issuer}
	add := func(flag, file string) error {
		if file == "" {
			return nil
		}
		absolute, err := filepath.Abs(file)
		if err == nil {
			args = append(args, flag, absolute)
		}
		return err
	}
	if err := errors.Join(add("--key-file", c.KeyFile), add("--cacert", c.CACert)); err != nil {
		return err
	}
	if scopes := words(c.Scope); len(scopes) > 0 {
		args = append(args, "--scope", strings.Join(scopes, " "))
	}
	for _, entry := range c.Resolve {
		args = append(args, "--resolve", entry)
	}
	return w.printJSON(map[string]any{"mcpServers": map[string]any{
		"kavach": map[string]any{"command": program, "args": args},
	}})
}
