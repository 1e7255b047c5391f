package delegation_test

import (
	"encoding/json"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// publishedVectors is testdata/aat02.json.
type publishedVectors struct {
	Params struct {
		Audience    string `json:"audience"`
		MaxDepth    int    `json:"max_delegation_depth"`
		IatSkew     int    `json:"max_iat_skew"`
		MaxLifetime int    `json:"max_token_lifetime"`
		PopWindow   int    `json:"pop_window"`
	} `json:"params"`
	Anchors []struct {
		Iss string          `json:"iss"`
		JWK json.RawMessage `json:"jwk"`
	} `json:"trust_anchors"`
	Vectors []struct {
		ID       string   `json:"id"`
		Title    string   `json:"title"`
		Now      int64    `json:"now"`
		Tool     string   `json:"tool"`
		ArgsText string   `json:"args_text"`
		Chain    []string `json:"chain"`
		Pop      string   `json:"pop"`
		Policy   struct {
			RequireChainAud bool    `json:"require_chain_aud"`
			RequirePopAud   bool    `json:"require_pop_aud"`
			Nonce           *string `json:"nonce"`
		} `json:"policy"`
		Expected struct {
			Verdict string  `json:"verdict"`
			Step    *string `json:"step"`
		} `json:"expected"`
	} `json:"vectors"`
}

// TestAATStrictVectors: "must decide vectors/aat02.json exactly as expected"
// (delegation.md), verdict and step.
func TestAATStrictVectors(t *testing.T) {
	text, err := os.ReadFile("testdata/aat02.json")
	if err != nil {
		t.Fatal(err)
	}
	var file publishedVectors
	if err := json.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	base := delegation.AATStrict{
		Audience: file.Params.Audience, MaxDepth: file.Params.MaxDepth,
		IatSkew:     time.Duration(file.Params.IatSkew) * time.Second,
		MaxLifetime: time.Duration(file.Params.MaxLifetime) * time.Second,
		ProofWindow: time.Duration(file.Params.PopWindow) * time.Second,
	}
	for _, a := range file.Anchors {
		key, err := agent.ParsePublicJWK(a.JWK)
		if err != nil {
			t.Fatal(err)
		}
		base.Anchors = append(base.Anchors, delegation.AATAnchor{Issuer: a.Iss, Key: key})
	}
	permitted := 0
	for _, vector := range file.Vectors {
		v := base
		v.RequireAudience, v.RequireProofAudience = vector.Policy.RequireChainAud, vector.Policy.RequirePopAud
		if want := vector.Policy.Nonce; want != nil {
			v.Nonce = func(nonce string) bool { return nonce == *want }
		}
		args, err := jcs.Parse([]byte(vector.ArgsText), jcs.Limits{})
		if err != nil {
			t.Fatalf("%s: %v", vector.ID, err)
		}
		permit, err := v.Verify(delegation.AATPresentation{
			Chain: vector.Chain, Proof: vector.Pop, Tool: vector.Tool, Arguments: args,
		}, time.Unix(vector.Now, 0))
		step := ""
		var refused *delegation.StrictRefusal
		if errors.As(err, &refused) {
			step = refused.Step
		}
		want := ""
		if vector.Expected.Step != nil {
			want = *vector.Expected.Step
		}
		if (err == nil) != (vector.Expected.Verdict == "PERMIT") || (err == nil) != (permit != nil) || step != want {
			t.Errorf("%s %s: %v, not %s at %q", vector.ID, vector.Title, err, vector.Expected.Verdict, want)
		}
		if err == nil {
			permitted++
		}
	}
	if len(file.Vectors) != 77 || permitted != 17 {
		t.Errorf("%d vectors, %d permitted", len(file.Vectors), permitted)
	}
}
