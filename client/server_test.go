package client_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// server is an authorization server as small as the tests need it. It holds
// clients to what authorization-server.md §2 demands of an assertion and RFC
// 9449 of a proof.
type server struct {
	t        *testing.T
	identity agent.PrivateKey
	http     *httptest.Server

	mu       sync.Mutex
	now      func() time.Time
	metadata map[string]any // added to, or replacing
	nonce    string         // demanded in every proof, if set
	answer   http.HandlerFunc
	edit     func(answer map[string]any)
	life     time.Duration
	requests []url.Values
	holders  map[string]bool // thumbprints that proved themselves
	aths     map[string]bool // those whose proof was about the subject_token
	jtis     map[string]bool
}

func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{
		t: t, identity: newKey(t), now: time.Now, life: 5 * time.Minute,
		holders: map[string]bool{}, aths: map[string]bool{}, jtis: map[string]bool{},
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/oauth-authorization-server/as", s.serveMetadata)
	mux.HandleFunc("POST /as/oauth/token", s.serveToken)
	s.http = httptest.NewServer(mux)
	t.Cleanup(s.http.Close)
	return s
}

func (s *server) issuer() string { return s.http.URL + "/as" }

func (s *server) agent(change func(*client.Config)) *client.Agent {
	s.t.Helper()
	cfg := client.Config{Issuer: s.issuer(), Key: s.identity, Now: s.now}
	if change != nil {
		change(&cfg)
	}
	a, err := client.New(cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

func (s *server) serveMetadata(w http.ResponseWriter, _ *http.Request) {
	m := map[string]any{"issuer": s.issuer(), "token_endpoint": s.issuer() + "/oauth/token"}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, value := range s.metadata {
		m[name] = value
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(m)
}

func (s *server) serveToken(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		s.t.Error(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r.PostForm)
	fail := func(status int, code string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": "because"})
	}
	assertion, err := agent.VerifyAssertion(r.PostForm.Get("client_assertion"), s.identity.Public(), agent.AssertionCheck{
		ClientID: s.identity.Public().Thumbprint(), Audience: s.issuer(), Now: s.now(),
	})
	if err != nil || s.jtis[assertion.JTI] {
		fail(http.StatusUnauthorized, "invalid_client")
		return
	}
	s.jtis[assertion.JTI] = true
	if s.answer != nil {
		s.answer(w, r)
		return
	}
	key, ok := s.prove(w, r, fail)
	if !ok {
		return
	}
	s.issue(w, r.PostForm, key)
}

// prove checks the DPoP header, if there is one.
func (s *server) prove(w http.ResponseWriter, r *http.Request, fail func(int, string)) (agent.PublicKey, bool) {
	header := r.Header.Get("DPoP")
	if header == "" {
		return agent.PublicKey{}, true
	}
	proof, err := agent.VerifyProof(header, agent.ProofCheck{
		Method: http.MethodPost, URL: s.issuer() + "/oauth/token", Now: s.now(),
		Token: r.PostForm.Get("subject_token"), TokenOptional: true,
	})
	switch {
	case err != nil || s.jtis[proof.JTI]:
		fail(http.StatusBadRequest, "invalid_dpop_proof")
	case s.nonce != "" && proof.Nonce != s.nonce:
		w.Header().Set("DPoP-Nonce", s.nonce)
		fail(http.StatusBadRequest, "use_dpop_nonce")
	case proof.Key == s.identity.Public():
		s.t.Error("the identity key signed a proof")
	default:
		s.jtis[proof.JTI], s.holders[proof.Key.Thumbprint()] = true, true
		s.aths[proof.Key.Thumbprint()] = proof.HasATH
		return proof.Key, true
	}
	return agent.PublicKey{}, false
}

// issue answers with a root for the key that is asked for.
func (s *server) issue(w http.ResponseWriter, form url.Values, key agent.PublicKey) {
	if text := form.Get("req_cnf"); text != "" {
		v, err := jcs.Parse([]byte(text), jcs.Limits{})
		if err != nil {
			s.t.Error(err)
		}
		if key, err = agent.ParsePublicKey(v.Get("jwk")); err != nil {
			s.t.Error(err)
		}
	}
	if card := form.Get("actor_token"); card != "" {
		checked, err := agent.VerifyCard(card, s.identity.Public(), agent.CardCheck{
			Agent: s.identity.Public().Thumbprint(), Audience: s.issuer(), Now: s.now(),
		})
		if err != nil {
			s.t.Error(err)
		}
		key = checked.Key
	}
	if form.Get("requested_token_type") == "urn:kavach:token-type:handle" {
		answer := map[string]any{
			"access_token": "handle-1", "token_type": "N_A", "expires_in": 60,
			"issued_token_type": "urn:kavach:token-type:handle",
		}
		if s.edit != nil {
			s.edit(answer)
		}
		_ = json.NewEncoder(w).Encode(answer)
		return
	}
	now := s.now()
	claims := delegation.Claims{
		Issuer: s.issuer(), Subject: s.identity.Public().Thumbprint(), ClientID: s.identity.Public().Thumbprint(),
		Audience: []string{gitURL}, IssuedAt: now, Expires: now.Add(s.life), GrantID: "g-1",
		Scopes: strings.Fields(form.Get("scope")), Root: true, MaxDepth: 3, Key: key,
	}
	if len(form["resource"]) > 0 {
		claims.Audience = form["resource"]
	}
	kind := "DPoP"
	if key.IsZero() {
		claims.Root, claims.MaxDepth, kind = false, 0, "Bearer"
	}
	if form.Get("requested_token_type") == "urn:kavach:token-type:aat" {
		claims.AAT, kind = true, "aat"
	}
	signed, err := delegation.Sign(claims, serverKey)
	if err != nil {
		s.t.Error(err)
	}
	answer := map[string]any{
		"access_token": signed.Token, "token_type": kind, "expires_in": int64(s.life / time.Second),
		"scope": form.Get("scope"), "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
	}
	if s.edit != nil {
		s.edit(answer)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

func (s *server) asked() []url.Values {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]url.Values{}, s.requests...)
}
