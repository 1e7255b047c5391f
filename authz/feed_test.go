package authz_test

import (
	"context"
	"crypto"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/people"
	"github.com/kavach-dev/kavach/wellknown"
)

// getFeed asks for the feed as a verifier does.
func (rt *registryTest) getFeed(match ...string) reply {
	r := httptest.NewRequest(http.MethodGet, authz.FeedPath, nil)
	for _, etag := range match {
		r.Header.Set("If-None-Match", etag)
	}
	return serve(rt.HandleFeed, r)
}

// feed verifies the feed with the keys that the server publishes.
func (rt *registryTest) feed() *delegation.Feed {
	rt.Helper()
	a := rt.getFeed()
	if a.status != http.StatusOK {
		rt.Fatalf("the feed: %d %s", a.status, a.body)
	}
	w := httptest.NewRecorder()
	rt.WellKnown().ServeHTTP(w, httptest.NewRequest(http.MethodGet, wellknown.JWKSPath, nil))
	set, err := wellknown.ParseJWKS(w.Body.Bytes())
	must(rt.T, err)
	f, err := delegation.VerifyFeed(a.body, testIssuer, func(kid string) (crypto.PublicKey, bool) {
		for _, k := range set {
			if k.KID == kid {
				return k.Public, true
			}
		}
		return nil, false
	}, rt.clock.now())
	must(rt.T, err)
	return f
}

// root signs the root of a chain for alice's client, and returns its key.
func (rv *revocation) root(gid string) (string, agent.PrivateKey) {
	rv.Helper()
	key := holderKey(rv.T)
	return rv.sign(delegation.Claims{
		Subject: "usr_alice", ClientID: "app", GrantID: gid, Scopes: []string{"kavach:verify"}, Root: true, MaxDepth: 4,
		Key: key.Public(), Expires: rv.clock.now().Add(50 * time.Minute),
	}, authz.AlgEd25519).Token, key
}

// child derives a link offline and returns its key.
func (rv *revocation) child(parent string, key agent.PrivateKey) (string, agent.PrivateKey) {
	rv.Helper()
	next := holderKey(rv.T)
	return rv.derive(parent, key, next.Public(), "somebody"), next
}

// proved sends a request to revoke with nothing but a proof.
func (rv *revocation) proved(key agent.PrivateKey, form url.Values, change ...func(*agent.Proof)) reply {
	rv.Helper()
	p := agent.Proof{Method: http.MethodPost, URL: testIssuer + "/oauth/revoke", Token: form.Get("token"), IssuedAt: rv.clock.now()}
	for _, f := range change {
		f(&p)
	}
	proof, err := agent.SignProof(key, p)
	must(rv.T, err)
	return rv.withProof(proof, form)
}

func (rv *revocation) withProof(proof string, form url.Values) reply {
	r := httptest.NewRequest(http.MethodPost, "/oauth/revoke", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("DPoP", proof)
	return serve(rv.HandleRevoke, r)
}

func TestTheFeedIsServedToEverybody(t *testing.T) {
	rv := newRevocation(t)
	a := rv.getFeed()
	h := a.header
	if a.status != 200 || h.Get("Content-Type") != "application/jwt" || h.Get("Cache-Control") != "max-age=5" || h.Get("ETag") == "" ||
		h.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("%d %v", a.status, h)
	}
	if same := rv.getFeed(h.Get("ETag")); same.status != http.StatusNotModified || same.body != "" {
		t.Errorf("unchanged: %d", same.status)
	}
	// Unchanged it stays the same bytes for a while, and is never served without
	// half a minute left.
	first := rv.feed()
	for range 100 {
		rv.clock.advance(time.Second)
		f := rv.feed()
		if left := f.Expires().Sub(rv.clock.now()); left < 30*time.Second || f.Expires().Sub(f.IssuedAt()) != time.Minute {
			t.Fatalf("%s left", left)
		}
		if f.Older(first) {
			t.Fatal("it went back")
		}
		first = f
	}
	if again := rv.getFeed(h.Get("ETag")); again.status != 200 {
		t.Errorf("after 100 s: %d", again.status)
	}
	refused := serve(rv.HandleFeed, httptest.NewRequest(http.MethodPost, authz.FeedPath, nil))
	if refused.status != http.StatusMethodNotAllowed || refused.header.Get("Allow") == "" {
		t.Errorf("POST: %d", refused.status)
	}
	// A clock that was set back: nobody would take what came before.
	newest := rv.feed()
	rv.clock.advance(-10 * time.Second)
	wantDone(t, "revoke", rv.asApp(rv.token))
	if f := rv.feed(); f.Older(newest) || !f.Revokes(rv.chain(rv.token)) {
		t.Error("the feed went back with the clock")
	}
}

