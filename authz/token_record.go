package authz

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
)

// reasoned is a refusal whose record says more than its answer.
type reasoned struct {
	answer *Error
	reason string
}

// Error returns that of the answer.
func (e reasoned) Error() string { return e.answer.Error() }

// Unwrap returns the answer.
func (e reasoned) Unwrap() error { return e.answer }

// recorded is an error whose record is in the log already, or cannot be.
type recorded struct{ error }

// Unwrap returns the error itself.
func (e recorded) Unwrap() error { return e.error }

// issueEntry is the record of a token that leaves.
func (s *Server) issueEntry(f *flow) audit.Entry {
	e := s.tokenEntry(f)
	if e.Result = audit.Allowed; f.entry != nil {
		return e
	}
	e.Action = audit.TokenIssue
	if f.grantType == GrantRefresh {
		e.Action = audit.TokenRefresh
	}
	e.Detail["scopes"], e.Detail["audience"] = f.plan.scopes, f.plan.resources
	e.Detail["ttl"] = int64(f.plan.expires.Sub(f.now.Truncate(time.Second)) / time.Second)
	if f.proof != nil {
		e.Detail["bound"], e.Detail["jkt"] = true, f.jkt()
	}
	if f.plan.root {
		e.Detail["root"], e.Detail["max_depth"] = true, f.plan.depth
		if f.plan.aat {
			e.Detail["aat"] = true
		}
	}
	e.Issued = []audit.Issued{{LID: f.lid, Expires: f.plan.expires.Unix()}}
	return e
}

// refusalEntry is the record of a token that was refused.
func (s *Server) refusalEntry(f *flow, answer *Error, reason string) audit.Entry {
	e := s.tokenEntry(f)
	if e.Result, e.Reason = audit.Denied, reason; f.entry == nil {
		e.Action = audit.TokenRefuse
	} else {
		e.Issued = nil
	}
	if reason != answer.Code {
		e.Detail["error"] = answer.Code
	}
	return e
}

// tokenEntry begins both. A grant with a record of its own has put it into
// f.entry: what it holds is said whether or not a token leaves, but for Issued.
func (s *Server) tokenEntry(f *flow) audit.Entry {
	if f.entry != nil {
		e := *f.entry
		if e.Detail = maps.Clone(e.Detail); e.Detail == nil {
			e.Detail = map[string]any{}
		}
		return e
	}
	e := audit.Entry{
		Agent: f.client.ID, Sub: f.plan.sub, Grant: f.plan.gid, Detail: map[string]any{},
		Path: path(f.plan.sub, f.client.ID),
	}
	if f.grantType != "" {
		e.Detail["grant_type"] = f.grantType
	}
	if f.handle != "" {
		e.Detail["handle"] = f.handle
	}
	return e
}

// path lists who acts, from the principal to the client, as the token's own
// Parties do.
func path(sub, clientID string) []string {
	var out []string
	for _, party := range []string{sub, clientID} {
		if party != "" && (len(out) == 0 || out[len(out)-1] != party) {
			out = append(out, party)
		}
	}
	return out
}

// refuseToken records a refusal and answers it. One that ends something (reuse
// ends a family) does not wait for the log, and this process holds to it if
// nothing can be written (design D3).
func (s *Server) refuseToken(w http.ResponseWriter, r *http.Request, f *flow, err error) {
	answer := oauthError(err)
	if answer.Status >= http.StatusInternalServerError {
		s.unavailable(r.Context(), "token request", err)
		WriteError(w, answer)
		return
	}
	var done recorded
	if errors.As(err, &done) {
		WriteError(w, answer)
		return
	}
	reason := answer.Code
	var why reasoned
	if errors.As(err, &why) {
		reason = why.reason
	}
	entry := s.refusalEntry(f, answer, reason)
	if len(f.revocations) == 0 && !wholeAlways(reason) && (f.client.ID == "" || f.client.Public()) {
		s.cfg.Refusals.Refuse(s.source(r), "/oauth/token", entry)
		WriteError(w, answer)
		return
	}
	if len(f.revocations) > 0 {
		// What narrows asks for nothing, also not for an assertion that is new.
		_, err = s.cfg.Registry.narrowAnyway(r.Context(), f.assertion, f.revocations, f.effects, entry)
	} else {
		err = spend(r.Context(), s.cfg.Commit, f.assertion, entry)
	}
	var again *Error
	if errors.As(err, &again) {
		answer, err = again, nil
	}
	if err != nil {
		err = fmt.Errorf("recording a refusal: %w", err)
		s.unavailable(r.Context(), "token request", err)
		WriteError(w, err)
		return
	}
	WriteError(w, answer)
}

// wholeAlways: "every refusal with reason `replayed`, `revoked`, `key_reuse`,
// `refresh_reuse`: whole, always" (audit.md §1), whoever it is given to. The
// reuse of a refresh token ends something, which is recorded anyway.
func wholeAlways(reason string) bool {
	return reason == reasonReplayed || reason == string(delegation.Revoked) || reason == string(delegation.KeyReuse)
}

// unavailable tells the operator what the caller is not told.
func (s *Server) unavailable(ctx context.Context, what string, err error) {
	if ctx.Err() != nil {
		return // the caller went away: nobody reads the answer and nothing is broken
	}
	s.cfg.Log.ErrorContext(ctx, what+" could not be served", "error", err)
}

// source says where a request comes from, as refusals are counted by.
func (s *Server) source(r *http.Request) string {
	return addressKey(ClientAddress(r, s.cfg.Registry.cfg.TrustedProxies))
}
