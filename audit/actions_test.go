package audit_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/audit"
)

// The list of actions is closed and documented: every constant may be written
// and stands in docs/audit-log.md.
func TestActionsAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../docs/audit-log.md")
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), "actions.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		lit, ok := spec.Values[0].(*ast.BasicLit)
		if !ok {
			return true
		}
		action, err := strconv.Unquote(lit.Value)
		if err != nil || action == audit.ReporterPrefix {
			return true
		}
		n++
		if !audit.KnownAction(action) {
			t.Errorf("%s may not be written", action)
		}
		if !strings.Contains(string(doc), "`"+action+"`") {
			t.Errorf("%s is not documented", action)
		}
		return true
	})
	if n < 40 {
		t.Errorf("found %d actions in actions.go", n)
	}
}
