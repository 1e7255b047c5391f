package mcp

import (
	"context"
	"errors"
	"net/http"
	"strings"

	mcpgo "github.com/mark3labs/mcp-go/mcp"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
	"github.com/kavach-dev/kavach/jcs"
)

// need is what one message asks of the caller's token.
type need struct {
	scopes   []string // any one of them; none: no scope
	call     delegation.Dimension[delegation.Call]
	resource string // kavach/<tool>
	action   string // of the audit entry
}

// needs says what a message asks for, nil if it is part of the protocol and
// gives nothing away (the handshake, lists, prompts). "What the endpoints give
// of the request's dimensions: /mcp tool and arguments as called, resource
// kavach/<tool>, network and size none."
func (s *Server) needs(m *message) (*need, *rpcError) {
	switch mcpgo.MCPMethod(m.method) {
	case mcpgo.MethodToolsCall:
		t, ok := s.tools[m.name]
		if !ok {
			failure := invalidParams("no such tool; there are audit, delegate, revoke, verify")
			if !m.modern {
				failure.status = http.StatusOK
			}
			return nil, failure
		}
		arguments := m.arguments
		if !arguments.Exists() {
			arguments, _ = jcs.Of(map[string]any{})
		}
		return &need{
			scopes: t.scopes, resource: "kavach/" + t.name, action: t.action,
			call: delegation.Given(delegation.Call{Name: t.name, Arguments: arguments}),
		}, nil
	case mcpgo.MethodResourcesRead:
		n := &need{call: delegation.None[delegation.Call](), resource: "kavach/identity", action: audit.ResourceRead}
		if !strings.HasPrefix(m.name, identityURI) {
			// What these show is what the tool audit shows.
			n.scopes, n.resource = []string{ScopeAudit, ScopeAuditRead}, "kavach/audit"
		}
		return n, nil
	}
	return nil, nil
}

// authorize asks every link of the caller's token for what this message needs,
// and answers itself when one refuses. A refusal is recorded before it is
// answered.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request, c *call) bool {
	n, failure := s.needs(c.message)
	if failure != nil {
		s.fail(w, r, c, failure)
		return false
	}
	if n == nil {
		return true
	}
	scope := delegation.NoScope()
	if len(n.scopes) > 0 {
		scope = delegation.OneOf(n.scopes...)
	}
	request := delegation.Request{
		Scope: scope, Tool: n.call, Resource: delegation.Given(n.resource),
		Network: delegation.None[string](), Size: delegation.None[int64](),
	}
	err := guard.Allows(r.Context(), request)
	if err == nil {
		if mcpgo.MCPMethod(c.message.method) == mcpgo.MethodResourcesRead && !known(c.message.name) {
			s.fail(w, r, c, notFound(c.message, "no such resource; there are "+identityURI+", "+chainTemplate+" and "+auditTemplate))
			return false
		}
		return true
	}
	var refused *delegation.Refusal
	if !errors.As(err, &refused) {
		s.cfg.Log.Error("judging a request", "err", err)
		refuse(w, http.StatusInternalServerError, "server_error", "the server could not decide")
		return false
	}
	switch refused.Reason {
	case delegation.Replayed, delegation.StatusUnknown, delegation.HolderBindingFailed, delegation.Expired:
		// Steps 14 and 17: nothing is wrong with what was asked. guard reports it.
		guard.Refuse(w, r, request, refused, nil)
		return false
	}
	entry := s.entry(c, n.action, audit.Denied)
	entry.Reason, entry.Resource = string(refused.Reason), n.resource
	entry.Detail["dimension"] = refused.Dimension
	if err := s.record(r.Context(), entry); err != nil {
		unavailable(w)
		return false
	}
	deny(w, r, c.chain, n, request, refused)
	return false
}

// deny writes the 403 of mcp.md §2 in words a model can act on. The challenge
// is guard's: clients step up on insufficient_scope and on nothing else, so a
// limit that refuses carries none.
func deny(w http.ResponseWriter, r *http.Request, chain *delegation.Chain, n *need, request delegation.Request, refused *delegation.Refusal) {
	code, text := "constraint_violated", advice(refused)
	if refused.Reason == delegation.ScopeNotGranted {
		held := strings.Join(chain.Scopes(), " ")
		if held == "" {
			held = "no scope"
		}
		code, text = "insufficient_scope", "this needs the scope "+n.scopes[0]+"; your token holds "+held
	}
	body, err := jcs.Marshal(map[string]any{"error": code, "error_description": text})
	if err != nil {
		body = []byte(`{"error":"` + code + `"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	guard.Refuse(w, r, request, refused, body)
}

func unavailable(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "5")
	refuse(w, http.StatusServiceUnavailable, unavailableReason, "the audit log cannot be written; try again")
}

// record writes an entry and returns when it is durable.
func (s *Server) record(ctx context.Context, entry audit.Entry) error {
	return s.cfg.Commit.Commit(ctx, audit.Change{Entries: []audit.Entry{entry}})
}
