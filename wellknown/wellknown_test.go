package wellknown_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/wellknown"
)

func keys(t *testing.T) []wellknown.Key {
	t.Helper()
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return []wellknown.Key{
		{KID: "at-ed", Alg: "Ed25519", Public: ed},
		{KID: "at-ec", Alg: "ES256", Public: &ec.PublicKey},
		{KID: "at-rs", Alg: "RS256", Public: &rs.PublicKey},
	}
}

func TestJWKSRoundTrip(t *testing.T) {
	want := keys(t)
	doc, err := wellknown.JWKS(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := wellknown.ParseJWKS(doc)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%d keys of %d", len(got), len(want))
	}
	for i, k := range got {
		if k.KID != want[i].KID || k.Alg != want[i].Alg || !reflect.DeepEqual(k.Public, want[i].Public) {
			t.Errorf("key %d is %+v, want %+v", i, k, want[i])
		}
	}
	var set struct{ Keys []map[string]any }
	if err := json.Unmarshal(doc, &set); err != nil {
		t.Fatal(err)
	}
	for _, k := range set.Keys {
		for name := range k {
			if !strings.Contains(" kty use alg kid crv x y n e ", " "+name+" ") {
				t.Errorf("the key set publishes %s", name)
			}
		}
	}
	empty, err := wellknown.JWKS(nil)
	if err != nil || string(empty) != `{"keys":[]}` {
		t.Errorf("%s %v", empty, err)
	}
}

func TestJWKSRefuses(t *testing.T) {
	good := keys(t)
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]wellknown.Key{
		"no kid":        {Alg: "Ed25519", Public: good[0].Public},
		"bad kid":       {KID: "a b", Alg: "Ed25519", Public: good[0].Public},
		"other alg":     {KID: "a", Alg: "ES256", Public: good[0].Public},
		"EdDSA":         {KID: "a", Alg: "EdDSA", Public: good[0].Public},
		"no key":        {KID: "a", Alg: "ES256"},
		"a private key": {KID: "a", Alg: "Ed25519", Public: private},
		"P-384":         {KID: "a", Alg: "ES256", Public: &p384.PublicKey},
	} {
		if doc, err := wellknown.JWKS([]wellknown.Key{k}); !errors.Is(err, wellknown.ErrInvalid) {
			t.Errorf("%s is published: %s", name, doc)
		}
	}
}

func TestParseJWKS(t *testing.T) {
	one := func(members string) string { return `{"keys":[{` + members + `}]}` }
	const ed = `"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"`
	for name, c := range map[string]struct {
		doc  string
		keys int
	}{
		"plain":             {one(ed + `,"kid":"a"`), 1},
		"with its alg":      {one(ed + `,"kid":"a","alg":"Ed25519","use":"sig","key_ops":["verify"]`), 1},
		"unknown member":    {one(ed + `,"kid":"a","x5t":"y"`), 1},
		"no kid":            {one(ed), 0},
		"other alg":         {one(ed + `,"kid":"a","alg":"ES256"`), 0},
		"EdDSA":             {one(ed + `,"kid":"a","alg":"EdDSA"`), 0},
		"none":              {one(ed + `,"kid":"a","alg":"none"`), 0},
		"for encryption":    {one(ed + `,"kid":"a","use":"enc"`), 0},
		"for signing only":  {one(ed + `,"kid":"a","key_ops":["sign"]`), 0},
		"private":           {one(ed + `,"kid":"a","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"`), 0},
		"member twice":      {one(ed + `,"kid":"a","kid":"b"`), 0},
		"name of the case":  {one(ed + `,"KID":"a"`), 0},
		"padded":            {one(`"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo="`), 0},
		"short":             {one(`"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qY"`), 0},
		"off the curve":     {one(`"kty":"EC","crv":"P-256","kid":"a","x":"04N0xi21hshyvBp7I167sbE_bXqyqkAPfefdklMO7wY","y":"UI8exy-C06a7DUnjIdENkxeFtHM4-l_41LqEw9nVgnw"`), 0},
		"symmetric":         {one(`"kty":"oct","kid":"a","k":"AAAA"`), 0},
		"unknown type":      {one(`"kty":"AKP","kid":"a","pub":"AAAA"`), 0},
		"not an object":     {`{"keys":[1,"x",null,{` + ed + `,"kid":"a"}]}`, 1},
		"two names":         {`{"keys":[{` + ed + `,"kid":"a"},{` + ed + `,"kid":"b"}]}`, 2},
		"one name for two":  {`{"keys":[{` + ed + `,"kid":"a"},{` + ed + `,"kid":"a"}]}`, -1},
		"keys twice":        {`{"keys":[],"keys":[{` + ed + `,"kid":"a"}]}`, -1},
		"no keys":           {`{}`, -1},
		"keys null":         {`{"keys":null}`, -1},
		"keys of the case":  {`{"Keys":[{` + ed + `,"kid":"a"}]}`, -1},
		"keys not a list":   {`{"keys":{}}`, -1},
		"no JSON":           {`<html>`, -1},
		"trailing data":     {`{"keys":[]}{}`, -1},
		"more than anybody": {`{"keys":[` + strings.Repeat(`{},`, 300) + `{}]}`, -1},
	} {
		got, err := wellknown.ParseJWKS([]byte(c.doc))
		if (err != nil) != (c.keys < 0) || c.keys >= 0 && len(got) != c.keys {
			t.Errorf("%s: %d keys, %v", name, len(got), err)
		}
		if err != nil && !errors.Is(err, wellknown.ErrInvalid) {
			t.Errorf("%s: %v is not ErrInvalid", name, err)
		}
	}
}

