package kavachtest

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/wellknown"
)

const (
	thirdParty = "../verify-only"
	library    = "github.com/go-jose/go-jose/v4"
)

// TestThirdParty: a module of somebody else that verifies tokens is made of
// kavach and go-jose.
func TestThirdParty(t *testing.T) {
	list := func(args ...string) []string {
		t.Helper()
		cmd := exec.Command("go", append([]string{"list"}, args...)...)
		cmd.Dir = thirdParty
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list %s: %v %s", strings.Join(args, " "), err, stderr.String())
		}
		lines := strings.Fields(string(out))
		slices.Sort(lines)
		return slices.Compact(lines)
	}
	allowed := []string{"example.com/verify-only", library, "github.com/kavach-dev/kavach"}
	// The module of every package that is compiled in.
	if got := list("-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "."); !slices.Equal(got, allowed) {
		t.Errorf("it is made of %q, want %q", got, allowed)
	}
	// What its go.mod has to name, directly or not.
	required := list("-m", "-f", "{{if not .Main}}{{.Path}}{{end}}", "all")
	named := slices.DeleteFunc(slices.Clone(required), func(path string) bool { return !inGoMod(t, path) })
	if !slices.Equal(named, allowed[1:]) {
		t.Errorf("its go.mod names %q, want %q", named, allowed[1:])
	}
}

func inGoMod(t *testing.T, path string) bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(thirdParty, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(text), path+" v")
}

// TestVerifyOnly: and it decides.
func TestVerifyOnly(t *testing.T) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	const name = "https://kavach.example"
	set, err := wellknown.JWKS([]wellknown.Key{{KID: "at-test", Alg: "Ed25519", Public: public}})
	if err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(t.TempDir(), "jwks.json")
	if err := os.WriteFile(keys, set, 0o600); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	made, err := delegation.Sign(delegation.Claims{
		Issuer: name, Subject: "alice", ClientID: "reader", Audience: []string{"https://docs.example"}, Scopes: []string{"docs:read"},
		GrantID: "g-1", IssuedAt: now, Expires: now.Add(time.Minute),
	}, delegation.ServerKey{KID: "at-test", Signer: private})
	if err != nil {
		t.Fatal(err)
	}
	binary := Build(t, thirdParty)
	for scope, want := range map[string]string{"docs:read": "allowed, for alice > reader", "docs:write": "scope_not_granted"} {
		cmd := exec.Command(binary, keys, name, "https://docs.example", scope)
		cmd.Stdin = strings.NewReader(made.Token)
		out, err := cmd.CombinedOutput()
		if got := fmt.Sprintf("%s%v", out, err); !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", scope, got, want)
		}
	}
}
