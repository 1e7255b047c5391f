package main

import (
	"fmt"
	"io"
	"net/http"

	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// callProof is what a request is proved by, where method and URL are not enough.
type callProof struct {
	Tool          string `placeholder:"NAME" help:"Prove that this tool is called, in place of method and URL: for a server that wants that for what changes something."`
	ArgumentsFile string `placeholder:"FILE" help:"… with these arguments, a JSON object (the body); - is standard input."`
	MCP           bool   `name:"mcp" help:"The URL is an MCP server: send token and proof in the message that --data-file holds."`
}

// prove says what the request calls.
func (c *callProof) prove(w *world, r *http.Request) (*http.Request, error) {
	switch {
	case c.MCP && (c.Tool != "" || c.ArgumentsFile != ""):
		return nil, usagef("", "--mcp reads tool and arguments from the message")
	case c.MCP && (r.Method != http.MethodPost || r.Body == nil):
		return nil, usagef("--data-file FILE holds the message", "--mcp sends a message by POST")
	case c.Tool == "" && c.ArgumentsFile != "":
		return nil, usagef("--tool NAME", "--arguments-file needs the tool that is called")
	case c.Tool == "":
		return r, nil
	}
	arguments, err := c.arguments(w, r)
	if err != nil {
		return nil, err
	}
	return r.WithContext(client.WithCall(r.Context(), c.Tool, arguments)), nil
}

// arguments are those of the file, or the body.
func (c *callProof) arguments(w *world, r *http.Request) (jcs.Value, error) {
	if c.ArgumentsFile != "" || r.GetBody == nil {
		return w.readArguments(c.ArgumentsFile)
	}
	body, err := r.GetBody()
	if err != nil {
		return jcs.Value{}, err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, delegation.MaxMessage+1))
	if err != nil {
		return jcs.Value{}, err
	}
	arguments, err := parseArguments(text)
	if err != nil {
		return jcs.Value{}, withHint(fmt.Errorf("reading the body as arguments: %w", err), "--arguments-file FILE holds the arguments of the call")
	}
	return arguments, nil
}

// readArguments reads the arguments of a call; without a file there are none.
func (w *world) readArguments(name string) (jcs.Value, error) {
	if name == "" {
		return jcs.Of(map[string]any{})
	}
	text, err := w.read(name)
	if err != nil {
		return jcs.Value{}, err
	}
	arguments, err := parseArguments(text)
	if err != nil {
		return jcs.Value{}, fmt.Errorf("reading the arguments %s: %w", name, err)
	}
	return arguments, nil
}

func parseArguments(text []byte) (jcs.Value, error) {
	v, err := jcs.Parse(text, jcs.Limits{Bytes: delegation.MaxMessage})
	if err != nil {
		return jcs.Value{}, err
	}
	if v.Kind() != jcs.Object {
		return jcs.Value{}, fmt.Errorf("they are no JSON object")
	}
	return v, nil
}
