package e2e

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// asStatic is the header by which the static client authenticates.
func (c *crew) asStatic() []string {
	return []string{"Authorization", basic(c.static.ID, c.static.Secret)}
}

// inactive: introspection says no more than that.
func inactive(t *testing.T, what string, got reply) {
	t.Helper()
	if got.status != http.StatusOK || strings.TrimSpace(got.body) != `{"active":false}` || got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s: %d %v %s", what, got.status, got.header, got.body)
	}
}

// introspects has a client ask about a token; without an agent the static one.
func (c *crew) introspects(t *testing.T, who *agent, token string, pairs ...string) reply {
	t.Helper()
	values := url.Values{"token": {token}}
	for i := 0; i < len(pairs); i += 2 {
		values.Add(pairs[i], pairs[i+1])
	}
	if who == nil {
		return c.form(t, "/oauth/introspect", values.Encode(), c.asStatic()...)
	}
	return c.form(t, "/oauth/introspect", who.authenticated(values).Encode())
}

// alive: /mcp takes it from its holder.
func (c *crew) alive(t *testing.T, who *agent, token string) bool {
	t.Helper()
	return c.shows(t, who, token).status == http.StatusOK
}

// Token, introspection and revocation, for agents and what they bring.
var tokenEndpointAttacks = []crewRow{
	{"A-81 A-82 forms that are none, by clients with keys", func(t *testing.T, c *crew) {
		for path, values := range map[string]url.Values{"/oauth/token": exchangedWith(c.root), "/oauth/introspect": {"token": {c.root}}, "/oauth/revoke": {"token": {c.handed(c.rev)}}} {
			good := func() string { return c.orch.authenticated(values).Encode() }
			proof := func() []string { return []string{"DPoP", c.orch.proof("")} }
			for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "PATCH"} {
				if got := c.send(t, method, path+"?"+good(), "", proof()...); got.status != http.StatusMethodNotAllowed || !strings.Contains(got.header.Get("Allow"), "POST") {
					t.Errorf("%s %s: %d %v", method, path, got.status, got.header)
				}
			}
			if got := c.form(t, path+"?"+good(), "", proof()...); got.status != http.StatusUnauthorized { // nobody, who asks nothing
				wantOAuth(t, path+" in the query", got, 400, "invalid_request")
			}
			for name, parameter := range values { // one of them in the query, the others in the body
				less := url.Values{}
				for k, v := range values {
					if k != name {
						less[k] = v
					}
				}
				wantOAuth(t, path+" "+name+" in the query", c.form(t, path+"?"+url.Values{name: parameter}.Encode(), c.orch.authenticated(less).Encode(), proof()...), 400, "invalid_request")
			}
			if got := c.form(t, path+"?client_assertion="+c.orch.Key.assertion(c.orch.ID, c.Issuer)+"&client_assertion_type="+assertionType, values.Encode()); got.status == http.StatusOK {
				t.Errorf("%s: authenticated by the query: %s", path, got.body)
			}
			for _, kind := range []string{"", "application/json", "multipart/form-data; boundary=x", "text/plain", formType + "; charset=utf-16", formType + ", text/plain"} {
				wantOAuth(t, path+" "+kind, c.send(t, "POST", path, good(), append(proof(), "Content-Type", kind)...), 400, "invalid_request")
			}
			for _, more := range []string{"&client_assertion=x", "&client_id=a&client_id=b", "&client_assertion_type=x", "&token=x&token=y", "&subject_token=x&subject_token=y", "&a=%ff", "&a=%zz", "&a;b", "&a=%00"} {
				wantOAuth(t, path+more, c.form(t, path, good()+more, proof()...), 400, "invalid_request")
			}
			wantOAuth(t, path+", large", c.form(t, path, good()+strings.Repeat("&a=1", 20<<10), proof()...), 413, "invalid_request")
		}
		for _, kind := range []string{"authorization_code refresh_token", exchangeGrant + " ", strings.ToUpper(exchangeGrant), "token-exchange", "urn:ietf:params:oauth:grant-type:jwt-bearer", "urn:ietf:params:oauth:grant-type:device_code"} {
			values := exchangedWith(c.root)
			values.Set("grant_type", kind)
			wantOAuth(t, kind, c.grants(t, c.orch, values), 400, "unsupported_grant_type", "invalid_request")
		}
		values := exchangedWith(c.root)
		values.Add("grant_type", exchangeGrant)
		wantOAuth(t, "grant twice", c.grants(t, c.orch, values), 400, "invalid_request")
	}},
	{"A-83 A-86 introspection by who has no right to", func(t *testing.T, c *crew) {
		body := "token=" + c.machine
		for name, got := range map[string]reply{
			"nobody": c.form(t, "/oauth/introspect", body), "an assertion of another key": c.form(t, "/oauth/introspect", c.rev.holding(newEd25519()).withKey(newEd25519()).authenticated(url.Values{"token": {c.machine}}).Encode()),
			"a public client": c.form(t, "/oauth/introspect", body+"&client_id="+c.public.ID), "an agent by its id": c.form(t, "/oauth/introspect", body+"&client_id="+c.orch.ID), "a bearer token": c.form(t, "/oauth/introspect", body, "Authorization", "Bearer "+c.tokens.Access),
			"a bound token": c.form(t, "/oauth/introspect", body, "Authorization", "DPoP "+c.root, "DPoP", c.orch.Holder.proof("POST", c.Issuer+"/oauth/introspect", c.root)), "a proof": c.form(t, "/oauth/introspect", body, "DPoP", c.orch.proof("")),
			"a token as secret": c.form(t, "/oauth/introspect", body, "Authorization", basic(c.static.ID, c.machine)), "a card as assertion": c.form(t, "/oauth/introspect", url.Values{"token": {c.machine}, "client_assertion_type": {assertionType}, "client_assertion": {c.orch.Key.card(c.orch.ID, c.Issuer, newEd25519())}}.Encode()),
		} {
			wantOAuth(t, name, got, 401, "invalid_client")
		}
		got := register(t, c.Issuer)
		wantOAuth(t, "a registered one", c.form(t, "/oauth/introspect", body+"&client_id="+got.ID), 401, "invalid_client")
	}},
	{"A-85 introspection of what is not alive or not theirs", func(t *testing.T, c *crew) {
		link := c.handed(c.rev)
		made := content(t, c.delegates(t, c.orch, c.root, c.rev.ID, nil))
		handle, _ := made["handle"].(string)
		c.secrets = append(c.secrets, handle)
		dead := c.traded(t, c.orch, c.root, "scope", "kavach:verify")
		content(t, c.tool(t, c.orch, c.root, "revoke", map[string]any{"chain": dead}))
		for name, token := range map[string]string{
			"handle": handle, "handle's like": "kvh_" + strings.Repeat("A", 43), "assertion": c.orch.Key.assertion(c.orch.ID, c.Issuer), "proof": c.orch.proof(""), "card": c.orch.Key.card(c.orch.ID, c.Issuer, newEd25519()), "manifest": c.orch.Key.manifest("x", "x"),
			"revoked": dead, "refresh token": c.tokens.Refresh, "forged link": newEd25519().link(c.root, newEd25519(), c.orch.ID), "link over": c.handed(c.rev, set("iat", time.Now().Unix()-20), set("exp", time.Now().Unix()-10)), "empty links": "~~~~", "long": strings.Repeat("a.b.c~", 9000),
		} {
			inactive(t, name, c.introspects(t, c.orch, token))
			inactive(t, name+" with hint", c.introspects(t, c.orch, token, "token_type_hint", "refresh_token"))
		}
		for name, token := range map[string]string{"another's root": c.root, "another's link": link, "another's plain one": c.machine} {
			for _, who := range []*agent{c.stranger, c.hand, c.keyed} {
				inactive(t, name, c.introspects(t, who, token))
			}
		}
		if got := c.introspects(t, c.orch, c.root); !strings.Contains(got.body, `"active":true`) || strings.Contains(got.body, c.root) {
			t.Errorf("one's own: %d %s", got.status, got.body)
		}
	}},
	{"A-87 revoked here, asked there", func(t *testing.T, c *crew) {
		// A person who is disabled comes with *The authorization server*, keys that
		// are changed with *Three databases*. The bound is 0 where it is revoked,
		// and 5 s in another process.
		other := c.beside(t)
		at := func(who *agent) *agent { return who.at(other, who.Holder) }
		ask := func(token string) (int, string) {
			values := c.orch.authenticated(url.Values{"token": {token}})
			request, _ := http.NewRequestWithContext(t.Context(), "POST", c.Issuer+"/oauth/introspect", strings.NewReader(values.Encode()))
			request.Header.Set("Content-Type", formType)
			got := do(t, other.client(), request)
			return got.status, strings.TrimSpace(got.body)
		}
		link, token := c.handed(c.rev), c.traded(t, c.orch, c.root, "scope", "kavach:verify kavach:delegate")
		for what, held := range map[string]struct {
			token string
			by    *agent
		}{"link": {link, c.rev}, "token": {token, c.orch}} {
			if _, body := ask(held.token); !strings.Contains(body, `"active":true`) {
				t.Fatalf("%s, before: %s", what, body)
			}
			if status, _, _, err := at(held.by).call(held.token, "verify", map[string]any{"token": "x"}); err != nil || status != http.StatusOK {
				t.Fatalf("%s, before: %v %d", what, err, status)
			}
			content(t, c.tool(t, c.orch, c.root, "revoke", map[string]any{"chain": held.token}))
			inactive(t, what+" here", c.introspects(t, c.orch, held.token))
			end := time.Now().Add(5 * time.Second)
			status, body := ask(held.token)
			for body != `{"active":false}` && time.Now().Before(end) {
				time.Sleep(20 * time.Millisecond)
				status, body = ask(held.token)
			}
			if body != `{"active":false}` {
				t.Errorf("%s there, after 5 s: %d %s", what, status, body)
			}
			if status, _, header, err := at(held.by).call(held.token, "verify", map[string]any{"token": "x"}); err != nil || status != http.StatusUnauthorized || challenged(header) != "invalid_token" {
				t.Errorf("%s there, at /mcp: %v %d", what, err, status)
			}
			if got, err := at(held.by).exchange(held.token, nil); err != nil || got.Status != http.StatusBadRequest || got.Error != "invalid_request" {
				t.Errorf("%s there, exchanged: %v %+v", what, err, got)
			}
		}
	}},
	{"A-89 what revoking ends", func(t *testing.T, c *crew) {
		// That a database that fails is 503 and not 200 is for the tests of authz:
		// nothing fails here.
		client := register(t, c.Issuer)
		got := client.signIn(c.dev, "kavach:verify", choice{})
		c.secrets = append(c.secrets, got.Access, got.Refresh)
		revoke := func(token, hint string) {
			t.Helper()
			values := url.Values{"client_id": {client.ID}, "token": {token}}
			if hint != "" {
				values.Set("token_type_hint", hint)
			}
			if got := c.form(t, "/oauth/revoke", values.Encode()); got.status != http.StatusOK || got.header.Get("Cache-Control") != "no-store" {
				t.Errorf("revoke: %d %s", got.status, got.body)
			}
		}
		for _, unknown := range []string{"x", "kvh_x", "a.b.c", c.root[:100], strings.Repeat("~", 100), c.orch.Key.assertion(c.orch.ID, c.Issuer)} {
			revoke(unknown, "")
			revoke(unknown, "nonsense")
		}
		// The access token alone, found under a wrong hint; the refresh token lives.
		revoke(got.Access, "refresh_token")
		if alive(t, c.Issuer, got.Access) {
			t.Error("the access token lives")
		}
		next, err := client.refresh(got.Refresh)
		if err != nil || next.Status != http.StatusOK || !alive(t, c.Issuer, next.Access) {
			t.Fatalf("the refresh token went with the access token: %v %+v", err, next)
		}
		second, err := client.refresh(next.Refresh)
		if err != nil || second.Status != http.StatusOK {
			t.Fatal(err, second)
		}
		// The refresh token, under a wrong hint: everything of the grant.
		revoke(second.Refresh, "access_token")
		for _, token := range []string{next.Access, second.Access} {
			if alive(t, c.Issuer, token) {
				t.Error("an access token outlives its grant")
			}
		}
		if again, _ := client.refresh(second.Refresh); again.Error != "invalid_grant" {
			t.Errorf("the refresh token lives: %+v", again)
		}
		// Others cannot, and it stays.
		wantOAuth(t, "another's", c.form(t, "/oauth/revoke", url.Values{"client_id": {client.ID}, "token": {c.tokens.Refresh}}.Encode()), 400, "invalid_grant")
		wantOAuth(t, "an agent's", c.form(t, "/oauth/revoke", url.Values{"client_id": {client.ID}, "token": {c.root}}.Encode()), 400, "invalid_grant")
		wantOAuth(t, "by nobody", c.form(t, "/oauth/revoke", "token="+c.machine), 401, "invalid_client")
		if !alive(t, c.Issuer, c.tokens.Access) || !c.alive(t, c.orch, c.root) {
			t.Error("another's token was ended")
		}
	}},
	{"A-90 a revoked parent", func(t *testing.T, c *crew) {
		root := c.orch.signedIn("", url.Values{"resource": {c.Issuer + "/mcp", archive}}).Access
		link := c.orch.Holder.link(root, c.rev.Holder, c.rev.ID)
		k := newEd25519()
		below := c.rev.Holder.link(link, k, c.hand.ID)
		last := c.hand.holding(k)
		key := newEd25519()
		exchanged := c.traded(t, c.rev, link, "req_cnf", cnf(key), "agent", c.hand.ID, "scope", "kavach:verify", "requested_expires_in", "30")
		made := content(t, c.delegates(t, c.rev, link, c.hand.ID, nil))
		handle, _ := made["handle"].(string)
		if !c.alive(t, c.rev, link) || !c.alive(t, last, below) || !c.alive(t, c.hand.holding(key), exchanged) {
			t.Fatal("before")
		}
		content(t, c.tool(t, c.orch, root, "revoke", map[string]any{"chain": link}))
		if !c.alive(t, c.orch, root) {
			t.Error("the parent of what was revoked is dead")
		}
		for name, held := range map[string]struct {
			token string
			by    *agent
		}{"itself": {link, c.rev}, "its child": {below, last}, "what was exchanged from it": {exchanged, c.hand.holding(key)}} {
			wantProof(t, name, c.shows(t, held.by, held.token))
			wantOAuth(t, name, c.trade(t, held.by, held.token), 400, "invalid_request")
			inactive(t, name, c.introspects(t, c.orch, held.token))
			judged := content(t, c.rpc(t, "verify", encode(map[string]any{"token": held.token}), "Authorization", "Bearer "+c.machine))
			if judged["valid"] != false || judged["reason"] != "revoked" {
				t.Errorf("%s: verify says %v", name, judged)
			}
			// Who verifies offline is not told, and is bounded by what is left.
			if got := c.verdict(t, held.token, c.Issuer+"/mcp"); got != "" {
				t.Errorf("%s: offline %s", name, got)
			}
			if left := claim(held.token, "exp").(float64) - float64(time.Now().Unix()); left > 300 {
				t.Errorf("%s lives %v s more", name, left)
			}
		}
		// A new child of it, and its handle, are worth nothing.
		wantProof(t, "a new child", c.shows(t, last, c.rev.Holder.link(link, k, c.hand.ID)))
		wantOAuth(t, "its handle", c.grants(t, c.hand, url.Values{"grant_type": {exchangeGrant}, "subject_token": {handle}, "subject_token_type": {handleType}}), 400, "invalid_request")
	}},
	{"A-91 A-93 metadata of the API, challenges, keys", func(t *testing.T, c *crew) {
		// That the next key is there before it is used comes with *Three databases*.
		forged := []string{"X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "https", "Forwarded", "host=evil.example;proto=https", "X-Original-URL", "/evil", "X-Forwarded-Prefix", "/evil"}
		for _, path := range []string{"/.well-known/oauth-protected-resource/api", "/api/v1/agents", "/api/v1/audit/entries"} {
			plain, got := c.send(t, "GET", path, ""), c.send(t, "GET", path, "", append(forged, "Host", "evil.example")...)
			if plain.body != got.body || strings.Join(plain.header.Values("WWW-Authenticate"), "\n") != strings.Join(got.header.Values("WWW-Authenticate"), "\n") || strings.Contains(got.body, "evil") {
				t.Errorf("%s: %d %v %s", path, got.status, got.header, got.body)
			}
		}
		// A proof for the name that an attacker sends the request under is none.
		for _, host := range []string{"evil.example", "localhost"} {
			proof := c.orch.Holder.proof("POST", "http://"+host+"/oauth/token", "")
			wantOAuth(t, host, c.form(t, "/oauth/token", c.orch.authenticated(url.Values{"grant_type": {"client_credentials"}}).Encode(), append(forged, "Host", host, "DPoP", proof)...), 400, "invalid_dpop_proof")
		}
		assertion := c.orch.Key.assertion(c.orch.ID, "http://evil.example")
		wantOAuth(t, "assertion", c.form(t, "/oauth/token", c.agentForm(assertion), append(forged, "Host", "evil.example")...), 401, "invalid_client")
		var set struct{ Keys []map[string]any }
		getJSON(t, c.Issuer+"/.well-known/jwks.json", &set)
		for _, key := range set.Keys {
			kid, _ := key["kid"].(string)
			for member := range key {
				if !strings.Contains(" kty crv x y n e kid use alg ", " "+member+" ") {
					t.Errorf("key %s has %s", kid, member)
				}
			}
			if kid != "" && !strings.HasPrefix(kid, "at-") && !strings.HasPrefix(kid, "mf-") && !strings.HasPrefix(kid, "rv-") {
				t.Errorf("key %s is for nobody", kid)
			}
		}
	}},
}

// withKey is the same agent with another identity key.
func (a *agent) withKey(k signingKey) *agent {
	b := *a
	b.Key = k
	return &b
}
