package main

import (
	"regexp"
	"slices"

	"github.com/alecthomas/kong"
)

// dashedID is an id (a thumbprint, a token's, a grant's) that begins with a
// hyphen, as one in 64 does: ids are base64url.
var dashedID = regexp.MustCompile(`^-(?:[A-Za-z0-9_][A-Za-z0-9_-]{20}|[A-Za-z0-9_-]{42})$`)

// hyphenated writes such ids in the way that the parser does not take them for
// flags, so that nobody has to: after the flag they belong to with "=", and else
// behind "--".
func hyphenated(node *kong.Node, args []string) []string {
	if slices.Contains(args, "--") || !slices.ContainsFunc(args, dashedID.MatchString) {
		return args
	}
	valued := map[string]bool{}
	collectValued(node, valued)
	var words, positional []string
	for _, arg := range args {
		switch last := len(words) - 1; {
		case !dashedID.MatchString(arg):
			words = append(words, arg)
		case last >= 0 && valued[words[last]]:
			words[last] += "=" + arg
		default:
			positional = append(positional, arg)
		}
	}
	if len(positional) == 0 {
		return words
	}
	return append(append(words, "--"), positional...)
}

// collectValued finds the flags that take a value.
func collectValued(node *kong.Node, valued map[string]bool) {
	for _, flag := range node.Flags {
		if !flag.IsBool() {
			valued["--"+flag.Name] = true
		}
	}
	for _, child := range node.Children {
		collectValued(child, valued)
	}
}
