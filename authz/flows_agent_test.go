package authz_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/people"
)

var byOperator = authz.Actor{Agent: audit.Operator, Via: "cli"}

// grant replaces the standing grant of a program.
func (p program) grant(g authz.AgentGrant) authz.Grant {
	p.t.Helper()
	made, err := p.agents.Grant(context.Background(), byOperator, p.id, g)
	must(p.t, err)
	return made
}

// ask is a sign-in with a proof by key, the zero key for none.
func (p program) ask(key agent.PrivateKey, pairs ...string) answer {
	p.t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}}
	for i := 0; i < len(pairs); i += 2 {
		form.Add(pairs[i], pairs[i+1])
	}
	return p.do(p.by(form, key))
}

func TestWhatAnAgentGetsOfItsOwn(t *testing.T) {
	f := newFlows(t)
	must(t, f.registry.AddResource(context.Background(), byOperator, authz.Resource{
		ID: "https://ops.example", Name: "Ops", Aware: true, TokenAlg: authz.AlgES256, Scopes: []authz.Scope{
			{Name: "ops:run", Description: "Run", Holders: authz.Holders{Roles: []people.Role{people.Operator}}},
		},
	}))
	boss := f.user("boss", people.Operator)
	p := f.program(boss, "orchestrator",
		[]string{"repo:read", "repo:write", "ops:run", "old:read", "kavach:delegate", "kavach:verify", "agents:manage"}, "delegate")
	granted := p.grant(authz.AgentGrant{Scopes: []string{"repo:read", "ops:run", "old:read", "kavach:verify", "agents:manage"}})
	key := holder(t)

	for _, c := range []struct {
		name  string
		ask   []string
		scope string
		aud   []string
	}{
		{"nothing asked: the baseline of MCP", nil, "kavach:verify", []string{f.issuer + "/mcp"}},
		{"a resource: all that belongs to it", []string{"resource", git}, "repo:read", []string{git}},
		{"our API", []string{"resource", f.issuer + "/api"}, "agents:manage kavach:verify", []string{f.issuer + "/api"}},
		{"more than was granted", []string{"scope", "repo:read repo:write"}, "repo:read", []string{git}},
		{"what nobody knows", []string{"scope", "repo:read no:such"}, "repo:read", []string{git}},
		{"more than was asked for in the manifest", []string{"scope", "repo:read kavach:audit"}, "repo:read", []string{git}},
		{"two resources", []string{"scope", "repo:read kavach:verify"}, "kavach:verify repo:read", []string{git, f.issuer + "/mcp"}},
		{"two, one named", []string{"scope", "repo:read kavach:verify", "resource", git}, "repo:read", []string{git}},
	} {
		a := p.ask(key, c.ask...)
		if a.status != http.StatusOK || a.str("scope") != c.scope || a.str("token_type") != "DPoP" || a.body["expires_in"] != 300.0 {
			t.Errorf("%s: %d %v", c.name, a.status, a.body)
			continue
		}
		chain, want := f.chain(a.str("access_token")), slices.Sorted(slices.Values(c.aud))
		if !slices.Equal(slices.Sorted(slices.Values(chain.Audience())), want) || chain.Principal() != p.id || chain.ClientID() != p.id ||
			chain.GrantID() != granted.ID || chain.JKT() != key.Public().Thumbprint() {
			t.Errorf("%s: %v %s %s %s", c.name, chain.Audience(), chain.Principal(), chain.ClientID(), chain.GrantID())
		}
	}

	f.wantError(p.ask(key, "scope", "repo:write"), http.StatusBadRequest, "invalid_scope")
	f.wantError(p.ask(key, "scope", "kavach:audit"), http.StatusBadRequest, "invalid_scope")
	f.wantError(p.ask(key, "scope", "repo:read", "resource", legacy), http.StatusBadRequest, "invalid_scope")
	f.wantError(p.ask(key, "resource", "https://nowhere.example"), http.StatusBadRequest, "invalid_target")
	f.wantError(p.ask(key, "scope", "repo:read old:read"), http.StatusBadRequest, "invalid_target") // ES256 and RS256
	// The owner loses the role, and with it the agent what the owner held by it.
	member := people.Member
	f.change("boss", people.UserChange{Role: &member})
	if a := p.ask(key, "scope", "repo:read ops:run"); a.str("scope") != "repo:read" {
		t.Errorf("after the owner's fall: %d %v", a.status, a.body)
	}
	f.wantError(p.ask(key, "scope", "ops:run"), http.StatusBadRequest, "access_denied")

	// Without a grant nothing; what came from the removed one is dead.
	token := p.ask(key, "scope", "repo:read").str("access_token")
	_, err := f.agents.RemoveGrant(context.Background(), byOperator, p.id)
	must(t, err)
	if f.alive(token) {
		t.Error("a token outlives its grant")
	}
	f.wantError(p.ask(key, "scope", "repo:read"), http.StatusBadRequest, "unauthorized_client")
	p.grant(authz.AgentGrant{Scopes: []string{"repo:read"}})
	f.change("boss", people.UserChange{Disabled: new(true)})
	f.wantError(p.ask(key, "scope", "repo:read"), http.StatusBadRequest, "invalid_grant")
}

