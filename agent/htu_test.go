package agent_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/kavach-dev/kavach/agent"
)

// covers reports whether a proof whose htu is written so is good for a request
// to the URL.
func covers(t testing.TB, key agent.PrivateKey, htu, url string) bool {
	t.Helper()
	header := `{"typ":"dpop+jwt","alg":"Ed25519","jwk":` + string(key.Public().AppendJWK(nil)) + `}`
	text := rawProof(t, key, header, proofClaims(t, func(c map[string]any) { c["htu"] = htu }))
	check := checkOf("")
	check.URL = url
	_, err := agent.VerifyProof(text, check)
	return err == nil
}

// TestHTU: RFC 9449 §4.3 with RFC 3986 §6.2.2 and §6.2.3.
func TestHTU(t *testing.T) {
	key := newEd25519(t)
	for _, c := range []struct {
		htu, url string
		same     bool
	}{
		{"https://git.internal/a", "https://git.internal/a", true},
		{"https://git.internal/a?b=c", "https://git.internal/a?d=e", true},
		{"https://git.internal/a#x", "https://git.internal/a", true},
		{"https://git.internal/a#x?y", "https://git.internal/a?y#x", true},
		{"HTTPS://GIT.Internal/a", "https://git.internal/a", true},
		{"https://git.internal:443/a", "https://git.internal/a", true},
		{"https://git.internal:/a", "https://git.internal/a", true},
		{"https://git.internal:00443/a", "https://git.internal/a", true},
		{"http://git.internal:80/a", "http://git.internal/a", true},
		{"https://git.internal", "https://git.internal/", true},
		{"https://git.internal?x", "https://git.internal/", true},
		{"https://[::1]:8443/a", "https://[::1]:8443/a", true},
		{"https://[FE80::1]/a", "https://[fe80::1]:443/a", true},
		{"https://git.internal/%61", "https://git.internal/a", true},
		{"https://git.internal/%7e", "https://git.internal/~", true},
		{"https://git.internal/%e2%82%ac", "https://git.internal/%E2%82%AC", true},
		{"https://git.internal/a|b", "https://git.internal/a%7Cb", true},
		{"https://git.internal/x/../a/./b", "https://git.internal/a/b", true},
		{"https://git.internal/x/%2e%2e/a", "https://git.internal/a", true},
		{"https://git.internal/../a", "https://git.internal/a", true},
		{"https://git.internal/a/.", "https://git.internal/a/", true},
		{"https://git.internal/a/b/..", "https://git.internal/a/", true},
		{"https://git.internal/.hidden", "https://git.internal/.hidden", true},

		{"https://git.internal/a", "https://git.internal/A", false},
		{"https://git.internal/a", "https://git.internal/a/", false},
		{"https://git.internal/a//b", "https://git.internal/a/b", false},
		{"https://git.internal/a%2Fb", "https://git.internal/a/b", false},
		{"https://git.internal/a%3Ab", "https://git.internal/a:b", false},
		{"https://git.internal/a%3Fb", "https://git.internal/a?b", false},
		{"https://git.internal/%2561", "https://git.internal/%61", false},
		{"http://git.internal/a", "https://git.internal/a", false},
		{"https://git.internal:80/a", "https://git.internal/a", false},
		{"http://git.internal:443/a", "http://git.internal/a", false},
		{"https://git.internal:8443/a", "https://git.internal/a", false},
		{"https://git.internal./a", "https://git.internal/a", false},
		{"https://git.internal.evil/a", "https://git.internal/a", false},
		{"https://user@git.internal/a", "https://git.internal/a", false},
		{"https://git.internal@evil/a", "https://git.internal/a", false},
		{"https://git.internal\\@evil/a", "https://git.internal/a", false},
		{"https://git%2einternal/a", "https://git.internal/a", false},
		{"https://git.internal:443x/a", "https://git.internal/a", false},
		{"https://[::1/a", "https://[::1/a", false},
		{"https://x[::1]/a", "https://x[::1]/a", false},
		{"https:///a", "https:///a", false},
		{"https:/git.internal/a", "https://git.internal/a", false},
		{"//git.internal/a", "https://git.internal/a", false},
		{"/a", "https://git.internal/a", false},
		{"", "", false},
		{"https://git.internal/a b", "https://git.internal/a b", false},
		{"https://git.internal/é", "https://git.internal/%C3%A9", false},
		{"https://git.internal/%", "https://git.internal/%", false},
		{"https://git.internal/%4", "https://git.internal/%4", false},
		{"https://git.internal/%zz", "https://git.internal/%zz", false},
		// Whoever serves "/x/../a" may not take it for "/a".
		{"https://git.internal/a", "https://git.internal/x/../a", false},
		{"https://git.internal/x/../a", "https://git.internal/x/../a", false},
		{"https://git.internal/a", "https://git.internal/%2e/a", false},
	} {
		if covers(t, key, c.htu, c.url) != c.same {
			t.Errorf("htu %s for %s: %v", c.htu, c.url, !c.same)
		}
	}
}

