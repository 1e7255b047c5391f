package delegation_test

import (
	"errors"
	"slices"
	"strconv"

	"github.com/kavach-dev/kavach/delegation"
)

func (f *forest) both() []*delegation.Verifier { return []*delegation.Verifier{f.warm, f.cold} }

// compare holds what the verifier says against the model.
func (f *forest) compare(want delegation.Reason, part int, err error) {
	got := delegation.ReasonOf(err)
	var refusal *delegation.Refusal
	switch {
	case err != nil && (!errors.As(err, &refusal) || !got.Known()):
		broken("a refusal has a reason", "%v", err)
	case want == unsure:
	case got != want:
		broken("the verdict of the model", "got %v, want %q of part %d", err, want, part)
	case err != nil && refusal.Part != part:
		broken("the verdict of the model", "got %v of part %d, want part %d", err, refusal.Part, part)
	}
}

// judge is one case: the verdict and its reason against the model, the cache
// against none, and, of what is accepted, every law about what it permits.
// parent is the node it stands below, nil for a root and what a tampering made.
func (f *forest) judge(text string, sheets []sheet, parent *node) {
	f.judged = sheets
	want, part := verdict(sheets, now.Unix())
	chain, err := f.warm.Verify(text, now)
	f.compare(want, part, err)
	f.saw("reason/" + string(want))
	f.saw("tokens/" + strconv.Itoa(len(sheets)))
	if err != nil {
		f.saw("refused/" + string(delegation.ReasonOf(err)))
	}
	if rarely(f.r, 3+2*len(sheets)) {
		f.sameWithoutCache(text, err)
	}
	if err != nil || want == unsure {
		return
	}
	f.saw("accepted/" + strconv.Itoa(len(sheets)))
	if alg, ok := sheets[0].header["alg"].(string); ok && len(sheets) > 1 {
		f.saw("root/" + alg)
	}
	f.saw("alg/" + someHolders[sheets[len(sheets)-1].to].alg)
	n := &node{text: text, sheets: sheets, chain: chain, parent: parent}
	if parent != nil || len(sheets) == 1 {
		chain.Remember()
		f.nodes = append(f.nodes, n)
	}
	if parent != nil {
		f.narrows(parent, n)
		f.kinds(parent.leaf(), n.leaf())
	}
	f.permits(n)
	f.budgets(n)
	if sheets[0].header["typ"] == "aat+jwt" && rarely(f.r, 3) {
		f.strictly(n)
	}
}

// budgets: every link that has one is to be debited, by its own id.
func (f *forest) budgets(n *node) {
	list := n.chain.Budgets()
	for _, s := range n.sheets {
		if s.limits.calls == nil {
			continue
		}
		if len(list) == 0 || list[0].LID != s.lid || list[0].Limit != *s.limits.calls || list[0].Until.Unix() != s.exp {
			broken("every budget is debited", "%+v", n.chain.Budgets())
		}
		list = list[1:]
	}
	if len(list) > 0 {
		broken("every budget is debited", "%+v is of no link", list)
	}
}

func (f *forest) sameWithoutCache(text string, warm error) {
	f.saw("cold")
	_, cold := f.cold.Verify(text, now)
	var a, b *delegation.Refusal
	if errors.As(cold, &a) != errors.As(warm, &b) || a != nil && *a != *b {
		broken("cache on = cache off", "with it %v, without %v", warm, cold)
	}
}

// narrows compares what the links say of themselves.
func (f *forest) narrows(parent, n *node) {
	links := n.chain.Links()
	p, c := links[len(links)-2], links[len(links)-1]
	wider := ""
	switch {
	case len(links) != len(parent.sheets)+1 || p.LID != parent.chain.LID():
		wider = "another parent"
	case c.Expires.After(p.Expires) || c.IssuedAt.Before(p.IssuedAt):
		wider = "time"
	case !within(c.Audience, p.Audience):
		wider = "audience"
	case !within(c.Scopes, p.Scopes):
		wider = "scope"
	case c.Depth != p.Depth+1 || c.MaxDepth > p.MaxDepth || c.Depth > c.MaxDepth:
		wider = "depth"
	case p.Limits.MaxCalls != nil && (c.Limits.MaxCalls == nil || *c.Limits.MaxCalls > *p.Limits.MaxCalls):
		wider = "calls"
	case p.Limits.AuditRequired != nil && *p.Limits.AuditRequired && (c.Limits.AuditRequired == nil || !*c.Limits.AuditRequired):
		wider = "audit"
	case n.chain.Principal() != parent.chain.Principal() || n.chain.GrantID() != parent.chain.GrantID():
		wider = "principal or grant"
	}
	if wider != "" {
		broken("every edge narrows", "%s: %+v below %+v", wider, c, p)
	}
}

