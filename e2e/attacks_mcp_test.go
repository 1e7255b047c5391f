package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// asHolder are the headers of a request to /mcp by the holder of a token.
func (c *crew) asHolder(who *agent, token string) []string {
	return []string{"Authorization", "DPoP " + token, "DPoP", who.Holder.proof("POST", c.Issuer+"/mcp", token)}
}

// /mcp, for tokens that are bound to a key.
var toolAttacks = []crewRow{
	{"A-125 A-126 other origins and hosts, with a good token", func(t *testing.T, c *crew) {
		host := strings.TrimPrefix(c.Issuer, "http://")
		for _, header := range [][]string{
			{"Origin", "https://evil.example"}, {"Origin", "null"}, {"Origin", c.Issuer + ".evil.example"}, {"Origin", c.Issuer, "Origin", c.Issuer}, {"Origin", c.Issuer, "Origin", "https://evil.example"}, {"Origin", "https://evil.example, " + c.Issuer},
			{"Origin", c.Issuer + "@evil.example"}, {"Origin", "http://u@" + host}, {"Origin", "http://127.0.0.1:99999"}, {"Origin", "http://evil.example/" + host}, {"Origin", "https://127.0.0.1.evil.example"}, {"Origin", "file://"}, {"Origin", "http://127.0.0.1.nip.io"},
			{"Host", "evil.example"}, {"Host", "127.0.0.1.nip.io"}, {"Host", host + ".evil.example"}, {"Host", "evil.example:" + host[strings.LastIndexByte(host, ':')+1:]}, {"Host", "0x7f.0.0.1"}, {"Host", "2130706433"}, {"Host", "127.1"}, {"Host", "localhost.evil.example"},
			{"Host", "evil.example", "X-Forwarded-Host", host}, {"Host", "evil.example", "Origin", "http://evil.example"},
		} {
			got := c.rpc(t, "verify", `{"token":"x"}`, append(header, c.asHolder(c.orch, c.root)...)...)
			if got.status != http.StatusForbidden || got.header.Get("Access-Control-Allow-Origin") != "" || got.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%v: %d %v", header, got.status, got.header)
			}
			for _, method := range []string{"OPTIONS", "GET", "DELETE"} {
				if got := c.send(t, method, "/mcp", "", append(header, "Access-Control-Request-Method", "POST")...); got.status != http.StatusForbidden || got.header.Get("Access-Control-Allow-Origin") != "" {
					t.Errorf("%s %v: %d %v", method, header, got.status, got.header)
				}
			}
		}
		if got := c.rpc(t, "verify", `{"token":"x"}`, append(c.asHolder(c.orch, c.root), "Origin", c.Issuer, "X-Forwarded-Host", "evil.example", "Forwarded", "host=evil.example")...); got.status != http.StatusOK {
			t.Errorf("its own origin: %d %s", got.status, got.body)
		}
	}},
	{"A-127 malformed credentials of a bound token", func(t *testing.T, c *crew) {
		holder := c.asHolder(c.orch, c.root)
		for _, header := range [][]string{
			{"Authorization", "DPoP"}, {"Authorization", "DPoP "}, {"Authorization", "DPoP DPoP " + c.root}, {"Authorization", "DPoP " + c.root + " x"}, {"Authorization", "DPoP " + c.root + ", DPoP " + c.root}, {"Authorization", "DPoP\t" + c.root}, {"Authorization", "Bearer DPoP " + c.root}, {"Authorization", c.root},
			{"Authorization", "DPoP " + c.root, "Authorization", "DPoP " + c.root}, {"Authorization", "Bearer " + c.machine, "Authorization", "DPoP " + c.root}, {"Authorization", "Basic eDp4", "Authorization", "DPoP " + c.root},
		} {
			got := c.rpc(t, "verify", `{"token":"x"}`, append(header, holder[2:]...)...)
			if first := got.header.Get("WWW-Authenticate"); got.status != http.StatusUnauthorized || !strings.HasPrefix(first, "Bearer ") || !strings.Contains(first, "resource_metadata=") || len(got.header.Values("WWW-Authenticate")) != 2 {
				t.Errorf("%q: %d %v", header, got.status, got.header.Values("WWW-Authenticate"))
			}
		}
		for _, target := range []string{"/mcp?access_token=" + c.root, "/mcp?token=" + c.root, "/api/v1/audit/entries?access_token=" + c.root} {
			got := c.send(t, "POST", target, `{"jsonrpc":"2.0","id":1,"method":"ping","access_token":"`+c.root+`"}`, "Content-Type", "application/json", "DPoP", c.orch.Holder.proof("POST", c.Issuer+"/mcp", c.root))
			if challenge := got.header.Get("WWW-Authenticate"); got.status != http.StatusUnauthorized || strings.Contains(challenge, "error=") {
				t.Errorf("%.30s: %d %s", target, got.status, challenge)
			}
		}
		if got := c.form(t, "/mcp", "access_token="+c.root, "DPoP", holder[3]); got.status != http.StatusUnauthorized {
			t.Errorf("in the body: %d", got.status)
		}
	}},
	{"A-129 too little scope, of a link and at the API", func(t *testing.T, c *crew) {
		small := c.handed(c.rev, set("scope", "kavach:verify"))
		for tool, needs := range map[string]string{"delegate": "kavach:delegate kavach:verify", "audit": "kavach:audit kavach:verify", "revoke": "kavach:delegate kavach:verify"} {
			got := c.tool(t, c.rev, small, tool, map[string]any{})
			challenge := got.header.Get("WWW-Authenticate")
			if got.status != http.StatusForbidden || !strings.HasPrefix(challenge, "Bearer ") || !strings.Contains(challenge, `error="insufficient_scope"`) || !strings.Contains(challenge, `scope="`+needs+`"`) || !strings.Contains(challenge, "resource_metadata=") {
				t.Errorf("%s: %d %s", tool, got.status, challenge)
			}
		}
		// The root has the scope, the link does not: every link counts, whichever way round.
		child := c.rev.Holder.link(small, c.hand.Holder, c.hand.ID)
		if got := c.tool(t, c.hand, child, "audit", map[string]any{}); got.status != http.StatusForbidden {
			t.Errorf("below: %d %s", got.status, got.body)
		}
		api := c.Issuer + "/api/v1/audit/entries"
		token := c.form(t, "/oauth/token", "grant_type=client_credentials&resource="+c.Issuer+"/api", "Authorization", basic(c.static.ID, c.static.Secret)).json(t)["access_token"]
		for _, method := range []string{"GET", "POST"} {
			got := c.send(t, method, api, `{"entries":[]}`, "Content-Type", "application/json", "Authorization", fmt.Sprint("Bearer ", token))
			if challenge := got.header.Get("WWW-Authenticate"); got.status != http.StatusForbidden || !strings.Contains(challenge, `error="insufficient_scope"`) || !strings.Contains(challenge, "resource_metadata=") {
				t.Errorf("%s: %d %s %s", method, got.status, challenge, got.body)
			}
		}
	}},
	{"A-130 a token that ends while it is used", func(t *testing.T, c *crew) {
		// No tool streams yet and there is nothing to subscribe to: whatever is
		// accepted, the answer is one JSON document. Streams that outlive their
		// token come with *The log*.
		for _, accept := range []string{"text/event-stream, application/json", "application/json, text/event-stream;q=1"} {
			body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"verify","arguments":{"token":"x"},"_meta":{"progressToken":"p"}}}`
			got := c.send(t, "POST", "/mcp", body, append(c.asHolder(c.orch, c.root), "Content-Type", "application/json", "Accept", accept, "MCP-Protocol-Version", "2025-11-25")...)
			if got.status != http.StatusOK || !strings.HasPrefix(got.header.Get("Content-Type"), "application/json") {
				t.Errorf("%s: %d %v", accept, got.status, got.header)
			}
		}
		proof := c.orch.Holder.proof("GET", c.Issuer+"/mcp", c.root)
		if got := c.send(t, "GET", "/mcp", "", "Accept", "text/event-stream", "Authorization", "DPoP "+c.root, "DPoP", proof, "Last-Event-ID", "1"); got.status != http.StatusMethodNotAllowed {
			t.Errorf("GET: %d", got.status)
		}
		for _, method := range []string{"subscriptions/listen", "resources/subscribe", "logging/setLevel"} {
			got := c.send(t, "POST", "/mcp", `{"jsonrpc":"2.0","id":1,"method":"`+method+`","params":{}}`, append(c.asHolder(c.orch, c.root), "Content-Type", "application/json", "Accept", "application/json, text/event-stream", "MCP-Protocol-Version", "2025-11-25")...)
			if !strings.Contains(got.body, "-32601") || strings.HasPrefix(got.header.Get("Content-Type"), "text/event-stream") {
				t.Errorf("%s: %d %s", method, got.status, got.body)
			}
		}
		short := c.handed(c.rev, func(_, claims map[string]any) { claims["exp"] = claims["iat"].(int64) + 2 })
		dead := c.handed(c.rev)
		if got := c.shows(t, c.rev, dead); got.status != http.StatusOK {
			t.Errorf("before: %d %s", got.status, got.body)
		}
		content(t, c.tool(t, c.orch, c.root, "revoke", map[string]any{"chain": dead}))
		wantProof(t, "revoked", c.shows(t, c.rev, dead))
		outlive(t, short)
		wantProof(t, "over", c.shows(t, c.rev, short))
	}},
	{"A-131 answers to the wrong client", func(t *testing.T, c *crew) {
		// Two clients, a bearer and a holder, with the same ids at the same time.
		type caller struct {
			name    string
			headers func() []string
		}
		token := c.rev.signedIn("", nil).Access
		callers := []caller{
			{"alpha", func() []string { return []string{"Authorization", "Bearer " + c.tokens.Access} }},
			{"beta", func() []string { return c.asHolder(c.rev, token) }},
		}
		var all sync.WaitGroup
		for i := range 100 {
			for _, who := range callers {
				all.Go(func() {
					marker := fmt.Sprintf("%s-%d", who.name, i)
					body := `{"jsonrpc":"2.0","id":` + fmt.Sprint(i) + `,"method":"tools/call","params":{"name":"delegate","arguments":{"agent":"` + c.hand.ID + `","scopes":["kavach:verify"],"constraints":{"resources":["` + marker + `"]}}}}`
					got := c.send(t, "POST", "/mcp", body, append(who.headers(), "Content-Type", "application/json", "Accept", "application/json, text/event-stream", "MCP-Protocol-Version", "2025-11-25")...)
					var answer struct {
						ID     int
						Result struct {
							StructuredContent struct {
								Constraints struct{ Resources []string }
								Chain       []string
							}
						}
					}
					if err := json.Unmarshal([]byte(got.body), &answer); err != nil {
						t.Errorf("%s: %v %s", marker, err, got.body)
						return
					}
					made := answer.Result.StructuredContent
					if got.status != http.StatusOK || answer.ID != i || encode(made.Constraints.Resources) != encode([]string{marker}) || len(made.Chain) < 2 || (made.Chain[0] == c.rev.ID) != (who.name == "beta") {
						t.Errorf("%s got %d %s", marker, got.status, got.body)
					}
				})
			}
		}
		all.Wait()
	}},
	{"A-137 what others did", func(t *testing.T, c *crew) {
		mine := c.stranger.signedIn("", nil).Access
		ours := c.shown(t, c.orch, c.root, map[string]any{"limit": 100})
		if len(ours) == 0 {
			t.Fatal("orch does not see its own")
		}
		entry := ours[0]
		// Nothing of it, by whatever it is asked for.
		for _, ask := range []map[string]any{
			{"agent": c.orch.ID}, {"sub": c.orch.ID}, {"grant": entry["grant"]}, {"lid": lid(c.root)}, {"id": entry["id"]}, {"q": "kavach"}, {"q": "%"}, {"q": "_"}, {"agent": "%"}, {"agent": "' OR 1=1--"}, {"sub": "\" OR \"\"=\""}, {"grant": "x' UNION SELECT 1--"}, {"resource": "*"}, {"action": "login"}, {"result": "denied"}, {"since": "2000-01-01T00:00:00Z"},
		} {
			for who, got := range map[string]reply{
				"agent": c.tool(t, c.stranger, mine, "audit", ask), "person": c.rpc(t, "audit", encode(ask), "Authorization", "Bearer "+c.mallory.Access),
			} {
				if strings.Contains(got.body, c.orch.ID) || strings.Contains(got.body, lid(c.root)) || entry["grant"] != nil && strings.Contains(got.body, fmt.Sprint(entry["grant"])) {
					t.Errorf("%s sees by %v: %s", who, ask, got.body)
				}
			}
		}
		// A link sees what is below it, and not what is beside it.
		link := c.handed(c.rev)
		for _, e := range c.shown(t, c.rev, link, map[string]any{"limit": 100}) {
			if !strings.Contains(encode(e["chain"]), c.rev.Holder.thumbprint()) || e["evidence"] == "asserted" {
				t.Errorf("rev's link sees %v", e)
			}
		}
		// A page is a page, and a cursor is for whom and what it was made for.
		for _, limit := range []any{1e9, 9007199254740991, 101} {
			if n := len(c.shown(t, c.orch, c.root, map[string]any{"limit": limit})); n > 100 {
				t.Errorf("a page of %d", n)
			}
		}
		for _, limit := range []any{0, -1, 1.5, "10", nil, []int{1}, 1e300} {
			wantTool(t, fmt.Sprint("limit ", limit), c.tool(t, c.orch, c.root, "audit", map[string]any{"limit": limit}), "limit")
		}
		c.handed(c.rev)
		page := content(t, c.tool(t, c.orch, c.root, "audit", map[string]any{"limit": 1, "action": "verify"}))
		cursor, _ := page["next_cursor"].(string)
		if cursor == "" {
			page = content(t, c.tool(t, c.orch, c.root, "audit", map[string]any{"limit": 1}))
			cursor, _ = page["next_cursor"].(string)
		}
		if cursor == "" {
			t.Fatalf("no cursor: %v", page)
		}
		for name, got := range map[string]reply{
			"another's": c.tool(t, c.stranger, mine, "audit", map[string]any{"limit": 1, "cursor": cursor}), "another filter": c.tool(t, c.orch, c.root, "audit", map[string]any{"limit": 1, "cursor": cursor, "result": "denied"}),
			"cut": c.tool(t, c.orch, c.root, "audit", map[string]any{"limit": 1, "cursor": cursor[:len(cursor)-2]}), "flipped": c.tool(t, c.orch, c.root, "audit", map[string]any{"limit": 1, "cursor": "A" + cursor[1:] + "A"}), "made up": c.tool(t, c.orch, c.root, "audit", map[string]any{"cursor": "eyJzZXEiOjB9"}),
			"SQL": c.tool(t, c.orch, c.root, "audit", map[string]any{"cursor": "0'OR'1'='1"}),
		} {
			wantTool(t, "cursor "+name, got, "cursor")
		}
	}},
}

// shown is what the tool audit shows.
func (c *crew) shown(t *testing.T, who *agent, token string, ask map[string]any) []map[string]any {
	t.Helper()
	list, _ := content(t, c.tool(t, who, token, "audit", ask))["entries"].([]any)
	var out []map[string]any
	for _, e := range list {
		out = append(out, e.(map[string]any))
	}
	return out
}
