package conformance

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// DeriveAsk asks for a link below the credential, offline (delegation.md §7).
type DeriveAsk struct {
	// Key is the private key of the parent's holder, To the receiver's.
	Key        json.RawMessage `json:"key"`
	To         json.RawMessage `json:"to"`
	ClientID   string          `json:"client_id"`
	Scopes     []string        `json:"scopes"`
	Audience   []string        `json:"audience"`
	TTL        int64           `json:"ttl"`
	ToolsText  string          `json:"tools_text"`
	LimitsText string          `json:"limits_text"`
	MaxDepth   *int            `json:"max_depth"`
}

// ExchangeAsk asks for a new token from the credential, online.
type ExchangeAsk struct {
	Caller         string          `json:"caller"`
	Receiver       string          `json:"receiver"`
	ReceiverProved bool            `json:"receiver_proved"`
	Key            json.RawMessage `json:"key"`
	Scopes         []string        `json:"scopes"`
	Audience       []string        `json:"audience"`
	// Aware: every resource in Audience is registered as kavach-aware.
	Aware      bool   `json:"aware"`
	TTL        int64  `json:"ttl"`
	ToolsText  string `json:"tools_text"`
	LimitsText string `json:"limits_text"`
	MaxDepth   *int   `json:"max_depth"`
	// GrantDepth is the depth of the grant behind a plain subject.
	GrantDepth int `json:"grant_depth"`
}

func (v *Vector) derive() (Outcome, error) {
	ask := v.Derive
	key, err := agent.ParsePrivateKey(ask.Key)
	if err != nil {
		return Outcome{}, fmt.Errorf("%w: vector %s: key: %w", ErrFile, v.ID, err)
	}
	to, err := agent.ParsePublicJWK(ask.To)
	if err != nil {
		return Outcome{}, fmt.Errorf("%w: vector %s: to: %w", ErrFile, v.ID, err)
	}
	n := delegation.Narrow{
		ClientID: ask.ClientID, Scopes: ask.Scopes, Audience: ask.Audience,
		TTL: time.Duration(ask.TTL) * time.Second, MaxDepth: ask.MaxDepth,
	}
	if n.Tools, n.Limits, err = narrowing(ask.ToolsText, ask.LimitsText); err != nil {
		return Outcome{}, fmt.Errorf("%w: vector %s: %w", ErrFile, v.ID, err)
	}
	derived, err := delegation.Derive(v.Credentials[0].Token, key, to, n, time.Unix(v.Now, 0))
	if err != nil {
		return Outcome{}, err
	}
	return v.result(Derived, derived.Chain)
}

func (v *Vector) exchange() (Outcome, error) {
	now := time.Unix(v.Now, 0)
	verifier, err := v.Verifier()
	if err != nil {
		return Outcome{}, err
	}
	subject, err := verifier.Verify(v.Credentials[0].Token, now)
	if err != nil {
		return Outcome{}, err
	}
	ask := v.Exchange
	a := delegation.Ask{
		Caller: ask.Caller, Receiver: ask.Receiver, ReceiverProved: ask.ReceiverProved, Scopes: ask.Scopes, Audience: ask.Audience,
		AudienceAware: ask.Aware, TTL: time.Duration(ask.TTL) * time.Second, MaxDepth: ask.MaxDepth, GrantDepth: ask.GrantDepth,
	}
	if ask.Key != nil {
		if a.Key, err = agent.ParsePublicJWK(ask.Key); err != nil {
			return Outcome{}, fmt.Errorf("%w: vector %s: key: %w", ErrFile, v.ID, err)
		}
	}
	if a.Tools, a.Limits, err = narrowing(ask.ToolsText, ask.LimitsText); err != nil {
		return Outcome{}, fmt.Errorf("%w: vector %s: %w", ErrFile, v.ID, err)
	}
	draft, err := subject.Exchange(a, now)
	if err != nil {
		return Outcome{}, err
	}
	issued, err := draft.Sign(delegation.ServerKey{KID: "at-result", Signer: signer})
	if err != nil {
		return Outcome{}, err
	}
	return v.result(Exchanged, issued.Token)
}

// narrowing reads what the request wants tighter; "" leaves it as it is.
func narrowing(tools, limits string) (t delegation.Tools, l delegation.Limits, err error) {
	if tools != "" {
		value, err := jcs.Parse([]byte(tools), jcs.Limits{})
		if err != nil {
			return nil, l, fmt.Errorf("tools_text: %w", err)
		}
		if t, err = delegation.ParseTools(value); err != nil {
			return nil, l, fmt.Errorf("tools_text: %w", err)
		}
	}
	if limits != "" {
		value, err := jcs.Parse([]byte(limits), jcs.Limits{})
		if err != nil {
			return nil, l, fmt.Errorf("limits_text: %w", err)
		}
		if l, err = delegation.ParseLimits(value); err != nil {
			return nil, l, fmt.Errorf("limits_text: %w", err)
		}
	}
	return t, l, nil
}

// signer signs what a vector needs signed and says nothing about: anybody may
// know it.
var signer = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

// result shows the claims of the last token of what was made.
func (v *Vector) result(verdict, token string) (Outcome, error) {
	c, err := agent.SplitCompact(token[strings.LastIndexByte(token, '~')+1:])
	if err != nil {
		return Outcome{}, fmt.Errorf("vector %s: the result: %w", v.ID, err)
	}
	claims, err := jcs.Parse(c.UnverifiedPayload, jcs.Limits{})
	if err != nil {
		return Outcome{}, fmt.Errorf("vector %s: the result: %w", v.ID, err)
	}
	o := Outcome{Verdict: verdict, Claims: map[string]json.RawMessage{}}
	for name, claim := range claims.Fields() {
		if o.Claims[name], err = jcs.Marshal(claim); err != nil {
			return Outcome{}, fmt.Errorf("vector %s: the result: %w", v.ID, err)
		}
	}
	return o, nil
}
