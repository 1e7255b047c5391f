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
// With a token it forwards to any MCP server that the token is for.
type mcpCmd struct {
	agentFlags
	Scope       string `placeholder:"SCOPES" help:"What its token shall hold, separated by spaces (all that the agent has at ISSUER/mcp)."`
	TokenFile   string `placeholder:"FILE" help:"A token or chain to use in place of signing in; --key-file is then the key that it is bound to."`
	URL         string `name:"url" placeholder:"URL" help:"The MCP server that the token is for (ISSUER/mcp)."`
	ProveCalls  bool   `help:"Prove every message itself, in place of method and URL, as a server demands that wants more than TLS."`
	PrintConfig bool   `help:"Print the entry for Claude Desktop and exit."`
}

func (c *mcpCmd) Run(w *world) error {
	if c.KeyFile == "-" {
		return usagef("name a file", "standard input is for the client's messages")
	}
	source, endpoint, err := c.source(w)
	if err != nil {
		return err
	}
	if c.PrintConfig {
		return c.printConfig(w)
	}
	transport, err := c.callTransport(w, source)
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	transport.MCP, transport.ProveCalls = true, c.ProveCalls
	err = mcp.Stdio(w.ctx, w.stdin, w.stdout, mcp.StdioConfig{
		URL: endpoint, Client: &http.Client{Transport: transport}, Log: w.logger(), Explain: c.explain,
	})
	if errors.Is(err, context.Canceled) {
		return nil // told to stop
	}
	return plain(err)
}

// source is on whose authority the messages go, and where.
func (c *mcpCmd) source(w *world) (client.Source, string, error) {
	scopes, endpoint := words(c.Scope), c.Issuer+mcp.Path
	if c.TokenFile != "" {
		switch {
		case c.TokenFile == "-":
			return nil, "", usagef("name a file", "standard input is for the client's messages")
		case len(scopes) > 0:
			return nil, "", usagef("", "--scope says what to sign in for, and --token-file is a token already")
		}
		if c.URL != "" {
			endpoint = c.URL
		}
		if err := errors.Join(checkIssuer(c.Issuer), checkHTTP("--url", endpoint)); err != nil {
			return nil, "", err
		}
		held, err := heldFlags{TokenFile: c.TokenFile, KeyFile: c.KeyFile}.credential(w)
		return held, endpoint, err
	}
	if c.URL != "" {
		return nil, "", usagef("--token-file names a token for it", "--url is another server than the one that is signed in to")
	}
	if err := checkScopes(scopes); err != nil {
		return nil, "", err
	}
	a, err := c.signer(w)
	if err != nil {
		return nil, "", err
	}
	// It stays signed in when its token is revoked, too: the session is a
	// client.Renewer.
	return a.Stay(client.Ask{Scopes: scopes, Resources: []string{endpoint}}), endpoint, nil
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
	if err := errors.Join(add("--key-file", c.KeyFile), add("--token-file", c.TokenFile), add("--cacert", c.CACert)); err != nil {
		return err
	}
	if c.URL != "" {
		args = append(args, "--url", c.URL)
	}
	if c.ProveCalls {
		args = append(args, "--prove-calls")
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
