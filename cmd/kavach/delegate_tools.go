package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// toolFlags say which tools a token may call, and with what: one by one, or all
// at once in the form of the token.
type toolFlags struct {
	Tool  []string `sep:"none" placeholder:"NAME" help:"Tool it may call, with any arguments; repeatable (those of the chain)."`
	Arg   []string `sep:"none" placeholder:"TOOL:ARG=VALUE" help:"Tool it may call, and what an argument must be: a value, a list in brackets (one of them), LOW..HIGH, * (anything) or a constraint in JSON; ARG? may be left out; repeatable. An argument not named is refused, unless there is TOOL:*=*."`
	Tools string   `placeholder:"JSON" help:"Tools and constraints as in the token, {\"TOOL\":{\"ARG\":CONSTRAINT}}, or the name of a file with that; - is standard input."`
}

const argHint = `write it like --arg get_diff:pull=847, --arg 'get_diff:format?=["patch","raw"]', --arg get_diff:lines=1..500 or --arg 'get_diff:*=*'`

// tools puts the flags together, nil if there are none.
func (f *toolFlags) tools(w *world) (delegation.Tools, error) {
	switch {
	case f.Tools != "" && len(f.Tool)+len(f.Arg) > 0:
		return nil, usagef("", "--tools says all of it: not with --tool and --arg")
	case f.Tools != "":
		return f.whole(w)
	case len(f.Tool)+len(f.Arg) == 0:
		return nil, nil
	}
	tools := delegation.Tools{}
	for _, name := range f.Tool {
		tools[name] = delegation.AllowAnyArgs
	}
	named := map[string]map[string]delegation.Constraint{}
	for _, text := range f.Arg {
		tool, name, c, err := parseArg(text)
		if err != nil {
			return nil, usage(fmt.Errorf("--arg %q: %w", text, err), argHint)
		}
		if _, ok := tools[tool]; ok {
			return nil, usagef("leave one of them out", "--tool %s allows any arguments, and --arg %q restricts them", tool, text)
		}
		if _, ok := named[tool][name]; ok {
			return nil, usagef(`give one list: --arg 'TOOL:ARG=["a","b"]'`, "--arg names the argument %q of %q twice", name, tool)
		}
		if named[tool] == nil {
			named[tool] = map[string]delegation.Constraint{}
		}
		named[tool][name] = c
	}
	for tool, arguments := range named {
		tools[tool] = delegation.Args(arguments)
	}
	return tools, nil
}

// whole reads --tools.
func (f *toolFlags) whole(w *world) (delegation.Tools, error) {
	data, where := []byte(f.Tools), "--tools"
	if !strings.HasPrefix(strings.TrimSpace(f.Tools), "{") {
		var err error
		if data, err = w.read(f.Tools); err != nil {
			return nil, err
		}
		where = "--tools " + f.Tools
	}
	v, err := jcs.Parse(bytes.TrimSpace(data), jcs.Limits{})
	if err != nil {
		return nil, usage(fmt.Errorf("%s: %w", where, err), "")
	}
	tools, err := delegation.ParseTools(v)
	if err != nil {
		return nil, usage(fmt.Errorf("%s: %w", where, problemOf(err)),
			`write it like {"get_diff":{"pull":{"constraint_type":"exact","value":847}}}; {} allows any arguments`)
	}
	return tools, nil
}

// parseArg reads TOOL:ARG=VALUE. The colon is the last before the sign, so a
// tool may have one in its name.
func parseArg(text string) (tool, name string, c delegation.Constraint, err error) {
	left, value, ok := strings.Cut(text, "=")
	at := strings.LastIndexByte(left, ':')
	if !ok || at < 1 {
		return "", "", c, errors.New("not TOOL:ARG=VALUE")
	}
	tool, name = left[:at], left[at+1:]
	name, optional := strings.CutSuffix(name, "?")
	if c, err = parseArgValue(value); err != nil {
		return "", "", c, err
	}
	if c.Err() != nil {
		return "", "", c, problemOf(c.Err())
	}
	if optional {
		c = c.Optional()
	}
	return tool, name, c, nil
}

