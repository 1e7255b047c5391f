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
		// A chain may be used for calls, which are POSTs, with a DPoP proof over the
		// request. It does not cover the body: TLS has to end here.
		DPoPForWrites: true,
		// Or chain and a proof of the message itself come in its _meta, which has
		// room for a longer chain.
		MCP: true,
		// Tokens may be good for so many calls. One process counts for itself; for
		// several give a store that they share.
		Counters: guard.NewCounters(guard.CountersConfig{}),
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
	switch {
	case r.Method != http.MethodPost || slices.Contains(free, message.Method):
	case message.Method == "tools/call":
		tool, known := c.Tools[message.Call.Name]
		if !known {
			http.Error(w, "there is no such tool", http.StatusNotFound)
			return
		}
		need := delegation.Request{
			Scope:    delegation.AllOf(tool.Scope),
			Tool:     delegation.Given(message.Call),
			Resource: delegation.Given(tool.Resource(message.Call.Arguments)),
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
// text must not see two calls, so it is read strictly: one object, no member
// twice, and none that a library which folds case would take for another. A
// chain in it was for the guard, and goes no further.
func read(w http.ResponseWriter, r *http.Request) (delegation.Message, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, delegation.MaxMessage))
	if err != nil {
		return delegation.Message{}, errors.New("the body cannot be read or is too large")
	}
	if r.Method != http.MethodPost {
		r.Body = io.NopCloser(bytes.NewReader(body))
		return delegation.Message{}, nil
	}
	message, err := delegation.ParseMessage(body)
	if err == nil && message.Presented != nil {
		body, err = message.Bare()
	}
	if err != nil {
		return delegation.Message{}, errors.New("the body is not one JSON-RPC message, strictly written")
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return message, nil
}
