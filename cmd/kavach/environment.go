package main

import (
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/alecthomas/kong"
)

// configuring are the flags outside `serve` that say where a command works or
// how it prints. They and all of `serve` can come from the environment. What a
// command does, and to whom, is written on its command line: a KAVACH_VERSION
// that an image sets is no agent's version, a KAVACH_ROLE makes nobody an
// operator, and a KAVACH_WITHOUT answers no question that `kavach verify` asks.
var configuring = map[string]bool{
	"dev": true, "data": true, "db": true, "db-file": true, "d1-token-file": true, "secret-file": true, "issuer": true,
	"ops": true, "key-file": true, "json": true,
}

// nameVariables gives every such flag its variable, KAVACH_<FLAG>. It sets the
// flag's own list alone: kong would read the tag's, and then a variable that
// cannot be parsed stops a command whose flag is given.
func nameVariables(node *kong.Node) {
	for _, flag := range node.Flags {
		if flag.Name != "help" && (node.Name == "serve" || configuring[flag.Name]) {
			flag.Envs = []string{"KAVACH_" + strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_"))}
		}
	}
	for _, child := range node.Children {
		nameVariables(child)
	}
}

// fromEnvironment resolves a flag that was not given from its variable. An
// empty variable is one that is not set: a compose file cannot leave one out.
func fromEnvironment(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	for _, name := range flag.Envs {
		text := os.Getenv(name)
		if text == "" {
			continue
		}
		scan := kong.ScanFromTokens(kong.Token{Type: kong.FlagValueToken, Value: text})
		probe := reflect.New(flag.Target.Type()).Elem()
		if err := flag.Mapper.Decode(&kong.DecodeContext{Value: flag.Value, Scan: scan}, probe); err != nil {
			return nil, fmt.Errorf("from the variable %s: %w", name, err)
		}
		return text, nil
	}
	return nil, nil
}

// helpWithVariable is the help text of a flag, with its variable.
func helpWithVariable(value *kong.Value) string {
	if value.Flag == nil || len(value.Flag.Envs) == 0 {
		return value.Help
	}
	return strings.TrimSuffix(value.Help, ".") + " ($" + value.Flag.Envs[0] + ")."
}
