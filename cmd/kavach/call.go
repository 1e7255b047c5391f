package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
)

// callCmd sends one request as the holder of a token would: with token and
// proof where the token is for, and nowhere that any link does not allow.
type callCmd struct {
	URL      string   `arg:"" name:"url" help:"What to call."`
	Method   string   `placeholder:"METHOD" help:"Method of the request (GET; POST with --data-file)."`
	DataFile string   `placeholder:"FILE" help:"Body of the request; - is standard input."`
	Header   []string `sep:"none" placeholder:"NAME: VALUE" help:"A header of the request; repeatable. Token and proof come by themselves."`
	callProof
	Include bool          `help:"Print status and headers of the answer before its body."`
	Timeout time.Duration `default:"60s" help:"How long the answer may take (${default})."`
	heldFlags
	reachFlags
	reportFlags
}

func (c *callCmd) Run(w *world) error {
	if err := onceStdin(c.TokenFile, c.KeyFile, c.DataFile, c.ArgumentsFile); err != nil {
		return err
	}
	request, err := c.request(w)
	if err != nil {
		return err
	}
	if request, err = c.prove(w, request); err != nil {
		return err
	}
	credential, err := c.credential(w)
	if err != nil {
		return err
	}
	transport, err := c.callTransport(w, credential)
	if err != nil {
		return err
	}
	transport.MCP, transport.ProveCalls = c.MCP, c.MCP
	defer transport.CloseIdleConnections()
	if transport.Report, err = c.report(w, c.reachFlags, credential); err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: transport, Timeout: c.Timeout}).Do(request)
	if err != nil {
		return callError(err)
	}
	defer resp.Body.Close()
	return c.show(w, resp)
}

// request puts the flags together.
func (c *callCmd) request(w *world) (*http.Request, error) {
	if err := checkHTTP("the URL", c.URL); err != nil {
		return nil, err
	}
	if c.Method == "" {
		c.Method = http.MethodGet
		if c.DataFile != "" {
			c.Method = http.MethodPost
		}
	}
	method, err := checkMethod(c.Method)
	if err != nil {
		return nil, err
	}
	header, err := c.headers()
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(w.ctx, method, c.URL, nil)
	if err != nil {
		return nil, usage(err, "")
	}
	r.Header = header
	if c.DataFile == "" {
		return r, nil
	}
	if header.Get("Content-Type") == "" {
		header.Set("Content-Type", "application/json")
	}
	return r, w.setBody(r, c.DataFile)
}

// headers reads --header.
func (c *callCmd) headers() (http.Header, error) {
	h := http.Header{}
	for _, line := range c.Header {
		name, value, ok := strings.Cut(line, ":")
		name = http.CanonicalHeaderKey(strings.TrimSpace(name))
		switch {
		case !ok || name == "":
			return nil, usagef("write it like --header 'Accept: text/plain'", "--header %q is not NAME: VALUE", oneLine(name))
		case name == "Authorization" || name == "Dpop" || name == "Aat-Proof" || name == "Cookie" || name == "Proxy-Authorization":
			// Every user of the machine can read arguments (design §4.8).
			return nil, usagef("the token comes from --token-file, and its proof by itself", "--header does not take %s", name)
		case name == "Host" || name == "Content-Length" || name == "Transfer-Encoding" || name == "Connection":
			return nil, usagef("", "--header does not take %s: the request says it by itself", name)
		}
		h.Add(name, strings.TrimSpace(value))
	}
	return h, nil
}

// setBody makes a file the body of a request: of known length, and to be read
// again if the request has to be sent once more.
func (w *world) setBody(r *http.Request, name string) error {
	if name == "-" {
		data, err := w.read(name)
		if err != nil {
			return err
		}
		r.ContentLength = int64(len(data))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
	} else {
		info, err := os.Stat(name)
		if err != nil {
			return fmt.Errorf("reading %s: %w", name, pathCause(err))
		}
		if !info.Mode().IsRegular() {
			return withHint(fmt.Errorf("reading %s: not a file", name), "- reads standard input")
		}
		r.ContentLength = info.Size()
		r.GetBody = func() (io.ReadCloser, error) {
			f, err := os.Open(name)
			if err != nil {
				return nil, fmt.Errorf("reading %s: %w", name, pathCause(err))
			}
			return f, nil
		}
	}
	body, err := r.GetBody()
	r.Body = body
	return err
}

