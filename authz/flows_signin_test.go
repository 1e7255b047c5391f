package authz_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/authz"
)

const jwtBearer = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// claim is a member of an assertion that a test changes; nil takes it away.
type claim map[string]any

// assertion signs an assertion of a client; change spoils header ("h:…") or
// claims.
func (f *flows) assertion(key agent.PrivateKey, id string, change claim) string {
	f.t.Helper()
	now := f.clock.now().Unix()
	head := map[string]any{"alg": key.Alg(), "typ": "JWT"}
	claims := map[string]any{"iss": id, "sub": id, "aud": f.issuer, "jti": randomText(), "iat": now, "exp": now + 60}
	for name, value := range change {
		to := claims
		if rest, isHeader := strings.CutPrefix(name, "h:"); isHeader {
			to, name = head, rest
		}
		if to[name] = value; value == nil {
			delete(to, name)
		}
	}
	signed := encode(f.t, head) + "." + encode(f.t, claims)
	signature, err := key.Sign([]byte(signed))
	must(f.t, err)
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func encode(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	must(t, err)
	return base64.RawURLEncoding.EncodeToString(text)
}

// ecKey makes a P-256 key.
func ecKey(t *testing.T) agent.PrivateKey {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	key, err := agent.NewPrivateKey(private)
	must(t, err)
	return key
}

func randomText() string { return newProof().verifier }

// asserted is a client credentials request with an assertion.
func asserted(assertion string, pairs ...string) url.Values {
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_assertion_type": {jwtBearer}, "client_assertion": {assertion},
	}
	for i := 0; i < len(pairs); i += 2 {
		form.Set(pairs[i], pairs[i+1])
	}
	return form
}

func TestAgentsAndClientsSignInWithKeys(t *testing.T) {
	f := newFlows(t)
	p := f.program(f.alice, "orchestrator", []string{"repo:read"}, "delegate")
	key, other := ecKey(t), holder(t)
	static, secret := f.client(authz.NewClient{
		Method: authz.MethodKeyJWT, Scopes: []string{"repo:read"}, Keys: []agent.PublicKey{other.Public(), key.Public()},
	})
	if secret != "" {
		t.Error("a client with keys has a secret too")
	}
	for name, form := range map[string]url.Values{
		"an agent":                 asserted(f.assertion(p.key, p.id, nil), "scope", "repo:read"),
		"EdDSA":                    asserted(f.assertion(p.key, p.id, claim{"h:alg": "EdDSA"}), "scope", "repo:read"),
		"aud of one":               asserted(f.assertion(p.key, p.id, claim{"aud": []string{f.issuer}}), "scope", "repo:read"),
		"five minutes":             asserted(f.assertion(p.key, p.id, claim{"exp": f.clock.now().Unix() + 300}), "scope", "repo:read"),
		"no typ":                   asserted(f.assertion(p.key, p.id, claim{"h:typ": nil}), "scope", "repo:read"),
		"client_id too":            asserted(f.assertion(p.key, p.id, nil), "scope", "repo:read", "client_id", p.id),
		"a client with ES256":      asserted(f.assertion(key, static, nil)),
		"its other key":            asserted(f.assertion(other, static, nil)),
		"a kid that nobody knows":  asserted(f.assertion(key, static, claim{"h:kid": "x"})),
		"the same jti of another":  asserted(f.assertion(key, static, claim{"jti": "one"})),
		"the same jti of an agent": asserted(f.assertion(p.key, p.id, claim{"jti": "one"}), "scope", "repo:read"),
	} {
		if a := f.token(form); a.status != http.StatusOK || a.str("scope") != "repo:read" {
			t.Errorf("%s: %d %v", name, a.status, a.body)
		}
	}
}

