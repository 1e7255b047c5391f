package authz_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/store"
	"github.com/kavach-dev/kavach/store/storetest"
	"github.com/kavach-dev/kavach/wellknown"
)

var operator = authz.Actor{Agent: audit.Operator, Via: "cli"}

// replica is another process on the same database: keys of its own reading, and
// a verifier of its own with a cache.
type replica struct {
	rt       *registryTest
	keys     *authz.Keyring
	verifier *delegation.Verifier
}

func (rt *registryTest) replica() *replica {
	rt.Helper()
	keys, err := rt.openAgain(rt.secret)
	must(rt.T, err)
	return &replica{rt, keys, &delegation.Verifier{Issuer: testIssuer, Anchors: keys.Anchor, Cache: delegation.NewCache()}}
}

// sign signs a token that lives for an hour, the longest there is.
func (r *replica) sign(alg string) string {
	r.rt.Helper()
	now := r.rt.clock.now()
	key, err := r.keys.Signer(context.Background(), alg)
	must(r.rt.T, err)
	signed, err := delegation.Sign(delegation.Claims{
		Issuer: testIssuer, Subject: "s", ClientID: "c", GrantID: "g", Scopes: []string{}, Audience: []string{testIssuer + "/mcp"},
		IssuedAt: now, Expires: now.Add(time.Hour),
	}, key)
	must(r.rt.T, err)
	return signed.Token
}

func (r *replica) verify(token string) error {
	_, err := r.verifier.Verify(token, r.rt.clock.now())
	return err
}

// jwks is a verifier with the key set as it is now, which never looks again.
func (r *replica) jwks() *delegation.Verifier {
	r.rt.Helper()
	reg, err := authz.NewRegistry(authz.RegistryConfig{
		Issuer: testIssuer, Store: r.rt.store, Commit: r.rt.log, Refusals: r.rt.log, Keys: r.keys, Now: r.rt.clock.now,
	})
	must(r.rt.T, err)
	w := httptest.NewRecorder()
	reg.WellKnown().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/.well-known/jwks.json", nil))
	keys, err := wellknown.ParseJWKS(w.Body.Bytes())
	must(r.rt.T, err)
	anchors := map[string]delegation.Anchor{}
	for _, k := range keys {
		if a, err := delegation.NewAnchor(k.KID, k.Public); err == nil {
			anchors[k.KID] = a
		}
	}
	return &delegation.Verifier{Issuer: testIssuer, Anchors: func(kid string) (delegation.Anchor, bool) {
		a, ok := anchors[kid]
		return a, ok
	}}
}

// signs is the kid of the key that signs.
func (r *replica) signs(alg string) string {
	r.rt.Helper()
	key, err := r.keys.Signer(context.Background(), alg)
	must(r.rt.T, err)
	return key.KID
}

func (r *replica) state(kid string) authz.KeyState {
	for _, k := range r.keys.List() {
		if k.KID == kid {
			return k.State
		}
	}
	return ""
}

func (r *replica) published(kid string) bool {
	return slices.ContainsFunc(r.keys.Public(), func(k authz.KeyInfo) bool { return k.KID == kid })
}

