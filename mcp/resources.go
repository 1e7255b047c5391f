package mcp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	mcpgo "github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/jcs"
)

const (
	identityURI   = "kavach://identity"
	chainTemplate = "kavach://chain/{id}"
	auditTemplate = "kavach://audit/{id}"
	jsonType      = "application/json"
)

func (s *Server) addResources(library *mcpserver.MCPServer) {
	library.AddResource(mcpgo.NewResource(identityURI, "identity",
		mcpgo.WithResourceDescription("What your own token is: on whose authority, which scopes, which limits, how long. Needs no scope."),
		mcpgo.WithMIMEType(jsonType)), s.reader(s.identity))
	library.AddResourceTemplate(mcpgo.NewResourceTemplate(chainTemplate, "chain",
		mcpgo.WithTemplateDescription("Everything the log tells about one token, oldest first: how it was issued and where it took part. {id} is a token_id. Needs scope "+ScopeAudit+"."),
		mcpgo.WithTemplateMIMEType(jsonType)), mcpserver.ResourceTemplateHandlerFunc(s.reader(s.chain)))
	library.AddResourceTemplate(mcpgo.NewResourceTemplate(auditTemplate, "audit",
		mcpgo.WithTemplateDescription("One entry of the audit log. {id} is the id of the entry. Needs scope "+ScopeAudit+"."),
		mcpgo.WithTemplateMIMEType(jsonType)), mcpserver.ResourceTemplateHandlerFunc(s.reader(s.auditEntry)))
}

// reader makes a library handler of a function that returns a document. The
// library knows one error code for every failure; ours go through call.instead.
func (s *Server) reader(read func(ctx context.Context, c *call) (any, error)) mcpserver.ResourceHandlerFunc {
	return func(ctx context.Context, request mcpgo.ReadResourceRequest) ([]mcpgo.ResourceContents, error) {
		c := callFrom(ctx)
		ctx, cancel := c.inTime(ctx)
		defer cancel()
		document, err := read(ctx, c)
		if err == nil {
			var text []byte
			if text, err = jcs.Marshal(document); err == nil {
				return []mcpgo.ResourceContents{mcpgo.TextResourceContents{
					URI: c.message.name, MIMEType: jsonType, Text: string(text),
				}}, nil
			}
		}
		c.instead = s.readError(c, err)
		return nil, errors.New(c.instead.message)
	}
}

func (s *Server) readError(c *call, err error) *rpcError {
	r := asRefusal(err)
	switch {
	case r == nil:
		s.cfg.Log.Error("reading a resource failed", "err", err)
		return &rpcError{http.StatusOK, mcpgo.INTERNAL_ERROR, "the server could not finish this", nil}
	case r.unavailable:
		return &rpcError{http.StatusServiceUnavailable, mcpgo.INTERNAL_ERROR, unavailableText, nil}
	}
	return notFound(c.message, r.Error())
}

// known reports whether a URI has the form of one of the resources.
func known(uri string) bool {
	if uri == identityURI {
		return true
	}
	for _, template := range []string{chainTemplate, auditTemplate} {
		if id, ok := strings.CutPrefix(uri, strings.TrimSuffix(template, "{id}")); ok {
			return idPattern.MatchString(id)
		}
	}
	return false
}

// notFound is −32002 before 2026-07-28 and −32602 since; both name the URI.
func notFound(m *message, text string) *rpcError {
	data := map[string]any{"uri": m.name}
	if m.modern {
		return &rpcError{http.StatusBadRequest, mcpgo.INVALID_PARAMS, text, data}
	}
	return &rpcError{http.StatusOK, mcpgo.RESOURCE_NOT_FOUND, text, data}
}

func (s *Server) identity(ctx context.Context, c *call) (any, error) {
	now := s.cfg.Now()
	document := describe(c.chain, now)
	document["client_id"], document["token_id"] = c.chain.ClientID(), c.chain.LID()
	e := s.entry(c, audit.ResourceRead, audit.Allowed)
	e.Resource = "kavach/identity"
	return document, s.record(ctx, e)
}

func (s *Server) chain(ctx context.Context, c *call) (any, error) {
	id := strings.TrimPrefix(c.message.name, strings.TrimSuffix(chainTemplate, "{id}"))
	if !digestPattern.MatchString(id) {
		return nil, s.refused(ctx, c, audit.AuditRead, "kavach/audit", &refusal{reason: "not_found", text: "a token_id has 43 characters"})
	}
	q := audit.Query{Sight: sightOf(c.chain), LID: id, Ascending: true, Limit: maxPage}
	entries, next, err := s.page(ctx, c, q, []string{"lid"})
	switch {
	case err != nil:
		return nil, err
	case len(entries) == 0 && next == "":
		return nil, &refusal{reason: "not_found", text: "the log has nothing about this token, or nothing you may see"}
	}
	document := map[string]any{"token_id": id, "entries": entries}
	if next != "" {
		document["next_cursor"] = next
	}
	return document, nil
}

func (s *Server) auditEntry(ctx context.Context, c *call) (any, error) {
	id := strings.TrimPrefix(c.message.name, strings.TrimSuffix(auditTemplate, "{id}"))
	if len(id) > 64 || !printablePattern.MatchString(id) {
		return nil, s.refused(ctx, c, audit.AuditRead, "kavach/audit", &refusal{reason: "not_found", text: fmt.Sprintf("%.64q is not the id of an entry", id)})
	}
	return s.one(ctx, c, id)
}
