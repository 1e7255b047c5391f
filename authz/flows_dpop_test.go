package authz_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/guard"
)

// proved is a token request with a proof by key.
func (f *flows) proved(form url.Values, key agent.PrivateKey) answer {
	f.t.Helper()
	return f.do(request{form: form, proof: f.dpop(key, "")})
}

func TestDPoPIsForEveryClientThatWantsIt(t *testing.T) {
	f := newFlows(t)
	key := holder(t)
	jkt := key.Public().Thumbprint()
	client, p := f.public(), newProof()
	code := f.code(f.signedIn("alice"), client, p, nil)
	a := f.proved(f.redeem(client, code, p, nil), key)
	if a.status != http.StatusOK || a.str("token_type") != "DPoP" || f.chain(a.str("access_token")).JKT() != jkt {
		t.Fatalf("a code: %d %v", a.status, a.body)
	}
	if chain := f.chain(a.str("access_token")); !chain.Plain() {
		t.Error("a client of a person gets roots") // delegation.md §3: "the client is an agent or sent req_cnf"
	}
	id, secret := f.client(authz.NewClient{Scopes: []string{"repo:read"}})
	a = f.do(request{form: url.Values{"grant_type": {"client_credentials"}}, proof: f.dpop(key, ""), client: [2]string{id, secret}})
	if a.status != http.StatusOK || a.str("token_type") != "DPoP" || f.chain(a.str("access_token")).JKT() != jkt {
		t.Errorf("client credentials: %d %v", a.status, a.body)
	}
	got := f.send(http.MethodPost, "/oauth/introspect", "application/x-www-form-urlencoded",
		url.Values{"token": {a.str("access_token")}}.Encode(), id, secret)
	var said map[string]any
	must(t, json.Unmarshal([]byte(got.body), &said))
	cnf, _ := said["cnf"].(map[string]any)
	if said["token_type"] != "DPoP" || cnf["jkt"] != jkt || len(cnf) != 1 {
		t.Errorf("introspection: %s", got.body)
	}
}

