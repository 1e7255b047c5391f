package authz_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/store"
	"github.com/kavach-dev/kavach/store/storetest"
)

// openAgain opens the keyring of the same database as another process would.
func (rt *registryTest) openAgain(secret authz.DeploymentSecret) (*authz.Keyring, error) {
	return authz.OpenKeyring(context.Background(), authz.KeyringConfig{
		Store: rt.store.Store, Commit: rt.log, Secret: secret, Now: rt.clock.now,
	})
}

func TestKeysSurviveARestart(t *testing.T) {
	rt := newRegistry(t)
	again, err := rt.openAgain(rt.secret)
	must(t, err)
	if !slices.EqualFunc(rt.keys.List(), again.List(), func(a, b authz.KeyInfo) bool { return a.KID == b.KID }) {
		t.Errorf("other keys after a restart: %v, %v", rt.keys.List(), again.List())
	}
	for _, pair := range [][2][][]byte{
		{rt.keys.Cookie(), again.Cookie()}, {rt.keys.Cursor(), again.Cursor()}, {rt.keys.Nonce(), again.Nonce()},
		{rt.keys.Derive("x", 32), again.Derive("x", 32)},
	} {
		if len(pair[0]) != 1 || !slices.EqualFunc(pair[0], pair[1], bytes.Equal) {
			t.Error("other secrets after a restart")
		}
	}
	for _, pair := range [][2][][]byte{
		{rt.keys.Cookie(), rt.keys.Cursor()}, {rt.keys.Derive("x", 32), rt.keys.Derive("y", 32)},
	} {
		if bytes.Equal(pair[0][0], pair[1][0]) {
			t.Error("two purposes share a secret")
		}
	}
	if n := len(rt.records(audit.KeyCreate)); n != 8 {
		t.Errorf("%d records of new keys, want 8", n)
	}
}

func TestAForeignSecretDoesNotOpenTheDatabase(t *testing.T) {
	rt := newRegistry(t)
	before, err := rt.store.Keys(context.Background())
	must(t, err)
	if _, err := rt.openAgain(authz.NewDeploymentSecret()); !errors.Is(err, authz.ErrSecret) {
		t.Fatalf("want ErrSecret, got %v", err)
	}
	after, err := rt.store.Keys(context.Background())
	must(t, err)
	if len(after) != len(before) {
		t.Error("a foreign secret wrote keys")
	}
}

func TestASealedKeyCannotStandForAnother(t *testing.T) {
	rt := newRegistry(t)
	rt.exec(`UPDATE keys SET sealed = (SELECT sealed FROM keys WHERE slot = 'cursor/secret/1') WHERE slot = 'cookie/secret/1'`)
	if _, err := rt.openAgain(rt.secret); !errors.Is(err, authz.ErrSecret) {
		t.Fatalf("want ErrSecret, got %v", err)
	}
}

