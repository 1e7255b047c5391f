package delegation_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
)

var feedNow = time.Unix(1_795_000_000, 0)

func feedKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func feedKeys(key crypto.Signer) func(string) (crypto.PublicKey, bool) {
	return func(kid string) (crypto.PublicKey, bool) { return key.Public(), kid == "rv-1" }
}

// signFeed signs any header and claims as a feed.
func signFeed(t *testing.T, key crypto.Signer, header map[string]any, claims string) string {
	t.Helper()
	private, err := agent.NewPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	token, err := agent.SignCompact(private, header, []byte(claims))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestVerifyFeedRefuses(t *testing.T) {
	key := feedKey(t)
	header := map[string]any{"typ": delegation.TypeFeed, "kid": "rv-1"}
	const good = `{"iss":"https://a.example","iat":1795000000,"exp":1795000060,"seq":1}`
	if _, err := delegation.VerifyFeed(signFeed(t, key, header, good), "https://a.example", feedKeys(key), feedNow); err != nil {
		t.Fatal(err)
	}
	for name, claims := range map[string]string{
		"other issuer": strings.Replace(good, "a.example", "b.example", 1), "no seq": strings.Replace(good, `,"seq":1`, "", 1),
		"seq 1.0": strings.Replace(good, `"seq":1`, `"seq":1.0`, 1), "negative seq": strings.Replace(good, `"seq":1`, `"seq":-1`, 1),
		"two seqs": strings.Replace(good, `"seq":1`, `"seq":1,"seq":2`, 1), "exp at iat": strings.Replace(good, "000060", "000000", 1),
		"a longer life": strings.Replace(good, "000060", "000061", 1), "no object": `[]`, "null tok": strings.Replace(good, `"seq":1`, `"seq":1,"tok":null`, 1),
		"tok of numbers": strings.Replace(good, `"seq":1`, `"seq":1,"tok":[1]`, 1), "an empty gid": strings.Replace(good, `"seq":1`, `"seq":1,"gid":[""]`, 1),
		"before a list": strings.Replace(good, `"seq":1`, `"seq":1,"before":[]`, 1), "before in words": strings.Replace(good, `"seq":1`, `"seq":1,"before":{"g":"now"}`, 1),
		"trailing": good + "x",
	} {
		if _, err := delegation.VerifyFeed(signFeed(t, key, header, claims), "https://a.example", feedKeys(key), feedNow); !errors.Is(err, delegation.ErrFeed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, header := range map[string]map[string]any{
		"a token": {"typ": "at+jwt", "kid": "rv-1"}, "no typ": {"kid": "rv-1"}, "no kid": {"typ": delegation.TypeFeed},
		"an access token's kid": {"typ": delegation.TypeFeed, "kid": "at-1"}, "unknown kid": {"typ": delegation.TypeFeed, "kid": "rv-2"},
		"critical": {"typ": delegation.TypeFeed, "kid": "rv-1", "crit": []string{"x"}},
	} {
		_, err := delegation.VerifyFeed(signFeed(t, key, header, good), "https://a.example", feedKeys(key), feedNow)
		if !errors.Is(err, delegation.ErrFeed) || (name == "unknown kid") != errors.Is(err, delegation.ErrFeedKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	token := signFeed(t, key, header, good)
	for i := range token { // any byte changed
		changed := []byte(token)
		changed[i] ^= 1
		if _, err := delegation.VerifyFeed(string(changed), "https://a.example", feedKeys(key), feedNow); err == nil {
			t.Fatalf("byte %d changed: accepted", i)
		}
	}
	if _, err := delegation.VerifyFeed(token, "https://a.example", feedKeys(key), feedNow.Add(-31*time.Second)); err == nil {
		t.Error("a feed of the future")
	}
	if _, err := delegation.SignFeed(delegation.FeedClaims{Issuer: "i", IssuedAt: feedNow}, "at-1", key); !errors.Is(err, delegation.ErrFeed) {
		t.Errorf("signed under an access token's kid: %v", err)
	}
	many := make([]string, 20000)
	for i := range many {
		many[i] = strings.Repeat("x", 38) + strings.Repeat("y", i%5) + string(rune('a'+i%26)) + time.Duration(i).String()
	}
	if _, err := delegation.SignFeed(delegation.FeedClaims{Issuer: "i", IssuedAt: feedNow, Links: many}, "rv-1", key); !errors.Is(err, delegation.ErrFeed) {
		t.Errorf("signed more than a MiB: %v", err)
	}
}

// TestFeedOrder: "a verifier accepts (seq, iat) not older than what it has".
func TestFeedOrder(t *testing.T) {
	key := feedKey(t)
	feed := func(seq int64, after time.Duration) *delegation.Feed {
		token, err := delegation.SignFeed(delegation.FeedClaims{Issuer: "i", Seq: seq, IssuedAt: feedNow.Add(after)}, "rv-1", key)
		if err != nil {
			t.Fatal(err)
		}
		f, err := delegation.VerifyFeed(token, "i", feedKeys(key), feedNow.Add(after))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	held := feed(5, 0)
	for _, test := range []struct {
		seq   int64
		after time.Duration
		older bool
	}{{5, 0, false}, {5, time.Second, false}, {6, -time.Hour, false}, {5, -time.Second, true}, {4, time.Hour, true}} {
		if got := feed(test.seq, test.after).Older(held); got != test.older {
			t.Errorf("seq %d, %s later: older %v", test.seq, test.after, got)
		}
	}
	if held.Older(nil) || !held.Fresh(feedNow.Add(59*time.Second)) || held.Fresh(feedNow.Add(time.Minute)) || (*delegation.Feed)(nil).Fresh(feedNow) {
		t.Error("Older(nil) or Fresh is wrong")
	}
}
