package main

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
)

// TestAuditActions keeps the list of docs/audit-log.md and the closed list of
// the log the same.
func TestAuditActions(t *testing.T) {
	text, err := os.ReadFile("../../docs/audit-log.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "## Actions")
	table, _, _ = strings.Cut(table, "## ")
	var documented []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z.]+)` \\| ").FindAllStringSubmatch(table, -1) {
		documented = append(documented, m[1])
		if !audit.KnownAction(m[1]) {
			t.Errorf("docs/audit-log.md lists %s, which the log does not take", m[1])
		}
	}
	file, err := parser.ParseFile(token.NewFileSet(), "../../audit/actions.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			action, _ := strconv.Unquote(lit.Value)
			if audit.KnownAction(action) && !slices.Contains(documented, action) {
				t.Errorf("docs/audit-log.md does not list %s", action)
			}
		}
		return true
	})
}

// TestVerifyAnswersAsMCP: `kavach verify --json` is the output of the MCP tool
// verify.
func TestVerifyAnswersAsMCP(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile("../../mcp/schemas/verify.out.json")
	if err != nil {
		t.Fatal(err)
	}
	key, err := agent.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	size := int64(5)
	signed, err := delegation.Sign(delegation.Claims{
		Issuer: "https://auth.example", Subject: "usr_1", ClientID: "c", GrantID: "g", Audience: []string{"https://rs.example"},
		IssuedAt: now(), Expires: now().Add(time.Minute), Scopes: []string{"a"}, Root: true, MaxDepth: 1, Key: key.Public(),
		Limits: delegation.Limits{MaxFileSize: &size},
	}, delegation.ServerKey{KID: "at-1", Signer: issuerKey()})
	if err != nil {
		t.Fatal(err)
	}
	anchor, err := delegation.NewAnchor("at-1", issuerKey().Public())
	if err != nil {
		t.Fatal(err)
	}
	verifier := &delegation.Verifier{Issuer: "https://auth.example", Anchors: delegation.AnchorSet(anchor)}
	for name, request := range map[string]*delegation.Request{
		"no request": nil,
		"allowed":    {Scope: delegation.AllOf("a"), Size: delegation.Given(int64(1))},
		"refused":    {Scope: delegation.AllOf("b"), Size: delegation.Given(int64(9))},
	} {
		for _, audience := range []string{"https://rs.example", "https://other.example"} {
			for _, credential := range []string{signed.Token, "garbage"} {
				v := verdict{now: now(), unchecked: []string{"revocation"}}
				v.judge(verifier, audience, delegation.Shown{Token: credential})
				if request != nil && v.chain != nil {
					v.decide(*request)
				} else {
					v.unchecked = append(v.unchecked, "request")
				}
				text, err := json.Marshal(v.content())
				if err != nil {
					t.Fatal(err)
				}
				content, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
				if err != nil {
					t.Fatal(err)
				}
				if err := schema.Validate(content); err != nil {
					t.Errorf("%s: %v\n%s", name, err, text)
				}
			}
		}
	}
}

// TestClock: a binary built with the tag testclock lives when a test says; a
// release build has no such code.
func TestClock(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.GoFiles}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "testclock") {
		t.Errorf("a release build has the test clock: %s", out)
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "kavach")
	if out, err := exec.Command("go", "build", "-tags", "testclock", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("building with testclock: %v\n%s", err, out)
	}
	clock := filepath.Join(dir, "clock")
	if err := os.WriteFile(clock, []byte("864000000\n"), 0o600); err != nil { // 10,000 days
		t.Fatal(err)
	}
	run := func(env ...string) string {
		cmd := exec.Command(bin, "agent", "create", "a", "--version", "1.0.0", "--purpose", "p", "--scope", "s", "--out", t.TempDir(), "--json")
		cmd.Env = append(cleanEnv(), env...)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		var made createdAgent
		if err := json.Unmarshal(out, &made); err != nil {
			t.Fatal(err)
		}
		manifest, err := os.ReadFile(made.ManifestFile)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(manifest))
	}
	if _, err := agent.VerifyManifest(run(), now()); err != nil {
		t.Errorf("without KAVACH_CLOCK: %v", err)
	}
	if _, err := agent.VerifyManifest(run("KAVACH_CLOCK="+clock), now().Add(864000000*time.Second)); err != nil {
		t.Errorf("with KAVACH_CLOCK: %v", err)
	}
	if _, err := agent.VerifyManifest(run("KAVACH_CLOCK="+clock), now()); err == nil {
		t.Error("KAVACH_CLOCK changes nothing")
	}
}
