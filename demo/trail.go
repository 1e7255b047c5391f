package demo

import (
	"fmt"
	"slices"
	"strings"
)

// Results of a record.
const (
	allowed = "allowed"
	denied  = "denied"
)

// check finds the record of every step: of the one who decided, with the result
// and the reason that were told, each record for one step. And nothing else was
// refused. It notes the records in the steps.
func (s *stage) check(steps []Played, trail []Record) []string {
	var wrong []string
	taken := map[int64]bool{}
	for i := range steps {
		p := &steps[i]
		if p.Want.Where == Offline || !p.OK {
			continue // there is none, or it says what came out instead
		}
		at := slices.IndexFunc(trail, func(r Record) bool { return !taken[r.Seq] && s.records(p.Want, r) })
		if at < 0 {
			wrong = append(wrong, fmt.Sprintf("%s: the log holds no record of it (%s, %s)", p.Step, p.Want.Where, resultOf(p.Want)))
			continue
		}
		p.Seq = trail[at].Seq
		taken[p.Seq] = true
	}
	for _, r := range trail {
		if r.Result != allowed && !taken[r.Seq] {
			wrong = append(wrong, fmt.Sprintf("record %d is a refusal that nobody was told of: %s %s", r.Seq, r.Action, r.Reason))
		}
	}
	return wrong
}

// records reports whether a record is one of a step that was told so.
func (s *stage) records(want Want, r Record) bool {
	if want.Reason == "" && r.Result != allowed || want.Reason != "" && r.Result != denied || r.Reason != string(want.Reason) {
		return false
	}
	switch want.Where {
	case AtKavach:
		return r.By == "server" && r.Action == want.About
	case AtGitHost:
		return r.By == s.reporter.id && r.Resource == strings.TrimSuffix(Resource+"/"+want.About, "/")
	case AtRuntime:
		return r.By == s.reviewer.id && r.Resource == s.reviewer.id+"/"+want.About
	}
	return false
}

func resultOf(want Want) string {
	if want.Reason == "" {
		return allowed
	}
	return denied + " " + string(want.Reason)
}

// Branch is a part of the trail: what one party did on the authority it has
// from those above it.
type Branch struct {
	Party    string
	Records  []Record
	Branches []*Branch
}

// Tree puts the records under the parties that acted: whoever was handed
// authority stands below who handed it. A record without a path stands under its
// reporter.
func Tree(trail []Record) *Branch {
	root := &Branch{}
	for _, r := range trail {
		path := r.Path
		if len(path) == 0 {
			path = []string{r.By}
		}
		at := root
		for _, party := range path {
			at = at.below(party)
		}
		at.Records = append(at.Records, r)
	}
	return root
}

func (b *Branch) below(party string) *Branch {
	for _, one := range b.Branches {
		if one.Party == party {
			return one
		}
	}
	made := &Branch{Party: party}
	b.Branches = append(b.Branches, made)
	return made
}
