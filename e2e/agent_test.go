package e2e

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// beside starts a second process on the database of the first: another listener
// and another operations listener, the same issuer. It is what a second replica
// behind a load balancer is.
func (s *server) beside(t *testing.T, args ...string) *server {
	t.Helper()
	listen := freeAddress(t)
	other := &server{t: t, Issuer: s.Issuer, Ops: freeAddress(t), Data: s.Data, listen: listen, site: s.site, database: s.database}
	other.args = append([]string{"serve", "--dev", "--listen", listen, "--issuer", s.Issuer, "--ops", other.Ops, "--data", s.Data, "--git-host", ""}, args...)
	other.run()
	t.Cleanup(func() { other.kill(); other.complain() })
	return other
}

// client reaches this very process under the issuer's name, as the load
// balancer in front of it would.
func (s *server) client() *http.Client {
	issuer := strings.TrimPrefix(s.Issuer, "http://")
	dialer := &net.Dialer{}
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			MaxIdleConnsPerHost: 64,
			DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
				if s.listen != "" && address == issuer {
					address = s.listen
				}
				return dialer.DialContext(ctx, network, address)
			},
		},
	}
}

// agent is a program with an identity of its own that was registered at a
// server. It signs everything by itself (proof_test.go).
type agent struct {
	t      *testing.T
	Issuer string
	// HTTP reaches the process that the agent talks to.
	HTTP *http.Client
	// ID is its client_id, Name what people call it.
	ID, Name string
	// Key signs assertions and cards and is never bound to a token; Holder is
	// the key that tokens are bound to.
	Key, Holder signingKey
	// KeyFile and Manifest are its files, for commands of kavach.
	KeyFile, Manifest string
}

// devAgent is one that `serve --dev` made: orchestrator or code-reviewer. They
// are granted something only where the git host is made, too: --git-host.
func (s *server) devAgent(t *testing.T, name string) *agent {
	t.Helper()
	return s.agent(t, filepath.Join(s.Data, "agents"), name)
}

// newAgent makes and registers an agent through the commands, owner dev, and
// grants it all its scopes. flags go to `agent create`, such as "--capability",
// "delegate".
func (s *server) newAgent(t *testing.T, name, scopes string, flags ...string) *agent {
	t.Helper()
	dir := t.TempDir()
	s.offline(t, dir, append([]string{"agent", "create", name, "--version", "1.0.0", "--purpose", "End-to-end tests", "--scope", scopes}, flags...)...)
	a := s.agent(t, dir, name)
	s.enrol(t, a, "dev")
	s.cli("", "agent", "grant", a.ID, "--scope", scopes)
	return a
}

// newAgentWith is newAgent for an agent that made its key and manifest without
// kavach, such as one with an ES256 key.
func (s *server) newAgentWith(t *testing.T, key signingKey, name, scopes string, capabilities ...string) *agent {
	t.Helper()
	dir := t.TempDir()
	for file, text := range map[string]string{name + ".key.json": encode(key.private()), name + ".manifest.jwt": key.manifest(name, scopes, capabilities...)} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a := s.agent(t, dir, name)
	s.enrol(t, a, "dev")
	s.cli("", "agent", "grant", a.ID, "--scope", scopes)
	return a
}

// enrol registers an agent for an owner.
func (s *server) enrol(t *testing.T, a *agent, owner string) {
	t.Helper()
	token := filepath.Join(t.TempDir(), "enrolment")
	if err := os.WriteFile(token, []byte(s.cli("", "agent", "enrol", "--owner", owner)), 0o600); err != nil {
		t.Fatal(err)
	}
	s.offline(t, filepath.Dir(a.KeyFile), "agent", "register", "--issuer", s.Issuer, "--key-file", a.KeyFile, "--manifest", a.Manifest, "--enrolment-file", token)
}

func (s *server) agent(t *testing.T, dir, name string) *agent {
	t.Helper()
	a := &agent{t: t, Issuer: s.Issuer, HTTP: s.client(), Name: name, Holder: newEd25519(),
		KeyFile: filepath.Join(dir, name+".key.json"), Manifest: filepath.Join(dir, name+".manifest.jwt")}
	a.Key = readKey(t, a.KeyFile)
	a.ID = a.Key.thumbprint()
	return a
}

// at is the same agent with another holder key, talking to another process.
func (a *agent) at(s *server, holder signingKey) *agent {
	b := *a
	b.HTTP, b.Holder = s.client(), holder
	return &b
}

// tokenEndpoint is what assertions are not for and proofs are.
func (a *agent) tokenEndpoint() string { return a.Issuer + "/oauth/token" }

