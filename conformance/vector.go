package conformance

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/kavach-dev/kavach/delegation"
)

// Vector is one vector of the KDT1 profile, with the file's defaults filled in.
type Vector struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	// Covers names lines of delegation.md §6 ("§6.11") and attacks of §12.
	Covers []string `json:"covers"`

	// Now is the time of the check, in seconds.
	Now int64 `json:"now"`
	// Issuer is whose tokens are accepted, Audience the resource server.
	Issuer   string `json:"issuer"`
	Audience string `json:"audience"`
	// Anchors are the issuer's key set, keys of other purposes included.
	Anchors []Anchor `json:"anchors"`
	// Method and URL are those of the HTTP request.
	Method string `json:"method"`
	URL    string `json:"url"`
	Policy Policy `json:"policy"`

	// Credentials and Proofs are what the request carries. Proofs nil: they
	// were not shown, which is not the same as none.
	Credentials []Credential `json:"credentials"`
	Proofs      []Proof      `json:"proofs"`
	// Request is what the request does; nil: nobody asks.
	Request *Request `json:"request"`
	// Revoked is what the source of revocations says; nil: there is none.
	Revoked *Revoked `json:"revoked"`
	State   State    `json:"state"`

	// Exchange and Derive make the vector one of that operation, whose subject
	// or parent the credential is.
	Exchange *ExchangeAsk `json:"exchange"`
	Derive   *DeriveAsk   `json:"derive"`

	Expected Outcome `json:"expected"`
}

// Anchor is a key of the issuer's key set.
type Anchor struct {
	KID string          `json:"kid"`
	Alg string          `json:"alg"`
	JWK json.RawMessage `json:"jwk"`
}

// Policy is how the resource server is configured.
type Policy struct {
	// SharedAudience: one of kavach's own endpoints, which take a token that
	// names several.
	SharedAudience bool `json:"shared_audience"`
	// DPoPForWrites: a DPoP proof is enough for a side effect with a chain.
	DPoPForWrites bool `json:"dpop_for_writes"`
	// ReadOnly: the request changes nothing whatever its method.
	ReadOnly bool `json:"read_only"`
	// Nonce is the one that a proof must hold; "" asks for none.
	Nonce string `json:"nonce"`
}

// Credential is one credential of the request.
type Credential struct {
	// Carrier is "authorization" (with Scheme and Token) or "meta" (with Chain,
	// the aat_chain of the `_meta` of an MCP message).
	Carrier string   `json:"carrier"`
	Scheme  string   `json:"scheme"`
	Token   string   `json:"token"`
	Chain   []string `json:"chain"`
}

// Proof is one proof of possession. Type is "dpop" or "aat".
type Proof struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

// Request states the dimensions of a request. A dimension that is absent is
// unset, null is none.
type Request struct {
	// Scopes lists what is needed, each with its alternatives. Nil is unset,
	// an empty list needs nothing.
	Scopes   [][]string         `json:"scopes"`
	Tool     Dimension[Call]    `json:"tool"`
	Resource Dimension[string]  `json:"resource"`
	Network  Dimension[string]  `json:"network"`
	Size     Dimension[float64] `json:"size"`
}

// Call is a call of a tool. Text is the raw JSON of its arguments.
type Call struct {
	Name string `json:"name"`
	Text string `json:"args_text"`
}

// Dimension tells a member that is absent from one that is null.
type Dimension[T any] struct {
	Set   bool // null or a value
	Value *T   // nil: null
}

// UnmarshalJSON is called for a member that is present.
func (d *Dimension[T]) UnmarshalJSON(text []byte) error {
	d.Set = true
	return decode(text, &d.Value)
}

// Revoked has the members of the revocation feed (delegation.md §9). Stale is a
// source that cannot say.
type Revoked struct {
	Stale  bool             `json:"stale"`
	Links  []string         `json:"tok"`
	Grants []string         `json:"gid"`
	Keys   []string         `json:"key"`
	Agents []string         `json:"agent"`
	Before map[string]int64 `json:"before"`
}

// State is what earlier requests left.
type State struct {
	// Seen are replay keys that were used.
	Seen []string `json:"seen"`
	// Counters says how many calls of a lid were debited. Nil: nobody counts.
	Counters map[string]int64 `json:"counters"`
}