// one text for everything, and nothing is spent.
func TestAssertionsThatAreWrong(t *testing.T) {
	f := newFlows(t)
	p := f.program(f.alice, "orchestrator", []string{"repo:read"}, "delegate")
	q := f.program(f.alice, "other", []string{"repo:read"})
	now := f.clock.now().Unix()
	sign := func(change claim) string { return f.assertion(p.key, p.id, change) }
	jwk := p.key.Public().JWK()
	x, _ := jwk["x"].(string)
	hs256 := func(secret []byte) string {
		signed := encode(t, map[string]any{"alg": "HS256"}) + "." +
			encode(t, map[string]any{"iss": p.id, "sub": p.id, "aud": f.issuer, "jti": randomText(), "exp": now + 60})
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(signed))
		return signed + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	unsigned := func(alg string) string {
		a := sign(claim{"h:alg": alg})
		return a[:strings.LastIndexByte(a, '.')+1]
	}
	rawX, err := base64.RawURLEncoding.DecodeString(x)
	must(t, err)
	text, err := json.Marshal(jwk)
	must(t, err)
	attacker := holder(t)
	card, err := agent.SignCard(p.key, agent.Card{Audience: f.issuer, Key: attacker.Public(), IssuedAt: f.clock.now()})
	must(t, err)
	good := sign(nil)

	for name, form := range map[string]url.Values{
		"aud is the token endpoint": asserted(sign(claim{"aud": f.issuer + "/oauth/token"})),
		"aud names two":             asserted(sign(claim{"aud": []string{f.issuer, "https://evil.example"}})),
		"aud names none":            asserted(sign(claim{"aud": []string{}})),
		"no aud":                    asserted(sign(claim{"aud": nil})),
		"aud with a slash":          asserted(sign(claim{"aud": f.issuer + "/"})),
		"aud of another server":     asserted(sign(claim{"aud": "https://other.example"})),
		"iss is not sub":            asserted(sign(claim{"iss": q.id})),
		"sub is another":            asserted(sign(claim{"sub": q.id})),
		"both are another":          asserted(sign(claim{"iss": q.id, "sub": q.id})),
		"client_id is another":      asserted(good, "client_id", q.id),
		"nobody's":                  asserted(sign(claim{"iss": "nobody", "sub": "nobody"})),
		"no jti":                    asserted(sign(claim{"jti": nil})),
		"expired":                   asserted(sign(claim{"iat": now - 120, "exp": now - 60})),
		"six minutes":               asserted(sign(claim{"exp": now + 361})),
		"no exp":                    asserted(sign(claim{"exp": nil})),
		"another typ":               asserted(sign(claim{"h:typ": "at+jwt"})),
		"alg none":                  asserted(unsigned("none")),
		"alg None":                  asserted(unsigned("None")),
		"alg nOnE":                  asserted(unsigned("nOnE")),
		"alg of another curve":      asserted(sign(claim{"h:alg": "ES256"})),
		"HS256 by the key":          asserted(hs256(rawX)),
		"HS256 by x":                asserted(hs256([]byte(x))),
		"HS256 by the JWK":          asserted(hs256(text)),
		"a signature of zeros":      asserted(good[:strings.LastIndexByte(good, '.')+1] + strings.Repeat("A", 86)),
		"a key in the header":       asserted(f.assertion(attacker, p.id, claim{"h:jwk": attacker.Public().JWK()})),
		"a jku":                     asserted(f.assertion(attacker, p.id, claim{"h:jku": f.issuer + "/jwks"})),
		"another's kid":             asserted(f.assertion(q.key, p.id, claim{"h:kid": q.id})),
		"a DPoP proof":              asserted(f.dpop(p.key, "")),
		"a key card":                asserted(card),
		"an access token":           asserted(p.signIn(attacker, url.Values{"scope": {"repo:read"}})),
		"not a JWT":                 asserted("x"),
		"no type":                   {"grant_type": {"client_credentials"}, "client_assertion": {good}},
		"another type": {"grant_type": {"client_credentials"}, "client_assertion": {good},
			"client_assertion_type": {strings.ToUpper(jwtBearer)}},
		"a SAML assertion": {"grant_type": {"client_credentials"}, "client_assertion": {good},
			"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:saml2-bearer"}},
		"type alone":       {"grant_type": {"client_credentials"}, "client_assertion_type": {jwtBearer}, "client_id": {p.id}},
		"a secret instead": {"grant_type": {"client_credentials"}, "client_id": {p.id}, "client_secret": {x}},
		"nothing":          {"grant_type": {"client_credentials"}, "client_id": {p.id}},
	} {
		a := f.token(form)
		f.wantError(a, http.StatusUnauthorized, "invalid_client")
		if a.str("error_description") != "client authentication failed" || a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: %v %v", name, a.body, a.header)
		}
	}
	f.wantError(f.token(asserted(good, "client_secret", "x")), http.StatusBadRequest, "invalid_request") // two methods
	f.wantError(f.token(asserted(good), p.id, "x"), http.StatusBadRequest, "invalid_request")
	if a := f.token(asserted(good, "scope", "repo:read")); a.status != http.StatusOK {
		t.Errorf("the good assertion was spent by bad requests: %v %v", a, a.body)
	}
}

