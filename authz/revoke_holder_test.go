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
