package e2e

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// kind is something that somebody may hold, and the slots it is made for.
type kind struct {
	name, text string
	own        []string
}

// genuine makes one of every kind. There are no ID tokens.
func (a *attack) genuine(t *testing.T) []kind {
	t.Helper()
	who := a.agent
	bound := who.signedIn("kavach:verify kavach:delegate", nil).Access
	chain := who.Holder.link(bound, newEd25519(), "somebody")
	manifest, err := os.ReadFile(who.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	made := who.called(bound, "delegate", map[string]any{"agent": a.devAgent(t, "code-reviewer").ID, "scopes": []string{"kavach:verify"}, "ttl_seconds": 60})
	handle, _ := made["handle"].(string)
	back, err := a.dev.authorize(a.public.request("kavach:verify", nil).url, choice{})
	if err != nil || handle == "" {
		t.Fatalf("no code or handle: %v", err)
	}
	return []kind{
		{"access token", a.machine, []string{"Bearer", "introspect", "verify"}},
		{"person's access token", a.tokens.Access, []string{"Bearer", "verify"}},
		{"bound token", bound, []string{"Authorization DPoP", "subject_token", "verify"}},
		{"chain", chain, []string{"verify"}},
		{"link", chain[strings.IndexByte(chain, '~')+1:], nil},
		{"assertion", who.Key.assertion(who.ID, a.Issuer), []string{"client_assertion", "assertion of a registration"}},
		{"proof", who.proof(""), []string{"DPoP"}},
		{"proof with ath", who.proof(bound), nil},
		{"proof by the identity key", who.Key.proof("POST", who.tokenEndpoint(), ""), nil}, // it must not bind tokens
		{"manifest", strings.TrimSpace(string(manifest)), []string{"manifest"}},
		{"key card", who.Key.card(who.ID, a.Issuer, newEd25519()), []string{"actor_token"}},
		{"refresh token", a.tokens.Refresh, []string{"refresh_token"}},
		{"handle", handle, nil}, // of use to the named agent alone
		{"code", back.Query().Get("code"), nil},
		{"thumbprint", who.ID, nil},
	}
}

// hybrids have every member of every kind and a good signature by the agent's
// identity key or its holder key: nothing but typ, and the key, tells them
// apart.
func (a *attack) hybrids() []kind {
	own := map[string]string{"": "client_assertion", "JWT": "client_assertion", "client-authentication+jwt": "client_assertion",
		"agent-key+jwt": "actor_token", "dpop+jwt": "DPoP", "agent-manifest+jwt": "manifest"}
	var out []kind
	for _, typ := range []string{"", "JWT", "client-authentication+jwt", "at+jwt", "application/at+jwt", "aat+jwt", "aat-pop+jwt", "dpop+jwt", "agent-key+jwt", "agent-manifest+jwt", "kavach-revocations+jwt", "logout+jwt"} {
		for name, key := range map[string]signingKey{"identity": a.agent.Key, "holder": a.agent.Holder} {
			now, id := time.Now().Unix(), a.agent.ID
			header := map[string]any{"kid": id}
			if name == "holder" {
				header = map[string]any{"jwk": key.jwk()}
			}
			if typ != "" {
				header["typ"] = typ
			}
			k := kind{name: "hybrid " + typ + " by the " + name + " key", text: key.sign(header, map[string]any{
				"iss": id, "sub": id, "client_id": id, "aud": a.Issuer, "jti": rand.Text(), "iat": now, "exp": now + 60, "htm": "POST", "htu": a.agent.tokenEndpoint(),
				"scope": "kavach:verify", "gid": id, "id": id, "seq": 1, "name": "signer", "version": "1.0.0", "purpose": "x", "scopes": []string{"kavach:verify"},
				"capabilities": []string{}, "max_depth": 0, "jwk": newEd25519().jwk(), "del_depth": 0, "del_max_depth": 1,
				"cnf": map[string]any{"jwk": a.agent.Holder.jwk(), "jkt": a.agent.Holder.thumbprint()},
			})}
			// An assertion and a card are the identity key's, a proof the holder's.
			if slot := own[typ]; slot != "" && (slot == "DPoP") == (name == "holder") {
				k.own = []string{slot, "assertion of a registration"}
			}
			out = append(out, k)
		}
	}
	return out
}

// slots are where something is presented. Each checks that it is refused.
func (a *attack) slots(t *testing.T) map[string]func(t *testing.T, k kind) {
	who := a.agent
	subject := who.signedIn("kavach:verify kavach:delegate", nil).Access
	enrolment := strings.TrimSpace(a.cli("", "agent", "enrol", "--owner", "dev"))
	newcomer := newEd25519()
	token := func(values url.Values, proof string) reply {
		var header []string
		if proof != "" {
			header = []string{"DPoP", proof}
		}
		return a.form(t, "/oauth/token", values.Encode(), header...)
	}
	exchange := func(pairs ...string) reply {
		values := url.Values{"grant_type": {exchangeGrant}, "subject_token": {subject}, "subject_token_type": {accessType}}
		for i := 0; i < len(pairs); i += 2 {
			values.Set(pairs[i], pairs[i+1])
		}
		return token(who.authenticated(values), who.proof(""))
	}
	enrol := func(t *testing.T, what, manifest, assertion, enrolment string) {
		t.Helper()
		body := encode(map[string]string{"manifest": manifest, "assertion": assertion, "enrolment_token": enrolment})
		got := a.send(t, "POST", "/api/v1/agents", body, "Content-Type", "application/json")
		if got.status != http.StatusBadRequest && got.status != http.StatusUnauthorized || got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s at registration: %d %s", what, got.status, got.body)
		}
	}
	credentials := url.Values{"grant_type": {"client_credentials"}}
	return map[string]func(t *testing.T, k kind){
		"client_assertion": func(t *testing.T, k kind) { a.wantNobody(t, k.name, k.text, "client_id", who.ID) },
		"client_secret": func(t *testing.T, k kind) {
			wantOAuth(t, k.name, a.form(t, "/oauth/token", "grant_type=client_credentials", "Authorization", basic(a.static.ID, k.text)), 401, "invalid_client")
		},
		"DPoP": func(t *testing.T, k kind) {
			wantOAuth(t, k.name, token(who.authenticated(credentials), k.text), 400, "invalid_dpop_proof")
		},
		"DPoP at /mcp": func(t *testing.T, k kind) {
			got := a.rpc(t, "verify", `{"token":"x","audience":"x"}`, "Authorization", "DPoP "+subject, "DPoP", k.text)
			if got.status != http.StatusUnauthorized || challenged(got.header) != "invalid_dpop_proof" {
				t.Errorf("%s: %d %v %s", k.name, got.status, got.header.Values("WWW-Authenticate"), got.body)
			}
		},
		"Bearer": func(t *testing.T, k kind) {
			wantChallenge(t, k.name, a.rpc(t, "verify", `{}`, "Authorization", "Bearer "+k.text))
		},
		"Authorization DPoP": func(t *testing.T, k kind) {
			got := a.rpc(t, "verify", `{}`, "Authorization", "DPoP "+k.text, "DPoP", who.Holder.proof("POST", a.Issuer+"/mcp", k.text))
			if code := challenged(got.header); got.status != http.StatusUnauthorized || code != "invalid_token" && code != "invalid_dpop_proof" {
				t.Errorf("%s: %d %v %s", k.name, got.status, got.header.Values("WWW-Authenticate"), got.body)
			}
		},
		"Bearer at /api": func(t *testing.T, k kind) {
			got := a.send(t, "GET", "/api/v1/agents", "", "Authorization", "Bearer "+k.text)
			if got.status != http.StatusUnauthorized || challenged(got.header) != "invalid_token" {
				t.Errorf("%s: %d %v", k.name, got.status, got.header)
			}
		},
		"subject_token": func(t *testing.T, k kind) {
			wantOAuth(t, k.name, exchange("subject_token", k.text), 400, "invalid_request", "unauthorized_client")
		},
		"subject_token as handle": func(t *testing.T, k kind) {
			wantOAuth(t, k.name, exchange("subject_token", k.text, "subject_token_type", handleType), 400, "invalid_request")
		},
		"actor_token": func(t *testing.T, k kind) {
			wantOAuth(t, k.name, exchange("actor_token", k.text, "actor_token_type", cardType), 400, "invalid_request")
		},
		"refresh_token": func(t *testing.T, k kind) {
			wantOAuth(t, k.name, token(url.Values{"grant_type": {"refresh_token"}, "client_id": {a.other.ID}, "refresh_token": {k.text}}, ""), 400, "invalid_grant")
		},
		"code": func(t *testing.T, k kind) {
			wantOAuth(t, k.name, token(url.Values{"grant_type": {"authorization_code"}, "client_id": {a.other.ID}, "redirect_uri": {a.other.Redirect}, "code": {k.text},
				"code_verifier": {strings.Repeat("a", 43)}}, ""), 400, "invalid_grant")
		},
		"manifest": func(t *testing.T, k kind) {
			enrol(t, k.name+" as manifest", k.text, who.Key.assertion(who.ID, a.Issuer), enrolment)
		},
		"assertion of a registration": func(t *testing.T, k kind) {
			enrol(t, k.name+" as assertion", newcomer.manifest("newcomer", "kavach:verify"), k.text, enrolment)
		},
		"enrolment token": func(t *testing.T, k kind) {
			enrol(t, k.name+" as enrolment token", newcomer.manifest("newcomer", "kavach:verify"), newcomer.assertion(newcomer.thumbprint(), a.Issuer), k.text)
		},
		"introspect": func(t *testing.T, k kind) {
			got := a.form(t, "/oauth/introspect", url.Values{"token": {k.text}}.Encode(), "Authorization", basic(a.static.ID, a.static.Secret))
			if got.status != http.StatusOK || strings.TrimSpace(got.body) != `{"active":false}` {
				t.Errorf("%s: %d %s", k.name, got.status, got.body)
			}
		},
		"verify": func(t *testing.T, k kind) {
			argument, _ := json.Marshal(map[string]any{"token": k.text, "audience": a.Issuer + "/mcp"})
			if got := a.rpc(t, "verify", string(argument), "Authorization", "Bearer "+a.machine); got.status != http.StatusOK || strings.Contains(got.body, `"valid":true`) {
				t.Errorf("%s: %d %s", k.name, got.status, got.body)
			}
		},
	}
}

