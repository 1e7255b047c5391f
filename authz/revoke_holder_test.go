package authz_test

import (
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
)

// Anybody can make a key and prove it, and its revocation stays until an
// operator lifts it. So a stranger must not be able to make the feed too large:
// then no resource server would have one.
func TestStrangersCannotFillTheFeed(t *testing.T) {
	const most = 4096
	rv := newRevocation(t)
	root, rootKey := rv.root("g1")
	form := func(key agent.PrivateKey) url.Values {
		return url.Values{"token": {key.Public().Thumbprint()}, "token_type_hint": {authz.TokenTypeKey}}
	}
	var last agent.PrivateKey
	for i := range 10 {
		last = holderKey(t)
		wantDone(t, fmt.Sprint("key ", i), rv.proved(last, form(last)))
	}
	a := rv.proved(rootKey, form(rootKey))
	wantRefusal(t, a, http.StatusTooManyRequests, "temporarily_unavailable")
	if a.header.Get("Retry-After") == "" || rv.dead(root) {
		t.Errorf("no Retry-After, or it was revoked all the same: %v", a.header)
	}
	rv.clock.advance(time.Minute)
	for from := 10; from < most; {
		var effects []audit.Effect
		for ; from < most && len(effects) < 512; from++ {
			effects = append(effects, rv.store.Revoke(authz.Revocation{Kind: authz.RevokeKey, Value: fmt.Sprintf("%043d", from), At: rv.clock.now()}))
		}
		rv.commit(effects...)
	}
	wantRefusal(t, rv.proved(rootKey, form(rootKey)), http.StatusTooManyRequests, "feed_full")
	if rv.dead(root) {
		t.Error("a refusal revoked")
	}
	wantDone(t, "one that is revoked already", rv.proved(last, form(last)))
	if a := rv.getFeed(); a.status != http.StatusOK || len(a.body) > 1<<19 {
		t.Errorf("the feed: %d, %d bytes", a.status, len(a.body))
	}
	// Whom the server knows is not kept from anything.
	by, operator := authz.Actor{Agent: audit.Operator}, authz.Holder{Role: "operator", Active: true}
	wantDone(t, "the token", rv.proved(rootKey, url.Values{"token": {root}}))
	_, err := rv.End(t.Context(), by, operator, authz.Ending{Key: rootKey.Public().Thumbprint()})
	must(t, err)
	must(t, rv.Lift(t.Context(), by, authz.RevokeKey, last.Public().Thumbprint()))
	must(t, rv.Lift(t.Context(), by, authz.RevokeKey, rootKey.Public().Thumbprint()))
	rv.clock.advance(time.Second)
	wantDone(t, "where there is room", rv.proved(rootKey, form(rootKey)))
}

// 429 is no way to keep somebody from revoking: where strangers have taken their
// room, a key that matters here still has some.
func TestStrangersDoNotKeepHoldersFromRevokingKeys(t *testing.T) {
	rv := newRevocation(t)
	root, rootKey := rv.root("g1")
	link, linkKey := rv.child(root, rootKey)
	_, otherKey := rv.root("g2")
	for from := 0; from < 4096; from += 512 {
		var effects []audit.Effect
		for i := range 512 {
			effects = append(effects, rv.store.Revoke(authz.Revocation{Kind: authz.RevokeKey, Value: fmt.Sprintf("%043d", from+i), At: rv.clock.now()}))
		}
		rv.commit(effects...)
	}
	ask := func(key agent.PrivateKey, bound string) reply {
		return rv.proved(key, url.Values{
			"token": {key.Public().Thumbprint()}, "token_type_hint": {authz.TokenTypeKey}, "bound_token": {bound},
		})
	}
	wantRefusal(t, ask(linkKey, ""), http.StatusTooManyRequests, "feed_full")
	wantRefusal(t, ask(otherKey, link), http.StatusBadRequest, "invalid_grant")
	wantRefusal(t, ask(linkKey, root), http.StatusBadRequest, "invalid_grant")
	wantRefusal(t, ask(linkKey, link[:len(link)-2]), http.StatusBadRequest, "invalid_grant")
	if rv.dead(link) {
		t.Fatal("a refusal revoked")
	}
	wantDone(t, "with the chain", ask(linkKey, link))
	if !rv.dead(link) || rv.dead(root) {
		t.Error("the link lives, or the root is dead")
	}
	// What was exchanged from it came from the key, too.
	wantDone(t, "with what came from it", ask(rootKey, rv.exchanged(root, rootKey)))
	if !rv.dead(root) {
		t.Error("the root lives")
	}
	if records := rv.records(audit.Revoke); records[len(records)-1].Grant != "g1" {
		t.Errorf("the record does not say which grant was shown: %+v", records[len(records)-1])
	}
	if a := rv.getFeed(); a.status != http.StatusOK || len(a.body) > 1<<20 {
		t.Errorf("the feed: %d, %d bytes", a.status, len(a.body))
	}
}
