package conformance

import (
	"crypto"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// decide runs all of delegation.md §6 for the request of the vector. An error
// that is no refusal is about the vector itself.
func (v *Vector) decide() (Outcome, error) {
	now := time.Unix(v.Now, 0) // "now := read once"
	token, credential, err := v.credential()
	if err != nil {
		return Outcome{}, err
	}
	verifier, err := v.Verifier()
	if err != nil {
		return Outcome{}, err
	}
	chain, err := verifier.Verify(token, now) // 0 to 12
	if err != nil {
		return Outcome{}, err
	}
	if v.Policy.SharedAudience { // 13
		err = chain.ForAmong(v.Audience)
	} else {
		err = chain.For(v.Audience)
	}
	if err != nil {
		return Outcome{}, err
	}
	o := Outcome{Verdict: Permit, Principal: chain.Principal(), Expires: chain.Expires().Unix()}
	for _, l := range chain.Links() {
		o.Path = append(o.Path, Step{l.LID, l.JTI, l.ClientID, l.Confirmed, l.JKT, l.Expires.Unix()})
	}
	replayKey := ""
	if v.Proofs == nil {
		o.Unchecked = append(o.Unchecked, "proof")
	} else if replayKey, err = v.possession(chain, token, credential, now); err != nil { // 14
		return Outcome{}, err
	}
	if v.Revoked == nil { // 15
		o.Unchecked = append(o.Unchecked, "revocation")
	} else if err := v.revocation(chain); err != nil {
		return Outcome{}, err
	}
	if v.Request == nil { // 16
		o.Unchecked = append(o.Unchecked, "request")
	} else if err := v.allowed(chain); err != nil {
		return Outcome{}, err
	}
	slices.Sort(o.Unchecked)
	if v.Proofs == nil || v.Request == nil {
		// "a result without 14 and 16 is never reported as authorised"
		o.Verdict = ChainValid
		return o, nil
	}
	// 17: "proof replay (replayed), counters, audit if required".
	if replayKey != "" && slices.Contains(v.State.Seen, replayKey) {
		return Outcome{}, refusal(delegation.Replayed, "", "")
	}
	for _, b := range chain.Budgets() {
		if v.State.Counters[b.LID] >= b.Limit {
			return Outcome{}, refusal(delegation.ConstraintViolated, delegation.DimensionCalls, "")
		}
		o.Debits = append(o.Debits, slices.IndexFunc(o.Path, func(s Step) bool { return s.LID == b.LID }))
	}
	if chain.Restricts(delegation.DimensionAudit) {
		o.Obligations = append(o.Obligations, delegation.DimensionAudit)
	}
	return o, nil
}

func refusal(reason delegation.Reason, dimension, detail string) error {
	return &delegation.Refusal{Reason: reason, Dimension: dimension, Part: -1, Detail: detail}
}

// credential finds the one credential: "Exactly one carrier: with `_meta` there
// is no `Authorization` header, or one with the byte-identical chain; else 400
// `malformed`."
func (v *Vector) credential() (token string, of Credential, err error) {
	var headers, metas []Credential
	for _, c := range v.Credentials {
		switch c.Carrier {
		case "authorization":
			headers = append(headers, c)
		case "meta":
			c.Token = strings.Join(c.Chain, "~")
			metas = append(metas, c)
		default:
			return "", c, fmt.Errorf("%w: vector %s: carrier %q", ErrFile, v.ID, c.Carrier)
		}
	}
	switch {
	case len(headers) > 1 || len(metas) > 1,
		len(headers) == 1 && len(metas) == 1 && headers[0].Token != metas[0].Token:
		return "", of, refusal(delegation.Malformed, "", "more than one credential")
	case len(metas) == 1 && v.Proofs != nil && len(v.Proofs) == 0:
		// "`_meta["kavach/aat"] = {"aat_chain":[…],"aat_pop":"…"}`"
		return "", of, refusal(delegation.Malformed, "", "a presentation without a proof")
	case len(metas) == 1:
		return metas[0].Token, metas[0], nil
	}
	of = headers[0]
	if len(of.Token) > delegation.MaxChainHeader && strings.Contains(of.Token, "~") {
		return "", of, refusal(delegation.TooLarge, "", "more than 7168 bytes in a header")
	}
	return of.Token, of, nil
}

// Verifier is the verifier of the vector.
func (v *Vector) Verifier() (*delegation.Verifier, error) {
	var anchors []delegation.Anchor
	for _, a := range v.Anchors {
		if !strings.HasPrefix(a.KID, "at-") {
			continue // "a chain anchor is a key whose kid starts with at-"
		}
		key, err := publicKey(a.JWK)
		if err != nil {
			return nil, fmt.Errorf("%w: vector %s: anchor %s: %w", ErrFile, v.ID, a.KID, err)
		}
		anchor, err := delegation.NewAnchor(a.KID, key)
		if err != nil {
			return nil, fmt.Errorf("%w: vector %s: %w", ErrFile, v.ID, err)
		}
		anchors = append(anchors, anchor)
	}
	return &delegation.Verifier{Issuer: v.Issuer, Anchors: delegation.AnchorSet(anchors...)}, nil
}

func publicKey(text json.RawMessage) (crypto.PublicKey, error) {
	jwk, err := jcs.Parse(text, jcs.Limits{})
	if err != nil {
		return nil, err
	}
	if jwk.Get("kty").Str() != "RSA" {
		return agent.ParsePublicKey(jwk)
	}
	n, errN := jcs.DecodeBase64URL(jwk.Get("n").Str())
	e, errE := jcs.DecodeBase64URL(jwk.Get("e").Str())
	if err := errors.Join(errN, errE); err != nil {
		return nil, err
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}, nil
}

// possession is step 14. It returns the key under which the proof is to be
// remembered, "" for a credential that needs none.
func (v *Vector) possession(chain *delegation.Chain, token string, c Credential, now time.Time) (replayKey string, err error) {
	failed := func(detail string) (string, error) {
		return "", refusal(delegation.HolderBindingFailed, "", detail)
	}
	if c.Carrier == "authorization" {
		if err := chain.CheckScheme(c.Scheme); err != nil {
			return "", err
		}
		if c.Scheme == delegation.Bearer {
			return "", nil
		}
	}
	if len(v.Proofs) != 1 {
		return failed("not one proof")
	}
	proof, nonce := v.Proofs[0], ""
	switch {
	case proof.Type == "dpop" && c.Carrier == "authorization":
		p, err := agent.VerifyProof(proof.Text, agent.ProofCheck{Method: v.Method, URL: v.URL, Token: token, JKT: chain.JKT(), Now: now})
		if err != nil {
			return failed(err.Error())
		}
		nonce, replayKey = p.Nonce, p.ReplayKey()
	case proof.Type == "aat" && c.Carrier == "meta":
		check := agent.AATCheck{
			Key: chain.Key(), LID: chain.LID(), LeafJTI: chain.JTI(), Audience: v.Audience, Now: now, UnmatchedCall: true,
		}
		if v.Request != nil && v.Request.Tool.Value != nil {
			call := *v.Request.Tool.Value
			check.Tool, check.UnmatchedCall = call.Name, false
			if check.Arguments, err = jcs.Parse([]byte(call.Text), jcs.Limits{}); err != nil {
				return "", fmt.Errorf("%w: vector %s: args_text: %w", ErrFile, v.ID, err)
			}
		}
		p, err := agent.VerifyAATProof(proof.Text, check)
		if err != nil {
			return failed(err.Error())
		}
		nonce, replayKey = p.Nonce, p.ReplayKey()
	default:
		return failed("a proof of another type")
	}
	if v.Policy.Nonce != "" && nonce != v.Policy.Nonce {
		return failed("nonce")
	}
	// "Side effects … need an AAT proof for chains, or DPoP where the guard is
	// told `DPoPForWrites`."
	safe := v.Policy.ReadOnly || slices.Contains([]string{"GET", "HEAD", "OPTIONS"}, v.Method)
	if !safe && !chain.Plain() && proof.Type == "dpop" && !v.Policy.DPoPForWrites {
		return failed("a DPoP proof is not enough for a side effect")
	}
	return replayKey, nil
}

// revocation is step 15.
func (v *Vector) revocation(chain *delegation.Chain) error {
	if v.Revoked.Stale {
		return refusal(delegation.StatusUnknown, "", "stale")
	}
	feed, err := v.Feed()
	if err != nil {
		return err
	}
	if feed.Revokes(chain) {
		return refusal(delegation.Revoked, "", "")
	}
	return nil
}

// Feed is what the vector says is revoked as a feed, so that it is the feed's
// own reader that decides.
func (v *Vector) Feed() (*delegation.Feed, error) {
	const kid = "rv-vector"
	key, err := agent.NewPrivateKey(signer)
	if err != nil {
		return nil, err
	}
	claims := map[string]any{"iss": v.Issuer, "iat": v.Now, "exp": v.Now + int64(delegation.FeedLife/time.Second), "seq": 1}
	for name, list := range map[string][]string{"tok": v.Revoked.Links, "gid": v.Revoked.Grants, "key": v.Revoked.Keys, "agent": v.Revoked.Agents} {
		if len(list) > 0 {
			claims[name] = list
		}
	}
	if len(v.Revoked.Before) > 0 {
		before := map[string]any{}
		for gid, at := range v.Revoked.Before {
			before[gid] = at
		}
		claims["before"] = before
	}
	payload, err := jcs.Marshal(claims)
	if err != nil {
		return nil, err
	}
	text, err := agent.SignCompact(key, map[string]any{"typ": delegation.TypeFeed, "kid": kid}, payload)
	if err != nil {
		return nil, err
	}
	feed, err := delegation.VerifyFeed(text, v.Issuer, func(k string) (crypto.PublicKey, bool) {
		return key.Public().Crypto(), k == kid
	}, time.Unix(v.Now, 0))
	if err != nil {
		return nil, fmt.Errorf("%w: vector %s: revoked: %w", ErrFile, v.ID, err)
	}
	return feed, nil
}

// allowed is step 16.
func (v *Vector) allowed(chain *delegation.Chain) error {
	r, err := v.Request.Delegation()
	if err != nil {
		return fmt.Errorf("vector %s: %w", v.ID, err)
	}
	if v.State.Counters == nil {
		return chain.Allows(r)
	}
	return chain.AllowsBudgeted(r)
}

// Delegation is the request as package delegation takes it.
func (r *Request) Delegation() (delegation.Request, error) {
	var out delegation.Request
	if r.Scopes != nil {
		out.Scope = delegation.NoScope()
		for _, alternatives := range r.Scopes {
			out.Scope = out.Scope.And(delegation.OneOf(alternatives...))
		}
	}
	switch {
	case r.Tool.Value != nil:
		arguments, err := jcs.Parse([]byte(r.Tool.Value.Text), jcs.Limits{})
		if err != nil {
			return out, fmt.Errorf("%w: args_text: %w", ErrFile, err)
		}
		out.Tool = delegation.Given(delegation.Call{Name: r.Tool.Value.Name, Arguments: arguments})
	case r.Tool.Set:
		out.Tool = delegation.None[delegation.Call]()
	}
	out.Resource, out.Network = dimension(r.Resource), dimension(r.Network)
	switch {
	case r.Size.Value != nil:
		out.Size = delegation.Given(int64(*r.Size.Value))
	case r.Size.Set:
		out.Size = delegation.None[int64]()
	}
	return out, nil
}

func dimension[T any](d Dimension[T]) delegation.Dimension[T] {
	switch {
	case d.Value != nil:
		return delegation.Given(*d.Value)
	case d.Set:
		return delegation.None[T]()
	}
	return delegation.Dimension[T]{}
}
