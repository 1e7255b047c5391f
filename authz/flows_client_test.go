package authz_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/authz"
)

func TestTokenRequestsThatAreWrong(t *testing.T) {
	f := newFlows(t)
	client := f.public()
	for _, c := range []struct {
		name   string
		form   url.Values
		status int
		error  string
	}{
		{"nothing", url.Values{}, 400, "invalid_request"},
		{"no grant type", url.Values{"client_id": {client}}, 400, "invalid_request"},
		{"an unknown grant type", url.Values{"grant_type": {"password"}, "client_id": {client}}, 400, "unsupported_grant_type"},
		{"two grant types in one", url.Values{"grant_type": {"authorization_code refresh_token"}, "client_id": {client}}, 400, "unsupported_grant_type"},
		{"a grant type twice", url.Values{"grant_type": {"authorization_code", "refresh_token"}, "client_id": {client}}, 400, "invalid_request"},
		{"no client", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x"}}, 401, "invalid_client"},
		{"an unknown client", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x"}, "client_id": {"nobody"}}, 401, "invalid_client"},
		{"a public client with a secret", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x"}, "client_id": {client}, "client_secret": {"x"}}, 401, "invalid_client"},
		{"a grant the client is not registered for", url.Values{"grant_type": {"client_credentials"}, "client_id": {client}}, 400, "unauthorized_client"},
		{"no refresh token", url.Values{"grant_type": {"refresh_token"}, "client_id": {client}}, 400, "invalid_request"},
		{"a restriction that the grant does not take", url.Values{"grant_type": {"refresh_token"}, "client_id": {client}, "refresh_token": {"a.b"},
			"authorization_details": {`[{"type":"kavach_limits","max_file_size":5}]`}}, 400, "invalid_authorization_details"},
		{"an unknown refresh token", url.Values{"grant_type": {"refresh_token"}, "client_id": {client}, "refresh_token": {"a.b"}}, 400, "invalid_grant"},
	} {
		a := f.token(c.form)
		if a.status != c.status || a.str("error") != c.error {
			t.Errorf("%s: %d %v, want %d %s", c.name, a.status, a.body, c.status, c.error)
		}
		if c.status == 401 && a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: no challenge", c.name)
		}
	}
	r, err := http.Get(f.issuer + "/oauth/token?grant_type=client_credentials")
	must(t, err)
	if decode(t, r); r.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", r.StatusCode)
	}
	r, err = http.Post(f.issuer+"/oauth/token", "application/json", strings.NewReader(`{"grant_type":"client_credentials"}`))
	must(t, err)
	if got := decode(t, r); r.StatusCode != http.StatusBadRequest || got["error"] != "invalid_request" {
		t.Errorf("JSON: %d %v", r.StatusCode, got)
	}
}

func TestClientCredentials(t *testing.T) {
	f := newFlows(t)
	id, secret := f.client(authz.NewClient{Scopes: []string{"repo:read", "audit:write"}})
	cc := url.Values{"grant_type": {"client_credentials"}}
	with := func(pairs ...string) url.Values {
		form := url.Values{"grant_type": {"client_credentials"}}
		for i := 0; i < len(pairs); i += 2 {
			form.Add(pairs[i], pairs[i+1])
		}
		return form
	}

	a := f.token(cc, id, secret)
	if a.status != http.StatusOK || a.str("scope") != "audit:write repo:read" || a.body["refresh_token"] != nil || a.body["expires_in"] != 600.0 {
		t.Fatalf("all: %d %v", a.status, a.body)
	}
	c := f.chain(a.str("access_token"))
	if c.Principal() != id || c.ClientID() != id || !f.alive(a.str("access_token")) {
		t.Errorf("sub %s, client %s", c.Principal(), c.ClientID())
	}
	a = f.token(with("resource", git), id, secret)
	if a.str("scope") != "repo:read" || !slices.Equal(f.chain(a.str("access_token")).Audience(), []string{git}) {
		t.Errorf("for git: %d %v", a.status, a.body)
	}
	a = f.token(with("scope", "audit:write", "resource", f.issuer+"/api"), id, secret)
	if a.str("scope") != "audit:write" || !slices.Equal(f.chain(a.str("access_token")).Audience(), []string{f.issuer + "/api"}) {
		t.Errorf("for the API: %d %v", a.status, a.body)
	}
	f.wantError(f.token(with("scope", "repo:write"), id, secret), 400, "invalid_scope")
	f.wantError(f.token(with("scope", "audit:read"), id, secret), 400, "invalid_scope")
	f.wantError(f.token(with("resource", legacy), id, secret), 400, "invalid_scope")
	f.wantError(f.token(with("resource", "https://nowhere.example"), id, secret), 400, "invalid_target")
	f.wantError(f.token(cc, id, secret+"x"), 401, "invalid_client")
	f.wantError(f.token(with("client_id", id, "client_secret", secret)), 401, "invalid_client") // registered for Basic
	f.wantError(f.token(with("client_id", id, "client_secret", secret), id, secret), 400, "invalid_request")

	post, word := f.client(authz.NewClient{Method: authz.MethodPost, Scopes: []string{"old:read"}})
	a = f.token(with("client_id", post, "client_secret", word))
	if a.status != http.StatusOK || a.str("scope") != "old:read" {
		t.Errorf("by post: %d %v", a.status, a.body)
	}
	if alg := header(t, a.str("access_token"))["alg"]; alg != "RS256" {
		t.Errorf("the old resource server's token is signed by %v", alg)
	}
	mixed, word := f.client(authz.NewClient{Method: authz.MethodPost, Scopes: []string{"old:read", "repo:read"}})
	f.wantError(f.token(with("client_id", mixed, "client_secret", word)), 400, "invalid_target")
}

// A database that fails is no reason for a client to throw its registration
// away: 503, never 401 or 500.
func TestStorageErrorsAre503(t *testing.T) {
	f := newFlows(t)
	client, a := f.tokens(nil)
	b, p := f.signedIn("alice"), newProof()
	code := f.code(b, client, p, nil)
	must(t, f.store.Close())
	f.clock.advance(2 * time.Second) // what was cached is stale
	for name, form := range map[string]url.Values{
		"code": f.redeem(client, code, p, nil), "refresh": refreshForm(client, a.str("refresh_token"), nil),
		"credentials": {"grant_type": {"client_credentials"}, "client_id": {client}},
	} {
		got := f.token(form)
		if got.status != http.StatusServiceUnavailable || got.str("error") != "temporarily_unavailable" || got.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %v", name, got.status, got.body)
		}
		if strings.Contains(got.str("error_description"), "sql") {
			t.Errorf("%s: %v", name, got.body)
		}
	}
	page := b.get("/oauth/authorize?" + f.request(client, p, nil).Encode())
	if page.status != http.StatusServiceUnavailable || page.location != "" {
		t.Errorf("authorize: %d %s", page.status, page.location)
	}
}

// "Parameters sent without a value MUST be treated as if they were omitted"
// (RFC 6749 §3.2), and offline_access is accepted everywhere.
func TestParametersThatSayNothing(t *testing.T) {
	f := newFlows(t)
	id, secret := f.client(authz.NewClient{Scopes: []string{"repo:read"}})
	for name, change := range map[string]url.Values{
		"an empty resource":      {"resource": {""}},
		"empty ones":             {"resource": {"", git, ""}},
		"an empty scope":         {"scope": {""}},
		"offline_access":         {"scope": {"offline_access"}},
		"offline_access besides": {"scope": {"repo:read offline_access"}},
		"the same one twice":     {"scope": {"repo:read repo:read"}, "resource": {git, git}},
		"an unknown parameter":   {"colour": {"blue"}},
		"an audience":            {"audience": {"https://nowhere.example"}}, // of token exchange only
	} {
		change.Set("grant_type", "client_credentials")
		if a := f.token(change, id, secret); a.status != http.StatusOK || a.str("scope") != "repo:read" {
			t.Errorf("%s: %d %v", name, a.status, a.body)
		}
	}
}