func TestProofsThatDoNotHold(t *testing.T) {
	f := newFlows(t)
	client, first := f.tokens(nil)
	key, now := holder(t), f.clock.now()
	form := refreshForm(client, first.str("refresh_token"), nil)
	sign := func(change func(*agent.Proof)) string {
		p := agent.Proof{Method: "POST", URL: f.issuer + "/oauth/token", IssuedAt: now}
		change(&p)
		text, err := agent.SignProof(key, p)
		must(t, err)
		return text
	}
	good := sign(func(*agent.Proof) {})
	for name, proof := range map[string]string{
		"another method":   sign(func(p *agent.Proof) { p.Method = "GET" }),
		"another URL":      sign(func(p *agent.Proof) { p.URL = f.issuer + "/oauth/revoke" }),
		"another host":     sign(func(p *agent.Proof) { p.URL = "https://evil.example/oauth/token" }),
		"old":              sign(func(p *agent.Proof) { p.IssuedAt = now.Add(-31 * time.Second) }),
		"from the future":  sign(func(p *agent.Proof) { p.IssuedAt = now.Add(31 * time.Second) }),
		"an ath":           sign(func(p *agent.Proof) { p.Token = first.str("access_token") }),
		"not a JWT":        "x",
		"empty":            " ",
		"two in one":       good + "," + good,
		"an assertion":     f.assertion(key, client, nil),
		"another's tail":   good[:len(good)-4] + "AAAA",
		"an access token":  first.str("access_token"),
		"without its head": good[strings.IndexByte(good, '.'):],
	} {
		a := f.do(request{form: form, proof: proof})
		if a.status != http.StatusBadRequest || a.str("error") != "invalid_dpop_proof" {
			t.Errorf("%s: %d %v", name, a.status, a.body)
		}
	}
	r, err := http.NewRequest(http.MethodPost, f.issuer+"/oauth/token", strings.NewReader(form.Encode()))
	must(t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header["Dpop"] = []string{good, good}
	w, err := http.DefaultClient.Do(r)
	must(t, err)
	if got := decode(t, w); got["error"] != "invalid_dpop_proof" {
		t.Errorf("two headers: %v", got)
	}
	// Nothing of this has touched the family, and the good proof is unspent.
	second := f.do(request{form: form, proof: good})
	if second.status != http.StatusOK {
		t.Fatalf("the good proof: %d %v", second.status, second.body)
	}
	// The same proof again: refused, and nothing was rotated.
	next := refreshForm(client, second.str("refresh_token"), nil)
	f.wantError(f.do(request{form: next, proof: good}), http.StatusBadRequest, "invalid_dpop_proof")
	if f.recorded("replayed") != 1 {
		t.Error("the replay is not recorded")
	}
	if a := f.proved(next, key); a.status != http.StatusOK {
		t.Errorf("after the replay: %d %v", a.status, a.body)
	}
}

// the refresh tokens of a public client belong to the key.
func TestRefreshTokensOfPublicClientsAreBound(t *testing.T) {
	f := newFlows(t)
	key, thief := holder(t), holder(t)
	client, p := f.public(), newProof()
	a := f.proved(f.redeem(client, f.code(f.signedIn("alice"), client, p, nil), p, nil), key)
	form := refreshForm(client, a.str("refresh_token"), nil)
	f.wantError(f.token(form), http.StatusBadRequest, "invalid_grant")
	f.wantError(f.proved(form, thief), http.StatusBadRequest, "invalid_grant")
	b := f.proved(form, key)
	if b.status != http.StatusOK || f.chain(b.str("access_token")).JKT() != key.Public().Thumbprint() {
		t.Fatalf("the key's own refresh: %d %v", b.status, b.body)
	}
	// Neither does a used one in the hands of somebody without the key, within
	// the window or after it, end the family.
	f.wantError(f.proved(form, thief), http.StatusBadRequest, "invalid_grant")
	f.clock.advance(time.Minute)
	f.wantError(f.proved(form, thief), http.StatusBadRequest, "invalid_grant")
	f.wantError(f.token(form), http.StatusBadRequest, "invalid_grant")
	if !f.alive(b.str("access_token")) {
		t.Fatal("who has a token without its key ended the family")
	}
	c := f.proved(refreshForm(client, b.str("refresh_token"), nil), key)
	if c.status != http.StatusOK {
		t.Errorf("after that: %d %v", c.status, c.body)
	}
	// With the key it is reuse as ever.
	f.wantError(f.proved(form, key), http.StatusBadRequest, "invalid_grant")
	if f.alive(c.str("access_token")) {
		t.Error("reuse with the key does not end the family")
	}

	// A client that authenticates is its own binding (RFC 9449 section 5).
	id, secret := f.client(authz.NewClient{RedirectURIs: []string{callback}})
	p = newProof()
	code := f.code(f.signedIn("alice"), id, p, nil)
	d := f.do(request{form: f.redeem(id, code, p, nil), proof: f.dpop(key, ""), client: [2]string{id, secret}})
	e := f.token(refreshForm(id, d.str("refresh_token"), nil), id, secret)
	if e.status != http.StatusOK || e.str("token_type") != "Bearer" {
		t.Errorf("a confidential client: %v %v, then %d %v", d, d.body, e.status, e.body)
	}
}

// a code bound by dpop_jkt, across consent, and in other hands.
func TestCodesAreBoundByDPoPJKT(t *testing.T) {
	f := newFlows(t)
	key, thief := holder(t), holder(t)
	client, b := f.public(), f.signedIn("alice")
	for range 2 { // with a consent page, which a row waits for, and without
		p := newProof()
		code := f.code(b, client, p, url.Values{"dpop_jkt": {key.Public().Thumbprint()}})
		form := f.redeem(client, code, p, nil)
		f.wantError(f.token(form), http.StatusBadRequest, "invalid_grant")
		f.wantError(f.proved(form, thief), http.StatusBadRequest, "invalid_grant")
		if a := f.proved(form, key); a.status != http.StatusOK || a.str("token_type") != "DPoP" {
			t.Fatalf("the code was consumed by others: %d %v", a.status, a.body)
		} else if f.wantError(f.proved(form, thief), http.StatusBadRequest, "invalid_grant"); !f.alive(a.str("access_token")) {
			t.Error("the used code in other hands ended the family")
		}
	}
	got := redirected(t, b.authorize(f.request(client, newProof(), url.Values{"dpop_jkt": {"short"}})))
	if got.Get("error") != "invalid_request" {
		t.Errorf("a dpop_jkt that is none: %v", got)
	}
}

func TestAClientCanBeHeldToDPoP(t *testing.T) {
	f := newFlows(t)
	id, secret := f.client(authz.NewClient{Scopes: []string{"repo:read"}, BoundTokens: true})
	cc := url.Values{"grant_type": {"client_credentials"}}
	f.wantError(f.token(cc, id, secret), http.StatusBadRequest, "invalid_dpop_proof")
	a := f.do(request{form: cc, proof: f.dpop(holder(t), ""), client: [2]string{id, secret}})
	if a.status != http.StatusOK || a.str("token_type") != "DPoP" {
		t.Errorf("with a proof: %d %v", a.status, a.body)
	}
}

// nonces are for one key and a few minutes, whichever server made them.
func TestNonces(t *testing.T) {
	replica := guard.NoncesConfig{Secret: bytes.Repeat([]byte{7}, 32), Period: time.Minute}
	f := newFlows(t, func(c *authz.Config) { c.Nonces = guard.NewNonces(replica) })
	p := f.program(f.alice, "orchestrator", []string{"repo:read"})
	key := holder(t)
	assertion := f.assertion(p.key, p.id, nil)
	send := func(assertion, nonce string, key agent.PrivateKey) answer {
		t.Helper()
		text, err := agent.SignProof(key, agent.Proof{Method: "POST", URL: f.issuer + "/oauth/token", Nonce: nonce, IssuedAt: f.clock.now()})
		must(t, err)
		return f.do(request{form: asserted(assertion, "scope", "repo:read"), proof: text})
	}
	refused := func(name string, a answer) string {
		t.Helper()
		nonce := a.header.Get("DPoP-Nonce")
		if a.status != http.StatusBadRequest || a.str("error") != "use_dpop_nonce" || nonce == "" {
			t.Errorf("%s: %d %v %v", name, a.status, a.body, a.header)
		}
		if !strings.Contains(a.header.Get("Access-Control-Expose-Headers"), "DPoP-Nonce") {
			t.Errorf("%s: scripts cannot read the nonce", name)
		}
		return nonce
	}
	nonce := refused("none", send(assertion, "", key))
	refused("one that nobody made", send(assertion, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", key))
	refused("another key's", send(assertion, nonce, holder(t)))
	refused("of another secret", send(assertion, guard.NewNonces(guard.NoncesConfig{}).Nonce(key.Public().Thumbprint(), f.clock.now()), key))
	a := send(assertion, nonce, key) // the assertion is still good
	if a.status != http.StatusOK || a.header.Get("DPoP-Nonce") == "" {
		t.Fatalf("with the nonce: %d %v %v", a.status, a.body, a.header)
	}
	f.clock.advance(time.Minute)
	again := send(f.assertion(p.key, p.id, nil), nonce, key)
	if again.status != http.StatusOK || again.header.Get("DPoP-Nonce") == nonce {
		t.Errorf("a minute later: %d %v", again.status, again.body)
	}
	if a := send(f.assertion(p.key, p.id, nil), guard.NewNonces(replica).Nonce(key.Public().Thumbprint(), f.clock.now()), key); a.status != http.StatusOK {
		t.Errorf("of a replica: %d %v", a.status, a.body)
	}
	f.clock.advance(5 * time.Minute)
	refused("stale", send(f.assertion(p.key, p.id, nil), nonce, key))
	// Who proves no key needs none.
	if a := f.token(asserted(f.assertion(p.key, p.id, nil), "scope", "repo:read")); a.status != http.StatusOK {
		t.Errorf("without a proof: %d %v", a.status, a.body)
	}
}
