package client_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
)

// logOf is the log of a server, and a client that reaches it.
func logOf(s *server) (*http.Client, *[]map[string]any, *int) {
	entries, status := &[]map[string]any{}, new(int)
	*status = http.StatusCreated
	return &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.Method != http.MethodPost || r.URL.String() != s.issuer()+"/api/v1/audit/entries" {
			s.t.Errorf("reported to %s %s", r.Method, r.URL)
		}
		var body struct {
			Entries []map[string]any `json:"entries"`
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			s.t.Error(err)
		}
		*entries = append(*entries, body.Entries...)
		token, _ := body.Entries[0]["credential"].(string)
		text := `{"error":"invalid_entry","error_description":"I saw ` + token + `"}`
		return &http.Response{StatusCode: *status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
	})}, entries, status
}

func TestReporter(t *testing.T) {
	s := newServer(t)
	a := s.agent(nil)
	log, entries, status := logOf(s)
	own := func(c *delegation.Claims) { c.Issuer, c.Limits.AllowNetwork = s.issuer(), []string{"ok.example"} }
	bound := held(t, own)
	plain, err := client.Hold(mint(t, newKey(t), func(c *delegation.Claims) {
		own(c)
		c.Root, c.MaxDepth, c.Key = false, 0, agent.PublicKey{}
	}), agent.PrivateKey{})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cred client.Credential
		sent bool
	}{"bound": {bound, true}, "bearer": {plain, false}, "of another issuer": {held(t, network("ok.example")), false}} {
		*entries = nil
		reporter := &client.Reporter{Agent: a, Source: c.cred, HTTP: log}
		_, err := get(t, &client.Transport{Source: c.cred, Report: reporter.Report}, "https://evil.example/x?q=secret")
		wantRefused(t, err, nil, delegation.ConstraintViolated, delegation.DimensionNetwork)
		if len(*entries) != 1 {
			t.Fatalf("%s: %d entries", name, len(*entries))
		}
		e := (*entries)[0]
		if e["result"] != "denied" || e["reason"] != "constraint_violated" || e["action"] != client.ReportAction ||
			e["resource"] != a.ID()+"/evil.example:443" || e["detail"].(map[string]any)["dimension"] != "allow_network" {
			t.Errorf("%s: %v", name, e)
		}
		if !c.sent {
			if e["credential"] != nil || e["proof"] != nil || len(e["lid"].(string)) != 43 {
				t.Errorf("%s: %v", name, e)
			}
			continue
		}
		if e["credential"] != string(c.cred.Token) || e["url"] != "https://evil.example/x" {
			t.Errorf("%s: about %v", name, e["url"])
		}
		if _, err := agent.VerifyProof(e["proof"].(string), agent.ProofCheck{
			Method: "GET", URL: "https://evil.example/x", Token: string(c.cred.Token), Now: time.Now(),
		}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What is refused for its spelling is recorded, too.
	for _, u := range []string{"https://user:pw@evil.example/", "https://évil.example/", "https://ok.example./", "ftp://ok.example/"} {
		*entries = nil
		reporter := &client.Reporter{Agent: a, Source: bound, HTTP: log}
		_, err := get(t, &client.Transport{Source: bound, Report: reporter.Report}, u)
		wantRefused(t, err, nil, delegation.ConstraintViolated, delegation.DimensionNetwork)
		if len(*entries) != 1 {
			t.Fatalf("%s: %d entries", u, len(*entries))
		}
		resource, _ := (*entries)[0]["resource"].(string)
		if rest := strings.TrimPrefix(resource, a.ID()+"/"); rest == "" || strings.ContainsAny(rest, "@/%?#é") {
			t.Errorf("%s: about %q", u, resource)
		}
	}
	// A log that refuses is an error, without the token that it repeats.
	*status = http.StatusForbidden
	err = (&client.Reporter{Agent: a, Source: bound, HTTP: log}).Report(t.Context(), client.Attempt{Time: time.Now(), Method: "GET", Destination: "x:1"})
	if err == nil || strings.Contains(err.Error(), "eyJ") || !strings.Contains(err.Error(), "invalid_entry") {
		t.Errorf("%v", err)
	}
	if ask := a.Reporting(); ask.Resources[0] != s.issuer()+"/api" || ask.Scopes[0] != client.ReportScope {
		t.Errorf("%+v", ask)
	}
}
