package authz_test

import (
	"crypto"
	"errors"
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
	"github.com/kavach-dev/kavach/wellknown"
)

// exec writes to the database behind everybody's back.
func (f *flows) exec(query string, args ...any) {
	f.t.Helper()
	rt := registryTest{T: f.t, dsn: f.dsn}
	rt.exec(query, args...)
}

// introspect asks about a token.
func (f *flows) introspect(id, secret, token string) map[string]any {
	f.t.Helper()
	a := post(f.registry.HandleIntrospect, url.Values{"token": {token}}, id, secret)
	if a.status != http.StatusOK {
		f.t.Fatalf("introspection: %d %s", a.status, a.body)
	}
	return a.json(f.t)
}

// A person who is disabled holds nothing any more, at once and on every path,
// and all of it again when enabled.
func TestADisabledPersonHoldsNothing(t *testing.T) {
	f := newFlows(t)
	id, secret := f.client(authz.NewClient{RedirectURIs: []string{callback}})
	b, p := f.signedIn("alice"), newProof()
	a := f.token(f.redeem(id, f.code(b, id, p, nil), p, nil), id, secret)
	p = newProof()
	waiting := f.code(b, id, p, nil)
	page := b.ask(f.request(f.public(), newProof(), nil))

	disabled := true
	f.change("alice", people.UserChange{Disabled: &disabled})
	if f.alive(a.str("access_token")) {
		t.Error("the access token still opens our own resources")
	}
	for _, token := range []string{a.str("access_token"), a.str("refresh_token")} {
		if got := f.introspect(id, secret, token); got["active"] != false || len(got) != 1 {
			t.Errorf("introspection: %v", got)
		}
	}
	f.wantError(f.token(refreshForm(id, a.str("refresh_token"), nil), id, secret), http.StatusBadRequest, "invalid_grant")
	f.wantError(f.token(f.redeem(id, waiting, p, nil), id, secret), http.StatusBadRequest, "invalid_grant")
	if f.recorded("revoked") != 4 {
		t.Errorf("%d records of it", f.recorded("revoked"))
	}
	if got := b.post("/consent", url.Values{"transaction": {page.transaction(t)}, "person": {page.person(t)}, "decision": {"approve"}, "scope": {"kavach:verify"}}); !strings.HasPrefix(got.location, "/login?") {
		t.Errorf("an open consent page: %d %s", got.status, got.location)
	}

	disabled = false
	f.change("alice", people.UserChange{Disabled: &disabled})
	if next := f.token(refreshForm(id, a.str("refresh_token"), nil), id, secret); next.status != http.StatusOK {
		t.Errorf("enabled again: %v", next)
	}
}

// Who loses the last of the granted scopes has nothing to refresh, and a
// refresh token that gives nothing is not active.
func TestALostRoleLeavesNothing(t *testing.T) {
	f := newFlows(t)
	f.user("olga", people.Operator)
	id, secret := f.client(authz.NewClient{RedirectURIs: []string{callback}})
	p := newProof()
	b, admin := f.signedIn("olga"), url.Values{"scope": {"kavach:admin"}}
	a := f.token(f.redeem(id, f.code(b, id, p, admin), p, nil), id, secret)
	page := b.authorize(f.request(f.public(), newProof(), admin))
	// The session ends with the role; olga signs in again in the same browser.
	role := people.Member
	f.change("olga", people.UserChange{Role: &role})
	b.login("olga", "/account")

	f.wantError(f.token(refreshForm(id, a.str("refresh_token"), nil), id, secret), http.StatusBadRequest, "invalid_grant")
	for _, token := range []string{a.str("access_token"), a.str("refresh_token")} {
		if got := f.introspect(id, secret, token); got["active"] != false {
			t.Errorf("introspection: %v", got)
		}
	}
	// The consent page that was open leads to the client with an error. It is
	// a page that navigates: form-action also governs where a form redirects.
	got := b.decide(page, "approve", "kavach:admin")
	if q := redirected(t, got); got.status != http.StatusOK || q.Get("error") != "access_denied" || q.Get("iss") != f.issuer || q.Get("state") != "st4te" {
		t.Errorf("an open consent page: %d %s", got.status, got.location)
	}
}

// feedNow is the revocation feed as a verifier reads it.
func (f *flows) feedNow() *delegation.Feed {
	f.t.Helper()
	get := func(h http.Handler, path string) []byte {
		f.t.Helper()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusOK {
			f.t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		}
		return w.Body.Bytes()
	}
	set, err := wellknown.ParseJWKS(get(f.registry.WellKnown(), wellknown.JWKSPath))
	must(f.t, err)
	feed, err := delegation.VerifyFeed(string(get(http.HandlerFunc(f.registry.HandleFeed), authz.FeedPath)), f.issuer,
		func(kid string) (crypto.PublicKey, bool) {
			for _, k := range set {
				if k.KID == kid {
					return k.Public, true
				}
			}
			return nil, false
		}, f.clock.now())
	must(f.t, err)
	return feed
}

