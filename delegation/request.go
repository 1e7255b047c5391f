package delegation

import (
	"slices"
	"strings"

	"github.com/kavach-dev/kavach/jcs"
)

// Request is what somebody wants to do, in the dimensions that a chain can
// restrict. Each dimension is given (Given), none (None: the action has no
// such side) or, the zero value, unset. A dimension that any link restricts and
// the request leaves unset is refused, so a handler that forgets to say which
// pull request it serves refuses a token bound to one instead of serving it.
type Request struct {
	// Scope is always checked; unset is refused.
	Scope Scope
	// Tool is the tool called, with its arguments.
	Tool Dimension[Call]
	// Resource is the canonical id of the thing acted upon, as a resource
	// server names it: no ".", "..", "//", percent-encoding or "*".
	Resource Dimension[string]
	// Network is a connection the action opens: "host:port", or "host" when
	// the port is not known (then an entry that names a port does not match).
	// It is never the resource server's own name.
	Network Dimension[string]
	// Size is the number of bytes read or written.
	Size Dimension[int64]
}

// Call is one call of a tool.
type Call struct {
	// Name is compared byte for byte.
	Name string
	// Arguments is the object of arguments as called, parsed from its text: the
	// spelling of a number matters. A call without arguments says an empty
	// object; the zero Value is unset, which a tool whose arguments are
	// restricted refuses.
	Arguments jcs.Value
}

// Dimension is one dimension of a Request. Its zero value is unset.
type Dimension[T any] struct {
	state state
	value T
}

type state uint8

const (
	unset state = iota
	none
	given
)

// Given states the value of a dimension.
func Given[T any](value T) Dimension[T] { return Dimension[T]{given, value} }

// None states that the action has no such side. It passes a restriction of
// network or size, never one of resources or tools.
func None[T any]() Dimension[T] { return Dimension[T]{state: none} }

// Set reports whether the dimension was given or stated to be none.
func (d Dimension[T]) Set() bool { return d.state != unset }

// Value returns what was given.
func (d Dimension[T]) Value() (value T, ok bool) { return d.value, d.state == given }

// Scope is what a request needs of the scopes. Its zero value is unset, which
// is refused.
type Scope struct {
	set  bool
	need [][]string
}

// NoScope states that the action needs no scope.
func NoScope() Scope { return Scope{set: true} }

// AllOf needs every one of the scopes.
func AllOf(scopes ...string) Scope {
	s := Scope{set: true}
	for _, scope := range scopes {
		s.need = append(s.need, []string{scope})
	}
	return s
}

// OneOf needs any one of the scopes: the one an operation asks for and those
// that cover it in the resource server's own hierarchy. Every link must hold
// one of them.
func OneOf(scopes ...string) Scope {
	return Scope{set: true, need: [][]string{slices.Clone(scopes)}}
}

// And needs what both need.
func (s Scope) And(other Scope) Scope {
	return Scope{set: s.set && other.set, need: slices.Concat(s.need, other.need)}
}

// Set reports whether the scope was stated.
func (s Scope) Set() bool { return s.set }

// Names returns the first alternative of everything needed: what to write into
// a challenge.
func (s Scope) Names() []string {
	var names []string
	for _, alternatives := range s.need {
		if len(alternatives) > 0 && !slices.Contains(names, alternatives[0]) {
			names = append(names, alternatives[0])
		}
	}
	slices.Sort(names)
	return names
}

// Allows is step 16 of delegation.md §6: the request against every link. It
// returns nil or a *Refusal with the reason scope_not_granted,
// constraint_violated or needs_counter. It says nothing about the audience
// (For), the holder's proof (CheckScheme) or revocation (Revocable).
func (c *Chain) Allows(r Request) error {
	if err := c.AllowsBudgeted(r); err != nil {
		return err
	}
	return c.AllowsUncounted()
}

// AllowsScope asks every link for the scopes alone.
func (c *Chain) AllowsScope(s Scope) error {
	if c.empty() {
		return errEmpty()
	}
	if !s.set {
		return refuse(ScopeNotGranted, DimensionScope, "unhandled:"+DimensionScope)
	}
	for i := range c.parts {
		for _, alternatives := range s.need {
			if !slices.ContainsFunc(alternatives, c.parts[i].hasScope) {
				return refuse(ScopeNotGranted, DimensionScope, strings.Join(alternatives, " or ")).at(i)
			}
		}
	}
	return nil
}

