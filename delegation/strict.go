package delegation

import (
	"fmt"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/jcs"
)

// Sizes and times of the AATStrict profile, which are those that the draft
// recommends (aat02.md, Issuing).
const (
	// StrictMaxToken is the size of one token or proof in bytes.
	StrictMaxToken = 65536
	// StrictMaxChain is the size of all tokens of a chain in bytes.
	StrictMaxChain = 262144
	// StrictMaxLifetime is the longest life of a root.
	StrictMaxLifetime = 90 * 24 * time.Hour
	// StrictMaxTools and StrictMaxConstraints bound the tools of a token and
	// the arguments that one of them names.
	StrictMaxTools       = 256
	StrictMaxConstraints = 64
	// strictMaxNesting is JSON nesting. Far above what 32 constraints need, so
	// that a constraint that is too deep is refused as one.
	strictMaxNesting = 4096
)

// AATAnchor is a root issuer that an AATStrict verifier trusts.
type AATAnchor struct {
	// Issuer is the iss of its roots, a URI, byte for byte.
	Issuer string
	// Key is its key.
	Key agent.PublicKey
	// KID is the kid that roots under this key name. Empty: the key is tried
	// for every root. A kid only selects among anchors; a root whose kid no
	// anchor has, or that has none, is tried under all of them.
	KID string
}

// AATStrict verifies chains and proofs of the pure draft that Revision names,
// rule by rule and in its order of steps (aat02.md): for chains whose root is
// not ours, or whose root is to be used with verifiers of others. It knows no
// scope, no principal, no limit and no revocation, so it is no substitute for
// Verifier. Its methods are safe for several goroutines if its functions are.
//
// Where several resource servers accept one chain, each must set
// RequireAudience, RequireProofAudience or Nonce, or share what Seen remembers.
//
// Where the draft leaves a choice: a header is strict JSON. A proof is as large
// as a token at most. A cnf.jwk whose use, key_ops or alg says that it is for
// something else is refused. A token of more tools, or a tool of more arguments,
// than the limits is refused with the constraints (3n, 4o).
type AATStrict struct {
	// Anchors are the trusted root issuers. Without one nothing verifies.
	Anchors []AATAnchor
	// Audience is how tokens (aud) and proofs (aat_aud) name this enforcement
	// point. Empty: nothing names it.
	Audience string
	// RequireAudience refuses a chain in which no token has an aud (6c).
	RequireAudience bool
	// RequireProofAudience refuses a proof without aat_aud (7d).
	RequireProofAudience bool
	// Nonce, if set, makes every proof carry a nonce that it accepts (7h).
	Nonce func(nonce string) bool
	// Seen, if set, remembers a used proof until a time, as one atomic act, and
	// says whether it was seen before (7i). It is asked last, only for a call
	// that is permitted otherwise.
	Seen func(key string, until time.Time) (seen bool, err error)

	// The following are limits; 0 means the one that the draft recommends:
	// StrictMaxToken, StrictMaxChain, MaxDepth, IatSkew, StrictMaxLifetime,
	// agent.ProofWindow.
	MaxToken    int
	MaxChain    int
	MaxDepth    int
	IatSkew     time.Duration
	MaxLifetime time.Duration
	ProofWindow time.Duration
}

// AATPresentation is what a holder sends for one call, and the call.
type AATPresentation struct {
	// Chain are the tokens, root first (aat_chain).
	Chain []string
	// Proof is the proof for this call (aat_pop).
	Proof string
	// Tool is the tool that is called.
	Tool string
	// Arguments are those of the call, an object parsed from their text: the
	// spelling of a number matters. The zero Value is an empty object.
	Arguments jcs.Value
}

// AATLink describes one token of a permitted chain.
type AATLink struct {
	LID     string
	JTI     string
	Issuer  string
	JKT     string
	Depth   int
	Expires time.Time
}

// AATPermit is a permitted call. It comes out of AATStrict.Verify alone.
type AATPermit struct {
	// Links are the tokens, root first.
	Links []AATLink
	// Proof is the proof. Where the verifier has no Seen, its ReplayKey is the
	// caller's to remember.
	Proof agent.VerifiedAATProof
	// Until is how long the proof must be remembered.
	Until time.Time
}

