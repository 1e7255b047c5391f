package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// Client authentication.
var clientAttacks = []attackRow{
	{"A-41 another method than the registered one", func(t *testing.T, a *attack) {
		const grant = "grant_type=client_credentials"
		inBody := func(c credential) string {
			return grant + "&" + url.Values{"client_id": {c.ID}, "client_secret": {c.Secret}}.Encode()
		}
		wantOAuth(t, "basic as post", a.form(t, "/oauth/token", inBody(a.static)), 401, "invalid_client")
		got := a.form(t, "/oauth/token", grant, "Authorization", basic(a.post.ID, a.post.Secret))
		wantOAuth(t, "post as basic", got, 401, "invalid_client")
		if !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Basic ") {
			t.Errorf("no challenge: %v", got.header)
		}
		wantOAuth(t, "none", a.form(t, "/oauth/token", grant+"&client_id="+a.static.ID), 401, "invalid_client")
		wantOAuth(t, "public with a secret", a.form(t, "/oauth/token", "grant_type=refresh_token&refresh_token=x&client_secret=x&client_id="+a.public.ID), 401, "invalid_client")
		wantOAuth(t, "both", a.form(t, "/oauth/token", inBody(a.static), "Authorization", basic(a.static.ID, a.static.Secret)), 400, "invalid_request")
		wantOAuth(t, "another id", a.form(t, "/oauth/token", grant+"&client_id="+a.public.ID, "Authorization", basic(a.static.ID, a.static.Secret)), 401, "invalid_client")
		wantOAuth(t, "two headers", a.form(t, "/oauth/token", grant, "Authorization", basic(a.static.ID, a.static.Secret), "Authorization", "Basic eDp5"), 401, "invalid_client")
		for _, secret := range []string{"", a.static.Secret + "x", a.static.Secret[:len(a.static.Secret)-1], strings.Repeat("x", 10<<10), "\x00", "\xff", "' OR 1=1--"} {
			wantOAuth(t, "secret", a.form(t, "/oauth/token", grant, "Authorization", basic(a.static.ID, secret)), 401, "invalid_client")
		}
		wantOAuth(t, "assertion", a.form(t, "/oauth/token", grant+"&client_id="+a.static.ID+"&client_assertion=x&client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer"), 401, "invalid_client")
	}},
}