func TestAnAgentThatMayNotActDoesNotSignIn(t *testing.T) {
	f := newFlows(t)
	p := f.program(f.alice, "orchestrator", []string{"repo:read"})
	f.clock.advance(31 * 24 * time.Hour) // the manifest has expired
	f.wantError(f.token(asserted(f.assertion(p.key, p.id, nil))), http.StatusUnauthorized, "invalid_client")
}

// sequentially, at every endpoint, and after a restart.
func TestAnAssertionIsTakenOnce(t *testing.T) {
	f := newFlows(t)
	p := f.program(f.alice, "orchestrator", []string{"repo:read"})
	revoke := func(assertion, token string) page {
		return f.send(http.MethodPost, "/oauth/revoke", "application/x-www-form-urlencoded",
			asserted(assertion, "token", token).Encode(), "", "")
	}
	introspect := func(assertion, token string) page {
		return f.send(http.MethodPost, "/oauth/introspect", "application/x-www-form-urlencoded",
			asserted(assertion, "token", token).Encode(), "", "")
	}
	first := f.assertion(p.key, p.id, nil)
	a := f.token(asserted(first, "scope", "repo:read"))
	if a.status != http.StatusOK {
		t.Fatal(a, a.body)
	}
	token := a.str("access_token")
	f.wantError(f.token(asserted(first, "scope", "repo:read")), http.StatusUnauthorized, "invalid_client")
	if got := introspect(first, token); got.status != http.StatusUnauthorized {
		t.Errorf("introspection with a used assertion: %d %s", got.status, got.body)
	}
	if got := revoke(first, token); got.status != http.StatusUnauthorized || !f.alive(token) {
		t.Errorf("revocation with a used assertion: %d %s", got.status, got.body)
	}
	if n := f.recorded("replayed"); n != 3 {
		t.Errorf("%d records say replayed, want 3", n)
	}

	second := f.assertion(p.key, p.id, nil)
	if got := introspect(second, token); got.status != http.StatusOK || !strings.Contains(got.body, `"active":true`) {
		t.Errorf("introspection: %d %s", got.status, got.body)
	}
	if got := introspect(second, token); got.status != http.StatusUnauthorized {
		t.Errorf("introspection again: %d %s", got.status, got.body)
	}
	third := f.assertion(p.key, p.id, nil)
	if got := revoke(third, token); got.status != http.StatusOK || f.alive(token) {
		t.Errorf("revocation: %d %s", got.status, got.body)
	}
	f.wantError(f.token(asserted(third, "scope", "repo:read")), http.StatusUnauthorized, "invalid_client")

	// A decision spends it, also one that refuses; what is not decided does not.
	fourth := f.assertion(p.key, p.id, nil)
	f.wantError(f.token(asserted(fourth, "grant_type", "password")), http.StatusBadRequest, "unsupported_grant_type")
	bad := f.do(request{form: asserted(fourth, "scope", "repo:read"), proof: "x"})
	f.wantError(bad, http.StatusBadRequest, "invalid_dpop_proof")
	f.wantError(f.token(asserted(fourth, "scope", "repo:write")), http.StatusBadRequest, "invalid_scope")
	f.wantError(f.token(asserted(fourth, "scope", "repo:read")), http.StatusUnauthorized, "invalid_client")
}

