package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"
)

// handed is a chain of one link below orch's root, for the agent that holds it.
func (c *crew) handed(to *agent, changes ...change) string {
	return c.orch.Holder.link(c.root, to.Holder, to.ID, changes...)
}

// Token exchange: scopes, parties, resources, actors.
var exchangeAttacks = []crewRow{
	{"A-95 more scope than the subject, the client or the actor has", func(t *testing.T, c *crew) {
		small := c.handed(c.rev, set("scope", "archive:read kavach:delegate kavach:verify"))
		for _, scope := range []string{
			"archive:write", "archive:read archive:write", "kavach:admin", "audit:read", "agents:manage", "audit:write", "wiki:read", "archive:READ",
			"Archive:read", "archive:*", "*", "archive", "openid", "archive:read,archive:write", "archive:read\tarchive:write", "archive:read\u00a0archive:write",
			"archive:read\x00archive:write", "\u0430rchive:read", // Cyrillic a
		} {
			wantOAuth(t, scope, c.trade(t, c.rev, small, "scope", scope), 400, "invalid_scope", "invalid_request")
			wantOAuth(t, scope, c.trade(t, c.rev, small, "scope", scope, "resource", archive), 400, "invalid_scope", "invalid_request")
			got := c.tool(t, c.rev, small, "delegate", map[string]any{"agent": c.hand.ID, "scopes": []string{scope}})
			wantTool(t, scope, got, "invalid", "not in your token", "not_narrower", "scopes")
		}
		wantOAuth(t, "scope twice", c.trade(t, c.rev, small, "scope", "archive:read", "scope", "archive:write"), 400, "invalid_request")

		// What rev holds by a link is more than rev is registered for.
		large := c.handed(c.rev)
		wantOAuth(t, "not the client's", c.trade(t, c.rev, large, "scope", "archive:write"), 400, "invalid_scope")
		wantOAuth(t, "for another", c.trade(t, c.rev, large, "scope", "archive:write", "req_cnf", cnf(newEd25519())), 400, "invalid_scope")
		all := c.trade(t, c.rev, large)
		if scope, _ := all.json(t)["scope"].(string); all.status != http.StatusOK || strings.Contains(scope, "write") || !strings.Contains(scope, "archive:read") {
			t.Errorf("all that rev may have: %d %s", all.status, all.body)
		}
		// The actor may have it, the subject does not.
		card := c.hand.Key.card(c.hand.ID, c.Issuer, newEd25519())
		wantOAuth(t, "the actor's", c.trade(t, c.rev, small, "scope", "kavach:audit", "actor_token", card, "actor_token_type", cardType), 400, "invalid_scope")
	}},
	{"A-97 laundering a stolen token", func(t *testing.T, c *crew) {
		mine := c.handed(c.rev)
		for name, token := range map[string]string{"root": c.root, "link": mine} {
			for _, thief := range []*agent{c.hand, c.stranger, c.keyed, c.orch.holding(newEd25519()), c.rev.holding(newEd25519())} {
				wantOAuth(t, name+" by "+thief.Name, c.trade(t, thief, token), 400, "invalid_request", "unauthorized_client")
				wantOAuth(t, name+" for another key", c.trade(t, thief, token, "req_cnf", cnf(newEd25519())), 400, "invalid_request", "unauthorized_client")
			}
			form := exchangedWith(token)
			wantOAuth(t, name+" without proof", c.form(t, "/oauth/token", c.orch.authenticated(form).Encode()), 400, "invalid_request")
			wantOAuth(t, name+" by nobody", c.grants(t, nil, form), 400, "invalid_request")
			for _, id := range []credential{c.static, {c.static.ID, "x"}} {
				got := c.form(t, "/oauth/token", form.Encode(), "Authorization", basic(id.ID, id.Secret))
				if got.status == http.StatusOK || got.status == http.StatusBadRequest != (id == c.static) {
					t.Errorf("%s by static: %d %s", name, got.status, got.body)
				}
			}
			for _, public := range []string{c.public.ID, c.web.ID, c.orch.ID, "nobody"} {
				form.Set("client_id", public)
				got := c.form(t, "/oauth/token", form.Encode(), "DPoP", newEd25519().proof("POST", c.orch.tokenEndpoint(), ""))
				if got.status != http.StatusUnauthorized && got.status != http.StatusBadRequest {
					t.Errorf("%s by public %s: %d %s", name, public, got.status, got.body)
				}
			}
		}
		// Possession of what is not bound is not holding it.
		for name, token := range map[string]string{"a person's": c.tokens.Access, "another client's": c.machine} {
			for _, thief := range []*agent{c.orch, c.hand, c.stranger, c.keyed} {
				wantOAuth(t, name, c.trade(t, thief, token), 400, "unauthorized_client")
				wantOAuth(t, name, c.trade(t, thief, token, "agent", thief.ID), 400, "unauthorized_client")
			}
			wantOAuth(t, name+" by nobody", c.grants(t, nil, exchangedWith(token)), 401, "invalid_client")
		}
		// What is no access token is no subject.
		for name, text := range map[string]string{
			"refresh token": c.tokens.Refresh, "assertion": c.orch.Key.assertion(c.orch.ID, c.Issuer), "proof": c.orch.proof(""), "manifest": c.orch.Key.manifest("orch", "archive:read"),
			"card": c.orch.Key.card(c.orch.ID, c.Issuer, newEd25519()), "nothing": "", "chain of nothing": "~", "two chains": c.root + "~" + c.root,
		} {
			wantOAuth(t, name, c.trade(t, c.orch, text), 400, "invalid_request")
		}
		wantOAuth(t, "subject twice", c.trade(t, c.orch, c.root, "subject_token", c.machine), 400, "invalid_request")
		for _, kind := range []string{"", "urn:ietf:params:oauth:token-type:refresh_token", "urn:ietf:params:oauth:token-type:id_token", "urn:ietf:params:oauth:token-type:jwt", handleType, cardType} {
			form := exchangedWith(c.root)
			form.Set("subject_token_type", kind)
			wantOAuth(t, "type "+kind, c.grants(t, c.orch, form), 400, "invalid_request")
		}
		// And whoever may, may.
		c.traded(t, c.rev, mine)
	}},
	{"A-98 other resources", func(t *testing.T, c *crew) {
		small := c.handed(c.rev, set("aud", []string{archive}))
		for _, parameter := range []string{"resource", "audience"} {
			for _, to := range []string{
				wiki, c.Issuer + "/api", c.Issuer, "https://nothing.example", archive + "/x", archive + "/../api", archive + "#", archive + "?", strings.ToUpper(archive),
				"https://archive.example:443/api", "https://archive.example./api", "https://archive.example", "https://u@archive.example/api", "archive", "//archive.example/api", "' OR 1=1--",
			} {
				if got := c.trade(t, c.orch, c.root, parameter, to, "req_cnf", cnf(newEd25519())); to != c.Issuer { // the bare origin is our own endpoint
					wantOAuth(t, parameter+" "+to, got, 400, "invalid_target")
				}
				wantOAuth(t, parameter+" "+to, c.trade(t, c.rev, small, parameter, to), 400, "invalid_target")
				wantOAuth(t, "one of two", c.trade(t, c.rev, small, parameter, archive, parameter, to), 400, "invalid_target")
			}
			wantOAuth(t, "the subject's own, dropped by its link", c.trade(t, c.rev, small, parameter, c.Issuer+"/mcp"), 400, "invalid_target")
		}
		for _, to := range []string{wiki, c.Issuer + "/api", "https://nothing.example", "x", archive + "/"} {
			got := c.tool(t, c.orch, c.root, "delegate", map[string]any{"agent": c.rev.ID, "scopes": []string{"archive:read"}, "audience": to})
			wantTool(t, to, got, "invalid_target", "audience_widened", "invalid_scope")
		}
		wantProof(t, "at an endpoint it is not for", c.shows(t, c.rev, small))
	}},
	{"A-99 actors", func(t *testing.T, c *crew) {
		key := newEd25519()
		card := func(changes ...change) string { return c.rev.Key.card(c.rev.ID, c.Issuer, key, changes...) }
		now := time.Now().Unix()
		for name, text := range map[string]string{
			"signed by another": c.hand.Key.card(c.rev.ID, c.Issuer, key), "signed by the key it names": key.card(c.rev.ID, c.Issuer, key), "iss another's": card(set("iss", c.hand.ID)),
			"kid another's": card(setHeader("kid", c.hand.ID)), "aud another": card(set("aud", c.hand.ID)), "aud the caller": card(set("aud", c.orch.ID)), "aud two": card(set("aud", []string{c.Issuer, "https://evil.example"})),
			"no aud": card(set("aud", nil)), "expired": card(set("iat", now-700), set("exp", now-100)), "too long": card(set("exp", now+601)), "from tomorrow": card(set("iat", now+86400), set("exp", now+86500)),
			"no exp": card(set("exp", nil)), "no jti": card(set("jti", nil)), "no key": card(set("jwk", nil)), "private key": card(set("jwk", key.private())), "typ": card(setHeader("typ", "JWT")),
			"alg none": encode64(`{"alg":"none","typ":"agent-key+jwt"}`) + "." + strings.Split(card(), ".")[1] + ".", "no agent": key.card(key.thumbprint(), c.Issuer, newEd25519()), "EdDSA": c.rev.Key.as("EdDSA").card(c.rev.ID, c.Issuer, key),
			"assertion": c.rev.Key.assertion(c.rev.ID, c.Issuer), "manifest": c.rev.Key.manifest("rev", "archive:read"), "token": c.root, "proof": c.rev.proof(""), "another person's": c.stranger.Key.card(c.stranger.ID, c.Issuer, key),
			"the caller's own": c.orch.Key.card(c.orch.ID, c.Issuer, key), "key of the parent": c.rev.Key.card(c.rev.ID, c.Issuer, c.orch.Holder), "x": "x",
		} {
			wantOAuth(t, name, c.trade(t, c.orch, c.root, "actor_token", text, "actor_token_type", cardType), 400, "invalid_request")
		}
		good := card()
		for name, pairs := range map[string][]string{
			"no type": {"actor_token", good}, "type alone": {"actor_token_type", cardType}, "another type": {"actor_token", good, "actor_token_type", accessType},
			"another key": {"actor_token", good, "actor_token_type", cardType, "req_cnf", cnf(newEd25519())}, "and a name": {"actor_token", good, "actor_token_type", cardType, "agent", c.hand.ID},
			"twice": {"actor_token", good, "actor_token", good, "actor_token_type", cardType},
		} {
			wantOAuth(t, name, c.trade(t, c.orch, c.root, pairs...), 400, "invalid_request")
		}
		for _, depth := range []string{"200", "9", "-1", "1.0", "01", "1e0", " 1", "9223372036854775808"} {
			wantOAuth(t, "depth "+depth, c.trade(t, c.orch, c.root, "del_max_depth", depth, "req_cnf", cnf(newEd25519())), 400, "invalid_request")
		}
		// act is what the server knows, whatever a caller says.
		lies := []string{"act", `{"sub":"root"}`, "may_act", `{"sub":"` + c.hand.ID + `"}`, "client_name", "root", "sub", "root", "gid", "x", "anc", "x"}
		made := c.traded(t, c.orch, c.root, append(lies, "actor_token", good, "actor_token_type", cardType, "scope", "archive:read kavach:verify")...)
		if act := encode(claim(made, "act")); act != `{"sub":"`+c.rev.ID+`"}` || claim(made, "sub") != c.orch.ID || claim(made, "client_id") != c.rev.ID || claim(made, "may_act") != nil {
			t.Errorf("the token says that %s acts for %v", act, claim(made, "sub"))
		}
		wantOAuth(t, "the card again", c.trade(t, c.orch, c.root, "actor_token", good, "actor_token_type", cardType), 400, "invalid_request")
		second := c.traded(t, c.rev.holding(key), made, append(lies, "agent", c.hand.ID, "req_cnf", cnf(c.hand.Holder), "scope", "archive:read kavach:verify")...)
		if act := encode(claim(second, "act")); act != `{"act":{"sub":"`+c.rev.ID+`"},"proved":false,"sub":"`+c.hand.ID+`"}` {
			t.Errorf("the token says that %s acts", act)
		}
		// Reordered, a hop removed, or 200 of them.
		deep := any(map[string]any{"sub": "x"})
		for range 200 {
			deep = map[string]any{"sub": "x", "act": deep}
		}
		part := strings.Split(second, ".")
		for name, act := range map[string]any{
			"none": nil, "a hop removed": map[string]any{"sub": c.hand.ID}, "the other order": map[string]any{"sub": c.rev.ID, "act": map[string]any{"sub": c.hand.ID}}, "deep": deep,
		} {
			claims := decodePart(part[1])
			put(claims, "act", act)
			forged := part[0] + "." + encode64(encode(claims)) + "." + part[2]
			c.invalidEverywhere(t, name, c.hand, forged, "signature_invalid", "malformed", "too_large")
			c.invalidEverywhere(t, name+" in a link", c.rev, c.handed(c.rev, set("act", act), set("gid", "x")), "malformed")
		}
		wantOAuth(t, "past the one who holds it", c.trade(t, c.rev.holding(key), second), 400, "invalid_request")
	}},
}

func encode64(text string) string { return base64url([]byte(text)) }
