package authz_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/people"
)

// revocation is a registry with a person, two of her clients and two agents.
type revocation struct {
	*registryTest
	app, other             authz.Client
	appSecret, otherSecret string
	rev, sub               string // agents
	token                  string // of app
}

func newRevocation(t *testing.T) *revocation {
	rv := &revocation{registryTest: newRegistry(t)}
	rv.user("usr_alice", people.Member)
	rv.app, rv.appSecret = rv.client(authz.NewClient{ID: "app", RedirectURIs: []string{"https://app.example/"}})
	rv.other, rv.otherSecret = rv.client(authz.NewClient{ID: "other", RedirectURIs: []string{"https://other.example/"}})
	rv.client(authz.NewClient{ID: "public", Method: authz.MethodNone, RedirectURIs: []string{"https://public.example/"}})
	rv.rev, rv.sub = rv.agent("usr_alice", "rev"), rv.agent("usr_alice", "sub")
	rv.token = rv.accessToken("app", "g1")
	return rv
}

func (rv *revocation) accessToken(client, gid string) string {
	rv.Helper()
	return rv.registryTest.token("usr_alice", client, gid, []string{"kavach:delegate", "kavach:verify"})
}

func (rv *revocation) asApp(token string, more ...string) reply {
	form := url.Values{"token": {token}}
	if len(more) > 0 {
		form.Set("token_type_hint", more[0])
	}
	return post(rv.HandleRevoke, form, rv.app.ID, rv.appSecret)
}

func (rv *revocation) asOther(token string) reply {
	return post(rv.HandleRevoke, url.Values{"token": {token}}, rv.other.ID, rv.otherSecret)
}

func wantDone(t *testing.T, what string, a reply) {
	t.Helper()
	if a.status != http.StatusOK || a.body != "{}\n" {
		t.Errorf("%s: %d %s", what, a.status, a.body)
	}
}

func TestRevokingAnAccessTokenEndsItAndWhatIsBelowItOnly(t *testing.T) {
	rv := newRevocation(t)
	refresh := rv.refreshToken("usr_alice", "app", "g1", "kavach:verify")
	sibling := rv.accessToken("app", "g1")
	child := rv.delegate(rv.token, rv.rev, "kavach:verify", "kavach:delegate")
	grandchild := rv.delegate(child, rv.sub, "kavach:verify")
	beside := rv.delegate(sibling, rv.rev, "kavach:verify")
	wantDone(t, "revoke", rv.asApp(rv.token))
	for name, token := range map[string]string{"itself": rv.token, "child": child, "grandchild": grandchild} {
		if !rv.dead(token) {
			t.Errorf("%s lives", name)
		}
	}
	for name, token := range map[string]string{"sibling": sibling, "child of the sibling": beside} {
		if rv.dead(token) {
			t.Errorf("%s is dead", name)
		}
	}
	// the refresh token goes on working.
	if got := post(rv.HandleIntrospect, url.Values{"token": {refresh}}, rv.app.ID, rv.appSecret).json(t); got["active"] != true {
		t.Error("the refresh token is dead")
	}
	wantDone(t, "again", rv.asApp(rv.token))
	entries := rv.records(audit.Revoke)
	if len(entries) != 2 || entries[0].Agent != "app" || entries[0].Resource != rv.chain(rv.token).LID() || len(entries[0].Chain) != 1 {
		t.Errorf("records %+v", entries)
	}
}

func TestRevokingARefreshTokenEndsItsGrant(t *testing.T) {
	for _, hint := range []string{"refresh_token", "access_token", "nonsense", ""} {
		rv := newRevocation(t)
		refresh := rv.refreshToken("usr_alice", "app", "g1", "kavach:verify")
		child := rv.delegate(rv.token, rv.rev, "kavach:verify")
		stranger := rv.accessToken("app", "g2")
		wantDone(t, "hint "+hint, rv.asApp(refresh, hint))
		if !rv.dead(rv.token) || !rv.dead(child) {
			t.Errorf("hint %q: a token of the grant lives", hint)
		}
		if rv.dead(stranger) {
			t.Errorf("hint %q: a token of another grant is dead", hint)
		}
		wantInactive(t, "the refresh token", post(rv.HandleIntrospect, url.Values{"token": {refresh}}, rv.app.ID, rv.appSecret))
		grant, err := rv.store.Grant(context.Background(), "g1")
		must(t, err)
		if grant.Live(rv.clock.now()) {
			t.Error("the grant lives")
		}
		wantDone(t, "again", rv.asApp(refresh))
	}
}

