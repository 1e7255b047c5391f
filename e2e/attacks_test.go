package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestAttacks sends what must fail, numbered as in the project's list of
// attacks, to one running server. Every row also means: no 5xx, nothing internal
// in the answer, an entry in the log for every refusal, and a healthy request
// right afterwards succeeds.
func TestAttacks(t *testing.T) {
	a := newAttack(t)
	for _, section := range [][]attackRow{
		authorizeAttacks, codeAttacks, refreshAttacks, clientAttacks, keyAttacks, kindAttacks, forgeries, signedForgeries, agentAttacks,
		pageAttacks, endpointAttacks, transportAttacks,
	} {
		for _, row := range section {
			t.Run(row.name, func(t *testing.T) {
				answered, recorded := a.counted(t)
				row.run(t, a)
				a.healthy(t)
				a.wantRecorded(t, answered, recorded)
			})
		}
	}
	t.Run("A-94 secrets stay out of log and database", a.secretsStayOut)
	var metrics string
	if got := a.send(t, "GET", "http://"+a.Ops+"/metrics", ""); got.status == http.StatusOK {
		metrics = got.body
	}
	if metrics == "" || regexp.MustCompile(`kavach_http_requests_total\{code="5`).MatchString(metrics) {
		t.Errorf("answers of 5xx, or no metrics:\n%s", metrics)
	}
}

// attackRow is one row of the list.
type attackRow struct {
	name string
	run  func(*testing.T, *attack)
}

// attack is the server under attack and what an attacker may hold.
type attack struct {
	*server
	dev     *person      // signed in
	public  *oauthClient // with a loopback redirect URI
	web     *oauthClient // with an https one
	other   *oauthClient // somebody else's
	static  credential   // kavach:verify by client credentials
	post    credential   // the same with client_secret_post
	agent   *agent       // kavach:verify and kavach:delegate, with an Ed25519 key
	keyed   *agent       // no agent: an operator's client with an ES256 key
	machine string       // access token of static
	tokens  tokens       // of dev through public
	secrets []string     // whatever must not be found in log or database
}

type credential struct {
	ID     string `json:"client_id"`
	Secret string `json:"client_secret"`
}

func newAttack(t *testing.T) *attack {
	a := &attack{server: start(t)}
	a.dev = newPerson(t, "dev", "dev")
	a.public, a.web, a.other = register(t, a.Issuer), &oauthClient{t: t, issuer: a.Issuer, Redirect: "https://client.example/cb"}, register(t, a.Issuer)
	var registered credential
	if status := a.web.postJSON("/oauth/register", map[string]any{"redirect_uris": []string{a.web.Redirect, "https://client.example/two"}, "token_endpoint_auth_method": "none"}, &registered); status != http.StatusCreated {
		t.Fatalf("registering: %d", status)
	}
	a.web.ID = registered.ID
	for into, method := range map[*credential]string{&a.static: "client_secret_basic", &a.post: "client_secret_post"} {
		if err := json.Unmarshal([]byte(a.cli("", "client", "add", method, "--method", method, "--scope", "kavach:verify", "--json")), into); err != nil {
			t.Fatal(err)
		}
	}
	a.agent, a.keyed = a.newAgent(t, "signer", "kavach:verify kavach:delegate", "--capability", "delegate"), a.keyedClient(t, "keyed", newES256())
	a.tokens = a.public.signIn(a.dev, "kavach:verify kavach:delegate kavach:audit", choice{})
	got := a.form(t, "/oauth/token", "grant_type=client_credentials", "Authorization", basic(a.static.ID, a.static.Secret))
	a.machine, _ = got.json(t)["access_token"].(string)
	a.secrets = append(a.secrets, a.static.Secret, a.post.Secret, a.machine, a.tokens.Access, a.tokens.Refresh)
	return a
}

// secret makes something that must not be found anywhere afterwards.
func (a *attack) secret(text string) string {
	text = "CANARY" + text + "x9Qz7"
	a.secrets = append(a.secrets, text)
	return text
}

// reply is an answer with its body read.
type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) json(t *testing.T) map[string]any {
	t.Helper()
	var out map[string]any
	if err := json.Unmarshal([]byte(r.body), &out); err != nil {
		t.Fatalf("%d %q is no JSON object: %v", r.status, r.body, err)
	}
	return out
}

// text is a member of the answer that has to be there.
func (r reply) text(t *testing.T, name string) string {
	t.Helper()
	text, _ := r.json(t)[name].(string)
	if text == "" {
		t.Fatalf("%d %s has no %s", r.status, r.body, name)
	}
	return text
}

// internals is what no answer may hold.
var internals = regexp.MustCompile(`(?i)goroutine |\.go:\d|sqlite|select .* from|panic`)