// TestHTULaws: however a URL is written, a proof for it covers it; and no
// change of scheme, host, port or path is overlooked.
func TestHTULaws(t *testing.T) {
	key := newEd25519(t)
	const plain = "abcXYZ019-._~!$&'()*+,;=:@"
	segment := rapid.Custom(func(t *rapid.T) string {
		s := rapid.StringOfN(rapid.RuneFrom([]rune(plain)), 1, 8, -1).Draw(t, "segment")
		if strings.Trim(s, ".") == "" {
			return "s" + s
		}
		return s
	})
	rapid.Check(t, func(r *rapid.T) {
		scheme := rapid.SampledFrom([]string{"http", "https"}).Draw(r, "scheme")
		host := rapid.SampledFrom([]string{"git.internal", "127.0.0.1", "[::1]", "a-b.example"}).Draw(r, "host")
		port := rapid.SampledFrom([]string{"", ":8422", ":1"}).Draw(r, "port")
		segments := rapid.SliceOfN(segment, 0, 4).Draw(r, "segments")
		url := scheme + "://" + host + port + "/" + strings.Join(segments, "/")

		// Another way to write the same.
		other := strings.ToUpper(scheme) + "://" + strings.ToUpper(host)
		switch {
		case port != "":
			other += port
		case rapid.Bool().Draw(r, "port written"):
			other += map[string]string{"http": ":80", "https": ":443"}[scheme]
		}
		for _, s := range segments {
			if rapid.Bool().Draw(r, "dots") {
				other += "/gone/../."
			}
			other += "/"
			for _, c := range []byte(s) {
				if strings.IndexByte("abcXYZ019-._~", c) >= 0 && rapid.Bool().Draw(r, "encoded") {
					other += "%" + string("0123456789abcdef"[c>>4]) + string("0123456789abcdef"[c&15])
				} else {
					other += string(c)
				}
			}
		}
		if len(segments) == 0 && rapid.Bool().Draw(r, "slash") {
			other += "/"
		}
		other += rapid.SampledFrom([]string{"", "?q=1", "#f", "?a/../b#c"}).Draw(r, "tail")
		if !covers(t, key, other, url) {
			r.Fatalf("%s is not taken for %s", other, url)
		}
		signed, err := agent.SignProof(key, agent.Proof{Method: "GET", URL: other, IssuedAt: now})
		if err != nil {
			r.Fatal(err)
		}
		if _, err := agent.VerifyProof(signed, agent.ProofCheck{Method: "GET", URL: url, Now: now}); err != nil {
			r.Fatalf("signed for %s, sent to %s: %v", other, url, err)
		}

		// One byte more or less somewhere in what counts.
		at := rapid.IntRange(0, len(url)-1).Draw(r, "at")
		for _, changed := range []string{url[:at] + "q" + url[at:], url[:at] + url[at+1:], url[:at] + "%41" + url[at:]} {
			if changed != url && strings.TrimSuffix(url, "/") != strings.TrimSuffix(changed, "/") && covers(t, key, changed, url) {
				r.Fatalf("%s is taken for %s", changed, url)
			}
		}
	})
}
