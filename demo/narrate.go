package demo

import (
	"fmt"
	"io"
	"slices"
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
	fmt.Fprintf(n.Out, "%s%s\n", indent, n.paint(bold, named(b.Party, names)))
	for _, r := range b.Records {
		result, color := r.Result, green
		if r.Reason != "" {
			result += " " + r.Reason
		}
		if r.Result != allowed {
			color = yellow
		}
		what := strings.TrimPrefix(strings.TrimPrefix(r.Resource, Resource+"/"), r.By+"/")
		what = strings.TrimSpace(r.Method + " " + named(what, names))
		line := pad(fmt.Sprintf("%s  %4d  %s %s", indent, r.Seq, pad(r.Action, 11), what), trailWidth)
		line += " " + n.paint(color, pad(result, 28)) + " " + r.Evidence
		if r.Agent != "" && !slices.Contains(r.Path, r.Agent) {
			line += ", by " + named(r.Agent, names)
		}
		fmt.Fprintln(n.Out, line)
	}
	for _, one := range b.Branches {
		n.branch(one, names, indent+"  ")
	}
}

// trailWidth is where the results stand.
const trailWidth = 62

// named makes ids readable: those that are known by name, the others short.
func named(text string, names map[string]string) string {
	parts := strings.Split(text, "/")
	for i, part := range parts {
		switch name, known := names[part]; {
		case known:
			parts[i] = name
		case len(part) == idLength && !strings.Contains(part, "."):
			parts[i] = part[:8] + "…"
		}
	}
	return strings.Join(parts, "/")
}

// idLength is that of a thumbprint and of a link id.
const idLength = 43

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
