package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/kavach-dev/kavach/store"
)

// d1TokenVariable holds the token for a database on D1, if no file does.
const d1TokenVariable = "KAVACH_D1_TOKEN"

// overHTTP says whether the database is asked over HTTP, with a token.
func (d databaseURL) overHTTP() bool {
	return strings.HasPrefix(string(d), "d1://") || strings.HasPrefix(string(d), "d1-bridge://")
}

// token reads the token for a database on D1 from a file that holds nothing
// else, or from the environment. Other databases have none.
func (d databaseURL) token(file string) (store.Token, error) {
	if !d.overHTTP() {
		return "", nil
	}
	text := os.Getenv(d1TokenVariable)
	if file != "" {
		content, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("reading the token for D1 from %s: %w", file, pathCause(err))
		}
		text = string(content)
	}
	if text = strings.TrimSpace(text); text == "" {
		return "", usagef("name its file with --d1-token-file, or put it into "+d1TokenVariable, "there is no token for %s", d)
	}
	return store.Token(text), nil
}
