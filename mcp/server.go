package mcp

import (
	"context"
	"embed"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	mcpgo "github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
	"github.com/kavach-dev/kavach/jcs"
)

//go:embed schemas/*.json
var schemas embed.FS

//go:embed instructions.md
var instructions string

// listTTL is how long a client may keep what is the same for every caller: the
// lists, and what server/discover says.
const listTTL = 300_000 // ms

// Server is the MCP endpoint.
type Server struct {
	cfg       Config
	hosts     hosts
	tools     map[string]tool
	transport http.Handler
}

// call is one request on its way: what was read, and on whose authority.
type call struct {
	message *message
	chain   *delegation.Chain
	// credential is what chain was verified from.
	credential guard.Secret
	// instead replaces the library's answer. Set by the handler of this call,
	// read by its answer, both on the goroutine of the request.
	instead *rpcError
	// deadline of the request, zero for none. The library does not know it: it
	// would answer for a handler that has not finished.
	deadline time.Time
}

// inTime gives a handler the deadline of its request.
func (c *call) inTime(ctx context.Context) (context.Context, context.CancelFunc) {
	if c.deadline.IsZero() {
		return context.WithCancel(ctx)
	}
	return context.WithDeadline(ctx, c.deadline)
}

type callKey struct{}

func withCall(ctx context.Context, c *call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

func callFrom(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// New makes a Server.
func New(cfg Config) (*Server, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, hosts: newHosts(cfg.Issuer, cfg.Origins, cfg.Hosts)}
	library := mcpserver.NewMCPServer("kavach", cfg.Version,
		mcpserver.WithTitle("Kavach"),
		mcpserver.WithDescription("Delegation with proof: hands narrowed authority to agents, verifies it, and keeps the record."),
		mcpserver.WithInstructions(instructions),
		mcpserver.WithToolCapabilities(false),
		mcpserver.WithResourceCapabilities(false, false),
		mcpserver.WithPromptCapabilities(false),
		mcpserver.WithCompletions(),
		mcpserver.WithPromptCompletionProvider(completer{s}),
		mcpserver.WithResourceCompletionProvider(completer{s}),
		// "private where the answer depends on the caller": only what is read.
		mcpserver.WithCacheHints(listTTL, mcpgo.CacheScopePublic),
		mcpserver.WithMethodCacheHints(mcpgo.MethodResourcesRead, 0, mcpgo.CacheScopePrivate),
	)
	s.tools = map[string]tool{}
	for _, t := range s.catalogue() {
		s.tools[t.name] = t
		library.AddTool(t.declaration(), s.handle(t))
	}
	s.addResources(library)
	s.addPrompts(library)
	s.transport = mcpserver.NewStreamableHTTPServer(library,
		mcpserver.WithStateLess(true),
		mcpserver.WithDisableStreaming(true),
		// Ours is stricter, and right behind a proxy on the same machine.
		mcpserver.WithDisableLocalhostProtection(true),
		mcpserver.WithStreamableHTTPLogger(quiet(cfg.Log)),
	)
	return s, nil
}

// quiet keeps the library from logging what clients send.
func quiet(*slog.Logger) *slog.Logger { return slog.New(slog.DiscardHandler) }

// tool is one tool: what clients see of it, what it needs, and what it does.
type tool struct {
	name, title, description string
	scopes                   []string // any one of them
	action                   string   // of its audit entries
	readOnly, destructive    bool
	idempotent               bool
	run                      func(ctx context.Context, c *call, arguments jcs.Value) (map[string]any, error)
}

func (t tool) declaration() mcpgo.Tool {
	closed := false
	return mcpgo.Tool{
		Name: t.name, Title: t.title, Description: t.description,
		RawInputSchema:  schema(t.name + ".in.json"),
		RawOutputSchema: schema(t.name + ".out.json"),
		Annotations: mcpgo.ToolAnnotation{
			Title: t.title, ReadOnlyHint: &t.readOnly, DestructiveHint: &t.destructive,
			IdempotentHint: &t.idempotent, OpenWorldHint: &closed,
		},
	}
}

func schema(file string) json.RawMessage {
	b, err := schemas.ReadFile("schemas/" + file)
	if err != nil {
		panic("mcp: " + err.Error()) // embedded: there or the build is broken
	}
	v, err := jcs.Transform(b)
	if err != nil {
		panic("mcp: schema " + file + ": " + err.Error())
	}
	return v
}

// handle runs a tool and writes its outcome: structured content and the same as
// text, or a refusal a model can act on.
func (s *Server) handle(t tool) mcpserver.ToolHandlerFunc {
	return func(ctx context.Context, _ mcpgo.CallToolRequest) (*mcpgo.CallToolResult, error) {
		c := callFrom(ctx)
		ctx, cancel := c.inTime(ctx)
		defer cancel()
		content, err := t.run(ctx, c, c.message.arguments)
		if err != nil {
			return mcpgo.NewToolResultError(s.explain(t, err)), nil
		}
		b, err := jcs.Marshal(content)
		if err != nil {
			s.cfg.Log.Error("writing the result of a tool", "tool", t.name, "err", err)
			return mcpgo.NewToolResultError(internalText), nil
		}
		return &mcpgo.CallToolResult{
			Content:           []mcpgo.Content{mcpgo.NewTextContent(string(b))},
			StructuredContent: json.RawMessage(b),
		}, nil
	}
}

// catalogue lists the tools; clients see them sorted by name, every token the
// same ("a filtered list would make step-up impossible").
func (s *Server) catalogue() []tool {
	return []tool{s.auditTool(), s.delegateTool(), s.revokeTool(), s.verifyTool()}
}
