package mcp

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

func (s *Server) verifyTool() tool {
	return tool{
		name: "verify", title: "Verify a token", scopes: []string{ScopeVerify}, action: audit.Verified,
		readOnly: true, idempotent: true,
		description: "Judges a token or chain that somebody handed to you: is it genuine, in time, not revoked, for this audience, held by whoever made the proof, and does it allow this action? " +
			"Returns valid, the reason if not, on whose authority it stands, every link with its scopes and time left, the limits, whether the asked action is allowed, and what was left unchecked. " +
			"Not a way to use a token; without proof it says nothing about whether whoever showed it may hold it. Neither token nor proof is repeated in the answer. " +
			"Needs scope " + ScopeVerify + ".",
		run: s.verify,
	}
}

func (s *Server) verify(ctx context.Context, c *call, value jcs.Value) (map[string]any, error) {
	a := readArguments(value, "", "token", "audience", "proof", "request")
	token := a.text("token", delegation.MaxChainBody, printablePattern)
	if !a.has("token") {
		a.fail("token is missing")
	}
	audience := a.text("audience", 256, printablePattern)
	shown := delegation.Shown{Token: token, Proof: a.text("proof", agent.MaxAATProof, printablePattern), Audience: audience}
	asked := a.object("request")
	request := readRequest(a, asked, &shown)
	if a.err != nil {
		return nil, s.refused(ctx, c, audit.Verified, "kavach/verify", a.err)
	}
	verdict, err := s.judge(ctx, audience, shown)
	if err != nil {
		return nil, err
	}
	if asked.Exists() && verdict.chain != nil {
		verdict.decide(request)
	} else {
		verdict.unchecked = append(verdict.unchecked, "request")
	}
	content := verdict.content()
	entry := s.entry(c, audit.Verified, audit.Allowed)
	entry.Resource = "kavach/verify"
	entry.Detail["valid"] = verdict.valid
	if verdict.allowed != nil {
		entry.Detail["allowed"] = *verdict.allowed
	}
	if verdict.reason != "" {
		entry.Detail["verdict"] = string(verdict.reason)
	}
	if verdict.chain != nil {
		entry.Detail["token_id"] = verdict.chain.LID()
	}
	if err := s.record(ctx, entry); err != nil {
		return nil, err
	}
	return content, nil
}

// readRequest reads the action to decide on, and of the request that carries it
// what its proof must be for. What is neither given nor named in without stays
// unset, and a limit on it refuses.
func readRequest(a *arguments, value jcs.Value, shown *delegation.Shown) delegation.Request {
	r := readArguments(value, "request.", "scope", "tool", "arguments", "resource", "host", "size", "without", "method", "url")
	shown.Method, shown.URL = r.text("method", 32, methodPattern), r.text("url", 2048, printablePattern)
	request := delegation.Request{Scope: delegation.NoScope()}
	if scope := r.text("scope", 128, scopePattern); scope != "" {
		request.Scope = delegation.AllOf(scope)
	}
	arguments := r.object("arguments")
	if tool := r.text("tool", 128, textPattern); tool != "" {
		if !arguments.Exists() {
			arguments, _ = jcs.Of(map[string]any{})
		}
		request.Tool = delegation.Given(delegation.Call{Name: tool, Arguments: arguments})
	} else if arguments.Exists() {
		r.fail("request.arguments needs request.tool")
	}
	if resource := r.text("resource", 256, printablePattern); resource != "" {
		request.Resource = delegation.Given(resource)
	}
	if host := r.text("host", 256, printablePattern); host != "" {
		request.Network = delegation.Given(host)
	}
	if r.has("size") {
		request.Size = delegation.Given(r.integer("size", 0, jcs.MaxInt, 0))
	}
	shown.Call = request.Tool
	for _, dimension := range r.list("without", 2, 7, textPattern) {
		switch {
		case dimension == "network" && !r.has("host"):
			request.Network = delegation.None[string]()
		case dimension == "size" && !r.has("size"):
			request.Size = delegation.None[int64]()
		default:
			r.fail("request.without takes network (without host) and size (without size)")
		}
	}
	if r.err != nil && a.err == nil {
		a.err = r.err
	}
	return request
}