var kindAttacks = []attackRow{
	{"A-47 every kind of token in every slot", func(t *testing.T, a *attack) {
		t.Log("left out: ID tokens, which are not issued, and revocation feeds, which are not served yet")
		slots := a.slots(t)
		for _, k := range append(a.genuine(t), a.hybrids()...) {
			if k.name != "thumbprint" && k.name != "manifest" { // ids and manifests are public
				a.secrets = append(a.secrets, k.text)
			}
			for name, refused := range slots {
				if slices.Contains(k.own, name) {
					continue
				}
				t.Run(k.name+" as "+name, func(t *testing.T) { refused(t, k) })
			}
		}
		// What is in its own slot works, or nothing above was a test.
		good := a.agent.authenticated(url.Values{"grant_type": {"client_credentials"}})
		if got := a.form(t, "/oauth/token", good.Encode(), "DPoP", a.agent.proof("")); got.status != http.StatusOK {
			t.Errorf("assertion and proof: %d %s", got.status, got.body)
		}
		bound := a.agent.signedIn("kavach:verify kavach:delegate", nil).Access
		reviewer := a.devAgent(t, "code-reviewer")
		got, err := a.agent.exchange(bound, url.Values{"scope": {"kavach:verify"}, "actor_token_type": {cardType}, "actor_token": {reviewer.Key.card(reviewer.ID, a.Issuer, reviewer.Holder)}})
		if err != nil || got.Status != http.StatusOK {
			t.Errorf("subject and card: %v %+v", err, got)
		}
	}},
}
