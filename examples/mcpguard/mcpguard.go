// Package mcpguard puts kavach's guard around an MCP server, whichever library
// it is written with: an http.Handler that speaks Streamable HTTP and keeps no
// sessions.
package mcpguard

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
	"github.com/kavach-dev/kavach/jcs"
	"github.com/kavach-dev/kavach/wellknown"
)

// Config says which server this is.
type Config struct {
	// Issuer is the kavach whose tokens it takes, Verifier has its keys.
	Issuer   string
	Verifier guard.Verifier
	// Resource is what tokens for this server name as aud.
	Resource string
	// Baseline are the scopes that a client without a token should ask for.
	Baseline []string
	// Tools says what each tool needs. One that does not stand here cannot be
	// called.
	Tools map[string]Tool
}

// Tool is what one tool needs of the caller's token.
type Tool struct {
	// Scope that every link must hold.
	Scope string
	// Resource is the id of what a call acts on, from its arguments.
	Resource func(arguments jcs.Value) string
}

// maxBody is more than any call of these tools.
const maxBody = 1 << 20

// free are the methods that give nothing away: any genuine token may have the
// handshake and the list of tools, which is the same for everybody. A client
// learns what its token lacks when it calls a tool, and can then ask for it.
var free = []string{"initialize", "notifications/initialized", "notifications/cancelled", "ping", "server/discover", "tools/list"}

// Handler serves the MCP server at /mcp and says at /.well-known/ where tokens
// for it come from.
func Handler(c Config, server http.Handler) http.Handler {
	var scopes []string
	for _, tool := range c.Tools {
		scopes = append(scopes, tool.Scope)
	}
	slices.Sort(scopes)

	// What a message needs is known only when it has been read, so the guard
	// stops after it has verified the token, and step asks it the rest.
	protect := guard.Authenticate(guard.Config{
		Resource: c.Resource, Verifier: c.Verifier, Baseline: c.Baseline,
		// A chain may be used for calls, which are POSTs, with a proof over the
		// request. It does not cover the body: TLS has to end here.
		DPoPForWrites: true,
	})
	mux := http.NewServeMux()
	mux.Handle("/mcp", protect(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.step(w, r, server) })))
	mux.Handle("/.well-known/", wellknown.Handler(wellknown.Config{
		Resources: func(context.Context) ([]wellknown.ResourceMetadata, error) {
			return []wellknown.ResourceMetadata{{
				Resource: c.Resource, AuthorizationServers: []string{c.Issuer}, ScopesSupported: slices.Compact(scopes),
			}}, nil
		},
	}))
	return mux
}

// step lets a message through to the server if the caller's token allows it. A
// refusal is a 403 that names the missing scope, which is what makes a client
// ask its person for more; an error inside a tool result would not.
func (c Config) step(w http.ResponseWriter, r *http.Request, server http.Handler) {
	message, err := read(w, r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	switch method := message.Get("method").Str(); {
	case r.Method != http.MethodPost || slices.Contains(free, method):
	case method == "tools/call":
		params := message.Get("params")
		tool, known := c.Tools[params.Get("name").Str()]
		if !known {
			http.Error(w, "there is no such tool", http.StatusNotFound)
			return
		}
		need := delegation.Request{
			Scope:    delegation.AllOf(tool.Scope),
			Tool:     delegation.Given(delegation.Call{Name: params.Get("name").Str(), Arguments: params.Get("arguments")}),
			Resource: delegation.Given(tool.Resource(params.Get("arguments"))),
			Network:  delegation.None[string](), // no tool here opens a connection
			Size:     delegation.None[int64](),  // or moves a file
		}
		if err := allows(r.Context(), need); err != nil {
			guard.Refuse(w, r, need, err, nil)
			return
		}
	default:
		http.Error(w, "this server has tools and nothing else", http.StatusNotFound)
		return
	}
	server.ServeHTTP(w, r)
}

// allows asks every link of the caller's token.
func allows(ctx context.Context, need delegation.Request) error {
	// Nobody keeps a log here, so whoever demands a record first is refused.
	if guard.From(ctx).Restricts(delegation.DimensionAudit) {
		return &delegation.Refusal{Reason: delegation.ConstraintViolated, Dimension: delegation.DimensionAudit, Part: -1, Detail: "no audit log is configured"}
	}
	return guard.Allows(ctx, need)
}

// read reads the message and puts it back for the server. Two readers of one
// text must not see two calls, so it is strict: one object, no member twice, and
// none that a library which folds case would take for another.
func read(w http.ResponseWriter, r *http.Request) (jcs.Value, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return jcs.Value{}, errors.New("the body cannot be read or is too large")
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if r.Method != http.MethodPost {
		return jcs.Value{}, nil
	}
	message, err := jcs.Parse(body, jcs.Limits{Bytes: maxBody})
	if err != nil || message.Kind() != jcs.Object {
		return jcs.Value{}, errors.New("the body is not one JSON-RPC message")
	}
	for _, object := range []jcs.Value{message, message.Get("params")} {
		for name := range object.Fields() {
			for _, known := range []string{"method", "params", "name", "arguments"} {
				if name != known && strings.EqualFold(name, known) {
					return jcs.Value{}, errors.New("the body has a member that is almost " + known)
				}
			}
		}
	}
	return message, nil
}