// do sends a request as the person does and follows nothing.
func do(t *testing.T, client *http.Client, request *http.Request) reply {
	t.Helper()
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode >= 500 || internals.Match(body) {
		t.Errorf("%s %s: %d %s", request.Method, request.URL.Path, response.StatusCode, body)
	}
	return reply{response.StatusCode, response.Header, string(body)}
}

// send sends a request without cookies; pairs are header names and values, "Host" among them.
func (a *attack) send(t *testing.T, method, target, body string, pairs ...string) reply {
	t.Helper()
	if strings.HasPrefix(target, "/") {
		target = a.Issuer + target
	}
	request, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i] == "Host" {
			request.Host = pairs[i+1]
			continue
		}
		request.Header.Add(pairs[i], pairs[i+1])
	}
	return do(t, &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, request)
}

const formType = "application/x-www-form-urlencoded"

func (a *attack) form(t *testing.T, path, body string, pairs ...string) reply {
	t.Helper()
	return a.send(t, "POST", path, body, append([]string{"Content-Type", formType}, pairs...)...)
}

func basic(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id)+":"+url.QueryEscape(secret)))
}

// ask opens an authorization URL of a client, changed, as dev or as nobody.
func (a *attack) ask(t *testing.T, c *oauthClient, as *person, change url.Values) reply {
	t.Helper()
	r := c.request("kavach:verify", change)
	request, err := http.NewRequestWithContext(t.Context(), "GET", r.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return do(t, as.http, request)
}

// rpc calls a tool of /mcp.
func (a *attack) rpc(t *testing.T, tool, arguments string, pairs ...string) reply {
	t.Helper()
	body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"` + tool + `","arguments":` + arguments + `}}`
	return a.send(t, "POST", "/mcp", body, append([]string{
		"Content-Type", "application/json", "Accept", "application/json, text/event-stream", "MCP-Protocol-Version", "2025-11-25",
	}, pairs...)...)
}

// wantPage: an error page that leads nowhere.
func wantPage(t *testing.T, what string, got reply) {
	t.Helper()
	if got.status != http.StatusBadRequest || got.header.Get("Location") != "" || !protected(got) {
		t.Errorf("%s: %d %v", what, got.status, got.header)
	}
}

// protected: A-114, for an answer that is HTML.
func protected(got reply) bool {
	if !strings.HasPrefix(got.header.Get("Content-Type"), "text/html") {
		return got.body == "" || got.status == http.StatusSeeOther
	}
	csp := got.header.Get("Content-Security-Policy")
	return strings.Contains(csp, "frame-ancestors 'none'") && strings.Contains(csp, "default-src 'none'") &&
		got.header.Get("X-Frame-Options") == "DENY" && got.header.Get("Cache-Control") == "no-store"
}

// wantRedirect: an error that goes to the client, in the query, with one iss.
func (a *attack) wantRedirect(t *testing.T, what string, got reply, c *oauthClient, code string) {
	t.Helper()
	location, err := url.Parse(got.header.Get("Location"))
	if err != nil || got.status != http.StatusSeeOther || !strings.HasPrefix(location.String(), c.Redirect+"?") || location.Fragment != "" {
		t.Errorf("%s: %d %v", what, got.status, got.header)
		return
	}
	q := location.Query()
	if q.Get("error") != code || len(q["iss"]) != 1 || q.Get("iss") != a.Issuer || !strings.HasPrefix(q.Get("state"), "s-") || q.Has("code") || q.Has("access_token") {
		t.Errorf("%s: went on to %s, want %s", what, location, code)
	}
}

// wantOAuth: an error in the form of RFC 6749 that no cache keeps.
func wantOAuth(t *testing.T, what string, got reply, status int, codes ...string) {
	t.Helper()
	var body struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal([]byte(got.body), &body); err != nil || got.status != status || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: %d %v %s, want %d %v", what, got.status, got.header, got.body, status, codes)
		return
	}
	for _, code := range codes {
		if body.Error == code {
			return
		}
	}
	t.Errorf("%s: %s, want %v", what, got.body, codes)
}

// wantChallenge: 401 invalid_token of a protected resource, that no cache keeps.
func wantChallenge(t *testing.T, what string, got reply) {
	t.Helper()
	challenge := got.header.Get("WWW-Authenticate")
	if got.status != http.StatusUnauthorized || !strings.HasPrefix(challenge, "Bearer ") || !strings.Contains(challenge, `error="invalid_token"`) || !strings.Contains(challenge, "resource_metadata=") || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: %d %s %s", what, got.status, challenge, got.body)
	}
}

// healthy: the next good request works.
func (a *attack) healthy(t *testing.T) {
	t.Helper()
	if got := a.rpc(t, "verify", `{"token":"x","audience":"`+a.Issuer+`/mcp"}`, "Authorization", "Bearer "+a.machine); got.status != http.StatusOK {
		t.Errorf("afterwards: %d %s", got.status, got.body)
	}
}

// counted reads from the metrics how many requests the endpoints of the protocol
// answered, save to wrong methods and paths, and how many entries or summaries
// the log has for them.
func (a *attack) counted(t *testing.T) (answered, recorded int) {
	t.Helper()
	got := a.send(t, "GET", "http://"+a.Ops+"/metrics", "")
	for line := range strings.Lines(got.body) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		value, _ := strconv.ParseFloat(text, 64)
		switch {
		case countedRoutes.MatchString(name):
			answered += int(value)
		case countedEntries.MatchString(name):
			recorded += int(value)
		}
	}
	return answered, recorded
}

var (
	countedRoutes  = regexp.MustCompile(`^kavach_http_requests_total{code="(?:2..|40[0136-9]|4[1-9].)",method="POST",route="(?:/oauth/(?:token|introspect|revoke)|/mcp)"}|^kavach_http_requests_total{code="4..",method="GET",route="/oauth/authorize"}`)
	countedEntries = regexp.MustCompile(`^kavach_audit_(?:changes_total|refusals_queued|refusals_written_total|refusals_summarised_total)$`)
)

// wantRecorded: since then the log got at least one mark for every answer.
func (a *attack) wantRecorded(t *testing.T, answered, recorded int) {
	t.Helper()
	nowAnswered, nowRecorded := a.counted(t)
	if nowAnswered-answered > nowRecorded-recorded {
		t.Errorf("%d requests were answered, the log has %d marks of them", nowAnswered-answered, nowRecorded-recorded)
	}
}

// secretsStayOut: A-94. What a caller sent as a secret, and what the server gave
// out, is in no log line and in no row, the audit log's among them.
func (a *attack) secretsStayOut(t *testing.T) {
	for _, path := range []string{"/oauth/token", "/oauth/introspect", "/oauth/revoke"} {
		for _, grant := range []string{"authorization_code", "refresh_token", "client_credentials", a.secret("grant")} {
			body := url.Values{"grant_type": {grant}, "client_id": {a.public.ID}}
			for _, name := range []string{"code", "code_verifier", "refresh_token", "token", "password", "scope", "resource", "redirect_uri", "token_type_hint"} {
				body.Set(name, a.secret(name))
			}
			a.form(t, path, body.Encode())
			a.form(t, path, body.Encode(), "Authorization", basic(a.static.ID, a.secret("basic")))
			a.form(t, path, body.Encode(), "Authorization", "Bearer "+a.secret("bearer"))
			body.Set("client_secret", a.secret("post"))
			a.form(t, path+"?code="+a.secret("query"), body.Encode())
			a.form(t, path, "%zz"+a.secret("torn"))
		}
	}
	a.form(t, "/login", url.Values{"username": {a.secret("username")}, "password": {a.secret("password")}}.Encode())
	a.form(t, "/setup", url.Values{"code": {a.secret("setup")}, "username": {"x"}, "password": {a.secret("password")}}.Encode())
	for _, name := range []string{"client_id", "redirect_uri", "scope", "resource", "code_challenge", "request", "access_token", "id_token_hint", "prompt"} {
		a.ask(t, a.public, a.dev, url.Values{name: {a.secret(name)}})
	}
	a.rpc(t, "verify", `{"token":"`+a.secret("argument")+`","audience":"x"}`, "Authorization", "Bearer "+a.machine)
	a.rpc(t, "verify", `{"token":"`+a.tokens.Access+`","audience":"x"}`, "Authorization", "Bearer "+a.machine)
	a.rpc(t, "revoke", `{"chain":"`+a.secret("chain")+`"}`, "Authorization", "Bearer "+a.tokens.Access)
	a.rpc(t, "verify", `{}`, "Authorization", "Bearer "+a.secret("token")+".a.b")
	a.send(t, "POST", "/mcp?access_token="+a.secret("token"), `{}`)
	a.send(t, "POST", "/api/v1/agents", `{"manifest":"`+a.secret("manifest")+`","assertion":"`+a.secret("assertion")+`","enrolment_token":"`+a.secret("enrolment")+`"}`, "Content-Type", "application/json")

	if err := a.stop(); err != nil { // refusals are written in the background
		t.Errorf("stopping: %v", err)
	}
	defer a.run()
	places := map[string][]byte{"log": []byte(a.output()), "database": a.kept(t)}
	if !bytes.Contains(places["database"], []byte("token.refuse")) {
		t.Error("the database was not read")
	}
	for place, raw := range places {
		for _, secret := range a.secrets {
			if secret != "" && bytes.Contains(raw, []byte(secret)) {
				t.Errorf("%s holds %s", place, secret)
			}
		}
	}
}
