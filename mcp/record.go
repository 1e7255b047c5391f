package mcp

import (
	"context"
	"errors"
	"net/http"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
)

// entry begins the audit entry of a call: who asked, on whose authority, with
// which token.
func (s *Server) entry(c *call, action, result string) audit.Entry {
	e := audit.Entry{
		Action: action, Result: result, Path: c.chain.Path(), Agent: c.chain.Agent(), Sub: c.chain.Principal(),
		Grant: c.chain.GrantID(), Anc: c.chain.Ancestry(), Detail: map[string]any{"via": "mcp"},
	}
	for _, l := range c.chain.Links() {
		e.Chain = append(e.Chain, audit.Party{LID: l.LID, JTI: l.JTI, ClientID: l.ClientID, Confirmed: l.Confirmed, JKT: l.JKT})
	}
	return e
}

// report records what guard refused. Refusals of step 16 are not here: authorize
// records them together with what was asked.
func (s *Server) report(ctx context.Context, d guard.Decision) error {
	if d.Allowed || d.Status == http.StatusForbidden {
		return nil
	}
	e := audit.Entry{Action: audit.TokenRefuse, Detail: map[string]any{"via": "mcp"}}
	if d.Chain != nil {
		e = s.entry(&call{chain: d.Chain}, e.Action, "")
	}
	e.Result, e.Reason, e.Resource = audit.Denied, string(d.Reason), s.cfg.Issuer+Path
	// "To authenticated callers, and every refusal with reason replayed,
	// revoked, key_reuse, refresh_reuse: whole, always."
	switch {
	case d.Reason == delegation.KeyReuse:
	case d.Chain == nil:
		s.cfg.Refusals.Refuse(s.cfg.Source(d.Request), Path, e)
		return nil
	case d.Reason == delegation.HolderBindingFailed:
		// The chain is genuine; who sent it did not show to be its holder.
		e.Agent = ""
		s.cfg.Refusals.Refuse(s.cfg.Source(d.Request), Path, e)
		return nil
	}
	return s.record(ctx, e)
}

// refused records a refusal that this package decides itself, then hands it on.
func (s *Server) refused(ctx context.Context, c *call, action, resource string, err error) error {
	var r *refusal
	if !errors.As(err, &r) {
		return err
	}
	e := s.entry(c, action, audit.Denied)
	e.Reason, e.Resource = r.reason, resource
	if err := s.record(ctx, e); err != nil {
		return err
	}
	return r
}

// refusalOf is the evaluator's refusal in an error, or one that says nothing.
func refusalOf(err error) *delegation.Refusal {
	var r *delegation.Refusal
	if errors.As(err, &r) {
		return r
	}
	return &delegation.Refusal{Reason: delegation.Malformed, Part: -1}
}
