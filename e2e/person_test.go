package e2e

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// person is somebody with a browser: cookies, and a hand that fills in forms.
type person struct {
	t                  *testing.T
	http               *http.Client
	username, password string
}

func newPerson(t *testing.T, username, password string) *person {
	jar, _ := cookiejar.New(nil)
	return &person{t: t, username: username, password: password, http: &http.Client{
		Jar:           jar,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

var (
	formPattern  = regexp.MustCompile(`(?is)<form\b([^>]*)>(.*?)</form>`)
	fieldPattern = regexp.MustCompile(`(?is)<(?:input|button)\b([^>]*)>`)
	attrPattern  = regexp.MustCompile(`([a-zA-Z-]+)(?:\s*=\s*"([^"]*)")?`)
	onPattern    = regexp.MustCompile(`(?i)<meta\s+http-equiv="refresh"\s+content="[^"]*url=([^"]+)"`)
)

func attributes(tag string) map[string]string {
	out := map[string]string{}
	for _, m := range attrPattern.FindAllStringSubmatch(tag, -1) {
		out[strings.ToLower(m[1])] = html.UnescapeString(m[2])
	}
	return out
}

// choice is what the person does on the consent page.
type choice struct {
	deny   bool
	untick []string
	tick   []string
	forge  url.Values // fields a tampered page adds
}

// page is where the walk through the pages ended when it did not leave for the client.
type page struct {
	status int
	header http.Header
	body   string
}

func (p page) Error() string { return fmt.Sprintf("page %d: %s", p.status, p.body) }

// authorize opens an authorization URL and answers the URL at the client that
// the browser is sent to, or a page as error.
func (p *person) authorize(authorization string, c choice) (*url.URL, error) {
	at, err := url.Parse(authorization)
	if err != nil {
		return nil, err
	}
	origin := at.Scheme + "://" + at.Host
	request, _ := http.NewRequest("GET", at.String(), nil)
	for range 12 {
		response, err := p.http.Do(request)
		if err != nil {
			return nil, err
		}
		raw, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil {
			return nil, err
		}
		body := string(raw)
		if response.StatusCode >= 300 && response.StatusCode < 400 {
			next, err := at.Parse(response.Header.Get("Location"))
			if err != nil {
				return nil, err
			}
			at = next
			if at.Scheme+"://"+at.Host != origin {
				return at, nil
			}
			request, _ = http.NewRequest("GET", at.String(), nil)
			continue
		}
		if response.StatusCode != http.StatusOK {
			return nil, page{response.StatusCode, response.Header, body}
		}
		if on := onPattern.FindStringSubmatch(body); on != nil {
			return at.Parse(html.UnescapeString(on[1]))
		}
		values, action, found := p.fill(body, c)
		if !found {
			return nil, page{response.StatusCode, response.Header, body}
		}
		if at, err = at.Parse(action); err != nil {
			return nil, err
		}
		request, _ = http.NewRequest("POST", at.String(), strings.NewReader(values.Encode()))
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.Header.Set("Origin", origin)
		request.Header.Set("Sec-Fetch-Site", "same-origin")
	}
	return nil, fmt.Errorf("the pages go round in circles at %s", at.Path)
}

// fill completes the sign-in or consent form of a page.
func (p *person) fill(body string, c choice) (url.Values, string, bool) {
	for _, form := range formPattern.FindAllStringSubmatch(body, -1) {
		if !strings.Contains(form[2], `name="password"`) && !strings.Contains(form[2], `name="decision"`) {
			continue
		}
		values := url.Values{}
		for _, field := range fieldPattern.FindAllStringSubmatch(form[2], -1) {
			a := attributes(field[1])
			_, checked := a["checked"]
			switch {
			case a["name"] == "":
			case a["name"] == "username":
				values.Set("username", p.username)
			case a["name"] == "password":
				values.Set("password", p.password)
			case a["name"] == "decision":
				values.Set("decision", map[bool]string{false: "approve", true: "deny"}[c.deny])
			case a["type"] == "checkbox":
				if checked && !slices.Contains(c.untick, a["value"]) || slices.Contains(c.tick, a["value"]) {
					values.Add(a["name"], a["value"])
				}
			default:
				values.Add(a["name"], a["value"])
			}
		}
		for name, more := range c.forge {
			values[name] = append(values[name], more...)
		}
		return values, attributes(form[1])["action"], true
	}
	return nil, "", false
}

// oauthClient is a public client that registered itself.
type oauthClient struct {
	t        *testing.T
	issuer   string
	ID       string
	Redirect string
}

func register(t *testing.T, issuer string) *oauthClient {
	t.Helper()
	c := &oauthClient{t: t, issuer: issuer, Redirect: "http://127.0.0.1:4711/callback"}
	var answer struct {
		ID string `json:"client_id"`
	}
	status := c.postJSON("/oauth/register", map[string]any{"client_name": "e2e", "redirect_uris": []string{c.Redirect}, "grant_types": []string{"authorization_code", "refresh_token"}, "token_endpoint_auth_method": "none"}, &answer)
	if status != http.StatusCreated {
		t.Fatalf("registration answered %d", status)
	}
	c.ID = answer.ID
	return c
}

func (c *oauthClient) postJSON(path string, body, into any) int {
	c.t.Helper()
	encoded, _ := json.Marshal(body)
	response, err := http.Post(c.issuer+path, "application/json", strings.NewReader(string(encoded)))
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(into); err != nil {
		c.t.Fatal(err)
	}
	return response.StatusCode
}

// request is one authorization request with the verifier that belongs to it.
type request struct{ url, verifier string }

func (c *oauthClient) request(scope string, extra url.Values) request {
	random := make([]byte, 32)
	rand.Read(random)
	verifier := base64.RawURLEncoding.EncodeToString(random)
	sum := sha256.Sum256([]byte(verifier))
	q := url.Values{
		"client_id": {c.ID}, "redirect_uri": {c.Redirect}, "response_type": {"code"}, "scope": {scope}, "resource": {c.issuer + "/mcp"},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"}, "state": {"s-" + verifier[:8]},
	}
	for k, v := range extra {
		q[k] = v
	}
	return request{c.issuer + "/oauth/authorize?" + q.Encode(), verifier}
}

// tokens is a token endpoint's answer, good or bad.
type tokens struct {
	Status       int         `json:"-"`
	Header       http.Header `json:"-"`
	Access       string      `json:"access_token"`
	Refresh      string      `json:"refresh_token"`
	Scope        string      `json:"scope"`
	Type         string      `json:"token_type"`
	IssuedType   string      `json:"issued_token_type"`
	ExpiresIn    int         `json:"expires_in"`
	Error        string      `json:"error"`
	ErrorMessage string      `json:"error_description"`
}

// form posts a form to an endpoint and decodes the JSON answer.
func form(issuer, path string, values url.Values) (tokens, error) {
	return post(http.DefaultClient, issuer+path, values, nil)
}

func (c *oauthClient) redeem(code, verifier string) (tokens, error) {
	return form(c.issuer, "/oauth/token", url.Values{"grant_type": {"authorization_code"}, "client_id": {c.ID}, "redirect_uri": {c.Redirect}, "code": {code}, "code_verifier": {verifier}})
}

func (c *oauthClient) refresh(token string) (tokens, error) {
	return form(c.issuer, "/oauth/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {c.ID}, "refresh_token": {token}})
}

// signIn walks the whole way for one set of tokens.
func (c *oauthClient) signIn(p *person, scope string, how choice) tokens {
	c.t.Helper()
	r := c.request(scope, nil)
	back, err := p.authorize(r.url, how)
	if err != nil {
		c.t.Fatal(err)
	}
	if back.Query().Get("code") == "" {
		c.t.Fatalf("no code came back: %s", back)
	}
	got, err := c.redeem(back.Query().Get("code"), r.verifier)
	if err != nil || got.Status != http.StatusOK {
		c.t.Fatalf("redeeming: %v %+v", err, got)
	}
	return got
}

// callTool calls one MCP tool with a bearer token, statelessly.
func callTool(issuer, token, tool string, args map[string]any) (status int, result map[string]any, header http.Header, err error) {
	authorization := http.Header{}
	if token != "" {
		authorization.Set("Authorization", "Bearer "+token)
	}
	return callToolWith(http.DefaultClient, issuer, tool, args, authorization)
}

// callToolWith is callTool with whatever headers prove who calls.
func callToolWith(client *http.Client, issuer, tool string, args map[string]any, credentials http.Header) (status int, result map[string]any, header http.Header, err error) {
	body, _ := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": map[string]any{"name": tool, "arguments": args}})
	request, _ := http.NewRequest("POST", issuer+"/mcp", strings.NewReader(string(body)))
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json, text/event-stream")
	request.Header.Set("MCP-Protocol-Version", "2025-11-25")
	for name, list := range credentials {
		request.Header[name] = list
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, nil, err
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, nil, nil, err
	}
	text := string(raw)
	if i := strings.Index(text, "data: "); i >= 0 && strings.HasPrefix(response.Header.Get("Content-Type"), "text/event-stream") {
		text, _, _ = strings.Cut(text[i+len("data: "):], "\n")
	}
	var answer struct {
		Result map[string]any `json:"result"`
	}
	if text != "" {
		if err := json.Unmarshal([]byte(text), &answer); err != nil {
			return response.StatusCode, nil, response.Header, fmt.Errorf("%w: %s", err, text)
		}
	}
	return response.StatusCode, answer.Result, response.Header, nil
}

// alive says whether /mcp accepts a token.
func alive(t *testing.T, issuer, token string) bool {
	t.Helper()
	status, _, _, err := callTool(issuer, token, "verify", map[string]any{"token": "x", "audience": issuer + "/mcp"})
	if err != nil {
		t.Fatal(err)
	}
	return status == http.StatusOK
}
