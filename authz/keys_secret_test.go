package authz_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/guard"
)

// TestSecretsOverlap: a new secret makes new things from its time on, of the old
// one they are accepted until it ends; both replicas agree.
func TestSecretsOverlap(t *testing.T) {
	for purpose, of := range map[string]func(*authz.Keyring) [][]byte{
		"cookie": (*authz.Keyring).Cookie, "cursor": (*authz.Keyring).Cursor, "nonce": (*authz.Keyring).Nonce,
		"handle": func(k *authz.Keyring) [][]byte { return k.Derive("x", 32) },
	} {
		t.Run(purpose, func(t *testing.T) {
			rt := newRegistry(t)
			one, two := rt.replica(), rt.replica()
			old := of(one.keys)[0]
			made, err := one.keys.Rotate(context.Background(), operator, authz.Rotation{
				Purpose: purpose, After: authz.KeyLeadLeast, Overlap: time.Minute,
			})
			must(t, err)
			rt.clock.advance(time.Second)
			if got := of(two.keys); len(got) != 2 || !bytes.Equal(got[0], old) {
				t.Error("before its time the new secret is not accepted, or makes things already")
			}
			rt.clock.advance(authz.KeyLeadLeast)
			for _, r := range []*replica{one, two} {
				if got := of(r.keys); len(got) != 2 || bytes.Equal(got[0], old) || !bytes.Equal(got[1], old) {
					t.Error("in the overlap the new one does not make things, or the old one is gone")
				}
			}
			rt.clock.advance(time.Minute)
			for _, r := range []*replica{one, two} {
				if got := of(r.keys); len(got) != 1 || bytes.Equal(got[0], old) {
					t.Error("after the overlap the old secret is accepted")
				}
			}
			// Revoked, it is gone at once.
			if _, _, err := one.keys.Revoke(context.Background(), operator, made[0].KID); err != nil {
				t.Fatal(err)
			}
			rt.clock.advance(time.Second)
			if a, b := of(one.keys), of(two.keys); len(a) != 1 || !slices.EqualFunc(a, b, bytes.Equal) || bytes.Equal(a[0], old) {
				t.Error("replicas disagree after a revocation")
			}
		})
	}
}

// TestNoncesOutliveARotation: those of the old secret are taken.
func TestNoncesOutliveARotation(t *testing.T) {
	rt := newRegistry(t)
	r := rt.replica()
	nonces := guard.NewNonces(guard.NoncesConfig{Secrets: r.keys.Nonce, Period: time.Hour})
	before := nonces.Nonce("jkt", rt.clock.now())
	_, err := r.keys.Rotate(context.Background(), operator, authz.Rotation{Purpose: "nonce", AtOnce: true})
	must(t, err)
	rt.clock.advance(3 * time.Second)
	if after := nonces.Nonce("jkt", rt.clock.now()); after == before || !nonces.Valid(after, "jkt", rt.clock.now()) {
		t.Error("the new secret makes no nonces")
	}
	if !nonces.Valid(before, "jkt", rt.clock.now()) {
		t.Error("a nonce of the old secret is refused")
	}
	rt.clock.advance(11 * time.Minute)
	if nonces.Valid(before, "jkt", rt.clock.now()) {
		t.Error("a nonce of an old secret is good for ever")
	}
}

// TestCursorsOutliveARotation: a list is read on after it.
func TestCursorsOutliveARotation(t *testing.T) {
	rt := newRegistry(t)
	reader := audit.NewReader(audit.ReaderConfig{Store: rt.store.Store, Secrets: rt.keys.Cursor})
	query := audit.Query{Sight: audit.Sight{All: true}, Action: audit.KeyCreate, Ascending: true, Limit: 1}
	first, err := reader.Entries(context.Background(), query)
	must(t, err)
	query.Cursor = first.Next
	_, err = rt.keys.Rotate(context.Background(), operator, authz.Rotation{Purpose: "cursor", AtOnce: true, Overlap: time.Minute})
	must(t, err)
	rt.clock.advance(3 * time.Second)
	second, err := reader.Entries(context.Background(), query)
	if err != nil || len(second.Entries) != 1 || second.Next == first.Next {
		t.Fatalf("%d entries, %v", len(second.Entries), err)
	}
	rt.clock.advance(time.Minute)
	if _, err := reader.Entries(context.Background(), query); !errors.Is(err, audit.ErrCursor) {
		t.Errorf("a cursor outlives its secret: %v", err)
	}
}

