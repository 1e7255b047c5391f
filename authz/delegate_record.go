package authz

import (
	"errors"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
)

// entry is the record of a handover before it is decided.
func (h *handover) entry() audit.Entry {
	e := chainEntry(h.parent, audit.Delegate, audit.Denied)
	e.Detail["via"] = h.via
	if h.client.ID != "" && !h.client.Public() {
		e.Agent = h.client.ID
	}
	// What the caller typed does not stand in the log; an agent's id does.
	if agent.IsID(h.ask.Receiver) {
		e.Detail["receiver"] = h.ask.Receiver
	}
	if h.handle != "" {
		e.Detail["handle"] = h.handle
	}
	return e
}

// decided is the record of what a handover came to.
func (h *handover) decided(draft delegation.Draft, issued delegation.Issued) audit.Entry {
	e := h.entry()
	e.Result = audit.Allowed
	e.Path, e.Anc = issued.Path, draft.Claims.Ancestry
	e.Detail["scopes"], e.Detail["audience"] = issued.Scopes, issued.Audience
	e.Detail["ttl"] = int64(issued.ExpiresIn.Seconds())
	if !issued.Limits.IsZero() {
		e.Detail["limits"] = issued.Limits.Map()
	}
	return e
}

// issued is the record of a token that a handover came to.
func (h *handover) issued(draft delegation.Draft, issued delegation.Issued) audit.Entry {
	e := h.decided(draft, issued)
	e.Issued = []audit.Issued{{LID: issued.LID, Expires: issued.Expires.Unix()}}
	e.Detail["root"], e.Detail["bound"] = issued.Root, issued.JKT != ""
	if draft.Claims.AAT {
		e.Detail["aat"] = true
	}
	if issued.JKT != "" {
		// "An unproven req_cnf key is recorded as unproven."
		e.Detail["key_proved"] = issued.JKT == h.proved || h.keyProved || h.card != "" || h.ask.ReceiverProved
	}
	return e
}

// refusalOf writes why something was refused into its record. It is false for
// what is no decision but a failure.
func refusalOf(e *audit.Entry, err error) bool {
	var refused *delegation.Refusal
	var why reasoned
	var answer *Error
	switch {
	case errors.As(err, &refused):
		e.Reason = string(refused.Reason)
		if refused.Dimension != "" {
			e.Detail["dimension"] = refused.Dimension
		}
	case errors.As(err, &why):
		e.Reason = why.reason
		e.Detail["error"] = why.answer.Code
	case errors.As(err, &answer):
		e.Reason = answer.Code
	default:
		return false
	}
	return true
}
