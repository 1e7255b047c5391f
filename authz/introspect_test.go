package authz_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/people"
)

// introspection is a registry with a person, a client of hers, a resource
// server and a stranger.
type introspection struct {
	*registryTest
	app, rs, stranger          authz.Client
	appSecret, rsSecret, other string
	token                      string
}

const readScope = "repository:read"

func newIntrospection(t *testing.T) *introspection {
	it := &introspection{registryTest: newRegistry(t)}
	it.user("usr_alice", people.Member)
	it.app, it.appSecret = it.client(authz.NewClient{ID: "app", RedirectURIs: []string{"https://app.example/"}})
	it.rs, it.rsSecret = it.client(authz.NewClient{ID: "git-rs", Method: authz.MethodPost, Scopes: []string{"audit:write"}})
	it.stranger, it.other = it.client(authz.NewClient{ID: "stranger", Scopes: []string{"audit:read"}})
	r := gitResource()
	r.Introspector = it.rs.ID
	must(t, it.AddResource(context.Background(), cli, r))
	it.token = it.registryTest.token("usr_alice", "app", "g1", []string{readScope}, "https://git.example/api")
	return it
}

func (it *introspection) asApp(token string) reply {
	return post(it.HandleIntrospect, url.Values{"token": {token}}, it.app.ID, it.appSecret)
}

func (it *introspection) asRS(token string) reply {
	return post(it.HandleIntrospect, url.Values{"token": {token}, "client_id": {it.rs.ID}, "client_secret": {it.rsSecret}})
}

func (it *introspection) asStranger(token string) reply {
	return post(it.HandleIntrospect, url.Values{"token": {token}}, it.stranger.ID, it.other)
}

const inactiveBody = `{"active":false}` + "\n"

func wantInactive(t *testing.T, what string, a reply) {
	t.Helper()
	if a.status != http.StatusOK || a.body != inactiveBody {
		t.Errorf("%s: %d %s", what, a.status, a.body)
	}
}

func TestOwnerAndAudienceMayAskAboutAToken(t *testing.T) {
	it := newIntrospection(t)
	for who, a := range map[string]reply{"owner": it.asApp(it.token), "audience": it.asRS(it.token)} {
		if a.status != http.StatusOK || a.header.Get("Cache-Control") != "no-store" {
			t.Fatalf("%s: %d %s", who, a.status, a.body)
		}
		got := a.json(t)
		if jti, _ := got["jti"].(string); len(jti) != 36 {
			t.Errorf("jti %v", got["jti"])
		}
		delete(got, "jti")
		want := map[string]any{}
		must(t, json.Unmarshal([]byte(`{"active": true, "iss": "https://auth.example", "sub": "usr_alice", "client_id": "app",
			"aud": ["https://git.example/api"], "scope": "repository:read", "token_type": "Bearer",
			"exp": 1800000600, "iat": 1800000000, "gid": "g1"}`), &want))
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s\n got %v\nwant %v", who, got, want)
		}
	}
	wantInactive(t, "a stranger", it.asStranger(it.token))
	entries := it.records(audit.TokenIntrospect)
	if len(entries) != 3 || entries[2].Agent != "stranger" || entries[2].Reason != "not_owner" || entries[2].Result != audit.Denied {
		t.Errorf("records %+v", entries)
	}
}

