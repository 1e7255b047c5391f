package guard

import (
	"net/http"
	"time"

	"github.com/kavach-dev/kavach/delegation"
)

// Phases of a Decision about a token that demands a record (audit.md §4).
const (
	// Before says that the action has not begun and must not unless Report
	// returns nil.
	Before = "before"
	// After tells the outcome.
	After = "after"
)

// Decision is what was decided about one request.
type Decision struct {
	// Request is the request; its body belongs to the handler.
	Request *http.Request
	// URL is what a proof for the request has to name, and Time when the
	// request was judged.
	URL  string
	Time time.Time
	// Chain is what the token verified to, nil if it did not or if it is not
	// for this resource.
	Chain *delegation.Chain
	// Credential is the token or chain behind Chain, "" without one.
	Credential Secret
	// Permit is what Config.Strict permitted; there is no Chain then.
	Permit *delegation.AATPermit
	// Proof is the proof of possession, "" unless it held: DPoP, or AAT if
	// ProofOfCall is set. Whoever has both can check that the holder of the key
	// sent this request, or meant this call.
	Proof       Secret
	ProofOfCall bool
	// Allowed says whether the request passes.
	Allowed bool
	// Phase is Before or After for a token with audit_required, "" otherwise.
	Phase string
	// Status is the HTTP status of the answer; 0 while it is not known.
	Status int
	// Unchecked names what was not looked at: "revocation" where there is no
	// source of revocations, or where it was stale and the request passed all
	// the same.
	Unchecked []string
	// Reason, Dimension and Detail say why not.
	Reason    delegation.Reason
	Dimension string
	Detail    string
	// Need is what the request needed, as far as it came to that. Behind
	// Authenticate it is set only in what Refuse reports.
	Need delegation.Request
}

// recordable refuses a token that demands a record where nobody keeps any. It
// comes before anything is used up.
func (v *visit) recordable() error {
	if v.audited = v.authority().Restricts(delegation.DimensionAudit); v.audited && v.guard.Report == nil {
		return &delegation.Refusal{
			Reason: delegation.ConstraintViolated, Dimension: delegation.DimensionAudit, Part: -1,
			Detail: "no audit log is configured",
		}
	}
	return nil
}

func (v *visit) reportAllowed(r *http.Request) error {
	if v.guard.Report == nil {
		return nil
	}
	d := v.decision(r, v.need)
	d.Allowed = true
	if v.audited {
		d.Phase = Before
	}
	if err := v.guard.Report(r.Context(), d); err != nil {
		return &unrecorded{err}
	}
	return nil
}

// decision begins what is reported of the visit.
func (v *visit) decision(r *http.Request, need delegation.Request) Decision {
	return Decision{Request: r, URL: v.guard.URL(r), Time: v.now, Chain: v.chain, Permit: v.permit, Credential: v.credential,
		Proof: v.proofText, ProofOfCall: v.call != nil, Unchecked: v.unchecked, Need: need}
}

// report tells a refusal. It does not depend on the log: what was refused stays
// refused.
func (v *visit) report(r *http.Request, need delegation.Request, a answer) {
	if v.guard.Report == nil {
		return
	}
	d := v.decision(r, need)
	d.Status, d.Reason, d.Dimension, d.Detail = a.status, a.refusal.Reason, a.refusal.Dimension, a.refusal.Detail
	if err := v.guard.Report(r.Context(), d); err != nil {
		v.guard.Log.ErrorContext(r.Context(), "a refusal was not recorded", "reason", a.refusal.Reason, "error", err)
	}
}

// unrecorded: Report failed for a request that was allowed.
type unrecorded struct{ err error }

func (e *unrecorded) Error() string { return "recording the decision: " + e.err.Error() }
func (e *unrecorded) Unwrap() error { return e.err }
