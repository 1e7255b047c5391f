package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/examples/kavachtest"
)

// comes sends a request with a proof of its own until it is answered as it
// should be, or far too long.
func comes(t *testing.T, held client.Credential, method, url, body string, want int) bool {
	t.Helper()
	got := 0
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if got = once(t, held, method, url, body); got == want {
			return true
		}
	}
	t.Errorf("%s %s: %d, want %d", method, url, got, want)
	return false
}

func once(t *testing.T, held client.Credential, method, url, body string) int {
	t.Helper()
	r := request(t, method, url, body)
	if err := held.Authorize(r, "", time.Now()); err != nil {
		t.Fatal(err)
	}
	status, _, _ := send(t, r)
	return status
}

// derived narrows for a key that is made here.
func derived(t *testing.T, from client.Credential, to string, scopes ...string) (client.Credential, string, agent.PrivateKey) {
	t.Helper()
	key := newKey(t)
	chain, err := from.Derive(key.Public(), to, delegation.Narrow{Scopes: scopes, TTL: 5 * time.Minute}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	held, err := client.Hold(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	return held, chain, key
}

// TestRevoked: a real kavach is told to revoke a chain that it never saw, and the
// document host, which knows kavach's keys and its feed and nothing else, refuses
// it at the next poll.
func TestRevoked(t *testing.T) {
	host := kavachtest.FreeURL(t)
	kavach := kavachtest.Start(t, kavachtest.Resource{
		URL: host, Name: "Documents", Scopes: []string{"docs:read=Read documents", "docs:comment=Comment on documents"},
	})
	kavachtest.Run(t, ".", "--listen", strings.TrimPrefix(host, "http://"), "--resource", host, "--issuer", kavach.Issuer)
	folder := t.TempDir()
	kavach.Agent(t, folder, "editor", "docs:read docs:comment", "--capability", "delegate")
	text, err := os.ReadFile(filepath.Join(folder, "editor.key.json"))
	if err != nil {
		t.Fatal(err)
	}
	identity, err := agent.ParsePrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	editor, err := client.New(client.Config{Issuer: kavach.Issuer, Key: identity})
	if err != nil {
		t.Fatal(err)
	}
	root, err := editor.Stay(client.Ask{Scopes: []string{"docs:read"}, Resources: []string{host}}).Credential(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const document = "/docs/charter"
	helper, _, helperKey := derived(t, root, "helper", "docs:read")
	below, chain, _ := derived(t, helper, "somebody", "docs:read")
	for name, held := range map[string]client.Credential{"root": root, "helper": helper, "below": below} {
		if status := once(t, held, "GET", host+document, ""); status != http.StatusOK {
			t.Fatalf("%s: %d before anything was revoked", name, status)
		}
	}
	// The helper never signed in anywhere: its key is enough, for what lies below.
	if recorded, err := client.Revoke(t.Context(), client.Revocation{Issuer: kavach.Issuer, Token: chain, Key: helperKey}); err != nil || !recorded {
		t.Fatalf("revoking: %v, %v", recorded, err)
	}
	if comes(t, below, "GET", host+document, "", http.StatusUnauthorized) && once(t, helper, "GET", host+document, "") != http.StatusOK {
		t.Error("the link above is refused too")
	}
	// Its key, and with it what it holds.
	if _, err := client.Revoke(t.Context(), client.Revocation{Issuer: kavach.Issuer, Key: helperKey}); err != nil {
		t.Fatal(err)
	}
	if comes(t, helper, "GET", host+document, "", http.StatusUnauthorized) && once(t, root, "GET", host+document, "") != http.StatusOK {
		t.Error("the root is refused too")
	}
	kavach.Operate(t, "revoke", "lift", "key", helperKey.Public().Thumbprint())
	comes(t, helper, "GET", host+document, "", http.StatusOK)
	kavach.Operate(t, "agent", "suspend", "editor")
	for _, held := range []client.Credential{root, helper} {
		comes(t, held, "GET", host+document, "", http.StatusUnauthorized)
	}
	if log := kavach.Operate(t, "audit", "list", "--action", "revoke"); strings.Count(log, "revoke") < 2 {
		t.Errorf("the log does not tell of it:\n%s", log)
	}
}

// TestStale: while the feed is away the document host serves on as long as what
// it has is fresh, and then refuses to write, not to read.
func TestStale(t *testing.T) {
	i := newIssuer(t)
	i.feed.publish(delegation.FeedClaims{Seq: 1})
	host := start(t, i)
	key := newKey(t)
	held, err := client.Hold(i.sign(t, host, key.Public(), "docs:read", "docs:comment"), key)
	if err != nil {
		t.Fatal(err)
	}
	const read, write, comment = "/docs/charter", "/docs/charter/comments", `{"paragraph":"12","text":"Fine."}`
	if status := once(t, held, "POST", host+write, comment); status != http.StatusCreated {
		t.Fatalf("%d", status)
	}
	// A feed that has twelve seconds left.
	leaf, _, leafKey := derived(t, held, "helper", "docs:read")
	i.feed.publish(delegation.FeedClaims{Seq: 2, IssuedAt: time.Now().Add(-48 * time.Second), Keys: []string{leafKey.Public().Thumbprint()}})
	comes(t, leaf, "GET", host+read, "", http.StatusUnauthorized) // it has arrived
	i.feed.goAway()
	comes(t, held, "POST", host+write, comment, http.StatusServiceUnavailable)
	if status := once(t, held, "GET", host+read, ""); status != http.StatusOK {
		t.Errorf("reading while the feed is stale: %d", status)
	}
	if status := once(t, leaf, "GET", host+read, ""); status != http.StatusUnauthorized {
		t.Errorf("what was revoked before the feed went away: %d", status)
	}
}
