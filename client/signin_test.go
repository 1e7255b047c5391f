package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
)

func TestToken(t *testing.T) {
	s := newServer(t)
	depth, holder := 2, newKey(t)
	a := s.agent(nil)
	cred, err := a.Token(context.Background(), client.Ask{
		Scopes: []string{"repository:read", "comment:write"}, Resources: []string{gitURL}, MaxDepth: &depth, Holder: holder,
	})
	if err != nil {
		t.Fatal(err)
	}
	if cred.Key.Public() != holder.Public() || len(cred.Scopes) != 2 || cred.Audience[0] != gitURL ||
		time.Until(cred.Expires) > 5*time.Minute || time.Until(cred.Expires) < 4*time.Minute {
		t.Errorf("%+v", cred)
	}
	form := s.asked()[0]
	if form.Get("grant_type") != "client_credentials" || form.Get("del_max_depth") != "2" ||
		form.Get("scope") != "repository:read comment:write" || form.Get("client_id") != a.ID() {
		t.Errorf("asked %v", form)
	}
	other, err := a.Token(context.Background(), client.Ask{})
	if err != nil {
		t.Fatal(err)
	}
	if other.Key.IsZero() || other.Key.Public() == holder.Public() || len(s.holders) != 2 {
		t.Error("no holder key of its own was made")
	}
	if _, err := a.Token(context.Background(), client.Ask{Holder: s.identity}); !errors.Is(err, client.ErrFailed) {
		t.Errorf("the identity key was taken as a holder key: %v", err)
	}
}

