package demo

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Narrator tells the story to a person as it plays.
type Narrator struct {
	// Out is where it is told.
	Out io.Writer
	// Color is for a terminal.
	Color bool
}

// Marks of a step.
const (
	markPermit = "✓"
	markRefuse = "✗"
	markWrong  = "!!"
)

const toldWidth = 62

// Open says where the story plays.
func (n *Narrator) Open(s Scene) {
	fmt.Fprintf(n.Out, `The case study: two agents, pull request #847 and a git host.

  kavach     %s, with data of its own, deleted afterwards
  git host   %s on %s, with a certificate authority of its own;
             it shares nothing with kavach but public keys
  %s permitted   %s refused, as told   %s otherwise
`, s.Issuer, Resource, s.GitHost, n.paint(green, markPermit), n.paint(yellow, markRefuse), n.paint(red, markWrong))
}

// Played tells one step.
func (n *Narrator) Played(p Played) {
	if p.First {
		fmt.Fprintf(n.Out, "\n%s\n", n.paint(bold, p.Act))
	}
	mark := n.paint(green, markPermit)
	if p.Want.Reason != "" {
		mark = n.paint(yellow, markRefuse)
	}
	if !p.OK {
		fmt.Fprintf(n.Out, "  %s %s\n     %s\n", n.paint(red, markWrong), p.Told, n.paint(red, p.Wrong))
		return
	}
	lines := fold(p.Told, toldWidth)
	for i, line := range lines {
		if i == 0 {
			line = pad(line, toldWidth) + "  " + came(p)
		}
		fmt.Fprintf(n.Out, "  %s  %s\n", mark, strings.TrimRight(line, " "))
		mark = " "
	}
}

// came says how a step came out: where, what was answered, and why.
func came(p Played) string {
	parts := []string{pad(string(p.Want.Where), 8)}
	switch {
	case p.Want.Reason == "" && p.Got.Note != "":
		parts = append(parts, p.Got.Note)
	case p.Want.Reason == "" && p.Got.Status != 0:
		parts = append(parts, fmt.Sprint(p.Got.Status))
	case p.Want.Reason == "":
	case p.Got.Status == 0:
		parts = append(parts, string(p.Want.Reason)+" ("+p.Got.Note+"), nothing was sent")
	default:
		parts = append(parts, fmt.Sprintf("%d %s", p.Got.Status, p.Got.Error))
		if string(p.Want.Reason) != p.Got.Error {
			parts = append(parts, "("+string(p.Want.Reason)+")")
		}
	}
	return strings.TrimSpace(strings.Join(parts, " "))
}

// Close shows the trail and what the log proves.
func (n *Narrator) Close(r Result) {
	fmt.Fprintf(n.Out, "\n%s\n", n.paint(bold, "The trail, as the log has it: who, on whose authority, did what"))
	for _, one := range Tree(r.Trail).Branches {
		n.branch(one, r.Names, "  ")
	}
	fmt.Fprintf(n.Out, "\n%s\n  log      %s\n  records  %d\n  head     %s\n",
		n.paint(bold, "The log proves it"), r.Verdict.Log, r.Verdict.Records, r.Verdict.Head)
	if r.Verdict.OK {
		fmt.Fprintf(n.Out, "  verdict  %s\n", n.paint(green, "intact"))
	} else {
		fmt.Fprintf(n.Out, "  verdict  %s: %s\n", n.paint(red, "DAMAGED"), r.Verdict.Summary)
	}
	permitted, refused := 0, 0
	for _, p := range r.Steps {
		if p.Want.Reason == "" {
			permitted++
		} else {
			refused++
		}
	}
	if r.OK {
		fmt.Fprintf(n.Out, "\n%d steps permitted, %d refused: all as told, and every decision is in the log.\n", permitted, refused)
		return
	}
	fmt.Fprintf(n.Out, "\n%s\n", n.paint(red, "Not as told:"))
	for _, wrong := range r.Wrong {
		fmt.Fprintf(n.Out, "  %s\n", wrong)
	}
}

// branch shows one party, what it did, and who got authority from it.
func (n *Narrator) branch(b *Branch, names map[string]string, indent string) {
	fmt.Fprintf(n.Out, "%s%s\n", indent, n.paint(bold, short(named(b.Party, names))))
	for _, r := range b.Records {
		result := r.Result
		if r.Reason != "" {
			result += " " + r.Reason
		}
		color := green
		if r.Result != allowed {
			color = yellow
		}
		fmt.Fprintf(n.Out, "%s  %4d  %s  %s  %s  %s\n", indent, r.Seq, pad(r.Action, 12),
			pad(strings.TrimPrefix(named(r.Resource, names), Resource+"/"), 34), n.paint(color, pad(result, 32)), r.Evidence)
	}
	for _, one := range b.Branches {
		n.branch(one, names, indent+"  ")
	}
}

// short cuts what is too long for a line.
func short(text string) string {
	if utf8.RuneCountInString(text) > 40 {
		return text[:8] + "…"
	}
	return text
}

// fold breaks a sentence into lines.
func fold(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

// Colors of a terminal.
const (
	bold   = "1"
	red    = "31"
	green  = "32"
	yellow = "33"
)

func (n *Narrator) paint(color, text string) string {
	if !n.Color {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}
