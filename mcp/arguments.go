package mcp

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/kavach-dev/kavach/jcs"
)

var (
	scopePattern     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$`)
	printablePattern = regexp.MustCompile(`^[!-~]+$`)
	textPattern      = regexp.MustCompile(`^[^\x00-\x1f\x7f]+$`)
	methodPattern    = regexp.MustCompile(`^[A-Z]+$`)
	digestPattern    = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)
	idPattern        = regexp.MustCompile(`^[A-Za-z0-9._~:-]{1,64}$`) // of a log entry or a token, as a URI has it
	actionPattern    = regexp.MustCompile(`^[a-z]+(\.[a-z_]+)*$`)
)

// arguments reads the arguments of a tool by the rules of its input schema and
// remembers the first thing that is wrong, in words a model can act on. The
// schemas are what clients see; a test holds the two together.
type arguments struct {
	where string // prefix of names in messages
	value jcs.Value
	err   *refusal
}

func readArguments(value jcs.Value, where string, known ...string) *arguments {
	a := &arguments{where: where, value: value}
	for name := range value.Fields() {
		if !slices.Contains(known, name) {
			a.fail("%s%.40q is not an argument here; there are %s", where, name, strings.Join(known, ", "))
			break
		}
	}
	return a
}

func (a *arguments) fail(format string, args ...any) {
	if a.err == nil {
		a.err = &refusal{reason: "invalid_arguments", text: fmt.Sprintf(format, args...)}
	}
}

func (a *arguments) has(name string) bool { return a.value.Get(name).Exists() }

func (a *arguments) text(name string, limit int, pattern *regexp.Regexp) string {
	v := a.value.Get(name)
	if !v.Exists() {
		return ""
	}
	s := v.Str()
	if v.Kind() != jcs.String || s == "" || len(s) > limit || !pattern.MatchString(s) {
		a.fail("%s%s must be a string of 1 to %d characters matching %s", a.where, name, limit, pattern)
		return ""
	}
	return s
}

func (a *arguments) choice(name string, choices ...string) string {
	v := a.value.Get(name)
	if !v.Exists() {
		return ""
	}
	if v.Kind() != jcs.String || !slices.Contains(choices, v.Str()) {
		a.fail("%s%s must be one of %s", a.where, name, strings.Join(choices, ", "))
		return ""
	}
	return v.Str()
}

func (a *arguments) integer(name string, smallest, largest, absent int64) int64 {
	v := a.value.Get(name)
	if !v.Exists() {
		return absent
	}
	n, ok := v.Int()
	if !ok || n < smallest || n > largest {
		a.fail("%s%s must be an integer from %d to %d", a.where, name, smallest, largest)
		return absent
	}
	return n
}

func (a *arguments) boolean(name string) bool {
	v := a.value.Get(name)
	if v.Exists() && v.Kind() != jcs.Bool {
		a.fail("%s%s must be true or false", a.where, name)
	}
	return v.Bool()
}

func (a *arguments) list(name string, limit int, length int, pattern *regexp.Regexp) []string {
	v := a.value.Get(name)
	if !v.Exists() {
		return nil
	}
	items, ok := v.Strings()
	if !ok || len(items) > limit {
		a.fail("%s%s must be an array of at most %d strings", a.where, name, limit)
		return nil
	}
	seen := map[string]bool{}
	for _, s := range items {
		switch {
		case s == "" || len(s) > length || !pattern.MatchString(s):
			a.fail("every item of %s%s must be a string of 1 to %d characters matching %s", a.where, name, length, pattern)
		case seen[s]:
			a.fail("%s%s names %s twice", a.where, name, s)
		}
		seen[s] = true
	}
	if items == nil {
		items = []string{}
	}
	return items
}

func (a *arguments) object(name string) jcs.Value {
	v := a.value.Get(name)
	if v.Exists() && v.Kind() != jcs.Object {
		a.fail("%s%s must be an object", a.where, name)
		return jcs.Value{}
	}
	return v
}

// refusal is a decision against the caller inside a tool: an isError result
// whose text says what to do about it.
type refusal struct {
	reason      string // the vocabulary of delegation.md §6, or an OAuth error code
	text        string
	unavailable bool // nothing was decided: the log or the database is not there
}

func (r *refusal) Error() string { return "refused: " + r.reason + ": " + r.text }
