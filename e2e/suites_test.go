package e2e

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestSuites sends what others published as hard cases to a running server:
// JSONTestSuite and the JOSE and Ed25519 vectors of Wycheproof, in every place
// where the token endpoint, the registration and /mcp read JSON, keys or
// signatures of strangers. Whatever it is, it gets no 5xx and no internals.
func TestSuites(t *testing.T) {
	a := newAttack(t)
	t.Run("JSONTestSuite", a.jsonSuite)
	t.Run("Wycheproof JWS", a.wycheproofJWS)
	t.Run("Wycheproof JWK", a.wycheproofJWK)
	t.Run("Wycheproof Ed25519", a.wycheproofEd25519)
	a.healthy(t)
}

func fixture(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", path))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
}

// place is where JSON of a stranger stands beside JSON of ours. send
// sends text there and says whether the server took it.
type place struct {
	name string
	// asDouble: the MCP library makes a double of every number.
	asDouble bool
	send     func(t *testing.T, text string) (taken bool, got reply)
}

// tooLarge are numbers for which there is no double. They are well-formed JSON;
// what would make an infinity or zero of them refuses them instead.
var tooLarge = map[string]bool{
	"i_number_huge_exp.json": true, "i_number_neg_int_huge_exp.json": true, "i_number_pos_double_huge_exp.json": true,
	"i_number_real_neg_overflow.json": true, "i_number_real_pos_overflow.json": true,
}

// jsonSuite: what is well-formed is taken as a member that nobody knows, and
// everything else is refused: n_ always, y_ and i_ as jcs/testdata/verdicts.json
// has decided.
func (a *attack) jsonSuite(t *testing.T) {
	var decided struct {
		Verdicts map[string]string `json:"verdicts"`
	}
	fixture(t, "jcs/testdata/verdicts.json", &decided)
	files, err := filepath.Glob("../jcs/testdata/jsontestsuite/test_parsing/*.json")
	if err != nil || len(files) < 300 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	agent := a.agent.signedIn("kavach:verify", nil).Access
	taken := map[string]int{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name, text := filepath.Base(file), string(raw)
		accept := name[0] == 'y'
		if verdict := decided.Verdicts[name]; verdict != "" {
			accept = verdict == "accept"
		}
		for _, s := range a.places(agent) {
			ok, got := s.send(t, text)
			if want := accept && !(s.asDouble && tooLarge[name]); ok != want {
				t.Errorf("%s in %s: taken %v, want %v: %d %.200s", name, s.name, ok, want, got.status, got.body)
			}
			if ok {
				taken[s.name]++
			}
		}
		a.wholly(t, name, text)
	}
	for _, s := range a.places(agent) {
		if taken[s.name] < 80 {
			t.Errorf("%s took %d files: it does not read them", s.name, taken[s.name])
		}
	}
}

// with puts text into an object, as the last member.
func with(object map[string]any, text string) string {
	return strings.TrimSuffix(encode(object), "}") + `,"x":` + text + "}"
}

