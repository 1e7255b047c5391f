package e2e

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// codeClient is a client with a secret that an operator added for codes. It may
// introspect what it owns.
type codeClient struct {
	*oauthClient
	Secret string
}

func (s *server) codeClient(t *testing.T, name string) *codeClient {
	t.Helper()
	var added credential
	c := &oauthClient{t: t, issuer: s.Issuer, Redirect: "https://" + name + ".example/cb"}
	decode(t, s.cli("", "client", "add", name, "--redirect-uri", c.Redirect, "--json"), &added)
	c.ID = added.ID
	return &codeClient{c, added.Secret}
}

func (c *codeClient) basic() http.Header {
	return http.Header{"Authorization": {basic(c.ID, c.Secret)}}
}

// signIn gets tokens for dev.
func (c *codeClient) signIn(t *testing.T, p *person, scope string) tokens {
	t.Helper()
	r := c.request(scope, nil)
	back, err := p.authorize(r.url, choice{})
	if err != nil || back.Query().Get("code") == "" {
		t.Fatalf("no code: %v %v", err, back)
	}
	got, err := post(http.DefaultClient, c.issuer+"/oauth/token", url.Values{"grant_type": {"authorization_code"}, "redirect_uri": {c.Redirect}, "code": {back.Query().Get("code")}, "code_verifier": {r.verifier}}, c.basic())
	if err != nil || got.Status != http.StatusOK {
		t.Fatalf("%v %+v", err, got)
	}
	return got
}

func (c *codeClient) refresh(t *testing.T, h *http.Client, token string) tokens {
	t.Helper()
	got, err := post(h, c.issuer+"/oauth/token", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}, c.basic())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// active is what introspection says of a token.
func (c *codeClient) active(t *testing.T, token string) bool {
	t.Helper()
	request, _ := http.NewRequestWithContext(t.Context(), "POST", c.issuer+"/oauth/introspect", strings.NewReader(url.Values{"token": {token}}.Encode()))
	request.Header = c.basic()
	request.Header.Set("Content-Type", formType)
	got := do(t, http.DefaultClient, request)
	if got.status != http.StatusOK || !strings.Contains(got.body, `"active":true`) && strings.TrimSpace(got.body) != `{"active":false}` {
		t.Errorf("introspection: %d %s", got.status, got.body)
	}
	return strings.Contains(got.body, `"active":true`)
}

// dead: the family has no token that lives.
func (c *codeClient) dead(t *testing.T, refresh string, access ...string) {
	t.Helper()
	for _, token := range access {
		status, _, header, err := callTool(c.issuer, token, "verify", map[string]any{"token": "x", "audience": "x"})
		if err != nil || status != http.StatusUnauthorized || challenged(header) != "invalid_token" {
			t.Errorf("an access token of the family: %v %d", err, status)
		}
		if c.active(t, token) {
			t.Error("introspection calls an access token of the family active")
		}
	}
	if c.active(t, refresh) {
		t.Error("introspection calls the newest refresh token active")
	}
	if again := c.refresh(t, http.DefaultClient, refresh); again.Status != http.StatusBadRequest || again.Error != "invalid_grant" {
		t.Errorf("the newest refresh token: %+v", again)
	}
}

// wantRefusals: the log has so many refusals with that reason, each with who
// and below which grant.
func (s *server) wantRefusals(t *testing.T, reason string, n int) {
	t.Helper()
	var page struct {
		Entries []struct {
			Action, Result, Reason, Agent, Grant, Sub string
		} `json:"entries"`
	}
	decode(t, s.cli("", "audit", "list", "--action", "token.refuse", "--limit", "500", "--json"), &page)
	found := 0
	for _, e := range page.Entries {
		if e.Reason != reason {
			continue
		}
		found++
		if e.Result != "denied" || e.Agent == "" || e.Grant == "" || e.Sub == "" {
			t.Errorf("the record says too little: %+v", e)
		}
	}
	if found != n {
		t.Errorf("%d refusals with reason %s, want %d", found, reason, n)
	}
}