// TestSessionsCodesAndTokensOutliveARotation is E12: what the old secrets made
// works during the overlap and is dead after it.
func TestSessionsCodesAndTokensOutliveARotation(t *testing.T) {
	f := newFlows(t)
	ctx := context.Background()
	operators, err := authz.OpenKeyring(ctx, authz.KeyringConfig{Store: f.store, Commit: f.log, Secret: f.secret, Now: f.clock.now})
	must(t, err)
	rotate := func() {
		t.Helper()
		for _, purpose := range []string{"cookie", "handle"} {
			_, err := operators.Rotate(ctx, operator, authz.Rotation{Purpose: purpose, AtOnce: true, Overlap: 30 * time.Second})
			must(t, err)
		}
		f.clock.advance(3 * time.Second) // "two seconds"
	}
	signedIn := func(b *browser) bool { return b.get("/account").status == 200 }

	b := f.signedIn("alice")
	client, first := f.tokens(nil)
	p := newProof()
	code := f.code(b, client, p, nil)
	rotate()
	if !signedIn(b) {
		t.Error("a session ended with the rotation")
	}
	second := f.token(refreshForm(client, first.str("refresh_token"), nil))
	third := f.token(f.redeem(client, code, p, nil))
	if second.status != 200 || third.status != 200 {
		t.Fatalf("in the overlap a refresh token answers %d, a code %d", second.status, third.status)
	}
	// What was made since works after it.
	late, lateProof := f.public(), newProof()
	lateCode := f.code(b, late, lateProof, nil)
	f.clock.advance(30 * time.Second)
	if a := f.token(refreshForm(client, second.str("refresh_token"), nil)); a.status != 200 {
		t.Errorf("a refresh token of the new secret answers %d", a.status)
	}
	if a := f.token(f.redeem(late, lateCode, lateProof, nil)); a.status != 200 {
		t.Errorf("a code of the new secret answers %d", a.status)
	}
	if signedIn(b) {
		t.Error("a session outlives the overlap of its secret")
	}
	b = f.signIn("alice")
	p = newProof()
	code = f.code(b, client, p, nil)
	kept := third.str("refresh_token")
	rotate()
	f.clock.advance(30 * time.Second)
	f.wantError(f.token(f.redeem(client, code, p, nil)), 400, "invalid_grant")
	f.wantError(f.token(refreshForm(client, kept, nil)), 400, "invalid_grant")
}

// secretFile is what several processes read the deployment secret from.
type secretFile struct{ content atomic.Pointer[string] }

func (s *secretFile) write(lines ...authz.DeploymentSecret) {
	var text strings.Builder
	for _, line := range lines {
		text.WriteString(line.Reveal() + "\n")
	}
	content := text.String()
	s.content.Store(&content)
}

func (s *secretFile) read() (authz.DeploymentSecret, error) {
	return authz.ParseDeploymentSecret([]byte(*s.content.Load()))
}

// open opens the keyring with the secret as it stands in the file.
func (s *secretFile) open(rt *registryTest) (*authz.Keyring, error) {
	secret, err := s.read()
	must(rt.T, err)
	return authz.OpenKeyring(context.Background(), authz.KeyringConfig{
		Store: rt.store.Store, Commit: rt.log, Secret: secret, Reread: s.read, Now: rt.clock.now,
	})
}

