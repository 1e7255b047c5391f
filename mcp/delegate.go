package mcp

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

const (
	defaultTTL = 120 // seconds: what delegate returns lands in a model's context
	maxTTL     = 900
)

func (s *Server) delegateTool() tool {
	return tool{
		name: "delegate", title: "Delegate authority", scopes: []string{ScopeDelegate}, action: audit.Delegate,
		description: "Makes a token for another agent that may do a part of what you may do: fewer scopes, less time, tighter limits. " +
			"The authority is that of the token of this request; it cannot be widened. " +
			"Returns the token, its token_id, what it may do, when it expires, and who acts for whom. " +
			"With public_key the token is of no use without that key. Without it, if your own token is bound to a key or if you pass handle, " +
			"it returns a handle instead: the named agent alone can redeem it, once, within a minute, with its own key. " +
			"Not for getting a token for yourself, not for another person's agents, and not for work you can do yourself. " +
			"Needs scope " + ScopeDelegate + ".",
		run: s.delegate,
	}
}

// handedOver is the token_type of what is no token but stands for one.
const handedOver = "N_A"

func (s *Server) delegate(ctx context.Context, c *call, value jcs.Value) (map[string]any, error) {
	ask, handle, err := parseDelegate(value)
	if err != nil {
		return nil, s.refused(ctx, c, audit.Delegate, "kavach/delegate", err)
	}
	// "A bound parent never yields an unbound token (a `handle` instead)."
	if handle || c.chain.Bound() && ask.Key.IsZero() {
		return s.delegateHandle(ctx, c, ask)
	}
	issued, err := s.cfg.Delegator.Delegate(ctx, c.chain, ask)
	if err != nil {
		return nil, aboutScopes(err, c.chain)
	}
	content := delegated(issued)
	content["token"], content["token_id"], content["token_type"] = issued.Token, issued.LID, delegation.Bearer
	var notes []string
	if issued.Clamped {
		notes = append(notes, clampedNote)
	}
	if !ask.Key.IsZero() {
		content["token_type"] = delegation.DPoP
		if !issued.Proved {
			notes = append(notes, "the key is used as given; nothing proves that the agent holds it")
		}
	}
	if len(notes) > 0 {
		content["note"] = strings.Join(notes, "; ")
	}
	return content, nil
}

// delegateHandle answers with a handle: nothing in it works as a credential for
// whoever reads along.
func (s *Server) delegateHandle(ctx context.Context, c *call, ask delegation.Ask) (map[string]any, error) {
	issued, err := s.cfg.Delegator.DelegateHandle(ctx, string(c.credential), c.chain, ask)
	if err != nil {
		return nil, aboutScopes(err, c.chain)
	}
	content := delegated(issued)
	content["handle"], content["token_type"] = issued.Token, handedOver
	note := "expires_in is that of the handle; the agent redeems it at the token endpoint, authenticated as itself and with its own key"
	if issued.Clamped {
		note = clampedNote + "; " + note
	}
	content["note"] = note
	return content, nil
}

const clampedNote = "the time was shortened because the token of this request ends earlier"

// delegated is what is said of a delegation, whatever is handed out for it.
func delegated(issued delegation.Issued) map[string]any {
	return map[string]any{
		"scopes": list(issued.Scopes), "audience": list(issued.Audience),
		"constraints": constraints(issued.Limits, issued.Tools),
		"expires_in":  int64(issued.ExpiresIn / time.Second),
		"clamped":     issued.Clamped,
		"chain":       list(issued.Path),
	}
}

// aboutScopes adds to a refusal of a scope what the caller could have asked for.
func aboutScopes(err error, chain *delegation.Chain) error {
	held := strings.Join(chain.Scopes(), " ")
	var refused *delegation.Refusal
	if errors.As(err, &refused) {
		if refused.Dimension == delegation.DimensionScope && refused.Detail != "" {
			return &refusal{reason: string(refused.Reason), text: "scope " + refused.Detail + " is not in your token; you hold " + held}
		}
		return err
	}
	if r := asRefusal(err); r != nil && r.reason == "invalid_scope" {
		return &refusal{reason: r.reason, text: r.text + "; you hold " + held}
	}
	return err
}

// parseDelegate reads the arguments by schemas/delegate.in.json.
func parseDelegate(value jcs.Value) (ask delegation.Ask, handle bool, err error) {
	a := readArguments(value, "", "agent", "scopes", "ttl_seconds", "audience", "public_key", "handle", "tools", "constraints", "max_depth")
	ask.Receiver = a.text("agent", 128, textPattern)
	if !a.has("agent") {
		a.fail("agent is missing: say which agent shall use the token, by id or name")
	}
	ask.Scopes = a.list("scopes", 64, 128, scopePattern)
	ask.TTL = time.Duration(a.integer("ttl_seconds", 1, maxTTL, defaultTTL)) * time.Second
	if audience := a.text("audience", 256, printablePattern); audience != "" {
		ask.Audience = []string{audience}
	}
	handle = a.boolean("handle")
	if key := a.object("public_key"); key.Exists() {
		if handle {
			a.fail("handle and public_key exclude each other: whoever redeems a handle brings its own key")
		}
		public, err := agent.ParsePublicKey(key)
		if err != nil {
			a.fail("public_key must be a public Ed25519 or P-256 JWK with the members kty, crv, x (and y) only")
		}
		ask.Key = public
	}
	if tools := a.object("tools"); tools.Exists() {
		parsed, err := delegation.ParseTools(tools)
		if err != nil {
			a.fail("tools: %s; it is {tool: {argument: constraint}}, a constraint is like {\"constraint_type\": \"exact\", \"value\": 847}, and {} allows any arguments",
				refusalOf(err).Detail)
		}
		ask.Tools = parsed
	}
	if limits := a.object("constraints"); limits.Exists() {
		l := readArguments(limits, "constraints.", "resources", "allow_network", "max_file_size", "max_calls", "audit_required")
		l.list("resources", 32, 256, printablePattern)
		l.list("allow_network", 32, 256, printablePattern)
		l.integer("max_file_size", 0, jcs.MaxInt, 0)
		l.integer("max_calls", 1, jcs.MaxInt, 0)
		l.boolean("audit_required")
		if l.err != nil && a.err == nil {
			a.err = l.err
		}
		parsed, err := delegation.ParseLimits(limits)
		if err != nil {
			a.fail("constraints: %s", advice(refusalOf(err)))
		}
		ask.Limits = parsed
	}
	if a.has("max_depth") {
		depth := int(a.integer("max_depth", 0, delegation.MaxDepth, 0))
		ask.MaxDepth = &depth
	}
	if a.err != nil {
		return delegation.Ask{}, false, a.err
	}
	return ask, handle, nil
}

// constraints shows limits and tools the way they are asked for.
func constraints(limits delegation.Limits, tools delegation.Tools) map[string]any {
	m := limits.Map()
	if len(tools) > 0 {
		m["tools"] = tools.Map()
	}
	return m
}

// list makes nil an empty array.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
