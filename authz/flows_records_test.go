package authz_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/people"
)

// settled reads the records when those that nobody waits for are written too.
func (f *flows) settled() []string {
	f.t.Helper()
	must(f.t, f.log.Close(f.t.Context()))
	return f.records()
}

// Every decision is recorded with an action of the closed list, and no record
// holds what somebody typed: a name, a secret, a token, a state.
func TestRecordsHoldNoNamesAndNoSecrets(t *testing.T) {
	f := newFlows(t)
	f.user("olga", people.Operator)
	const canary = "canary-7f3a"
	operator := authz.Actor{Agent: audit.Operator, Via: "cli"}
	must(t, f.registry.AddResource(t.Context(), operator, authz.Resource{
		ID: "https://res.example", Name: "Resource " + canary, Scopes: []authz.Scope{{Name: "res:read", Description: "Sentence " + canary}},
	}))
	id, secret := f.client(authz.NewClient{Name: "Client " + canary, RedirectURIs: []string{callback}, Scopes: []string{"repo:read"}})
	b, p := f.signedIn("alice"), newProof()

	code := f.code(b, id, p, url.Values{"state": {canary}, "login_hint": {canary}})
	first := f.token(f.redeem(id, code, p, nil), id, secret)
	second := f.token(refreshForm(id, first.str("refresh_token"), nil), id, secret)
	credentials := f.token(url.Values{"grant_type": {"client_credentials"}}, id, secret)
	f.introspect(id, secret, second.str("access_token"))
	f.introspect(id, secret, canary)
	f.token(f.redeem(id, code, p, nil), id, secret)                             // a lost race
	f.token(url.Values{"grant_type": {"client_credentials"}}, id, canary)       // a wrong secret
	f.token(url.Values{"grant_type": {canary}}, id, secret)                     // no grant type
	f.token(refreshForm(id, canary, url.Values{"scope": {canary}}), id, secret) // no refresh token
	f.clock.advance(time.Minute)
	f.token(refreshForm(id, first.str("refresh_token"), nil), id, secret) // reuse
	f.send(http.MethodPost, "/oauth/revoke", formType, url.Values{"token": {credentials.str("access_token")}}.Encode(), id, secret)
	f.send(http.MethodPost, "/oauth/register", "application/json",
		`{"client_name":"`+canary+`","client_uri":"https://c.example/`+canary+`","redirect_uris":["https://c.example/`+canary+`"],"token_endpoint_auth_method":"none"}`, "", "")
	f.send(http.MethodPost, "/oauth/register", "application/json", `{"client_name":"`+canary+`"}`, "", "")
	f.send(http.MethodPost, "/login", formType, url.Values{"username": {canary}, "password": {canary}}.Encode(), "", "")
	b.get("/oauth/authorize?" + f.request(id, p, url.Values{"scope": {canary}, "state": {canary}}).Encode())
	b.get("/oauth/authorize?" + f.request(canary, p, nil).Encode())
	b.get("/oauth/authorize?" + f.request(id, p, url.Values{"redirect_uri": {"https://" + canary + ".example/"}}).Encode())
	b.decide(b.ask(f.request(f.public(), newProof(), nil)), "deny")

	seen := map[string]bool{}
	for _, text := range f.settled() {
		var r struct{ Action, Result, Reason, By, Evidence string }
		must(t, json.Unmarshal([]byte(text), &r))
		if !audit.KnownAction(r.Action) || r.By != "server" || r.Evidence != "server" {
			t.Errorf("not of the closed list, or not ours: %s", text)
		}
		seen[r.Action+" "+r.Result+" "+r.Reason] = true
		for _, word := range []string{
			canary, "alice", "olga", "Test client", secret, code, p.verifier, p.challenge,
			first.str("refresh_token"), second.str("refresh_token"), second.str("access_token"),
			strings.Split(second.str("access_token"), ".")[2],
		} {
			if strings.Contains(text, word) {
				t.Errorf("%q stands in %s", word, text)
			}
		}
	}
	for _, want := range []string{
		"resource.add allowed ", "client.add allowed ", "client.register allowed ", "client.refuse denied invalid_redirect_uri",
		"user.add allowed ", "login allowed ", "login.fail denied bad_credentials",
		"consent.grant allowed ", "consent.deny denied access_denied",
		"token.issue allowed ", "token.refresh allowed ", "token.refuse denied race_lost", "token.refuse denied invalid_client",
		"token.refuse denied unsupported_grant_type", "token.refuse denied invalid_grant", "token.refuse denied refresh_reuse",
		"token.introspect allowed ", "token.introspect denied unknown_token", "revoke allowed ",
		"authorize.refuse denied invalid_scope", "authorize.refuse denied invalid_client", "authorize.refuse denied invalid_request",
	} {
		if !seen[want] {
			t.Errorf("nothing was recorded as %q", want)
		}
	}
}

// The chain of a record says the same everywhere: a root's client is
// confirmed, because we authenticated it.
func TestTheChainOfARecord(t *testing.T) {
	f := newFlows(t)
	id, secret := f.client(authz.NewClient{RedirectURIs: []string{callback}})
	p := newProof()
	a := f.token(f.redeem(id, f.code(f.signedIn("alice"), id, p, nil), p, nil), id, secret)
	f.introspect(id, secret, a.str("access_token"))
	f.send(http.MethodPost, "/oauth/revoke", formType, url.Values{"token": {a.str("access_token")}}.Encode(), id, secret)
	want := `"chain":[{"client_id":"` + id + `","confirmed":true,`
	for _, action := range []string{"token.introspect", "revoke"} {
		if !slices.ContainsFunc(f.records(), func(r string) bool {
			return strings.Contains(r, `"action":"`+action+`"`) && strings.Contains(r, want)
		}) {
			t.Errorf("no record %s with %s", action, want)
		}
	}
}
