package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// keyedClient adds a client for private_key_jwt as an operator does.
func (s *server) keyedClient(t *testing.T, name string, key signingKey) *agent {
	t.Helper()
	keys := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(keys, []byte(encode(map[string]any{"keys": []any{key.jwk()}})), 0o600); err != nil {
		t.Fatal(err)
	}
	var added credential
	decode(t, s.cli("", "client", "add", name, "--method", "private_key_jwt", "--jwks-file", keys, "--scope", "kavach:verify", "--json"), &added)
	return &agent{t: t, Issuer: s.Issuer, HTTP: s.client(), Name: name, ID: added.ID, Key: key, Holder: newEd25519()}
}

// registeredWithKey is a client that registered itself for private_key_jwt.
func (a *attack) registeredWithKey(t *testing.T, key signingKey) *agent {
	t.Helper()
	var answer credential
	if status := a.public.postJSON("/oauth/register", map[string]any{
		"redirect_uris": []string{"https://client.example/keyed"}, "token_endpoint_auth_method": "private_key_jwt", "jwks": map[string]any{"keys": []any{key.jwk()}},
	}, &answer); status != http.StatusCreated {
		t.Fatalf("registering with a key: %d", status)
	}
	return &agent{t: t, Issuer: a.Issuer, HTTP: a.client(), Name: "registered", ID: answer.ID, Key: key, Holder: newEd25519()}
}

// assertionEndpoints are where a client authenticates, with what it asks there.
var assertionEndpoints = map[string]url.Values{
	"/oauth/token":      {"grant_type": {"client_credentials"}},
	"/oauth/introspect": {"token": {"x"}},
	"/oauth/revoke":     {"token": {"x"}},
}

// authenticate sends an assertion to an endpoint. pairs are further parameters.
func (a *attack) authenticate(t *testing.T, path, assertion string, pairs ...string) reply {
	t.Helper()
	values := url.Values{"client_assertion_type": {assertionType}, "client_assertion": {assertion}}
	for name, list := range assertionEndpoints[path] {
		values[name] = list
	}
	for i := 0; i < len(pairs); i += 2 {
		values.Set(pairs[i], pairs[i+1])
	}
	return a.form(t, path, values.Encode())
}

// wantNobody: an assertion that is no client's, at every endpoint.
func (a *attack) wantNobody(t *testing.T, what, assertion string, pairs ...string) {
	t.Helper()
	for path := range assertionEndpoints {
		wantOAuth(t, what+" at "+path, a.authenticate(t, path, assertion, pairs...), 401, "invalid_client")
	}
}

// wantKnown: the client is who it says, whatever it may do then.
func wantKnown(t *testing.T, what string, got reply) {
	t.Helper()
	if got.status != http.StatusOK && (got.status != http.StatusBadRequest || !strings.Contains(got.body, "unauthorized_client")) {
		t.Errorf("%s: %d %s", what, got.status, got.body)
	}
}

