package e2e

import (
	"fmt"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// asked is one invocation on one grant, heardBack what came of it.
type asked struct {
	Grant int
	Op    string // issue, redeem, refresh, revoke, introspect
	Token string // what was shown; "" for issue
	// Late: somebody had heard already that the token was used.
	Late bool
}

type heardBack struct {
	OK, Lost        bool   // Lost: nobody answered, so it happened or did not
	Access, Refresh string // of a success
}

// grantState is what a grant may be in: one place in which everything happens
// one after the other.
type grantState struct {
	Code    string // "" before it was issued
	Spent   bool
	Refresh string // the one that lives
	Issued  string // every access token, a space around each
	Ended   bool
	// Unseen: a refresh happened whose answer was lost, so that nobody knows
	// which token lives.
	Unseen bool
}

// refused are the states after a refusal. A code that comes again may end the
// grant or not: that depends on how long ago it was used. So may, with reuseEnds,
// a used refresh token that was sent before anybody could know, depending on
// what it saw; one that came late ends the grant.
func (s grantState) refused(a asked, reuseEnds bool) []grantState {
	ended := s
	ended.Ended = true
	switch {
	case a.Op == "redeem" && s.Spent, a.Op == "refresh" && reuseEnds && !a.Late:
		return []grantState{s, ended}
	case a.Op == "refresh" && reuseEnds:
		return []grantState{ended}
	}
	return []grantState{s}
}

// done is the state after a success, if it could be one.
func (s grantState) done(a asked, got heardBack) (grantState, bool) {
	switch a.Op {
	case "issue":
		if s.Code != "" {
			return s, false
		}
		s.Code = got.Access
		return s, true
	case "redeem":
		if s.Ended || s.Spent || s.Code != a.Token {
			return s, false
		}
		s.Spent = true
	case "refresh":
		if s.Ended || s.Unseen || !s.Spent || s.Refresh != a.Token {
			return s, false
		}
	case "revoke":
		if strings.HasPrefix(a.Token, "code") || s.Refresh == "" && !s.Unseen {
			return s, false
		}
		s.Ended = true
		return s, true
	case "introspect":
		live := !s.Ended && (s.Refresh == a.Token && !s.Unseen || strings.Contains(s.Issued, " "+a.Token+" "))
		return s, live
	}
	s.Refresh, s.Unseen = got.Refresh, got.Lost
	s.Issued += " " + got.Access + " "
	return s, true
}

// step is every state that may follow; none if the answer cannot be.
func (s grantState) step(a asked, got heardBack, reuseEnds bool) []grantState {
	next, could := s.done(a, got)
	switch {
	case got.Lost && could:
		return append(s.refused(a, reuseEnds), s, next)
	case got.Lost:
		return append(s.refused(a, reuseEnds), s)
	case got.OK && could:
		return []grantState{next}
	case got.OK || could:
		return nil
	}
	return s.refused(a, reuseEnds)
}

// grantModel is the model of {issue, redeem, refresh, revoke, introspect}, each
// grant by itself. reuseEnds is whether a used refresh token that comes again
// ends the grant (--refresh-replay 0s) or is refused, no more.
func grantModel(reuseEnds bool) porcupine.Model {
	model := porcupine.NondeterministicModel{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			var parts [][]porcupine.Operation
			at := map[int]int{}
			for _, o := range history {
				grant := o.Input.(asked).Grant
				if _, ok := at[grant]; !ok {
					at[grant] = len(parts)
					parts = append(parts, nil)
				}
				parts[at[grant]] = append(parts[at[grant]], o)
			}
			return parts
		},
		Init: func() []any { return []any{grantState{}} },
		Step: func(state, input, output any) []any {
			var out []any
			for _, next := range state.(grantState).step(input.(asked), output.(heardBack), reuseEnds) {
				if !slices.Contains(out, any(next)) {
					out = append(out, next)
				}
			}
			return out
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v → %+v", input, output) },
	}
	return model.ToModel()
}