// delegation.md §3, "Which form is issued".
func TestWhichFormAnAgentGets(t *testing.T) {
	f := newFlows(t)
	all := []string{"repo:read", "old:read", "kavach:delegate"}
	may := f.program(f.alice, "orchestrator", all, "read", "delegate")
	mayNot := f.program(f.alice, "worker", all, "read")
	key, none := holder(t), agent.PrivateKey{}
	zero := 0
	for _, c := range []struct {
		name  string
		p     program
		key   agent.PrivateKey
		ask   []string
		root  bool
		depth int
		alg   string
		typ   string
	}{
		{"aware, proved, may delegate", may, key, []string{"scope", "repo:read"}, true, 3, "Ed25519", "DPoP"},
		{"of the depth that was asked", may, key, []string{"scope", "repo:read", "del_max_depth", "1"}, true, 1, "Ed25519", "DPoP"},
		{"of the depth that was granted", may, key, []string{"scope", "repo:read", "del_max_depth", "8"}, true, 3, "Ed25519", "DPoP"},
		{"depth 0", may, key, []string{"scope", "repo:read", "del_max_depth", "0"}, false, 0, "ES256", "DPoP"},
		{"no proof", may, none, []string{"scope", "repo:read"}, false, 3, "ES256", "Bearer"},
		{"not aware", may, key, []string{"scope", "old:read"}, false, 3, "RS256", "DPoP"},
		{"without the capability", mayNot, key, []string{"scope", "repo:read"}, false, 0, "ES256", "DPoP"},
	} {
		a := c.p.ask(c.key, c.ask...)
		if a.status != http.StatusOK || a.str("token_type") != c.typ {
			t.Errorf("%s: %d %v", c.name, a.status, a.body)
			continue
		}
		chain := f.chain(a.str("access_token"))
		grant, err := f.agents.StandingGrant(context.Background(), c.p.id)
		must(t, err)
		if chain.Plain() == c.root || chain.DepthLeft(grant.MaxDepth) != c.depth || header(t, a.str("access_token"))["alg"] != c.alg {
			t.Errorf("%s: plain %v, depth %d, %v", c.name, chain.Plain(), chain.DepthLeft(grant.MaxDepth), header(t, a.str("access_token")))
		}
		r := f.lastRecord(audit.TokenIssue)
		detail, _ := r["detail"].(map[string]any)
		if fmt.Sprint(r["path"]) != "["+c.p.id+"]" || r["grant"] == "" || detail["root"] == true != c.root || detail["bound"] == true != (c.typ == "DPoP") ||
			detail["issued"] == nil || detail["jkt"] == nil != (c.typ == "Bearer") {
			t.Errorf("%s: recorded as %v", c.name, r)
		}
	}
	for _, depth := range []string{"9", "-1", "1.0", "x", "01", "10"} {
		f.wantError(may.ask(key, "scope", "repo:read", "del_max_depth", depth), http.StatusBadRequest, "invalid_request")
	}
	// What was granted bounds a plain token too, which is handed on online.
	may.grant(authz.AgentGrant{Scopes: all, MaxDepth: &zero})
	if chain := f.chain(may.ask(key, "scope", "repo:read").str("access_token")); !chain.Plain() {
		t.Error("a grant of depth 0 gives roots")
	}
}

// "Bound to the DPoP (holder) key, never to the identity key."
func TestTheIdentityKeyNeverBinds(t *testing.T) {
	f := newFlows(t)
	p := f.program(f.alice, "orchestrator", []string{"repo:read"}, "delegate")
	f.wantError(p.ask(p.key, "scope", "repo:read"), http.StatusBadRequest, "invalid_dpop_proof")
}