// verdict is what verify found out.
type verdict struct {
	now       time.Time
	chain     *delegation.Chain // nil if steps 0 to 12 refused
	valid     bool
	reason    delegation.Reason
	detail    string
	allowed   *bool
	unchecked []string
}

func (v *verdict) refuse(err error) error {
	var refused *delegation.Refusal
	if !errors.As(err, &refused) {
		return err
	}
	v.valid, v.reason, v.detail = false, refused.Reason, refused.Detail
	if v.detail == "" {
		v.detail = refused.Dimension
	}
	return nil
}

// judge runs steps 0 to 15 of delegation.md §6 on a token, shown.Token.
func (s *Server) judge(ctx context.Context, audience string, shown delegation.Shown) (*verdict, error) {
	v := &verdict{now: s.cfg.Now(), valid: true}
	shown.Now = v.now
	chain, err := s.cfg.Verifier.Verify(shown.Token, v.now)
	if err != nil {
		v.unchecked = []string{"proof"}
		return v, v.refuse(err)
	}
	v.chain = chain
	if audience == "" {
		v.unchecked = append(v.unchecked, "audience")
	} else if err := s.isFor(chain, audience); err != nil {
		if chain.Bound() {
			v.unchecked = append(v.unchecked, "proof")
		}
		return v, v.refuse(err)
	}
	unchecked, err := chain.CheckProof(shown)
	v.unchecked = append(v.unchecked, unchecked...)
	if err != nil {
		return v, v.refuse(err)
	}
	if s.cfg.Revocations == nil {
		v.unchecked = append(v.unchecked, "revocation")
		return v, nil
	}
	revoked, err := s.cfg.Revocations.Revoked(ctx, chain)
	switch {
	case err != nil:
		return v, v.refuse(&delegation.Refusal{Reason: delegation.StatusUnknown, Part: -1})
	case revoked:
		return v, v.refuse(&delegation.Refusal{Reason: delegation.Revoked, Part: -1})
	}
	return v, nil
}

// isFor is step 13: "only ISSUER/mcp and ISSUER/api take a token that names
// several".
func (s *Server) isFor(chain *delegation.Chain, audience string) error {
	if audience == s.cfg.Issuer+Path || audience == s.cfg.Issuer+"/api" {
		return chain.ForAmong(audience)
	}
	return chain.For(audience)
}

// decide is step 16.
func (v *verdict) decide(request delegation.Request) {
	allowed := false
	if v.valid {
		if err := v.chain.Allows(request); err == nil {
			allowed = true
		} else {
			var refused *delegation.Refusal
			if errors.As(err, &refused) {
				v.reason, v.detail = refused.Reason, refused.Detail
			}
		}
	}
	v.allowed = &allowed
}

func (v *verdict) content() map[string]any {
	slices.Sort(v.unchecked)
	content := map[string]any{"valid": v.valid, "unchecked": list(v.unchecked)}
	if v.reason != "" {
		content["reason"] = string(v.reason)
	}
	if v.detail != "" {
		content["detail"] = v.detail
	}
	if v.allowed != nil {
		content["allowed"] = *v.allowed
	}
	if v.chain == nil {
		return content
	}
	for name, value := range describe(v.chain, v.now) {
		content[name] = value
	}
	return content
}

// describe is what may be said about a chain to somebody who has it.
func describe(chain *delegation.Chain, now time.Time) map[string]any {
	links := []map[string]any{}
	for _, l := range chain.Links() {
		links = append(links, map[string]any{
			"token_id": l.LID, "client_id": l.ClientID, "confirmed": l.Confirmed,
			"scopes": list(l.Scopes), "expires_in": left(l.Expires, now),
		})
	}
	return map[string]any{
		"subject": chain.Principal(), "audience": list(chain.Audience()), "scopes": list(chain.Scopes()),
		"expires_in": left(chain.Expires(), now), "path": list(chain.Path()), "chain": links,
		"constraints": constraints(chain.Limits(), chain.Tools()),
	}
}

func left(expires, now time.Time) int64 {
	return max(0, int64(expires.Sub(now)/time.Second))
}
