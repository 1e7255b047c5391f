package e2e

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// badProofs are proofs for a request with a token by its holder, each wrong in
// one thing.
func badProofs(k signingKey, method, target, token string) map[string]string {
	good := func(changes ...change) string { return k.proof(method, target, token, changes...) }
	now := time.Now().Unix()
	part := strings.Split(good(), ".")
	u, _ := url.Parse(target)
	out := map[string]string{
		"another key": newEd25519().proof(method, target, token), "another key in the header": good(setHeader("jwk", newEd25519().jwk())), "another kind of key": newES256().proof(method, target, token),
		"private key": good(setHeader("jwk", k.private())), "no key": good(setHeader("jwk", nil)), "key by kid": good(setHeader("jwk", nil), setHeader("kid", k.thumbprint())), "symmetric key": good(setHeader("jwk", map[string]any{"kty": "oct", "k": "AAAA"})),
		"alg none": encode64(`{"alg":"none","typ":"dpop+jwt"}`) + "." + part[1] + ".", "alg HS256": good(setHeader("alg", "HS256")), "no alg": good(setHeader("alg", "")), "typ JWT": good(setHeader("typ", "JWT")), "no typ": good(setHeader("typ", nil)), "typ in capitals": good(setHeader("typ", "DPoP+JWT")),
		"crit": good(setHeader("crit", []string{"x"})), "old": good(set("iat", now-60)), "from the future": good(set("iat", now+60)), "no iat": good(set("iat", nil)), "iat as text": good(set("iat", "now")), "iat huge": good(set("iat", 1e300)),
		"no jti": good(set("jti", nil)), "empty jti": good(set("jti", "")), "jti a number": good(set("jti", 1)), "no htm": good(set("htm", nil)), "another method": good(set("htm", "GET")), "method in small letters": good(set("htm", strings.ToLower(method))),
		"no htu": good(set("htu", nil)), "another path": good(set("htu", target+"/x")), "a shorter path": good(set("htu", u.Scheme+"://"+u.Host)), "another host": good(set("htu", "https://evil.example"+u.Path)), "https": good(set("htu", strings.Replace(target, "http://", "https://", 1))),
		"userinfo": good(set("htu", strings.Replace(target, "://", "://u@", 1))), "a suffix to the host": good(set("htu", u.Scheme+"://"+u.Host+".evil.example"+u.Path)), "relative": good(set("htu", u.Path)), "signature cut": good()[:len(good())-4],
		"signature of another": part[0] + "." + part[1] + "." + strings.Split(good(), ".")[2], "not a JWT": "x", "two": good() + ", " + good(), "a chain": good() + "~" + good(), "padded": part[0] + "=." + part[1] + "." + part[2], "a member twice": k.signText(`{"alg":"none","alg":"`+k.alg()+`","typ":"dpop+jwt","jwk":`+encode(k.jwk())+`}`, string(unbase64(part[1]))),
		"an assertion": k.assertion("x", target), "a card": k.card("x", target, k), "long": good(set("x", strings.Repeat("x", 10000))),
	}
	if token != "" {
		maps.Copy(out, map[string]string{"ath of another": good(set("ath", hashed("x"))), "ath padded": good(set("ath", hashed(token)+"=")), "the token as ath": good(set("ath", token))})
	}
	return out
}