func TestOnlyClientsThatAuthenticateMayAsk(t *testing.T) {
	it := newIntrospection(t)
	public, _ := it.client(authz.NewClient{ID: "public", Method: authz.MethodNone, RedirectURIs: []string{"https://p.example/"}})
	form := url.Values{"token": {it.token}}
	wantRefusal(t, post(it.HandleIntrospect, form), http.StatusUnauthorized, "invalid_client")
	wantRefusal(t, post(it.HandleIntrospect, form, it.app.ID, "wrong"), http.StatusUnauthorized, "invalid_client")
	wantRefusal(t, post(it.HandleIntrospect, url.Values{"token": {it.token}, "client_id": {public.ID}}), http.StatusUnauthorized, "invalid_client")
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Authorization", "Bearer "+it.token)
	wantRefusal(t, serve(it.HandleIntrospect, r), http.StatusUnauthorized, "invalid_client")
	it.waitFor(audit.TokenIntrospect, "invalid_client")

	// §3b: a client that registered itself does not introspect.
	reg := it.register(`{"redirect_uris": ["https://c.example/cb"]}`).json(t)
	wantRefusal(t, post(it.HandleIntrospect, form, fmt.Sprint(reg["client_id"]), fmt.Sprint(reg["client_secret"])),
		http.StatusBadRequest, "unauthorized_client")

	wantRefusal(t, post(it.HandleIntrospect, url.Values{}, it.app.ID, it.appSecret), http.StatusBadRequest, "invalid_request")
	wantRefusal(t, post(it.HandleIntrospect, url.Values{"token": {"a", "b"}}, it.app.ID, it.appSecret), http.StatusBadRequest, "invalid_request")
}

func TestWhatIsNoLiveTokenIsInactiveAndNothingElse(t *testing.T) {
	it := newIntrospection(t)
	good := it.token
	for name, token := range map[string]string{
		"garbage":          "garbage",
		"dots":             "...",
		"500,000 dots":     strings.Repeat(".", 50000),
		"cut signature":    good[:len(good)-2],
		"flipped":          good[:len(good)-3] + "xxx",
		"alg none":         "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0." + strings.Split(good, ".")[1] + ".",
		"chain of a plain": good + "~" + good,
		"SQL":              "' OR 1=1--",
		"the hash":         authz.HashSecret("x"),
	} {
		wantInactive(t, name, it.asApp(token))
		wantInactive(t, name, it.asRS(token))
	}
	// 1 MB: who authenticates by header is told the same.
	wantInactive(t, "1 MB", it.asApp(strings.Repeat("x", 1<<20)))
	it.clock.advance(10 * time.Minute)
	wantInactive(t, "expired", it.asApp(good))
}