func TestConcurrentFirstStartsEndWithOneKeySet(t *testing.T) {
	ctx := context.Background()
	dsn := storetest.DSN(t)
	secret := authz.NewDeploymentSecret()
	const processes = 4
	rings := make([]*authz.Keyring, processes)
	var wg sync.WaitGroup
	for i := range processes {
		s, err := store.Open(ctx, store.Config{DSN: dsn, Token: storetest.Token, Issuer: testIssuer, MinFree: -1})
		must(t, err)
		log := audit.NewLog(audit.Config{Store: s, Logger: slog.New(slog.DiscardHandler)})
		t.Cleanup(func() {
			_ = log.Close(ctx)
			_ = s.Close()
		})
		wg.Go(func() {
			k, err := authz.OpenKeyring(ctx, authz.KeyringConfig{Store: s, Commit: log, Secret: secret})
			if err == nil {
				_, err = k.Signer(ctx, authz.AlgRS256)
			}
			if err != nil {
				t.Error(err)
				return
			}
			rings[i] = k
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	want := fmt.Sprint(kids(rings[0]))
	if n := len(rings[0].List()); n != 9 {
		t.Errorf("%d keys, want 9: %s", n, want)
	}
	for _, k := range rings[1:] {
		if got := fmt.Sprint(kids(k)); got != want {
			t.Errorf("two processes hold %s and %s", got, want)
		}
	}
}

func kids(k *authz.Keyring) []string {
	var ids []string
	for _, info := range k.List() {
		ids = append(ids, info.KID)
	}
	slices.Sort(ids)
	return ids
}

func TestSignersSignWhatTheirAnchorsVerify(t *testing.T) {
	rt := newRegistry(t)
	for _, alg := range []string{authz.AlgES256, authz.AlgEd25519, authz.AlgRS256} {
		key, err := rt.keys.Signer(context.Background(), alg)
		must(t, err)
		anchor, ok := rt.keys.Anchor(key.KID)
		if !ok || anchor.Alg() != alg || !strings.HasPrefix(key.KID, "at-") {
			t.Errorf("%s: kid %s, anchor %v of %s", alg, key.KID, ok, anchor.Alg())
		}
		signed := rt.sign(delegation.Claims{Subject: "s", ClientID: "c", GrantID: "g", Scopes: []string{}}, alg)
		rt.chain(signed.Token)
	}
	for _, alg := range []string{"none", "HS256", "EdDSA", "secret", ""} {
		if _, err := rt.keys.Signer(context.Background(), alg); err == nil {
			t.Errorf("%q signs", alg)
		}
	}
	for _, info := range rt.keys.List() {
		if _, ok := rt.keys.Anchor(info.KID); ok != (info.Purpose == "at") {
			t.Errorf("key of purpose %s is an anchor: %v", info.Purpose, ok)
		}
	}
}

func TestAnotherProcessesNewKeyIsFound(t *testing.T) {
	rt := newRegistry(t)
	other, err := rt.openAgain(rt.secret)
	must(t, err)
	key, err := other.Signer(context.Background(), authz.AlgRS256)
	must(t, err)
	if _, ok := rt.keys.Anchor(key.KID); !ok {
		t.Error("the key that another process made is unknown here")
	}
}

func TestJWKSHoldsPublicAccessTokenKeysOnly(t *testing.T) {
	rt := newRegistry(t)
	get := func() string {
		w := httptest.NewRecorder()
		rt.WellKnown().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/.well-known/jwks.json", nil))
		if w.Code != http.StatusOK || !strings.Contains(w.Header().Get("Cache-Control"), "max-age=") {
			t.Fatalf("JWKS: %d %v", w.Code, w.Header())
		}
		return w.Body.String()
	}
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	must(t, json.Unmarshal([]byte(get()), &set))
	if len(set.Keys) != 4 {
		t.Fatalf("want the ES256 and the Ed25519 key, and those of manifests and the feed, got %v", set.Keys)
	}
	for _, key := range set.Keys {
		for _, private := range []string{"d", "p", "q", "dp", "dq", "qi", "k", "oth"} {
			if _, there := key[private]; there {
				t.Errorf("the JWKS holds %q", private)
			}
		}
		if kid, _ := key["kid"].(string); !strings.HasPrefix(kid, "at-") && !strings.HasPrefix(kid, "mf-") && !strings.HasPrefix(kid, "rv-") {
			t.Errorf("the JWKS holds key %v", key["kid"])
		}
	}
	// A resource asks for RS256: the key is published before a token is signed.
	must(t, rt.AddResource(context.Background(), authz.Actor{}, authz.Resource{
		ID: "https://old.example", TokenAlg: authz.AlgRS256, Scopes: []authz.Scope{{Name: "old:use"}},
	}))
	if !strings.Contains(get(), `"RS256"`) {
		t.Error("the JWKS lacks the RS256 key that a resource asks for")
	}
}

func TestListedKeysShowPublicHalvesOnly(t *testing.T) {
	rt := newRegistry(t)
	for _, k := range rt.keys.List() {
		switch k.Public.(type) {
		case *ecdsa.PublicKey, ed25519.PublicKey, *rsa.PublicKey:
		case nil:
			if k.Alg != "secret" {
				t.Errorf("%s has no public half", k.KID)
			}
		default:
			t.Errorf("%s shows a %T", k.KID, k.Public)
		}
	}
}

func TestDeploymentSecretsParseAndHide(t *testing.T) {
	secret := authz.NewDeploymentSecret()
	text := secret.Reveal()
	again, err := authz.ParseDeploymentSecret([]byte(text + "\n"))
	must(t, err)
	if again.Reveal() != text {
		t.Error("a secret does not survive its file")
	}
	for _, bad := range []string{"", "short", text + text, text[:42], strings.Repeat("g", 64), strings.Repeat("=", 43)} {
		if _, err := authz.ParseDeploymentSecret([]byte(bad)); err == nil {
			t.Errorf("%q is taken for a secret", bad)
		}
	}
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "secret", secret)
	js, err := json.Marshal(map[string]any{"s": secret})
	must(t, err)
	for _, shown := range []string{fmt.Sprintf("%v %+v %#v %s", secret, secret, secret, secret), out.String(), string(js)} {
		if strings.Contains(shown, text) || !strings.Contains(shown, "[redacted]") {
			t.Errorf("shown: %s", shown)
		}
	}
}
