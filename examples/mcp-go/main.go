// Command mcp-go is an MCP server written with mark3labs/mcp-go that takes
// tokens of kavach: a wiki with two tools, each with a scope of its own, where a
// token may also be for one tool or one page only.
//
//	kavach resource add http://127.0.0.1:9001/mcp --dev --name Wiki --kavach-aware \
//	  --scope 'wiki:read=Read pages' --scope 'wiki:write=Write pages'
//	go run ./mcp-go
//	claude mcp add --transport http wiki http://127.0.0.1:9001/mcp
package main

import (
	"context"
	"flag"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"github.com/kavach-dev/kavach/examples/mcpguard"
	"github.com/kavach-dev/kavach/guard"
	"github.com/kavach-dev/kavach/jcs"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9001", "address of the server")
	resource := flag.String("resource", "http://127.0.0.1:9001/mcp", "what tokens for it name as aud")
	issuer := flag.String("issuer", "http://127.0.0.1:8420", "the kavach that issues them")
	flag.Parse()

	keys := guard.NewJWKS(guard.JWKSConfig{Issuer: *issuer, URL: *issuer + "/.well-known/jwks.json"})
	defer keys.Close()
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	log.SetFlags(0)
	log.Printf("ready %s", *resource)
	s := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: mcpguard.Handler(mcpguard.Config{
		Issuer: *issuer, Resource: *resource, Verifier: keys,
		Baseline: []string{"wiki:read"},
		Tools: map[string]mcpguard.Tool{
			"read_page":  {Scope: "wiki:read", Resource: page},
			"write_page": {Scope: "wiki:write", Resource: page},
		},
	}, server.NewStreamableHTTPServer(tools(), server.WithStateLess(true), server.WithDisableStreaming(true)))}
	log.Fatal(s.Serve(listener))
}

// page is the resource that a call of either tool acts on.
func page(arguments jcs.Value) string { return "page/" + arguments.Get("page").Str() }

// wiki is what the tools work on.
type wiki struct {
	mu    sync.Mutex
	pages map[string]string // guarded by mu
}

// tools declares the two tools. The list is the same for every token: what a
// token may do is decided when a tool is called.
func tools() *server.MCPServer {
	w := &wiki{pages: map[string]string{"home": "Welcome.", "plans": "Nothing yet."}}
	s := server.NewMCPServer("wiki", "1.0.0", server.WithToolCapabilities(false))
	s.AddTool(mcp.NewTool("read_page",
		mcp.WithDescription("Returns the text of a page. Needs the scope wiki:read."),
		mcp.WithReadOnlyHintAnnotation(true),
		mcp.WithString("page", mcp.Required(), mcp.Pattern(`^[a-z]{1,32}$`)),
	), w.read)
	s.AddTool(mcp.NewTool("write_page",
		mcp.WithDescription("Replaces the text of a page. Needs the scope wiki:write."),
		mcp.WithString("page", mcp.Required(), mcp.Pattern(`^[a-z]{1,32}$`)),
		mcp.WithString("text", mcp.Required()),
	), w.write)
	return s
}

// A tool runs only when every link of the caller's token allowed the call.
func (w *wiki) read(_ context.Context, call mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return mcp.NewToolResultText(w.pages[call.GetString("page", "")]), nil
}

func (w *wiki) write(ctx context.Context, call mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pages[call.GetString("page", "")] = call.GetString("text", "")
	// Who acts, and on whose authority, is proved by the token.
	return mcp.NewToolResultText("written by " + guard.From(ctx).Agent()), nil
}