const (
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange"
	accessType    = "urn:ietf:params:oauth:token-type:access_token"
	handleType    = "urn:kavach:token-type:handle"
	cardType      = "urn:kavach:token-type:agent-key"
)

// authenticated adds a fresh client assertion to a form.
func (a *agent) authenticated(values url.Values, changes ...change) url.Values {
	out := url.Values{"client_assertion_type": {assertionType}, "client_assertion": {a.Key.assertion(a.ID, a.Issuer, changes...)}}
	for k, v := range values {
		out[k] = v
	}
	return out
}

// ask posts a form to the token endpoint with a proof; "" sends none.
func (a *agent) ask(values url.Values, proof string) (tokens, error) {
	header := http.Header{}
	if proof != "" {
		header.Set("DPoP", proof)
	}
	return post(a.HTTP, a.tokenEndpoint(), values, header)
}

// proof is a fresh one of the holder for the token endpoint, with ath if it
// speaks about a token.
func (a *agent) proof(token string, changes ...change) string {
	return a.Holder.proof("POST", a.tokenEndpoint(), token, changes...)
}

// signIn gets a token by client credentials, bound to the holder key. more are
// further parameters, such as resource or del_max_depth.
func (a *agent) signIn(scope string, more url.Values) (tokens, error) {
	values := url.Values{"grant_type": {"client_credentials"}}
	if scope != "" {
		values.Set("scope", scope)
	}
	for k, v := range more {
		values[k] = v
	}
	return a.ask(a.authenticated(values), a.proof(""))
}

// signedIn is signIn that must succeed.
func (a *agent) signedIn(scope string, more url.Values) tokens {
	a.t.Helper()
	got, err := a.signIn(scope, more)
	if err != nil || got.Status != http.StatusOK || got.Access == "" {
		a.t.Fatalf("%s cannot sign in for %q: %v %d %s %s", a.Name, scope, err, got.Status, got.Error, got.ErrorMessage)
	}
	return got
}

// exchange trades a token or chain that is bound to the holder key (RFC 8693).
func (a *agent) exchange(subject string, more url.Values) (tokens, error) {
	values := url.Values{"grant_type": {exchangeGrant}, "subject_token": {subject}, "subject_token_type": {accessType}}
	for k, v := range more {
		values[k] = v
	}
	return a.ask(a.authenticated(values), a.proof(""))
}

// cnf is the req_cnf of a key.
func cnf(k signingKey) string { return encode(map[string]any{"jwk": k.jwk()}) }

// call calls a tool of /mcp with a token that is bound to the holder key.
func (a *agent) call(token, tool string, args map[string]any) (int, map[string]any, http.Header, error) {
	return callToolWith(a.HTTP, a.Issuer, tool, args, http.Header{
		"Authorization": {"DPoP " + token}, "Dpop": {a.Holder.proof("POST", a.Issuer+"/mcp", token)},
	})
}

// called is call that must succeed; it answers the structured content.
func (a *agent) called(token, tool string, args map[string]any) map[string]any {
	a.t.Helper()
	status, result, header, err := a.call(token, tool, args)
	content, _ := result["structuredContent"].(map[string]any)
	if err != nil || status != http.StatusOK || content == nil || result["isError"] == true {
		a.t.Fatalf("%s %s: %v %d %v %v", a.Name, tool, err, status, header.Values("WWW-Authenticate"), result)
	}
	return content
}

// post posts a form and decodes the JSON answer.
func post(client *http.Client, target string, values url.Values, header http.Header) (tokens, error) {
	request, err := http.NewRequest("POST", target, strings.NewReader(values.Encode()))
	if err != nil {
		return tokens{}, err
	}
	for name, list := range header {
		request.Header[http.CanonicalHeaderKey(name)] = list
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := client.Do(request)
	if err != nil {
		return tokens{}, err
	}
	defer response.Body.Close()
	out := tokens{Status: response.StatusCode, Header: response.Header}
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return tokens{}, err
	}
	if len(raw) > 0 {
		err = json.Unmarshal(raw, &out)
	}
	return out, err
}

// challenged is the error that the DPoP challenge of an answer names, or else
// that of the Bearer challenge.
func challenged(header http.Header) string {
	code := ""
	for _, challenge := range header.Values("WWW-Authenticate") {
		scheme, params, _ := strings.Cut(challenge, " ")
		if _, after, ok := strings.Cut(params, `error="`); ok {
			name, _, _ := strings.Cut(after, `"`)
			if scheme == "DPoP" || code == "" {
				code = name
			}
		}
	}
	return code
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}
