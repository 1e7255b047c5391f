package authz_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestCodeFlow is the whole story once: from a stranger's browser to tokens,
// and from a refresh token to the next.
func TestCodeFlow(t *testing.T) {
	f := newFlows(t)
	client, p, b := f.public(), newProof(), f.browser()

	// Nobody is signed in: the request waits while alice does.
	first := b.get("/oauth/authorize?" + f.request(client, p, nil).Encode())
	if first.status != http.StatusSeeOther || !strings.HasPrefix(first.location, "/login?") {
		t.Fatalf("authorize: %d %s", first.status, first.location)
	}
	to, err := url.Parse(first.location)
	must(t, err)
	consent := b.get(b.login("alice", to.Query().Get("return")).location)
	ticked, unticked := consent.boxes()
	slices.Sort(ticked)
	if want := []string{"kavach:audit", "kavach:delegate", "kavach:verify"}; !slices.Equal(ticked, want) {
		t.Errorf("ticked: %v", ticked)
	}
	if want := []string{"repo:read", "repo:write"}; !slices.Equal(unticked, want) {
		t.Errorf("to hand on, unticked: %v", unticked)
	}

	answer := b.decide(consent, "approve", "kavach:verify", "kavach:delegate", "repo:read")
	if answer.status != http.StatusOK {
		t.Errorf("the consent POST answers %d", answer.status)
	}
	got := redirected(t, answer)
	if got.Get("state") != "st4te" || got.Get("iss") != f.issuer || len(got["iss"]) != 1 || got.Has("scope") {
		t.Errorf("redirect: %v", got)
	}

	a := f.token(f.redeem(client, got.Get("code"), p, nil))
	if a.status != http.StatusOK || a.str("token_type") != "Bearer" || a.body["expires_in"] != 600.0 ||
		a.str("scope") != "kavach:delegate kavach:verify repo:read" || a.str("refresh_token") == "" {
		t.Fatalf("token: %d %v", a.status, a.body)
	}
	if a.header.Get("Cache-Control") != "no-store" || a.header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("headers: %v", a.header)
	}
	c := f.chain(a.str("access_token"))
	if c.Principal() != f.alice.ID || c.ClientID() != client || !c.Plain() || c.Bound() ||
		!slices.Equal(c.Audience(), []string{f.issuer + "/mcp", git}) || c.GrantID() == "" {
		t.Errorf("token of %s for %v by %s", c.Principal(), c.Audience(), c.ClientID())
	}

	f.clock.advance(time.Hour)
	next := f.token(refreshForm(client, a.str("refresh_token"), nil))
	if next.status != http.StatusOK || next.str("scope") != a.str("scope") || next.str("refresh_token") == a.str("refresh_token") {
		t.Fatalf("refresh: %d %v", next.status, next.body)
	}
	if n := f.chain(next.str("access_token")); n.GrantID() != c.GrantID() || n.JTI() == c.JTI() {
		t.Errorf("refreshed token: gid %s, jti %s", n.GrantID(), n.JTI())
	}
}