// Proof of possession.
var heldKeyAttacks = []crewRow{
	{"A-105 chains and tokens without the holder's key", func(t *testing.T, c *crew) {
		endpoint := c.Issuer + "/mcp"
		link := c.handed(c.rev)
		plain := c.traded(t, c.orch, c.root, "scope", "kavach:verify", "resource", endpoint) // bound, and no root
		send := func(token string, headers ...string) reply {
			return c.rpc(t, "verify", `{"token":"x"}`, append([]string{"Authorization", "DPoP " + token}, headers...)...)
		}
		for what, held := range map[string]struct {
			token string
			by    *agent
		}{"root": {c.root, c.orch}, "link": {link, c.rev}, "plain": {plain, c.orch}} {
			k := held.by.Holder
			for name, proof := range badProofs(k, "POST", endpoint, held.token) {
				wantProof(t, what+", "+name, send(held.token, "DPoP", proof))
			}
			for name, got := range map[string]reply{
				"no proof": send(held.token), "empty proof": send(held.token, "DPoP", ""), "two proofs": send(held.token, "DPoP", k.proof("POST", endpoint, held.token), "DPoP", k.proof("POST", endpoint, held.token)),
				"no ath": send(held.token, "DPoP", k.proof("POST", endpoint, "")), "for the API": send(held.token, "DPoP", k.proof("POST", c.Issuer+"/api", held.token)),
				"the identity key": send(held.token, "DPoP", held.by.Key.proof("POST", endpoint, held.token)),
				"as Bearer":        c.rpc(t, "verify", `{"token":"x"}`, "Authorization", "Bearer "+held.token), "as Bearer with proof": c.rpc(t, "verify", `{"token":"x"}`, "Authorization", "Bearer "+held.token, "DPoP", k.proof("POST", endpoint, held.token)),
				"twice":     c.rpc(t, "verify", `{"token":"x"}`, "Authorization", "DPoP "+held.token, "Authorization", "DPoP "+held.token, "DPoP", k.proof("POST", endpoint, held.token)),
				"two kinds": c.rpc(t, "verify", `{"token":"x"}`, "Authorization", "DPoP "+held.token, "Authorization", "Bearer "+c.machine, "DPoP", k.proof("POST", endpoint, held.token)),
			} {
				wantProof(t, what+", "+name, got)
			}
			for name, proof := range badProofs(k, "POST", c.orch.tokenEndpoint(), held.token) {
				got := c.form(t, "/oauth/token", held.by.authenticated(exchangedWith(held.token)).Encode(), "DPoP", proof)
				wantOAuth(t, what+" exchanged, "+name, got, 400, "invalid_dpop_proof", "invalid_request")
			}
			proof := k.proof("POST", endpoint, held.token)
			if got := send(held.token, "DPoP", proof); got.status != http.StatusOK {
				t.Errorf("%s, as it should be: %d %s", what, got.status, got.body)
			}
			wantProof(t, what+", the proof again", send(held.token, "DPoP", proof))
		}
		wantProof(t, "the leaf's key for the root", send(c.root, "DPoP", c.rev.Holder.proof("POST", endpoint, c.root)))
		wantProof(t, "the root's key for the leaf", send(link, "DPoP", c.orch.Holder.proof("POST", endpoint, link)))
		wantProof(t, "ath of the last link alone", send(link, "DPoP", c.rev.Holder.proof("POST", endpoint, link[strings.LastIndexByte(link, '~')+1:])))
		wantProof(t, "ath of the root alone", send(link, "DPoP", c.rev.Holder.proof("POST", endpoint, c.root)))

		// cnf of a link: gone, not its key's, private, twice.
		k := c.hand.Holder
		for name, value := range map[string]any{
			"none": nil, "empty": map[string]any{}, "jkt alone": map[string]any{"jkt": k.thumbprint()}, "jwk alone": map[string]any{"jwk": k.jwk()}, "another jkt": map[string]any{"jwk": k.jwk(), "jkt": c.rev.ID},
			"private": map[string]any{"jwk": k.private(), "jkt": k.thumbprint()}, "a member more": map[string]any{"jwk": k.jwk(), "jkt": k.thumbprint(), "x5t#S256": "x"}, "a list": []any{confirms(k)}, "text": k.thumbprint(),
			"off the curve": map[string]any{"jwk": map[string]any{"kty": "EC", "crv": "P-256", "x": base64url(make([]byte, 32)), "y": base64url(make([]byte, 32))}, "jkt": k.thumbprint()},
			"small order":   map[string]any{"jwk": map[string]any{"kty": "OKP", "crv": "Ed25519", "x": base64url(append([]byte{1}, make([]byte, 31)...))}, "jkt": k.thumbprint()},
			"X25519":        map[string]any{"jwk": map[string]any{"kty": "OKP", "crv": "X25519", "x": base64url(make([]byte, 32))}, "jkt": k.thumbprint()},
		} {
			c.invalidEverywhere(t, "cnf "+name, c.hand, c.rev.Holder.link(link, k, c.hand.ID, set("cnf", value)), "malformed")
			if name != "jwk alone" { // that is how one is asked for
				wantOAuth(t, "req_cnf "+name, c.trade(t, c.orch, c.root, "req_cnf", encode(value)), 400, "invalid_request")
			}
		}
		twice := `{"cnf":` + encode(confirms(c.rev.Holder)) + `,"cnf":`
		forged := c.rev.Holder.link(link, k, c.hand.ID, func(h, claims map[string]any) { h["x"] = 1 })
		part := strings.Split(forged[strings.LastIndexByte(forged, '~')+1:], ".")
		claims := string(unbase64(part[1]))
		c.invalidEverywhere(t, "cnf twice", c.hand, link+"~"+c.rev.Holder.signText(`{"alg":"Ed25519","typ":"aat+jwt"}`, strings.Replace(claims, `{"aud":`, twice+encode(confirms(k))+`,"aud":`, 1)), "malformed")
	}},
	{"A-106 the tool that verifies as an oracle", func(t *testing.T, c *crew) {
		link := c.handed(c.rev)
		ask := encode(map[string]any{"token": link, "audience": c.Issuer + "/mcp"})
		if got := c.rpc(t, "verify", ask); got.status != http.StatusUnauthorized || strings.Contains(got.body, "valid") && !strings.Contains(got.body, "error") {
			t.Errorf("anonymous: %d %s", got.status, got.body)
		}
		small := c.handed(c.rev, set("scope", "archive:read"))
		if got := c.tool(t, c.rev, small, "verify", map[string]any{"token": link}); got.status != http.StatusForbidden {
			t.Errorf("without the scope: %d %s", got.status, got.body)
		}
		// Somebody else's: no more than the token itself says, to whoever has it.
		other := c.stranger.signedIn("", nil).Access
		got := c.tool(t, c.stranger, other, "verify", json.RawMessage(ask))
		judged := content(t, got)
		for _, never := range []string{link, c.root, "orch", "rev", "dev", "127.0.0.1:4711", c.rev.Holder.thumbprint()} {
			if never != "" && strings.Contains(strings.ReplaceAll(got.body, c.Issuer, ""), `"`+never+`"`) {
				t.Errorf("the answer holds %s: %s", never, got.body)
			}
		}
		if judged["valid"] != true || encode(judged["unchecked"]) != `["proof","request"]` || judged["allowed"] != nil {
			t.Errorf("%v", judged)
		}
		// What it may not know is not there, in the same words as what never was.
		for _, token := range []string{link, c.root, c.tokens.Access, c.tokens.Refresh, c.machine, "x"} {
			answer := c.form(t, "/oauth/introspect", c.stranger.authenticated(url.Values{"token": {token}}).Encode())
			if answer.status != http.StatusOK || strings.TrimSpace(answer.body) != `{"active":false}` {
				t.Errorf("introspection: %d %s", answer.status, answer.body)
			}
		}
	}},
}