// TestWycheproofRSA: keys that published tests say must not be used are left
// out, and the good ones are not.
func TestWycheproofRSA(t *testing.T) {
	data, err := os.ReadFile("../agent/testdata/json_web_key_test.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		TestGroups []struct {
			Comment string
			Public  json.RawMessage
			Tests   []struct {
				TcID            int
				Comment, Result string
			}
		}
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, g := range file.TestGroups {
		test := g.Tests[0]
		if g.Public == nil || string(g.Public) == "null" {
			continue // symmetric keys
		}
		got, err := wellknown.ParseJWKS(g.Public)
		if err != nil {
			t.Fatalf("test %d: %v", test.TcID, err)
		}
		seen++
		if want := test.Result == "valid"; (len(got) == 1) != want {
			t.Errorf("test %d (%s): %d keys", test.TcID, test.Comment, len(got))
		}
	}
	if seen < 10 {
		t.Errorf("only %d key sets", seen)
	}
}

func TestPaths(t *testing.T) {
	for id, want := range map[string]string{
		"https://k.example":              "/.well-known/oauth-protected-resource",
		"https://k.example/":             "/.well-known/oauth-protected-resource",
		"https://k.example/mcp":          "/.well-known/oauth-protected-resource/mcp",
		"http://127.0.0.1:8420/a/b%20c/": "/.well-known/oauth-protected-resource/a/b%20c",
	} {
		if got, err := wellknown.ResourcePathOf(id); err != nil || got != want {
			t.Errorf("%s: %s %v", id, got, err)
		}
	}
	if got, err := wellknown.ServerPathOf("https://k.example/tenant"); err != nil || got != "/.well-known/oauth-authorization-server/tenant" {
		t.Errorf("%s %v", got, err)
	}
	if got, err := wellknown.ResourceURLOf("https://k.example:8443/mcp?x=1"); err != nil || got != "https://k.example:8443/.well-known/oauth-protected-resource/mcp?x=1" {
		t.Errorf("%s %v", got, err)
	}
	for _, bad := range []string{"", "k.example", "/mcp", "urn:x", "https://k.example/#f", "https://%zz"} {
		if got, err := wellknown.ResourceURLOf(bad); !errors.Is(err, wellknown.ErrInvalid) {
			t.Errorf("%q: %s", bad, got)
		}
	}
}

const issuer = "https://k.example"

func handler(t *testing.T, fail bool) http.Handler {
	published := keys(t)
	answer := func() error {
		if fail {
			return errors.New("the database at 10.0.0.7 is down")
		}
		return nil
	}
	return wellknown.Handler(wellknown.Config{
		Server: func(context.Context) (wellknown.ServerMetadata, error) {
			return wellknown.ServerMetadata{Issuer: issuer, TokenEndpoint: issuer + "/oauth/token", CodeChallengeMethodsSupported: []string{"S256"}}, answer()
		},
		Resources: func(context.Context) ([]wellknown.ResourceMetadata, error) {
			return []wellknown.ResourceMetadata{
				{Resource: issuer + "/mcp", AuthorizationServers: []string{issuer}, ScopesSupported: []string{"kavach:verify"}},
				{Resource: issuer + "/api", AuthorizationServers: []string{issuer}},
			}, answer()
		},
		Fallback: issuer + "/mcp",
		Keys:     func(context.Context) ([]wellknown.Key, error) { return published, answer() },
		Logger:   slog.New(slog.DiscardHandler),
	})
}

func get(h http.Handler, method, target string, header ...string) *http.Response {
	r := httptest.NewRequest(method, target, nil)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, resp *http.Response) map[string]any {
	t.Helper()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatalf("%q is no JSON: %v", data, err)
	}
	return m
}

