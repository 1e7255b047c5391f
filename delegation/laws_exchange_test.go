package delegation_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/delegation"
)

// exchange asks for something out of a chain, and signs and keeps what comes
// of it. Whatever the result permits, every link of the subject permits; it
// ends no later, is for no one else, hands on no further; its path is the
// subject's, then who was named; and what revokes the subject revokes it.
func (f *forest) exchange(n *node) {
	a := f.ask(n)
	f.judged = n.sheets
	draft, err := n.chain.Exchange(a, now)
	if err != nil {
		f.saw("exchange/refused " + string(delegation.ReasonOf(err)))
		if !delegation.ReasonOf(err).Known() {
			broken("a refusal has a reason", "Exchange: %v", err)
		}
		return
	}
	issued, err := draft.Sign(serverKey)
	if err != nil {
		broken("what Exchange drafts can be signed", "%v: %+v", err, draft.Claims)
	}
	result, err := f.warm.Verify(issued.Token, now)
	if err != nil {
		broken("what Exchange drafts verifies", "%v: %+v", err, draft.Claims)
	}
	result.Remember()
	f.saw("exchange/made")
	s := sheetOf(issued.Token, byServer, true, false)
	made := &node{text: issued.Token, sheets: []sheet{s}, chain: result, plain: !issued.Root}
	f.judged = append(slices.Clone(n.sheets), s)
	if s.shape != "" {
		broken("the verdict of the model", "of what Exchange made: %s", s.shape)
	}
	if problem := wider(n.chain, result, a); problem != "" {
		broken("exchange never widens", "%s: %+v", problem, a)
	}
	if path := pathOfAct(issued.Token); !slices.Equal(path, result.Path()) || !slices.Equal(path, issued.Path) {
		broken("path and act name the same parties", "act names %v, the path is %v: %+v", path, result.Path(), a)
	}
	f.exchanged(n, made)
	f.nodes = append(f.nodes, made)
	if !made.plain {
		f.saw("exchange/root")
		if reason, _ := verdict(made.sheets, now.Unix()); reason != "" {
			broken("the verdict of the model", "of what Exchange made: %s", reason)
		}
	}
}

func (f *forest) ask(n *node) delegation.Ask {
	r, p := f.r, n.leaf()
	a := delegation.Ask{
		AudienceAware: !rarely(r, 6), Scopes: subsetOf(r, p.scopes), GrantDepth: 3 + r.IntN(3), ReceiverProved: rarely(r, 2), KeyByProof: rarely(r, 8),
		Audience: p.aud, TTL: time.Duration(max(r.IntN(600)-200, 0)) * time.Second,
	}
	if rarely(r, 3) {
		a.Audience = append(subsetOf(r, someAudiences[1:]), gitHost)
	}
	if !rarely(r, 4) {
		a.Receiver = pick(r, somePeople)
	}
	if rarely(r, 4) {
		a.Caller = pick(r, somePeople)
	}
	if rarely(r, 12) {
		a.Scopes = subsetOf(r, someScopes)
	}
	if !rarely(r, 4) {
		to := r.IntN(len(someHolders))
		for range someHolders {
			if to != p.to {
				break
			}
			to = r.IntN(len(someHolders))
		}
		a.Key = holderPublic[to]
	}
	a.AAT = rarely(r, 8)
	if rarely(r, 3) {
		left := r.IntN(9)
		a.MaxDepth = &left
	}
	if rarely(r, 3) {
		details, _ := json.Marshal(detailsOf(nearTools(r, p.toolMap()), nearLimits(r, p.entry("kavach_limits"))))
		if tools, limits, err := delegation.ParseDetails(details); err == nil {
			a.Tools, a.Limits = tools, limits
		}
	}
	return a
}

// exchanged asks requests near to what the result says.
func (f *forest) exchanged(n, made *node) {
	restricted := slices.ContainsFunc(n.sheets, func(s sheet) bool { return len(s.tools) > 0 })
	for range 4 {
		w := askFor(f.r, made.leaf(), n.leaf())
		r := w.request()
		if made.chain.Allows(r) != nil {
			f.saw("exchange/request refused")
			continue
		}
		f.saw("exchange/request permitted")
		for i := range n.sheets {
			if !n.sheets[i].permits(w, restricted) || alone(n.chain.Alone(i), r) != nil {
				broken("exchange never widens", "the result permits what part %d does not: %+v", i, w)
			}
		}
		if err := n.chain.Allows(r); err != nil {
			broken("exchange never widens", "the result permits what the subject does not, %v: %+v", err, w)
		}
	}
}

// pathOfAct reads sub, the nested act from the inside out, and client_id, as
// anybody who knows RFC 8693 does.
func pathOfAct(token string) []string {
	type actor struct {
		Sub string
		Act *actor
	}
	var claims struct {
		Sub      string
		ClientID string `json:"client_id"`
		Act      *actor
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	if err != nil {
		panic(err)
	}
	actors := []string{claims.ClientID}
	for act := claims.Act; act != nil; act = act.Act {
		actors = append(actors, act.Sub)
	}
	actors = append(actors, claims.Sub)
	slices.Reverse(actors)
	return slices.Compact(actors)
}

// wider says in what a result is more than its subject, "" if in nothing.
func wider(subject, result *delegation.Chain, a delegation.Ask) string {
	want := subject.Path()
	for _, id := range []string{a.Caller, a.Receiver} {
		if id != "" && want[len(want)-1] != id {
			want = append(want, id)
		}
	}
	handedOn := a.Receiver != "" || !a.Key.IsZero() && a.Key.Thumbprint() != subject.JKT()
	left := subject.DepthLeft(a.GrantDepth)
	if handedOn {
		left--
	}
	revoked := subject.Revocable()
	switch {
	case !slices.Equal(result.Path(), want):
		return fmt.Sprintf("path %v, want %v", result.Path(), want)
	case result.ClientID() != want[len(want)-1]:
		return "client_id is not the user"
	case result.Expires().After(subject.Expires()):
		return "it outlives the subject"
	case subject.Bound() && !result.Bound():
		return "a bound subject yields an unbound token"
	case result.DepthLeft(a.GrantDepth) > max(left, 0):
		return fmt.Sprintf("depth %d of %d", result.DepthLeft(a.GrantDepth), left)
	case result.Principal() != subject.Principal() || result.GrantID() != subject.GrantID():
		return "another principal or grant"
	case !within(result.Audience(), subject.Audience()):
		return "another audience"
	case !within(result.Scopes(), subject.Scopes()):
		return "another scope"
	case subject.Restricts(delegation.DimensionCalls):
		return "a budget of calls was exchanged"
	}
	// Whatever revokes the subject revokes the result.
	got := result.Revocable()
	if !within(slices.Concat(revoked.LIDs, revoked.Keys, revoked.Ancestry), got.Ancestry) {
		return "something of the subject is not in anc"
	}
	if !within(revoked.Clients, got.Clients) {
		return "a party of the subject is not among the parties"
	}
	return ""
}