// "Losing a role takes effect at the next refresh, introspection and feed": who
// reads the feed alone cannot know what a token still holds, and has to see
// another one.
func TestALostRoleIsInTheFeed(t *testing.T) {
	f := newFlows(t)
	olga := f.user("olga", people.Auditor)
	bot := f.program(olga, "bot", []string{"repo:read"}, "delegate")
	client, p := f.public(), newProof()
	form := f.redeem(client, f.code(f.signedIn("olga"), client, p, url.Values{"scope": {"kavach:verify audit:read"}}), p, nil)
	a := f.token(form)
	_, other := f.tokens(nil)
	mine := map[string]string{
		"the person's": a.str("access_token"), "the agent's": bot.signIn(holder(t), url.Values{"resource": {git}}),
	}
	change := func(role people.Role) {
		t.Helper()
		f.change("olga", people.UserChange{Role: &role})
	}
	f.clock.advance(10 * time.Second)
	if feed := f.feedNow(); feed.Revokes(f.chain(mine["the person's"])) {
		t.Fatal("before")
	}
	for _, role := range []people.Role{people.Member, people.Auditor, people.Member} {
		change(role)
		f.clock.advance(2 * time.Second)
		feed := f.feedNow()
		for name, token := range mine {
			if !feed.Revokes(f.chain(token)) {
				t.Errorf("%s: %s is not in the feed", role, name)
			}
			if !f.alive(token) {
				t.Errorf("%s: %s is dead here, where it is known what it still holds", role, name)
			}
		}
		if feed.Revokes(f.chain(other.str("access_token"))) {
			t.Errorf("%s: somebody else's is", role)
		}
		a = f.token(refreshForm(client, a.str("refresh_token"), nil))
		mine = map[string]string{"the person's": a.str("access_token"), "the agent's": bot.signIn(holder(t), url.Values{"resource": {git}})}
		for name, token := range mine {
			if f.feedNow().Revokes(f.chain(token)) {
				t.Errorf("%s: %s from after it is", role, name)
			}
		}
	}
	// What changes nothing ends nothing.
	change(people.Member)
	f.clock.advance(2 * time.Second)
	if f.feedNow().Revokes(f.chain(mine["the person's"])) {
		t.Error("the same role again")
	}
}

// A client that is disabled, removed or revoked is one that nobody knows: 401
// at the token endpoint, a page that says what to do at the other, and its
// tokens are dead.
func TestAClientThatIsGone(t *testing.T) {
	f := newFlows(t)
	b := f.signedIn("alice")
	for name, end := range map[string]string{
		"disabled": `UPDATE clients SET disabled = 1 WHERE id = $1`, "removed": `DELETE FROM clients WHERE id = $1`,
	} {
		client, a := f.tokens(nil)
		p := newProof()
		code := f.code(b, client, p, nil)
		open := b.ask(f.request(client, newProof(), url.Values{"scope": {"agents:manage"}}))
		f.exec(end, client)
		f.clock.advance(time.Second) // what was cached is stale
		for what, form := range map[string]url.Values{
			"refresh": refreshForm(client, a.str("refresh_token"), nil), "code": f.redeem(client, code, p, nil),
		} {
			got := f.token(form)
			f.wantError(got, http.StatusUnauthorized, "invalid_client")
			if !strings.HasPrefix(got.header.Get("WWW-Authenticate"), "Basic ") {
				t.Errorf("%s: %s: no challenge", name, what)
			}
		}
		page := b.get("/oauth/authorize?" + f.request(client, p, nil).Encode())
		wantPage(t, name, page)
		if !strings.Contains(page.body, "add it again") {
			t.Errorf("%s: the page does not say what to do\n%s", name, page.text())
		}
		if got := b.post("/consent", url.Values{"transaction": {open.transaction(t)}, "person": {open.person(t)}, "decision": {"approve"}, "scope": {"agents:manage"}}); got.status != http.StatusForbidden {
			t.Errorf("%s: an open consent page: %d", name, got.status)
		}
		if f.alive(a.str("access_token")) {
			t.Errorf("%s: its token lives", name)
		}
	}

	// A revocation that names the client ends its codes too.
	client, a := f.tokens(nil)
	p := newProof()
	code := f.code(b, client, p, nil)
	must(t, f.log.Commit(t.Context(), audit.Change{Effects: []audit.Effect{
		f.store.Revoke(authz.Revocation{Kind: authz.RevokeClient, Value: client, At: f.clock.now()}),
	}}))
	f.wantError(f.token(f.redeem(client, code, p, nil)), http.StatusBadRequest, "invalid_grant")
	f.wantError(f.token(refreshForm(client, a.str("refresh_token"), nil)), http.StatusBadRequest, "invalid_grant")
}

