package demo

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
)

// a stage with the ids that records name.
func stageOf() *stage {
	s := &stage{}
	s.reporter.id, s.reviewer.id = "host", "reviewer"
	return s
}

// steps and the trail that belongs to them.
func told() ([]Played, []Record) {
	return []Played{
			{Step: "made", OK: true, Want: Want{Where: Offline}},
			{Step: "read", OK: true, Want: permitted(http.StatusOK, "pull/847")},
			{Step: "other", OK: true, Want: notAllowed("pull/848")},
			{Step: "away", OK: true, Want: outside("example.com:443")},
			{Step: "traded", OK: true, Want: noExchange(delegation.Revoked)},
		}, []Record{
			{Seq: 3, By: "server", Action: "token.issue", Result: "allowed"},
			{Seq: 4, By: "host", Action: "rs.access", Resource: Resource + "/pull/848", Result: "denied", Reason: "constraint_violated"},
			{Seq: 5, By: "host", Action: "rs.access", Resource: Resource + "/pull/847", Result: "allowed"},
			{Seq: 6, By: "reviewer", Action: client.ReportAction, Resource: "reviewer/example.com:443", Result: "denied", Reason: "constraint_violated"},
			{Seq: 7, By: "server", Action: "delegate", Result: "denied", Reason: "revoked"},
		}
}

// TestCheck: every step has a record of its own that says what was told, and no
// refusal is one too many.
func TestCheck(t *testing.T) {
	steps, trail := told()
	if wrong := stageOf().check(steps, trail); len(wrong) > 0 {
		t.Fatalf("what is as told is said to be wrong: %q", wrong)
	}
	var seqs []int64
	for _, p := range steps[1:] {
		seqs = append(seqs, p.Seq)
	}
	if !slices.Equal(seqs, []int64{5, 4, 6, 7}) {
		t.Errorf("the records of the steps are %v", seqs)
	}
	for _, c := range []struct {
		name   string
		change func([]Played, []Record) ([]Played, []Record)
		wrong  []string
	}{
		{"a permit without a record", func(p []Played, r []Record) ([]Played, []Record) { return p, slices.Delete(r, 2, 3) },
			[]string{"read: the log holds no record of it (git host, allowed)"}},
		{"a refusal without a record", func(p []Played, r []Record) ([]Played, []Record) { return p, slices.Delete(r, 1, 2) },
			[]string{"other: the log holds no record of it (git host, denied constraint_violated)"}},
		{"another reason", func(p []Played, r []Record) ([]Played, []Record) { r[4].Reason = "expired"; return p, r },
			[]string{"traded: the log holds no record of it (kavach, denied revoked)", "record 7 is a refusal that nobody was told of: delegate expired"}},
		{"another result", func(p []Played, r []Record) ([]Played, []Record) { r[4].Result = "failed"; return p, r },
			[]string{"traded: ", "record 7 is a refusal"}},
		{"about something else", func(p []Played, r []Record) ([]Played, []Record) { r[1].Resource += "9"; return p, r },
			[]string{"other: ", "record 4 is a refusal"}},
		{"by somebody else", func(p []Played, r []Record) ([]Played, []Record) { r[3].By = "host"; return p, r },
			[]string{"away: ", "record 6 is a refusal"}},
		{"one record for two steps", func(p []Played, r []Record) ([]Played, []Record) { return append(p, p[2]), r },
			[]string{"other: the log holds no record of it"}},
		{"a refusal too many", func(p []Played, r []Record) ([]Played, []Record) {
			extra := r[1]
			extra.Seq = 8
			return p, append(r, extra)
		}, []string{"record 8 is a refusal that nobody was told of"}},
		{"a step that came out otherwise", func(p []Played, r []Record) ([]Played, []Record) {
			p[2].OK = false
			return p, slices.Delete(r, 1, 2)
		}, nil},
		{"no log at all", func(p []Played, _ []Record) ([]Played, []Record) { return p, nil },
			[]string{"read: ", "other: ", "away: ", "traded: "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			wrong := stageOf().check(c.change(told()))
			if len(wrong) != len(c.wrong) {
				t.Fatalf("it says %q", wrong)
			}
			for i, want := range c.wrong {
				if !strings.HasPrefix(wrong[i], want) {
					t.Errorf("it says %q, want %q", wrong[i], want)
				}
			}
		})
	}
}