func TestHandler(t *testing.T) {
	h := handler(t, false)
	for path, want := range map[string]string{
		"/.well-known/oauth-authorization-server":                    `issuer ` + issuer,
		"/.well-known/oauth-protected-resource":                      `resource ` + issuer + `/mcp`,
		"/.well-known/oauth-protected-resource/mcp":                  `resource ` + issuer + `/mcp`,
		"/.well-known/oauth-protected-resource/api":                  `resource ` + issuer + `/api`,
		"/.well-known/oauth-protected-resource/mcp?any=thing":        `resource ` + issuer + `/mcp`,
		"http://evil.example/.well-known/oauth-authorization-server": `issuer ` + issuer,
	} {
		resp := get(h, "GET", path, "Origin", "https://app.example")
		name, value, _ := strings.Cut(want, " ")
		m := body(t, resp)
		if resp.StatusCode != 200 || m[name] != value {
			t.Errorf("%s: %d %v", path, resp.StatusCode, m)
		}
		if resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("Cache-Control") != "public, max-age=60" {
			t.Errorf("%s: %v", path, resp.Header)
		}
		if resp.Header.Get("Access-Control-Allow-Origin") != "*" || resp.Header.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: CORS %v", path, resp.Header)
		}
	}
	if m := body(t, get(h, "GET", wellknown.ServerPath)); m["authorization_endpoint"] != nil || m["registration_endpoint"] != nil || len(m) != 3 {
		t.Errorf("the metadata lists what is not there: %v", m)
	}
	if m := body(t, get(h, "GET", wellknown.JWKSPath)); len(m["keys"].([]any)) != 3 {
		t.Errorf("keys %v", m)
	}
	for _, path := range []string{
		"/.well-known/openid-configuration", "/.well-known/", "/.well-known/oauth-protected-resource/other",
		"/.well-known/oauth-authorization-server/mcp", "/.well-known/oauth-protected-resourcemcp", "/.well-known/jwks.json/x",
	} {
		resp := get(h, "GET", path, "Origin", "https://app.example")
		if m := body(t, resp); resp.StatusCode != 404 || m["error"] != "not_found" || resp.Header.Get("Access-Control-Allow-Origin") != "*" || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", path, resp.StatusCode, m)
		}
	}
	preflight := get(h, "OPTIONS", wellknown.ServerPath, "Origin", "https://app.example", "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "mcp-protocol-version")
	if preflight.StatusCode != 204 || !strings.Contains(preflight.Header.Get("Access-Control-Allow-Headers"), "MCP-Protocol-Version") {
		t.Errorf("preflight: %d %v", preflight.StatusCode, preflight.Header)
	}
	if resp := get(h, "POST", wellknown.ServerPath); resp.StatusCode != 405 || resp.Header.Get("Allow") == "" || body(t, resp)["error"] != "invalid_request" {
		t.Errorf("POST: %d %v", resp.StatusCode, resp.Header)
	}
	first := get(h, "GET", wellknown.JWKSPath)
	if again := get(h, "GET", wellknown.JWKSPath, "If-None-Match", first.Header.Get("ETag")); again.StatusCode != 304 {
		t.Errorf("unchanged: %d", again.StatusCode)
	}
}

func TestHandlerFails(t *testing.T) {
	h := handler(t, true)
	for _, path := range []string{wellknown.JWKSPath, wellknown.ServerPath, wellknown.ResourcePath} {
		resp := get(h, "GET", path)
		m := body(t, resp)
		if resp.StatusCode != 503 || m["error"] != "temporarily_unavailable" || resp.Header.Get("Retry-After") == "" || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", path, resp.StatusCode, m)
		}
		if strings.Contains(m["error_description"].(string), "10.0.0.7") {
			t.Errorf("%s tells what went wrong inside: %v", path, m)
		}
	}
	empty := wellknown.Handler(wellknown.Config{})
	for _, path := range []string{wellknown.JWKSPath, wellknown.ServerPath, wellknown.ResourcePath} {
		if resp := get(empty, "GET", path); resp.StatusCode != 404 {
			t.Errorf("%s of nothing: %d", path, resp.StatusCode)
		}
	}
}

func FuzzParseJWKS(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := wellknown.ParseJWKS(data)
		if err != nil {
			return
		}
		doc, err := wellknown.JWKS(set)
		if err != nil {
			t.Fatalf("read, but cannot be published: %v", err)
		}
		again, err := wellknown.ParseJWKS(doc)
		if err != nil || len(again) != len(set) {
			t.Fatalf("%d keys became %d: %v", len(set), len(again), err)
		}
	})
}
