package audit

import "maps"

// Results of an entry.
const (
	Allowed = "allowed"
	Denied  = "denied"
	Failed  = "failed"
)

// Kinds of evidence.
const (
	// EvidenceServer: we decided it.
	EvidenceServer = "server"
	// EvidenceProof: the reporter sent chain and proof, we verified both.
	EvidenceProof = "proof"
	// EvidenceAsserted: only the reporter says so.
	EvidenceAsserted = "asserted"
)

// ByServer is the By of everything the server writes itself.
const ByServer = "server"

// Operator is the Agent of an entry written on the command line; its detail
// says "via": "cli".
const Operator = "operator"

// Entry is what happened; a record is the entry at its place in the log.
// Empty members are left out of the record.
type Entry struct {
	// ID is a UUIDv7 chosen by the writer; with By it is the idempotency key.
	// Empty: the log makes one.
	ID string
	// Observed is the reporter's clock in Unix milliseconds, 0 if none.
	Observed int64
	// By is who wrote the entry; empty means ByServer.
	By string
	// Evidence is one of the Evidence constants; empty means EvidenceServer.
	Evidence string
	// Path holds the parties from root to actor.
	Path []string
	// Agent is who acted: an agent or client id, "user:<sub>", or Operator.
	Agent string
	// Sub is the principal on whose authority: a random id of ours.
	Sub string
	// Action is one of the constants in actions.go, or "rs.…" of a reporter.
	Action string
	// Resource is what it was done to.
	Resource string
	// Result is Allowed, Denied or Failed.
	Result string
	// Reason is the machine-readable outcome: a name of the verifier's
	// vocabulary or an OAuth error code.
	Reason string
	// Chain describes the token from root to leaf, where one was involved.
	Chain []Party
	// Grant is the gid.
	Grant string
	// Detail is a small object of JSON values; strings are capped, control
	// characters escaped. Never a token, code, secret or request body. Its
	// members "issued" and "anc" are written by Issued and Anc.
	Detail map[string]any
	// Issued names the tokens this decision issued, or the handle by its hash;
	// found by lid afterwards.
	Issued []Issued
	// Anc holds the ids of what the chain was exchanged from; `lid=` finds it.
	Anc []string
}

// Party is one link of a chain as a record shows it.
type Party struct {
	LID      string
	JTI      string
	ClientID string
	// Confirmed says that ClientID is more than what the delegator asserts: we
	// authenticated it, or a key card binds it to JKT (delegation.md §10).
	Confirmed bool
	JKT       string
}

// Issued is a token that left with the decision.
type Issued struct {
	LID string
	// Expires is in Unix seconds, as in the token.
	Expires int64
}

// DetailShortened marks an entry that Slim cut.
const DetailShortened = "shortened"

// Slim returns the entry without what the delegators of a chain could make long:
// a chain may hold more of their words than a record has room for, and must not
// escape it for that. What identifies the links stays.
func (e Entry) Slim() Entry {
	chain := make([]Party, len(e.Chain))
	for i, p := range e.Chain {
		chain[i] = Party{LID: p.LID, JKT: p.JKT}
	}
	e.Chain, e.Path, e.Anc = chain, nil, nil
	detail := map[string]any{DetailShortened: true}
	maps.Copy(detail, e.Detail)
	e.Detail = detail
	return e
}