func TestTheFeedHoldsEveryKind(t *testing.T) {
	ctx := context.Background()
	operator := authz.Holder{ID: "usr_op", Role: "operator", Active: true}
	by := authz.Actor{Agent: audit.Operator, Via: "cli"}
	end := func(rv *revocation, e authz.Ending) {
		rv.Helper()
		recorded, err := rv.End(ctx, by, operator, e)
		must(rv.T, err)
		if !recorded {
			rv.Error("not recorded")
		}
	}
	for name, revoke := range map[string]func(rv *revocation, chain string, key agent.PrivateKey){
		"link":  func(rv *revocation, chain string, _ agent.PrivateKey) { wantDone(rv.T, "link", rv.asApp(chain)) },
		"grant": func(rv *revocation, _ string, _ agent.PrivateKey) { end(rv, authz.Ending{Grant: "g1"}) },
		"key": func(rv *revocation, _ string, key agent.PrivateKey) {
			end(rv, authz.Ending{Key: key.Public().Thumbprint()})
		},
		"client": func(rv *revocation, _ string, _ agent.PrivateKey) { end(rv, authz.Ending{Client: "app"}) },
		"issued": func(rv *revocation, _ string, _ agent.PrivateKey) { end(rv, authz.Ending{Grant: "g1", Issued: true}) },
		"all":    func(rv *revocation, _ string, _ agent.PrivateKey) { end(rv, authz.Ending{Issued: true}) },
		"person": func(rv *revocation, _ string, _ agent.PrivateKey) { rv.exec(`UPDATE users SET disabled = 1`) },
		"disabled client": func(rv *revocation, _ string, _ agent.PrivateKey) {
			rv.exec(`UPDATE clients SET disabled = 1 WHERE id = 'app'`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			rv := newRevocation(t)
			chain, key := rv.root("g1")
			other := rv.sign(delegation.Claims{Subject: "usr_bob", ClientID: "other", GrantID: "g2", Scopes: []string{"kavach:verify"}}, authz.AlgES256).Token
			if f := rv.feed(); f.Revokes(rv.chain(chain)) || f.Revokes(rv.chain(other)) {
				t.Fatal("it is in the feed already")
			}
			rv.clock.advance(time.Second)
			revoke(rv, chain, key)
			f := rv.feed()
			if !f.Revokes(rv.chain(chain)) || !rv.dead(chain) {
				t.Errorf("in the feed %v, here %v", f.Revokes(rv.chain(chain)), rv.dead(chain))
			}
			if name != "all" && f.Revokes(rv.chain(other)) {
				t.Error("the feed revokes somebody else's")
			}
			// What is issued afterwards lives where the grant goes on.
			rv.clock.advance(time.Second)
			if later, _ := rv.root("g1"); (name == "issued" || name == "all") && (rv.feed().Revokes(rv.chain(later)) || rv.dead(later)) {
				t.Error("what is issued later is dead too")
			}
		})
	}
}

