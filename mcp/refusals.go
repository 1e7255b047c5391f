package mcp

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
)

const (
	unavailableReason = "temporarily_unavailable"
	unavailableText   = "refused: temporarily_unavailable: the audit log or the database cannot be written, so nothing was done; try again in a few seconds"
	internalText      = "failed: server_error: the server could not finish this; nothing was handed out"
)

// explain is the one place where an error becomes the text of an isError
// result. Errors that are not decisions are logged and never shown.
func (s *Server) explain(t tool, err error) string {
	r := asRefusal(err)
	switch {
	case r == nil:
		s.cfg.Log.Error("tool failed", "tool", t.name, "err", err)
		return internalText
	case r.unavailable:
		return unavailableText
	}
	return r.Error()
}

// asRefusal reads a decision out of an error, nil if it is none.
func asRefusal(err error) *refusal {
	var own *refusal
	var refused *delegation.Refusal
	var oauth interface {
		error
		OAuthError() (code, description string)
	}
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &refused):
		return &refusal{reason: string(refused.Reason), text: advice(refused)}
	case errors.Is(err, audit.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return &refusal{reason: unavailableReason, unavailable: true}
	case errors.As(err, &oauth):
		code, description := oauth.OAuthError()
		if code == unavailableReason {
			return &refusal{reason: code, unavailable: true}
		}
		if code == "server_error" {
			return nil
		}
		return &refusal{reason: code, text: description}
	}
	return nil
}

// advice says what a caller can do about a refusal of the evaluator.
func advice(r *delegation.Refusal) string {
	about := r.Detail
	if r.Dimension != "" && !strings.Contains(about, r.Dimension) {
		about = strings.TrimSpace(r.Dimension + " " + about)
	}
	hint := ""
	switch r.Reason {
	case delegation.ScopeNotGranted:
		hint = "ask only for scopes your own token holds; kavach://identity lists them"
	case delegation.NotNarrower:
		hint = "ask for the same or less than your own token allows; kavach://identity shows its limits"
	case delegation.AudienceWidened, delegation.AudienceMismatch:
		hint = "name one resource server that your own token names"
	case delegation.DepthInvalid:
		hint = "your token may not be delegated any further; do the work yourself or ask whoever gave it to you"
	case delegation.PartyRepeated:
		hint = "this agent already acts in your chain; delegate to another one or use your own token"
	case delegation.KeyReuse:
		hint = "this public key is already in the chain; let the receiver make a new one"
	case delegation.OutlivesParent, delegation.Expired:
		hint = "your own token ends too soon; get a new one first"
	case delegation.HolderBindingFailed:
		hint = "your token is bound to a key, so the new one must be too; pass the receiver's public_key"
	case delegation.NeedsCounter:
		hint = "a token with max_calls cannot be delegated here"
	case delegation.TooLarge:
		hint = "ask for fewer scopes, tools or limits"
	case delegation.Malformed:
		hint = "correct this argument"
	}
	switch {
	case about == "":
		return hint
	case hint == "":
		return about
	}
	return fmt.Sprintf("%s; %s", about, hint)
}
