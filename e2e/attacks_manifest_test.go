package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// registers sends a registration.
func (c *crew) registers(t *testing.T, manifest, assertion, enrolment string) reply {
	t.Helper()
	return c.send(t, "POST", "/api/v1/agents", encode(map[string]any{"manifest": manifest, "assertion": assertion, "enrolment_token": enrolment}), "Content-Type", "application/json")
}

// Manifests at registration: whatever follows a first manifest is an update,
// which has an endpoint of its own (cmd/kavach, script agent_rotate).
var manifestAttacks = []crewRow{
	{"A-107 manifests", func(t *testing.T, c *crew) {
		enrolment := strings.TrimSpace(c.cli("", "agent", "enrol", "--owner", "dev"))
		c.secrets = append(c.secrets, enrolment)
		key, other := newEd25519(), newEd25519()
		id := key.thumbprint()
		const scopes = "kavach:verify"
		good := key.manifest("fresh", scopes)
		made := func(k signingKey, changes ...change) string {
			part := strings.Split(good, ".")
			return k.changed(decodePart(part[0]), decodePart(part[1]), changes)
		}
		part := strings.Split(good, ".")
		claims := decodePart(part[1])
		claims["capabilities"], claims["max_depth"] = []string{"delegate"}, 3
		edited := part[0] + "." + encode64(encode(claims)) + "." + part[2]
		now := time.Now().Unix()
		refused := func(what string, got reply) {
			t.Helper()
			if got.status < 400 || got.status >= 500 || got.json(t)["error"] == nil || got.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: %d %v %s", what, got.status, got.header, got.body)
			}
		}
		for what, manifest := range map[string]string{
			"signed by another": made(other), "a capability edited": edited, "kid of another": made(key, setHeader("kid", other.thumbprint())), "id of another": made(key, set("id", c.orch.ID)), "id and kid of another": made(key, set("id", c.orch.ID), setHeader("kid", c.orch.ID)),
			"key of another": made(other, set("jwk", other.jwk())), "its key, signed by the id's": made(key, set("jwk", other.jwk())), "no kid": made(key, setHeader("kid", nil)), "typ": made(key, setHeader("typ", "JWT")), "typ of another version": made(key, setHeader("typ", "agent-manifest-v2+jwt")), "crit": made(key, setHeader("crit", []string{"exp"})),
			"alg none": encode64(`{"alg":"none","typ":"agent-manifest+jwt","kid":"`+id+`"}`) + "." + part[1] + ".", "version": made(key, set("version", "latest")), "version 1": made(key, set("version", "1")), "no version": made(key, set("version", nil)), "seq 0": made(key, set("seq", 0)), "seq 2": made(key, set("seq", 2)),
			"seq 2 without history": made(key, set("seq", 2), set("prev", hashed("x"))), "prev": made(key, set("prev", hashed("x"))), "seq as text": made(key, set("seq", "1")), "expired": made(key, set("iat", now-100), set("exp", now-50)), "for ever": made(key, set("exp", now+400*86400)), "no exp": made(key, set("exp", nil)), "from tomorrow": made(key, set("iat", now+86400), set("exp", now+90000)),
			"unknown capability": made(key, set("capabilities", []string{"root"})), "deeper than there is": made(key, set("capabilities", []string{"delegate"}), set("max_depth", 9)), "scopes as text": made(key, set("scopes", scopes)), "a wild card": made(key, set("scopes", []string{"*"})), "private key": made(key, set("jwk", key.private())),
			"name": made(key, set("name", "<script>")), "empty name": made(key, set("name", "")), "long name": made(key, set("name", strings.Repeat("x", 1000))), "a member twice": key.signText(string(unbase64(part[0])), strings.Replace(string(unbase64(part[1])), `{"`, `{"capabilities":["delegate"],"`, 1)),
			"history": good + "~" + made(key, set("seq", 2)), "a card": key.card(id, c.Issuer, other), "an assertion": key.assertion(id, c.Issuer), "nothing": "", "large": made(key, set("purpose", strings.Repeat("x", 40000))),
		} {
			refused(what, c.registers(t, manifest, key.assertion(id, c.Issuer), enrolment))
		}
		for what, assertion := range map[string]string{
			"assertion of another": other.assertion(id, c.Issuer), "for another": other.assertion(other.thumbprint(), c.Issuer), "aud": key.assertion(id, "https://evil.example"), "aud the endpoint": key.assertion(id, c.Issuer+"/api/v1/agents"), "too long": key.assertion(id, c.Issuer, set("exp", now+120)),
			"expired": key.assertion(id, c.Issuer, set("iat", now-100), set("exp", now-40)), "no jti": key.assertion(id, c.Issuer, set("jti", nil)), "none": "", "the manifest": good,
		} {
			refused("assertion: "+what, c.registers(t, good, assertion, enrolment))
		}
		refused("no enrolment", c.registers(t, good, key.assertion(id, c.Issuer), ""))
		refused("another enrolment", c.registers(t, good, key.assertion(id, c.Issuer), enrolment+"x"))

		assertion := key.assertion(id, c.Issuer)
		if got := c.registers(t, good, assertion, enrolment); got.status != http.StatusCreated {
			t.Fatalf("after all that: %d %s", got.status, got.body)
		}
		next := strings.TrimSpace(c.cli("", "agent", "enrol", "--owner", "mallory"))
		for what, manifest := range map[string]string{"the same again": good, "another of the same id": made(key, set("capabilities", []string{"delegate"}), set("max_depth", 3)), "a later one": made(key, set("seq", 2), set("prev", hashed(part[0]+"."+part[1])))} {
			refused(what, c.registers(t, manifest, key.assertion(id, c.Issuer), next))
			refused(what+", enrolment used", c.registers(t, manifest, key.assertion(id, c.Issuer), enrolment))
		}
		refused("the assertion again", c.registers(t, other.manifest("more", scopes), assertion, next))
		if shown := c.cli("", "agent", "show", id, "--json"); strings.Contains(shown, "delegate") || !strings.Contains(shown, "fresh") {
			t.Errorf("the agent is now %s", shown)
		}
		// A name is unique for its owner, and the invitation is not lost by all this.
		if got := c.registers(t, other.manifest("fresh", scopes), other.assertion(other.thumbprint(), c.Issuer), next); got.status != http.StatusCreated {
			t.Errorf("the invitation of another person: %d %s", got.status, got.body)
		}
	}},
}
