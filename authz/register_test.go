package authz_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
)

// register sends a registration; change sets headers and the address.
func (rt *registryTest) register(body string, change ...func(*http.Request)) reply {
	r := httptest.NewRequest(http.MethodPost, "/oauth/register", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for _, f := range change {
		f(r)
	}
	return serve(rt.HandleRegister, r)
}

func from(address string) func(*http.Request) {
	return func(r *http.Request) { r.RemoteAddr = address }
}

const cursor = "cursor://anysphere.cursor-mcp/oauth/callback"

func TestRegistrationEchoesWhatTheClientGot(t *testing.T) {
	rt := newRegistry(t)
	a := rt.register(`{
		"client_name": "Inspector", "client_id": "https://chosen.example/", "client_uri": "https://inspector.example",
		"redirect_uris": ["http://127.0.0.1:33418/", "` + cursor + `", "https://vscode.dev/redirect"],
		"grant_types": ["authorization_code", "refresh_token", "client_credentials", "urn:ietf:params:oauth:grant-type:device_code"],
		"response_types": ["code"], "token_endpoint_auth_method": "none", "scope": "kavach:admin",
		"application_type": "native", "contacts": ["a@b.example"], "software_id": "x", "unknown": {"deep": [null]}
	}`)
	if a.status != http.StatusCreated {
		t.Fatalf("%d %s", a.status, a.body)
	}
	got := a.json(t)
	id, _ := got["client_id"].(string)
	delete(got, "client_id")
	want := map[string]any{}
	must(t, json.Unmarshal([]byte(`{
		"client_id_issued_at": 1800000000, "client_name": "Inspector", "client_uri": "https://inspector.example",
		"redirect_uris": ["http://127.0.0.1:33418/", "`+cursor+`", "https://vscode.dev/redirect"],
		"grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
		"token_endpoint_auth_method": "none", "application_type": "native"
	}`), &want))
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("echo\n got %v\nwant %v", got, want)
	}
	if id == "" || strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-") != "" || len(id) == 43 {
		t.Errorf("client_id %q", id)
	}
	if a.header.Get("Cache-Control") != "no-store" || a.header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("headers %v", a.header)
	}
	c, err := rt.Client(context.Background(), id)
	must(t, err)
	if c.Kind != authz.KindRegistered || len(c.Scopes) != 0 || c.May(authz.GrantClientCredentials) || c.MayIntrospect() {
		t.Errorf("stored: %+v", c)
	}
	entries := rt.records(audit.ClientRegister)
	if len(entries) != 1 || entries[0].Resource != id {
		t.Errorf("records %+v", entries)
	}
}

func TestConfidentialRegistrationGetsASecretOnce(t *testing.T) {
	rt := newRegistry(t)
	for _, body := range []string{
		`{"redirect_uris": ["https://c.example/cb"]}`,
		`{"redirect_uris": ["https://c.example/cb"], "token_endpoint_auth_method": "client_secret_post"}`,
	} {
		a := rt.register(body)
		got := a.json(t)
		id, secret := fmt.Sprint(got["client_id"]), fmt.Sprint(got["client_secret"])
		if a.status != http.StatusCreated || len(secret) != 43 || got["client_secret_expires_at"] != float64(0) {
			t.Fatalf("%d %s", a.status, a.body)
		}
		c, err := rt.Client(context.Background(), id)
		must(t, err)
		if string(c.Method) != got["token_endpoint_auth_method"] || c.SecretHash != authz.HashSecret(secret) ||
			!slices.Equal(c.GrantTypes, []string{"authorization_code"}) {
			t.Errorf("stored %+v", c)
		}
		for _, e := range rt.records(audit.ClientRegister) {
			if strings.Contains(fmt.Sprint(e), secret) {
				t.Error("the record holds the secret")
			}
		}
	}
}