func TestTokensOfOthersAreNotRevoked(t *testing.T) {
	rv := newRevocation(t)
	refresh := rv.refreshToken("usr_alice", "app", "g1", "kavach:verify")
	child := rv.delegate(rv.token, rv.rev, "kavach:verify")
	for name, token := range map[string]string{"access": rv.token, "refresh": refresh, "delegated": child} {
		wantRefusal(t, rv.asOther(token), http.StatusBadRequest, "invalid_grant")
		wantRefusal(t, post(rv.HandleRevoke, url.Values{"token": {token}, "client_id": {"public"}}), http.StatusBadRequest, "invalid_grant")
		if name != "refresh" && rv.dead(token) {
			t.Errorf("%s is dead", name)
		}
	}
	if n := len(rv.records(audit.Revoke)); n < 3 {
		t.Errorf("%d records, want at least those of the client that authenticated", n)
	}
	for _, e := range rv.records(audit.Revoke) {
		if e.Result != audit.Denied || e.Reason != "invalid_grant" {
			t.Errorf("record %+v", e)
		}
	}
	// The client above may end what it handed on.
	wantDone(t, "the client above", rv.asApp(child))
	if !rv.dead(child) || rv.dead(rv.token) {
		t.Error("revoking a child must end the child alone")
	}
	// What is dead is nobody's.
	wantDone(t, "dead token of another", rv.asOther(child))
}

func TestUnknownTokensAreRevokedAlready(t *testing.T) {
	rv := newRevocation(t)
	for name, token := range map[string]string{
		"garbage": "garbage", "dots": "a.b.c", "chain": "a.b.c~d.e.f", "cut": rv.token[:len(rv.token)-1], "SQL": "' OR 1=1--",
	} {
		wantDone(t, name, rv.asApp(token))
	}
	rv.clock.advance(time.Hour)
	wantDone(t, "expired", rv.asApp(rv.token))
	wantRefusal(t, rv.asApp(""), http.StatusBadRequest, "invalid_request")
	wantRefusal(t, post(rv.HandleRevoke, url.Values{"token": {"x"}}), http.StatusUnauthorized, "invalid_client")
	wantRefusal(t, post(rv.HandleRevoke, url.Values{"token": {"x"}}, "app", "wrong"), http.StatusUnauthorized, "invalid_client")
	rv.waitFor(audit.Revoke, "invalid_client")
}

func TestPublicClientsRevokeTheirOwn(t *testing.T) {
	rv := newRevocation(t)
	token := rv.accessToken("public", "g5")
	wantDone(t, "public", post(rv.HandleRevoke, url.Values{"token": {token}, "client_id": {"public"}}))
	if !rv.dead(token) {
		t.Error("it lives")
	}
}

func TestRevocationDoesNotGuess(t *testing.T) {
	rv := newRevocation(t)
	refresh := rv.refreshToken("usr_alice", "app", "g1", "kavach:verify")
	rv.asApp("warm the cache of clients")
	rv.store.away.Store(true)
	wantRefusal(t, rv.asApp(refresh), http.StatusServiceUnavailable, "temporarily_unavailable")
	rv.store.away.Store(false)
	if rv.dead(rv.token) {
		t.Error("a 503 revoked")
	}
}

