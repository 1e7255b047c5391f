package e2e

import (
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWire: what is signed by code that shares nothing with kavach, kavach
// takes: an assertion as other libraries write it, a proof, a chain of links.
// One member changed, and it does not.
func TestWire(t *testing.T) {
	s := start(t, "--git-host", freeAddress(t)) // with what --dev makes for it
	const resource = "https://git.internal"
	orchestrator := s.devAgent(t, "orchestrator")
	verified := func(token string) map[string]any {
		return orchestrator.called(orchestrator.signedIn("kavach:verify", nil).Access, "verify", map[string]any{
			"token": token, "audience": resource,
			"request": map[string]any{"scope": "repository:read", "resource": "pull/847", "host": "none.example", "size": 0},
		})
	}

	t.Run("assertion", func(t *testing.T) {
		grant := url.Values{"grant_type": {"client_credentials"}, "scope": {"kavach:verify"}}
		older := *orchestrator
		older.Key = older.Key.as("EdDSA")
		for name, changes := range map[string][]change{
			"as libraries write it": {setHeader("typ", "JWT"), setHeader("kid", nil), set("iat", nil)},
			"audience in a list":    {set("aud", []string{s.Issuer})},
		} {
			if got, err := older.ask(older.authenticated(grant, changes...), older.proof("")); err != nil || got.Status != http.StatusOK || got.Type != "DPoP" {
				t.Errorf("%s: %v %+v", name, err, got)
			}
		}
		for name, changes := range map[string][]change{
			"another audience": {set("aud", s.Issuer+"/oauth/token")},
			"two audiences":    {set("aud", []string{s.Issuer, "https://other.example"})},
			"another subject":  {set("sub", "c-somebody")},
			"no jti":           {set("jti", nil)},
			"type of a card":   {setHeader("typ", "agent-key+jwt")},
			"no algorithm":     {setHeader("alg", "none")},
		} {
			if got, err := older.ask(older.authenticated(grant, changes...), older.proof("")); err != nil || got.Status != http.StatusUnauthorized || got.Error != "invalid_client" {
				t.Errorf("%s: %v %+v", name, err, got)
			}
		}
	})

	t.Run("chain", func(t *testing.T) {
		root := orchestrator.signedIn("repository:read comment:write", url.Values{"resource": {resource}}).Access
		first, second := newES256(), newEd25519()
		chain := orchestrator.Holder.link(root, first, "somebody", set("scope", "repository:read"))
		chain = first.link(chain, second, "somebody-else")
		got := verified(chain)
		if got["valid"] != true || got["allowed"] != true {
			t.Errorf("a chain of two links: %v", got)
		}
		if text := encode(got); len(got["chain"].([]any)) != 3 || !strings.Contains(text, lid(chain)) {
			t.Errorf("the chain is not described by its ids: %s", text)
		}
		for name, spoilt := range map[string]string{
			"by a stranger":    newEd25519().link(root, first, "somebody"),
			"wider":            first.link(orchestrator.Holder.link(root, first, "x", set("scope", "")), second, "y", set("scope", "repository:read")),
			"another parent":   orchestrator.Holder.link(root, first, "x", set("par_hash", hashed("other"))),
			"deeper than said": orchestrator.Holder.link(root, first, "x", set("del_depth", 0)),
			"a key again":      orchestrator.Holder.link(root, orchestrator.Holder, "x"),
		} {
			if got := verified(spoilt); got["valid"] != false {
				t.Errorf("%s: %v", name, got)
			}
		}

		// The command decides the same, without the server.
		response, err := http.Get(s.Issuer + "/.well-known/jwks.json")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		keys, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		for name, text := range map[string]string{"jwks": string(keys), "chain": chain, "proof": second.proof("GET", resource+"/pull/847/diff", chain)} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s.offline(t, dir, "verify", "chain", "--jwks", "jwks", "--issuer", s.Issuer, "--audience", resource, "--scope", "repository:read")
	})

	t.Run("exchange", func(t *testing.T) {
		held := orchestrator.signedIn("repository:read comment:write", url.Values{"resource": {resource}}).Access
		to := newES256()
		got, err := orchestrator.exchange(held, url.Values{"scope": {"repository:read"}, "resource": {resource}, "req_cnf": {cnf(to)}})
		if err != nil || got.Status != http.StatusOK || got.Type != "DPoP" || got.IssuedType != accessType || got.Scope != "repository:read" {
			t.Fatalf("%v %+v", err, got)
		}
		if answer := verified(got.Access); answer["valid"] != true {
			t.Errorf("what was exchanged: %v", answer)
		}
	})
}