// Of 50 uses of one assertion, or of one proof, exactly one wins, also when two
// processes share the database.
func TestWhatMayComeOnceComesOnce(t *testing.T) {
	f := newFlows(t)
	p := f.program(f.alice, "orchestrator", []string{"repo:read"})
	second := f.twin()
	race := func(name string, make func() request, status int, code string) {
		var requests [50]request
		var answers [50]answer
		for i := range requests {
			requests[i] = make()
		}
		var wg sync.WaitGroup
		for i, r := range requests {
			wg.Go(func() {
				var err error
				if answers[i], err = sendTo([]string{f.issuer, second}[i%2], r); err != nil {
					t.Errorf("%s %d: %v", name, i, err)
				}
			})
		}
		wg.Wait()
		won := 0
		for _, a := range answers {
			if a.status == http.StatusOK {
				won++
			} else if a.status != status || a.str("error") != code {
				t.Errorf("%s: a loser got %d %v", name, a.status, a.body)
			}
		}
		if won != 1 {
			t.Errorf("%s: %d of 50 won", name, won)
		}
	}
	assertion := f.assertion(p.key, p.id, nil)
	race("assertion", func() request {
		return request{form: asserted(assertion, "scope", "repo:read")}
	}, http.StatusUnauthorized, "invalid_client")
	proof := f.dpop(holder(t), "")
	race("proof", func() request {
		return request{form: asserted(f.assertion(p.key, p.id, nil), "scope", "repo:read"), proof: proof}
	}, http.StatusBadRequest, "invalid_dpop_proof")
	if n := f.recorded("replayed"); n != 98 {
		t.Errorf("%d records say replayed, want 98", n)
	}
}

// A race for a code is told from a race for an assertion, also where both are
// run at once.
func TestALostRaceIsToldForWhatItIs(t *testing.T) {
	f := newFlows(t)
	key := ecKey(t)
	id, _ := f.client(authz.NewClient{Method: authz.MethodKeyJWT, RedirectURIs: []string{callback}, Keys: []agent.PublicKey{key.Public()}})
	race := func(assertions ...string) (won int, lost []answer) {
		t.Helper()
		p := newProof()
		code := f.code(f.signedIn("alice"), id, p, nil)
		answers := make([]answer, 16)
		var wg sync.WaitGroup
		for i := range answers {
			form := f.redeem(id, code, p, url.Values{
				"client_assertion_type": {jwtBearer}, "client_assertion": {assertions[i%len(assertions)]},
			})
			wg.Go(func() {
				var err error
				if answers[i], err = f.tryToken(form); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, a := range answers {
			if a.status == http.StatusOK {
				won++
			} else {
				lost = append(lost, a)
			}
		}
		return won, lost
	}

	// One assertion: whoever loses has presented it a second time.
	one := f.assertion(key, id, nil)
	won, lost := race(one)
	if won != 1 {
		t.Errorf("one assertion: %d won", won)
	}
	for _, a := range lost {
		f.wantError(a, http.StatusUnauthorized, "invalid_client")
	}

	// One each: whoever loses has lost the code, and spent its own assertion.
	var each []string
	for range 16 {
		each = append(each, f.assertion(key, id, nil))
	}
	won, lost = race(each...)
	if won != 1 {
		t.Errorf("an assertion each: %d won", won)
	}
	for _, a := range lost {
		f.wantError(a, http.StatusBadRequest, "invalid_grant")
	}
	before := f.recorded("replayed")
	for _, assertion := range each {
		form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x"}, "client_assertion_type": {jwtBearer}, "client_assertion": {assertion}}
		f.wantError(f.token(form), http.StatusUnauthorized, "invalid_client")
	}
	if n := f.recorded("replayed") - before; n != 16 {
		t.Errorf("%d of 16 records say replayed", n)
	}
}