// AllowsTool asks every link for the tool alone. If any link names tools, a
// link that names none grants none: an empty map below a restriction is not
// its absence.
func (c *Chain) AllowsTool(d Dimension[Call]) error {
	if c.empty() {
		return errEmpty()
	}
	if !c.Restricts(DimensionTools) {
		return nil
	}
	given, ok := d.Value()
	if !ok {
		return unhandled(DimensionTools, d.state)
	}
	call, ok := measure(given)
	if !ok {
		return refuse(ConstraintViolated, DimensionTools, "arguments of tool "+quoteShort(given.Name))
	}
	for i := range c.parts {
		// A handler that forgets the arguments does not get them allowed.
		if !given.Arguments.Exists() && len(c.parts[i].tools[given.Name].named) > 0 {
			return unhandled(DimensionTools, unset).at(i)
		}
		if what, ok := c.parts[i].tools.allows(call); !ok {
			return refuse(ConstraintViolated, DimensionTools, what).at(i)
		}
	}
	return nil
}

// AllowsResource asks every link for the resource alone.
func (c *Chain) AllowsResource(d Dimension[string]) error {
	if c.empty() {
		return errEmpty()
	}
	if !c.Restricts(DimensionResources) {
		return nil
	}
	id, ok := d.Value()
	if !ok {
		return unhandled(DimensionResources, d.state)
	}
	for i := range c.parts {
		if l := c.parts[i].limits.Resources; l != nil && !resourceAllowed(l, id) {
			return refuse(ConstraintViolated, DimensionResources, "resource "+quoteShort(id)).at(i)
		}
	}
	return nil
}

// AllowsNetwork asks every link for one connection alone.
func (c *Chain) AllowsNetwork(d Dimension[string]) error {
	if c.empty() {
		return errEmpty()
	}
	if !c.Restricts(DimensionNetwork) || d.state == none {
		return nil
	}
	destination, ok := d.Value()
	if !ok {
		return unhandled(DimensionNetwork, d.state)
	}
	for i := range c.parts {
		if l := c.parts[i].limits.AllowNetwork; l != nil && !networkAllowed(l, destination) {
			return refuse(ConstraintViolated, DimensionNetwork, "host "+quoteShort(destination)).at(i)
		}
	}
	return nil
}

// AllowsSize asks every link for the size alone.
func (c *Chain) AllowsSize(d Dimension[int64]) error {
	if c.empty() {
		return errEmpty()
	}
	if !c.Restricts(DimensionSize) || d.state == none {
		return nil
	}
	size, ok := d.Value()
	if !ok {
		return unhandled(DimensionSize, d.state)
	}
	for i := range c.parts {
		if l := c.parts[i].limits.MaxFileSize; l != nil && (size < 0 || size > *l) {
			return refuse(ConstraintViolated, DimensionSize, "larger than max_file_size").at(i)
		}
	}
	return nil
}

// AllowsUncounted refuses with needs_counter if any link carries max_calls: a
// budget that nobody debits is not a budget.
func (c *Chain) AllowsUncounted() error {
	if c.empty() {
		return errEmpty()
	}
	for i := range c.parts {
		if c.parts[i].limits.MaxCalls != nil {
			return refuse(NeedsCounter, DimensionCalls, "no counter is configured").at(i)
		}
	}
	return nil
}

// Restricts reports whether any link restricts a dimension of the request
// (DimensionTools, DimensionResources, DimensionNetwork, DimensionSize,
// DimensionCalls) or demands an audit record first (DimensionAudit).
func (c *Chain) Restricts(dimension string) bool {
	if c.empty() {
		return true
	}
	for i := range c.parts {
		if c.parts[i].restricts(dimension) {
			return true
		}
	}
	return false
}

func (p *part) restricts(dimension string) bool {
	switch dimension {
	case DimensionTools:
		return len(p.tools) > 0
	case DimensionResources:
		return p.limits.Resources != nil
	case DimensionNetwork:
		return p.limits.AllowNetwork != nil
	case DimensionSize:
		return p.limits.MaxFileSize != nil
	case DimensionCalls:
		return p.limits.MaxCalls != nil
	case DimensionAudit:
		return p.limits.AuditRequired != nil && *p.limits.AuditRequired
	}
	return true
}

func unhandled(dimension string, s state) *Refusal {
	if s == none {
		return refuse(ConstraintViolated, dimension, "the action has none")
	}
	return refuse(ConstraintViolated, dimension, "unhandled:"+dimension)
}

// errEmpty answers for a Chain that did not come out of Verify: asking every
// link of no links must not allow anything.
func errEmpty() error { return refuse(Malformed, "", "not a verified chain") }

// quoteShort makes text of a caller fit for one line of an error or a log.
func quoteShort(text string) string {
	const limit = 80
	cut := len(text) > limit
	if cut {
		text = text[:limit]
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		if r < 0x20 || r == 0x7f || r == '"' || r == '\\' || r > 0x7e {
			b.WriteByte('?')
			continue
		}
		b.WriteRune(r)
	}
	if cut {
		b.WriteString("…")
	}
	b.WriteByte('"')
	return b.String()
}