// "`tok` and `gid`, each leaving 3600 s after it was revoked; `key` and `agent`,
// which stay until an operator lifts them".
func TestWhatEndsLeavesTheFeed(t *testing.T) {
	ctx := context.Background()
	rv := newRevocation(t)
	rv.user("usr_op", people.Operator)
	operator := authz.Holder{ID: "usr_op", Role: "operator", Active: true}
	by := authz.Actor{Agent: audit.Operator, Via: "cli"}
	chain, key := rv.root("g1")
	c := rv.chain(chain)
	wantDone(t, "revoke", rv.asApp(chain))
	for _, e := range []authz.Ending{{Grant: "g2"}, {Grant: "g3", Issued: true}} {
		_, err := rv.End(ctx, by, operator, e)
		must(t, err)
	}
	rv.clock.advance(time.Second)
	before := rv.feed()
	if !before.Revokes(c) {
		t.Fatal("not revoked")
	}
	rv.clock.advance(3598 * time.Second)
	must(t, sweep(rv.log, rv.Registry))
	if !rv.feed().Revokes(c) {
		t.Error("it left the feed before its hour")
	}
	rv.clock.advance(2 * time.Second)
	must(t, sweep(rv.log, rv.Registry))
	if f := rv.feed(); f.Revokes(c) || f.Seq() != before.Seq() {
		t.Errorf("in the feed after an hour: %v; seq %d, was %d", f.Revokes(c), f.Seq(), before.Seq())
	}
	_, err := rv.End(ctx, by, operator, authz.Ending{Key: key.Public().Thumbprint()})
	must(t, err)
	rv.clock.advance(100 * time.Hour)
	must(t, sweep(rv.log, rv.Registry))
	if !rv.feed().Revokes(c) {
		t.Error("a key left the feed by itself")
	}
	must(t, rv.Lift(ctx, by, authz.RevokeKey, key.Public().Thumbprint()))
	rv.clock.advance(2 * time.Second)
	must(t, sweep(rv.log, rv.Registry))
	f := rv.feed()
	if f.Revokes(c) || f.Seq() <= before.Seq() {
		t.Errorf("after it was lifted: %v, seq %d", f.Revokes(c), f.Seq())
	}
	if err := rv.Lift(ctx, by, authz.RevokeKey, key.Public().Thumbprint()); err == nil {
		t.Error("lifted twice")
	}
	for _, kind := range []authz.RevocationKind{authz.RevokeGrant, authz.RevokeLink, authz.RevokeBefore, authz.RevokeAgent} {
		if err := rv.Lift(ctx, by, kind, "g1"); err == nil {
			t.Errorf("%s was lifted", kind)
		}
	}
	if lifted := rv.records(audit.RevokeLift); len(lifted) != 2 || lifted[0].Result != audit.Allowed || lifted[1].Reason != "not_revoked" {
		t.Errorf("records %+v", lifted)
	}
	// Once more, and it is revoked again.
	_, err = rv.End(ctx, by, operator, authz.Ending{Key: key.Public().Thumbprint()})
	must(t, err)
	rv.clock.advance(2 * time.Second)
	if !rv.feed().Revokes(c) {
		t.Error("what was lifted cannot be revoked again")
	}
}

// What was issued until now can be ended again within the hour: each time what
// came since stays in the feed for as long as it could be alive.
func TestEndingWhatWasIssuedTwice(t *testing.T) {
	rv := newRevocation(t)
	by := authz.Actor{Agent: audit.Operator, Via: "cli"}
	operator := authz.Holder{ID: "usr_root", Role: people.Operator, Active: true}
	for _, what := range []authz.Ending{{Grant: "g1", Issued: true}, {Issued: true}} {
		_, err := rv.End(t.Context(), by, operator, what)
		must(t, err)
		rv.clock.advance(50 * time.Minute)
		since, _ := rv.root("g1") // for 50 minutes
		rv.clock.advance(time.Second)
		_, err = rv.End(t.Context(), by, operator, what)
		must(t, err)
		for range 2 {
			rv.clock.advance(20 * time.Minute)
			must(t, sweep(rv.log, rv.Registry))
			if c := rv.chain(since); !rv.dead(since) || !rv.feed().Revokes(c) {
				t.Errorf("%+v: what was issued before the second time: dead %t, in the feed %t", what, rv.dead(since), rv.feed().Revokes(c))
			}
		}
		rv.clock.advance(time.Hour)
	}
}

// "At most 64 `tok` per gid: an entry below a revoked link leaves the feed …, so
// revoking an ancestor always fits; a 65th that covers none → 429".
func TestSixtyFourLinksOfAGrant(t *testing.T) {
	rv := newRevocation(t)
	root, rootKey := rv.root("g1")
	middle, middleKey := rv.child(root, rootKey)
	var below []string
	for range 64 {
		link, _ := rv.child(middle, middleKey)
		below = append(below, link)
		wantDone(t, "one of 64", rv.asApp(link))
	}
	beside, _ := rv.child(root, rootKey)
	wantRefusal(t, rv.asApp(beside), http.StatusTooManyRequests, "feed_full")
	if rv.dead(beside) {
		t.Error("what was refused is dead")
	}
	records := rv.records(audit.Revoke)
	if last := records[len(records)-1]; last.Result != audit.Denied || last.Reason != "feed_full" {
		t.Errorf("record %+v", last)
	}
	wantDone(t, "one of them again", rv.asApp(below[0]))
	// Another grant has its own.
	other, _ := rv.root("g2")
	wantDone(t, "another grant", rv.asApp(other))
	// By its key it fits.
	wantDone(t, "the key", rv.proved(rootKey, url.Values{"token": {rootKey.Public().Thumbprint()}, "token_type_hint": {authz.TokenTypeKey}}))
	must(t, rv.Lift(t.Context(), authz.Actor{Agent: audit.Operator}, authz.RevokeKey, rootKey.Public().Thumbprint()))
	// What lies above all of them takes their place.
	wantDone(t, "their parent", rv.asApp(middle))
	wantDone(t, "the one beside", rv.asApp(beside))
	rv.clock.advance(2 * time.Second)
	f := rv.feed()
	for _, chain := range append(below, middle, beside) {
		if !f.Revokes(rv.chain(chain)) || !rv.dead(chain) {
			t.Error("a revoked link lives")
		}
	}
	if f.Revokes(rv.chain(root)) || rv.dead(root) {
		t.Error("the root is dead")
	}
	state, err := rv.store.Store.Feed(t.Context(), rv.clock.now())
	must(t, err)
	if len(state.Links) != 3 {
		t.Errorf("%d links in the feed, want the parent, the one beside and that of another grant", len(state.Links))
	}
	// A link below one that is revoked takes no place.
	for range 3 {
		link, _ := rv.child(middle, middleKey)
		wantDone(t, "below", rv.asApp(link))
	}
	for range 62 {
		link, _ := rv.child(root, rootKey)
		wantDone(t, "up to 64", rv.asApp(link))
	}
	one, _ := rv.child(root, rootKey)
	wantRefusal(t, rv.asApp(one), http.StatusTooManyRequests, "feed_full")
}

