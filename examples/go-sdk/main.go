// Command go-sdk is the wiki of ../mcp-go once more, written with the official
// Go SDK: an MCP server that takes tokens of kavach, each tool with a scope of
// its own, where a token may also be for one tool or one page only.
//
//	kavach resource add http://127.0.0.1:9002/mcp --dev --name Wiki --kavach-aware \
//	  --scope 'wiki:read=Read pages' --scope 'wiki:write=Write pages'
//	go run ./go-sdk
//	claude mcp add --transport http wiki http://127.0.0.1:9002/mcp
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/kavach-dev/kavach/examples/mcpguard"
	"github.com/kavach-dev/kavach/guard"
	"github.com/kavach-dev/kavach/jcs"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9002", "address of the server")
	resource := flag.String("resource", "http://127.0.0.1:9002/mcp", "what tokens for it name as aud")
	issuer := flag.String("issuer", "http://127.0.0.1:8420", "the kavach that issues them")
	flag.Parse()

	keys := guard.NewJWKS(guard.JWKSConfig{Issuer: *issuer, URL: *issuer + "/.well-known/jwks.json"})
	defer keys.Close()
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	tools := tools()
	log.SetFlags(0)
	log.Printf("ready %s", *resource)
	s := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: mcpguard.Handler(mcpguard.Config{
		Issuer: *issuer, Resource: *resource, Verifier: keys,
		Baseline: []string{"wiki:read"},
		Tools: map[string]mcpguard.Tool{
			"read_page":  {Scope: "wiki:read", Resource: page},
			"write_page": {Scope: "wiki:write", Resource: page},
		},
	}, mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return tools }, &mcp.StreamableHTTPOptions{
		// Stateless, the context of a tool is that of its request, and guard.From
		// finds the token there.
		Stateless: true,
	}))}
	log.Fatal(s.Serve(listener))
}

// page is the resource that a call of either tool acts on.
func page(arguments jcs.Value) string { return "page/" + arguments.Get("page").Str() }

// wiki is what the tools work on.
type wiki struct {
	mu    sync.Mutex
	pages map[string]string // guarded by mu
}

type readPage struct {
	Page string `json:"page" jsonschema:"name of the page"`
}

type writePage struct {
	Page string `json:"page" jsonschema:"name of the page"`
	Text string `json:"text" jsonschema:"its new text"`
}

// tools declares the two tools. The list is the same for every token: what a
// token may do is decided when a tool is called.
func tools() *mcp.Server {
	w := &wiki{pages: map[string]string{"home": "Welcome.", "plans": "Nothing yet."}}
	s := mcp.NewServer(&mcp.Implementation{Name: "wiki", Version: "1.0.0"}, nil)
	mcp.AddTool(s, &mcp.Tool{
		Name: "read_page", Description: "Returns the text of a page. Needs the scope wiki:read.",
		Annotations: &mcp.ToolAnnotations{ReadOnlyHint: true},
	}, w.read)
	mcp.AddTool(s, &mcp.Tool{
		Name: "write_page", Description: "Replaces the text of a page. Needs the scope wiki:write.",
	}, w.write)
	return s
}

// A tool runs only when every link of the caller's token allowed the call.
func (w *wiki) read(_ context.Context, _ *mcp.CallToolRequest, in readPage) (*mcp.CallToolResult, any, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return text(w.pages[in.Page]), nil, nil
}

func (w *wiki) write(ctx context.Context, _ *mcp.CallToolRequest, in writePage) (*mcp.CallToolResult, any, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pages[in.Page] = in.Text
	// Who acts, and on whose authority, is proved by the token.
	return text("written by " + guard.From(ctx).Agent()), nil, nil
}

func text(s string) *mcp.CallToolResult {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: s}}}
}