// TestLives sends what was good once and is not any more, to a server whose
// lives are short.
func TestLives(t *testing.T) {
	s := start(t, "--refresh-replay", "1s", "--code-ttl", "3s", "--agent-ttl", "2s")
	dev := newPerson(t, "dev", "dev")
	owner := s.codeClient(t, "owner")
	agent := s.newAgent(t, "short-lived", "kavach:verify kavach:delegate", "--capability", "delegate")

	t.Run("A-29 expired code", func(t *testing.T) {
		c := register(t, s.Issuer)
		r := c.request("kavach:verify", nil)
		back, err := dev.authorize(r.url, choice{})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(3100 * time.Millisecond)
		got, err := c.redeem(back.Query().Get("code"), r.verifier)
		if err != nil || got.Status != http.StatusBadRequest || got.Error != "invalid_grant" || got.Access != "" || got.Refresh != "" {
			t.Errorf("%v %+v", err, got)
		}
		if good := c.signIn(dev, "kavach:verify", choice{}); good.Access == "" {
			t.Error("a fresh code does not work")
		}
	})

	t.Run("A-61 expired tokens", func(t *testing.T) {
		form := url.Values{"grant_type": {"client_credentials"}, "scope": {"kavach:verify"}}
		plain, err := agent.ask(agent.authenticated(form), "")
		if err != nil || plain.Type != "Bearer" {
			t.Fatalf("%v %+v", err, plain)
		}
		bound := agent.signedIn("kavach:verify kavach:delegate", nil).Access
		claims := decodePart(strings.Split(bound, ".")[1])
		end := time.Unix(int64(claims["exp"].(float64)), 0)
		time.Sleep(time.Until(end.Add(1050 * time.Millisecond)))

		// Expired, expired and forged, and never good: one and the same answer.
		answer := func(token string) string {
			t.Helper()
			body := strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"ping"}`)
			request, _ := http.NewRequestWithContext(t.Context(), "POST", s.Issuer+"/mcp", body)
			request.Header = http.Header{"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"}, "Authorization": {"Bearer " + token}}
			got := do(t, http.DefaultClient, request)
			if got.status != http.StatusUnauthorized || challenged(got.header) != "invalid_token" || strings.Contains(strings.ToLower(got.body+encode(got.header)), "expir") {
				t.Errorf("%d %v %s", got.status, got.header, got.body)
			}
			return got.body + strings.Join(got.header.Values("WWW-Authenticate"), ",")
		}
		part := strings.Split(plain.Access, ".")
		expired := answer(plain.Access)
		if forged := answer(part[0] + "." + part[1] + "." + strings.Repeat("A", len(part[2]))); forged != expired {
			t.Errorf("expired: %s, forged: %s", expired, forged)
		}
		if garbage := answer("x.y.z"); garbage != expired {
			t.Errorf("expired: %s, garbage: %s", expired, garbage)
		}
		// So it is everywhere else.
		if status, _, header, err := agent.call(bound, "verify", map[string]any{"token": "x", "audience": "x"}); err != nil || status != http.StatusUnauthorized || challenged(header) != "invalid_token" {
			t.Errorf("bound: %v %d %v", err, status, header)
		}
		chain := agent.Holder.link(bound, newEd25519(), "somebody", set("exp", time.Now().Unix()+60))
		for name, token := range map[string]string{"bound": bound, "chain on an expired root": chain} {
			if got, err := agent.exchange(token, nil); err != nil || got.Status != http.StatusBadRequest || got.Error != "invalid_request" || strings.Contains(got.ErrorMessage, "expir") {
				t.Errorf("exchange of %s: %v %+v", name, err, got)
			}
		}
		for name, token := range map[string]string{"plain": plain.Access, "bound": bound, "chain": chain} {
			fresh := agent.signedIn("kavach:verify", nil).Access
			if got := agent.called(fresh, "verify", map[string]any{"token": token, "audience": s.Issuer + "/mcp"}); got["valid"] != false {
				t.Errorf("verify of %s: %v", name, got)
			}
		}
		// The record knows why: a forged token did not get as far as its times.
		var page struct {
			Entries []struct{ Reason string } `json:"entries"`
		}
		if err := json.Unmarshal([]byte(s.cli("", "audit", "list", "--action", "token.refuse", "--limit", "500", "--json")), &page); err != nil {
			t.Fatal(err)
		}
		reasons := map[string]int{}
		for _, e := range page.Entries {
			reasons[e.Reason]++
		}
		if reasons["expired"] == 0 || reasons["signature_invalid"] != 1 {
			t.Errorf("reasons in the log: %v", reasons)
		}
	})

	t.Run("A-33 refresh token reused after a restart", func(t *testing.T) {
		other := s.beside(t, "--refresh-replay", "1s")
		first, second := owner.signIn(t, dev, "kavach:verify"), owner.signIn(t, dev, "kavach:verify")
		rotate := func(was tokens) tokens {
			t.Helper()
			now := owner.refresh(t, http.DefaultClient, was.Refresh)
			if now.Status != http.StatusOK || !owner.active(t, now.Access) || !owner.active(t, now.Refresh) {
				t.Fatalf("%+v", now)
			}
			return now
		}
		firstNow, secondNow := rotate(first), rotate(second)
		time.Sleep(1100 * time.Millisecond) // past the replay window
		if got := owner.refresh(t, other.client(), first.Refresh); got.Status != http.StatusBadRequest || got.Error != "invalid_grant" {
			t.Errorf("at the other process: %+v", got)
		}
		owner.dead(t, firstNow.Refresh, first.Access, firstNow.Access)
		// Another family of the same person and client is none of it.
		if !alive(t, s.Issuer, secondNow.Access) || !owner.active(t, secondNow.Refresh) {
			t.Error("a family died that nobody attacked")
		}
		s.kill()
		s.run()
		if got := owner.refresh(t, s.client(), second.Refresh); got.Status != http.StatusBadRequest || got.Error != "invalid_grant" {
			t.Errorf("after the restart: %+v", got)
		}
		owner.dead(t, secondNow.Refresh, second.Access, secondNow.Access)
		s.wantRefusals(t, "refresh_reuse", 2)
		if healthy := owner.signIn(t, dev, "kavach:verify"); !alive(t, s.Issuer, healthy.Access) {
			t.Error("a new family does not live")
		}
	})
}