// Leaf describes the last token.
func (p *AATPermit) Leaf() AATLink {
	if p == nil || len(p.Links) == 0 {
		return AATLink{}
	}
	return p.Links[len(p.Links)-1]
}

// StrictRefusal is the error of AATStrict.Verify for whatever it does not
// permit. It never holds the token or a key.
type StrictRefusal struct {
	// Step is the label of the step of the draft's section 8 that refused:
	// "2c", "4p1" and so on. Constraints that are not well-formed are "3n/4o"
	// in a root and in a link alike.
	Step string
	// Part is the index of the token that was refused, −1 when the refusal is
	// not about one token.
	Part int
	// Detail is one short sentence for people and logs.
	Detail string
}

// Error writes "refused: step: detail".
func (r *StrictRefusal) Error() string {
	text := "refused: step " + r.Step
	if r.Part >= 0 {
		text += fmt.Sprintf(" (token %d)", r.Part)
	}
	if r.Detail != "" {
		text += ": " + r.Detail
	}
	return text
}

// Is makes every refusal an ErrRefused.
func (r *StrictRefusal) Is(target error) bool { return target == ErrRefused }

// strictly makes a refusal that is not about one token.
func strictly(step, detail string) *StrictRefusal {
	return &StrictRefusal{Step: step, Part: -1, Detail: detail}
}

func (r *StrictRefusal) at(part int) *StrictRefusal {
	r.Part = part
	return r
}

// Verify runs the algorithm. 7a and 7b come before 6, as the draft advises: who
// does not hold the leaf's key cannot make us evaluate constraints. An error
// that is no *StrictRefusal is one of Seen.
func (v *AATStrict) Verify(p AATPresentation, now time.Time) (*AATPermit, error) {
	run := v.run(now)
	if refusal := run.chain(p.Chain); refusal != nil {
		return nil, refusal
	}
	claims, refusal := run.openProof(p.Proof) // 7a, 7b
	if refusal != nil {
		return nil, refusal
	}
	if !p.Arguments.Exists() {
		p.Arguments = noArguments
	}
	if refusal := run.call(p.Tool, p.Arguments); refusal != nil { // 6a to 6c
		return nil, refusal
	}
	proof, refusal := run.proof(claims, p.Tool, p.Arguments) // 7c to 7h
	if refusal != nil {
		return nil, refusal
	}
	permit := &AATPermit{Proof: proof, Until: proof.IssuedAt.Add(time.Duration(run.window+1) * time.Second)}
	for i := range run.parts {
		permit.Links = append(permit.Links, run.parts[i].describe())
	}
	if v.Seen != nil { // 7i
		seen, err := v.Seen(proof.ReplayKey(), permit.Until)
		if err != nil {
			return nil, fmt.Errorf("remembering a proof: %w", err)
		}
		if seen {
			return nil, strictly("7i", "the proof was used before")
		}
	}
	return permit, nil
}

var noArguments, _ = jcs.Of(map[string]any{})

// strictRun is one verification.
type strictRun struct {
	*AATStrict
	maxToken, maxChain          int
	maxDepth                    int64
	now, skew, lifetime, window int64
	parts                       []strictPart
}

func (v *AATStrict) run(now time.Time) *strictRun {
	seconds := func(d, otherwise time.Duration) int64 {
		if d == 0 {
			d = otherwise
		}
		return int64(d / time.Second)
	}
	size := func(n, otherwise int) int {
		if n == 0 {
			return otherwise
		}
		return n
	}
	return &strictRun{
		AATStrict: v,
		maxToken:  size(v.MaxToken, StrictMaxToken),
		maxChain:  size(v.MaxChain, StrictMaxChain),
		maxDepth:  int64(size(v.MaxDepth, MaxDepth)),
		now:       now.Unix(),
		skew:      seconds(v.IatSkew, IatSkew),
		lifetime:  seconds(v.MaxLifetime, StrictMaxLifetime),
		window:    seconds(v.ProofWindow, agent.ProofWindow),
	}
}
