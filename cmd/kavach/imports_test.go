package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
)

const modulePath = "github.com/kavach-dev/kavach"

// arrows are the imports that exist between our packages, which is the security
// model: what may know what. An arrow that is missing here fails the test, and
// so does one that is listed and no longer drawn. The command knows everybody.
var arrows = map[string][]string{
	"jcs":         nil,
	"agent":       {"jcs"},
	"delegation":  {"agent", "jcs"},
	"audit":       {"jcs"},
	"wellknown":   nil,
	"guard":       {"agent", "delegation", "wellknown"},
	"client":      {"agent", "delegation", "jcs"},
	"templates":   nil,
	"migrations":  nil,
	"people":      {"audit", "templates"},
	"authz":       {"agent", "audit", "delegation", "jcs", "people", "templates", "wellknown"},
	"api":         {"agent", "audit", "authz", "delegation", "guard", "jcs"},
	"mcp":         {"agent", "audit", "delegation", "guard", "jcs"},
	"store":       {"agent", "audit", "authz", "delegation", "migrations", "people"},
	"demo":        {"agent", "client", "delegation", "guard", "wellknown"},
	"conformance": {"agent", "delegation", "jcs"},
}

// heavy dependencies are imported by exactly one package, so that they can be
// judged, and replaced, in one place. The test's own tools are not listed.
var heavy = map[string]string{
	"github.com/ory/fosite":              "authz",
	"github.com/mark3labs/mcp-go":        "mcp",
	"github.com/gorilla/sessions":        "people",
	"github.com/gorilla/securecookie":    "people",
	"github.com/jackc/pgx":               "store",
	"modernc.org/sqlite":                 "store",
	"github.com/alecthomas/kong":         "cmd/kavach",
	"github.com/prometheus":              "cmd/kavach",
	"golang.org/x/mod":                   "audit",
	"golang.org/x/crypto/argon2":         "people",
	"golang.org/x/term":                  "cmd/kavach",
	"github.com/compose-spec/compose-go": "", // tests only
	"github.com/cristalhq/jwt":           "", // tests only
	"github.com/rogpeppe/go-internal":    "", // tests only
	"pgregory.net/rapid":                 "", // tests only
	"github.com/google/go-cmp":           "", // tests only
	"testing":                            "",
}

// goPackage is what `go list -json` says of a package.
type goPackage struct {
	ImportPath string
	Standard   bool
	Imports    []string
	Module     *struct{ Path string }
}

// listPackages lists our packages and all they depend on, tests excluded.
func listPackages(t *testing.T, patterns ...string) map[string]goPackage {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-deps", "-json=ImportPath,Standard,Imports,Module"}, patterns...)...)
	cmd.Dir = "../.."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	packages := map[string]goPackage{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages[p.ImportPath] = p
	}
	return packages
}

// ours returns the folder of a package of this module.
func ours(importPath string) (string, bool) {
	folder, ok := strings.CutPrefix(importPath, modulePath+"/")
	return folder, ok
}

// TestImports holds the code to the layout of docs/architecture.md.
func TestImports(t *testing.T) {
	packages := listPackages(t, "./...")
	drawn := map[string][]string{}
	for path, p := range packages {
		folder, ok := ours(path)
		if !ok || folder == "cmd/kavach" {
			continue
		}
		noun, _, below := strings.Cut(folder, "/")
		if _, known := arrows[noun]; !known {
			t.Errorf("package %s is not in the layout", folder)
			continue
		}
		for _, imported := range p.Imports {
			to, ok := ours(imported)
			if !ok {
				continue
			}
			toNoun, _, _ := strings.Cut(to, "/")
			if toNoun == noun {
				continue
			}
			if !slices.Contains(arrows[noun], toNoun) {
				t.Errorf("%s imports %s: there is no such arrow", folder, to)
			}
			if !below && !slices.Contains(drawn[noun], toNoun) {
				drawn[noun] = append(drawn[noun], toNoun)
			}
		}
	}
	for noun, allowed := range arrows {
		if _, exists := packages[modulePath+"/"+noun]; !exists {
			t.Errorf("the layout names %s, which does not exist", noun)
			continue
		}
		for _, to := range allowed {
			if !slices.Contains(drawn[noun], to) {
				t.Errorf("the layout draws an arrow from %s to %s that is not there", noun, to)
			}
		}
	}
}

// TestImportsHeavy holds every heavy dependency to one importer, and tests'
// tools to none.
func TestImportsHeavy(t *testing.T) {
	importers := map[string][]string{}
	for path, p := range listPackages(t, "./...") {
		folder, ok := ours(path)
		if !ok || strings.HasSuffix(folder, "test") {
			continue // audittest and the like are for tests
		}
		for _, imported := range p.Imports {
			for dependency := range heavy {
				if imported == dependency || strings.HasPrefix(imported, dependency+"/") {
					if !slices.Contains(importers[dependency], folder) {
						importers[dependency] = append(importers[dependency], folder)
					}
				}
			}
		}
	}
	for dependency, who := range importers {
		sort.Strings(who)
		if heavy[dependency] == "" && len(who) > 0 {
			t.Errorf("%s is for tests and imported by %v", dependency, who)
		} else if len(who) != 1 || who[0] != heavy[dependency] {
			t.Errorf("%s is imported by %v, want %s alone", dependency, who, heavy[dependency])
		}
	}
}

// TestImportsDelegation: a third party that imports delegation, or guard or
// client with it, gets nothing it did not ask for.
func TestImportsDelegation(t *testing.T) {
	for _, folder := range []string{"delegation", "guard", "client"} {
		for path, p := range listPackages(t, "./"+folder) {
			if p.Standard || p.Module == nil || p.Module.Path == modulePath {
				continue
			}
			if p.Module.Path != "github.com/go-jose/go-jose/v4" {
				t.Errorf("importing %s brings %s", folder, path)
			}
		}
	}
}

// TestImportsFileSize: files below 400 lines, so that a reader holds one in
// the head.
func TestImportsFileSize(t *testing.T) {
	err := filepath.WalkDir("../..", func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git" || d.Name() == "e2e") {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if n := strings.Count(string(text), "\n"); n >= 400 {
			t.Errorf("%s has %d lines", filepath.ToSlash(path), n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
