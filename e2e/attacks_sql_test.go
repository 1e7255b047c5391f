package e2e

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

var sqlTexts = []string{`' OR '1'='1`, `1; DROP TABLE agents;--`, `" OR ""="`, `\'; SELECT pg_sleep(5)--`, `%' UNION SELECT 1--`, `$1`, `?`, `x') ON CONFLICT DO NOTHING--`}

// uuid is a fresh UUIDv7.
func uuid() string {
	b := make([]byte, 16)
	rand.Read(b)
	ms := time.Now().UnixMilli()
	for i := range 6 {
		b[i] = byte(ms >> (40 - 8*i))
	}
	b[6], b[8] = 0x70|b[6]&15, 0x80|b[8]&63
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// reporter is a token of a client that may report about wiki and itself.
func (c *crew) reporter(t *testing.T) (id string, headers []string) {
	t.Helper()
	var added credential
	decode(t, c.cli("", "client", "add", "reporter", "--scope", "audit:write kavach:verify", "--json"), &added)
	got := c.form(t, "/oauth/token", "grant_type=client_credentials&scope=audit:write&resource="+c.Issuer+"/api", "Authorization", basic(added.ID, added.Secret)).json(t)
	token, _ := got["access_token"].(string)
	if token == "" {
		t.Fatalf("no token to report with: %v", got)
	}
	c.secrets = append(c.secrets, token, added.Secret)
	return added.ID, []string{"Authorization", "Bearer " + token, "Content-Type", "application/json"}
}

// report is an entry that is taken, but for what is changed.
func report(by string, changes ...change) map[string]any {
	entry := map[string]any{"id": uuid(), "action": "rs.access", "resource": by + "/x", "result": "allowed", "observed": time.Now().UnixMilli()}
	for _, c := range changes {
		c(nil, entry)
	}
	return entry
}

func entries(list ...any) string { return encode(map[string]any{"entries": list}) }

// SQL in every string that agents, holders and reporters send.
var sqlAttacks = []crewRow{
	{"A-143 SQL in what agents send", func(t *testing.T, c *crew) {
		before := c.cli("", "agent", "list", "--json")
		id, headers := c.reporter(t)
		if got := c.send(t, "POST", "/api/v1/audit/entries", entries(report(id)), headers...); got.status != http.StatusCreated {
			t.Fatalf("a report as it should be: %d %s", got.status, got.body)
		}
		for _, sql := range sqlTexts {
			// Token exchange.
			for parameter, codes := range map[string][]string{
				"subject_token": {"invalid_request"}, "subject_token_type": {"invalid_request"}, "actor_token_type": {"invalid_request"}, "actor_token": {"invalid_request"}, "requested_token_type": {"invalid_request"}, "agent": {"invalid_request"},
				"req_cnf": {"invalid_request"}, "scope": {"invalid_scope"}, "resource": {"invalid_target"}, "audience": {"invalid_target"}, "authorization_details": {"invalid_authorization_details"}, "requested_expires_in": {"invalid_request"}, "del_max_depth": {"invalid_request"},
			} {
				form := exchangedWith(c.root)
				form.Set(parameter, sql)
				wantOAuth(t, parameter+" "+sql, c.grants(t, c.orch, form), 400, codes...)
			}
			for _, details := range []string{`[{"type":` + encode(sql) + `}]`, `[{"type":"kavach_limits","resources":["\u0000"],` + encode(sql) + `:1}]`, `[{"type":"kavach_limits","allow_network":[` + encode(sql) + `]}]`} {
				wantOAuth(t, details, c.trade(t, c.orch, c.root, "authorization_details", details), 400, "invalid_authorization_details", "invalid_request")
			}
			for _, handle := range []string{sql, "kvh_" + sql, "kvh_" + strings.Repeat("A", 43) + sql} {
				wantOAuth(t, handle, c.grants(t, c.rev, url.Values{"grant_type": {exchangeGrant}, "subject_token": {handle}, "subject_token_type": {handleType}}), 400, "invalid_request")
			}
			// What is signed. A jti of any printable text is one, and is spent once.
			credentials := url.Values{"grant_type": {"client_credentials"}}
			form := c.orch.authenticated(credentials, set("jti", sql+rand.Text())).Encode()
			proof := c.orch.proof("", set("jti", sql+rand.Text()))
			if got := c.form(t, "/oauth/token", form, "DPoP", proof); got.status != http.StatusOK {
				t.Errorf("jti %s: %d %s", sql, got.status, got.body)
			}
			wantOAuth(t, "assertion again", c.form(t, "/oauth/token", form, "DPoP", c.orch.proof("")), 401, "invalid_client")
			wantOAuth(t, "proof again", c.form(t, "/oauth/token", c.orch.authenticated(credentials).Encode(), "DPoP", proof), 400, "invalid_dpop_proof")
			wantOAuth(t, "proof", c.form(t, "/oauth/token", c.orch.authenticated(credentials).Encode(), "DPoP", sql), 400, "invalid_dpop_proof")
			for _, member := range []string{"iss", "sub", "aud"} {
				wantOAuth(t, member, c.form(t, "/oauth/token", c.orch.authenticated(credentials, set(member, sql)).Encode(), "DPoP", c.orch.proof("")), 401, "invalid_client")
			}
			wantOAuth(t, "client_id", c.form(t, "/oauth/token", c.orch.authenticated(url.Values{"grant_type": {"client_credentials"}, "client_id": {sql}}).Encode(), "DPoP", c.orch.proof("")), 401, "invalid_client")
			for _, member := range []string{"iss", "aud"} {
				wantOAuth(t, "card "+member, c.trade(t, c.orch, c.root, "actor_token_type", cardType, "actor_token", c.rev.Key.card(c.rev.ID, c.Issuer, newEd25519(), set(member, sql))), 400, "invalid_request")
			}
			card := c.rev.Key.card(c.rev.ID, c.Issuer, newEd25519(), set("jti", sql+rand.Text()))
			c.traded(t, c.orch, c.root, "actor_token_type", cardType, "actor_token", card)
			wantOAuth(t, "card again", c.trade(t, c.orch, c.root, "actor_token_type", cardType, "actor_token", card), 400, "invalid_request")
			// Links, whose strings nobody but their delegator vouches for.
			for _, member := range []string{"client_id", "jti"} {
				link := c.orch.Holder.link(c.root, c.rev.Holder, c.rev.ID, set(member, strings.ReplaceAll(sql, " ", "")))
				if got := c.shows(t, c.rev, link); got.status != http.StatusOK {
					t.Errorf("%s %s: %d %s", member, sql, got.status, got.body)
				}
			}
			wantProof(t, "kid", c.shows(t, c.orch, strings.Replace(c.root, strings.Split(c.root, ".")[0], encode64(`{"alg":"Ed25519","kid":`+encode(sql)+`,"typ":"at+jwt"}`), 1)))
			// The tools.
			for tool, arguments := range map[string][]map[string]any{
				"delegate": {{"agent": sql}, {"agent": c.rev.ID, "scopes": []string{sql}}, {"agent": c.rev.ID, "audience": sql}, {"agent": c.rev.ID, sql: "x"}, {"agent": c.rev.ID, "constraints": map[string]any{sql: 1}}, {"agent": c.rev.ID, "tools": map[string]any{sql: 1}}, {"agent": c.rev.ID, "public_key": map[string]any{"kty": sql}}},
				"revoke":   {{"token_id": sql}, {"agent": sql}, {"chain": sql}, {sql: "x"}}, "verify": {{"token": "x", "request": map[string]any{"scope": sql}}, {sql: "x"}},
				"audit": {{"id": sql}, {"action": sql}, {"result": sql}, {"lid": sql}, {"since": sql}, {"cursor": sql}, {"order": sql}, {sql: "x"}},
			} {
				for _, a := range arguments {
					wantTool(t, fmt.Sprint(tool, a), c.tool(t, c.orch, c.root, tool, a), "")
				}
			}
			for _, name := range []string{"agent", "sub", "grant", "resource", "q"} {
				if found := c.shown(t, c.orch, c.root, map[string]any{name: sql}); len(found) != 0 {
					t.Errorf("%s %s finds %v", name, sql, found)
				}
			}
			// Reports, and the API's paths and queries.
			for _, member := range []string{"id", "action", "resource", "result", "reason", "lid", "credential", "proof", "method", "url", sql} {
				got := c.send(t, "POST", "/api/v1/audit/entries", entries(report(id, set(member, sql))), headers...)
				if member == "credential" && got.status == http.StatusCreated { // whatever it is, it is no evidence
					continue
				}
				if got.status != http.StatusBadRequest && got.status != http.StatusForbidden || got.json(t)["error"] == nil || got.header.Get("Cache-Control") != "no-store" {
					t.Errorf("report %s %s: %d %s", member, sql, got.status, got.body)
				}
			}
			for _, target := range []string{"/api/v1/agents/" + url.PathEscape(sql), "/api/v1/audit/entries/" + url.PathEscape(sql), "/api/v1/audit/entries?q=" + url.QueryEscape(sql), "/api/v1/audit/entries?" + url.QueryEscape(sql) + "=1"} {
				if got := c.send(t, "GET", target, "", headers...); got.status < 400 || got.status >= 500 {
					t.Errorf("%s: %d %s", target, got.status, got.body)
				}
			}
			if got := c.registers(t, sql, sql, sql); got.status < 400 || got.status >= 500 {
				t.Errorf("registering: %d %s", got.status, got.body)
			}
		}
		if after := c.cli("", "agent", "list", "--json"); after != before {
			t.Errorf("the agents were %s\nand are %s", before, after)
		}
	}},
	{"reports: nobody speaks for another, and nothing is made up", func(t *testing.T, c *crew) {
		id, headers := c.reporter(t)
		send := func(list ...any) reply {
			return c.send(t, "POST", "/api/v1/audit/entries", entries(list...), headers...)
		}
		for _, resource := range []string{archive, wiki, c.Issuer + "/mcp", c.Issuer + "/api", "kavach/delegate", c.orch.ID, c.orch.ID + "/x", id + "x", id + "/../" + c.orch.ID, "https://" + id, "server", "operator"} {
			if got := send(report(id), report(id, set("resource", resource))); got.status != http.StatusForbidden && got.status != http.StatusBadRequest {
				t.Errorf("%s: %d %s", resource, got.status, got.body)
			}
		}
		for _, action := range []string{"token.issue", "login", "delegate", "rs", "rs.", "rs..x", "RS.access", "rs.access\n", "rs.Access", "audit.restart", "rs." + strings.Repeat("x", 200)} {
			if got := send(report(id, set("action", action))); got.status != http.StatusBadRequest {
				t.Errorf("%q: %d %s", action, got.status, got.body)
			}
		}
		for _, member := range []string{"by", "evidence", "agent", "sub", "chain", "grant", "path", "seq", "time", "prev", "log", "v", "issued", "anc"} {
			if got := send(report(id, set(member, "x"))); got.status != http.StatusBadRequest {
				t.Errorf("%s: %d %s", member, got.status, got.body)
			}
		}
		// A thief with a chain and no proof, or another's proof, asserts; so does who sends one twice.
		link := c.handed(c.rev)
		target := "https://" + id + "/x"
		evidence := func(token, proof string) change {
			return func(_, entry map[string]any) {
				entry["credential"] = token
				if proof != "" {
					entry["proof"], entry["method"], entry["url"] = proof, "GET", target
				}
			}
		}
		stolen := newEd25519().proof("GET", target, link)
		for name, e := range map[string]map[string]any{
			"no proof": report(id, evidence(link, "")), "another's proof": report(id, evidence(link, stolen)), "a forged chain": report(id, evidence(newEd25519().link(c.root, c.rev.Holder, c.rev.ID), c.rev.Holder.proof("GET", target, link))),
			"a proof for another URL": report(id, evidence(link, c.rev.Holder.proof("GET", target+"y", link))),
		} {
			if got := send(e); got.status != http.StatusCreated {
				t.Errorf("%s: %d %s", name, got.status, got.body)
				continue
			}
			shown := c.cli("", "audit", "list", "--json", "--action", "rs.access", "--limit", "1")
			if !strings.Contains(shown, `"asserted"`) || strings.Contains(shown, `"evidence":"proof"`) {
				t.Errorf("%s is %s", name, shown)
			}
		}
		same := report(id)
		if got := send(same); got.status != http.StatusCreated {
			t.Errorf("%d %s", got.status, got.body)
		}
		if got := send(same); got.status != http.StatusCreated {
			t.Errorf("the same again: %d %s", got.status, got.body)
		}
		same["result"], same["reason"] = "denied", "expired"
		if got := send(same); got.status != http.StatusConflict || got.json(t)["error"] != "id_conflict" {
			t.Errorf("another of the same id: %d %s", got.status, got.body)
		}
		if got := c.send(t, "POST", "/api/v1/audit/entries", entries(report(c.orch.ID)), "Content-Type", "application/json", "Authorization", "DPoP "+c.root, "DPoP", c.orch.Holder.proof("POST", c.Issuer+"/api/v1/audit/entries", c.root)); got.status != http.StatusUnauthorized && got.status != http.StatusForbidden {
			t.Errorf("without the scope: %d %s", got.status, got.body)
		}
	}},
}
