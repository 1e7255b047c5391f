package e2e

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// bySigned sends a form to the token endpoint with proofs, each in a header of
// its own.
func (a *attack) bySigned(t *testing.T, values url.Values, proofs ...string) reply {
	t.Helper()
	var pairs []string
	for _, p := range proofs {
		pairs = append(pairs, "DPoP", p)
	}
	return a.form(t, "/oauth/token", values.Encode(), pairs...)
}

// tokenProof is a proof of a key for the token endpoint.
func (a *attack) tokenProof(key signingKey, changes ...change) string {
	return key.proof("POST", a.Issuer+"/oauth/token", "", changes...)
}

// Where the list of attacks stops: keys that clients sign in with and that bind
// what they get.
var agentAttacks = []attackRow{
	{"A-109 a code that is bound by dpop_jkt", func(t *testing.T, a *attack) {
		key, other := newEd25519(), newES256()
		jkt := key.thumbprint()
		for _, bad := range []string{"x", jkt + "x", jkt[:42], jkt[:42] + "=", strings.Repeat("a", 4000), "../" + jkt[3:], jkt + " ", `{"jwk":{}}`} {
			a.wantRedirect(t, bad, a.ask(t, a.public, a.dev, url.Values{"dpop_jkt": {bad}}), a.public, "invalid_request")
		}
		a.wantRedirect(t, "two", a.ask(t, a.public, a.dev, url.Values{"dpop_jkt": {jkt, other.thumbprint()}}), a.public, "invalid_request")
		// Over the login and consent pages, whose forms somebody tampers with, and
		// with a consent that is remembered.
		for name, c := range map[string]*oauthClient{"first time": register(t, a.Issuer), "remembered": a.public} {
			who := a.dev
			if name == "first time" {
				who = newPerson(t, "dev", "dev")
			}
			r := c.request("kavach:verify", url.Values{"dpop_jkt": {jkt}})
			back, err := who.authorize(r.url, choice{forge: url.Values{"dpop_jkt": {other.thumbprint()}, "jkt": {""}}})
			if err != nil {
				t.Fatal(err)
			}
			good := url.Values{"grant_type": {"authorization_code"}, "client_id": {c.ID}, "redirect_uri": {c.Redirect}, "code": {back.Query().Get("code")}, "code_verifier": {r.verifier}}
			wantOAuth(t, name+", no proof", a.bySigned(t, good), 400, "invalid_grant")
			wantOAuth(t, name+", another key", a.bySigned(t, good, a.tokenProof(other)), 400, "invalid_grant")
			more := maps.Clone(good)
			more.Set("dpop_jkt", other.thumbprint())
			wantOAuth(t, name+", another dpop_jkt", a.bySigned(t, more, a.tokenProof(other)), 400, "invalid_grant")
			wantOAuth(t, name+", two proofs", a.bySigned(t, good, a.tokenProof(key), a.tokenProof(other)), 400, "invalid_dpop_proof")
			wantOAuth(t, name+", empty proof", a.bySigned(t, good, ""), 400, "invalid_dpop_proof")
			got := a.bySigned(t, good, a.tokenProof(key))
			if got.status != http.StatusOK || got.json(t)["token_type"] != "DPoP" {
				t.Errorf("%s: the right key: %d %s", name, got.status, got.body)
			}
			bound := got.text(t, "access_token")
			wantChallenge(t, name+", bound as Bearer", a.rpc(t, "verify", `{}`, "Authorization", "Bearer "+bound))
			// A thief of the used code without its key ends nothing.
			wantOAuth(t, name+", used", a.bySigned(t, good, a.tokenProof(other)), 400, "invalid_grant")
			refresh := url.Values{"grant_type": {"refresh_token"}, "client_id": {c.ID}, "refresh_token": {got.text(t, "refresh_token")}}
			if again := a.bySigned(t, refresh, a.tokenProof(key)); again.status != http.StatusOK {
				t.Errorf("%s: the family died: %d %s", name, again.status, again.body)
			}
		}
	}},
	{"A-109 a refresh token that is bound", func(t *testing.T, a *attack) {
		key, other := newES256(), newEd25519()
		p := a.code(t, a.public, nil)
		got := a.bySigned(t, p.good, a.tokenProof(key))
		if got.status != http.StatusOK {
			t.Fatalf("%d %s", got.status, got.body)
		}
		form := url.Values{"grant_type": {"refresh_token"}, "client_id": {a.public.ID}}
		for range 2 { // the successor is bound as its predecessor
			form.Set("refresh_token", got.text(t, "refresh_token"))
			a.secrets = append(a.secrets, form.Get("refresh_token"))
			wantOAuth(t, "no proof", a.bySigned(t, form), 400, "invalid_grant")
			wantOAuth(t, "another key", a.bySigned(t, form, a.tokenProof(other)), 400, "invalid_grant")
			wantOAuth(t, "proof of the wrong method", a.bySigned(t, form, a.tokenProof(key, set("htm", "GET"))), 400, "invalid_dpop_proof")
			wantOAuth(t, "proof for the resource", a.bySigned(t, form, key.proof("POST", a.Issuer+"/mcp", "")), 400, "invalid_dpop_proof")
			wantOAuth(t, "proof for another server", a.form(t, "/oauth/token", form.Encode(), "Host", "evil.example", "DPoP", key.proof("POST", "http://evil.example/oauth/token", "")), 400, "invalid_dpop_proof")
			wantOAuth(t, "another's jwk", a.bySigned(t, form, other.proof("POST", a.Issuer+"/oauth/token", "", setHeader("jwk", key.jwk()), setHeader("alg", key.alg()))), 400, "invalid_dpop_proof")
			proof := a.tokenProof(key)
			next := a.bySigned(t, form, proof)
			if next.status != http.StatusOK || next.json(t)["token_type"] != "DPoP" {
				t.Fatalf("the right key: %d %s", next.status, next.body)
			}
			form.Set("refresh_token", next.text(t, "refresh_token"))
			wantOAuth(t, "the proof again", a.bySigned(t, form, proof), 400, "invalid_dpop_proof")
			got = next
		}
		// Who has no binding may take one on; what is bound then stays bound.
		plain := a.public.signIn(a.dev, "kavach:verify", choice{})
		form.Set("refresh_token", plain.Refresh)
		up := a.bySigned(t, form, a.tokenProof(key))
		if up.status != http.StatusOK || up.json(t)["token_type"] != "DPoP" {
			t.Fatalf("binding at refresh: %d %s", up.status, up.body)
		}
		form.Set("refresh_token", up.text(t, "refresh_token"))
		wantOAuth(t, "and back", a.bySigned(t, form), 400, "invalid_grant")
		wantOAuth(t, "and another key", a.bySigned(t, form, a.tokenProof(other)), 400, "invalid_grant")
	}},
	{"proofs that hold for no request", func(t *testing.T, a *attack) {
		who := a.agent
		ask := url.Values{"grant_type": {"client_credentials"}}
		endpoint := who.tokenEndpoint()
		for name, changes := range map[string][]change{
			"no jti": {set("jti", nil)}, "empty jti": {set("jti", "")}, "long jti": {set("jti", strings.Repeat("j", 1000))}, "no htm": {set("htm", nil)}, "no htu": {set("htu", nil)},
			"post": {set("htm", "post")}, "introspection": {set("htu", a.Issuer+"/oauth/introspect")}, "issuer": {set("htu", a.Issuer)},
			"userinfo": {set("htu", strings.Replace(endpoint, "//", "//user@", 1))}, "slash": {set("htu", endpoint+"/")}, "https": {set("htu", strings.Replace(endpoint, "http:", "https:", 1))},
			"no port": {set("htu", "http://127.0.0.1/oauth/token")}, "relative": {set("htu", "/oauth/token")}, "list": {set("htu", []string{endpoint})}, "ath of nothing": {set("ath", hashed("x"))},
			"ath of the assertion": {set("ath", hashed(who.Key.assertion(who.ID, a.Issuer)))}, "kid": {setHeader("kid", who.ID)}, "private key": {setHeader("jwk", who.Holder.private())},
			"symmetric": {setHeader("jwk", map[string]any{"kty": "oct", "k": "AAAA"})}, "no jwk": {setHeader("jwk", nil)}, "typ": {setHeader("typ", "DPoP+JWT")},
			"small order": {setHeader("jwk", map[string]any{"kty": "OKP", "crv": "Ed25519", "x": base64url(append([]byte{1}, make([]byte, 31)...))})},
		} {
			wantOAuth(t, name, a.bySigned(t, who.authenticated(ask), a.tokenProof(who.Holder, changes...)), 400, "invalid_dpop_proof")
		}
		good := a.tokenProof(who.Holder)
		for name, text := range map[string]string{"twice in one header": good + "," + a.tokenProof(who.Holder), "quoted": `"` + good + `"`, "scheme": "DPoP " + good, "chain": good + "~" + good} {
			wantOAuth(t, name, a.bySigned(t, who.authenticated(ask), text), 400, "invalid_dpop_proof")
		}
		// In the body or the query it is no proof: the token is not bound by it.
		in := who.authenticated(ask)
		in.Set("dpop", good)
		if got := a.form(t, "/oauth/token?DPoP="+good, in.Encode()); got.status != http.StatusOK || got.json(t)["token_type"] != "Bearer" {
			t.Errorf("elsewhere: %d %s", got.status, got.body)
		}
		if got := a.bySigned(t, who.authenticated(ask), good); got.status != http.StatusOK || got.json(t)["token_type"] != "DPoP" {
			t.Errorf("after all that: %d %s", got.status, got.body)
		}
	}},
	{"jti in other spellings", func(t *testing.T, a *attack) {
		who := a.keyed
		header := encode(map[string]any{"alg": who.Key.alg(), "typ": "JWT"})
		claims := func(jti string) string {
			text := encode(decodePart(strings.Split(who.Key.assertion(who.ID, a.Issuer, set("jti", nil)), ".")[1]))
			return text[:len(text)-1] + `,"jti":` + jti + `}`
		}
		wantKnown(t, "first", a.authenticate(t, "/oauth/token", who.Key.signText(header, claims(`"spelled"`))))
		for _, jti := range []string{`"spelled"`, `"\u0073pelled"`, `"spel\u006ced"`, ` "spelled" `} {
			a.wantNobody(t, jti, who.Key.signText(header, claims(jti)))
		}
		// The signature is not what makes it the same: ES256 makes another each time.
		wantKnown(t, "another", a.authenticate(t, "/oauth/token", who.Key.signText(header, claims(`"spelleD"`))))
	}},
	{"agents by other grants than theirs", func(t *testing.T, a *attack) {
		who := a.agent
		for name, values := range map[string]url.Values{
			"code":    {"grant_type": {"authorization_code"}, "code": {"x"}, "redirect_uri": {"https://client.example/cb"}, "code_verifier": {strings.Repeat("a", 43)}},
			"refresh": {"grant_type": {"refresh_token"}, "refresh_token": {a.tokens.Refresh}},
		} {
			wantOAuth(t, name, a.bySigned(t, who.authenticated(values), who.proof("")), 400, "unauthorized_client")
		}
		for name, values := range map[string]url.Values{
			"password": {"grant_type": {"password"}, "username": {"dev"}, "password": {"dev"}}, "jwt bearer": {"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {who.Key.assertion(who.ID, a.Issuer)}},
		} {
			wantOAuth(t, name, a.bySigned(t, who.authenticated(values), who.proof("")), 400, "unsupported_grant_type")
		}
		wantPage(t, "agent at the authorization endpoint", a.ask(t, a.web, a.dev, url.Values{"client_id": {who.ID}}))
		if !alive(t, a.Issuer, a.tokens.Access) {
			t.Error("an agent with a person's refresh token ended the family")
		}
		// Clients that registered themselves have nothing of their own.
		registered := a.registeredWithKey(t, newEd25519())
		wantOAuth(t, "registered", a.bySigned(t, registered.authenticated(url.Values{"grant_type": {"client_credentials"}}), registered.proof("")), 400, "unauthorized_client")
		wantOAuth(t, "registered, exchange", a.bySigned(t, registered.authenticated(url.Values{"grant_type": {exchangeGrant}, "subject_token": {a.tokens.Access}, "subject_token_type": {accessType}}), registered.proof("")), 400, "unauthorized_client")
		wantOAuth(t, "registered, introspection", a.form(t, "/oauth/introspect", registered.authenticated(url.Values{"token": {a.machine}}).Encode()), 400, "unauthorized_client")
	}},
	{"what an agent asks for of itself", func(t *testing.T, a *attack) {
		who := a.agent
		for name, c := range map[string]struct {
			more url.Values
			code string
		}{
			"scope of operators": {url.Values{"scope": {"kavach:admin"}}, "invalid_scope"}, "scope of the log": {url.Values{"scope": {"audit:write"}}, "invalid_scope"},
			"other case": {url.Values{"scope": {"KAVACH:VERIFY"}}, "invalid_scope"}, "any": {url.Values{"scope": {"*"}}, "invalid_scope"},
			"unknown resource": {url.Values{"resource": {"https://evil.example"}}, "invalid_target"}, "one of two": {url.Values{"resource": {a.Issuer + "/mcp", "https://evil.example"}}, "invalid_target"},
			"depth 9": {url.Values{"del_max_depth": {"9"}}, "invalid_request"}, "depth -1": {url.Values{"del_max_depth": {"-1"}}, "invalid_request"}, "depth 08": {url.Values{"del_max_depth": {"08"}}, "invalid_request"},
			"depth twice": {url.Values{"del_max_depth": {"1", "8"}}, "invalid_request"}, "depth 1e1": {url.Values{"del_max_depth": {"1e1"}}, "invalid_request"},
			"details":                      {url.Values{"authorization_details": {`[{"type":"kavach_limits"}]`}}, "invalid_authorization_details"},
			"a key that it does not prove": {url.Values{"req_cnf": {cnf(newES256())}}, "invalid_request"},
		} {
			values := url.Values{"grant_type": {"client_credentials"}}
			maps.Copy(values, c.more)
			wantOAuth(t, name, a.bySigned(t, who.authenticated(values), who.proof("")), 400, c.code)
		}
		// Whatever else is asked, the token says what was granted and who asked.
		got := who.signedIn("kavach:verify kavach:delegate kavach:admin agents:manage", url.Values{
			"sub": {"dev"}, "act": {`{"sub":"dev"}`}, "aud": {"https://evil.example"}, "cnf": {cnf(newES256())}, "gid": {"g"}, "del_max_depth": {"8"},
			"username": {"dev"}, "requested_expires_in": {"99999"}, "audience": {"https://evil.example"},
		})
		claims := decodePart(strings.Split(got.Access, ".")[1])
		confirmed, _ := claims["cnf"].(map[string]any)
		depth, _ := claims["del_max_depth"].(float64)
		if claims["sub"] != who.ID || claims["client_id"] != who.ID || claims["act"] != nil || got.Scope != "kavach:delegate kavach:verify" || confirmed["jkt"] != who.Holder.thumbprint() ||
			depth > 3 || got.ExpiresIn > 300 || strings.Contains(encode(claims), "evil") {
			t.Errorf("%s, %v", got.Scope, claims)
		}
	}},
	{"clients that get bound tokens only", func(t *testing.T, a *attack) {
		var answer credential
		back := "https://client.example/bound"
		if status := a.public.postJSON("/oauth/register", map[string]any{"redirect_uris": []string{back}, "token_endpoint_auth_method": "none", "grant_types": []string{"authorization_code", "refresh_token"}, "dpop_bound_access_tokens": true}, &answer); status != http.StatusCreated {
			t.Fatalf("registering: %d", status)
		}
		p := a.code(t, &oauthClient{t: t, issuer: a.Issuer, ID: answer.ID, Redirect: back}, nil)
		wantOAuth(t, "code without a proof", a.bySigned(t, p.good), 400, "invalid_dpop_proof")
		key := newEd25519()
		got := a.bySigned(t, p.good, a.tokenProof(key))
		if got.status != http.StatusOK || got.json(t)["token_type"] != "DPoP" {
			t.Fatalf("%d %s", got.status, got.body)
		}
		refresh := url.Values{"grant_type": {"refresh_token"}, "client_id": {answer.ID}, "refresh_token": {got.text(t, "refresh_token")}}
		wantOAuth(t, "refresh without a proof", a.bySigned(t, refresh), 400, "invalid_dpop_proof")
		if again := a.bySigned(t, refresh, a.tokenProof(key)); again.status != http.StatusOK {
			t.Errorf("%d %s", again.status, again.body)
		}
		// An operator's: neither of itself nor by exchange.
		var static credential
		if err := json.Unmarshal([]byte(a.cli("", "client", "add", "bound-only", "--dpop", "--scope", "kavach:verify", "--json")), &static); err != nil {
			t.Fatal(err)
		}
		authorization := []string{"Authorization", basic(static.ID, static.Secret)}
		wantOAuth(t, "credentials", a.form(t, "/oauth/token", "grant_type=client_credentials", authorization...), 400, "invalid_dpop_proof")
		held := a.form(t, "/oauth/token", "grant_type=client_credentials", append(authorization, "DPoP", a.tokenProof(key))...)
		if held.status != http.StatusOK {
			t.Fatalf("%d %s", held.status, held.body)
		}
		exchange := url.Values{"grant_type": {exchangeGrant}, "subject_token": {held.text(t, "access_token")}, "subject_token_type": {accessType}}
		wantOAuth(t, "exchange", a.form(t, "/oauth/token", exchange.Encode(), authorization...), 400, "invalid_dpop_proof", "invalid_request")
	}},
	{"keys at registration", func(t *testing.T, a *attack) {
		address, hits := canary(t)
		key := newES256()
		private, rsa := key.private(), map[string]any{"kty": "RSA", "n": "AAAA", "e": "AQAB"}
		for name, more := range map[string]map[string]any{
			"none": {}, "empty": {"jwks": map[string]any{"keys": []any{}}}, "uri": {"jwks_uri": address}, "both": {"jwks": map[string]any{"keys": []any{key.jwk()}}, "jwks_uri": address},
			"private": {"jwks": map[string]any{"keys": []any{private}}}, "RSA": {"jwks": map[string]any{"keys": []any{rsa}}}, "secret": {"jwks": map[string]any{"keys": []any{map[string]any{"kty": "oct", "k": "AAAA"}}}},
			"one bad": {"jwks": map[string]any{"keys": []any{key.jwk(), rsa}}}, "nine": {"jwks": map[string]any{"keys": []any{key.jwk(), key.jwk(), key.jwk(), key.jwk(), key.jwk(), key.jwk(), key.jwk(), key.jwk(), key.jwk()}}},
			"off the curve": {"jwks": map[string]any{"keys": []any{map[string]any{"kty": "EC", "crv": "P-256", "x": key.jwk()["x"], "y": key.jwk()["x"]}}}}, "text": {"jwks": "x"}, "list": {"jwks": []any{key.jwk()}},
		} {
			body := map[string]any{"redirect_uris": []string{"https://client.example/cb"}, "token_endpoint_auth_method": "private_key_jwt"}
			maps.Copy(body, more)
			wantOAuth(t, name, a.send(t, "POST", "/oauth/register", encode(body), "Content-Type", "application/json"), 400, "invalid_client_metadata")
		}
		if n := hits.Load(); n != 0 {
			t.Errorf("the server fetched jwks_uri %d times", n)
		}
	}},
}
