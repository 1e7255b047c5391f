package delegation

import (
	"slices"
	"strings"

	"github.com/kavach-dev/kavach/jcs"
)

// Limits is the kavach_limits entry of a token (delegation.md §5). A member
// that is nil is absent, which restricts nothing; a list that is empty but not
// nil allows nothing.
type Limits struct {
	// Resources lists literals, and prefixes that end in "/*".
	Resources []string
	// AllowNetwork lists host[:port], where host is a lower-case name, an IP
	// literal (IPv6 in brackets) or "*." and a name.
	AllowNetwork []string
	// MaxFileSize is in bytes.
	MaxFileSize *int64
	// MaxCalls is at least 1.
	MaxCalls *int64
	// AuditRequired demands that the record is durable before the action runs.
	AuditRequired *bool
}

const (
	limitsType  = "kavach_limits"
	toolsType   = "attenuating_agent_token"
	maxEntries  = 32
	maxResource = 256
)

// IsZero reports whether nothing is restricted.
func (l Limits) IsZero() bool {
	return l.Resources == nil && l.AllowNetwork == nil && l.MaxFileSize == nil &&
		l.MaxCalls == nil && l.AuditRequired == nil
}

// Map returns the members that are present, for jcs and for people.
func (l Limits) Map() map[string]any {
	m := map[string]any{}
	if l.Resources != nil {
		m["resources"] = l.Resources
	}
	if l.AllowNetwork != nil {
		m["allow_network"] = l.AllowNetwork
	}
	if l.MaxFileSize != nil {
		m["max_file_size"] = *l.MaxFileSize
	}
	if l.MaxCalls != nil {
		m["max_calls"] = *l.MaxCalls
	}
	if l.AuditRequired != nil {
		m["audit_required"] = *l.AuditRequired
	}
	return m
}

// ParseLimits reads the object of Map: closed, strict, canonical. It refuses
// with the reason malformed and the member as the dimension.
func ParseLimits(v jcs.Value) (Limits, error) {
	if v.Get("type").Exists() {
		return Limits{}, refuse(Malformed, "type", "unknown member")
	}
	limits, refusal := parseLimits(v)
	if refusal != nil {
		return Limits{}, refusal
	}
	return limits, nil
}

// parseLimits also takes the wire form, with its type.
func parseLimits(v jcs.Value) (Limits, *Refusal) {
	var l Limits
	if v.Kind() != jcs.Object {
		return l, refuse(Malformed, "", "limits are not an object")
	}
	for name, member := range v.Fields() {
		ok := false
		switch name {
		case "type":
			ok = member.Str() == limitsType
		case DimensionResources:
			l.Resources, ok = stringList(member)
		case DimensionNetwork:
			l.AllowNetwork, ok = stringList(member)
		case DimensionSize:
			l.MaxFileSize, ok = count(member)
		case DimensionCalls:
			l.MaxCalls, ok = count(member)
		case DimensionAudit:
			ok = member.Kind() == jcs.Bool
			truth := member.Bool()
			l.AuditRequired = &truth
		default:
			return Limits{}, refuse(Malformed, quoteShort(name), "unknown member")
		}
		if !ok {
			return Limits{}, refuse(Malformed, name, "not of its type")
		}
	}
	if refusal := l.validate(); refusal != nil {
		return Limits{}, refusal
	}
	return l, nil
}

// stringList never answers nil for a list, so that an empty one stays empty
// instead of absent.
func stringList(v jcs.Value) ([]string, bool) {
	list, ok := v.Strings()
	if ok && list == nil {
		list = []string{}
	}
	return list, ok
}

func count(v jcs.Value) (*int64, bool) {
	n, ok := integer(v)
	return &n, ok && n >= 0
}

// validate holds Limits that were built by hand to the same rules.
func (l Limits) validate() *Refusal {
	if len(l.Resources) > maxEntries || len(l.AllowNetwork) > maxEntries {
		return refuse(Malformed, DimensionResources, "more than 32 entries")
	}
	for _, entry := range l.Resources {
		if !validResourceEntry(entry) {
			return refuse(Malformed, DimensionResources, quoteShort(entry))
		}
	}
	for _, entry := range l.AllowNetwork {
		if _, ok := parseHost(entry); !ok {
			return refuse(Malformed, DimensionNetwork, quoteShort(entry))
		}
	}
	if l.MaxFileSize != nil && (*l.MaxFileSize < 0 || *l.MaxFileSize > jcs.MaxInt) {
		return refuse(Malformed, DimensionSize, "out of range")
	}
	if l.MaxCalls != nil && (*l.MaxCalls < 1 || *l.MaxCalls > jcs.MaxInt) {
		return refuse(Malformed, DimensionCalls, "out of range")
	}
	return nil
}