// Outcome is a verdict and what belongs to it.
type Outcome struct {
	// Verdict is "permit", "refuse", or "chain_valid" where something was not
	// shown; "derived" and "exchanged" for those operations.
	Verdict string `json:"verdict"`

	// Of a refusal: the step is for readers. Link is the index of the token,
	// nil where it is about none; an expectation of nil is not compared.
	// Neither are Dimension and Detail where the expectation is empty.
	Step      int               `json:"step"`
	Reason    delegation.Reason `json:"reason"`
	Link      *int              `json:"link"`
	Dimension string            `json:"dimension"`
	Detail    string            `json:"detail"`

	// Of the others. Unchecked is sorted.
	Unchecked []string `json:"unchecked"`
	Principal string   `json:"principal"`
	Expires   int64    `json:"exp"`
	Path      []Step   `json:"path"`
	// Debits are the indices of the tokens whose budget is debited.
	Debits      []int    `json:"debits"`
	Obligations []string `json:"obligations"`

	// Claims are those of the result of an operation as far as the vector
	// names them; null stands for a claim that must be absent.
	Claims map[string]json.RawMessage `json:"claims"`
}

// Step is one token of a permitted chain.
type Step struct {
	LID       string `json:"lid"`
	JTI       string `json:"jti"`
	ClientID  string `json:"client_id"`
	Confirmed bool   `json:"confirmed"`
	JKT       string `json:"jkt"`
	Expires   int64  `json:"exp"`
}

// The verdicts.
const (
	Permit     = "permit"
	Refuse     = "refuse"
	ChainValid = "chain_valid"
	Derived    = "derived"
	Exchanged  = "exchanged"
)

func parseKDT1(data []byte) ([]Vector, error) {
	var file struct {
		Profile  string                     `json:"profile"`
		Spec     string                     `json:"spec"`
		About    string                     `json:"about"`
		Defaults json.RawMessage            `json:"defaults"`
		Keys     map[string]json.RawMessage `json:"keys"`
		Vectors  []json.RawMessage          `json:"vectors"`
	}
	if err := decode(data, &file); err != nil {
		return nil, err
	}
	var defaults Vector
	if err := decode(file.Defaults, &defaults); err != nil {
		return nil, fmt.Errorf("defaults: %w", err)
	}
	vectors := make([]Vector, len(file.Vectors))
	seen := make(map[string]bool, len(vectors))
	for i, text := range file.Vectors {
		v := &vectors[i]
		// A member of the vector takes the place of the default, whole.
		var own map[string]json.RawMessage
		if err := json.Unmarshal(text, &own); err != nil {
			return nil, fmt.Errorf("vector %d: %w", i, notJSON(err))
		}
		*v = defaults
		if own["policy"] != nil {
			v.Policy = Policy{}
		}
		if own["state"] != nil {
			v.State = State{}
		}
		if own["anchors"] != nil {
			v.Anchors = nil
		}
		if err := decode(text, v); err != nil {
			return nil, fmt.Errorf("vector %d: %w", i, err)
		}
		if v.ID == "" || seen[v.ID] {
			return nil, fmt.Errorf("%w: vector %d has the id %q, which is none or not its own", ErrFile, i, v.ID)
		}
		seen[v.ID] = true
		if err := v.check(); err != nil {
			return nil, fmt.Errorf("%w: vector %s: %w", ErrFile, v.ID, err)
		}
	}
	return vectors, nil
}

// check refuses a vector that cannot fail for the right reason.
func (v *Vector) check() error {
	verdicts := []string{Permit, ChainValid, Refuse}
	switch {
	case v.Derive != nil && v.Exchange != nil:
		return fmt.Errorf("one operation at a time")
	case v.Derive != nil:
		verdicts = []string{Derived, Refuse}
	case v.Exchange != nil:
		verdicts = []string{Exchanged, Refuse}
	}
	if !slices.Contains(verdicts, v.Expected.Verdict) {
		return fmt.Errorf("expects the verdict %q", v.Expected.Verdict)
	}
	if v.Expected.Verdict == Refuse && !v.Expected.Reason.Known() {
		return fmt.Errorf("expects the reason %q, which is none", v.Expected.Reason)
	}
	if len(v.Credentials) == 0 {
		return fmt.Errorf("has no credential")
	}
	return nil
}
