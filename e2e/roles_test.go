package e2e

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// claims reads a JWT's payload without verifying it.
func claims(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("not a compact JWT: %d parts", len(parts))
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func holds(t *testing.T, got tokens, scope string) bool {
	t.Helper()
	if got.Access == "" {
		return false
	}
	inClaims := slices.Contains(strings.Fields(claims(t, got.Access)["scope"].(string)), scope)
	if inClaims != slices.Contains(strings.Fields(got.Scope), scope) {
		t.Errorf("the answer says %q, the token %q", got.Scope, claims(t, got.Access)["scope"])
	}
	return inClaims
}

// TestMemberNeverGetsAuditRead tries every route to a scope that only auditors
// and operators hold.
func TestMemberNeverGetsAuditRead(t *testing.T) {
	s := start(t)
	s.cli("correct horse battery", "user", "add", "mallory", "--password-file", "-")
	mallory := newPerson(t, "mallory", "correct horse battery")
	c := register(t, s.Issuer)

	t.Run("asking for it", func(t *testing.T) {
		if got := c.signIn(mallory, "kavach:verify kavach:delegate audit:read", choice{tick: []string{"audit:read"}}); holds(t, got, "audit:read") {
			t.Error("granted")
		}
	})
	t.Run("asking for nothing else", func(t *testing.T) {
		back, err := mallory.authorize(c.request("audit:read", nil).url, choice{tick: []string{"audit:read"}})
		if err != nil {
			t.Fatal(err)
		}
		if e := back.Query().Get("error"); e != "access_denied" && e != "invalid_scope" {
			t.Errorf("answered %s", back)
		}
	})
	t.Run("forging the consent form", func(t *testing.T) {
		r := register(t, s.Issuer)
		got := r.signIn(mallory, "kavach:verify", choice{forge: url.Values{"scope": {"audit:read"}, "handon": {"audit:read"}}})
		if holds(t, got, "audit:read") {
			t.Error("granted")
		}
	})
	t.Run("at the API's audience", func(t *testing.T) {
		r := register(t, s.Issuer)
		req := r.request("audit:read kavach:verify", url.Values{"resource": {s.Issuer + "/api"}})
		back, err := mallory.authorize(req.url, choice{tick: []string{"audit:read"}})
		if err != nil {
			t.Fatal(err)
		}
		if code := back.Query().Get("code"); code != "" {
			if got, _ := r.redeem(code, req.verifier); holds(t, got, "audit:read") {
				t.Error("granted")
			}
		}
	})
	base := c.signIn(mallory, "kavach:verify kavach:delegate kavach:audit", choice{})
	t.Run("widening at refresh", func(t *testing.T) {
		got, err := form(s.Issuer, "/oauth/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {c.ID}, "refresh_token": {base.Refresh}, "scope": {"kavach:verify audit:read"}})
		if err != nil || got.Status != http.StatusBadRequest || got.Error != "invalid_scope" {
			t.Errorf("%v %+v", err, got)
		}
	})
	t.Run("delegating it", func(t *testing.T) {
		for _, args := range []map[string]any{
			{"agent": "code-reviewer", "scopes": []string{"audit:read"}},
			{"agent": "code-reviewer", "scopes": []string{"audit:read"}, "audience": s.Issuer + "/api"},
		} {
			status, result, _, err := callTool(s.Issuer, base.Access, "delegate", args)
			if err != nil {
				t.Fatal(err)
			}
			if status == http.StatusOK && result["isError"] != true {
				t.Errorf("delegated: %v", result)
			}
		}
	})
	t.Run("reading others by the audit tool", func(t *testing.T) {
		operator := register(t, s.Issuer).signIn(newPerson(t, "dev", "dev"), "kavach:verify", choice{})
		sub := claims(t, operator.Access)["sub"].(string)
		for _, args := range []map[string]any{{}, {"sub": sub}, {"q": "%"}, {"agent": "' OR 1=1 --"}} {
			_, result, _, err := callTool(s.Issuer, base.Access, "audit", args)
			if err != nil {
				t.Fatal(err)
			}
			raw, _ := json.Marshal(result)
			if strings.Contains(string(raw), sub) {
				t.Errorf("%v shows records of another principal", args)
			}
		}
	})
	t.Run("registering a machine client", func(t *testing.T) {
		var answer struct {
			ID     string   `json:"client_id"`
			Secret string   `json:"client_secret"`
			Grants []string `json:"grant_types"`
		}
		c.postJSON("/oauth/register", map[string]any{"client_name": "m", "redirect_uris": []string{c.Redirect}, "grant_types": []string{"client_credentials", "authorization_code"}, "token_endpoint_auth_method": "client_secret_post", "scope": "audit:read"}, &answer)
		if slices.Contains(answer.Grants, "client_credentials") {
			t.Errorf("the echo says %v", answer.Grants)
		}
		got, err := form(s.Issuer, "/oauth/token", url.Values{"grant_type": {"client_credentials"}, "client_id": {answer.ID}, "client_secret": {answer.Secret}, "scope": {"audit:read"}})
		if err != nil || got.Status == http.StatusOK {
			t.Errorf("%v %+v", err, got)
		}
	})
	t.Run("through an agent of one's own", func(t *testing.T) {
		dir := t.TempDir()
		s.offline(t, dir, "agent", "create", "spy", "--version", "1.0.0", "--purpose", "reads all", "--scope", "audit:read kavach:verify", "--capability", "delegate")
		enrolment := filepath.Join(dir, "enrolment")
		if err := os.WriteFile(enrolment, []byte(s.cli("", "agent", "enrol", "--owner", "mallory")), 0o600); err != nil {
			t.Fatal(err)
		}
		s.offline(t, dir, "agent", "register", "--issuer", s.Issuer, "--key-file", "spy.key.json", "--manifest", "spy.manifest.jwt", "--enrolment-file", enrolment)
		if out, err := s.tryCLI("", "agent", "grant", "spy", "--owner", "mallory", "--scope", "audit:read"); err == nil && !strings.Contains(out, "audit:read") {
			t.Logf("granting said: %s", out)
		}
		_, result, _, err := callTool(s.Issuer, base.Access, "delegate", map[string]any{"agent": "spy", "scopes": []string{"audit:read"}})
		if err != nil {
			t.Fatal(err)
		}
		if result["isError"] != true {
			t.Errorf("delegated: %v", result)
		}
	})
	t.Run("keeping it after losing the role", func(t *testing.T) {
		s.cli("another long password", "user", "add", "trent", "--role", "auditor", "--password-file", "-")
		r := register(t, s.Issuer)
		got := r.signIn(newPerson(t, "trent", "another long password"), "kavach:verify audit:read", choice{tick: []string{"audit:read"}})
		if !holds(t, got, "audit:read") {
			t.Fatalf("an auditor did not get audit:read: %+v", got)
		}
		s.cli("", "user", "set", "trent", "--role", "member")
		next, err := r.refresh(got.Refresh)
		if err != nil || next.Status != http.StatusOK {
			t.Fatalf("%v %+v", err, next)
		}
		if holds(t, next, "audit:read") {
			t.Error("the refresh still gives audit:read")
		}
	})
}
