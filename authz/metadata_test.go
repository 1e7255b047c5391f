package authz_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
)

func (rt *registryTest) wellKnown(path string, change ...func(*http.Request)) reply {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for _, f := range change {
		f(r)
	}
	return serve(rt.WellKnown().ServeHTTP, r)
}

// golden compares JSON with a file of testdata, member by member.
func golden(t *testing.T, name, got string) {
	t.Helper()
	var indented bytes.Buffer
	must(t, json.Indent(&indented, []byte(got), "", "  "))
	want, err := os.ReadFile(filepath.Join("testdata", name))
	must(t, err)
	if indented.String()+"\n" != string(want) {
		t.Errorf("%s\n got %s\nwant %s", name, indented.String(), want)
	}
}

func TestMetadata(t *testing.T) {
	rt := newRegistry(t)
	for path, name := range map[string]string{
		"/.well-known/oauth-authorization-server":   "server_metadata.json",
		"/.well-known/oauth-protected-resource":     "resource_mcp.json",
		"/.well-known/oauth-protected-resource/mcp": "resource_mcp.json",
		"/.well-known/oauth-protected-resource/api": "resource_api.json",
	} {
		got := rt.wellKnown(path)
		if got.status != http.StatusOK || got.header.Get("Content-Type") != "application/json" ||
			got.header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s: %d %v", path, got.status, got.header)
		}
		golden(t, name, got.body)
	}
}

func TestMetadataIsConfiguredNotAsked(t *testing.T) {
	rt := newRegistry(t)
	const path = "/.well-known/oauth-authorization-server"
	want := rt.wellKnown(path).body
	got := rt.wellKnown(path, func(r *http.Request) {
		r.Host = "evil.example"
		r.Header.Set("X-Forwarded-Host", "evil.example")
		r.Header.Set("X-Forwarded-Proto", "http")
		r.Header.Set("Forwarded", "host=evil.example;proto=http")
	})
	if got.body != want {
		t.Errorf("Host changed the metadata: %s", got.body)
	}
}

func TestOtherWellKnownPathsAre404(t *testing.T) {
	rt := newRegistry(t)
	for _, path := range []string{
		"/.well-known/openid-configuration", "/.well-known/oauth-authorization-server/mcp", "/.well-known/", "/.well-known/x",
		"/.well-known/oauth-protected-resource/other", "/.well-known/..%2fjwks.json", "/.well-known/JWKS.json",
	} {
		if got := rt.wellKnown(path); got.status != http.StatusNotFound || got.json(t)["error"] == nil {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
}

func TestCORS(t *testing.T) {
	rt := newRegistry(t)
	preflight := func(h http.HandlerFunc, path string) reply {
		r := httptest.NewRequest(http.MethodOptions, path, nil)
		r.Header.Set("Origin", "https://app.example")
		r.Header.Set("Access-Control-Request-Method", "POST")
		return serve(h, r)
	}
	for path, h := range map[string]http.HandlerFunc{
		"/oauth/register": rt.HandleRegister, "/oauth/revoke": rt.HandleRevoke, "/.well-known/jwks.json": rt.WellKnown().ServeHTTP,
	} {
		got := preflight(h, path)
		if got.status != http.StatusNoContent || got.header.Get("Access-Control-Allow-Origin") != "*" ||
			got.header.Get("Access-Control-Allow-Credentials") != "" ||
			got.header.Get("Access-Control-Allow-Headers") != "Authorization, Content-Type, DPoP, MCP-Protocol-Version" {
			t.Errorf("%s: %d %v", path, got.status, got.header)
		}
	}
	// Errors can be read too.
	if got := rt.register("no"); got.header.Get("Access-Control-Allow-Origin") != "*" ||
		got.header.Get("Access-Control-Expose-Headers") != "WWW-Authenticate, DPoP-Nonce, Retry-After" {
		t.Errorf("error of register: %v", got.header)
	}
	// Introspection is for those who hold a secret: no page of a browser.
	if got := preflight(rt.HandleIntrospect, "/oauth/introspect"); got.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("introspection: %v", got.header)
	}
}
