package authz_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/people"
)

var cli = authz.Actor{Agent: audit.Operator, Via: "cli"}

func gitResource() authz.Resource {
	return authz.Resource{
		ID: "https://git.example/api", Name: "Git", Aware: true,
		Scopes: []authz.Scope{
			{Name: "repository:read", Description: "Read your repositories"},
			{Name: "repository:write", Sensitive: true, Holders: authz.Holders{Roles: []people.Role{people.Operator}, Users: []string{"usr_alice"}}},
		},
	}
}

func TestResourcesAreAddedShownAndRemoved(t *testing.T) {
	ctx := context.Background()
	rt := newRegistry(t)
	must(t, rt.AddResource(ctx, cli, gitResource()))
	cat, err := rt.Catalog(ctx)
	must(t, err)
	r, ok := cat.Resource("https://git.example/api")
	if !ok || r.TokenAlg != authz.AlgES256 || !r.Aware || len(r.Scopes) != 2 || r.Scopes[1].Description == "" ||
		!r.Scopes[1].Sensitive || !slices.Equal(r.Scopes[1].Holders.Users, []string{"usr_alice"}) || r.BuiltIn {
		t.Errorf("%+v", r)
	}
	if got := cat.Owners("repository:read"); !slices.Equal(got, []string{"https://git.example/api"}) {
		t.Errorf("owners %v", got)
	}
	if err := rt.AddResource(ctx, cli, gitResource()); !errors.Is(err, authz.ErrExists) {
		t.Errorf("twice: %v", err)
	}
	must(t, rt.RemoveResource(ctx, cli, "https://git.example/api"))
	if err := rt.RemoveResource(ctx, cli, "https://git.example/api"); !errors.Is(err, authz.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	cat, err = rt.Catalog(ctx)
	must(t, err)
	if _, ok := cat.Scope("repository:read"); ok || len(cat.Resources()) != 2 {
		t.Errorf("left: %v", cat.Resources())
	}
	must(t, rt.AddResource(ctx, cli, gitResource())) // its scopes are free again
	for action, n := range map[string]int{audit.ResourceAdd: 2, audit.ResourceRemove: 1} {
		if got := rt.records(action); len(got) != n || got[0].Agent != audit.Operator || got[0].Detail["via"] != "cli" {
			t.Errorf("%s: %+v", action, got)
		}
	}
}

func TestWhatAnotherProcessAddsIsKnownAtOnce(t *testing.T) {
	ctx := context.Background()
	rt := newRegistry(t)
	if _, err := rt.Catalog(ctx); err != nil { // now there is a snapshot
		t.Fatal(err)
	}
	other, err := authz.NewRegistry(authz.RegistryConfig{
		Issuer: testIssuer, Store: rt.store, Commit: rt.log, Refusals: rt.log, Now: rt.clock.now,
	})
	must(t, err)
	must(t, other.AddResource(ctx, cli, gitResource()))
	for _, need := range []string{"https://git.example/api", "repository:read"} {
		cat, err := rt.Catalog(ctx, need)
		must(t, err)
		if _, ok := cat.Resource("https://git.example/api"); !ok {
			t.Errorf("asked for %s: not there", need)
		}
	}
}

func TestResourcesThatAreRefused(t *testing.T) {
	ctx := context.Background()
	rt := newRegistry(t)
	must(t, rt.AddResource(ctx, cli, gitResource()))
	must(t, rt.AddResource(ctx, cli, authz.Resource{ID: "https://bare.example", Scopes: []authz.Scope{{Name: "bare"}}}))
	public, _ := rt.client(authz.NewClient{Method: authz.MethodNone, RedirectURIs: []string{"https://c.example/"}})
	one := func(change func(*authz.Resource)) authz.Resource {
		r := authz.Resource{ID: "https://new.example/x", Scopes: []authz.Scope{{Name: "new:read"}}}
		change(&r)
		return r
	}
	scopes := func(names ...string) authz.Resource {
		return one(func(r *authz.Resource) {
			r.Scopes = nil
			for _, n := range names {
				r.Scopes = append(r.Scopes, authz.Scope{Name: n})
			}
		})
	}
	id := func(v string) authz.Resource { return one(func(r *authz.Resource) { r.ID = v }) }
	for name, c := range map[string]struct {
		resource authz.Resource
		want     error
	}{
		"no identifier":             {id(""), authz.ErrInvalid},
		"relative":                  {id("/x"), authz.ErrInvalid},
		"fragment":                  {id("https://new.example/#x"), authz.ErrInvalid},
		"userinfo":                  {id("https://u@new.example/"), authz.ErrInvalid},
		"http":                      {id("http://new.example/"), authz.ErrInvalid},
		"urn":                       {id("urn:x:y"), authz.ErrInvalid},
		"upper-case host":           {id("https://NEW.example/"), authz.ErrInvalid},
		"port 0":                    {id("https://new.example:0/"), authz.ErrInvalid},
		"space":                     {id("https://new.example/a b"), authz.ErrInvalid},
		"too long":                  {id("https://new.example/" + strings.Repeat("x", 256)), authz.ErrInvalid},
		"our own":                   {id(testIssuer + "/mcp"), authz.ErrInvalid},
		"our own with a slash":      {id(testIssuer + "/mcp/"), authz.ErrInvalid},
		"our own API":               {id(testIssuer + "/api"), authz.ErrInvalid},
		"our own origin":            {id(testIssuer), authz.ErrInvalid},
		"another form of a known":   {id("https://bare.example/"), authz.ErrExists},
		"no scope":                  {scopes(), authz.ErrInvalid},
		"scope of another resource": {scopes("repository:read"), authz.ErrExists},
		"scope of ours":             {scopes("audit:read"), authz.ErrInvalid},
		"scope of ours, other case": {scopes("Kavach:Admin"), authz.ErrInvalid},
		"offline_access":            {scopes("offline_access"), authz.ErrInvalid},
		"two that differ by case":   {scopes("new:read", "new:Read"), authz.ErrInvalid},
		"one twice":                 {scopes("new:read", "new:read"), authz.ErrInvalid},
		"wildcard":                  {scopes("new:*"), authz.ErrInvalid},
		"space in a scope":          {scopes("a b"), authz.ErrInvalid},
		"65 scopes": {one(func(r *authz.Resource) {
			for i := range 65 {
				r.Scopes = append(r.Scopes, authz.Scope{Name: fmt.Sprintf("s%d", i)})
			}
		}), authz.ErrInvalid},
		"token_alg":                {one(func(r *authz.Resource) { r.TokenAlg = "HS256" }), authz.ErrInvalid},
		"unknown introspector":     {one(func(r *authz.Resource) { r.Introspector = "nobody" }), authz.ErrInvalid},
		"public introspector":      {one(func(r *authz.Resource) { r.Introspector = public.ID }), authz.ErrInvalid},
		"unknown role":             {one(func(r *authz.Resource) { r.Scopes[0].Holders.Roles = []people.Role{"admin"} }), authz.ErrInvalid},
		"control character (name)": {one(func(r *authz.Resource) { r.Name = "a\nb" }), authz.ErrInvalid},
	} {
		if err := rt.AddResource(ctx, cli, c.resource); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, own := range []string{"/mcp", "/api"} {
		if err := rt.RemoveResource(ctx, cli, testIssuer+own); !errors.Is(err, authz.ErrInvalid) {
			t.Errorf("removing %s: %v", own, err)
		}
	}
	cat, err := rt.Catalog(ctx)
	must(t, err)
	if n := len(cat.Resources()); n != 4 {
		t.Errorf("%d resources, want 4", n)
	}
}

func TestResourceIdentifiersAreCanonicalised(t *testing.T) {
	ctx := context.Background()
	rt := newRegistry(t)
	for i, id := range []string{"https://bare.example", "https://slash.example/", "https://git.example/api"} {
		must(t, rt.AddResource(ctx, cli, authz.Resource{ID: id, Scopes: []authz.Scope{{Name: fmt.Sprintf("s%d", i)}}}))
	}
	cat, err := rt.Catalog(ctx)
	must(t, err)
	mcp := testIssuer + "/mcp"
	for sent, want := range map[string]string{
		mcp: mcp, mcp + "/": mcp, testIssuer: mcp, testIssuer + "/": mcp, testIssuer + "/api": testIssuer + "/api",
		"https://bare.example": "https://bare.example", "https://bare.example/": "https://bare.example",
		"https://slash.example": "https://slash.example/", "https://slash.example/": "https://slash.example/",
		"https://git.example/api":  "https://git.example/api",
		"https://git.example/api/": "", "https://git.example": "", "https://git.example/api?x": "", "https://GIT.example/api": "",
		testIssuer + "/api/": "", testIssuer + "/mcp/x": "", testIssuer + "/MCP": "", "https://evil.example": "", "": "",
	} {
		if got, ok := cat.Canonical(sent); got != want || ok != (want != "") {
			t.Errorf("%q means %q (%v), want %q", sent, got, ok, want)
		}
	}
}

func TestWhoHoldsWhat(t *testing.T) {
	ctx := context.Background()
	rt := newRegistry(t)
	must(t, rt.AddResource(ctx, cli, gitResource()))
	cat, err := rt.Catalog(ctx)
	must(t, err)
	all := []string{
		"kavach:verify", "kavach:delegate", "kavach:audit", "agents:manage", "audit:read", "audit:write", "kavach:admin",
		"repository:read", "repository:write", "nothing",
	}
	everybody := "agents:manage kavach:audit kavach:delegate kavach:verify repository:read"
	for _, c := range []struct {
		holder authz.Holder
		want   string
	}{
		{authz.Holder{ID: "usr_m", Role: people.Member, Active: true}, everybody},
		{authz.Holder{ID: "usr_alice", Role: people.Member, Active: true}, everybody + " repository:write"},
		{authz.Holder{ID: "usr_a", Role: people.Auditor, Active: true}, everybody + " audit:read"},
		{authz.Holder{ID: "usr_o", Role: people.Operator, Active: true}, everybody + " audit:read kavach:admin repository:write"},
		{authz.Holder{ID: "usr_o", Role: people.Operator}, ""},
		{authz.Holder{Role: people.Operator, Active: true}, ""},
		{authz.Holder{}, ""},
	} {
		want := strings.Fields(c.want)
		slices.Sort(want)
		if got := cat.Held(c.holder, all); !slices.Equal(got, want) {
			t.Errorf("%+v holds %v, want %v", c.holder, got, want)
		}
	}
}

func TestDefaultAudiencesAndAlgorithms(t *testing.T) {
	ctx := context.Background()
	rt := newRegistry(t)
	must(t, rt.AddResource(ctx, cli, gitResource()))
	must(t, rt.AddResource(ctx, cli, authz.Resource{ID: "https://old.example", TokenAlg: authz.AlgRS256, Scopes: []authz.Scope{{Name: "old:use"}}}))
	cat, err := rt.Catalog(ctx)
	must(t, err)
	mcp, git, old := testIssuer+"/mcp", "https://git.example/api", "https://old.example"
	for asked, want := range map[string]string{
		"": mcp, "kavach:verify": mcp, "audit:read agents:manage": mcp, "repository:read": git, "offline_access": mcp,
		"repository:read kavach:delegate": mcp + " " + git, "nothing": mcp,
	} {
		if got := strings.Join(cat.Default(strings.Fields(asked)), " "); got != want {
			t.Errorf("default of %q: %q, want %q", asked, got, want)
		}
	}
	for _, c := range []struct {
		audiences []string
		alg       string
		ok, aware bool
	}{
		{[]string{mcp}, "ES256", true, true}, {[]string{mcp, git}, "ES256", true, true}, {[]string{old}, "RS256", true, false},
		{[]string{git, old}, "", false, false}, {[]string{"https://evil.example"}, "", false, false}, {nil, "", false, false},
	} {
		alg, ok := cat.TokenAlg(c.audiences)
		if alg != c.alg || ok != c.ok || cat.Aware(c.audiences) != c.aware {
			t.Errorf("%v: %q %v, aware %v", c.audiences, alg, ok, cat.Aware(c.audiences))
		}
	}
}

func TestTheBaselineHoldsNothingThatNotEverybodyHolds(t *testing.T) {
	rt := newRegistry(t)
	for _, scope := range []string{"audit:read", "kavach:admin", "audit:write", "nothing"} {
		_, err := authz.NewRegistry(authz.RegistryConfig{
			Issuer: testIssuer, Store: rt.store, Commit: rt.log, Refusals: rt.log, BaselineScopes: []string{scope},
		})
		if err == nil {
			t.Errorf("%s is in a baseline", scope)
		}
	}
}

func TestStaticClientsThatAreRefused(t *testing.T) {
	ctx := context.Background()
	rt := newRegistry(t)
	rt.client(authz.NewClient{ID: "taken", Scopes: []string{"audit:read"}})
	good := []string{"https://c.example/"}
	for name, c := range map[string]struct {
		client authz.NewClient
		want   error
	}{
		"taken":                      {authz.NewClient{ID: "taken", Name: "x", RedirectURIs: good}, authz.ErrExists},
		"no name":                    {authz.NewClient{RedirectURIs: good}, authz.ErrInvalid},
		"an agent's id":              {authz.NewClient{ID: strings.Repeat("a", 43), Name: "x"}, authz.ErrInvalid},
		"a person's id":              {authz.NewClient{ID: "usr_x", Name: "x"}, authz.ErrInvalid},
		"the operator's id":          {authz.NewClient{ID: "operator", Name: "x", RedirectURIs: good}, authz.ErrInvalid},
		"the server's id":            {authz.NewClient{ID: "server", Name: "x", RedirectURIs: good}, authz.ErrInvalid},
		"a URL as id":                {authz.NewClient{ID: "https://c.example/", Name: "x"}, authz.ErrInvalid},
		"unknown scope":              {authz.NewClient{Name: "x", Scopes: []string{"nothing"}}, authz.ErrInvalid},
		"unknown method":             {authz.NewClient{Name: "x", Method: "private_key_jwt"}, authz.ErrInvalid},
		"unknown grant":              {authz.NewClient{Name: "x", GrantTypes: []string{"password"}}, authz.ErrInvalid},
		"code without redirect":      {authz.NewClient{Name: "x", GrantTypes: []string{authz.GrantCode}}, authz.ErrInvalid},
		"credentials without secret": {authz.NewClient{Name: "x", Method: authz.MethodNone, Scopes: []string{"audit:read"}}, authz.ErrInvalid},
		"script redirect":            {authz.NewClient{Name: "x", RedirectURIs: []string{"javascript:x"}}, authz.ErrInvalid},
	} {
		if _, _, err := rt.AddClient(ctx, cli, c.client); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	list, err := rt.ListClients(ctx, "", 10)
	must(t, err)
	if len(list) != 1 {
		t.Errorf("%d clients", len(list))
	}
}

func TestTheLargestResourceAndRegistrationFitIntoARecord(t *testing.T) {
	rt := newRegistry(t)
	var scopes []authz.Scope
	for i := range 64 {
		scopes = append(scopes, authz.Scope{Name: fmt.Sprintf("%0128d", i)})
	}
	must(t, rt.AddResource(context.Background(), cli, authz.Resource{
		ID: "https://" + strings.Repeat("a", 248), Name: strings.Repeat("n", 200), Scopes: scopes,
	}))
	var uris []string
	for i := range 32 {
		uris = append(uris, fmt.Sprintf("%q", fmt.Sprintf("https://%s%d.example/", strings.Repeat("h", 230), i)))
	}
	body := `{"client_name": "` + strings.Repeat("n", 200) + `", "redirect_uris": [` + strings.Join(uris, ",") + `]}`
	if got := rt.register(body); got.status != 201 {
		t.Errorf("%d %s", got.status, got.body)
	}
}