// TestTheDeploymentSecretIsChanged while servers run: the new line is added, the
// keys are sealed with it, the old line goes.
func TestTheDeploymentSecretIsChanged(t *testing.T) {
	rt := newRegistry(t)
	ctx := context.Background()
	newer := authz.NewDeploymentSecret()
	file := &secretFile{}
	file.write(rt.secret)
	server, err := file.open(rt)
	must(t, err)
	if n, err := server.Reseal(ctx, operator); n != 0 || err != nil {
		t.Errorf("%d keys were sealed with another line, %v", n, err)
	}

	file.write(newer, rt.secret)
	// A key that a running server makes now is sealed with the new line.
	if _, err := server.Rotate(ctx, operator, authz.Rotation{Purpose: "at"}); err != nil {
		t.Fatal(err)
	}
	command, err := file.open(rt)
	must(t, err)
	stale := 0
	for _, k := range command.List() {
		if k.Stale {
			stale++
		}
	}
	if stale != 8 {
		t.Errorf("%d keys are sealed with the old line, want 8", stale)
	}
	if n, err := command.Reseal(ctx, operator); n != stale || err != nil {
		t.Fatalf("%d keys were sealed anew: %v", n, err)
	}
	if n := len(rt.records(audit.KeyReseal)); n != stale {
		t.Errorf("%d records", n)
	}
	file.write(newer)
	if again, err := file.open(rt); err != nil || len(again.List()) != 10 {
		t.Fatalf("with the new line alone: %v", err)
	}
	if _, err := rt.openAgain(rt.secret); !errors.Is(err, authz.ErrSecret) {
		t.Errorf("the old line still opens: %v", err)
	}
	// The server goes on, and knows what others make.
	rt.clock.advance(time.Second)
	must(t, server.Refresh(ctx))
	made, err := command.Rotate(ctx, operator, authz.Rotation{Purpose: "at", Alg: authz.AlgES256, AtOnce: true})
	must(t, err)
	rt.clock.advance(3 * time.Second)
	if key, err := server.Signer(ctx, authz.AlgES256); err != nil || key.KID != made[0].KID {
		t.Errorf("%s signs, %v", key.KID, err)
	}
}

// TestAKeyThatDoesNotOpenHidesNothing: a server whose secret file was left
// behind still learns what was revoked.
func TestAKeyThatDoesNotOpenHidesNothing(t *testing.T) {
	rt := newRegistry(t)
	ctx := context.Background()
	behind := rt.replica()
	token := behind.sign(authz.AlgES256)
	file := &secretFile{}
	file.write(authz.NewDeploymentSecret(), rt.secret)
	command, err := file.open(rt)
	must(t, err)
	_, err = command.Reseal(ctx, operator)
	must(t, err)
	rt.clock.advance(time.Second)
	must(t, behind.verify(token))
	for range 2 {
		if err := behind.keys.Refresh(ctx); !errors.Is(err, authz.ErrSecret) {
			t.Errorf("it does not say that its secret is old: %v", err)
		}
	}
	_, _, err = command.Revoke(ctx, operator, behind.signs(authz.AlgES256))
	must(t, err)
	rt.clock.advance(time.Second)
	if behind.verify(token) == nil {
		t.Error("the revoked key still verifies")
	}
}

func TestDeploymentSecretsOfSeveralLines(t *testing.T) {
	one, two := authz.NewDeploymentSecret(), authz.NewDeploymentSecret()
	both, err := authz.ParseDeploymentSecret([]byte("\n" + two.Reveal() + "\r\n\n  " + one.Reveal() + "\n"))
	must(t, err)
	if both.Reveal() != two.Reveal() {
		t.Error("the first line does not seal")
	}
	for _, bad := range []string{
		"\n \n", two.Reveal() + "\nshort\n", strings.Repeat(two.Reveal()+"\n", 9), "# a comment\n" + two.Reveal(),
	} {
		if _, err := authz.ParseDeploymentSecret([]byte(bad)); !errors.Is(err, authz.ErrMalformedSecret) {
			t.Errorf("%.20q is taken for a secret: %v", bad, err)
		}
	}
}