// show prints the answer. A status of 400 and more is a failure, whose body is
// printed all the same.
func (c *callCmd) show(w *world, resp *http.Response) error {
	if c.Include {
		fmt.Fprintf(w.stdout, "%s %s\r\n", resp.Proto, resp.Status)
		if err := resp.Header.Write(w.stdout); err != nil {
			return err
		}
		fmt.Fprint(w.stdout, "\r\n")
	}
	var head bytes.Buffer
	out := w.stdout
	if resp.StatusCode >= http.StatusBadRequest {
		out = io.MultiWriter(w.stdout, &limitedBuffer{&head, agent.MaxToken})
	}
	if _, err := io.Copy(out, resp.Body); err != nil {
		return callError(err)
	}
	if resp.StatusCode < http.StatusBadRequest {
		return nil
	}
	return statusError(resp, head.Bytes())
}

// limitedBuffer keeps the beginning of what is written to it.
type limitedBuffer struct {
	*bytes.Buffer
	limit int
}

func (b *limitedBuffer) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), b.limit-b.Len())])
	return len(p), nil
}

// callError is a request that was not answered: refused here, before it left,
// or lost on the way.
func callError(err error) error {
	var cut *client.Refused
	if errors.As(err, &cut) && cut.Status != 0 {
		// Who reads "refused" must not do it again.
		return withHint(cut.Refusal, fmt.Sprintf("the request was sent and answered %d; only the answer was cut", cut.Status))
	}
	var refused *delegation.Refusal
	if errors.As(err, &refused) {
		return withHint(refused, refusalHint(refused))
	}
	var timeout interface{ Timeout() bool }
	var unknown *net.DNSError
	switch {
	case errors.As(err, &unknown) && unknown.IsNotFound:
		return withHint(clientError(err), "--resolve HOST=ADDRESS says where it is")
	case errors.As(err, &timeout) && timeout.Timeout():
		return withHint(errors.New("no answer in time"), "--timeout 5m waits longer")
	case untrusted(err):
		return withHint(clientError(err), cacertHint)
	case isNetwork(err):
		return withHint(clientError(err), "is the server running there? --resolve HOST=ADDRESS says where a name is")
	}
	return clientError(err)
}

// tokenHint says where to look when a token does not allow something.
const tokenHint = "`kavach token inspect FILE` shows what the token allows"

// refusalHint says what to do about what is refused before it leaves.
func refusalHint(refused *delegation.Refusal) string {
	switch refused.Reason {
	case delegation.Expired:
		return "get a new token, or have it handed on again"
	case delegation.ConstraintViolated:
		return tokenHint
	}
	return ""
}

// statusError is what a server refused, in its own words, without what it
// repeats of token and proof: those stand in no message.
func statusError(resp *http.Response, body []byte) error {
	status := fmt.Sprintf("status %d of %s", resp.StatusCode, resp.Request.URL.Host)
	said := client.ReadError(resp, body)
	if said.Code == "" {
		return errors.New(status)
	}
	code, text := said.Code, strings.TrimSuffix(said.Code+": "+said.Description, ": ")
	switch code {
	case "insufficient_scope", "constraint_violated":
		return withHint(fmt.Errorf("refused: %s (%s)", text, status), tokenHint)
	case "invalid_token":
		return withHint(fmt.Errorf("refused: %s (%s)", text, status), "it may have expired, be revoked or be for somebody else: `kavach token inspect FILE` shows it")
	}
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		text = "refused: " + text
	}
	return fmt.Errorf("%s (%s)", text, status)
}