// TestTheLifeOfAKey: it is published before it signs, signs until the next one
// does, at the same moment everywhere, is published until nothing of it is
// alive, and is deleted a day later.
func TestTheLifeOfAKey(t *testing.T) {
	rt := newRegistry(t)
	ctx := context.Background()
	one, two := rt.replica(), rt.replica()
	old := one.signs(authz.AlgES256)
	made, err := one.keys.Rotate(ctx, operator, authz.Rotation{Purpose: "at", Alg: authz.AlgES256})
	must(t, err)
	if len(made) != 1 || made[0].State != authz.KeyNext || !made[0].Signs.Equal(rt.clock.now().Add(authz.KeyLead)) {
		t.Fatalf("made %+v", made)
	}
	next := made[0].KID
	rt.clock.advance(time.Second)
	for _, r := range []*replica{one, two} {
		if !r.published(next) || r.signs(authz.AlgES256) != old || r.state(next) != authz.KeyNext || r.state(old) != authz.KeyActive {
			t.Errorf("after a second: %s, %s", r.state(old), r.state(next))
		}
	}
	rt.clock.advance(authz.KeyLead - 2*time.Second)
	if one.signs(authz.AlgES256) != old || two.signs(authz.AlgES256) != old {
		t.Error("the next key signs too early")
	}
	last := two.sign(authz.AlgES256)
	rt.clock.advance(time.Second)
	for _, r := range []*replica{one, two} {
		if r.signs(authz.AlgES256) != next || r.state(next) != authz.KeyActive || r.state(old) != authz.KeyRetired || !r.published(old) {
			t.Errorf("at its time: %s, %s", r.state(old), r.state(next))
		}
	}
	if e := rt.records(audit.KeyRotate); len(e) != 1 || e[0].Resource != next || e[0].Detail["replaces"] != old || e[0].Agent != audit.Operator {
		t.Errorf("records %+v", e)
	}

	rt.clock.advance(time.Hour - 2*time.Second)
	must(t, one.verify(last))
	must(t, two.verify(last))
	rt.clock.advance(10 * time.Minute)
	if one.published(old) || one.state(old) != authz.KeyEnded {
		t.Errorf("the old key is %s", one.state(old))
	}
	must(t, one.keys.Sweep(ctx))
	if one.state(old) == "" {
		t.Error("the old key is not told of any more")
	}
	rt.clock.advance(25 * time.Hour)
	must(t, one.keys.Sweep(ctx))
	must(t, two.keys.Sweep(ctx))
	if e := rt.records(audit.KeyRemove); one.state(old) != "" || two.state(next) != authz.KeyActive || len(e) != 1 || e[0].Resource != old {
		t.Errorf("a day later it is %q; records %+v", one.state(old), e)
	}
}

// TestRotationEveryTenSeconds is E11 by a clock that moves by hand: two replicas
// sign and verify while keys rotate, a resource server looks at the key set once
// in a minute, as it may be cached, and nothing unexpired is refused.
func TestRotationEveryTenSeconds(t *testing.T) {
	rt := newRegistry(t)
	replicas := []*replica{rt.replica(), rt.replica()}
	var rs *delegation.Verifier
	type issued struct {
		token string
		until time.Time
	}
	var tokens []issued
	signers := map[string]bool{}
	for second := range 460 {
		if second%10 == 3 {
			_, err := replicas[second/10%2].keys.Rotate(context.Background(), operator, authz.Rotation{
				Purpose: "at", Alg: authz.AlgES256, After: authz.KeyLeadLeast,
			})
			must(t, err)
		}
		if second%60 == 0 {
			rs = replicas[second/60%2].jwks()
		}
		from := replicas[second%2]
		fresh := from.sign(authz.AlgES256)
		signers[from.signs(authz.AlgES256)] = true
		if _, err := rs.Verify(fresh, rt.clock.now()); err != nil {
			t.Fatalf("second %d: a resource server refuses: %v", second, err)
		}
		must(t, replicas[(second+1)%2].verify(fresh))
		tokens = append(tokens, issued{fresh, rt.clock.now().Add(time.Hour)})
		rt.clock.advance(time.Second)
	}
	if len(signers) < 35 {
		t.Errorf("%d keys signed", len(signers))
	}
	// The key set does not grow beyond what its readers take.
	_, err := replicas[0].keys.Rotate(context.Background(), operator, authz.Rotation{Purpose: "at", Alg: authz.AlgES256})
	for range 5 {
		if err == nil {
			_, err = replicas[0].keys.Rotate(context.Background(), operator, authz.Rotation{Purpose: "at", Alg: authz.AlgES256})
		}
	}
	if !errors.Is(err, authz.ErrInvalid) {
		t.Errorf("there is no end to the keys: %v", err)
	}
	for _, left := range []time.Duration{30 * time.Minute, 61 * time.Minute} {
		rt.clock.advance(left - 30*time.Minute)
		rs := replicas[0].jwks()
		for _, i := range tokens {
			now := rt.clock.now()
			if !now.Before(i.until) {
				continue
			}
			must(t, replicas[1].verify(i.token))
			if _, err := rs.Verify(i.token, now); err != nil {
				t.Fatalf("with the key set of now: %v", err)
			}
		}
	}
}

