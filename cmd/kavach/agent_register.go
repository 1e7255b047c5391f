package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
)

// agentRegisterCmd shows a server the manifest, a proof of the key and the
// enrolment token that somebody's owner made.
type agentRegisterCmd struct {
	Issuer        string `required:"" placeholder:"URL" help:"The server."`
	KeyFile       string `required:"" placeholder:"FILE" help:"NAME.key.json of the agent."`
	Manifest      string `required:"" placeholder:"FILE" help:"NAME.manifest.jwt of the agent."`
	EnrolmentFile string `required:"" placeholder:"FILE" help:"File with the enrolment token of 'kavach agent enrol'; - is standard input."`
	jsonFlag
}

// assertionLife is how long the proof of the key is good for: delegation.md
// §10 allows 60 s at registration.
const assertionLife = 60 * time.Second

func (c *agentRegisterCmd) Run(w *world) error {
	if err := errors.Join(checkIssuer(c.Issuer), onceStdin(c.KeyFile, c.Manifest, c.EnrolmentFile)); err != nil {
		return err
	}
	key, id, err := w.readIdentity(c.KeyFile)
	if err != nil {
		return err
	}
	manifest, err := w.readLine(c.Manifest)
	if err != nil {
		return err
	}
	enrolment, err := w.readLine(c.EnrolmentFile)
	if err != nil {
		return err
	}
	m, err := agent.VerifyManifest(manifest, w.now())
	if err != nil {
		return fmt.Errorf("reading the manifest %s: %w", c.Manifest, err)
	}
	if m.ID != id || m.Key != key.Public() {
		return fmt.Errorf("the manifest %s belongs to another key than %s", c.Manifest, c.KeyFile)
	}
	assertion, err := agent.SignAssertion(key, m.ID, c.Issuer, w.now(), assertionLife)
	if err != nil {
		return err
	}
	answer, err := postJSON(w.ctx, c.Issuer+"/api/v1/agents", map[string]string{
		"manifest": manifest, "assertion": assertion, "enrolment_token": enrolment,
	}, http.StatusCreated)
	if err != nil {
		return fmt.Errorf("registering %s: %w", m.Name, err)
	}
	var registered struct {
		ID     string   `json:"id"`
		Name   string   `json:"name"`
		Owner  string   `json:"owner"`
		Status string   `json:"status"`
		Scopes []string `json:"scopes"`
	}
	if err := json.Unmarshal(answer, &registered); err != nil {
		return fmt.Errorf("registering %s: the server's answer is not JSON", m.Name)
	}
	if c.JSON {
		return w.printJSON(registered)
	}
	fmt.Fprintln(w.stdout, registered.ID)
	w.note("registered %s, owner %s, status %s", registered.Name, registered.Owner, registered.Status)
	if len(registered.Scopes) == 0 {
		w.note("hint: it gets no token before its owner grants it scopes: kavach agent grant %s --scope \"…\"", registered.Name)
	}
	return nil
}

// maxAnswer bounds what is read of a server's answer.
const maxAnswer = 1 << 20

// agentHTTP is the client of the agent commands. It follows no redirect: "No
// endpoint redirects cross-origin", and a key's proof must not travel on.
var agentHTTP = &http.Client{
	Timeout: 15 * time.Second,
	CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	},
}

// postJSON sends body and returns the answer if its status is want, or what
// the server says is wrong.
func postJSON(ctx context.Context, address string, body any, want int) ([]byte, error) {
	payload, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(payload))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	resp, err := agentHTTP.Do(req)
	if err != nil {
		return nil, withHint(fmt.Errorf("asking %s: %w", address, urlCause(err)), "is the server running, and is --issuer its address?")
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("reading the answer of %s: %w", address, err)
	}
	if resp.StatusCode == want {
		return answer, nil
	}
	var refusal struct {
		Code        string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal(answer, &refusal) != nil || refusal.Code == "" {
		return nil, withHint(fmt.Errorf("%s answers with status %d", address, resp.StatusCode), "is --issuer the address of a kavach?")
	}
	err = errors.New(strings.TrimSuffix(refusal.Code+": "+refusal.Description, ": "))
	switch {
	case refusal.Code == "invalid_token":
		return nil, withHint(err, "`kavach agent enrol` makes a new enrolment token")
	case strings.Contains(refusal.Description, "aud is not"):
		return nil, withHint(err, "spell --issuer as the server does: `kavach serve` says \"ready ISSUER\" when it starts")
	}
	return nil, err
}

// urlCause drops the 'Get "URL"' that the callers already say.
func urlCause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
