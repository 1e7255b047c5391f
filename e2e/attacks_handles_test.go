package e2e

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// redeeming are the parameters that redeem a handle.
func redeeming(handle string, pairs ...string) url.Values {
	values := exchangedWith(handle, pairs...)
	values.Set("subject_token_type", handleType)
	return values
}

// handle has orch make one for an agent.
func (c *crew) handle(t *testing.T, to *agent, more map[string]any) string {
	t.Helper()
	handle, _ := content(t, c.delegates(t, c.orch, c.root, to.ID, more))["handle"].(string)
	if handle == "" {
		t.Fatal("no handle")
	}
	c.secrets = append(c.secrets, handle)
	return handle
}

// What lands in a transcript is of use to nobody but whom it is for.
var handleAttacks = []crewRow{
	{"handles: by others, for more, twice, as something else", func(t *testing.T, c *crew) {
		handle := c.handle(t, c.rev, map[string]any{"constraints": map[string]any{"resources": []string{"kavach/verify"}}})
		refused := func(what string, got reply) {
			t.Helper()
			wantOAuth(t, what, got, 400, "invalid_request", "invalid_dpop_proof", "unauthorized_client")
		}
		for _, thief := range []*agent{c.orch, c.hand, c.stranger, c.keyed, c.orch.holding(c.rev.Holder)} {
			refused("by "+thief.Name, c.grants(t, thief, redeeming(handle)))
		}
		refused("by static", c.form(t, "/oauth/token", redeeming(handle).Encode(), c.asStatic()...))
		wantOAuth(t, "by nobody", c.grants(t, nil, redeeming(handle)), 401, "invalid_client")
		wantOAuth(t, "by nobody with the key", c.form(t, "/oauth/token", redeeming(handle).Encode(), "DPoP", c.rev.proof("")), 401, "invalid_client")
		wantOAuth(t, "by its id", c.form(t, "/oauth/token", redeeming(handle, "client_id", c.rev.ID).Encode(), "DPoP", c.rev.proof("")), 401, "invalid_client")
		wantOAuth(t, "by another key", c.grants(t, c.rev.withKey(newEd25519()), redeeming(handle)), 401, "invalid_client")
		refused("without proof", c.form(t, "/oauth/token", c.rev.authenticated(redeeming(handle)).Encode()))
		refused("bound to the identity key", c.grants(t, c.rev.holding(c.rev.Key), redeeming(handle)))
		for name, proof := range badProofs(c.rev.Holder, "POST", c.rev.tokenEndpoint(), "") {
			if name != "another key" && name != "another kind of key" { // the receiver may bring any
				refused(name, c.form(t, "/oauth/token", c.rev.authenticated(redeeming(handle)).Encode(), "DPoP", proof))
			}
		}
		for _, more := range [][]string{
			{"scope", "archive:write"}, {"scope", "kavach:verify"}, {"resource", archive}, {"audience", archive}, {"authorization_details", string(limited("", ""))}, {"requested_expires_in", "3600"}, {"del_max_depth", "8"}, {"agent", c.hand.ID},
			{"req_cnf", cnf(newEd25519())}, {"actor_token", c.hand.Key.card(c.hand.ID, c.Issuer, newEd25519()), "actor_token_type", cardType}, {"requested_token_type", handleType}, {"requested_token_type", "urn:kavach:token-type:aat"},
		} {
			got := c.grants(t, c.rev, redeeming(handle, more...))
			wantOAuth(t, more[0], got, 400, "invalid_request", "invalid_target", "invalid_scope", "invalid_authorization_details")
		}
		// It is no token, no code, no refresh token and no secret.
		wantChallenge(t, "as a token", c.rpc(t, "verify", `{"token":"x"}`, "Authorization", "Bearer "+handle))
		wantProof(t, "as a bound token", c.shows(t, c.rev, handle))
		refused("as an access token", c.trade(t, c.rev, handle))
		for _, name := range []string{"code", "refresh_token"} {
			kind := map[string]string{"code": "authorization_code", "refresh_token": "refresh_token"}[name]
			wantOAuth(t, "as "+name, c.form(t, "/oauth/token", url.Values{"grant_type": {kind}, "client_id": {c.public.ID}, name: {handle}, "redirect_uri": {c.public.Redirect}, "code_verifier": {strings.Repeat("a", 43)}}.Encode()), 400, "invalid_grant")
		}
		wantOAuth(t, "as a secret", c.form(t, "/oauth/token", "grant_type=client_credentials", "Authorization", basic(c.rev.ID, handle)), 401, "invalid_client")
		for _, changed := range []string{handle[:len(handle)-1], handle + "A", strings.TrimPrefix(handle, "kvh_"), strings.ToUpper(handle), " " + handle, handle + " ", handle + "~"} {
			refused("changed", c.grants(t, c.rev, redeeming(changed)))
		}
		// It was of use to one, once, and to nobody else since.
		got := c.grants(t, c.rev, redeeming(handle))
		token, _ := got.json(t)["access_token"].(string)
		if got.status != http.StatusOK || encode(limitsOf(token)) != `{"resources":["kavach/verify"]}` || encode(claim(token, "cnf")) == "null" || claim(token, "sub") != c.orch.ID {
			t.Fatalf("after all that: %d %s", got.status, got.body)
		}
		c.secrets = append(c.secrets, token)
		refused("twice", c.grants(t, c.rev, redeeming(handle)))
		refused("twice, with another key", c.grants(t, c.rev.holding(newEd25519()), redeeming(handle)))
		wantProof(t, "its token without the key", c.shows(t, c.orch, token))

		// The key of who gave it is not the receiver's.
		key := c.handle(t, c.rev, nil)
		refused("bound to the giver's key", c.grants(t, c.rev.holding(c.orch.Holder), redeeming(key)))
		// What became of the parent meanwhile counts.
		other := c.orch.signedIn("kavach:delegate kavach:verify", nil).Access
		made, _ := content(t, c.delegates(t, c.orch, other, c.rev.ID, nil))["handle"].(string)
		content(t, c.tool(t, c.orch, other, "revoke", map[string]any{"token_id": lid(other)}))
		refused("of a parent that was revoked", c.grants(t, c.rev, redeeming(made)))
	}},
}
