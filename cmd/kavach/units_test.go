package main

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "500": 500, "500B": 500, "5kB": 5000, "5MB": 5_000_000, "5MiB": 5 << 20, "2GiB": 2 << 30, "9007199254740991": 1<<53 - 1,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1", "+5", "5 MB", "5mb", "MB", "1e6", "5.5MB", "9007199254740992", "9007199254740992MB", "99999999999999999999", "5MBMB", "0x10"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("parseSize(%q) = %d, want an error", text, got)
		}
	}
}

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 7, 28, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"2026-07-28T10:00:00Z": now.Add(-2 * time.Hour), "2h": now.Add(-2 * time.Hour), "2026-07-28": now.Add(-12 * time.Hour),
		"2026-07-28 11:00:00Z": now.Add(-time.Hour), "0s": now,
	} {
		if got, err := parseTime(text, now); err != nil || got != want.UnixMilli() {
			t.Errorf("parseTime(%q) = %d, %v; want %d", text, got, err, want.UnixMilli())
		}
	}
	for _, text := range []string{"yesterday", "-2h", "28.07.2026", "12:00"} {
		if _, err := parseTime(text, now); err == nil {
			t.Errorf("parseTime(%q) is no error", text)
		}
	}
}

func TestCheckIssuer(t *testing.T) {
	for _, good := range []string{
		"https://auth.example.com", "https://auth.example.com:8443", "https://auth.example.com/tenant", "http://127.0.0.1:8420",
		"http://localhost:8420", "http://[::1]:8420", "http://127.0.0.1", "https://192.0.2.1",
	} {
		if err := checkIssuer(good); err != nil {
			t.Errorf("checkIssuer(%q): %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "auth.example.com", "//auth.example.com", "http://auth.example.com", "http://192.0.2.1", "https://auth.example.com/", "https://auth.example.com//a",
		"https://auth.example.com/a/", "https://auth.example.com/a/../b", "https://auth.example.com/%61", "https://auth.example.com?", "https://auth.example.com?a=b",
		"https://auth.example.com#", "https://auth.example.com#a", "https://user@auth.example.com", "https://AUTH.example.com", "https://auth.example.com:443",
		"http://127.0.0.1:80", "HTTPS://auth.example.com", "https:auth.example.com", "https://", "http://127.0.0.1.evil.example", "http://localhost.evil.example", "mailto:a@b",
	} {
		if err := checkIssuer(bad); err == nil {
			t.Errorf("checkIssuer(%q) accepts it", bad)
		}
	}
}

func TestIssuerFor(t *testing.T) {
	for listen, want := range map[string]string{
		"127.0.0.1:0": "http://127.0.0.1:4711", "localhost:0": "http://localhost:4711", "[::1]:0": "http://[::1]:4711", "LOCALHOST:4711": "http://localhost:4711",
	} {
		got := issuerFor(listen, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 4711})
		if got != want {
			t.Errorf("issuerFor(%q) = %q, want %q", listen, got, want)
		}
		if err := checkIssuer(got); err != nil {
			t.Errorf("issuerFor(%q): %v", listen, err)
		}
	}
	if got := issuerFor("127.0.0.1:80", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80}); got != "http://127.0.0.1" {
		t.Errorf("on port 80 the issuer is %q", got)
	}
}

func TestLoopbackListen(t *testing.T) {
	for _, yes := range []string{"127.0.0.1:8420", "localhost:8420", "[::1]:8420", "127.9.9.9:1", "[::ffff:127.0.0.1]:1"} {
		if !loopbackListen(yes) {
			t.Errorf("%q is taken for reachable", yes)
		}
	}
	for _, no := range []string{":8420", "0.0.0.0:8420", "[::]:8420", "192.0.2.1:8420", "example.com:8420", "127.0.0.1", "localhost.example.com:1"} {
		if loopbackListen(no) {
			t.Errorf("%q is taken for loopback", no)
		}
	}
}

// TestWriteNew: a file appears whole, is never overwritten, and nothing is left
// beside it.
func TestWriteNew(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "key.json")
	if err := writeNew(name, []byte("first"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeNew(name, []byte("second"), 0o600); err == nil {
		t.Error("it was overwritten")
	}
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := writeNew(filepath.Join(dir, "link"), []byte("third"), 0o600); err == nil {
		t.Error("a dangling link was followed")
	}
	if err := writeExclusive(name, []byte("fourth"), 0o600); err == nil {
		t.Error("writeExclusive overwrites")
	}
	if got, _ := os.ReadFile(name); string(got) != "first" {
		t.Errorf("the file holds %q", got)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("the folder holds %v, %v", entries, err)
	}
}

// TestOneLine: what others wrote cannot steer a terminal.
func TestOneLine(t *testing.T) {
	for in, want := range map[string]string{
		"a\nb\tc": "a b c", "\x1b[31mred": "\uFFFD[31mred", "a\u202eb": "a\uFFFDb", "\u009b2J": "\uFFFD2J", "ünïcode → ok": "ünïcode → ok",
	} {
		if got := oneLine(in); got != want {
			t.Errorf("oneLine(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestLabelsAreBounded(t *testing.T) {
	for pattern, want := range map[string]string{"": "none", "GET /login": "/login", "/oauth/": "/oauth/"} {
		if got := routeLabel(pattern); got != want {
			t.Errorf("routeLabel(%q) = %q", pattern, got)
		}
	}
	for method, want := range map[string]string{"GET": "GET", "BREW": "other", "get": "other", "": "other"} {
		if got := methodLabel(method); got != want {
			t.Errorf("methodLabel(%q) = %q", method, got)
		}
	}
}

// TestDependencies keeps docs/dependencies.md and go.mod the same.
func TestDependencies(t *testing.T) {
	text, err := os.ReadFile("../../docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| [^|]+ \\| [^|]+ \\|$").FindAllStringSubmatch(string(text), -1) {
		documented = append(documented, m[1])
	}
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mod)) {
		fields := strings.Fields(line)
		if len(fields) != 2 || !strings.HasPrefix(fields[1], "v") {
			continue // not a requirement, or an indirect one
		}
		if i := slices.Index(documented, fields[0]); i < 0 {
			t.Errorf("docs/dependencies.md does not say why %s is here", fields[0])
		} else {
			documented = slices.Delete(documented, i, i+1)
		}
	}
	for _, gone := range documented {
		t.Errorf("docs/dependencies.md speaks of %s, which is no direct dependency", gone)
	}
}

// TestArchitecture keeps the table of docs/architecture.md and the arrows the
// same.
func TestArchitecture(t *testing.T) {
	text, err := os.ReadFile("../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string][]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| (`[^|]+`) \\| [^|]+ \\| ([^|]+) \\|$").FindAllStringSubmatch(string(text), -1) {
		for _, noun := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(m[1], -1) {
			var may []string
			if m[2] != "nothing" && m[2] != "all" {
				may = strings.Split(m[2], ", ")
				slices.Sort(may)
			}
			documented[noun[1]] = may
		}
	}
	for noun, may := range arrows {
		got, ok := documented[noun]
		if !ok {
			t.Errorf("docs/architecture.md does not list %s", noun)
		} else if !slices.Equal(got, may) {
			t.Errorf("docs/architecture.md says that %s may import %v; the test says %v", noun, got, may)
		}
	}
}