func TestAGrantHasHours(t *testing.T) {
	f := newFlows(t, func(c *authz.Config) { c.AgentTTL = time.Minute })
	p := f.program(f.alice, "orchestrator", []string{"repo:read"})
	now := f.clock.now().UTC()
	day := []string{"su", "mo", "tu", "we", "th", "fr", "sa"}[now.Weekday()]
	inside := fmt.Sprintf("%s %02d-%02d UTC", day, now.Hour(), now.Hour()+1)
	outside := fmt.Sprintf("%s 00-00:01 UTC", []string{"mo", "tu", "we", "th", "fr", "sa", "su"}[(now.Weekday()+1)%7])
	p.grant(authz.AgentGrant{Scopes: []string{"repo:read"}, Hours: inside})
	a := p.ask(agent.PrivateKey{}, "scope", "repo:read")
	if a.status != http.StatusOK || a.body["expires_in"] != 60.0 {
		t.Errorf("within the hours: %d %v", a.status, a.body)
	}
	p.grant(authz.AgentGrant{Scopes: []string{"repo:read"}, Hours: outside})
	f.wantError(p.ask(agent.PrivateKey{}, "scope", "repo:read"), http.StatusBadRequest, "access_denied")
	if r := f.lastRecord(audit.TokenRefuse); r["reason"] != "outside_hours" {
		t.Errorf("recorded as %v", r)
	}
	if _, err := f.agents.Grant(context.Background(), byOperator, p.id, authz.AgentGrant{Scopes: []string{"repo:read"}, Hours: "always"}); err == nil {
		t.Error("hours that cannot be read are granted")
	}
	var detail struct{ Hours string }
	text, _ := json.Marshal(f.lastRecord(audit.AgentGrant)["detail"])
	if must(t, json.Unmarshal(text, &detail)); detail.Hours != outside {
		t.Errorf("the grant is recorded without its hours: %s", text)
	}
}

func TestHours(t *testing.T) {
	at := func(text string) time.Time {
		tm, err := time.Parse("Mon 15:04", text)
		must(t, err)
		// Parse leaves the year 0, whose days are not those of the name.
		base := time.Date(2026, 11, 22, tm.Hour(), tm.Minute(), 0, 0, time.UTC) // a Sunday
		for base.Format("Mon") != text[:3] {
			base = base.AddDate(0, 0, 1)
		}
		return base
	}
	for _, c := range []struct {
		hours   string
		in, out []string
	}{
		{"", []string{"Sun 00:00", "Wed 23:59"}, nil},
		{"mo-fr 08-18 UTC", []string{"Mon 08:00", "Fri 17:59", "Wed 12:00"}, []string{"Mon 07:59", "Fri 18:00", "Sat 12:00", "Sun 12:00"}},
		{"mo,we 00-24 UTC", []string{"Mon 00:00", "Wed 23:59"}, []string{"Tue 00:00", "Thu 00:00"}},
		{"fr-mo 22:30-24 UTC", []string{"Fri 22:30", "Sat 23:00", "Sun 23:59", "Mon 22:30"}, []string{"Tue 23:00", "Fri 22:29", "Mon 00:00"}},
		{"su 09:05-09:06 UTC", []string{"Sun 09:05"}, []string{"Sun 09:04", "Sun 09:06"}},
	} {
		h, err := authz.ParseHours(c.hours)
		must(t, err)
		for _, text := range c.in {
			// The same moment, told by a clock elsewhere.
			if !h.Include(at(text)) || !h.Include(at(text).In(time.FixedZone("", 5*3600))) {
				t.Errorf("%q does not include %s", c.hours, text)
			}
		}
		for _, text := range c.out {
			if h.Include(at(text)) {
				t.Errorf("%q includes %s", c.hours, text)
			}
		}
	}
	for _, bad := range []string{
		" ", "mo-fr 08-18", "mo-fr 08-18 CET", "mo-fr 08-18 utc", "mo-fr 18-08 UTC", "mo-fr 08-08 UTC", "08-18 UTC", "mo-fr UTC",
		"mo- 08-18 UTC", "-mo 08-18 UTC", "mo,,we 08-18 UTC", "xx 08-18 UTC", "Mo 08-18 UTC", "mo 8-18 UTC", "mo 08-25 UTC", "mo 08-24:01 UTC",
		"mo 08:60-18 UTC", "mo 08:0-18 UTC", "mo 08-+9 UTC", "mo  08-18 UTC", "mo 08-18  UTC", "mo 08-18 UTC ", "mo-tu-we 08-18 UTC",
	} {
		if _, err := authz.ParseHours(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// A key that was revoked gets nothing bound to it; neither does a revoked agent.
func TestARevokedKeyIsNotBound(t *testing.T) {
	f := newFlows(t)
	p := f.program(f.alice, "orchestrator", []string{"repo:read"}, "delegate")
	key, other := holder(t), holder(t)
	revoke := func(kind authz.RevocationKind, value string) {
		t.Helper()
		must(t, f.log.Commit(context.Background(), audit.Change{Effects: []audit.Effect{
			f.store.Revoke(authz.Revocation{Kind: kind, Value: value, At: f.clock.now()}),
		}}))
	}
	revoke(authz.RevokeKey, key.Public().Thumbprint())
	f.wantError(p.ask(key, "scope", "repo:read"), http.StatusBadRequest, "invalid_grant")
	if a := p.ask(other, "scope", "repo:read"); a.status != http.StatusOK {
		t.Errorf("another key: %d %v", a.status, a.body)
	}
	revoke(authz.RevokeClient, p.id)
	f.wantError(p.ask(other, "scope", "repo:read"), http.StatusBadRequest, "invalid_grant")
	if r := f.lastRecord(audit.TokenRefuse); r["reason"] != "revoked" {
		t.Errorf("recorded as %v", r)
	}
}
