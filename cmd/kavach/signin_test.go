package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// signInAndApprove plays a client and the person dev, as a browser without
// JavaScript would: register, authorize, sign in, tick every box, approve,
// redeem the code. It returns the access token.
func signInAndApprove(t *testing.T, issuer string) string {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

	const redirect = "http://127.0.0.1:33418/callback"
	registered := postForJSON(t, issuer+"/oauth/register", "application/json", `{"client_name":"A test","redirect_uris":["`+redirect+`"],"token_endpoint_auth_method":"none"}`, http.StatusCreated)
	clientID, _ := registered["client_id"].(string)

	verifier := make([]byte, 32)
	rand.Read(verifier)
	secret := base64.RawURLEncoding.EncodeToString(verifier)
	sum := sha256.Sum256([]byte(secret))
	page := issuer + "/oauth/authorize?" + url.Values{
		"response_type": {"code"}, "client_id": {clientID}, "redirect_uri": {redirect},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
		"resource": {issuer + "/mcp"}, "scope": {"kavach:verify kavach:delegate kavach:audit"},
	}.Encode()

	var body string
	for range 8 { // authorize → login → consent, by redirects and forms
		resp, err := browser.Get(page)
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		body = string(raw)
		if location := resp.Header.Get("Location"); location != "" {
			next, err := resp.Request.URL.Parse(location)
			if err != nil {
				t.Fatal(err)
			}
			page = next.String()
			continue
		}
		form := formOf(t, body)
		switch {
		case strings.Contains(body, `name="password"`):
			form.Set("username", "dev")
			form.Set("password", "dev")
			resp, err := browser.PostForm(issuer+"/login", form)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			next, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
			if err != nil || resp.StatusCode != http.StatusSeeOther {
				t.Fatalf("signing in answers %d", resp.StatusCode)
			}
			page = next.String()
		case strings.Contains(body, `value="approve"`):
			form.Set("decision", "approve")
			resp, err := browser.PostForm(issuer+"/consent", form)
			if err != nil {
				t.Fatal(err)
			}
			raw, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			m := regexp.MustCompile(`href="(http://127\.0\.0\.1:33418/callback[^"]*)"`).FindStringSubmatch(string(raw))
			if m == nil {
				t.Fatalf("approving answers %d:\n%s", resp.StatusCode, raw)
			}
			back, err := url.Parse(html.UnescapeString(m[1]))
			if err != nil {
				t.Fatal(err)
			}
			if back.Query().Get("iss") != issuer {
				t.Fatalf("the answer's iss is %q", back.Query().Get("iss"))
			}
			tokens := postForJSON(t, issuer+"/oauth/token", "application/x-www-form-urlencoded", url.Values{
				"grant_type": {"authorization_code"}, "code": {back.Query().Get("code")}, "redirect_uri": {redirect},
				"client_id": {clientID}, "code_verifier": {secret},
			}.Encode(), http.StatusOK)
			token, _ := tokens["access_token"].(string)
			return token
		default:
			t.Fatalf("%s answers %d with neither sign-in nor consent:\n%s", page, resp.StatusCode, body)
		}
	}
	t.Fatalf("the authorization never ends:\n%s", body)
	return ""
}

// postForJSON posts and decodes the answer.
func postForJSON(t *testing.T, address, contentType, body string, want int) map[string]any {
	t.Helper()
	resp, err := http.Post(address, contentType, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != want {
		t.Fatalf("%s answers %d, want %d: %s", address, resp.StatusCode, want, raw)
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatalf("%s: %v", address, err)
	}
	return m
}

var (
	inputTag  = regexp.MustCompile(`<input [^>]*>`)
	attribute = regexp.MustCompile(`([a-z]+)="([^"]*)"`)
)

// formOf collects the hidden fields of a page and every box, ticked.
func formOf(t *testing.T, page string) url.Values {
	t.Helper()
	form := url.Values{}
	for _, tag := range inputTag.FindAllString(page, -1) {
		attributes := map[string]string{}
		for _, m := range attribute.FindAllStringSubmatch(tag, -1) {
			attributes[m[1]] = html.UnescapeString(m[2])
		}
		if kind := attributes["type"]; kind == "hidden" || kind == "checkbox" {
			form.Add(attributes["name"], attributes["value"])
		}
	}
	return form
}
