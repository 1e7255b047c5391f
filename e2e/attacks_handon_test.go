package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// delegates calls the tool for an agent, with what may be asked besides.
func (c *crew) delegates(t *testing.T, who *agent, token, to string, more map[string]any) reply {
	t.Helper()
	arguments := map[string]any{"agent": to, "scopes": []string{"kavach:verify"}}
	for name, value := range more {
		arguments[name] = value
	}
	return c.tool(t, who, token, "delegate", arguments)
}

// Who may hand on to whom.
var handOnAttacks = []crewRow{
	{"A-103 no capability, oneself, circles, nobody, too deep", func(t *testing.T, c *crew) {
		key := newEd25519()
		bind := map[string]any{"public_key": key.jwk()}
		// No capability: the scope is there, handing on is not.
		mine := c.hand.signedIn("", nil).Access
		wantTool(t, "without capability", c.delegates(t, c.hand, mine, c.rev.ID, nil), "access_denied", "capability")
		wantTool(t, "without capability, bound", c.delegates(t, c.hand, mine, c.rev.ID, bind), "access_denied", "capability")
		wantOAuth(t, "by exchange", c.trade(t, c.hand, mine, "agent", c.rev.ID, "req_cnf", cnf(key)), 400, "access_denied", "invalid_request")
		wantOAuth(t, "by key", c.trade(t, c.hand, mine, "req_cnf", cnf(key)), 400, "access_denied", "invalid_request")
		wantOAuth(t, "by card", c.trade(t, c.hand, mine, "actor_token", c.rev.Key.card(c.rev.ID, c.Issuer, key), "actor_token_type", cardType), 400, "access_denied", "invalid_request")
		wantOAuth(t, "by handle", c.trade(t, c.hand, mine, "agent", c.rev.ID, "requested_token_type", handleType), 400, "access_denied", "invalid_request")
		c.invalidEverywhere(t, "offline", c.rev, c.hand.Holder.link(mine, c.rev.Holder, c.rev.ID, set("del_max_depth", 3)), "depth_invalid", "malformed")

		// Oneself, by id, by name, with another key.
		for _, name := range []string{c.orch.ID, c.orch.Name} {
			wantTool(t, "oneself", c.delegates(t, c.orch, c.root, name, nil), "party_repeated", "already")
			wantTool(t, "oneself, another key", c.delegates(t, c.orch, c.root, name, bind), "party_repeated", "already")
			wantOAuth(t, "oneself by exchange", c.trade(t, c.orch, c.root, "agent", name, "req_cnf", cnf(key)), 400, "invalid_request")
			wantOAuth(t, "oneself by handle", c.trade(t, c.orch, c.root, "agent", name, "requested_token_type", handleType), 400, "invalid_request")
		}
		wantOAuth(t, "oneself by card", c.trade(t, c.orch, c.root, "actor_token", c.orch.Key.card(c.orch.ID, c.Issuer, key), "actor_token_type", cardType), 400, "invalid_request")

		// A to B to A, online and offline.
		online := c.traded(t, c.orch, c.root, "agent", c.rev.ID, "req_cnf", cnf(c.rev.Holder))
		for what, token := range map[string]string{"online": online, "offline": c.handed(c.rev)} {
			wantTool(t, "back, "+what, c.delegates(t, c.rev, token, c.orch.ID, nil), "party_repeated", "already")
			wantTool(t, "back by name, "+what, c.delegates(t, c.rev, token, c.orch.Name, bind), "party_repeated", "already")
			wantOAuth(t, "back, "+what, c.trade(t, c.rev, token, "agent", c.orch.ID, "req_cnf", cnf(key)), 400, "invalid_request")
			wantOAuth(t, "back by card, "+what, c.trade(t, c.rev, token, "actor_token", c.orch.Key.card(c.orch.ID, c.Issuer, key), "actor_token_type", cardType), 400, "invalid_request")
			wantOAuth(t, "back to the root's key, "+what, c.trade(t, c.rev, token, "req_cnf", cnf(c.orch.Holder)), 400, "invalid_request")
			wantOAuth(t, "back to the identity key, "+what, c.trade(t, c.rev, token, "req_cnf", cnf(c.orch.Key)), 400, "invalid_request")
		}
		c.invalidEverywhere(t, "back offline", c.orch, c.rev.Holder.link(c.handed(c.rev), c.orch.Holder, c.orch.ID), "key_reuse")

		// Whom nobody may know of is not there, for everybody in the same words.
		said := map[string]bool{}
		for _, to := range []string{newEd25519().thumbprint(), "nobody", c.stranger.ID, c.stranger.Name, c.public.ID, c.static.ID, "dev", "mallory", "signer ", "*", "' OR 1=1--"} {
			got := c.delegates(t, c.orch, c.root, to, nil)
			wantTool(t, to, got, "no active agent")
			said[got.body] = true
		}
		if len(said) != 1 {
			t.Errorf("who exists shows: %v", said)
		}
		said = map[string]bool{}
		for _, to := range []string{newEd25519().thumbprint(), "nobody", c.stranger.ID, c.stranger.Name} {
			got := c.trade(t, c.orch, c.root, "agent", to, "req_cnf", cnf(key))
			wantOAuth(t, to, got, 400, "invalid_request")
			said[got.body] = true
		}
		if len(said) != 1 {
			t.Errorf("who exists shows: %v", said)
		}
		wantOAuth(t, "another person's card", c.trade(t, c.orch, c.root, "actor_token", c.stranger.Key.card(c.stranger.ID, c.Issuer, key), "actor_token_type", cardType), 400, "invalid_request")

		// One level more than there is.
		for _, depth := range []any{9, -1, 1.5, "1", 1e9} {
			wantTool(t, fmt.Sprint("max_depth ", depth), c.delegates(t, c.orch, c.root, c.rev.ID, map[string]any{"max_depth": depth}), "max_depth")
		}
		last := c.traded(t, c.orch, c.root, "agent", c.rev.ID, "req_cnf", cnf(key), "del_max_depth", "0")
		owner := c.rev.holding(key)
		wantTool(t, "too deep", c.delegates(t, owner, last, c.hand.ID, map[string]any{"public_key": newEd25519().jwk()}), "depth_invalid")
		wantTool(t, "too deep, handle", c.delegates(t, owner, last, c.hand.ID, nil), "depth_invalid")
		wantOAuth(t, "too deep", c.trade(t, owner, last, "agent", c.hand.ID, "req_cnf", cnf(newEd25519())), 400, "invalid_request")
		c.invalidEverywhere(t, "too deep offline", c.hand, key.link(last, c.hand.Holder, c.hand.ID, set("del_depth", 1), set("del_max_depth", 1)), "depth_invalid", "malformed")
		// Depth does not come back by exchanging again.
		same := c.traded(t, owner, last)
		wantOAuth(t, "too deep, exchanged before", c.trade(t, owner, same, "agent", c.hand.ID, "req_cnf", cnf(newEd25519()), "del_max_depth", "3"), 400, "invalid_request")
	}},
	{"A-103 two hundred at once", func(t *testing.T, c *crew) {
		token := c.orch.signedIn("kavach:delegate kavach:verify", nil).Access
		var all sync.WaitGroup
		made, keys := make([]string, 200), make([]signingKey, 200)
		for i := range made {
			keys[i] = newEd25519()
			all.Go(func() {
				status, result, _, err := c.orch.call(token, "delegate", map[string]any{"agent": c.rev.ID, "scopes": []string{"kavach:verify"}, "public_key": keys[i].jwk()})
				content, _ := result["structuredContent"].(map[string]any)
				if err == nil && status == http.StatusOK && content != nil {
					made[i], _ = content["token"].(string)
				} else if status != http.StatusTooManyRequests {
					t.Errorf("%v %d %v", err, status, result)
				}
			})
		}
		all.Wait()
		for i, child := range made {
			if child == "" {
				t.Fatal("some were not made")
			}
			if got := c.shows(t, c.rev.holding(keys[i]), child); got.status != http.StatusOK {
				t.Fatalf("child %d: %d %s", i, got.status, got.body)
			}
		}
		// They end together, with what they came from: 200 entries would be more
		// than the feed has room for.
		if got := c.form(t, "/oauth/revoke", c.orch.authenticated(url.Values{"token": {token}}).Encode()); got.status != http.StatusOK {
			t.Fatalf("revoking: %d %s", got.status, got.body)
		}
		for i, child := range made {
			if got := c.shows(t, c.rev.holding(keys[i]), child); got.status != http.StatusUnauthorized {
				t.Errorf("child %d afterwards: %d %s", i, got.status, got.body)
			}
		}
	}},
	{"A-103 an agent whose manifest is over", func(t *testing.T, c *crew) {
		exp, _ := decodePart(strings.Split(readFile(t, c.brief.Manifest), ".")[1])["exp"].(float64)
		time.Sleep(time.Until(time.Unix(int64(exp), 0)) + 10*time.Millisecond)
		wantTool(t, "by id", c.delegates(t, c.orch, c.root, c.brief.ID, nil), "no active agent")
		wantTool(t, "by name", c.delegates(t, c.orch, c.root, c.brief.Name, nil), "no active agent")
		wantOAuth(t, "by exchange", c.trade(t, c.orch, c.root, "agent", c.brief.ID, "req_cnf", cnf(newEd25519())), 400, "invalid_request")
		wantOAuth(t, "by card", c.trade(t, c.orch, c.root, "actor_token", c.brief.Key.card(c.brief.ID, c.Issuer, newEd25519()), "actor_token_type", cardType), 400, "invalid_request")
		if got := c.grants(t, c.brief, url.Values{"grant_type": {"client_credentials"}}); got.status != http.StatusBadRequest && got.status != http.StatusUnauthorized {
			t.Errorf("it signs in: %d %s", got.status, got.body)
		}
	}},
	{"A-103 a suspended agent", func(t *testing.T, c *crew) {
		who := c.enrolled(t, newEd25519(), "paused", "dev", "kavach:verify kavach:delegate")
		mine, link := who.signedIn("", nil).Access, c.handed(who)
		for what, token := range map[string]string{"its own": mine, "a link to it": link} {
			if got := c.shows(t, who, token); got.status != http.StatusOK {
				t.Fatalf("before, %s: %d %s", what, got.status, got.body)
			}
		}
		c.cli("", "agent", "suspend", who.ID, "--why", "a test")
		for what, token := range map[string]string{"its own": mine, "a link to it": link} {
			if got := c.shows(t, who, token); got.status != http.StatusUnauthorized {
				t.Errorf("suspended, %s: %d %s", what, got.status, got.body)
			}
			wantOAuth(t, "suspended, "+what+" exchanged", c.trade(t, c.orch, token, "agent", c.rev.ID, "req_cnf", cnf(newEd25519())), 400, "invalid_request")
		}
		// Signing in looks at what is at most a second old; what it gives in that
		// second is worth nothing.
		for start := time.Now(); ; time.Sleep(100 * time.Millisecond) {
			got, err := who.signIn("", nil)
			if err != nil {
				t.Fatal(err)
			}
			if got.Status != http.StatusOK {
				break
			}
			if got := c.shows(t, who, got.Access); got.status != http.StatusUnauthorized {
				t.Errorf("a token for a suspended agent: %d %s", got.status, got.body)
			}
			if time.Since(start) > 10*time.Second {
				t.Fatal("a suspended agent signs in")
			}
		}
		wantTool(t, "by id", c.delegates(t, c.orch, c.root, who.ID, nil), "no active agent")
		wantOAuth(t, "by card", c.trade(t, c.orch, c.root, "actor_token", who.Key.card(who.ID, c.Issuer, newEd25519()), "actor_token_type", cardType), 400, "invalid_request")
		c.cli("", "agent", "resume", who.ID)
		if got := c.shows(t, who, who.signedIn("", nil).Access); got.status != http.StatusOK {
			t.Errorf("resumed: %d %s", got.status, got.body)
		}
	}},
	{"A-138 somebody else's grant as parent", func(t *testing.T, c *crew) {
		mine := c.stranger.signedIn("", nil).Access
		theirs := content(t, c.delegates(t, c.orch, c.root, c.rev.ID, map[string]any{"public_key": newEd25519().jwk()}))
		for _, name := range []string{"parent_id", "parent", "parent_token", "token", "token_id", "chain", "subject_token", "grant", "gid", "sub", "act", "idempotency_key"} {
			for _, value := range []any{c.root, theirs["token"], theirs["token_id"], claim(c.root, "gid"), lid(c.root)} {
				wantTool(t, name, c.delegates(t, c.stranger, mine, c.stranger.ID, map[string]any{name: value}), name, "unknown", "no argument")
			}
		}
		for what, arguments := range map[string]map[string]any{
			"a token of others": {"token_id": theirs["token_id"]}, "the root of others": {"token_id": lid(c.root)}, "a chain of others": {"chain": c.root}, "a link of others": {"chain": c.handed(c.rev)},
			"an agent of others": {"agent": c.rev.ID}, "an agent of others by name": {"agent": c.rev.Name}, "two at once": {"token_id": theirs["token_id"], "agent": c.rev.ID}, "nothing": {},
		} {
			got := c.tool(t, c.stranger, mine, "revoke", arguments)
			if what == "an agent of others" { // everything of hers that it got: nothing
				if list, _ := content(t, got)["revoked"].([]any); len(list) != 0 {
					t.Errorf("%s: %s", what, got.body)
				}
				continue
			}
			wantTool(t, what, got, "invalid_grant", "invalid_request", "no such", "exactly one", "not below")
		}
		// Nobody revokes upwards.
		link := c.handed(c.rev)
		wantTool(t, "the parent", c.tool(t, c.rev, link, "revoke", map[string]any{"token_id": lid(c.root)}), "invalid_grant", "no such")
		wantTool(t, "the parent as chain", c.tool(t, c.rev, link, "revoke", map[string]any{"chain": c.root}), "invalid_grant", "no such")
		for _, token := range []string{c.root, link} {
			wantOAuth(t, "at the endpoint", c.form(t, "/oauth/revoke", c.stranger.authenticated(url.Values{"token": {token}}).Encode()), 400, "invalid_grant")
		}
		if got := c.shows(t, c.rev, link); got.status != http.StatusOK {
			t.Errorf("after all that: %d %s", got.status, got.body)
		}
	}},
}