// "a link – whoever proves (DPoP over this request, `ath` of the chain) a key of
// that link or an ancestor, chain valid and unexpired".
func TestAHolderRevokesByItsKey(t *testing.T) {
	rv := newRevocation(t)
	root, rootKey := rv.root("g1")
	middle, middleKey := rv.child(root, rootKey)
	leaf, leafKey := rv.child(middle, middleKey)
	form := func(token string) url.Values { return url.Values{"token": {token}} }
	for name, a := range map[string]struct {
		reply
		status int
		code   string
	}{
		"another's key":      {rv.proved(holderKey(t), form(leaf)), 400, "invalid_grant"},
		"one below":          {rv.proved(leafKey, form(middle)), 400, "invalid_grant"},
		"ath of another":     {rv.proved(leafKey, form(leaf), func(p *agent.Proof) { p.Token = middle }), 400, "invalid_dpop_proof"},
		"no ath":             {rv.proved(leafKey, form(leaf), func(p *agent.Proof) { p.Token = "" }), 400, "invalid_dpop_proof"},
		"another endpoint":   {rv.proved(leafKey, form(leaf), func(p *agent.Proof) { p.URL = testIssuer + "/oauth/token" }), 400, "invalid_dpop_proof"},
		"an old proof":       {rv.proved(leafKey, form(leaf), func(p *agent.Proof) { p.IssuedAt = p.IssuedAt.Add(-time.Hour) }), 400, "invalid_dpop_proof"},
		"another's key's id": {rv.proved(leafKey, url.Values{"token": {rootKey.Public().Thumbprint()}, "token_type_hint": {authz.TokenTypeKey}}), 400, "invalid_grant"},
	} {
		if a.reply.status != a.status || a.json(t)["error"] != a.code {
			t.Errorf("%s: %d %s", name, a.reply.status, a.body)
		}
	}
	if rv.dead(leaf) {
		t.Fatal("a refusal revoked")
	}
	proof, err := agent.SignProof(leafKey, agent.Proof{Method: "POST", URL: testIssuer + "/oauth/revoke", Token: leaf, IssuedAt: rv.clock.now()})
	must(t, err)
	wantDone(t, "its own", rv.withProof(proof, form(leaf)))
	wantRefusal(t, rv.withProof(proof, form(leaf)), 400, "invalid_dpop_proof") // once
	if !rv.dead(leaf) || rv.dead(middle) {
		t.Error("the leaf lives, or the link above it is dead")
	}
	again, _ := rv.child(middle, middleKey)
	wantDone(t, "by the root's key", rv.proved(rootKey, form(again)))
	wantDone(t, "by the key of what it came from", rv.proved(middleKey, form(rv.exchanged(middle, middleKey))))
	if !rv.dead(again) || rv.dead(middle) {
		t.Error("the link lives, or the one above it is dead")
	}
	if records := rv.records(audit.Revoke); len(records) == 0 || records[len(records)-1].Detail["key"] != middleKey.Public().Thumbprint() {
		t.Error("the record does not name the key")
	}
	wantDone(t, "the key itself", rv.proved(middleKey, url.Values{"token": {middleKey.Public().Thumbprint()}, "token_type_hint": {authz.TokenTypeKey}}))
	if !rv.dead(middle) || rv.dead(root) {
		t.Error("the middle lives, or the root is dead")
	}
	rv.clock.advance(time.Hour)
	wantDone(t, "expired", rv.proved(rootKey, form(root)))
}