// canary counts who connects to it.
func canary(t *testing.T) (address string, hits *atomic.Int64) {
	t.Helper()
	hits = new(atomic.Int64)
	listener := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		hits.Add(1)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"keys":[]}`)
	}))
	t.Cleanup(listener.Close)
	return listener.URL, hits
}

// hs256 signs with a secret that is no secret.
func hs256(header map[string]any, claims string, secret []byte) string {
	header["alg"] = "HS256"
	signed := base64url([]byte(encode(header))) + "." + base64url([]byte(claims))
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(signed))
	return signed + "." + base64url(mac.Sum(nil))
}

// spellings are the ways to write a public key down that a confused verifier
// may take for a shared secret.
func (k signingKey) spellings(t *testing.T) map[string][]byte {
	t.Helper()
	var public any
	if k.ed != nil {
		public = k.ed.Public()
	} else {
		public = &k.ec.PublicKey
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	x := k.jwk()["x"].(string)
	return map[string][]byte{
		"DER": der, "PEM": block, "PEM without its last newline": []byte(strings.TrimSpace(string(block))), "JWK": []byte(encode(k.jwk())),
		"x": []byte(x), "bytes of x": unbase64(x), "thumbprint": []byte(k.thumbprint()), "nothing": nil,
	}
}

// Clients that authenticate with keys. A-43 is in once_two_test.go and
// once_assertion_test.go, because it takes two processes and restarts.
var keyAttacks = []attackRow{
	{"A-41 clients with keys by another method", func(t *testing.T, a *attack) {
		for _, who := range []*agent{a.agent, a.keyed, a.registeredWithKey(t, newES256())} {
			const grant = "grant_type=client_credentials"
			wantOAuth(t, "none", a.form(t, "/oauth/token", grant+"&client_id="+who.ID), 401, "invalid_client")
			wantOAuth(t, "secret in the body", a.form(t, "/oauth/token", grant+"&client_secret=x&client_id="+who.ID), 401, "invalid_client")
			wantOAuth(t, "empty secret", a.form(t, "/oauth/token", grant+"&client_secret=&client_id="+who.ID), 401, "invalid_client")
			got := a.form(t, "/oauth/token", grant, "Authorization", basic(who.ID, "x"))
			wantOAuth(t, "Basic", got, 401, "invalid_client")
			if !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Basic ") {
				t.Errorf("no challenge: %v", got.header)
			}
			assertion := who.Key.assertion(who.ID, a.Issuer)
			wantOAuth(t, "assertion as secret", a.form(t, "/oauth/token", grant+"&client_id="+who.ID+"&client_secret="+assertion), 401, "invalid_client")
			wantOAuth(t, "assertion as password", a.form(t, "/oauth/token", grant, "Authorization", basic(who.ID, assertion)), 401, "invalid_client")
			wantOAuth(t, "assertion as Bearer", a.form(t, "/oauth/token", grant, "Authorization", "Bearer "+assertion), 401, "invalid_client")
			wantOAuth(t, "assertion and Basic", a.form(t, "/oauth/token", a.agentForm(assertion), "Authorization", basic(a.static.ID, a.static.Secret)), 400, "invalid_request")
			wantOAuth(t, "assertion and secret", a.form(t, "/oauth/token", a.agentForm(assertion)+"&client_secret=x"), 400, "invalid_request")
			wantOAuth(t, "two assertions", a.form(t, "/oauth/token", a.agentForm(assertion)+"&client_assertion="+assertion), 400, "invalid_request")
			for _, kind := range []string{"", "urn:ietf:params:oauth:client-assertion-type:saml2-bearer", strings.ToUpper(assertionType), assertionType + " "} {
				wantOAuth(t, kind, a.authenticate(t, "/oauth/token", assertion, "client_assertion_type", kind), 401, "invalid_client")
			}
			wantOAuth(t, "no type", a.form(t, "/oauth/token", grant+"&client_assertion="+assertion), 401, "invalid_client")
			wantOAuth(t, "type alone", a.form(t, "/oauth/token", grant+"&client_id="+who.ID+"&client_assertion_type="+assertionType), 401, "invalid_client")
			// None of this used the assertion up.
			wantKnown(t, who.Name, a.authenticate(t, "/oauth/token", assertion))
		}
		// And an assertion for clients that have a secret, or nothing.
		for _, id := range []string{a.static.ID, a.post.ID, a.public.ID, a.web.ID} {
			a.wantNobody(t, id, a.agent.Key.assertion(id, a.Issuer))
		}
	}},
	{"A-42 audiences of assertions", func(t *testing.T, a *attack) {
		for _, who := range []*agent{a.agent, a.keyed, a.registeredWithKey(t, newEd25519())} {
			for name, audience := range map[string]any{
				"token endpoint": a.Issuer + "/oauth/token", "introspection": a.Issuer + "/oauth/introspect", "revocation": a.Issuer + "/oauth/revoke",
				"two": []string{a.Issuer, "https://evil"}, "two, ours last": []string{"https://evil", a.Issuer}, "ours twice": []string{a.Issuer, a.Issuer},
				"none in a list": []string{}, "missing": nil, "empty": "", "slash": a.Issuer + "/", "slash in a list": []string{a.Issuer + "/"},
				"another server": "https://as.example", "resource": a.Issuer + "/mcp", "upper case": strings.ToUpper(a.Issuer), "no port": "http://127.0.0.1",
				"query": a.Issuer + "?", "localhost": strings.Replace(a.Issuer, "127.0.0.1", "localhost", 1), "space": a.Issuer + " ",
				"nested": []any{[]string{a.Issuer}}, "object": map[string]any{"aud": a.Issuer}, "number": 1, "true": true, "client": who.ID,
			} {
				a.wantNobody(t, name, who.Key.assertion(who.ID, a.Issuer, set("aud", audience)))
			}
			for name, audience := range map[string]any{"text": a.Issuer, "list": []string{a.Issuer}} {
				for path := range assertionEndpoints {
					wantKnown(t, name+" at "+path, a.authenticate(t, path, who.Key.assertion(who.ID, a.Issuer, set("aud", audience))))
				}
			}
		}
	}},
	{"A-45 assertions that name two clients", func(t *testing.T, a *attack) {
		for _, pair := range [][2]*agent{{a.agent, a.keyed}, {a.keyed, a.agent}} {
			who, other := pair[0], pair[1]
			for name, changes := range map[string][]change{
				"another iss": {set("iss", other.ID)}, "another sub": {set("sub", other.ID)}, "both another's": {set("iss", other.ID), set("sub", other.ID)},
				"iss a user": {set("iss", "dev")}, "sub of nobody": {set("sub", "c-nobody")}, "no iss": {set("iss", nil)}, "no sub": {set("sub", nil)},
				"neither": {set("iss", nil), set("sub", nil)}, "list": {set("sub", []string{who.ID})}, "iss the server": {set("iss", a.Issuer)},
				"empty": {set("iss", ""), set("sub", "")}, "no jti": {set("jti", nil)}, "empty jti": {set("jti", "")}, "number as jti": {set("jti", 7)},
				"kid of the other": {set("iss", other.ID), set("sub", other.ID), setHeader("kid", other.Key.thumbprint())},
			} {
				a.wantNobody(t, name, who.Key.assertion(who.ID, a.Issuer, changes...))
			}
			for _, id := range []string{other.ID, "c-nobody", a.public.ID, a.static.ID, who.ID + " ", strings.ToUpper(who.ID)} {
				wantOAuth(t, "client_id "+id, a.authenticate(t, "/oauth/token", who.Key.assertion(who.ID, a.Issuer), "client_id", id), 401, "invalid_client")
			}
			wantOAuth(t, "client_id with NUL", a.authenticate(t, "/oauth/token", who.Key.assertion(who.ID, a.Issuer), "client_id", who.ID+"\x00"), 400, "invalid_request")
			wantKnown(t, "its own client_id", a.authenticate(t, "/oauth/token", who.Key.assertion(who.ID, a.Issuer), "client_id", who.ID))
		}
	}},
	{"A-46 forged assertions", func(t *testing.T, a *attack) {
		address, hits := canary(t)
		for _, who := range []*agent{a.agent, a.keyed} {
			other := a.keyed
			if who == a.keyed {
				other = a.agent
			}
			good := who.Key.assertion(who.ID, a.Issuer)
			part := strings.Split(good, ".")
			claims := string(unbase64(part[1]))
			for _, alg := range []string{"none", "None", "NONE", "nOnE"} {
				header := base64url([]byte(encode(map[string]any{"alg": alg, "typ": "JWT"})))
				for _, signature := range []string{"", part[2], "AA"} {
					a.wantNobody(t, alg, header+"."+part[1]+"."+signature)
				}
				a.wantNobody(t, alg, header+"."+part[1])
				a.wantNobody(t, alg+", signed", who.Key.as(alg).assertion(who.ID, a.Issuer))
			}
			for name, secret := range who.Key.spellings(t) {
				for _, header := range []map[string]any{{"typ": "JWT"}, {"typ": "client-authentication+jwt", "kid": who.Key.thumbprint()}} {
					a.wantNobody(t, "HS256 over "+name, hs256(header, claims, secret))
				}
			}
			for _, alg := range []string{"ES256", "Ed25519", "EdDSA"} { // "psychic signatures"
				header := base64url([]byte(encode(map[string]any{"alg": alg, "typ": "JWT"})))
				for _, n := range []int{0, 1, 63, 64, 65, 128} {
					a.wantNobody(t, "zeroes", header+"."+part[1]+"."+base64url(make([]byte, n)))
				}
			}
			evil := newES256()
			if who.Key.ed != nil {
				evil = newEd25519()
			}
			for name, changes := range map[string][]change{
				"nothing": nil, "jwk": {setHeader("jwk", evil.jwk())}, "jku": {setHeader("jku", address+"/jwks")}, "x5u": {setHeader("x5u", address+"/x5u")},
				"x5c": {setHeader("x5c", []string{"AAAA"})}, "kid": {setHeader("kid", who.Key.thumbprint())}, "kid of another client": {setHeader("kid", other.Key.thumbprint())},
				"jku and kid": {setHeader("jku", address+"/jwks"), setHeader("kid", evil.thumbprint())}, "jku in the claims": {set("jku", address), set("jwks_uri", address)},
				"iss a URL": {set("iss", address), set("sub", address)}, "x5t": {setHeader("x5t", "AAAA"), setHeader("x5t#S256", "AAAA")},
				"sub_jwk": {set("sub_jwk", evil.jwk())}, "cnf": {set("cnf", map[string]any{"jwk": evil.jwk()})},
			} {
				a.wantNobody(t, "attacker's key with "+name, evil.assertion(who.ID, a.Issuer, changes...))
			}
			// Signed by the client itself, but by other rules than it was registered for.
			for name, changes := range map[string][]change{
				"crit": {setHeader("crit", []string{"exp"})}, "b64": {setHeader("b64", false)}, "typ of a manifest": {setHeader("typ", "agent-manifest+jwt")},
				"typ of a proof": {setHeader("typ", "dpop+jwt")}, "typ of a token": {setHeader("typ", "at+jwt")}, "typ of a link": {setHeader("typ", "aat+jwt")},
				"typ of a card": {setHeader("typ", "agent-key+jwt")}, "typ in other case": {setHeader("typ", "jwt")},
			} {
				a.wantNobody(t, name, who.Key.assertion(who.ID, a.Issuer, changes...))
			}
			a.wantNobody(t, "key of another client", other.Key.assertion(who.ID, a.Issuer))
			wantKnown(t, "after all that", a.authenticate(t, "/oauth/token", good))
		}
		if n := hits.Load(); n != 0 {
			t.Errorf("the server fetched %d times what a header named", n)
		}
	}},
}

// agentForm is a token request with an assertion, as text.
func (a *attack) agentForm(assertion string) string {
	return "grant_type=client_credentials&client_assertion_type=" + assertionType + "&client_assertion=" + assertion
}