// forge makes a token of any header and claims. Without a signer its signature
// is made by an attacker's own ES256 key.
func forge(header, claims string) string {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	signed := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	sum := sha256.Sum256([]byte(signed))
	r, s, _ := ecdsa.Sign(rand.Reader, key, sum[:])
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func decodePart(part string) map[string]any {
	raw, _ := base64.RawURLEncoding.DecodeString(part)
	var out map[string]any
	_ = json.Unmarshal(raw, &out)
	return out
}

// notAccepted: neither /mcp nor introspection nor token exchange takes it for a
// token, nor does the tool that verifies.
func (a *attack) notAccepted(t *testing.T, what, token string) {
	t.Helper()
	wantChallenge(t, what, a.rpc(t, "verify", `{}`, "Authorization", "Bearer "+token))
	got := a.form(t, "/oauth/introspect", url.Values{"token": {token}}.Encode(), "Authorization", basic(a.static.ID, a.static.Secret))
	if got.status != http.StatusOK || strings.TrimSpace(got.body) != `{"active":false}` {
		t.Errorf("%s: introspection says %d %s", what, got.status, got.body)
	}
	subject := url.Values{"grant_type": {exchangeGrant}, "subject_token": {token}, "subject_token_type": {accessType}}
	wantOAuth(t, what, a.form(t, "/oauth/token", subject.Encode(), "Authorization", basic(a.static.ID, a.static.Secret)), 400, "invalid_request")
	argument, _ := json.Marshal(map[string]any{"token": token, "audience": a.Issuer + "/mcp"})
	if got := a.rpc(t, "verify", string(argument), "Authorization", "Bearer "+a.machine); got.status != http.StatusOK || strings.Contains(got.body, `"valid":true`) {
		t.Errorf("%s: the tool says %d %s", what, got.status, got.body)
	}
}

// JWT and JOSE.
var forgeries = []attackRow{
	{"A-51 A-53 alg", func(t *testing.T, a *attack) {
		part := strings.Split(a.machine, ".")
		missing := decodePart(part[0])
		delete(missing, "alg")
		a.notAccepted(t, "no alg", base64url([]byte(encode(missing)))+"."+part[1]+"."+part[2])
		for _, alg := range []any{"none", "None", "NONE", "nOnE", "", []string{}, 0, nil, "HS256", "RS256", "PS256", "ES384", "EdDSA", "ES256K", "RSA-OAEP"} {
			header := decodePart(part[0])
			header["alg"] = alg
			text, _ := json.Marshal(header)
			encoded := base64.RawURLEncoding.EncodeToString(text)
			for _, signature := range []string{"", part[2]} {
				a.notAccepted(t, fmt.Sprint(alg), encoded+"."+part[1]+"."+signature)
			}
			a.notAccepted(t, fmt.Sprint(alg), encoded+"."+part[1])
		}
	}},
	{"A-46 A-53 HS256 over the server's public keys", func(t *testing.T, a *attack) {
		var set struct {
			Keys []map[string]any `json:"keys"`
		}
		getJSON(t, a.Issuer+"/.well-known/jwks.json", &set)
		part := strings.Split(a.machine, ".")
		for _, key := range set.Keys {
			text := [][]byte{[]byte(encode(key))}
			for _, name := range []string{"x", "n"} {
				if member, ok := key[name].(string); ok {
					text = append(text, []byte(member), unbase64(member))
				}
			}
			for _, secret := range text {
				header := decodePart(part[0])
				header["kid"] = key["kid"]
				a.notAccepted(t, "HS256", hs256(header, string(unbase64(part[1])), secret))
			}
		}
	}},
	{"A-54 A-55 keys in the header", func(t *testing.T, a *attack) {
		t.Log("left out: kids of retired keys and of the checkpoint key, which do not exist yet")
		part := strings.Split(a.machine, ".")
		claims, _ := base64.RawURLEncoding.DecodeString(part[1])
		address, hits := canary(t)
		var set struct {
			Keys []struct{ Kid string } `json:"keys"`
		}
		getJSON(t, a.Issuer+"/.well-known/jwks.json", &set)
		kids := []any{
			"../../etc/passwd", "' OR 1=1--", "/dev/null", "\x00", "", []string{}, nil, 1, strings.Repeat("x", 16<<10), decodePart(part[0])["kid"],
			a.agent.ID, a.keyed.Key.thumbprint(), "at-", "au-1", "ck-1", address,
		}
		for _, k := range set.Keys { // every key there is, those of other kinds among them
			kids = append(kids, k.Kid)
			header := decodePart(part[0])
			header["kid"] = k.Kid + "x"
			a.notAccepted(t, k.Kid, base64url([]byte(encode(header)))+"."+part[1]+"."+part[2])
		}
		for name, values := range map[string][]any{
			"jwk": {map[string]string{"kty": "EC", "crv": "P-256", "x": strings.Repeat("A", 43), "y": strings.Repeat("A", 43)}},
			"jku": {address + "/jwks"}, "x5u": {address + "/x"}, "x5c": {[]string{"AAAA"}}, "x5t": {"AAAA"}, "crit": {[]string{"exp"}}, "typ": {"JWT", "dpop+jwt", ""},
			"kid": kids,
		} {
			for _, value := range values {
				header := maps.Clone(decodePart(part[0]))
				header[name] = value
				text, _ := json.Marshal(header)
				a.notAccepted(t, name, forge(string(text), string(claims)))
			}
		}
		if n := hits.Load(); n != 0 {
			t.Errorf("the server fetched %d times what a header named", n)
		}
		// 1 MB is more than a header holds, and no token to whoever may ask.
		huge := forge(`{"alg":"ES256","typ":"at+jwt","kid":"`+strings.Repeat("k", 1<<20)+`"}`, string(claims))
		got := a.form(t, "/oauth/introspect", "token="+huge, "Authorization", basic(a.static.ID, a.static.Secret))
		if got.status != http.StatusOK || strings.TrimSpace(got.body) != `{"active":false}` {
			t.Errorf("1 MB: %d %s", got.status, got.body)
		}
		wantOAuth(t, "1 MB", a.form(t, "/oauth/token", "grant_type="+exchangeGrant+"&subject_token="+huge, "Authorization", basic(a.static.ID, a.static.Secret)), 413, "invalid_request")
	}},
	{"A-57 claims that two readers read differently", func(t *testing.T, a *attack) {
		part := strings.Split(a.machine, ".")
		header, _ := base64.RawURLEncoding.DecodeString(part[0])
		raw, _ := base64.RawURLEncoding.DecodeString(part[1])
		claims := string(raw)
		open := claims[:len(claims)-1]
		for _, text := range []string{
			open + `,"sub":"admin"}`, open + `,"Sub":"admin"}`, open + `,"SCOPE":"kavach:admin"}`, open + `,"scope\u0000":"x"}`, "\ufeff" + claims,
			claims + "x", utf16(claims), open + `,"exp":"9999999999"}`, open + `,"exp":-1}`, open + `,"exp":9223372036854775808}`, open + `,"exp":1.5}`, open + `,"x":"\ud800"}`, open + `,"x":1e400}`, "[" + claims + "]", "null", "", strings.Repeat("[", 8<<10),
		} {
			a.notAccepted(t, text, forge(string(header), text))
			a.notAccepted(t, text, part[0]+"."+base64.RawURLEncoding.EncodeToString([]byte(text))+"."+part[2])
		}
		for _, text := range []string{`,"alg":"none"}`, `,"ALG":"none"}`, `,"kid":"x"}`, `}x`} {
			doubled := string(header[:len(header)-1]) + text
			a.notAccepted(t, text, base64.RawURLEncoding.EncodeToString([]byte(doubled))+"."+part[1]+"."+part[2])
		}
	}},
	{"A-58 A-59 A-65 other spellings and signatures", func(t *testing.T, a *attack) {
		part := strings.Split(a.machine, ".")
		user := strings.Split(a.tokens.Access, ".")
		for _, token := range []string{
			a.machine + "==", part[0] + "=." + part[1] + "." + part[2], a.machine + ".", a.machine + ".x", "." + a.machine, part[0] + ".." + part[2],
			a.machine[:len(a.machine)-1] + nextUnused(part[2][len(part[2])-1:]), a.machine[:len(a.machine)-2] + flip(a.machine[len(a.machine)-2:][:1]) + a.machine[len(a.machine)-1:],
			"{\"payload\":\"" + part[1] + "\",\"protected\":\"" + part[0] + "\",\"signature\":\"" + part[2] + "\"}",
			strings.NewReplacer("-", "+", "_", "/").Replace(part[0]+"."+part[1]+".") + "+/" + part[2][2:],
			a.machine[:len(a.machine)-8], part[0] + "." + part[1] + ".", part[0] + "." + part[1] + "." + user[2], part[0] + "." + user[1] + "." + part[2],
			user[0] + "." + user[1] + "." + part[2], part[0] + "." + part[1] + "." + strings.Repeat("A", len(part[2])), a.machine + "~", "~" + a.machine, a.machine + "~" + a.machine,
			strings.Repeat(".", 16<<10), strings.Repeat("~", 16<<10), "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..AAAA.AAAA.AAAA",
		} {
			a.notAccepted(t, token[:min(len(token), 40)], token)
		}
	}},
	{"A-109 bound tokens as Bearer, plain ones as DPoP", func(t *testing.T, a *attack) {
		key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		point, err := key.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		x, y := base64.RawURLEncoding.EncodeToString(point[1:33]), base64.RawURLEncoding.EncodeToString(point[33:])
		got := a.rpc(t, "delegate", `{"agent":"code-reviewer","scopes":["kavach:verify"],"public_key":{"kty":"EC","crv":"P-256","x":"`+x+`","y":"`+y+`"}}`,
			"Authorization", "Bearer "+a.tokens.Access)
		var answer struct {
			Result struct {
				Content struct {
					Token string `json:"token"`
				} `json:"structuredContent"`
			} `json:"result"`
		}
		if err := json.Unmarshal([]byte(got.body), &answer); err != nil || answer.Result.Content.Token == "" {
			t.Fatalf("delegate: %v %s", err, got.body)
		}
		bound := answer.Result.Content.Token
		a.secrets = append(a.secrets, bound)
		if !strings.Contains(got.body, `"jkt"`) && decodePart(strings.Split(bound, ".")[1])["cnf"] == nil {
			t.Errorf("the token is not bound: %s", got.body)
		}
		wantChallenge(t, "bound as Bearer", a.rpc(t, "verify", `{}`, "Authorization", "Bearer "+bound))
		if got := a.rpc(t, "verify", `{}`, "Authorization", "DPoP "+bound); got.status != http.StatusUnauthorized || challenged(got.header) != "invalid_dpop_proof" {
			t.Errorf("bound without proof: %d %v", got.status, got.header.Values("WWW-Authenticate"))
		}
		wantChallenge(t, "plain as DPoP", a.rpc(t, "verify", `{}`, "Authorization", "DPoP "+a.machine, "DPoP", "x"))
	}},
}
