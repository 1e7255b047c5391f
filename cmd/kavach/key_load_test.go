package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
)

// TestKeysRotateUnderLoad is E11 with two servers on one database: keys rotate
// every ten seconds, of a clock that is twenty times as fast, while both issue
// tokens; no server and no resource server refuses one. Then a key is revoked.
func TestKeysRotateUnderLoad(t *testing.T) {
	const fast = 20
	began := time.Now()
	clock := func() time.Time { return began.Add(fast * time.Since(began)) }
	data := filepath.Join(t.TempDir(), "data")
	one := startMainAt(t, clock, "--data", data, "--rotate-keys", "0s")
	two := startMainAt(t, clock, "--data", data, "--rotate-keys", "0s", "--issuer", one.Issuer)
	servers := []*runningMain{one, two}
	const host = "https://git.example/api"
	err := one.d.registry.AddResource(t.Context(), byOperator, authz.Resource{ID: host, Name: "Git", Scopes: []authz.Scope{{Name: "repo:read", Description: "Read"}}})
	if err != nil {
		t.Fatal(err)
	}
	made, secret, err := one.d.registry.AddClient(t.Context(), byOperator, authz.NewClient{
		Name: "load", GrantTypes: []string{authz.GrantClientCredentials}, Scopes: []string{"repo:read"},
	})
	if err != nil {
		t.Fatal(err)
	}
	jwks := guard.NewJWKS(guard.JWKSConfig{
		Issuer: one.Issuer, URL: "http://" + two.Public.String() + "/.well-known/jwks.json",
		Refresh: time.Minute / fast, Now: clock, Log: slog.New(slog.DiscardHandler),
	})
	defer jwks.Close()
	issue := func(m *runningMain) (string, bool) {
		r, err := http.NewRequest(http.MethodPost, "http://"+m.Public.String()+"/oauth/token", strings.NewReader(url.Values{
			"grant_type": {authz.GrantClientCredentials}, "scope": {"repo:read"}, "resource": {host},
		}.Encode()))
		if err != nil {
			t.Error(err)
			return "", false
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth(made.ID, secret.Reveal())
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Error(err)
			return "", false
		}
		defer resp.Body.Close()
		var answer struct {
			Token string `json:"access_token"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Token == "" {
			t.Errorf("the token endpoint answers %d, %v", resp.StatusCode, err)
			return "", false
		}
		return answer.Token, true
	}

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var issued atomic.Int64
	var load sync.WaitGroup
	for worker := range 4 {
		load.Go(func() {
			for n := worker; ctx.Err() == nil && !t.Failed(); n++ {
				token, ok := issue(servers[n%2])
				if !ok {
					return
				}
				at := clock()
				if _, err := servers[(n+1)%2].d.registry.Verifier().Verify(token, at); err != nil {
					t.Errorf("the other server refuses: %v", err)
				}
				if _, err := jwks.Verify(token, at); err != nil {
					t.Errorf("a resource server refuses: %v", err)
				}
				issued.Add(1)
			}
		})
	}
	first := signing(t, one)
	rotations := 0
	for end := began.Add(8 * time.Second); time.Now().Before(end) && !t.Failed(); time.Sleep(10 * time.Second / fast) {
		_, err := servers[rotations%2].d.keys.Rotate(t.Context(), byOperator, authz.Rotation{Purpose: "at", Alg: authz.AlgES256, After: authz.KeyLeadLeast})
		if err != nil {
			t.Error(err)
		}
		rotations++
	}
	stop()
	load.Wait()
	if signing(t, one) == first {
		t.Error("the first key still signs")
	}

	token, _ := issue(one)
	if _, _, err := one.d.keys.Revoke(t.Context(), byOperator, signing(t, one)); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, atServer := two.d.registry.Verifier().Verify(token, clock())
		_, atResource := jwks.Verify(token, clock())
		if delegation.ReasonOf(atServer) == delegation.UnknownRoot && delegation.ReasonOf(atResource) == delegation.UnknownRoot {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the tokens of a revoked key are good: %v, %v", atServer, atResource)
		}
	}
	if next, ok := issue(two); ok {
		if _, err := one.d.registry.Verifier().Verify(next, clock()); err != nil {
			t.Errorf("after the revocation: %v", err)
		}
	}
	t.Logf("%d rotations, %d tokens, none refused", rotations, issued.Load())
}

// signing is the kid of the key that signs plain tokens.
func signing(t *testing.T, m *runningMain) string {
	t.Helper()
	key, err := m.d.keys.Signer(t.Context(), authz.AlgES256)
	if err != nil {
		t.Fatal(err)
	}
	return key.KID
}
