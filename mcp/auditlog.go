package mcp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

const (
	defaultPage = 20
	maxPage     = 100
)

func (s *Server) auditTool() tool {
	return tool{
		name: "audit", title: "Read the audit log", scopes: []string{ScopeAudit, ScopeAuditRead}, action: audit.AuditRead,
		readOnly: true, idempotent: true,
		description: "Finds what was decided: who acted, on whose authority, under which chain, with which result. Filters combine; without any, the newest entries. " +
			"Returns entries and, if there are more, next_cursor for the next call with the same filter; with id, that entry alone. " +
			"You see what happened below you; with scope " + ScopeAuditRead + " everything. Not a way to write to the log: every call here is recorded by itself. " +
			"Needs scope " + ScopeAudit + ".",
		run: s.audit,
	}
}

func (s *Server) audit(ctx context.Context, c *call, value jcs.Value) (map[string]any, error) {
	a := readArguments(value, "", "id", "agent", "action", "result", "resource", "sub", "grant", "lid",
		"since", "until", "q", "order", "cursor", "limit")
	id := a.text("id", 64, printablePattern)
	q := audit.Query{
		Sight: sightOf(c.chain),
		Agent: a.text("agent", 256, textPattern), Action: a.text("action", 64, actionPattern),
		Result:   a.choice("result", audit.Allowed, audit.Denied, audit.Failed),
		Resource: a.text("resource", 256, textPattern), Sub: a.text("sub", 256, textPattern),
		Grant: a.text("grant", 64, textPattern), LID: a.text("lid", 43, digestPattern), Prefix: a.text("q", 256, textPattern),
		Since: a.time("since"), Until: a.time("until"),
		Ascending: a.choice("order", "newest", "oldest") == "oldest",
		Cursor:    a.text("cursor", 512, printablePattern),
		// "1e9 limit: cap": more than a page is a page.
		Limit: int(min(a.integer("limit", 1, jcs.MaxInt, defaultPage), maxPage)),
	}
	if q.Action != "" && !audit.KnownAction(q.Action) {
		a.fail("there is no action %s; there are, for example, delegate, verify, revoke, token.issue, consent.grant, login", q.Action)
	}
	if id != "" && value.Len() > 1 {
		a.fail("id stands alone: pass either id or filters")
	}
	if a.err != nil {
		return nil, s.refused(ctx, c, audit.AuditRead, "kavach/audit", a.err)
	}
	if id != "" {
		stored, err := s.one(ctx, c, id)
		if err != nil {
			return nil, err
		}
		return map[string]any{"entries": []jcs.Value{stored}}, nil
	}
	entries, next, err := s.page(ctx, c, q, filters(value))
	if err != nil {
		return nil, err
	}
	content := map[string]any{"entries": entries}
	if next != "" {
		content["next_cursor"] = next
	}
	return content, nil
}

// time reads RFC 3339 and returns Unix milliseconds, 0 when absent.
func (a *arguments) time(name string) int64 {
	s := a.text(name, 40, printablePattern)
	if s == "" {
		return 0
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.UnixMilli() <= 0 {
		a.fail("%s%s must be a time like 2026-01-31T09:00:00Z", a.where, name)
		return 0
	}
	return t.UnixMilli()
}

// filters names the arguments of a query: what was looked for is free text and
// stays out of the log.
func filters(value jcs.Value) []string {
	names := []string{}
	for name := range value.Fields() {
		names = append(names, name)
	}
	return names
}

// page reads a page of the log and records that it was read.
func (s *Server) page(ctx context.Context, c *call, q audit.Query, filters []string) ([]jcs.Value, string, error) {
	found, err := s.cfg.Auditor.Entries(ctx, q)
	if errors.Is(err, audit.ErrCursor) {
		return nil, "", s.refused(ctx, c, audit.AuditRead, "kavach/audit", &refusal{reason: "invalid_cursor",
			text: "this cursor was not made for you and this filter; start again without cursor, or repeat the filter it came with"})
	}
	if err != nil {
		return nil, "", fmt.Errorf("reading the log: %w", err)
	}
	entries := []jcs.Value{}
	for _, stored := range found.Entries {
		v, err := record(stored)
		if err != nil {
			return nil, "", err
		}
		entries = append(entries, v)
	}
	e := s.entry(c, audit.AuditRead, audit.Allowed)
	e.Resource = "kavach/audit"
	e.Detail["filters"], e.Detail["entries"] = filters, len(entries)
	if err := s.record(ctx, e); err != nil {
		return nil, "", err
	}
	return entries, found.Next, nil
}

// one reads one entry and records that it was read, or was not there for this
// caller: the two are not told apart.
func (s *Server) one(ctx context.Context, c *call, id string) (jcs.Value, error) {
	stored, err := s.cfg.Auditor.Entry(ctx, sightOf(c.chain), id)
	if errors.Is(err, audit.ErrNotFound) {
		return jcs.Value{}, s.refused(ctx, c, audit.AuditRead, "kavach/audit", &refusal{reason: "not_found",
			text: "there is no such entry, or none you may see"})
	}
	if err != nil {
		return jcs.Value{}, fmt.Errorf("reading the log: %w", err)
	}
	v, err := record(stored)
	if err != nil {
		return jcs.Value{}, err
	}
	e := s.entry(c, audit.AuditRead, audit.Allowed)
	e.Resource = "kavach/audit"
	e.Detail["entries"] = 1
	return v, s.record(ctx, e)
}

func record(stored audit.Stored) (jcs.Value, error) {
	v, err := jcs.Parse(stored.Bytes, jcs.Limits{Bytes: audit.MaxRecord})
	if err != nil {
		return v, fmt.Errorf("record %d: %w", stored.Seq, err)
	}
	return v, nil
}

// sightOf is what the holder of a chain may see of the log (audit.md §4).
func sightOf(chain *delegation.Chain) audit.Sight {
	if chain.HasScope(ScopeAuditRead) {
		return audit.Sight{All: true, Caller: chain.Principal()}
	}
	return audit.SightOf(chain)
}
