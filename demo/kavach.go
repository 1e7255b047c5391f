package demo

import "context"

// Kavach is the server that the story runs against. Whoever runs the story
// brings one: with data of its own, on loopback, not started yet.
type Kavach interface {
	// Start begins serving and returns when it does. After Stop it serves at
	// the same address with the same data.
	Start(ctx context.Context) error
	// Stop ends serving. A stopped Kavach may be stopped again.
	Stop() error
	// Issuer is its address, after the first Start.
	Issuer() string
	// Prepare does what its operator does beforehand: registers the git host
	// with its scopes, and the agents with what they may get.
	Prepare(ctx context.Context, cast []Candidate) error
	// Records returns the log, oldest first.
	Records(ctx context.Context) ([]Record, error)
	// VerifyLog recomputes the log, as `kavach audit verify` does.
	VerifyLog(ctx context.Context) (Verdict, error)
}

// Candidate is an agent that asks to be registered.
type Candidate struct {
	Agent
	// ID is its id.
	ID string
	// Signed is its signed manifest, Assertion the proof that it holds the key
	// in it.
	Signed    string
	Assertion string
}

// Record is a record of the log, as far as the story shows it.
type Record struct {
	Seq      int64    `json:"seq"`
	By       string   `json:"by"`
	Evidence string   `json:"evidence"`
	Path     []string `json:"path,omitempty"`
	Agent    string   `json:"agent,omitempty"`
	Action   string   `json:"action"`
	Method   string   `json:"method,omitempty"` // of a request that was reported
	Resource string   `json:"resource,omitempty"`
	Result   string   `json:"result"`
	Reason   string   `json:"reason,omitempty"`
}

// Verdict is what VerifyLog found.
type Verdict struct {
	OK      bool   `json:"ok"`
	Log     string `json:"log"`
	Records int64  `json:"records"`
	Head    string `json:"head"`
	// Summary says in a line what is wrong.
	Summary string `json:"summary,omitempty"`
}
