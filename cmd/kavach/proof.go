package main

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
)

// proofCmd makes the DPoP header of one request, or the AAT proof of one call,
// for a client that cannot make its own.
type proofCmd struct {
	KeyFile       string `required:"" placeholder:"FILE" help:"The key that the token is bound to."`
	Method        string `placeholder:"METHOD" help:"Method of the request."`
	URL           string `name:"url" placeholder:"URL" help:"URL of the request; query and fragment are left out."`
	Tool          string `placeholder:"NAME" help:"Make an AAT proof in place of a DPoP proof: of a call of this tool."`
	ArgumentsFile string `placeholder:"FILE" help:"… with these arguments, a JSON object ({}); - is standard input."`
	Audience      string `placeholder:"URL" help:"… at this resource server (the one that the chain is for)."`
	TokenFile     string `placeholder:"FILE" help:"The token or chain that goes with the request; none at a token endpoint."`
	Nonce         string `placeholder:"TEXT" help:"The server's last DPoP-Nonce, if it asked for one."`
	jsonFlag
}

func (c *proofCmd) Run(w *world) error {
	if err := onceStdin(c.KeyFile, c.TokenFile, c.ArgumentsFile); err != nil {
		return err
	}
	if c.Tool != "" {
		return c.ofCall(w)
	}
	switch {
	case c.ArgumentsFile != "" || c.Audience != "":
		return usagef("--tool NAME makes the proof of a call", "--arguments-file and --audience are about the call of a tool")
	case c.Method == "" || c.URL == "":
		return usagef("or --tool NAME, for the proof of a call", "--method and --url say what request the proof is of")
	}
	method, err := checkMethod(c.Method)
	if err != nil {
		return err
	}
	if err := checkHTTP("--url", c.URL); err != nil {
		return err
	}
	key, err := w.readPrivateKey(c.KeyFile)
	if err != nil {
		return err
	}
	p := agent.Proof{Method: method, URL: c.URL, Nonce: c.Nonce, IssuedAt: w.now()}
	if c.TokenFile != "" {
		if p.Token, err = w.readLine(c.TokenFile); err != nil {
			return err
		}
	}
	proof, err := agent.SignProof(key, p)
	if err != nil {
		return err
	}
	return c.print(w, proof)
}

func (c *proofCmd) print(w *world, proof string) error {
	if c.JSON {
		return w.printJSON(map[string]any{"proof": proof, "expires_in": int(agent.ProofWindow.Seconds())})
	}
	fmt.Fprintln(w.stdout, proof)
	return nil
}

// ofCall makes an AAT proof.
func (c *proofCmd) ofCall(w *world) error {
	if c.Method != "" || c.URL != "" || c.TokenFile == "" {
		return usagef("", "the proof of a call is of --tool and --arguments-file, with the chain of --token-file, and not of a method and a URL")
	}
	held, err := heldFlags{TokenFile: c.TokenFile, KeyFile: c.KeyFile}.credential(w)
	if err != nil {
		return err
	}
	if c.Audience == "" && len(held.Audience) == 1 {
		c.Audience = held.Audience[0]
	}
	if !slices.Contains(held.Audience, c.Audience) {
		return usagef("--audience names one of: "+strings.Join(held.Audience, " "), "the chain is not for %q", c.Audience)
	}
	arguments, err := w.readArguments(c.ArgumentsFile)
	if err != nil {
		return err
	}
	proof, err := held.ProveCall(delegation.Call{Name: c.Tool, Arguments: arguments}, c.Audience, c.Nonce, w.now())
	if err != nil {
		return clientError(err)
	}
	return c.print(w, proof)
}

// checkMethod takes the method of a request, in capitals as it is sent.
func checkMethod(method string) (string, error) {
	upper := strings.ToUpper(method)
	if upper == "" || len(upper) > 32 || strings.Trim(upper, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" || upper == "CONNECT" {
		return "", usagef("", "--method %q is not the method of a request", method)
	}
	return upper, nil
}

// checkHTTP wants an absolute http or https URL without user information.
func checkHTTP(what, address string) error {
	u, err := url.Parse(address)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" || u.User != nil {
		return usagef("write it like https://git.internal/repo/pull/847", "%s %q is not an http or https URL", what, withoutUser(address))
	}
	return nil
}