// A client that was revoked gets nothing on its own account either, at once, and
// nothing is bound to a key that was.
func TestARevokedClientGetsNothing(t *testing.T) {
	f := newFlows(t)
	id, secret := f.client(authz.NewClient{Scopes: []string{"kavach:verify"}})
	own := url.Values{"grant_type": {authz.GrantClientCredentials}}
	operator := authz.Holder{ID: "usr_root", Role: people.Operator, Active: true}
	end := func(e authz.Ending) {
		t.Helper()
		_, err := f.registry.End(t.Context(), byOperator, operator, e)
		must(t, err)
	}
	key := holder(t)
	bound := func() answer { return f.do(request{form: own, client: [2]string{id, secret}, proof: f.dpop(key, "")}) }
	if a := bound(); a.status != http.StatusOK {
		t.Fatalf("%d %v", a.status, a.body)
	}
	end(authz.Ending{Key: key.Public().Thumbprint()})
	f.wantError(bound(), http.StatusBadRequest, "invalid_grant")
	a := f.token(own, id, secret)
	if a.status != http.StatusOK {
		t.Fatalf("%d %v", a.status, a.body)
	}
	end(authz.Ending{Client: id})
	f.wantError(f.token(own, id, secret), http.StatusBadRequest, "invalid_grant")
	if f.alive(a.str("access_token")) {
		t.Error("its token lives")
	}
	if f.recorded("revoked") != 2 {
		t.Errorf("%d records that say revoked", f.recorded("revoked"))
	}
	must(t, f.registry.Lift(t.Context(), byOperator, authz.RevokeClient, id))
	if a := f.token(own, id, secret); a.status != http.StatusOK {
		t.Errorf("lifted: %d %v", a.status, a.body)
	}
}

// What the reuse of a token ends does not wait for a database that cannot be
// written: this process holds to it, and commits it when it can.
func TestReuseIsEnforcedFromMemory(t *testing.T) {
	f := newFlows(t)
	client, a := f.tokens(nil)
	second := f.token(refreshForm(client, a.str("refresh_token"), nil))
	f.clock.advance(30 * time.Second)

	f.log.fail(errors.New("the disk is full"))
	f.wantError(f.token(refreshForm(client, a.str("refresh_token"), nil)), http.StatusServiceUnavailable, "temporarily_unavailable")
	if f.alive(second.str("access_token")) {
		t.Error("the family lives while nothing can be written")
	}
	f.log.fail(nil)
	f.wantError(f.token(refreshForm(client, second.str("refresh_token"), nil)), http.StatusBadRequest, "invalid_grant")
	must(t, sweep(f.log, f.registry))
	if f.recorded("refresh_reuse") != 1 {
		t.Errorf("%d records of the reuse", f.recorded("refresh_reuse"))
	}
	// A dead grant is said to be one.
	before := f.recorded("revoked")
	f.wantError(f.token(refreshForm(client, second.str("refresh_token"), nil)), http.StatusBadRequest, "invalid_grant")
	if f.recorded("revoked") != before+1 {
		t.Error("the use of a revoked grant is not recorded as such")
	}

	// When only the log refuses, the end stands without its record.
	client, a = f.tokens(nil)
	f.token(refreshForm(client, a.str("refresh_token"), nil))
	f.clock.advance(30 * time.Second)
	f.log.fail(audit.ErrUnrecorded)
	f.wantError(f.token(refreshForm(client, a.str("refresh_token"), nil)), http.StatusBadRequest, "invalid_grant")
	f.log.fail(nil)
}

// The last moment of a grant is shorter than the shortest token.
func TestTheEndOfAGrantBetweenSeconds(t *testing.T) {
	f := newFlows(t)
	f.clock.advance(700 * time.Millisecond)
	client, a := f.tokens(nil)
	for range 3 {
		f.clock.advance(29 * 24 * time.Hour)
		a = f.token(refreshForm(client, a.str("refresh_token"), nil))
	}
	f.clock.advance(3*24*time.Hour - 500*time.Millisecond)
	f.wantError(f.token(refreshForm(client, a.str("refresh_token"), nil)), http.StatusBadRequest, "invalid_grant")
}
