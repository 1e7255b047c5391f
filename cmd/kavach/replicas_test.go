package main

import (
	"encoding/json"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
)

// TestReplicasOfOneDatabase: two servers of one issuer on one database. A token
// of one opens /mcp at the other until the first revokes it; then the answer is
// 401 at once. The housekeeping of both runs, and says so.
func TestReplicasOfOneDatabase(t *testing.T) {
	address, data := freeLoopback(t), filepath.Join(t.TempDir(), "data")
	first := startMain(t, "--data", data, "--listen", address, "--issuer", "http://"+address)
	second := startMain(t, "--data", data, "--issuer", "http://"+address)
	c, secret, err := first.d.registry.AddClient(t.Context(), authz.Actor{Agent: audit.Operator, Via: "cli"},
		authz.NewClient{Name: "machine", Scopes: []string{"kavach:verify"}})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(m *runningMain, path, kind, body string, set func(*http.Request)) (int, map[string]any) {
		t.Helper()
		r, err := http.NewRequest(http.MethodPost, "http://"+m.Public.String()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", kind)
		r.Header.Set("Accept", "application/json, text/event-stream")
		r.Host = address
		set(r)
		w, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Body.Close()
		var answer map[string]any
		_ = json.NewDecoder(w.Body).Decode(&answer) // RFC 7009's has none
		return w.StatusCode, answer
	}
	asClient := func(r *http.Request) { r.SetBasicAuth(url.QueryEscape(c.ID), url.QueryEscape(secret.Reveal())) }
	form := func(m *runningMain, path string, values url.Values) (int, map[string]any) {
		t.Helper()
		return ask(m, path, "application/x-www-form-urlencoded", values.Encode(), asClient)
	}
	status, answer := form(first, "/oauth/token", url.Values{"grant_type": {"client_credentials"}, "resource": {"http://" + address + "/mcp"}})
	token, _ := answer["access_token"].(string)
	if status != http.StatusOK || token == "" {
		t.Fatalf("token: %d %v", status, answer)
	}
	ping := func(m *runningMain) int {
		t.Helper()
		status, _ := ask(m, "/mcp", "application/json", `{"jsonrpc":"2.0","id":1,"method":"ping"}`, func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer "+token)
		})
		return status
	}
	for _, m := range []*runningMain{first, second, second} {
		if status := ping(m); status != http.StatusOK {
			t.Fatalf("/mcp: %d", status)
		}
	}
	if status, _ := form(first, "/oauth/revoke", url.Values{"token": {token}}); status != http.StatusOK {
		t.Fatalf("revoking: %d", status)
	}
	for _, m := range []*runningMain{second, first} {
		if status := ping(m); status != http.StatusUnauthorized {
			t.Errorf("/mcp with a token that was revoked at the first: %d", status)
		}
	}
	if _, answer := form(second, "/oauth/introspect", url.Values{"token": {token}}); answer["active"] != false {
		t.Errorf("introspection: %v", answer)
	}

	for _, m := range []*runningMain{first, second} {
		for _, want := range []string{
			`kavach_housekeeping_total{result="ok",what="registry"}`, `kavach_housekeeping_total{result="ok",what="expired"}`,
			`kavach_housekeeping_total{result="ok",what="clients"}`, `kavach_housekeeping_total{result="ok",what="storage"}`,
			`kavach_housekeeping_rows_total{table="replays"}`, `kavach_housekeeping_rows_total{table="sessions"}`,
		} {
			deadline := time.Now().Add(30 * time.Second)
			for {
				_, body := fetch(t, http.DefaultClient, "http://"+m.Ops.String()+"/metrics")
				if strings.Contains(body, want) {
					break
				}
				if time.Now().After(deadline) {
					t.Errorf("/metrics has no %s", want)
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
}