// parseArgValue reads what an argument must be. What reads as JSON is JSON, so
// that 847 is a number and "847" is text; everything else is text.
func parseArgValue(value string) (delegation.Constraint, error) {
	if value == "*" {
		return delegation.Wildcard(), nil
	}
	if low, high, ok := strings.Cut(value, ".."); ok && (low != "" || high != "") {
		if min, ok := parseBound(low); ok {
			if max, ok := parseBound(high); ok {
				return constraint("range", "min", min, "max", max)
			}
		}
	}
	v, err := jcs.Parse([]byte(value), jcs.Limits{})
	switch {
	case err != nil && value != "" && strings.ContainsRune("[{\"", rune(value[0])):
		return delegation.Constraint{}, err // it was meant as JSON
	case err != nil:
		return delegation.Exact(value), nil
	case v.Kind() == jcs.Array:
		return constraint("one_of", "values", v)
	case v.Kind() == jcs.Object:
		c, err := delegation.ParseConstraint(v)
		return c, problemOf(err)
	}
	return constraint("exact", "value", v)
}

// parseBound reads one end of a range; "" is none.
func parseBound(text string) (v jcs.Value, ok bool) {
	if text == "" {
		return v, true
	}
	v, err := jcs.Parse([]byte(text), jcs.Limits{})
	return v, err == nil && v.Kind() == jcs.Number
}

// constraint makes one of the members that are there, in their own text: the
// spelling of a number says whether it is exact.
func constraint(kind string, pairs ...any) (delegation.Constraint, error) {
	wire := map[string]any{"constraint_type": kind}
	for i := 0; i < len(pairs); i += 2 {
		if v := pairs[i+1].(jcs.Value); v.Exists() {
			wire[pairs[i].(string)] = v
		}
	}
	v, err := jcs.Of(wire)
	if err != nil {
		return delegation.Constraint{}, err
	}
	c, err := delegation.ParseConstraint(v)
	return c, problemOf(err)
}

// problemOf is what a refusal says is wrong, without that it is a refusal: a
// flag was written wrongly.
func problemOf(err error) error {
	var refused *delegation.Refusal
	if errors.As(err, &refused) {
		return errors.New(refused.Detail)
	}
	return err
}

// toolsText shows tools on one line, each with what its arguments may be.
func toolsText(tools delegation.Tools) string {
	var list []string
	for _, name := range tools.Names() {
		arguments := tools[name]
		if arguments.Any() {
			list = append(list, name)
			continue
		}
		var parts []string
		for _, argument := range arguments.Names() {
			c, _ := arguments.Get(argument)
			parts = append(parts, constraintText(argument, c))
		}
		if arguments.Rest() {
			parts = append(parts, "*")
		}
		list = append(list, name+"("+strings.Join(parts, ", ")+")")
	}
	return strings.Join(list, ",")
}

// constraintText writes simple constraints as --arg reads them.
func constraintText(name string, c delegation.Constraint) string {
	if c.IsOptional() {
		name += "?"
	}
	wire, err := jcs.Of(c.Map())
	if err != nil {
		return name
	}
	text := func(member string) string {
		if v := wire.Get(member); v.Exists() {
			return string(jcs.Canonical(v))
		}
		return ""
	}
	switch kind := wire.Get("constraint_type").Str(); {
	case kind == "wildcard":
		return name + "=*"
	case kind == "exact":
		return name + "=" + text("value")
	case kind == "one_of":
		return name + "=" + text("values")
	case kind == "range" && text("min_inclusive")+text("max_inclusive") == "" && text("min")+text("max") != "":
		return name + "=" + text("min") + ".." + text("max")
	}
	return name + "=" + c.String()
}
