package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"io"
	"maps"
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

// thief is a registered agent with keys of its own that found a transcript.
type thief struct {
	party
	issuer string
	holder agent.PrivateKey // what it makes proofs with
	http   *http.Client
}

func newThief(t *testing.T, server *demoServer, scene demo.Scene) *thief {
	t.Helper()
	th := &thief{party: *newParty(t, server, scene, "thief", demo.ReadPull, "kavach:delegate"), issuer: scene.Issuer}
	var err error
	if th.holder, err = agent.GenerateKey(); err != nil {
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

const (
	exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange"
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
)

// try uses a text wherever a credential goes, and says where it worked.
func (th *thief) try(t *testing.T, text string) (worked []string) {
	t.Helper()
	check := func(what string, r *http.Request) {
		if th.works(t, r, text) {
			worked = append(worked, what)
		}
	}
	for _, at := range []struct{ method, url, body string }{
		{http.MethodGet, demo.Resource + "/" + demo.PullID(847), ""},
		{http.MethodPost, th.issuer + "/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"verify","arguments":{"token":"x","audience":"x"}}}`},
		{http.MethodGet, th.issuer + "/api/v1/audit/entries", ""},
	} {
		for _, scheme := range []string{"Bearer", "DPoP", "DPoP without a proof", "Basic"} {
			r := th.request(t, at.method, at.url, at.body)
			name, _, _ := strings.Cut(scheme, " ")
			// A header holds no line break; nobody could send one.
			r.Header.Set("Authorization", name+" "+strings.Map(printable, text))
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Accept", "application/json, text/event-stream")
			if scheme == "DPoP" {
				th.prove(t, r, text)
			}
			check(scheme+" at "+r.URL.Path, r)
		}
	}
	for _, one := range []struct {
		what string
		form url.Values
	}{
		{"subject", url.Values{"grant_type": {exchangeGrant}, "subject_token": {text}, "subject_token_type": {authz.TokenTypeAccess}, "scope": {demo.ReadPull}}},
		{"actor", url.Values{"grant_type": {exchangeGrant}, "subject_token": {text}, "subject_token_type": {authz.TokenTypeAccess},
			"actor_token": {text}, "actor_token_type": {authz.TokenTypeAgentKey}}},
		{"handle", url.Values{"grant_type": {exchangeGrant}, "subject_token": {text}, "subject_token_type": {authz.TokenTypeHandle}}},
		{"refresh token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {text}}},
		{"code", url.Values{"grant_type": {"authorization_code"}, "code": {text}, "code_verifier": {text}, "redirect_uri": {"http://127.0.0.1/"}}},
	} {
		form := maps.Clone(one.form)
		form.Set("client_id", th.id)
		form.Set("client_assertion_type", assertionType)
		form.Set("client_assertion", th.party.assertion(t, th.issuer))
		check(one.what, th.form(t, form, ""))
		// As nobody: then the proof of a key says who it is.
		check(one.what+" of nobody", th.form(t, one.form, ""))
	}
	// As somebody's assertion, or as a client and its secret.
	check("assertion", th.form(t, url.Values{"grant_type": {"client_credentials"}, "client_assertion": {text}, "client_assertion_type": {assertionType}}, ""))
	basic := base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(text) + ":" + url.QueryEscape(text)))
	check("secret", th.form(t, url.Values{"grant_type": {"client_credentials"}}, "Basic "+basic))
	secret := url.Values{"grant_type": {"client_credentials"}, "client_id": {text}, "client_secret": {text}}
	check("secret in the body", th.form(t, secret, ""))
	return worked
}

// plainToken is a bearer token for /mcp: the agent signs in without a proof.
func (p *party) plainToken(t *testing.T, th *thief, scene demo.Scene) string {
	t.Helper()
	r := th.form(t, url.Values{
		"grant_type": {"client_credentials"}, "client_assertion": {p.assertion(t, scene.Issuer)}, "client_assertion_type": {assertionType},
		"scope": {"kavach:verify"}, "resource": {scene.Issuer + "/mcp"},
	}, "")
	r.Header.Del("DPoP")
	resp, err := th.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || got.Token == "" {
		t.Fatalf("a plain token: %d %v", resp.StatusCode, err)
	}
	return got.Token
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

// works sends it. What the server is too busy to decide proves nothing.
func (th *thief) works(t *testing.T, r *http.Request, text string) bool {
	t.Helper()
	resp, err := th.http.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body) // the connection serves again
	resp.Body.Close()
	if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		t.Errorf("%s %s answers %d to %.60q", r.Method, r.URL.Path, resp.StatusCode, text)
	}
	return resp.StatusCode < 400
}