// TestARevokedKeyIsDeadEverywhere: here at once, at other replicas a second
// later; another signs in its place at once.
func TestARevokedKeyIsDeadEverywhere(t *testing.T) {
	rt := newRegistry(t)
	ctx := context.Background()
	one, two := rt.replica(), rt.replica()
	token, other := two.sign(authz.AlgES256), two.sign(authz.AlgEd25519)
	bad := two.signs(authz.AlgES256)
	c, err := two.verifier.Verify(token, rt.clock.now())
	must(t, err)
	c.Remember()
	must(t, one.verify(token))

	successor, recorded, err := one.keys.Revoke(ctx, operator, bad)
	must(t, err)
	if !recorded || len(successor) != 1 || successor[0].State != authz.KeyActive || successor[0].KID == bad {
		t.Fatalf("recorded %v, %+v", recorded, successor)
	}
	if delegation.ReasonOf(one.verify(token)) != delegation.UnknownRoot || one.published(bad) || one.state(bad) != authz.KeyRevoked {
		t.Errorf("where it was revoked: %v", one.verify(token))
	}
	rt.clock.advance(time.Second)
	if delegation.ReasonOf(two.verify(token)) != delegation.UnknownRoot || two.published(bad) {
		t.Errorf("elsewhere, a second later: %v", two.verify(token))
	}
	for _, r := range []*replica{one, two} {
		if r.signs(authz.AlgES256) != successor[0].KID {
			t.Errorf("%s signs", r.signs(authz.AlgES256))
		}
		must(t, r.verify(other))
	}
	must(t, one.verify(two.sign(authz.AlgES256)))
	if e := rt.records(audit.KeyRevoke); len(e) != 1 || e[0].Resource != bad || e[0].Detail["successor"] != successor[0].KID {
		t.Errorf("records %+v", e)
	}

	// The one that would have signed next signs now; one that signs no more has
	// no successor; one that is gone is told of.
	made, err := one.keys.Rotate(ctx, operator, authz.Rotation{Purpose: "at", Alg: authz.AlgES256})
	must(t, err)
	current := one.signs(authz.AlgES256)
	if successor, _, err = one.keys.Revoke(ctx, operator, current); err != nil || len(successor) != 1 || successor[0].KID != made[0].KID || one.signs(authz.AlgES256) != made[0].KID {
		t.Errorf("%+v, %v", successor, err)
	}
	if made, err = one.keys.Rotate(ctx, operator, authz.Rotation{Purpose: "at", Alg: authz.AlgES256, AtOnce: true}); err != nil {
		t.Fatal(err)
	}
	old := one.signs(authz.AlgES256)
	rt.clock.advance(3 * time.Second)
	if successor, _, err = one.keys.Revoke(ctx, operator, old); err != nil || len(successor) != 0 || one.signs(authz.AlgES256) != made[0].KID {
		t.Errorf("%+v, %v", successor, err)
	}
	// The next one revoked, before it signs: who signs goes on, as another.
	made, err = one.keys.Rotate(ctx, operator, authz.Rotation{Purpose: "at", Alg: authz.AlgES256})
	must(t, err)
	if successor, _, err = one.keys.Revoke(ctx, operator, made[0].KID); err != nil || len(successor) != 1 || one.signs(authz.AlgES256) != successor[0].KID {
		t.Errorf("%+v, %v", successor, err)
	}
	rt.clock.advance(20 * time.Minute)
	if one.signs(authz.AlgES256) != successor[0].KID {
		t.Error("the plan of the revoked key is still carried out")
	}
	for kid, want := range map[string]error{bad: authz.ErrInvalid, "at-nothing": authz.ErrNotFound} {
		if _, _, err := one.keys.Revoke(ctx, operator, kid); !errors.Is(err, want) {
			t.Errorf("%s: %v", kid, err)
		}
	}
}