// covers says which member of the child is wider than the parent's, "" if none
// is. delegation.md §5: "If the parent has a member the child repeats it, equal
// or tighter; absence in the child → refused."
func (l Limits) covers(child Limits) (dimension string) {
	switch {
	case l.Resources != nil && (child.Resources == nil ||
		!everyCovered(l.Resources, child.Resources, resourceCovers)):
		return DimensionResources
	case l.AllowNetwork != nil && (child.AllowNetwork == nil || !networkCovered(l.AllowNetwork, child.AllowNetwork)):
		return DimensionNetwork
	case l.MaxFileSize != nil && (child.MaxFileSize == nil || *child.MaxFileSize > *l.MaxFileSize):
		return DimensionSize
	case l.MaxCalls != nil && (child.MaxCalls == nil || *child.MaxCalls > *l.MaxCalls):
		return DimensionCalls
	case l.AuditRequired != nil && (child.AuditRequired == nil || *l.AuditRequired && !*child.AuditRequired):
		return DimensionAudit
	}
	return ""
}

// within repeats in l what it leaves absent and the parent has.
func (l Limits) within(parent Limits) Limits {
	if l.Resources == nil {
		l.Resources = parent.Resources
	}
	if l.AllowNetwork == nil {
		l.AllowNetwork = parent.AllowNetwork
	}
	if l.MaxFileSize == nil {
		l.MaxFileSize = parent.MaxFileSize
	}
	if l.MaxCalls == nil {
		l.MaxCalls = parent.MaxCalls
	}
	if l.AuditRequired == nil {
		l.AuditRequired = parent.AuditRequired
	}
	return l.clone()
}

// clone lets nobody outside reach the limits of a verified chain.
func (l Limits) clone() Limits {
	l.Resources, l.AllowNetwork = slices.Clone(l.Resources), slices.Clone(l.AllowNetwork)
	l.MaxFileSize, l.MaxCalls, l.AuditRequired = clonePointer(l.MaxFileSize), clonePointer(l.MaxCalls), clonePointer(l.AuditRequired)
	return l
}

func clonePointer[T any](p *T) *T {
	if p == nil {
		return nil
	}
	value := *p
	return &value
}

func everyCovered[T any](parents, children []T, covers func(parent, child T) bool) bool {
	for _, child := range children {
		if !slices.ContainsFunc(parents, func(parent T) bool { return covers(parent, child) }) {
			return false
		}
	}
	return true
}

// A resource id is canonical if no other spelling of it can be: printable
// ASCII, no percent-encoding, no empty segment but a leading or trailing one,
// no "." or ".." segment. "*" would read as a wildcard to people, so it is not
// part of one either.
func validResource(id string) bool {
	if id == "" || len(id) > maxResource || !printable(id) ||
		strings.ContainsAny(id, "%*") || strings.Contains(id, "//") {
		return false
	}
	for segment := range strings.SplitSeq(id, "/") {
		if segment == "." || segment == ".." {
			return false
		}
	}
	return true
}

// validResourceEntry takes a literal, or a prefix that ends in "/*" ("/*" alone
// is illegal).
func validResourceEntry(entry string) bool {
	prefix, wildcard := strings.CutSuffix(entry, "/*")
	return len(entry) <= maxResource && validResource(prefix) &&
		!(wildcard && strings.HasSuffix(prefix, "/"))
}

// resourceCovers compares two valid entries.
func resourceCovers(parent, child string) bool {
	prefix, wildcard := strings.CutSuffix(parent, "*")
	if !wildcard {
		return parent == child
	}
	// What is left of "p/*" is "p/". A literal must be longer; "c/*" may be
	// the same prefix or one below it.
	return strings.HasPrefix(child, prefix) && len(child) > len(prefix)
}

func resourceAllowed(entries []string, id string) bool {
	return validResource(id) && slices.ContainsFunc(entries, func(entry string) bool {
		return resourceCovers(entry, id)
	})
}
