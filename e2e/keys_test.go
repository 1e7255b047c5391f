package e2e

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestKeysAndProofs: a strict OAuth client signs in with keys (private_key_jwt,
// Ed25519 and ES256), binds what it gets with DPoP, with and without a nonce of
// the server, trades it by token exchange, and jose verifies what came out.
func TestKeysAndProofs(t *testing.T) {
	needNode(t)
	for name, args := range map[string][]string{"without a nonce": nil, "with a nonce": {"--dpop-nonce"}} {
		t.Run(name, func(t *testing.T) {
			s := start(t, args...)
			const aware, plain = "https://archive.example/api", "https://plain.example/api"
			s.cli("", "resource", "add", aware, "--name", "Archive", "--scope", "archive:read=Read the archive", "--scope", "archive:write=Write into it", "--kavach-aware")
			s.cli("", "resource", "add", plain, "--name", "Plain", "--scope", "plain:read=Read what is plain")
			const scopes = "kavach:verify kavach:delegate archive:read archive:write plain:read"
			first := s.newAgent(t, "ed", scopes, "--capability", "delegate")
			second := s.newAgentWith(t, newES256(), "es", scopes, "delegate")
			reviewer := s.newAgent(t, "reviewer", "archive:read plain:read", "--capability", "delegate")

			// A client of an operator with a key, and one that must use DPoP.
			static := newES256()
			keys := filepath.Join(t.TempDir(), "jwks.json")
			if err := os.WriteFile(keys, []byte(encode(map[string]any{"keys": []any{static.jwk()}})), 0o600); err != nil {
				t.Fatal(err)
			}
			var added credential
			decode(t, s.cli("", "client", "add", "keyed", "--method", "private_key_jwt", "--jwks-file", keys, "--dpop", "--scope", "audit:write", "--json"), &added)

			type party struct {
				ID  string `json:"id"`
				Alg string `json:"alg"`
				JWK any    `json:"jwk"`
			}
			nonce := "0"
			if args != nil {
				nonce = "1"
			}
			s.node(t, []string{
				"NONCE=" + nonce, "AWARE=" + aware, "PLAIN=" + plain,
				"AGENTS=" + encode([]party{{first.ID, "Ed25519", first.Key.private()}, {second.ID, "ES256", second.Key.private()}}),
				"KEYED=" + encode(party{added.ID, "ES256", static.private()}),
				"REVIEWER=" + encode(party{reviewer.ID, "Ed25519", reviewer.Key.private()}),
				"HOLDER=" + encode(reviewer.Holder.private()),
				"CARD=" + reviewer.Key.card(reviewer.ID, s.Issuer, reviewer.Holder),
				"CARD2=" + reviewer.Key.card(reviewer.ID, s.Issuer, reviewer.Holder),
			}, "keys.mjs")
		})
	}
}

// TestStdio: Claude Desktop's way. The official clients start `kavach mcp` and
// speak with it over standard input and output; the agent's key is all it has.
func TestStdio(t *testing.T) {
	needNode(t)
	s := start(t)
	a := s.newAgent(t, "desktop", "kavach:verify kavach:delegate kavach:audit", "--capability", "delegate")
	other := s.newAgent(t, "helper", "kavach:verify")
	for _, version := range []string{"v1", "v2"} {
		t.Run(version, func(t *testing.T) {
			s.node(t, []string{"KAVACH=" + binary, "KEY_FILE=" + a.KeyFile, "HELPER=" + other.ID, "PUBLIC_KEY=" + encode(other.Holder.jwk())}, "stdio.mjs", version)
		})
	}
}

// TestStdioEnds: at the end of its input `kavach mcp` answers what it was asked
// and ends by itself, with nothing on standard output but messages.
func TestStdioEnds(t *testing.T) {
	s := start(t)
	a := s.newAgent(t, "desktop", "kavach:verify")
	for name, input := range map[string]string{
		"nothing said": "",
		"one question": `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"e2e","version":"1.0.0"}}}` + "\n",
		"cut short":    `{"jsonrpc":"2.0","id":1,"method":"ping"}` + "\n" + `{"jsonrpc":`,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, binary, "mcp", "--issuer", s.Issuer, "--key-file", a.KeyFile)
			cmd.Stdin = strings.NewReader(input)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%v: %s", err, &stderr)
			}
			answers := 0
			for line := range strings.Lines(string(out)) {
				var message struct {
					Version string `json:"jsonrpc"`
				}
				decode(t, line, &message)
				if message.Version != "2.0" {
					t.Errorf("no message: %s", line)
				}
				answers++
			}
			if asked := strings.Count(input, `"id"`); answers < asked {
				t.Errorf("%d of %d questions were answered: %s", answers, asked, out)
			}
		})
	}
}