func TestTokenNonce(t *testing.T) {
	s := newServer(t)
	s.nonce = "n-1"
	a, holder := s.agent(nil), newKey(t)
	for range 2 {
		if _, err := a.Token(context.Background(), client.Ask{Holder: holder}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.asked()); n != 3 {
		t.Errorf("%d requests, want 3: the nonce is remembered", n)
	}
	// A server that is never content is asked twice and not for ever.
	s.answer = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("DPoP-Nonce", "another")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"error":"use_dpop_nonce"}`))
	}
	_, err := a.Token(context.Background(), client.Ask{Holder: holder})
	var refused *client.Error
	if !errors.As(err, &refused) || refused.Code != "use_dpop_nonce" || len(s.asked()) != 5 {
		t.Errorf("%v after %d requests", err, len(s.asked()))
	}
}

func TestTokenErrors(t *testing.T) {
	s := newServer(t)
	s.answer = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = json.NewEncoder(w).Encode(map[string]string{
			"error":             "temporarily_unavailable",
			"error_description": "I saw " + r.PostForm.Get("client_assertion") + " and " + r.PostForm.Get("subject_token") + "\x1b[2J\n" + strings.Repeat("x", 500),
		})
	}
	_, err := s.agent(nil).Redeem(context.Background(), "handle-of-somebody", newKey(t))
	var refused *client.Error
	if !errors.As(err, &refused) || !errors.Is(err, client.ErrFailed) {
		t.Fatal(err)
	}
	if refused.Status != 503 || refused.Code != "temporarily_unavailable" || refused.RetryAfter != 7*time.Second {
		t.Errorf("%+v", refused)
	}
	text := err.Error()
	if strings.Contains(text, "eyJ") || strings.Contains(text, "handle-of") || strings.ContainsAny(text, "\x1b\n") || len(text) > 400 {
		t.Errorf("the error says %q", text)
	}
	s.answer = func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "<html>", http.StatusBadGateway) }
	if _, err = s.agent(nil).Token(context.Background(), client.Ask{}); !errors.As(err, &refused) || refused.Status != 502 || refused.Code != "" {
		t.Errorf("%v", err)
	}
}

// What a server answers has to be what was asked for.
func TestTokenAnswers(t *testing.T) {
	stolen := mint(t, newKey(t), nil)
	for name, edit := range map[string]func(map[string]any){
		"a bearer token":      func(m map[string]any) { m["token_type"] = "Bearer" },
		"another key's token": func(m map[string]any) { m["access_token"] = stolen },
		"no token":            func(m map[string]any) { delete(m, "access_token") },
		"no JWT":              func(m map[string]any) { m["access_token"] = "opaque" },
		"a handle":            func(m map[string]any) { m["token_type"] = "N_A" },
	} {
		s := newServer(t)
		s.edit = edit
		_, err := s.agent(nil).Token(context.Background(), client.Ask{})
		if !errors.Is(err, client.ErrFailed) || strings.Contains(err.Error(), "eyJ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, body := range map[string]string{
		"duplicate members": `{"access_token":"a","access_token":"b","token_type":"DPoP"}`,
		"no JSON":           `access_token=x`,
		"too large":         `{"x":"` + strings.Repeat("x", 300<<10) + `"}`,
	} {
		s := newServer(t)
		s.answer = func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) }
		if _, err := s.agent(nil).Token(context.Background(), client.Ask{}); !errors.Is(err, client.ErrFailed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The metadata must be the issuer's own, and secrets do not go where they could
// be read.
func TestDiscovery(t *testing.T) {
	for name, metadata := range map[string]map[string]any{
		"another issuer":  {"issuer": "https://evil.example"},
		"a slash more":    {"issuer": "slash"},
		"no endpoint":     {"token_endpoint": nil},
		"plain http":      {"token_endpoint": "http://auth.example.com/token"},
		"another scheme":  {"token_endpoint": "ftp://127.0.0.1/token"},
		"user in the URL": {"token_endpoint": "https://user@auth.example.com/token"},
	} {
		s := newServer(t)
		if metadata["issuer"] == "slash" {
			metadata["issuer"] = s.issuer() + "/"
		}
		s.metadata = metadata
		posts := 0
		transport := roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPost {
				posts++
			}
			return http.DefaultTransport.RoundTrip(r)
		})
		a := s.agent(func(c *client.Config) { c.Transport = transport })
		if _, err := a.Token(context.Background(), client.Ask{}); !errors.Is(err, client.ErrFailed) {
			t.Errorf("%s: %v", name, err)
		}
		if posts != 0 {
			t.Errorf("%s: an assertion was sent", name)
		}
	}
	// A redirect is not followed: it could lead anywhere.
	c := newCanary(t)
	s := newServer(t)
	s.answer = func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+c.addr.String()+"/", http.StatusTemporaryRedirect)
	}
	if _, err := s.agent(nil).Token(context.Background(), client.Ask{}); !errors.Is(err, client.ErrFailed) || c.connections() != 0 {
		t.Errorf("redirected: %v", err)
	}
	for _, issuer := range []string{
		"", "auth.example.com", "http://auth.example.com", "https://auth.example.com/", "https://auth.example.com?x=1",
		"https://user@auth.example.com", "https://auth.example.com#f", "ftp://127.0.0.1",
	} {
		if _, err := client.New(client.Config{Issuer: issuer, Key: s.identity}); !errors.Is(err, client.ErrFailed) {
			t.Errorf("%q: %v", issuer, err)
		}
	}
	if _, err := client.New(client.Config{Issuer: s.issuer()}); !errors.Is(err, client.ErrFailed) {
		t.Error("an agent without a key")
	}
}

func TestCard(t *testing.T) {
	s := newServer(t)
	a, holder := s.agent(nil), newKey(t)
	text, err := a.Card("orchestrator", holder.Public())
	if err != nil {
		t.Fatal(err)
	}
	card, err := agent.VerifyCard(text, s.identity.Public(), agent.CardCheck{Agent: a.ID(), Audience: "orchestrator", Now: time.Now()})
	if err != nil || card.Key != holder.Public() {
		t.Errorf("%+v, %v", card, err)
	}
	if _, err := a.Card("orchestrator", s.identity.Public()); !errors.Is(err, client.ErrFailed) {
		t.Error("a card for the identity key")
	}
}