// TestStory: the story is complete as data.
func TestStory(t *testing.T) {
	names := map[string]bool{}
	for _, act := range Story() {
		for _, step := range act.Steps {
			if names[step.Name] {
				t.Errorf("two steps are called %s", step.Name)
			}
			names[step.Name] = true
			w := step.Want
			if w.Where != Offline && w.About == "" && w.Reason == "" || step.run == nil || step.Told == "" {
				t.Errorf("%s is not told whole", step.Name)
			}
			if w.Where == AtRuntime && w.Status != 0 || w.Reason != "" && w.Where != AtRuntime && (w.Status < 400 || w.Error == "") {
				t.Errorf("%s: %+v", step.Name, w)
			}
		}
	}
	// Issue 3, Show 2: each of these is refused.
	for _, name := range []string{
		"write", "other-pull", "other-thread", "other-host", "redirect", "metadata", "size", "size-unchecked", "expired",
		"stolen", "no-proof", "bearer", "other-url", "replay", "parent", "stranger", "wider", "exchange-other", "exchange-revoked",
	} {
		if !names[name] {
			t.Errorf("the story does not tell %s", name)
		}
	}
}

// TestTree: whoever was handed authority stands below who handed it.
func TestTree(t *testing.T) {
	const orchestrator, reviewer = "oooooooooooooooooooooooooooooooooooooooooo1", "rrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrr2"
	var out bytes.Buffer
	n := &Narrator{Out: &out}
	n.Close(Result{
		Names: map[string]string{orchestrator: "orchestrator", reviewer: "code-reviewer"},
		Trail: []Record{
			{Seq: 1, By: "server", Path: []string{orchestrator}, Agent: orchestrator, Action: "token.issue", Result: "allowed", Evidence: "server"},
			{Seq: 2, By: "server", Path: []string{orchestrator, reviewer}, Agent: "host", Action: "delegate", Result: "denied", Reason: "revoked", Evidence: "server"},
			{Seq: 3, By: reviewer, Action: client.ReportAction, Method: "GET", Resource: reviewer + "/example.com:443", Result: "denied", Reason: "constraint_violated", Evidence: "asserted"},
			{Seq: 4, By: "host", Path: []string{orchestrator, reviewer, "helper"}, Agent: orchestrator, Action: "rs.access", Method: "GET", Resource: Resource + "/pull/847", Result: "allowed", Evidence: "proof"},
			{Seq: 5, By: "server", Path: []string{orchestrator}, Action: "revoke", Resource: strings.Repeat("x", 43), Result: "allowed", Evidence: "server"},
		},
		Verdict: Verdict{OK: true, Log: "127.0.0.1:8420/audit/00000000", Records: 6, Head: "head"},
		Steps:   []Played{{Want: Want{}}, {Want: noExchange(delegation.Revoked)}}, OK: true,
	})
	want := `
The trail, as the log has it: who, on whose authority, did what
  orchestrator
       1  token.issue                                          allowed                      server
       5  revoke      xxxxxxxx…                                allowed                      server
    code-reviewer
         2  delegate                                           denied revoked               server, by host
      helper
           4  rs.access   GET pull/847                         allowed                      proof
  code-reviewer
       3  rs.connect  GET example.com:443                      denied constraint_violated   asserted

The log proves it
  log      127.0.0.1:8420/audit/00000000
  records  6
  head     head
  verdict  intact

1 steps permitted, 1 refused: all as told, and every decision is in the log.
`
	if out.String() != want {
		t.Errorf("it shows\n%s\nwant\n%s", out.String(), want)
	}
}

// TestNarrator: marks are aligned, long sentences are folded, and what came out
// otherwise is said.
func TestNarrator(t *testing.T) {
	var out bytes.Buffer
	n := &Narrator{Out: &out}
	n.Played(Played{Act: "An act", First: true, Told: "read the diff", Want: permitted(200, "pull/847"), OK: true, Got: Outcome{Status: 200, Note: "text/x-diff, 306 bytes"}})
	n.Played(Played{Told: strings.Repeat("word ", 14), Want: notAllowed("pull/848"), OK: true, Got: Outcome{Status: 403, Error: "constraint_violated"}})
	n.Played(Played{Told: "another host", Want: outside("x:443"), OK: true, Got: Outcome{Reason: delegation.ConstraintViolated, Note: "allow_network"}})
	n.Played(Played{Told: "a stolen token", Want: noProof(delegation.HolderBindingFailed, ""), Wrong: "status 200, not 401"})
	want := "\nAn act\n" +
		"  ✓  " + pad("read the diff", toldWidth) + "  git host text/x-diff, 306 bytes\n" +
		"  ✗  " + pad(strings.Repeat("word ", 12), toldWidth) + "  git host 403 constraint_violated\n" +
		"     word word\n" +
		"  ✗  " + pad("another host", toldWidth) + "  runtime  constraint_violated (allow_network), nothing was sent\n" +
		"  !! a stolen token\n     status 200, not 401\n"
	if out.String() != want {
		t.Errorf("it tells\n%s\nwant\n%s", out.String(), want)
	}
	out.Reset()
	n.Color = true
	n.Played(Played{Told: "read", Want: permitted(200, "x"), OK: true})
	if !strings.Contains(out.String(), "\x1b[32m✓\x1b[0m") {
		t.Errorf("on a terminal it tells %q", out.String())
	}
}
