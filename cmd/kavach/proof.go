package main

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/kavach-dev/kavach/agent"
)

// proofCmd makes the DPoP header of one request, for a client that cannot make
// its own.
type proofCmd struct {
	KeyFile   string `required:"" placeholder:"FILE" help:"The key that the token is bound to."`
	Method    string `required:"" placeholder:"METHOD" help:"Method of the request."`
	URL       string `name:"url" required:"" placeholder:"URL" help:"URL of the request; query and fragment are left out."`
	TokenFile string `placeholder:"FILE" help:"The token or chain that goes with the request; none at a token endpoint."`
	Nonce     string `placeholder:"TEXT" help:"The server's last DPoP-Nonce, if it asked for one."`
	jsonFlag
}

func (c *proofCmd) Run(w *world) error {
	if err := onceStdin(c.KeyFile, c.TokenFile); err != nil {
		return err
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
	if c.JSON {
		return w.printJSON(map[string]any{"proof": proof, "expires_in": int(agent.ProofWindow.Seconds())})
	}
	fmt.Fprintln(w.stdout, proof)
	return nil
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
