package e2e

import (
	"bytes"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
)

// agentSecretsStayOut: A-94 for what agents, holders and reporters send. What
// comes as a secret, and what came back as one, is in no line, no metric, no row
// and no file of the server, whatever became of the request. There are no traces.
func (c *crew) agentSecretsStayOut(t *testing.T) {
	exchange := url.Values{"grant_type": {exchangeGrant}, "subject_token_type": {accessType}}
	names := []string{
		"subject_token", "subject_token_type", "actor_token", "actor_token_type", "requested_token_type", "agent", "req_cnf", "scope", "resource", "audience", "authorization_details",
		"requested_expires_in", "del_max_depth", "client_assertion", "client_assertion_type", "client_id", "client_secret", "unknown",
	}
	for _, name := range names { // each alone, so that the others do not hide it
		form := exchangedWith(c.root)
		form.Set(name, c.secret(name))
		c.form(t, "/oauth/token", c.orch.authenticated(form).Encode(), "DPoP", c.orch.proof(""))
		form.Set("client_assertion", c.secret("assertion"))
		c.form(t, "/oauth/token?"+url.Values{name: {c.secret("query")}}.Encode(), form.Encode(), "DPoP", c.secret("proof"))
	}
	for _, name := range names { // and all together
		exchange.Set(name, c.secret(name))
	}
	c.form(t, "/oauth/token", exchange.Encode(), "DPoP", c.secret("proof"), "Authorization", basic(c.secret("id"), c.secret("secret")))
	// What is signed, member by member.
	for _, member := range []string{"iss", "sub", "aud", "jti", "iat", "exp", "htm", "htu", "ath", "nonce", "jwk", "x"} {
		s := c.secret(member)
		form := c.orch.authenticated(exchangedWith(c.root), set(member, s))
		c.form(t, "/oauth/token", form.Encode(), "DPoP", c.orch.proof("", set(member, s)))
		c.form(t, "/oauth/token", c.orch.authenticated(exchangedWith(c.root)).Encode(), "DPoP", c.orch.proof("", set(member, s)))
		c.form(t, "/oauth/token", c.orch.authenticated(exchangedWith(c.root), setHeader(member, s)).Encode(), "DPoP", c.orch.proof("", setHeader(member, s)))
		c.trade(t, c.orch, c.root, "actor_token_type", cardType, "actor_token", c.rev.Key.card(c.rev.ID, c.Issuer, newEd25519(), set(member, s)))
		proof := c.orch.Holder.proof("POST", c.Issuer+"/mcp", c.root, set(member, s))
		c.rpc(t, "verify", `{"token":"`+s+`","audience":"`+s+`","proof":"`+s+`"}`, "Authorization", "DPoP "+c.root, "DPoP", proof)
		if member != "jti" { // which is no secret: it is recorded
			c.shows(t, c.rev, c.handed(c.rev, set(member, s)))
		}
	}
	for _, form := range []url.Values{
		{"grant_type": {exchangeGrant}, "subject_token": {"kvh_" + c.secret("handle")}, "subject_token_type": {handleType}}, {"grant_type": {"client_credentials"}, "scope": {c.secret("scope")}, "del_max_depth": {c.secret("depth")}},
	} {
		c.grants(t, c.rev, form)
	}
	// A handle that is redeemed, one that is not, and what they stand for.
	made := content(t, c.delegates(t, c.orch, c.root, c.rev.ID, nil))
	left := content(t, c.delegates(t, c.orch, c.root, c.rev.ID, nil))
	handle, _ := made["handle"].(string)
	unused, _ := left["handle"].(string)
	redeemed, _ := c.grants(t, c.rev, url.Values{"grant_type": {exchangeGrant}, "subject_token": {handle}, "subject_token_type": {handleType}}).json(t)["access_token"].(string)
	proof, assertion, card := c.rev.Holder.proof("POST", c.Issuer+"/mcp", redeemed), c.orch.Key.assertion(c.orch.ID, c.Issuer), c.rev.Key.card(c.rev.ID, c.Issuer, newEd25519())
	c.form(t, "/oauth/token", url.Values{"grant_type": {exchangeGrant}, "subject_token": {c.root}, "subject_token_type": {accessType}, "client_assertion_type": {assertionType}, "client_assertion": {assertion}, "actor_token": {card}, "actor_token_type": {cardType}}.Encode(), "DPoP", c.orch.proof(""))
	if got := c.rpc(t, "verify", `{"token":"x"}`, "Authorization", "DPoP "+redeemed, "DPoP", proof); redeemed == "" || got.status != http.StatusOK {
		t.Errorf("a redeemed handle: %d %s", got.status, got.body)
	}
	c.secrets = append(c.secrets, handle, unused, redeemed, proof, assertion, card)
	for _, k := range []signingKey{c.orch.Key, c.orch.Holder, c.rev.Key, c.rev.Holder} {
		c.secrets = append(c.secrets, k.private()["d"].(string))
	}
	// The tools.
	for _, name := range []string{"agent", "scopes", "audience", "public_key", "handle", "tools", "constraints", "chain", "token_id", "cursor", "id", "q", "sub", "grant", "resource", "lid", "unknown"} {
		for _, tool := range []string{"delegate", "revoke", "verify", "audit", c.secret("tool")} {
			c.tool(t, c.orch, c.root, tool, map[string]any{name: c.secret(name)})
		}
		c.delegates(t, c.orch, c.root, c.rev.ID, map[string]any{name: []string{c.secret(name)}})
		c.delegates(t, c.orch, c.root, c.rev.ID, map[string]any{name: map[string]any{"kty": c.secret(name), c.secret(name): c.secret(name)}})
	}
	// Reports: chain and proof of one are used and dropped.
	id, headers := c.reporter(t)
	link := c.handed(c.rev)
	target := "https://" + id + "/x?code=" + c.secret("url")
	evidence := c.rev.Holder.proof("GET", target, link)
	c.secrets = append(c.secrets, link, evidence)
	for _, change := range []change{
		func(_, e map[string]any) {
			e["credential"], e["proof"], e["method"], e["url"] = link, evidence, "GET", target
		},
		func(_, e map[string]any) { e["credential"] = c.secret("credential") }, func(_, e map[string]any) { e["credential"] = c.handed(c.rev) + c.secret("chain") },
	} {
		c.send(t, "POST", "/api/v1/audit/entries", entries(report(id, change)), headers...)
	}
	for _, name := range []string{"id", "action", "resource", "result", "reason", "lid", "credential", "proof", "method", "url", "detail", "unknown", c.secret("member")} {
		c.send(t, "POST", "/api/v1/audit/entries", entries(report(id, set(name, c.secret(name)))), headers...)
		c.send(t, "POST", "/api/v1/audit/entries", entries(report(id, set("detail", map[string]any{name: c.secret(name)}))), headers...)
	}
	c.send(t, "POST", "/api/v1/audit/entries", `{"entries":[{"`+c.secret("torn"), headers...)
	for _, path := range []string{"/api/v1/agents/", "/api/v1/audit/entries/", "/api/v1/audit/entries?q=", "/api/v1/audit/entries?access_token=", "/nothing/"} {
		c.send(t, "GET", path+c.secret("path"), "", "Authorization", "DPoP "+c.secret("token"), "DPoP", c.secret("proof"))
	}
	c.registers(t, c.secret("manifest"), c.secret("assertion"), c.secret("enrolment"))
	c.registers(t, c.orch.Key.manifest("x", "kavach:verify")+c.secret("manifest"), assertion, c.secret("enrolment"))

	metrics := c.send(t, "GET", "http://"+c.Ops+"/metrics", "").body
	if err := c.stop(); err != nil { // refusals are written in the background
		t.Errorf("stopping: %v", err)
	}
	defer c.run()
	places := map[string][]byte{"log": []byte(c.output()), "metrics": []byte(metrics), "database": c.kept(t)}
	// Whatever lies in the data directory: the database, and what else there is. The
	// agents' own files hold their keys.
	if err := filepath.WalkDir(c.Data, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if filepath.Base(filepath.Dir(path)) != "agents" {
			places[filepath.Base(path)], err = os.ReadFile(path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if len(places["metrics"]) == 0 || !bytes.Contains(places["database"], []byte("rs.access")) {
		t.Error("not every place was read")
	}
	for place, raw := range places {
		for _, secret := range c.secrets {
			if secret != "" && bytes.Contains(raw, []byte(secret)) {
				t.Errorf("%s holds %s", place, secret)
			}
		}
	}
}
