package api_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// Who may report: a client or agent that was given the scope, on its own
// authentication.
func TestReportCallers(t *testing.T) {
	d := newDesk(t)
	handed := func(change func(*delegation.Claims)) string {
		return d.sign(func(c *delegation.Claims) {
			c.Subject, c.ClientID, c.Audience, c.Scopes = gitHost, gitHost, []string{issuer + "/api"}, []string{"audit:write"}
			change(c)
		})
	}
	for _, c := range []struct {
		name, token string
		status      int
		code        string
	}{
		{"nobody", "", 401, "invalid_token"},
		{"another scope", d.reporter(gitHost, "kavach:audit", "audit:read"), 403, "insufficient_scope"},
		{"for /mcp", handed(func(c *delegation.Claims) { c.Audience = []string{issuer + "/mcp"} }), 401, "invalid_token"},
		{"handed to it", handed(func(c *delegation.Claims) { c.Subject = "orchestrator" }), 403, "access_denied"},
		{"handed on by it", handed(func(c *delegation.Claims) { c.ClientID = "code-reviewer" }), 403, "access_denied"},
		{"acting for it", handed(func(c *delegation.Claims) {
			c.Act, c.Ancestry = []delegation.Party{{ID: gitHost, Proved: true}, {ID: "orchestrator", Proved: true}}, []string{strings.Repeat("A", 43)}
			c.Subject = "usr_alice"
		}), 403, "access_denied"},
		{"restricted to something else", handed(func(c *delegation.Claims) { c.Limits.Resources = []string{"pulls/847"} }), 403, "constraint_violated"},
	} {
		if r := d.post(c.token, d.said()); r.status != c.status || r.json.Get("error").Str() != c.code {
			t.Errorf("%s: %d %s", c.name, r.status, r.body)
		}
	}
	// A link is called what its delegator likes: here the host that may report.
	holder, thief := d.secret(), d.secret()
	root := d.sign(func(c *delegation.Claims) {
		c.Subject, c.ClientID, c.Audience, c.Scopes = gitHost, gitHost, []string{issuer + "/api"}, []string{"audit:write"}
		c.Root, c.MaxDepth, c.Key = true, 2, holder.Public()
	})
	derived, err := delegation.Derive(root, holder, thief.Public(), delegation.Narrow{ClientID: gitHost, Scopes: []string{"audit:write"}}, d.clock())
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]credential{"a link": {derived.Chain, thief}, "the root": {root, holder}} {
		want := map[string]int{"a link": 403, "the root": 201}[name]
		body, err := jcs.Marshal(map[string]any{"entries": []map[string]any{d.said("action", "rs.other")}})
		if err != nil {
			t.Fatal(err)
		}
		proof := d.proof(c, "POST", issuer+"/api/v1/audit/entries")
		if r := d.send("POST", "/api/v1/audit/entries", c.text, string(body), "Authorization", "DPoP "+c.text, "DPoP", proof); r.status != want {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	if n := len(d.records("rs.access")); n != 0 {
		t.Errorf("%d entries were taken", n)
	}
}

func TestReportRefusesEntries(t *testing.T) {
	d := newDesk(t)
	token := d.reporter(gitHost, "audit:write")
	c := d.chain(git)
	lid := strings.Repeat("A", 43)
	for name, pairs := range map[string][]any{
		// What the server decides about cannot be said.
		"by":              {"by", "server"},
		"evidence":        {"evidence", "proof"},
		"agent":           {"agent", "usr_bob"},
		"sub":             {"sub", "usr_bob"},
		"chain":           {"chain", []any{map[string]any{"lid": lid}}},
		"path":            {"path", []string{"usr_bob"}},
		"grant":           {"grant", "grant-1"},
		"seq":             {"seq", 0},
		"time":            {"time", 1},
		"issued":          {"detail", map[string]any{"issued": []any{}}},
		"anc":             {"detail", map[string]any{"anc": []string{lid}}},
		"unproved":        {"detail", map[string]any{"unproved": "x"}},
		"free text":       {"detail", map[string]any{"note": "hello"}},
		"a status":        {"detail", map[string]any{"status": 99}},
		"a phase":         {"detail", map[string]any{"phase": "during"}},
		"a dimension":     {"detail", map[string]any{"dimension": "hello"}},
		"detail is text":  {"detail", "x"},
		"another event":   {"detail", map[string]any{"of": "x"}},
		"a server action": {"action", "token.issue"},
		"rs alone":        {"action", "rs."},
		"rs..x":           {"action", "rs..x"},
		"rs.x.":           {"action", "rs.x."},
		"upper case":      {"action", "rs.Access"},
		"no action":       {"action", nil},
		"no id":           {"id", nil},
		"UUIDv4":          {"id", "6ba7b810-9dad-41d1-80b4-00c04fd430c8"},
		"upper case id":   {"id", strings.ToUpper(delegation.NewJTI(d.clock()))},
		"a result":        {"result", "maybe"},
		"allowed, why":    {"reason", "expired"},
		"denied, no why":  {"result", "denied"},
		"denied, words":   {"result", "denied", "reason", "because"},
		"no resource":     {"resource", nil},
		"up":              {"resource", git + "/../x"},
		"double":          {"resource", git + "//x"},
		"own id, up":      {"resource", gitHost + "/../orchestrator"},
		"own id, here":    {"resource", gitHost + "/./x"},
		"own id, double":  {"resource", gitHost + "//x"},
		"own id, end":     {"resource", gitHost + "/"},
		"own id, a URL":   {"resource", gitHost + "/../x://y"},
		"a query":         {"resource", git + "/x?token=secret"},
		"escaped":         {"resource", git + "/%2e%2e"},
		"long":            {"resource", git + "/" + strings.Repeat("x", 512)},
		"control":         {"resource", git + "/\u0007"},
		"observed text":   {"observed", "now"},
		"observed 0":      {"observed", 0},
		"null":            {"reason", nilValue},
		"requested later": {"requested", d.clock().Add(time.Second).UnixMilli()},
		"lid and chain":   {"lid", lid, "credential", c.text},
		"a short lid":     {"lid", "AAAA"},
		"proof alone":     {"proof", "x"},
		"proof, no URL":   {"credential", c.text, "proof", "x", "method", "GET"},
		"URL alone":       {"url", git},
		"a method":        {"credential", c.text, "proof", "x", "method", "get\n", "url", git},
	} {
		ok, e := d.said(), d.said(pairs...)
		r := d.post(token, ok, e)
		index, _ := r.json.Get("index").Int()
		if r.status != 400 || r.json.Get("error").Str() != "invalid_request" || index != 1 || strings.Contains(r.body, "secret") {
			t.Errorf("%s: %d %s", name, r.status, r.body)
		}
	}
	twice := d.said()
	if r := d.post(token, twice, twice); r.status != 400 {
		t.Errorf("one id twice: %d %s", r.status, r.body)
	}
	for _, body := range []string{
		"", "[]", "{}", `{"entries":[]}`, `{"entries":{}}`, `{"entries":[1]}`, `{"entries":[],"x":1}`, `{"entries":[{}]}`,
		`{"entries":[{"id":"a","id":"b"}]}`, `{"entries":null}`,
	} {
		if r := d.send("POST", "/api/v1/audit/entries", token, body); r.status != 400 {
			t.Errorf("%s: %d %s", body, r.status, r.body)
		}
	}
	if r := d.send("POST", "/api/v1/audit/entries", token, `{"entries":["`+strings.Repeat("x", 2<<20)+`"]}`); r.status != 413 {
		t.Errorf("%d %s", r.status, r.body)
	}
	// Few bytes, many values.
	many := `{"entries":[` + strings.Repeat("1,", 1<<15) + `1]}`
	if r := d.send("POST", "/api/v1/audit/entries", token, many); r.status != 400 || !strings.Contains(string(r.body), "32768") {
		t.Errorf("%d %.200s", r.status, r.body)
	}
	if n := len(d.records("rs.access")); n != 0 {
		t.Errorf("%d entries were written", n)
	}
	if e := d.records(audit.AuditRefuse)[0].Entry; e.Result != audit.Denied || e.Agent != gitHost || e.Reason != "invalid_request" {
		t.Errorf("%+v", e)
	}
}

// nilValue is null in JSON; nil alone removes a member.
var nilValue, _ = jcs.Parse([]byte("null"), jcs.Limits{})

// A chain may hold more of its delegators' words than a record has room for. Its
// holder must not stay out of the log for that.
func TestReportVerboseChain(t *testing.T) {
	d := newDesk(t)
	token := d.reporter(gitHost, "audit:write")
	key := d.secret()
	c := credential{d.sign(func(c *delegation.Claims) {
		c.Root, c.MaxDepth, c.Key = true, 8, key.Public()
		for i := range delegation.MaxAncestry {
			c.Ancestry = append(c.Ancestry, strings.Repeat(string(rune('A'+i%26)), 42)+string("AEIMQUYcgkosw048"[i/2]))
		}
		c.Act = []delegation.Party{{ID: "orchestrator", Proved: true}}
	}), key}
	for range 8 {
		next := d.secret()
		derived, err := delegation.Derive(c.text, c.key, next.Public(), delegation.Narrow{
			ClientID: strings.Repeat("v", 250) + c.key.Public().Thumbprint()[:6], Scopes: []string{"git-host:use"},
		}, d.clock())
		if err != nil {
			t.Fatal(err)
		}
		c = credential{derived.Chain, next}
	}
	e := d.proved(c, "resource", git+"/"+strings.Repeat("x", 450))
	if r := d.post(token, e); r.status != 201 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	got := d.record(e)
	if got.Evidence != "proof" || got.Detail[audit.DetailShortened] != true || len(got.Chain) != 9 || got.Chain[8].JKT != c.key.Public().Thumbprint() {
		t.Errorf("%+v", got)
	}
	if r := d.post(token, e); r.status != 201 {
		t.Errorf("again: %d %s", r.status, r.body)
	}
}
