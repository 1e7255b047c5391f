package kavachtest

import (
	"bytes"
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

// redirect is where the clients of the tests are called back. Nobody listens
// there: Approve stops before.
const redirect = "http://127.0.0.1:4711/callback"

// RedirectURL is the redirect URI that clients in tests register.
func RedirectURL() string { return redirect }

// Approve plays the person: it opens an authorization URL in a browser of its
// own, signs in as dev, ticks exactly these scopes (all that are asked for, if
// none is named) and approves. It returns where the browser is sent.
func (s *Server) Approve(authorization string, scopes ...string) (*url.URL, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	browser := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	at, err := url.Parse(authorization)
	if err != nil {
		return nil, err
	}
	response, err := browser.Get(authorization)
	for range 10 {
		if err != nil {
			return nil, err
		}
		body, readErr := io.ReadAll(response.Body)
		response.Body.Close()
		if readErr != nil {
			return nil, readErr
		}
		if location := response.Header.Get("Location"); location != "" {
			if at, err = at.Parse(location); err != nil || !strings.HasPrefix(at.String(), s.Issuer+"/") {
				return at, err
			}
			response, err = browser.Get(at.String())
			continue
		}
		if on := onward.FindStringSubmatch(string(body)); on != nil {
			return at.Parse(html.UnescapeString(on[1]))
		}
		action, values := fill(string(body), scopes)
		if values == nil {
			return nil, fmt.Errorf("%s answered %d without a form", at.Path, response.StatusCode)
		}
		if at, err = at.Parse(action); err != nil {
			return nil, err
		}
		request, _ := http.NewRequest("POST", at.String(), strings.NewReader(values.Encode()))
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.Header.Set("Origin", s.Issuer)
		response, err = browser.Do(request)
	}
	return nil, fmt.Errorf("the pages go round in circles at %s", at.Path)
}

var (
	forms  = regexp.MustCompile(`(?is)<form\b([^>]*)>(.*?)</form>`)
	fields = regexp.MustCompile(`(?is)<(?:input|button)\b([^>]*)>`)
	pairs  = regexp.MustCompile(`([a-zA-Z-]+)(?:\s*=\s*"([^"]*)")?`)
	onward = regexp.MustCompile(`(?i)<meta\s+http-equiv="refresh"\s+content="[^"]*url=([^"]+)"`)
)

// fill completes the form to sign in, or the one to approve.
func fill(page string, scopes []string) (action string, values url.Values) {
	for _, form := range forms.FindAllStringSubmatch(page, -1) {
		if !strings.Contains(form[2], `name="password"`) && !strings.Contains(form[2], `name="decision"`) {
			continue
		}
		values = url.Values{}
		for _, field := range fields.FindAllStringSubmatch(form[2], -1) {
			a := attributes(field[1])
			_, checked := a["checked"]
			switch name := a["name"]; {
			case name == "":
			case name == "username" || name == "password":
				values.Set(name, "dev")
			case name == "decision":
				values.Set(name, "approve")
			case a["type"] != "checkbox":
				values.Add(name, a["value"])
			case slices.Contains(scopes, a["value"]) || len(scopes) == 0 && checked:
				values.Add(name, a["value"])
			}
		}
		return attributes(form[1])["action"], values
	}
	return "", nil
}

func attributes(tag string) map[string]string {
	out := map[string]string{}
	for _, m := range pairs.FindAllStringSubmatch(tag, -1) {
		out[m[1]] = html.UnescapeString(m[2])
	}
	return out
}

// Delegate has the person approve a client for the scopes, and the client
// delegate with them to code-reviewer: args are those of the tool delegate. What
// comes back is the reviewer's token.
func (s *Server) Delegate(t *testing.T, resource string, scopes []string, args map[string]any) string {
	t.Helper()
	var client struct {
		ID string `json:"client_id"`
	}
	s.post(t, "/oauth/register", "application/json", encode(map[string]any{"client_name": "test", "redirect_uris": []string{redirect}, "token_endpoint_auth_method": "none"}), "", &client)

	verifier := rand.Text() + rand.Text()
	challenge := sha256.Sum256([]byte(verifier))
	back, err := s.Approve(s.Issuer + "/oauth/authorize?" + url.Values{
		"response_type": {"code"}, "client_id": {client.ID}, "redirect_uri": {redirect},
		"scope": {"kavach:delegate " + strings.Join(scopes, " ")}, "resource": {s.Issuer + "/mcp", resource},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"},
	}.Encode())
	if err != nil || back.Query().Get("code") == "" {
		t.Fatalf("no code came back: %v %v", back, err)
	}
	var token struct {
		Access string `json:"access_token"`
	}
	s.post(t, "/oauth/token", "application/x-www-form-urlencoded", url.Values{
		"grant_type": {"authorization_code"}, "client_id": {client.ID}, "redirect_uri": {redirect},
		"code": {back.Query().Get("code")}, "code_verifier": {verifier},
	}.Encode(), "", &token)

	args["agent"] = "code-reviewer"
	var answer struct {
		Result struct {
			IsError bool            `json:"isError"`
			Content json.RawMessage `json:"content"`
			Made    struct {
				Token string `json:"token"`
			} `json:"structuredContent"`
		} `json:"result"`
	}
	s.post(t, "/mcp", "application/json", encode(map[string]any{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": map[string]any{"name": "delegate", "arguments": args}}), token.Access, &answer)
	if answer.Result.IsError || answer.Result.Made.Token == "" {
		t.Fatalf("delegate: %s", answer.Result.Content)
	}
	return answer.Result.Made.Token
}

func (s *Server) post(t *testing.T, path, contentType, body, token string, into any) {
	t.Helper()
	request, _ := http.NewRequest("POST", s.Issuer+path, strings.NewReader(body))
	request.Header.Set("Content-Type", contentType)
	request.Header.Set("Accept", "application/json, text/event-stream")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode >= 300 {
		t.Fatalf("%s: %v %d %s", path, err, response.StatusCode, raw)
	}
	if err := json.NewDecoder(bytes.NewReader(raw)).Decode(into); err != nil {
		t.Fatalf("%s: %v: %s", path, err, raw)
	}
}

func encode(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// ScopeOf is what an authorization URL asks for.
func ScopeOf(authorization string) string {
	u, err := url.Parse(authorization)
	if err != nil {
		return ""
	}
	scopes := strings.Fields(u.Query().Get("scope"))
	slices.Sort(scopes)
	return strings.Join(scopes, " ")
}