// kinds counts which rows of the table of subsumption stand on an edge.
func (f *forest) kinds(parent, child *sheet) {
	for name, w := range child.tools {
		for argument, c := range w.named {
			f.saw("constraint/" + c.kind)
			if p, named := parent.tools[name].named[argument]; named {
				f.saw("edge/" + p.kind + " " + c.kind)
			}
		}
		if w.star {
			f.saw("constraint/*")
		}
	}
	l := child.limits
	for name, there := range map[string]bool{"resources": l.resources != nil, "allow_network": l.network != nil, "max_file_size": l.size != nil,
		"max_calls": l.calls != nil, "audit_required": l.audit != nil} {
		if there {
			f.saw("limit/" + name)
		}
	}
}

// alone asks one link for everything but its budget of calls.
func alone(c *delegation.Chain, r delegation.Request) error {
	for _, err := range []error{c.AllowsScope(r.Scope), c.AllowsTool(r.Tool), c.AllowsResource(r.Resource), c.AllowsNetwork(r.Network), c.AllowsSize(r.Size)} {
		if err != nil {
			return err
		}
	}
	return nil
}

// permits asks an accepted chain a few requests near to what its last edge
// says. Whatever the child alone permits, its parent alone permits; whatever
// the leaf permits, every prefix permits; and each of them says what the model
// says.
func (f *forest) permits(n *node) {
	last := len(n.sheets) - 1
	child, parent := &n.sheets[last], &n.sheets[max(last-1, 0)]
	restricted := false // a token above the leaf names tools
	for i := range n.sheets[:last] {
		restricted = restricted || len(n.sheets[i].tools) > 0
	}
	for range 5 {
		w := askFor(f.r, child, parent)
		r := w.request()
		err := alone(n.chain.Alone(last), r)
		if want := child.permits(w, false); want != (err == nil) {
			broken("a link permits what the model says", "%v, want %v: %+v", err, want, w)
		}
		// An empty map below a restriction is not its absence: such a link
		// permits nothing, though a token that said only this would.
		if restricted && len(child.tools) == 0 {
			if n.chain.AllowsTool(r.Tool) == nil {
				broken("an empty map below a restriction allows no tool", "%+v", w)
			}
			continue
		}
		if err == nil && last > 0 {
			if err := alone(n.chain.Alone(last-1), r); err != nil {
				broken("what a child permits, its parent permits", "%v: %+v", err, w)
			}
		}
		f.prefixes(n, w, r, err)
	}
}

// prefixes: the whole chain permits what all of its links permit, and so do
// the chains that it grew from.
func (f *forest) prefixes(n *node, w wish, r delegation.Request, leaf error) {
	whole := n.chain.Allows(r)
	counted := slices.ContainsFunc(n.sheets, func(s sheet) bool { return s.limits.calls != nil })
	switch {
	case whole == nil && (leaf != nil || counted):
		broken("a chain permits what all its links permit", "the leaf says %v, counted %v: %+v", leaf, counted, w)
	case whole != nil && leaf == nil && !(counted && delegation.ReasonOf(whole) == delegation.NeedsCounter):
		broken("a chain permits what its leaf permits", "%v: %+v", whole, w)
	case leaf == nil:
		f.saw("request/permitted")
	default:
		f.saw("request/refused")
		return
	}
	for p := n.parent; p != nil; p = p.parent {
		if err := alone(p.chain, r); err != nil {
			broken("every prefix permits what the leaf permits", "%d tokens: %v: %+v", len(p.sheets), err, w)
		}
	}
}
