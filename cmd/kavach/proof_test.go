package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// The proof of a call is made and judged without a server.
func TestCallProofOffline(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	run := func(args ...string) (string, int) {
		t.Helper()
		var out, errs bytes.Buffer
		w := &world{ctx: t.Context(), stdin: strings.NewReader(""), stdout: &out, stderr: &errs, now: now}
		status := w.run(args)
		return out.String() + errs.String(), status
	}
	holder := filepath.Join(dir, "holder.key.json")
	if said, status := run("holder", "new", "--out", holder); status != 0 {
		t.Fatal(said)
	}
	key, err := (&world{ctx: t.Context()}).readPrivateKey(holder)
	if err != nil {
		t.Fatal(err)
	}
	const issuer, resource = "https://auth.example", "https://git.example"
	signed, err := delegation.Sign(delegation.Claims{
		Issuer: issuer, Subject: "alice", ClientID: "orchestrator", GrantID: "g", Audience: []string{resource},
		IssuedAt: now(), Expires: now().Add(time.Minute), Root: true, MaxDepth: 1, Key: key.Public(),
	}, delegation.ServerKey{KID: "at-1", Signer: issuerKey()})
	if err != nil {
		t.Fatal(err)
	}
	public, err := agent.NewPublicKey(issuerKey().Public())
	if err != nil {
		t.Fatal(err)
	}
	jwk := public.JWK()
	jwk["kid"], jwk["alg"], jwk["use"] = "at-1", public.Alg(), "sig"
	set, err := jcs.Marshal(map[string]any{"keys": []any{jwk}})
	if err != nil {
		t.Fatal(err)
	}
	token, keys := file("token.jwt", []byte(signed.Token)), file("jwks.json", set)
	proof, status := run("proof", "--key-file", holder, "--token-file", token, "--tool", "get_diff", "--arguments-file", file("arguments.json", []byte(`{"pull":847}`)))
	if status != 0 {
		t.Fatal(proof)
	}
	shown := file("proof", []byte(proof))
	for arguments, want := range map[string]int{`{"pull":8.47e2}`: 0, `{"pull":848}`: exitFailed} {
		said, status := run("verify", token, "--jwks", keys, "--issuer", issuer, "--audience", resource, "--proof", shown,
			"--tool", "get_diff", "--arguments", arguments, "--json")
		var v struct {
			Valid     bool     `json:"valid"`
			Reason    string   `json:"reason"`
			Unchecked []string `json:"unchecked"`
		}
		if err := json.Unmarshal([]byte(said), &v); err != nil || status != want || v.Valid != (want == 0) ||
			(want != 0) != (v.Reason == string(delegation.HolderBindingFailed)) || strings.Join(v.Unchecked, " ") != "revocation" {
			t.Errorf("%s: exit status %d, %s", arguments, status, said)
		}
	}
}
