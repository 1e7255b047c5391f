package conformance

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// strictFile is the format of the draft's published vectors.
type strictFile struct {
	Spec         string                     `json:"spec"`
	About        string                     `json:"about"`
	Keys         map[string]json.RawMessage `json:"keys"`
	Params       strictParams               `json:"params"`
	TrustAnchors []struct {
		Issuer string          `json:"iss"`
		KID    string          `json:"kid"`
		JWK    json.RawMessage `json:"jwk"`
	} `json:"trust_anchors"`
	Vectors []strictVector `json:"vectors"`

	verifier delegation.AATStrict
}

type strictParams struct {
	Audience           string `json:"audience"`
	MaxConstraintDepth int    `json:"max_constraint_depth"`
	MaxDelegationDepth int    `json:"max_delegation_depth"`
	MaxIatSkew         int64  `json:"max_iat_skew"`
	MaxTokenLifetime   int64  `json:"max_token_lifetime"`
	Now                int64  `json:"now"`
	PopWindow          int64  `json:"pop_window"`
}

type strictVector struct {
	ID     string          `json:"id"`
	Title  string          `json:"title"`
	Now    int64           `json:"now"`
	Tool   string          `json:"tool"`
	Args   json.RawMessage `json:"args"`
	Text   string          `json:"args_text"`
	Policy struct {
		RequireChainAud bool   `json:"require_chain_aud"`
		RequirePopAud   bool   `json:"require_pop_aud"`
		Nonce           string `json:"nonce"`
	} `json:"policy"`
	Chain    []string `json:"chain"`
	Pop      string   `json:"pop"`
	Expected struct {
		Verdict string  `json:"verdict"`
		Step    *string `json:"step"`
	} `json:"expected"`
}

// The draft's own spelling.
const (
	strictPermit = "PERMIT"
	strictDeny   = "DENY"
)

func parseStrict(data []byte) (*strictFile, error) {
	f := &strictFile{}
	if err := decode(data, f); err != nil {
		return nil, err
	}
	p := f.Params
	f.verifier = delegation.AATStrict{
		Audience: p.Audience, MaxDepth: p.MaxDelegationDepth, IatSkew: time.Duration(p.MaxIatSkew) * time.Second,
		MaxLifetime: time.Duration(p.MaxTokenLifetime) * time.Second, ProofWindow: time.Duration(p.PopWindow) * time.Second,
	}
	if p.MaxConstraintDepth != 0 && p.MaxConstraintDepth != 32 {
		return nil, fmt.Errorf("%w: constraints are 32 deep at most, not %d", ErrFile, p.MaxConstraintDepth)
	}
	for _, a := range f.TrustAnchors {
		v, err := jcs.Parse(a.JWK, jcs.Limits{})
		if err != nil {
			return nil, fmt.Errorf("%w: anchor of %s: %w", ErrFile, a.Issuer, err)
		}
		key, err := agent.ParsePublicKeyExtra(v)
		if err != nil {
			return nil, fmt.Errorf("%w: anchor of %s: %w", ErrFile, a.Issuer, err)
		}
		f.verifier.Anchors = append(f.verifier.Anchors, delegation.AATAnchor{Issuer: a.Issuer, Key: key, KID: a.KID})
	}
	seen := make(map[string]bool, len(f.Vectors))
	for i, v := range f.Vectors {
		if v.ID == "" || seen[v.ID] {
			return nil, fmt.Errorf("%w: vector %d has the id %q, which is none or not its own", ErrFile, i, v.ID)
		}
		seen[v.ID] = true
		if v.Expected.Verdict != strictPermit && v.Expected.Verdict != strictDeny {
			return nil, fmt.Errorf("%w: %s expects %q", ErrFile, v.ID, v.Expected.Verdict)
		}
		if (v.Expected.Step == nil) != (v.Expected.Verdict == strictPermit) {
			return nil, fmt.Errorf("%w: %s: a refusal has a step, and nothing else has", ErrFile, v.ID)
		}
	}
	return f, nil
}

func (f *strictFile) run() ([]Result, error) {
	var results []Result
	for _, v := range f.Vectors {
		verifier := f.verifier
		verifier.RequireAudience, verifier.RequireProofAudience = v.Policy.RequireChainAud, v.Policy.RequirePopAud
		if want := v.Policy.Nonce; want != "" {
			verifier.Nonce = func(nonce string) bool { return nonce == want }
		}
		now := v.Now
		if now == 0 {
			now = f.Params.Now
		}
		r := Result{ID: v.ID, Title: v.Title, ExpectedVerdict: v.Expected.Verdict, Verdict: strictPermit}
		if v.Expected.Step != nil {
			r.Expected = *v.Expected.Step
		}
		arguments, err := jcs.Parse([]byte(v.Text), jcs.Limits{})
		if err != nil {
			return nil, fmt.Errorf("%w: %s: args_text: %w", ErrFile, v.ID, err)
		}
		_, err = verifier.Verify(delegation.AATPresentation{Chain: v.Chain, Proof: v.Pop, Tool: v.Tool, Arguments: arguments}, time.Unix(now, 0))
		var refusal *delegation.StrictRefusal
		if errors.As(err, &refusal) {
			r.Verdict, r.Decided = strictDeny, refusal.Step
		} else if err != nil {
			return nil, fmt.Errorf("vector %s: %w", v.ID, err)
		}
		var differs []string
		if r.Verdict != r.ExpectedVerdict {
			differs = append(differs, "verdict")
		}
		if r.Decided != r.Expected {
			differs = append(differs, "step")
		}
		r.Difference = strings.Join(differs, ", ")
		r.OK = r.Difference == ""
		results = append(results, r)
	}
	return results, nil
}
