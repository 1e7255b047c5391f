package authz_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/authz"
)

// Each of these scopes is legal, and so are 64 of them in a request. What does
// not fit into one token is a refusal that says so, never a server that is
// "temporarily" unavailable for ever.
func TestMoreThanOneTokenHasRoomFor(t *testing.T) {
	f := newFlows(t)
	large := authz.Resource{ID: "https://large.example", Name: "Large", Aware: true, TokenAlg: authz.AlgES256}
	var scopes []string
	for i := range 64 {
		scopes = append(scopes, fmt.Sprintf("s%02d:%s", i, strings.Repeat("x", 124)))
		large.Scopes = append(large.Scopes, authz.Scope{Name: scopes[i], Description: "Read"})
	}
	must(t, f.registry.AddResource(t.Context(), authz.Actor{Agent: "operator", Via: "cli"}, large))

	id, secret := f.client(authz.NewClient{Scopes: scopes})
	f.wantError(f.token(url.Values{"grant_type": {"client_credentials"}}, id, secret), http.StatusBadRequest, "invalid_scope")
	if n := f.recorded("invalid_scope"); n != 1 {
		t.Errorf("%d records of the refusal", n)
	}
	some := strings.Join(scopes[:34], " ")
	if a := f.token(url.Values{"grant_type": {"client_credentials"}, "scope": {some}}, id, secret); a.status != http.StatusOK || a.str("scope") != some {
		t.Errorf("34 of them: %v", a)
	}

	// On the consent page a person may tick more than fits, and then fewer.
	b, client, p := f.signedIn("alice"), f.public(), newProof()
	page := b.ask(f.request(client, p, url.Values{"scope": {"kavach:delegate"}}))
	answer := b.decide(page, "approve", slices.Concat([]string{"kavach:delegate"}, scopes)...)
	if answer.status != http.StatusBadRequest || !strings.Contains(answer.text(), "more than one token has room for") {
		t.Fatalf("all ticked: %d %s", answer.status, answer.text())
	}
	answer = b.decide(answer, "approve", "kavach:delegate", scopes[0])
	m := navigateLink.FindStringSubmatch(answer.body)
	if m == nil {
		t.Fatalf("one ticked: %d %s", answer.status, answer.text())
	}
	answer.location = strings.ReplaceAll(m[1], "&amp;", "&")
	if a := f.token(f.redeem(client, redirected(t, answer).Get("code"), p, nil)); a.str("scope") != "kavach:delegate "+scopes[0] {
		t.Errorf("%d %v", a.status, a.body)
	}
}