func TestBadRegistrationsAreRefused(t *testing.T) {
	rt := newRegistry(t, func(c *authz.RegistryConfig) { c.RegistrationRate = 1000 })
	with := func(member string) string { return `{"redirect_uris": ["https://c.example/cb"], ` + member + `}` }
	many := strings.Repeat(`"https://c.example/cb",`, 33)
	for name, body := range map[string]string{
		"not JSON":                     `redirect_uris=x`,
		"array":                        `[]`,
		"duplicate member":             with(`"client_name": "a", "client_name": "b"`),
		"not UTF-8":                    with("\"client_name\": \"\xff\""),
		"wrong type":                   with(`"client_name": 1`),
		"name of 100 KB":               with(`"client_name": "` + strings.Repeat("x", 300) + `"`),
		"name with control characters": with(`"client_name": "a\u0000b"`),
		"name turned around":           with(`"client_name": "a\u202eb"`),
		"name like another":            with(`"client_name": "Claude\u200b"`),
		"name of two lines":            with(`"client_name": "Claude\u2028by Anthropic"`),
		"name in tags":                 with(`"client_name": "a\udb40\udc41"`),
		"name that is a filler":        with(`"client_name": "\u3164"`),
		"name of spaces":               with(`"client_name": " \u00a0 "`),
		"33 redirect URIs":             `{"redirect_uris": [` + many[:len(many)-1] + `]}`,
		"unknown method":               with(`"token_endpoint_auth_method": "tls_client_auth"`),
		"private_key_jwt":              with(`"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": []}`),
		"client credentials alone":     with(`"grant_types": ["client_credentials"]`),
		"implicit":                     with(`"grant_types": ["implicit"], "response_types": ["token"]`),
		"response_types without code":  with(`"response_types": ["token"]`),
		"jwks and jwks_uri":            with(`"jwks": {"keys": []}, "jwks_uri": "https://c.example/jwks"`),
		"software statement":           with(`"software_statement": "eyJhbGciOiJub25lIn0.e30."`),
		"script as client_uri":         with(`"client_uri": "javascript:alert(1)"`),
		"data as logo_uri":             with(`"logo_uri": "data:image/svg+xml,<svg/>"`),
		"application_type":             with(`"application_type": "<b>"`),
	} {
		got := rt.register(body)
		if got.status != http.StatusBadRequest || got.json(t)["error"] != "invalid_client_metadata" {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	wantRefusal(t, rt.register(with(`"x": "`+strings.Repeat("x", 1<<20)+`"`)), http.StatusRequestEntityTooLarge, "invalid_request")
	wantRefusal(t, rt.register(with(`"x": 1`), func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }),
		http.StatusBadRequest, "invalid_client_metadata")
	wantRefusal(t, rt.register("", func(r *http.Request) { r.Method = http.MethodGet }), http.StatusMethodNotAllowed, "invalid_request")
	rt.waitFor(audit.ClientRefuse, "invalid_client_metadata")
	if n := len(rt.records(audit.ClientRegister)); n != 0 {
		t.Errorf("%d clients registered", n)
	}
	// The next good request works.
	if got := rt.register(with(`"x": 1`)); got.status != http.StatusCreated {
		t.Errorf("afterwards: %d %s", got.status, got.body)
	}
}

func TestRedirectURIsThatCanBeRegistered(t *testing.T) {
	rt := newRegistry(t, func(c *authz.RegistryConfig) { c.RegistrationRate = 1000 })
	send := func(uri string) reply {
		body, err := json.Marshal(map[string]any{"redirect_uris": []string{"https://good.example/", uri}})
		must(t, err)
		return rt.register(string(body))
	}
	for _, uri := range []string{
		"https://claude.ai/api/mcp/auth_callback", "https://c.example", "https://c.example:8443/cb?x=1",
		"http://127.0.0.1/cb", "http://127.0.0.1:33418/", "http://localhost:1/cb", "http://[::1]:65535/", cursor,
	} {
		if got := send(uri); got.status != http.StatusCreated {
			t.Errorf("%q: %d %s", uri, got.status, got.body)
		}
	}
	for _, uri := range []string{
		"", "javascript:alert(1)", "data:text/html,x", "JaVaScRiPt:alert(1)", "vbscript:x", "file:///etc/passwd",
		"cursor://other/oauth/callback", "myapp://cb", "com.example.app:/cb", "urn:ietf:wg:oauth:2.0:oob",
		"http://c.example/cb", "http://127.0.0.2/cb", "http://127.1/", "http://0x7f.1/", "http://2130706433/",
		"http://[::ffff:127.0.0.1]/", "http://localhost.evil/", "http://localhost@evil/", "http://127.0.0.1@evil/",
		"http://localhost:99999999/", "http://localhost:0/", "http://localhost:080/", "https://c.example:99999/",
		"https://c.example/#f", "https://c.example/cb#", "https://u@c.example/", "https://u:p@c.example/",
		"https://*.example/", "https://c.example/*", "//c.example/", "/cb", "c.example", "https:/c.example", "https:c.example",
		"https://", "https:///cb", " https://c.example/", "https://c.example/\t", "https://c.example/\n", "https://c.example/\x00",
		"https://c.example/a b", `https://c.example\@evil/`, "https://ç.example/", "HTTPS://c.example/", "https://c.example:/",
		"https://c.example/" + strings.Repeat("x", 2048),
	} {
		got := send(uri)
		if got.status != http.StatusBadRequest || got.json(t)["error"] != "invalid_redirect_uri" {
			t.Errorf("%q: %d %s", uri, got.status, got.body)
		}
	}
	got := rt.register(`{"client_name": "x"}`)
	wantRefusal(t, got, http.StatusBadRequest, "invalid_redirect_uri")
}

func TestRedirectURIsMatchByteForByteButLoopbackPorts(t *testing.T) {
	c := authz.Client{RedirectURIs: []string{
		"https://client.example/cb", "http://127.0.0.1/cb", "http://localhost:7777/cb?x=1", "http://[::1]:1/", cursor,
	}}
	for _, uri := range []string{
		"https://client.example/cb", "http://127.0.0.1/cb", "http://127.0.0.1:1/cb", "http://127.0.0.1:65535/cb",
		"http://localhost/cb?x=1", "http://localhost:40000/cb?x=1", "http://[::1]/", "http://[::1]:8080/", cursor,
	} {
		if !authz.MatchRedirect(c, uri) {
			t.Errorf("%q does not match", uri)
		}
	}
	for _, uri := range []string{
		"", "https://client.example/cb/", "https://client.example/cb?x", "https://client.example/cb#x", "https://CLIENT.example/cb",
		"https://client.example:443/cb", "https://user@client.example/cb", "https://client.example/../cb", "https://client.example/x/..;/cb",
		"https://client.example/%2e%2e/cb", "https://client.example/%63b", `https://client.example\cb`, "https://client.example//evil",
		"https://client.example@evil/cb", "https://evil.client.example/cb", "https://client.example.evil/cb", "https://client.example/\tcb",
		"https://client.example/c\nb", "https://client.example/cb\x00", "https://cli\u0435nt.example/cb", "https://client.example./cb",
		"https://client.example:0/cb", "https://client.example/%2563b", "http://client.example/cb", "https://evil.example/",
		"https://127.0.0.1/cb", "http://user@127.0.0.1/cb", "http://127.0.0.1/%63b", "http://127.0.0.1/cb?y=1", "http://127.0.0.2/cb",
		"http://127.1/cb", "http://0x7f.1/cb", "http://2130706433/cb", "http://[::ffff:127.0.0.1]/cb", "http://localhost.evil/cb?x=1",
		"http://127.0.0.1:99999999/cb", "http://127.0.0.1:0/cb", "http://127.0.0.1:/cb", "http://127.0.0.1:65536/cb", "http://127.0.0.1:+1/cb",
		"http://127.0.0.1:80 /cb", "http://127.0.0.1:01/cb", "http://127.0.0.1/cb#", "http://127.0.0.1:1:2/cb", "http://127.0.0.1:1@evil/cb",
		"http://127.0.0.1.evil/cb", "http://127.0.0.1evil/cb", "http://localhost/cb", "http://LOCALHOST/cb?x=1", "http://[::1]", "http://[::1]:8080",
		"http://127.0.0.1:1\\@evil/cb", "http://localhost/cb", cursor + "/", cursor + "?x", "CURSOR://anysphere.cursor-mcp/oauth/callback",
	} {
		if authz.MatchRedirect(c, uri) {
			t.Errorf("%q matches", uri)
		}
	}
}

func TestRegistrationPolicies(t *testing.T) {
	const good = `{"redirect_uris": ["https://c.example/cb"]}`
	off := newRegistry(t, func(c *authz.RegistryConfig) { c.Registration = authz.RegistrationOff })
	wantRefusal(t, off.register(good), http.StatusNotFound, "not_found")
	if strings.Contains(off.wellKnown("/.well-known/oauth-authorization-server").body, "registration_endpoint") {
		t.Error("metadata names a registration endpoint that is off")
	}

	token := "initial-access-token"
	rt := newRegistry(t, func(c *authz.RegistryConfig) {
		c.Registration, c.RegistrationTokenHash = authz.RegistrationToken, authz.HashSecret(token)
	})
	bearer := func(v string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", v) }
	}
	wantRefusal(t, rt.register(good), http.StatusUnauthorized, "invalid_token")
	wantRefusal(t, rt.register(good, bearer("Bearer wrong")), http.StatusUnauthorized, "invalid_token")
	wantRefusal(t, rt.register(good, bearer("Basic "+token)), http.StatusUnauthorized, "invalid_token")
	wantRefusal(t, rt.register(good, bearer("Bearer "+authz.HashSecret(token))), http.StatusUnauthorized, "invalid_token")
	if got := rt.register(good, bearer("Bearer "+token)); got.status != http.StatusCreated {
		t.Errorf("%d %s", got.status, got.body)
	}
}

func TestRegistrationFloodsAreCutByAddress(t *testing.T) {
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	rt := newRegistry(t, func(c *authz.RegistryConfig) { c.RegistrationRate, c.TrustedProxies = 3, proxies })
	const good = `{"redirect_uris": ["https://c.example/cb"]}`
	forwarded := func(v string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("X-Forwarded-For", v) }
	}
	for i := range 3 {
		if got := rt.register(good, from("192.0.2.1:1"), forwarded(fmt.Sprintf("198.51.100.%d", i))); got.status != http.StatusCreated {
			t.Fatalf("%d: %d %s", i, got.status, got.body)
		}
	}
	// A forged X-Forwarded-For of somebody who is no proxy says nothing.
	got := rt.register(good, from("192.0.2.1:2"), forwarded("198.51.100.77"))
	wantRefusal(t, got, http.StatusTooManyRequests, "temporarily_unavailable")
	if got.header.Get("Retry-After") != "20" || got.header.Get("RateLimit") != `"register";r=0;t=20` ||
		got.header.Get("RateLimit-Policy") != `"register";q=3;w=60` {
		t.Errorf("headers %v", got.header)
	}
	// Others are not concerned; one /64 of IPv6 is one address.
	for i, address := range []string{"192.0.2.2:1", "[2001:db8::1]:1", "[2001:db8::2]:1", "[2001:db8::ffff:3]:1"} {
		if got := rt.register(good, from(address)); got.status != http.StatusCreated {
			t.Errorf("%d: %d", i, got.status)
		}
	}
	if got := rt.register(good, from("[2001:db8::abcd]:1")); got.status != http.StatusTooManyRequests {
		t.Errorf("fourth of one /64: %d", got.status)
	}
	if got := rt.register(good, from("[2001:db8:0:1::1]:1")); got.status != http.StatusCreated {
		t.Errorf("another /64: %d", got.status)
	}
	// A trusted proxy is believed, as far as it can know: the rightmost hop.
	for i := range 4 {
		want := http.StatusCreated
		if i == 3 {
			want = http.StatusTooManyRequests
		}
		if got := rt.register(good, from("10.0.0.1:1"), forwarded(fmt.Sprintf("203.0.113.%d, 203.0.113.200, 10.9.9.9", i))); got.status != want {
			t.Errorf("through the proxy, %d: %d", i, got.status)
		}
	}
	// After the wait it goes on.
	rt.clock.advance(20 * time.Second)
	if got := rt.register(good, from("192.0.2.1:3")); got.status != http.StatusCreated {
		t.Errorf("after Retry-After: %d", got.status)
	}
	if got := rt.register(good, from("192.0.2.1:3")); got.status != http.StatusTooManyRequests {
		t.Errorf("one token, two registrations: %d", got.status)
	}
}

