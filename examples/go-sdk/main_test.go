package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
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

// TestPerson: the SDK's own client starts with nothing but the address. The 401
// leads it to kavach, where a person approves what the challenge names. The
// first tool that needs more is refused with a 403, and the client asks the
// person once more, by itself.
func TestPerson(t *testing.T) {
	kavach, address := start(t)
	var asked []string
	handler, err := auth.NewAuthorizationCodeHandler(&auth.AuthorizationCodeHandlerConfig{
		RedirectURL: kavachtest.RedirectURL(),
		DynamicClientRegistrationConfig: &auth.DynamicClientRegistrationConfig{Metadata: &oauthex.ClientRegistrationMetadata{
			ClientName: "wiki reader", RedirectURIs: []string{kavachtest.RedirectURL()}, TokenEndpointAuthMethod: "none",
		}},
		AuthorizationCodeFetcher: func(_ context.Context, args *auth.AuthorizationArgs) (*auth.AuthorizationResult, error) {
			back, err := kavach.Approve(args.URL)
			if err != nil {
				return nil, err
			}
			q := back.Query()
			asked = append(asked, kavachtest.ScopeOf(args.URL))
			return &auth.AuthorizationResult{Code: q.Get("code"), State: q.Get("state"), Iss: q.Get("iss")}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	session := connect(t, &mcp.StreamableClientTransport{Endpoint: address, OAuthHandler: handler})
	check(t, session, [][3]string{{"read_page", "home", "Welcome."}})
	if got := strings.Join(asked, ", then "); got != "wiki:read" {
		t.Fatalf("asked for %s", got)
	}
	check(t, session, [][3]string{{"write_page", "home", "written by"}, {"read_page", "home", "Changed."}})
	if got := strings.Join(asked, ", then "); got != "wiki:read, then wiki:read wiki:write" {
		t.Errorf("asked for %s", got)
	}
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
			[][3]string{{"read_page", "plans", "Nothing yet."}, {"read_page", "home", "Forbidden"}, {"write_page", "plans", "written by"}, {"write_page", "home", "Forbidden"}},
		},
		"one tool": {
			map[string]any{"scopes": scopes, "tools": map[string]any{"read_page": map[string]any{}}},
			[][3]string{{"read_page", "home", "Welcome."}, {"write_page", "home", "Forbidden"}},
		},
		"no scope": {
			map[string]any{"scopes": []string{}, "audience": address},
			[][3]string{{"read_page", "home", "Forbidden"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			token := kavach.Delegate(t, address, scopes, test.args)
			for _, call := range test.calls {
				// The SDK's client closes its session at a 403 that asks for no
				// scope, so every call has one of its own.
				session := connect(t, &mcp.StreamableClientTransport{Endpoint: address, HTTPClient: &http.Client{Transport: bearer(token)}})
				tools, err := session.ListTools(t.Context(), nil)
				if err != nil || len(tools.Tools) != 2 {
					t.Fatalf("the list is the same for everybody: %v %v", err, tools)
				}
				check(t, session, [][3]string{call})
			}
		})
	}
}

// TestAgent: an agent signs in with its own key and hands a helper one page,
// offline. Every request of the helper's client carries a proof of its key.
func TestAgent(t *testing.T) {
	kavach, address := start(t)
	folder := t.TempDir()
	kavach.Agent(t, folder, "writer", "wiki:read wiki:write", "--capability", "delegate")
	writer, err := client.New(client.Config{Issuer: kavach.Issuer, Key: readKey(t, filepath.Join(folder, "writer.key.json"))})
	if err != nil {
		t.Fatal(err)
	}
	held, err := writer.Token(t.Context(), client.Ask{Scopes: []string{"wiki:read", "wiki:write"}, Resources: []string{address}})
	if err != nil {
		t.Fatal(err)
	}
	key, err := agent.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := held.Derive(key.Public(), "helper", delegation.Narrow{
		Scopes: []string{"wiki:read", "wiki:write"}, Limits: delegation.Limits{Resources: []string{"page/plans"}},
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	helper, err := client.Hold(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		who   client.Source
		calls [][3]string
	}{
		{helper, [][3]string{{"write_page", "plans", "written by " + writer.ID()}, {"read_page", "home", "Forbidden"}}},
		{held, [][3]string{{"read_page", "home", "Welcome."}, {"read_page", "plans", "Changed."}}},
	} {
		transport := &client.Transport{Source: test.who}
		session := connect(t, &mcp.StreamableClientTransport{Endpoint: address, HTTPClient: &http.Client{Transport: transport}})
		check(t, session, test.calls)
	}
}

func readKey(t *testing.T, file string) agent.PrivateKey {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	key, err := agent.ParsePrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// bearer adds a token to every request.
type bearer string

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(b))
	return http.DefaultTransport.RoundTrip(r)
}

func connect(t *testing.T, transport mcp.Transport) *mcp.ClientSession {
	t.Helper()
	session, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1.0.0"}, nil).Connect(t.Context(), transport, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() })
	return session
}

// check calls tools: each row is a tool, a page, and what the answer or the
// error has in it.
func check(t *testing.T, session *mcp.ClientSession, calls [][3]string) {
	t.Helper()
	for _, call := range calls {
		args := map[string]any{"page": call[1]}
		if call[0] == "write_page" {
			args["text"] = "Changed."
		}
		got := ""
		result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: call[0], Arguments: args})
		if err != nil {
			got = err.Error()
		} else {
			for _, content := range result.Content {
				if block, ok := content.(*mcp.TextContent); ok {
					got += block.Text
				}
			}
		}
		if !strings.Contains(got, call[2]) {
			t.Errorf("%s of %s: %s, want %s", call[0], call[1], got, call[2])
		}
	}
}
