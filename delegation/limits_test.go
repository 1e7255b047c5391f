package delegation_test

import (
	"testing"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

func parseLimits(t *testing.T, text string) (delegation.Limits, error) {
	t.Helper()
	v, err := jcs.Parse([]byte(text), jcs.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return delegation.ParseLimits(v)
}

func entry(member, text string) string {
	quoted, err := jcs.Marshal(map[string]any{member: []string{text}})
	if err != nil {
		panic(err)
	}
	return string(quoted)
}

func TestNetworkGrammar(t *testing.T) {
	for _, good := range []string{
		"git.internal", "localhost", "git.internal:443", "*.internal", "*.a.b:65535", "a-b.c--d.e",
		"xn--bcher-kva.example", "10.0.0.1", "10.0.0.1:22", "[2001:db8::1]", "[2001:db8::1]:443", "[::1]",
		"1password.example", "0x.example", "1.2.3.4a", "a.0x1g",
	} {
		if _, err := parseLimits(t, entry("allow_network", good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", ".", "*", "*.", "*.*.a", "a.*", "*a.b", "a..b", ".a", "a.", "Git.internal", "bücher.example",
		"a_b.c", "-a.b", "a-.b", "a b", "a/b", "http://a", "a:0", "a:65536", "a:080", "a:", "a:x", "a:+1", "a:443:443", ":443",
		"user@a", "a?", "a%41", "[::1", "::1", "2001:db8::1", "[::1]443", "[::1]:", "[10.0.0.1]", "[fe80::1%eth0]",
		"[2001:DB8::1]", "[2001:0db8::1]", "[2001:db8:0:0:0:0:0:1]", "[::ffff:10.0.0.1]", "[::ffff:a00:1]",
		"010.0.0.1", "10.0.1", "127.1", "2130706433", "0x7f000001", "0x7f.1", "1.2.3.4.5", "a.123", "a.0x1f", "a.0x",
		"*.10.0.0.1", "*.[::1]", "10.0.0.1.", "a\x00", "256.1.1.1",
	} {
		_, err := parseLimits(t, entry("allow_network", bad))
		wantRefusal(t, err, delegation.Malformed, "allow_network")
	}
}

func TestResourceGrammar(t *testing.T) {
	for _, good := range []string{"a", "a/b", "a/*", "a/b/*", "/a", "a/", "pullrequest/847", "kavach/delegate", "urn:x:y", "a.b", "a/..b", "/a/*", "a b"} {
		if _, err := parseLimits(t, entry("resources", good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", "*", "/*", "a*", "*/a", "a/*/b", "a/**", "a//b", "//a", "a//*", "a/./b", "./a", "a/..", "..", ".", "../*", "./*", "a/%2e", "%", "é", "a\n", "https://x"} {
		_, err := parseLimits(t, entry("resources", bad))
		wantRefusal(t, err, delegation.Malformed, "resources")
	}
}

func TestLimitsReadAndWriteAlike(t *testing.T) {
	for _, want := range []string{
		`{}`, `{"resources":[]}`, `{"allow_network":[]}`,
		`{"allow_network":["*.b:443","a"],"audit_required":false,"max_calls":1,"max_file_size":0,"resources":["b","a/*"]}`,
		`{"max_file_size":9007199254740991}`,
	} {
		l, err := parseLimits(t, want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := jcs.Marshal(l.Map())
		if err != nil || string(got) != want {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
		if l.IsZero() != (want == `{}`) {
			t.Errorf("IsZero of %s", want)
		}
	}
	_, err := parseLimits(t, `{"type":"kavach_limits"}`)
	wantRefusal(t, err, delegation.Malformed)
	_, err = parseLimits(t, `[]`)
	wantRefusal(t, err, delegation.Malformed)
}