func TestIntrospectionSeesWhatEndedSinceTheTokenWasIssued(t *testing.T) {
	for name, end := range map[string]func(*introspection){
		"its person is disabled": func(it *introspection) { it.exec(`UPDATE users SET disabled = 1`) },
		"its person is gone":     func(it *introspection) { it.exec(`DELETE FROM users`) },
		"its client is disabled": func(it *introspection) { it.exec(`UPDATE clients SET disabled = 1 WHERE id = 'app'`) },
		"its client is gone":     func(it *introspection) { it.exec(`DELETE FROM clients WHERE id = 'app'`) },
		"its grant is revoked": func(it *introspection) {
			it.commit(it.store.Revoke(authz.Revocation{Kind: authz.RevokeGrant, Value: "g1", At: it.clock.now()}))
		},
		"it is revoked": func(it *introspection) {
			it.commit(it.store.Revoke(authz.Revocation{Kind: authz.RevokeLink, Value: it.chain(it.token).LID(), At: it.clock.now()}))
		},
		"its client is revoked": func(it *introspection) {
			it.commit(it.store.Revoke(authz.Revocation{Kind: authz.RevokeClient, Value: "app", At: it.clock.now()}))
		},
		"its person lost the scope": func(it *introspection) {
			it.exec(`UPDATE scopes SET roles = '["operator"]' WHERE name = $1`, readScope)
			it.clock.advance(time.Second)
		},
		"its resource is gone": func(it *introspection) {
			must(it.T, it.RemoveResource(context.Background(), cli, "https://git.example/api"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			it := newIntrospection(t)
			if a := it.asRS(it.token); a.json(t)["active"] != true {
				t.Fatalf("before: %s", a.body)
			}
			end(it)
			wantInactive(t, "after", it.asRS(it.token))
		})
	}
}

func TestALostRoleShrinksTheScope(t *testing.T) {
	it := newIntrospection(t)
	it.user("usr_bob", people.Auditor)
	token := it.registryTest.token("usr_bob", "app", "g2", []string{"audit:read", "kavach:verify"})
	if got := it.asApp(token).json(t)["scope"]; got != "audit:read kavach:verify" {
		t.Errorf("scope %v", got)
	}
	it.exec(`UPDATE users SET role = 'member' WHERE id = 'usr_bob'`)
	if got := it.asApp(token).json(t)["scope"]; got != "kavach:verify" {
		t.Errorf("scope of a member %v", got)
	}
}

func TestIntrospectionOfDelegatedAndBoundTokens(t *testing.T) {
	it := newIntrospection(t)
	rev := it.agent("usr_alice", "rev")
	sub := it.delegate(it.token, rev, readScope)
	got := it.asRS(sub).json(t)
	act, err := json.Marshal(got["act"])
	must(t, err)
	if got["active"] != true || got["client_id"] != rev || string(act) != `{"act":{"sub":"app"},"sub":"`+rev+`"}` {
		t.Errorf("%v", got)
	}
	// Who handed it on is not its owner.
	wantInactive(t, "the client above", it.asApp(sub))

	key := holderKey(t)
	bound := it.sign(delegation.Claims{
		Subject: "usr_alice", ClientID: "app", GrantID: "g1", Scopes: []string{readScope},
		Audience: []string{"https://git.example/api"}, JKT: key.Public().Thumbprint(),
	}, authz.AlgES256)
	got = it.asRS(bound.Token).json(t)
	if got["token_type"] != "DPoP" || fmt.Sprint(got["cnf"]) != "map[jkt:"+key.Public().Thumbprint()+"]" {
		t.Errorf("%v", got)
	}
	// A suspended agent's token ends at once.
	it.exec(`UPDATE agents SET status = 'suspended'`)
	wantInactive(t, "suspended", it.asRS(sub))
}

func TestRefreshTokensAreShownToTheirOwnerOnly(t *testing.T) {
	it := newIntrospection(t)
	refresh := it.refreshToken("usr_alice", "app", "g9", readScope)
	got := it.asApp(refresh).json(t)
	if got["active"] != true || got["client_id"] != "app" || got["scope"] != readScope || got["token_type"] != nil || got["exp"] != float64(1800003600) {
		t.Errorf("%v", got)
	}
	wantInactive(t, "a resource server", it.asRS(refresh))
	wantInactive(t, "a stranger", it.asStranger(refresh))
	it.commit(it.store.UseRefreshToken(authz.HashSecret(refresh), it.clock.now()))
	wantInactive(t, "used", it.asApp(refresh))
}

func TestIntrospectionNeverGuesses(t *testing.T) {
	it := newIntrospection(t)
	refresh := it.refreshToken("usr_alice", "app", "g9", readScope)
	it.asApp(it.token) // the client is cached now, so that the token's look-up is what fails
	it.store.away.Store(true)
	for _, token := range []string{it.token, refresh} {
		wantRefusal(t, it.asApp(token), http.StatusServiceUnavailable, "temporarily_unavailable")
	}
	it.store.away.Store(false)
	it.log.fail(audit.ErrUnavailable)
	wantRefusal(t, it.asApp(it.token), http.StatusServiceUnavailable, "temporarily_unavailable")
	// A refusal is no more answered without its record than anything else.
	asked := post(it.HandleIntrospect, url.Values{}, it.app.ID, it.appSecret)
	wantRefusal(t, asked, http.StatusServiceUnavailable, "temporarily_unavailable")
	it.log.fail(nil)
	wantRefusal(t, post(it.HandleIntrospect, url.Values{}, it.app.ID, it.appSecret), http.StatusBadRequest, "invalid_request")
	if a := it.asApp(it.token); a.json(t)["active"] != true {
		t.Errorf("afterwards: %s", a.body)
	}
	for _, e := range it.records(audit.TokenIntrospect) {
		text := fmt.Sprint(e)
		if strings.Contains(text, it.token) || strings.Contains(text, refresh) || strings.Contains(text, "CANARY") {
			t.Error("a record holds what it must not")
		}
	}
}
