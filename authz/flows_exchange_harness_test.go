package authz_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/people"
	"github.com/kavach-dev/kavach/store"
	"github.com/kavach-dev/kavach/store/storetest"
	"github.com/kavach-dev/kavach/templates"
)

// program is an agent as it runs somewhere: its id, its identity key, and the
// server it talks to.
type program struct {
	*flows
	id  string
	key agent.PrivateKey
}

// program registers an agent with everything it needs to sign in.
func (f *flows) program(owner people.User, name string, scopes []string, capabilities ...string) program {
	f.t.Helper()
	ctx, by := context.Background(), authz.Actor{Agent: audit.Operator, Via: "cli"}
	key := holder(f.t)
	now := f.clock.now()
	manifest, err := agent.SignManifest(agent.Manifest{
		Name: name, Version: "1.0.0", Purpose: "Reviews code", Scopes: scopes,
		Capabilities: capabilities, MaxDepth: 3, IssuedAt: now, Expires: now.Add(30 * 24 * time.Hour),
	}, key)
	must(f.t, err)
	assertion, err := agent.SignAssertion(key, key.Public().Thumbprint(), f.issuer, now, time.Minute)
	must(f.t, err)
	a, err := f.agents.Register(ctx, authz.Registration{Manifest: manifest, Assertion: assertion, Owner: owner.ID, By: by})
	must(f.t, err)
	_, err = f.agents.Grant(ctx, by, a.ID, authz.AgentGrant{Scopes: scopes})
	must(f.t, err)
	return program{f, a.ID, key}
}

func holder(t testing.TB) agent.PrivateKey {
	t.Helper()
	key, err := agent.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// request is one request to the token endpoint, before it is sent.
type request struct {
	form   url.Values
	proof  string    // DPoP header
	client [2]string // Basic
}

func (f *flows) try(r request) (answer, error) { return sendTo(f.issuer, r) }

// sendTo sends a request to a server that may be at another address than its
// issuer.
func sendTo(origin string, r request) (answer, error) {
	req, err := http.NewRequest(http.MethodPost, origin+"/oauth/token", strings.NewReader(r.form.Encode()))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if r.proof != "" {
		req.Header.Set("DPoP", r.proof)
	}
	if r.client[0] != "" {
		req.SetBasicAuth(url.QueryEscape(r.client[0]), url.QueryEscape(r.client[1]))
	}
	w, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer w.Body.Close()
	a := answer{status: w.StatusCode, header: w.Header}
	return a, json.NewDecoder(w.Body).Decode(&a.body)
}

func (f *flows) do(r request) answer {
	f.t.Helper()
	a, err := f.try(r)
	must(f.t, err)
	return a
}

// dpop makes a proof for the token endpoint; a token goes into its ath.
func (f *flows) dpop(key agent.PrivateKey, token string) string {
	f.t.Helper()
	text, err := agent.SignProof(key, agent.Proof{Method: "POST", URL: f.issuer + "/oauth/token", Token: token, IssuedAt: f.clock.now()})
	must(f.t, err)
	return text
}

// by makes a request the program's own: its assertion, and a proof by a holder
// key, the zero key for none.
func (p program) by(form url.Values, key agent.PrivateKey) request {
	p.t.Helper()
	assertion, err := agent.SignAssertion(p.key, p.id, p.issuer, p.clock.now(), time.Minute)
	must(p.t, err)
	form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	form.Set("client_assertion", assertion)
	r := request{form: form}
	if !key.IsZero() {
		r.proof = p.dpop(key, "")
	}
	return r
}

// signIn gets a token of the program's own, bound to the holder key.
func (p program) signIn(key agent.PrivateKey, change url.Values) string {
	p.t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}}
	for name, values := range change {
		form[name] = values
	}
	a := p.do(p.by(form, key))
	if a.status != http.StatusOK {
		p.t.Fatalf("signing in: %v %v", a, a.body)
	}
	return a.str("access_token")
}

// card is the program's key card for the server.
func (p program) card(key agent.PublicKey) string {
	p.t.Helper()
	text, err := agent.SignCard(p.key, agent.Card{Audience: p.issuer, Key: key, IssuedAt: p.clock.now()})
	must(p.t, err)
	return text
}

// exchangeForm asks for an exchange; change adds to it, and nil takes away.
func exchangeForm(subject string, change url.Values) url.Values {
	form := url.Values{
		"grant_type": {authz.GrantExchange}, "subject_token": {subject}, "subject_token_type": {authz.TokenTypeAccess},
	}
	for name, values := range change {
		if values == nil {
			form.Del(name)
		} else {
			form[name] = values
		}
	}
	return form
}

func cnf(t *testing.T, key agent.PublicKey) string {
	t.Helper()
	text, err := json.Marshal(map[string]any{"jwk": key.JWK()})
	must(t, err)
	return string(text)
}

// exchanged is the token of an exchange that must succeed.
func (f *flows) exchanged(r request) (answer, *delegation.Chain) {
	f.t.Helper()
	a := f.do(r)
	if a.status != http.StatusOK {
		f.t.Fatalf("exchange: %v %v", a, a.body)
	}
	for _, name := range []string{"access_token", "issued_token_type", "token_type", "expires_in", "scope"} {
		if _, there := a.body[name]; !there {
			f.t.Errorf("the answer has no %s: %v", name, a.body)
		}
	}
	c := f.chain(a.str("access_token"))
	if want := c.Scheme(); a.str("token_type") != want {
		f.t.Errorf("token_type %s, want %s", a.str("token_type"), want)
	}
	return a, c
}

// lastRecord is the newest record of an action.
func (f *flows) lastRecord(action string) map[string]any {
	f.t.Helper()
	var last map[string]any
	for _, text := range f.records() {
		var r map[string]any
		must(f.t, json.Unmarshal([]byte(text), &r))
		if r["action"] == action {
			last = r
		}
	}
	return last
}

// twin starts a second server of the same issuer that shares nothing with the
// first but the database and the secret, and returns its address.
func (f *flows) twin() string {
	f.t.Helper()
	ctx, quiet := context.Background(), slog.New(slog.DiscardHandler)
	db, err := store.Open(ctx, store.Config{DSN: f.dsn, Token: storetest.Token, Issuer: f.issuer, MinFree: -1})
	must(f.t, err)
	log := audit.NewLog(audit.Config{Store: db, Now: f.clock.now, Logger: quiet})
	f.t.Cleanup(func() {
		_ = log.Close(context.Background())
		_ = db.Close()
	})
	keys, err := authz.OpenKeyring(ctx, authz.KeyringConfig{Store: db, Commit: log, Secret: f.secret, Now: f.clock.now})
	must(f.t, err)
	registry, err := authz.NewRegistry(authz.RegistryConfig{
		Issuer: f.issuer, Store: db, Commit: log, Refusals: log, Keys: keys, Flows: db, Agents: db, Now: f.clock.now, Log: quiet,
	})
	must(f.t, err)
	pages, err := templates.New(templates.Config{Issuer: f.issuer, Logger: quiet})
	must(f.t, err)
	server, err := authz.New(authz.Config{
		Issuer: f.issuer, Store: db, Registry: registry, Keys: keys, People: f.people, Pages: pages, Commit: log, Refusals: log,
		Agents: authz.NewAgents(authz.AgentsConfig{Issuer: f.issuer, Store: db, Commit: log, Refusals: log, Registry: registry, Now: f.clock.now}),
		Now:    f.clock.now, Log: quiet,
	})
	must(f.t, err)
	web := httptest.NewServer(server.Handler())
	f.t.Cleanup(web.Close)
	return web.URL
}