func TestRevocationStandsWhenOnlyTheLogRefuses(t *testing.T) {
	rv := newRevocation(t)
	rv.log.fail(fmt.Errorf("x: %w", audit.ErrUnrecorded))
	a := rv.asApp(rv.token)
	if a.status != http.StatusOK || a.body != `{"recorded":false}`+"\n" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// A Change that lost and had no Else, or whose last Else lost too, has written
// nothing.
func TestRevocationIsEnforcedFromMemoryWhenItsChangeIsLost(t *testing.T) {
	rv := newRevocation(t)
	rv.log.fail(&audit.LostError{})
	wantRefusal(t, rv.asApp(rv.token), http.StatusServiceUnavailable, "temporarily_unavailable")
	if !rv.dead(rv.token) || rv.HeldRevocations() != 1 {
		t.Error("the process does not enforce what it did not write")
	}
}

func TestRevocationIsEnforcedFromMemoryWhenNothingCanBeWritten(t *testing.T) {
	rv := newRevocation(t)
	child := rv.delegate(rv.token, rv.rev, "kavach:verify")
	rv.log.fail(audit.ErrUnavailable)
	for range 3 { // who comes again, as a 503 says, is held once
		wantRefusal(t, rv.asApp(rv.token), http.StatusServiceUnavailable, "temporarily_unavailable")
	}
	if !rv.dead(rv.token) || !rv.dead(child) || rv.HeldRevocations() != 1 {
		t.Error("the process does not enforce what it could not write")
	}
	if err := sweep(rv.log, rv.Registry); err == nil {
		t.Error("a sweep that cannot write says nothing")
	}
	rv.log.fail(nil)
	must(t, sweep(rv.log, rv.Registry))
	if rv.HeldRevocations() != 0 || len(rv.records(audit.Revoke)) != 1 {
		t.Error("the sweep did not write what was held")
	}
	// Another process sees it now.
	again, err := authz.NewRegistry(authz.RegistryConfig{
		Issuer: testIssuer, Store: rv.store, Commit: rv.log, Refusals: rv.log, Keys: rv.keys, Now: rv.clock.now,
	})
	must(t, err)
	dead, err := again.Revoked(context.Background(), rv.chain(child))
	must(t, err)
	if !dead {
		t.Error("another process accepts it")
	}
}

func TestRevokedIsAnErrorWhenNobodyKnows(t *testing.T) {
	rv := newRevocation(t)
	rv.store.away.Store(true)
	if dead, err := rv.Revoked(context.Background(), rv.chain(rv.token)); err == nil || dead {
		t.Errorf("%v, %v", dead, err)
	}
}

func TestEveryKindOfRevocationReachesEveryLinkOfAChain(t *testing.T) {
	build := func(rv *revocation) (chain string, ids map[string]authz.Revocation) {
		root, middle, leaf := holderKey(rv.T), holderKey(rv.T), holderKey(rv.T)
		signed := rv.sign(delegation.Claims{
			Subject: "usr_alice", ClientID: "app", GrantID: "g1", Scopes: []string{"kavach:verify"},
			Root: true, MaxDepth: 3, Key: root.Public(), Expires: rv.clock.now().Add(5 * time.Minute),
			Ancestry: []string{strings.Repeat("L", 43), strings.Repeat("K", 43)},
		}, authz.AlgEd25519)
		one := rv.derive(signed.Token, root, middle.Public(), rv.rev)
		two := rv.derive(one, middle, leaf.Public(), "somebody")
		c := rv.chain(two)
		ids = map[string]authz.Revocation{
			"grant":              {Kind: authz.RevokeGrant, Value: "g1"},
			"client":             {Kind: authz.RevokeClient, Value: "app"},
			"principal":          {Kind: authz.RevokeClient, Value: "usr_alice"},
			"named in a link":    {Kind: authz.RevokeClient, Value: rv.rev},
			"asserted in a link": {Kind: authz.RevokeClient, Value: "somebody"},
			"ancestor":           {Kind: authz.RevokeLink, Value: strings.Repeat("L", 43)},
			"ancestor's key":     {Kind: authz.RevokeKey, Value: strings.Repeat("K", 43)},
			"root's key":         {Kind: authz.RevokeKey, Value: root.Public().Thumbprint()},
			"middle key":         {Kind: authz.RevokeKey, Value: middle.Public().Thumbprint()},
			"leaf's key":         {Kind: authz.RevokeKey, Value: leaf.Public().Thumbprint()},
		}
		for i, l := range c.Links() {
			ids[fmt.Sprintf("link %d", i)] = authz.Revocation{Kind: authz.RevokeLink, Value: l.LID}
		}
		return two, ids
	}
	rv := newRevocation(t)
	_, ids := build(rv)
	for name := range ids {
		chain, ids := build(rv)
		if rv.dead(chain) {
			t.Fatalf("%s: dead before", name)
		}
		r := ids[name]
		r.At, r.Until = rv.clock.now(), rv.clock.now().Add(time.Minute)
		rv.commit(rv.store.Revoke(r))
		if !rv.dead(chain) {
			t.Errorf("%s: the chain lives", name)
		}
		rv.exec(`DELETE FROM revocations`)
	}
	// The kinds are not mixed up, and an expired row counts for nothing.
	chain, ids := build(rv)
	rv.commit(
		rv.store.Revoke(authz.Revocation{Kind: authz.RevokeGrant, Value: ids["link 0"].Value, At: rv.clock.now()}),
		rv.store.Revoke(authz.Revocation{Kind: authz.RevokeLink, Value: "g1", At: rv.clock.now()}),
		rv.store.Revoke(authz.Revocation{Kind: authz.RevokeKey, Value: "app", At: rv.clock.now()}),
		rv.store.Revoke(authz.Revocation{Kind: authz.RevokeLink, Value: ids["link 1"].Value, At: rv.clock.now(), Until: rv.clock.now()}),
	)
	if rv.dead(chain) {
		t.Error("a revocation of another kind, or an expired one, ends the chain")
	}
}

func TestRevocationsLastAsLongAsTheLongest(t *testing.T) {
	rv := newRevocation(t)
	at := func(until time.Duration) authz.Revocation {
		r := authz.Revocation{Kind: authz.RevokeGrant, Value: "g1", At: rv.clock.now()}
		if until > 0 {
			r.Until = rv.clock.now().Add(until)
		}
		return r
	}
	rv.commit(rv.store.Revoke(at(time.Minute)))
	rv.commit(rv.store.Revoke(at(time.Second)))
	rv.clock.advance(30 * time.Second)
	must(t, sweep(rv.log, rv.Registry))
	if !rv.dead(rv.token) {
		t.Error("a shorter revocation replaced a longer one")
	}
	rv.commit(rv.store.Revoke(at(0)))
	rv.commit(rv.store.Revoke(at(time.Second)))
	rv.clock.advance(2 * time.Minute)
	must(t, sweep(rv.log, rv.Registry))
	if !rv.dead(rv.token) {
		t.Error("one without an end ended")
	}
}

func TestTheToolRevokesWhatIsBelowTheCaller(t *testing.T) {
	ctx := context.Background()
	rv := newRevocation(t)
	mine := rv.chain(rv.token)
	child := rv.delegate(rv.token, rv.rev, "kavach:verify", "kavach:delegate")
	grandchild := rv.delegate(child, rv.sub, "kavach:verify")
	lid := rv.chain(child).LID()
	done, err := rv.Revoke(ctx, mine, authz.RevokeTarget{TokenID: lid})
	must(t, err)
	if !slices.Equal(done.Revoked, []string{lid}) || done.Below != 1 || !done.Recorded {
		t.Errorf("%+v", done)
	}
	if !rv.dead(child) || !rv.dead(grandchild) || rv.dead(rv.token) {
		t.Error("revoking a child must end its subtree and nothing else")
	}
	// By the link itself: what the log does not know.
	root, holder := holderKey(t), holderKey(t)
	signed := rv.sign(delegation.Claims{
		Subject: "usr_alice", ClientID: "app", GrantID: "g1", Scopes: []string{"kavach:verify"},
		Root: true, MaxDepth: 2, Key: root.Public(), Expires: rv.clock.now().Add(5 * time.Minute),
	}, authz.AlgEd25519)
	offline := rv.derive(signed.Token, root, holder.Public(), rv.rev)
	done, err = rv.Revoke(ctx, mine, authz.RevokeTarget{Chain: offline})
	must(t, err)
	if !slices.Equal(done.Revoked, []string{rv.chain(offline).LID()}) || !rv.dead(offline) || rv.dead(signed.Token) {
		t.Errorf("%+v", done)
	}
	// A later token of the same client and grant is as good as the first.
	later := rv.delegate(rv.token, rv.sub, "kavach:verify")
	rv.clock.advance(time.Second)
	_, err = rv.Revoke(ctx, rv.chain(rv.accessToken("app", "g1")), authz.RevokeTarget{TokenID: rv.chain(later).LID()})
	must(t, err)
	// Itself.
	_, err = rv.Revoke(ctx, mine, authz.RevokeTarget{TokenID: mine.LID()})
	must(t, err)
	if !rv.dead(rv.token) {
		t.Error("it lives")
	}
	for _, e := range rv.records(audit.Revoke) {
		if e.Result != audit.Allowed || e.Sub != "usr_alice" || e.Grant != "g1" || len(e.Chain) == 0 || e.Detail["via"] != "mcp" {
			t.Errorf("record %+v", e)
		}
	}
}

func TestTheToolRevokesEverythingOfAnAgent(t *testing.T) {
	ctx := context.Background()
	rv := newRevocation(t)
	var toRev []string
	for range 50 { // more than fit in one record
		toRev = append(toRev, rv.delegate(rv.token, rv.rev, "kavach:verify", "kavach:delegate"))
	}
	beneath := rv.delegate(toRev[0], rv.sub, "kavach:verify")
	beside := rv.delegate(rv.token, rv.sub, "kavach:verify")
	elsewhere := rv.delegate(rv.accessToken("app", "g2"), rv.rev, "kavach:verify")
	done, err := rv.Revoke(ctx, rv.chain(rv.token), authz.RevokeTarget{Agent: rv.rev})
	must(t, err)
	if len(done.Revoked) != 50 || done.Below != 1 || !done.Recorded {
		t.Errorf("%d revoked, %d below, %v", len(done.Revoked), done.Below, done.Recorded)
	}
	for i, token := range append(toRev, beneath) {
		if !rv.dead(token) {
			t.Errorf("token %d lives", i)
		}
	}
	if rv.dead(beside) || rv.dead(elsewhere) || rv.dead(rv.token) {
		t.Error("something else is dead")
	}
	// By name, among the agents of the person behind the caller.
	done, err = rv.Revoke(ctx, rv.chain(rv.token), authz.RevokeTarget{Agent: "sub"})
	must(t, err)
	if len(done.Revoked) != 2 || !rv.dead(beside) {
		t.Errorf("by name: %+v", done)
	}
	// Nothing left: done, and recorded.
	done, err = rv.Revoke(ctx, rv.chain(rv.accessToken("app", "g3")), authz.RevokeTarget{Agent: rv.rev})
	must(t, err)
	if len(done.Revoked) != 0 {
		t.Errorf("%+v", done)
	}
}

func TestTheToolRevokesNothingElse(t *testing.T) {
	ctx := context.Background()
	rv := newRevocation(t)
	child := rv.delegate(rv.token, rv.rev, "kavach:verify", "kavach:delegate")
	sibling := rv.delegate(rv.token, rv.sub, "kavach:verify", "kavach:delegate")
	grandchild := rv.delegate(sibling, rv.rev, "kavach:verify")
	foreign := rv.delegate(rv.accessToken("other", "g7"), rv.rev, "kavach:verify")
	expired := rv.delegate(rv.token, rv.rev, "kavach:verify")
	lid := func(token string) string { return rv.chain(token).LID() }
	expiredLID := lid(expired)
	caller := rv.chain(child)
	for name, target := range map[string]authz.RevokeTarget{
		"its parent":               {TokenID: lid(rv.token)},
		"its parent, by token":     {Chain: rv.token},
		"its sibling":              {TokenID: lid(sibling)},
		"below its sibling":        {TokenID: lid(grandchild)},
		"below its sibling, token": {Chain: grandchild},
		"another grant's":          {TokenID: lid(foreign)},
		"another grant's, token":   {Chain: foreign},
		"nothing known":            {TokenID: strings.Repeat("x", 43)},
		"SQL":                      {TokenID: "' OR 1=1--"},
		"garbage":                  {Chain: "a.b.c~d"},
		"no target":                {},
		"two targets":              {TokenID: lid(sibling), Agent: rv.sub},
		"no agent":                 {Agent: "nobody"},
	} {
		_, err := rv.Revoke(ctx, caller, target)
		var refused *authz.Error
		if !errors.As(err, &refused) || refused.Status != http.StatusBadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, token := range map[string]string{"parent": rv.token, "sibling": sibling, "grandchild": grandchild, "foreign": foreign} {
		if rv.dead(token) {
			t.Errorf("%s is dead", name)
		}
	}
	entries := rv.records(audit.Revoke)
	if len(entries) != 13 || slices.ContainsFunc(entries, func(e audit.Entry) bool { return e.Result != audit.Denied }) {
		t.Errorf("%d records", len(entries))
	}
	// What has expired is not there any more.
	rv.clock.advance(6 * time.Minute)
	if _, err := rv.Revoke(ctx, rv.chain(rv.token), authz.RevokeTarget{TokenID: expiredLID}); err == nil {
		t.Error("an expired token is revoked")
	}
}

func TestReplaysAreCaughtUntilTheyExpire(t *testing.T) {
	ctx := context.Background()
	rv := newRevocation(t)
	once := func() error {
		return rv.log.Commit(ctx, audit.Change{Effects: []audit.Effect{rv.store.Once("key", rv.clock.now().Add(time.Minute))}})
	}
	must(t, once())
	if err := once(); !errors.Is(err, audit.ErrConflict) {
		t.Errorf("twice: %v", err)
	}
	must(t, sweep(rv.log, rv.Registry))
	if err := once(); !errors.Is(err, audit.ErrConflict) {
		t.Errorf("after a sweep: %v", err)
	}
	rv.clock.advance(2 * time.Minute)
	must(t, sweep(rv.log, rv.Registry))
	must(t, once())
}

func TestAChainTooLongForARecordDoesNotEscapeIt(t *testing.T) {
	rv := newRevocation(t)
	name := strings.Repeat("n", 250)
	holder := holderKey(t)
	var anc []string
	for i := range 32 {
		anc = append(anc, fmt.Sprintf("%0128d", i))
	}
	token := rv.sign(delegation.Claims{
		Subject: "usr_alice", ClientID: "app", GrantID: "g1", Scopes: []string{"kavach:verify"},
		Root: true, MaxDepth: 8, Key: holder.Public(), Expires: rv.clock.now().Add(5 * time.Minute), Ancestry: anc,
	}, authz.AlgEd25519).Token
	for i := range 8 {
		next := holderKey(t)
		token = rv.derive(token, holder, next.Public(), name+fmt.Sprint(i))
		holder = next
	}
	ask := func() reply { return post(rv.HandleIntrospect, url.Values{"token": {token}}, rv.app.ID, rv.appSecret) }
	if a := ask(); a.status != http.StatusOK || a.json(t)["active"] != true {
		t.Fatalf("introspection: %d %s", a.status, a.body)
	}
	wantDone(t, "revocation", rv.asApp(token))
	if !rv.dead(token) || rv.HeldRevocations() != 0 {
		t.Error("it was not revoked")
	}
	for _, action := range []string{audit.TokenIntrospect, audit.Revoke} {
		entries := rv.records(action)
		if len(entries) != 1 || len(entries[0].Chain) != 9 || entries[0].Chain[8].LID != rv.chain(token).LID() ||
			entries[0].Detail["shortened"] != true {
			t.Errorf("%s: %+v", action, entries)
		}
	}
}
