package mcp

import (
	"context"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

func (s *Server) revokeTool() tool {
	return tool{
		name: "revoke", title: "Revoke a delegation", scopes: []string{ScopeDelegate}, action: audit.Revoke,
		destructive: true, idempotent: true,
		description: "Ends a delegation that you, or somebody below you, made, together with everything below it: by token_id, by agent, or by a chain derived offline. " +
			"Returns the token_ids that no longer work and how many unexpired delegations below them ended with them. " +
			"It cannot be undone. Not for tokens above you or of others: those are refused. " +
			"Needs scope " + ScopeDelegate + ".",
		run: s.revoke,
	}
}

func (s *Server) revoke(ctx context.Context, c *call, value jcs.Value) (map[string]any, error) {
	a := readArguments(value, "", "token_id", "agent", "chain")
	what := Revocation{
		TokenID: a.text("token_id", 43, digestPattern),
		Agent:   a.text("agent", 128, textPattern),
		Chain:   a.text("chain", delegation.MaxChainBody, printablePattern),
	}
	if value.Len() != 1 {
		a.fail("pass exactly one of token_id, agent, chain")
	}
	if a.err != nil {
		return nil, s.refused(ctx, c, audit.Revoke, "kavach/revoke", a.err)
	}
	done, err := s.cfg.Revoker.Revoke(ctx, c.chain, what)
	content := map[string]any{"revoked": list(done.Revoked), "recorded": done.Recorded}
	switch {
	case err == nil:
		content["below"] = done.Below
	case len(done.Revoked) > 0:
		// It is revoked; only what lay below could not be counted.
		s.cfg.Log.Error("counting what was revoked", "err", err)
	default:
		return nil, err
	}
	return content, nil
}
