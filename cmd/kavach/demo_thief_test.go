package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/demo"
)

// thief is a registered agent with a key of its own that found a transcript.
type thief struct {
	issuer string
	id     string
	key    agent.PrivateKey // its identity
	holder agent.PrivateKey // what it makes proofs with
	http   *http.Client
}

func newThief(t *testing.T, server *demoServer, scene demo.Scene) *thief {
	t.Helper()
	th := &thief{issuer: scene.Issuer}
	var err error
	if th.key, err = agent.GenerateKey(); err != nil {
		t.Fatal(err)
	}
	if th.holder, err = agent.GenerateKey(); err != nil {
		t.Fatal(err)
	}
	th.id = th.key.Public().Thumbprint()
	manifest, err := agent.SignManifest(agent.Manifest{
		Name: "thief", Version: "1.0.0", Purpose: "Finds transcripts.", Scopes: []string{demo.ReadPull, "kavach:delegate"},
		Capabilities: []string{agent.CapabilityDelegate}, MaxDepth: 3, IssuedAt: time.Now(), Expires: time.Now().Add(time.Hour),
	}, th.key)
	if err != nil {
		t.Fatal(err)
	}
	owner, err := server.main.parts.people.UserNamed(t.Context(), "dev")
	if err != nil {
		t.Fatal(err)
	}
	_, err = server.main.parts.agents.Register(t.Context(), authz.Registration{
		Manifest: manifest, Assertion: th.assertion(t), Owner: owner.ID, By: byOperator,
	})
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(scene.CA) {
		t.Fatal("the scene has no certificate")
	}
	th.http = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if strings.HasPrefix(address, demo.Host+":") {
				address = scene.GitHost
			}
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}}
	t.Cleanup(th.http.CloseIdleConnections)
	return th
}

func (th *thief) assertion(t *testing.T) string {
	t.Helper()
	assertion, err := agent.SignAssertion(th.key, th.id, th.issuer, time.Now(), 30*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return assertion
}

// try uses a text wherever a credential goes.
func (th *thief) try(t *testing.T, text string) {
	t.Helper()
	for _, at := range []struct{ method, url, body string }{
		{http.MethodGet, demo.Resource + "/" + demo.PullID(847), ""},
		{http.MethodPost, th.issuer + "/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"audit","arguments":{}}}`},
		{http.MethodGet, th.issuer + "/api/v1/audit/entries", ""},
	} {
		for _, scheme := range []string{"Bearer", "DPoP"} {
			r := th.request(t, at.method, at.url, at.body)
			// A header holds no line break; nobody could send one.
			r.Header.Set("Authorization", scheme+" "+strings.Map(printable, text))
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Accept", "application/json, text/event-stream")
			if scheme == "DPoP" {
				th.prove(t, r, text)
			}
			th.refused(t, r, text)
		}
	}
	exchange := "urn:ietf:params:oauth:grant-type:token-exchange"
	for _, form := range []url.Values{
		{"grant_type": {exchange}, "subject_token": {text}, "subject_token_type": {"urn:ietf:params:oauth:token-type:access_token"}, "scope": {demo.ReadPull}},
		{"grant_type": {exchange}, "subject_token": {text}, "subject_token_type": {"urn:kavach:token-type:handle"}},
		{"grant_type": {"refresh_token"}, "refresh_token": {text}},
		{"grant_type": {"authorization_code"}, "code": {text}, "code_verifier": {text}, "redirect_uri": {"http://127.0.0.1/"}},
	} {
		form.Set("client_id", th.id)
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", th.assertion(t))
		th.refused(t, th.form(t, form, ""), text)
	}
	// As somebody's assertion, or as a client and its secret.
	th.refused(t, th.form(t, url.Values{
		"grant_type": {"client_credentials"}, "client_assertion": {text},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
	}, ""), text)
	basic := base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(text) + ":" + url.QueryEscape(text)))
	th.refused(t, th.form(t, url.Values{"grant_type": {"client_credentials"}}, "Basic "+basic), text)
}

func printable(r rune) rune {
	if r < 0x20 || r > 0x7e {
		return -1
	}
	return r
}

func (th *thief) request(t *testing.T, method, address, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (th *thief) form(t *testing.T, form url.Values, authorization string) *http.Request {
	t.Helper()
	r := th.request(t, http.MethodPost, th.issuer+"/oauth/token", form.Encode())
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	th.prove(t, r, "")
	return r
}

// prove adds a proof by the thief's own key.
func (th *thief) prove(t *testing.T, r *http.Request, token string) {
	t.Helper()
	proof, err := agent.SignProof(th.holder, agent.Proof{Method: r.Method, URL: r.URL.String(), Token: token, IssuedAt: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("DPoP", proof)
}

// refused sends it. What the server is too busy to decide proves nothing.
func (th *thief) refused(t *testing.T, r *http.Request, text string) {
	t.Helper()
	resp, err := th.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode < 400 || resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		t.Errorf("%s %s answers %d to %.60q", r.Method, r.URL.Path, resp.StatusCode, text)
	}
}