func (a *attack) places(bound string) []place {
	claims := func() map[string]any {
		now := time.Now().Unix()
		return map[string]any{"iss": a.keyed.ID, "sub": a.keyed.ID, "aud": a.Issuer, "jti": rand.Text(), "iat": now, "exp": now + 60}
	}
	header := encode(map[string]any{"typ": "JWT", "alg": "ES256"})
	proof := func(key signingKey, target, token, text string) string {
		body := map[string]any{"jti": rand.Text(), "htm": "POST", "htu": target, "iat": time.Now().Unix()}
		if token != "" {
			body["ath"] = hashed(token)
		}
		return key.signText(encode(map[string]any{"typ": "dpop+jwt", "alg": key.alg(), "jwk": key.jwk()}), with(body, text))
	}
	grant := func(t *testing.T, assertion string, pairs ...string) reply {
		t.Helper()
		return a.form(t, "/oauth/token", url.Values{
			"grant_type": {"client_credentials"}, "client_assertion_type": {assertionType}, "client_assertion": {assertion},
		}.Encode(), pairs...)
	}
	bearer := []string{"Authorization", "Bearer " + a.machine, "Content-Type", "application/json", "Accept", "application/json, text/event-stream", "MCP-Protocol-Version", "2025-11-25"}
	result := func(got reply) bool {
		return got.status == http.StatusOK && strings.Contains(got.body, `"structuredContent"`)
	}
	return []place{
		{"an assertion's claims", false, func(t *testing.T, text string) (bool, reply) {
			got := grant(t, a.keyed.Key.signText(header, with(claims(), text)))
			return got.status == http.StatusOK, got
		}},
		{"an assertion's header", false, func(t *testing.T, text string) (bool, reply) {
			got := grant(t, a.keyed.Key.signText(with(map[string]any{"typ": "JWT", "alg": "ES256"}, text), encode(claims())))
			return got.status == http.StatusOK, got
		}},
		{"a proof's claims at the token endpoint", false, func(t *testing.T, text string) (bool, reply) {
			got := grant(t, a.keyed.Key.assertion(a.keyed.ID, a.Issuer), "DPoP", proof(a.keyed.Holder, a.keyed.tokenEndpoint(), "", text))
			return got.status == http.StatusOK, got
		}},
		{"a proof's claims at /mcp", false, func(t *testing.T, text string) (bool, reply) {
			got := a.rpc(t, "verify", `{"token":"x","audience":"`+a.Issuer+`/mcp"}`, "Authorization", "DPoP "+bound, "DPoP", proof(a.agent.Holder, a.Issuer+"/mcp", bound, text))
			return result(got), got
		}},
		{"_meta at /mcp", true, func(t *testing.T, text string) (bool, reply) {
			got := a.send(t, "POST", "/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"verify","arguments":{"token":"x","audience":"`+a.Issuer+`/mcp"},"_meta":{"x":`+text+`}}}`, bearer...)
			return result(got), got
		}},
		{"arguments at /mcp", true, func(t *testing.T, text string) (bool, reply) {
			got := a.send(t, "POST", "/mcp", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"verify","arguments":{"token":"x","audience":"`+a.Issuer+`/mcp","request":{"tool":"t","arguments":{"x":`+text+`}}}}}`, bearer...)
			return result(got), got
		}},
	}
}

// wholly puts text where a whole document of another shape is wanted.
func (a *attack) wholly(t *testing.T, name, text string) {
	t.Helper()
	agent := a.agent
	for _, parameter := range []string{"req_cnf", "authorization_details"} {
		values := agent.authenticated(url.Values{"grant_type": {exchangeGrant}, "subject_token": {a.machine}, "subject_token_type": {accessType}, parameter: {text}})
		if got := a.form(t, "/oauth/token", values.Encode()); got.status < 400 {
			t.Errorf("%s as %s: %d %s", name, parameter, got.status, got.body)
		}
	}
	if got := a.registration(t, text); got.status != http.StatusBadRequest && (got.status != http.StatusRequestEntityTooLarge || len(text) <= 64<<10) {
		t.Errorf("%s as a registration: %d %s", name, got.status, got.body)
	}
	got := a.send(t, "POST", "/mcp", text, "Authorization", "Bearer "+a.machine, "Content-Type", "application/json", "Accept", "application/json, text/event-stream", "MCP-Protocol-Version", "2025-11-25")
	if strings.Contains(got.body, `"result"`) {
		t.Errorf("%s as a message: %d %s", name, got.status, got.body)
	}
	// As header and claims of a token, of an assertion and of a proof.
	forged := base64url([]byte(text)) + "." + base64url([]byte(text)) + "." + base64url(make([]byte, 64))
	if len(forged) > 8192 {
		return
	}
	wantChallenge(t, name+" as a token", a.rpc(t, "verify", `{"token":"x"}`, "Authorization", "Bearer "+forged))
	wantOAuth(t, name+" as an assertion", a.authenticate(t, "/oauth/token", forged), http.StatusUnauthorized, "invalid_client")
	refused, err := agent.ask(agent.authenticated(url.Values{"grant_type": {"client_credentials"}}), forged)
	if err != nil || refused.Status != http.StatusBadRequest || refused.Error != "invalid_dpop_proof" {
		t.Errorf("%s as a proof: %v %d %s", name, err, refused.Status, refused.Error)
	}
}

// wycheproofJWS: none of these is a token, an assertion, a card or a proof of
// ours, whatever key a client registered.
func (a *attack) wycheproofJWS(t *testing.T) {
	type group struct {
		Public, Private json.RawMessage
		Tests           []struct {
			TcID int
			JWS  string
		}
	}
	sent, registered := 0, 0
	for _, name := range []string{"json_web_signature_test.json", "json_web_key_test.json"} {
		var file struct{ TestGroups []group }
		fixture(t, "agent/testdata/"+name, &file)
		for _, g := range file.TestGroups {
			client := ""
			if name == "json_web_signature_test.json" && g.Public != nil {
				if client, _ = a.registeredKeys(t, `{"keys":[`+string(g.Public)+`]}`); client != "" {
					registered++
				}
			}
			for _, test := range g.Tests {
				a.noToken(t, name, test.TcID, test.JWS, client)
				sent++
			}
		}
	}
	if sent < 420 || registered == 0 {
		t.Errorf("only %d, and keys of %d groups are a client's", sent, registered)
	}
}

func (a *attack) noToken(t *testing.T, file string, id int, jws, client string) {
	t.Helper()
	pairs := []string{}
	if client != "" {
		pairs = []string{"client_id", client}
	}
	wantOAuth(t, file, a.authenticate(t, "/oauth/token", jws, pairs...), http.StatusUnauthorized, "invalid_client")
	for _, parameter := range []string{"subject_token", "actor_token"} {
		values := url.Values{"grant_type": {exchangeGrant}, "subject_token": {a.machine}, "subject_token_type": {accessType}, "actor_token_type": {cardType}}
		values.Set(parameter, jws)
		got := a.form(t, "/oauth/token", a.agent.authenticated(values).Encode())
		if got.status != http.StatusBadRequest {
			t.Errorf("%s %d as %s: %d %s", file, id, parameter, got.status, got.body)
		}
	}
	if strings.ContainsAny(jws, "\r\n\x00") {
		return // no header can carry it
	}
	for _, scheme := range []string{"Bearer ", "DPoP "} {
		got := a.rpc(t, "verify", `{"token":"x"}`, "Authorization", scheme+jws)
		if got.status != http.StatusUnauthorized {
			t.Errorf("%s %d as %sat /mcp: %d %s", file, id, scheme, got.status, got.body)
		}
	}
	if refused, err := a.agent.ask(a.agent.authenticated(url.Values{"grant_type": {"client_credentials"}}), jws); jws != "" && (err != nil || refused.Status != http.StatusBadRequest) {
		t.Errorf("%s %d as a proof: %v %d %s", file, id, err, refused.Status, refused.Error)
	}
}

// registration registers from an address of its own: each may a few times a
// minute.
func (a *attack) registration(t *testing.T, body string) reply {
	t.Helper()
	var host [2]byte
	_, _ = rand.Read(host[:])
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 99, host[0], 1+host[1]%254)}}
	request, err := http.NewRequestWithContext(t.Context(), "POST", a.Issuer+"/oauth/register", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	return do(t, &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}, request)
}

// registeredKeys registers a client with a key set; "" if it was refused.
func (a *attack) registeredKeys(t *testing.T, jwks string) (client string, status int) {
	t.Helper()
	got := a.registration(t, `{"redirect_uris":["https://client.example/cb"],"token_endpoint_auth_method":"private_key_jwt","jwks":`+jwks+`}`)
	switch got.status {
	case http.StatusCreated:
		return got.text(t, "client_id"), got.status
	case http.StatusBadRequest:
	default:
		t.Errorf("registering %.80s: %d %s", jwks, got.status, got.body)
	}
	return "", got.status
}

// wycheproofJWK: a set with a symmetric or a private key is no client's, and a
// key of another algorithm binds nothing.
func (a *attack) wycheproofJWK(t *testing.T) {
	type jwk struct{ Kty, Crv, D, K string }
	var file struct {
		TestGroups []struct {
			Comment         string
			Public, Private struct{ Keys []json.RawMessage }
		}
	}
	fixture(t, "agent/testdata/json_web_key_test.json", &file)
	for _, g := range file.TestGroups {
		list := g.Public.Keys
		if list == nil {
			list = g.Private.Keys
		}
		secret := false
		for _, raw := range list {
			var key jwk
			if err := json.Unmarshal(raw, &key); err != nil {
				t.Fatal(err)
			}
			secret = secret || key.D != "" || key.K != "" || key.Kty == "oct"
			supported := key.Kty == "EC" && key.Crv == "P-256" || key.Kty == "OKP" && key.Crv == "Ed25519"
			values := a.agent.authenticated(url.Values{"grant_type": {exchangeGrant}, "subject_token": {a.machine}, "subject_token_type": {accessType}, "req_cnf": {`{"jwk":` + string(raw) + `}`}})
			if got := a.form(t, "/oauth/token", values.Encode()); got.status < 400 && (!supported || key.D != "") {
				t.Errorf("%s: req_cnf of %.60s: %d %s", g.Comment, raw, got.status, got.body)
			}
		}
		keys, _ := json.Marshal(map[string]any{"keys": list})
		client, _ := a.registeredKeys(t, string(keys))
		if client != "" && secret {
			t.Errorf("%s: a set with a secret key was registered", g.Comment)
		}
	}
}

// wycheproofEd25519: every public key is one that a client may have, and no
// signature of the file, valid or not, is one over what we ask for.
func (a *attack) wycheproofEd25519(t *testing.T) {
	var file struct {
		TestGroups []struct {
			PublicKeyJWK map[string]any
			Tests        []struct {
				TcID int
				Sig  string
			}
		}
	}
	fixture(t, "agent/testdata/ed25519_test.json", &file)
	sent := 0
	for _, g := range file.TestGroups {
		public := maps.Clone(g.PublicKeyJWK)
		delete(public, "kid")
		client, status := a.registeredKeys(t, encode(map[string]any{"keys": []any{public}}))
		if client == "" {
			t.Errorf("a good key is refused: %d", status)
			continue
		}
		for _, test := range g.Tests {
			signature, err := hex.DecodeString(test.Sig)
			if err != nil {
				t.Fatal(err)
			}
			assertion := newEd25519().assertion(client, a.Issuer)
			assertion = assertion[:strings.LastIndexByte(assertion, '.')+1] + base64url(signature)
			wantOAuth(t, "a signature of the file", a.authenticate(t, "/oauth/token", assertion), http.StatusUnauthorized, "invalid_client")
			proof := a.agent.Holder.proof("POST", a.agent.tokenEndpoint(), "", setHeader("jwk", public))
			proof = proof[:strings.LastIndexByte(proof, '.')+1] + base64url(signature)
			refused, err := a.agent.ask(a.agent.authenticated(url.Values{"grant_type": {"client_credentials"}}), proof)
			if err != nil || refused.Status != http.StatusBadRequest || refused.Error != "invalid_dpop_proof" {
				t.Errorf("%d as a proof: %v %d %s", test.TcID, err, refused.Status, refused.Error)
			}
			sent++
		}
	}
	if sent < 140 {
		t.Errorf("only %d", sent)
	}
}