func TestUnusedRegistrationsAreReapedAndUsedOnesStay(t *testing.T) {
	ctx := context.Background()
	rt := newRegistry(t)
	register := func() string {
		return fmt.Sprint(rt.register(`{"redirect_uris": ["https://c.example/cb"]}`).json(t)["client_id"])
	}
	unused, used := register(), register()
	static, _ := rt.client(authz.NewClient{Scopes: []string{"audit:read"}})
	rt.commit(rt.UseClient(used))
	rt.clock.advance(25 * time.Hour)
	young := register()
	must(t, sweep(rt.log, rt.Registry))
	for id, stays := range map[string]bool{unused: false, used: true, static.ID: true, young: true} {
		if _, err := rt.Client(ctx, id); (err == nil) != stays {
			t.Errorf("client %s: %v", id, err)
		}
	}
	entries := rt.records(audit.ClientRemove)
	if len(entries) != 1 || entries[0].Resource != unused || entries[0].Reason != "unused" {
		t.Errorf("records %+v", entries)
	}
}

func TestRegistrationWaitsForTheLog(t *testing.T) {
	rt := newRegistry(t)
	rt.log.fail(audit.ErrUnavailable)
	wantRefusal(t, rt.register(`{"redirect_uris": ["https://c.example/cb"]}`), http.StatusServiceUnavailable, "temporarily_unavailable")
	clients, err := rt.ListClients(context.Background(), "", 10)
	must(t, err)
	if len(clients) != 0 {
		t.Errorf("a client without a record: %v", clients)
	}
}