// exchanged signs a root that came from a chain.
func (rv *revocation) exchanged(chain string, _ agent.PrivateKey) string {
	rv.Helper()
	of := rv.chain(chain).Revocable()
	return rv.sign(delegation.Claims{
		Subject: "usr_alice", ClientID: "app", GrantID: "g1", Scopes: []string{"kavach:verify"}, Root: true, MaxDepth: 1,
		Key: holderKey(rv.T).Public(), Ancestry: append(of.LIDs, of.Keys...),
	}, authz.AlgEd25519).Token
}

// What the database does not take stands in the feed of the process that holds
// it, until the feed is too old to be served.
func TestTheFeedOfAProcessWithoutItsDatabase(t *testing.T) {
	rv := newRevocation(t)
	chain, _ := rv.root("g1")
	rv.asApp("warm the cache of clients")
	before := rv.feed()
	rv.log.fail(audit.ErrUnavailable)
	wantRefusal(t, rv.asApp(chain), http.StatusServiceUnavailable, "temporarily_unavailable")
	rv.store.away.Store(true)
	rv.clock.advance(5 * time.Second)
	f := rv.feed()
	if !f.Revokes(rv.chain(chain)) || f.Older(before) || !f.IssuedAt().Equal(before.IssuedAt()) {
		t.Errorf("revoked %v, issued %s, before %s", f.Revokes(rv.chain(chain)), f.IssuedAt(), before.IssuedAt())
	}
	rv.clock.advance(time.Minute)
	wantRefusal(t, rv.getFeed(), http.StatusServiceUnavailable, "temporarily_unavailable")
	rv.store.away.Store(false)
	rv.log.fail(nil)
	must(t, sweep(rv.log, rv.Registry))
	if f := rv.feed(); !f.Revokes(rv.chain(chain)) || !f.Fresh(rv.clock.now()) {
		t.Error("it was forgotten")
	}
}

func TestOwnersEndWhatIsTheirs(t *testing.T) {
	ctx := context.Background()
	rv := newRevocation(t)
	rv.user("usr_eve", people.Member)
	alice := authz.Holder{ID: "usr_alice", Role: "member", Active: true}
	eve := authz.Holder{ID: "usr_eve", Role: "member", Active: true}
	by := authz.Actor{Agent: "user:x", Via: "api"}
	rv.refreshToken("usr_alice", "app", "g1", "kavach:verify")
	rv.commit(rv.store.PutStandingGrant(authz.Grant{ID: "g2", Kind: authz.GrantStanding, Sub: rv.rev, ClientID: rv.rev, Created: rv.clock.now()}))
	proved, named := holderKey(t).Public().Thumbprint(), holderKey(t).Public().Thumbprint()
	rv.commit(rv.store.HoldAgentKey(rv.rev, proved, rv.clock.now().Add(time.Hour)), rv.store.ClaimAgentKey(rv.rev, named, rv.clock.now().Add(time.Hour)))
	for _, e := range []authz.Ending{{Grant: "g1"}, {Grant: "g2"}, {Grant: "g1", Issued: true}, {Key: proved}} {
		for who, person := range map[string]authz.Holder{"nobody": {}, "eve": eve, "alice, disabled": {ID: "usr_alice", Role: "member"}} {
			if _, err := rv.End(ctx, by, person, e); err == nil {
				t.Errorf("%s ended %+v", who, e)
			}
		}
		if _, err := rv.End(ctx, by, alice, e); err != nil {
			t.Errorf("%+v: %v", e, err)
		}
	}
	for _, e := range []authz.Ending{
		{}, {Client: "app"}, {Issued: true}, {Key: named}, {Key: strings.Repeat("k", 43)}, {Key: "short"}, {Grant: "none"}, {Grant: authz.EveryGrant},
		{Grant: "g1", Key: proved}, {Key: proved, Issued: true},
	} {
		if _, err := rv.End(ctx, by, alice, e); err == nil {
			t.Errorf("alice ended %+v", e)
		}
	}
	if grant, err := rv.store.Grant(ctx, "g2"); err != nil || grant.Live(rv.clock.now()) {
		t.Errorf("the grant lives: %v", err)
	}
	list, err := rv.Revocations(ctx, 0, 10)
	must(t, err)
	var kinds []string
	for _, r := range list {
		kinds = append(kinds, string(r.Kind)+" "+r.Value)
	}
	if got, want := fmt.Sprint(kinds), fmt.Sprint([]string{"key " + proved, "before g1", "gid g2", "gid g1"}); got != want {
		t.Errorf("the list: %s, want %s", got, want)
	}
	if page, err := rv.Revocations(ctx, list[1].Seq, 1); err != nil || len(page) != 1 || page[0].Value != "g2" {
		t.Errorf("the next page: %+v, %v", page, err)
	}
}