// TestARevokedKeyWaitsForNoLog: revoking narrows, so it stands when only the log
// refuses.
func TestARevokedKeyWaitsForNoLog(t *testing.T) {
	rt := newRegistry(t)
	if !strings.HasPrefix(rt.dsn, "sqlite:") {
		t.Skip("the trigger that makes the log refuse is written for SQLite; the contract of the store has it for every adapter")
	}
	r := rt.replica()
	bad, token := r.signs(authz.AlgES256), r.sign(authz.AlgES256)
	rt.exec(`CREATE TRIGGER blocked BEFORE INSERT ON audit_records BEGIN SELECT RAISE(ABORT, 'blocked'); END`)
	if _, err := r.keys.Rotate(context.Background(), operator, authz.Rotation{Purpose: "at"}); err == nil {
		t.Error("rotated without a record")
	}
	successor, recorded, err := r.keys.Revoke(context.Background(), operator, bad)
	if err != nil || recorded || len(successor) != 1 {
		t.Fatalf("recorded %v, %+v, %v", recorded, successor, err)
	}
	if r.verify(token) == nil || r.signs(authz.AlgES256) != successor[0].KID {
		t.Error("the revocation waits for the log")
	}
	rt.exec(`DROP TRIGGER blocked`)
	rt.clock.advance(time.Minute)
	if _, err := r.keys.Rotate(context.Background(), operator, authz.Rotation{Purpose: "rv"}); err != nil {
		t.Fatal(err)
	}
	if len(rt.records(audit.KeyRevoke)) != 1 {
		t.Error("the record did not follow")
	}
}

// TestTheFeedIsSignedByAKeyThatStands: a feed that was made before is not shown
// when its key is revoked.
func TestTheFeedIsSignedByAKeyThatStands(t *testing.T) {
	rt := newRegistry(t)
	kid := func() string {
		w := httptest.NewRecorder()
		rt.HandleFeed(w, httptest.NewRequest(http.MethodGet, authz.FeedPath, nil))
		return fmt.Sprint(header(t, w.Body.String())["kid"])
	}
	bad := kid()
	successor, _, err := rt.keys.Revoke(context.Background(), operator, bad)
	must(t, err)
	if got := kid(); got != successor[0].KID {
		t.Errorf("%s signs the feed, want %s", got, successor[0].KID)
	}
}

// TestRetire: another key signs in the place of one, which goes on verifying.
func TestRetire(t *testing.T) {
	rt := newRegistry(t)
	ctx := context.Background()
	one, two := rt.replica(), rt.replica()
	old, token := one.signs(authz.AlgEd25519), one.sign(authz.AlgEd25519)
	planned, err := one.keys.Rotate(ctx, operator, authz.Rotation{Purpose: "at", Alg: authz.AlgEd25519})
	must(t, err)
	successor, err := one.keys.Retire(ctx, operator, old)
	must(t, err)
	if successor.KID != planned[0].KID {
		t.Error("a key that is published already was not taken")
	}
	rt.clock.advance(2 * time.Second) // "as soon as every replica knows it"
	for _, r := range []*replica{one, two} {
		if r.signs(authz.AlgEd25519) != successor.KID || r.state(old) != authz.KeyRetired {
			t.Errorf("%s signs, the old one is %s", r.signs(authz.AlgEd25519), r.state(old))
		}
		must(t, r.verify(token))
	}
	if e := rt.records(audit.KeyRetire); len(e) != 1 || e[0].Resource != old || e[0].Detail["successor"] != successor.KID {
		t.Errorf("records %+v", e)
	}
	if _, err := one.keys.Retire(ctx, operator, old); !errors.Is(err, authz.ErrInvalid) {
		t.Errorf("retired twice: %v", err)
	}
	if next, err := one.keys.Retire(ctx, operator, successor.KID); err != nil || next.KID == successor.KID {
		t.Errorf("without a planned one: %+v, %v", next, err)
	}
}

