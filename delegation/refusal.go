package delegation

import (
	"errors"
	"slices"
)

// ErrRefused is the root of every refusal: errors.Is(err, ErrRefused). The
// reason is in the *Refusal: errors.As.
var ErrRefused = errors.New("refused")

// Reason is the name of a refusal: the vocabulary of reports and of the audit
// log (delegation.md §6).
type Reason string

// The reasons, in the order of delegation.md §6.
const (
	Malformed           Reason = "malformed"
	TooLarge            Reason = "too_large"
	BadType             Reason = "bad_typ"
	AlgNotAllowed       Reason = "alg_not_allowed"
	UnknownRoot         Reason = "unknown_root"
	SignatureInvalid    Reason = "signature_invalid"
	UnknownConstraint   Reason = "unknown_constraint"
	IssuerMismatch      Reason = "issuer_mismatch"
	IssMismatch         Reason = "iss_mismatch"
	DuplicateJTI        Reason = "duplicate_jti"
	ParHashMismatch     Reason = "par_hash_mismatch"
	DepthInvalid        Reason = "depth_invalid"
	PrincipalAltered    Reason = "principal_altered"
	AudienceWidened     Reason = "audience_widened"
	NotYetValid         Reason = "not_yet_valid"
	OutlivesParent      Reason = "outlives_parent"
	Expired             Reason = "expired"
	NotNarrower         Reason = "not_narrower"
	KeyReuse            Reason = "key_reuse"
	AudienceMismatch    Reason = "audience_mismatch"
	HolderBindingFailed Reason = "holder_binding_failed"
	Revoked             Reason = "revoked"
	StatusUnknown       Reason = "status_unknown"
	ScopeNotGranted     Reason = "scope_not_granted"
	ConstraintViolated  Reason = "constraint_violated"
	NeedsCounter        Reason = "needs_counter"
	Replayed            Reason = "replayed"

	// PartyRepeated is of Exchange alone: the party named already stands in
	// sub, act or the confirmed path (delegation.md §7).
	PartyRepeated Reason = "party_repeated"
)

var reasons = []Reason{
	Malformed, TooLarge, BadType, AlgNotAllowed, UnknownRoot, SignatureInvalid, UnknownConstraint, IssuerMismatch,
	IssMismatch, DuplicateJTI, ParHashMismatch, DepthInvalid, PrincipalAltered, AudienceWidened, NotYetValid,
	OutlivesParent, Expired, NotNarrower, KeyReuse, AudienceMismatch, HolderBindingFailed, Revoked, StatusUnknown,
	ScopeNotGranted, ConstraintViolated, NeedsCounter, Replayed, PartyRepeated,
}

// Known reports whether the reason is one of the vocabulary, for who is told it.
func (r Reason) Known() bool { return slices.Contains(reasons, r) }

// The dimensions a refusal can be about. The last six are those of a Request.
const (
	DimensionDepth     = "depth"
	DimensionAudience  = "audience"
	DimensionTTL       = "ttl"
	DimensionKey       = "key"
	DimensionAgent     = "agent"
	DimensionScope     = "scope"
	DimensionTools     = "tools"
	DimensionResources = "resources"
	DimensionNetwork   = "allow_network"
	DimensionSize      = "max_file_size"
	DimensionCalls     = "max_calls"
	DimensionAudit     = "audit_required"
)

var dimensions = []string{
	DimensionDepth, DimensionAudience, DimensionTTL, DimensionKey, DimensionAgent, DimensionScope,
	DimensionTools, DimensionResources, DimensionNetwork, DimensionSize, DimensionCalls, DimensionAudit,
}

// KnownDimension reports whether a name is one of the Dimension constants, for
// who is told it.
func KnownDimension(name string) bool { return slices.Contains(dimensions, name) }

// Refusal is the error of every function of this package that decides. It
// never holds the token or a key.
type Refusal struct {
	// Reason is the name of the step that refused.
	Reason Reason
	// Dimension says what the step was about, where it has parts: one of the
	// Dimension constants, or "".
	Dimension string
	// Part is the index of the token that was refused, 0 for the root, −1
	// when the refusal is not about one token.
	Part int
	// Detail is one short sentence or value for people and logs; for a
	// dimension nobody spoke about it is "unhandled:<dimension>".
	Detail string
}

// Error writes "refused: reason (dimension): detail".
func (r *Refusal) Error() string {
	text := "refused: " + string(r.Reason)
	if r.Dimension != "" {
		text += " (" + r.Dimension + ")"
	}
	if r.Detail != "" {
		text += ": " + r.Detail
	}
	return text
}

// Is makes every refusal an ErrRefused.
func (r *Refusal) Is(target error) bool { return target == ErrRefused }

// ReasonOf returns the reason of a refusal, and "" for any other error.
func ReasonOf(err error) Reason {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return refusal.Reason
	}
	return ""
}

// refuse makes a refusal that is not about one token.
func refuse(reason Reason, dimension, detail string) *Refusal {
	return &Refusal{Reason: reason, Dimension: dimension, Part: -1, Detail: detail}
}

// at says which token of the chain a refusal is about.
func (r *Refusal) at(part int) *Refusal {
	r.Part = part
	return r
}
