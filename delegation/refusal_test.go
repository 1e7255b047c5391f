package delegation_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/delegation"
)

// Every reason and dimension that there is a constant for is known, and no
// other word is.
func TestVocabulary(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "refusal.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	pages := map[string]string{"audit-log.md": "", "delegation-token.md": ""} // for readers of the log, and for who writes a verifier
	for name := range pages {
		text, err := os.ReadFile("../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		pages[name] = string(text)
	}
	seen := 0
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		value, ok := spec.Values[0].(*ast.BasicLit)
		if !ok {
			return true
		}
		word, err := strconv.Unquote(value.Value)
		if err != nil {
			t.Fatal(err)
		}
		seen++
		name, known := spec.Names[0].Name, delegation.Reason(word).Known()
		if strings.HasPrefix(name, "Dimension") {
			known = delegation.KnownDimension(word)
		} else {
			for page, text := range pages {
				if !strings.Contains(text, "`"+word+"`") {
					t.Errorf("%s does not name the reason %s", page, word)
				}
			}
		}
		if !known {
			t.Errorf("%s (%s) is not known", name, word)
		}
		return true
	})
	if seen < 40 {
		t.Errorf("%d words", seen)
	}
	for _, word := range []string{"", "Expired", "expired ", "scopes"} {
		if delegation.Reason(word).Known() || delegation.KnownDimension(word) {
			t.Errorf("%q is known", word)
		}
	}
}