// TestRotationsThatCannotBeMeant are refused, and change nothing.
func TestRotationsThatCannotBeMeant(t *testing.T) {
	rt := newRegistry(t)
	before := len(rt.keys.List())
	for name, what := range map[string]authz.Rotation{
		"too soon":             {Purpose: "at", After: time.Minute},
		"back in time":         {Purpose: "at", After: -time.Minute},
		"tokens that live on":  {Purpose: "at", Overlap: time.Minute},
		"no such purpose":      {Purpose: "xx"},
		"no such key":          {Purpose: "at", Alg: authz.AlgRS256},
		"a negative overlap":   {Purpose: "cookie", Overlap: -time.Second},
		"all, of a short time": {Overlap: time.Second},
	} {
		if _, err := rt.keys.Rotate(context.Background(), operator, what); !errors.Is(err, authz.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(rt.keys.List()) != before {
		t.Error("a refused rotation made keys")
	}
}

// TestKeysRotateByAgeOnceAmongReplicas: all replicas sweep at once, and each key
// gets one successor.
func TestKeysRotateByAgeOnceAmongReplicas(t *testing.T) {
	ctx := context.Background()
	dsn, secret := storetest.DSN(t), authz.NewDeploymentSecret()
	c := &clock{t: time.Unix(1_800_000_000, 0)}
	var rings []*authz.Keyring
	for range 4 {
		s, err := store.Open(ctx, store.Config{DSN: dsn, Token: storetest.Token, Issuer: testIssuer, MinFree: -1})
		must(t, err)
		log := audit.NewLog(audit.Config{Store: s, Logger: slog.New(slog.DiscardHandler)})
		t.Cleanup(func() {
			_ = log.Close(ctx)
			_ = s.Close()
		})
		k, err := authz.OpenKeyring(ctx, authz.KeyringConfig{Store: s, Commit: log, Secret: secret, RotateEvery: 24 * time.Hour, Now: c.now})
		must(t, err)
		rings = append(rings, k)
	}
	sweep := func() {
		var wg sync.WaitGroup
		for _, k := range rings {
			wg.Go(func() {
				if err := k.Sweep(ctx); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	sweep()
	if n := len(rings[0].List()); n != 8 {
		t.Fatalf("%d keys on the first day", n)
	}
	c.advance(24 * time.Hour)
	for range 3 {
		sweep()
		c.advance(time.Minute)
	}
	for _, k := range rings {
		states := map[authz.KeyState]int{}
		for _, info := range k.List() {
			states[info.State]++
		}
		if states[authz.KeyActive] != 8 || states[authz.KeyNext] != 8 || len(states) != 2 {
			t.Errorf("on the second day: %v", states)
		}
	}
	c.advance(authz.KeyLead)
	sweep()
	if n := len(rings[1].List()); n != 16 {
		t.Errorf("%d keys after the rotation", n)
	}
}

// TestAKeyringOutlivesItsDatabase: tokens verify without it, as they did a
// moment ago, and nothing waits for it for long.
func TestAKeyringOutlivesItsDatabase(t *testing.T) {
	rt := newRegistry(t)
	r := rt.replica()
	token := r.sign(authz.AlgES256)
	must(t, rt.store.Store.Close())
	for range 5 {
		rt.clock.advance(time.Minute)
		must(t, r.verify(token))
	}
	if err := r.keys.Refresh(context.Background()); err == nil {
		t.Error("Refresh does not say that the database is away")
	}
	if _, ok := r.keys.Anchor("at-" + rand.Text()); ok {
		t.Error("an unknown key verifies")
	}
}
