package main

import (
	"context"
	"strings"
	"testing"

	"github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/client/transport"
	"github.com/mark3labs/mcp-go/mcp"

	"github.com/kavach-dev/kavach/examples/kavachtest"
)

// start runs kavach and this program, which it returns the address of.
func start(t *testing.T) (*kavachtest.Server, string) {
	origin := kavachtest.FreeURL(t)
	kavach := kavachtest.Start(t, kavachtest.Resource{
		URL: origin + "/mcp", Name: "Wiki", Scopes: []string{"wiki:read=Read pages", "wiki:write=Write pages"},
	})
	kavachtest.Run(t, ".", "--listen", strings.TrimPrefix(origin, "http://"), "--resource", origin+"/mcp", "--issuer", kavach.Issuer)
	return kavach, origin + "/mcp"
}

// TestPerson: mcp-go's own client starts with nothing but the address. The 401
// leads it to kavach, a person approves one of the two scopes, and one of the
// two tools works.
func TestPerson(t *testing.T) {
	kavach, address := start(t)
	ctx := t.Context()
	c, err := client.NewOAuthStreamableHttpClient(address, client.OAuthConfig{
		RedirectURI: kavachtest.RedirectURL(), TokenStore: client.NewMemoryTokenStore(), PKCEEnabled: true,
		Scopes: []string{"wiki:read", "wiki:write"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	_, err = c.Initialize(ctx, mcp.InitializeRequest{})
	if !client.IsOAuthAuthorizationRequiredError(err) {
		t.Fatalf("without a token: %v", err)
	}
	oauth := client.GetOAuthHandler(err)
	if err := oauth.RegisterClient(ctx, "wiki reader"); err != nil {
		t.Fatal(err)
	}
	verifier, err := transport.GenerateCodeVerifier()
	if err != nil {
		t.Fatal(err)
	}
	authorization, err := oauth.GetAuthorizationURL(ctx, "state", transport.GenerateCodeChallenge(verifier))
	if err != nil {
		t.Fatal(err)
	}
	back, err := kavach.Approve(authorization, "wiki:read")
	if err != nil {
		t.Fatal(err)
	}
	if err := oauth.ProcessAuthorizationResponse(ctx, back.Query().Get("code"), back.Query().Get("state"), verifier); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Initialize(ctx, mcp.InitializeRequest{}); err != nil {
		t.Fatal(err)
	}
	check(t, c, [][3]string{
		{"read_page", "home", "Welcome."},
		{"write_page", "home", "insufficient_scope"},
		{"read_page", "home", "Welcome."},
	})
}

// TestDelegated: tokens that an agent was handed for less than the scope says.
func TestDelegated(t *testing.T) {
	kavach, address := start(t)
	scopes := []string{"wiki:read", "wiki:write"}
	for name, test := range map[string]struct {
		args  map[string]any
		calls [][3]string
	}{
		"one page": {
			map[string]any{"scopes": scopes, "constraints": map[string]any{"resources": []string{"page/plans"}}},
			[][3]string{{"read_page", "plans", "Nothing yet."}, {"read_page", "home", "constraint_violated"}, {"write_page", "plans", "written by"}, {"write_page", "home", "constraint_violated"}},
		},
		"one tool": {
			map[string]any{"scopes": scopes, "tools": map[string]any{"read_page": map[string]any{}}},
			[][3]string{{"read_page", "home", "Welcome."}, {"write_page", "home", "constraint_violated"}},
		},
		"no scope": {
			map[string]any{"scopes": []string{}, "audience": address},
			[][3]string{{"read_page", "home", "insufficient_scope"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			token := kavach.Delegate(t, address, scopes, test.args)
			c, err := client.NewStreamableHttpClient(address, transport.WithHTTPHeaders(map[string]string{"Authorization": "Bearer " + token}))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Initialize(t.Context(), mcp.InitializeRequest{}); err != nil {
				t.Fatal(err)
			}
			tools, err := c.ListTools(t.Context(), mcp.ListToolsRequest{})
			if err != nil || len(tools.Tools) != 2 {
				t.Fatalf("the list is the same for everybody: %v %v", err, tools)
			}
			check(t, c, test.calls)
		})
	}
}

// check calls tools: each row is a tool, a page, and what the answer or the
// error has in it.
func check(t *testing.T, c *client.Client, calls [][3]string) {
	t.Helper()
	for _, call := range calls {
		args := map[string]any{"page": call[1]}
		if call[0] == "write_page" {
			args["text"] = "Changed."
		}
		if got := said(t.Context(), c, call[0], args); !strings.Contains(got, call[2]) {
			t.Errorf("%s of %s: %s, want %s", call[0], call[1], got, call[2])
		}
	}
}

// said is what a call of a tool came to.
func said(ctx context.Context, c *client.Client, tool string, args map[string]any) string {
	request := mcp.CallToolRequest{}
	request.Params.Name, request.Params.Arguments = tool, args
	result, err := c.CallTool(ctx, request)
	if err != nil {
		return err.Error()
	}
	text := ""
	for _, content := range result.Content {
		if block, ok := content.(mcp.TextContent); ok {
			text += block.Text
		}
	}
	if result.IsError {
		return "error: " + text
	}
	return text
}
