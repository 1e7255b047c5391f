package migrations

import (
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

// The steps are numbered without gaps, and their portable part is: no word of
// one database alone.
func TestMigrations(t *testing.T) {
	steps, err := For("sqlite")
	if err != nil {
		t.Fatal(err)
	}
	alone := regexp.MustCompile(`(?i)\b(AUTOINCREMENT|WITHOUT ROWID|STRICT|SERIAL|JSONB|BYTEA|BLOB|INTEGER|BOOLEAN|TIMESTAMP|DATETIME|PRAGMA|TRIGGER|REPLACE|RAISE)\b`)
	for i, step := range steps {
		if step.Version != i+1 {
			t.Errorf("%04d_%s: want number %04d", step.Version, step.Name, i+1)
		}
		if len(step.Statements) == 0 {
			t.Errorf("%04d_%s is empty", step.Version, step.Name)
		}
	}
	portable, err := For("no adapter")
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range portable {
		for _, statement := range step.Statements {
			if word := alone.FindString(statement); word != "" {
				t.Errorf("%04d_%s: %q is not portable in %s", step.Version, step.Name, word, statement)
			}
			if strings.Contains(statement, ";") {
				t.Errorf("%04d_%s: two statements in one: %s", step.Version, step.Name, statement)
			}
		}
	}
}

func TestLoad(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	steps, err := load(fstest.MapFS{
		"0002_b.sql":        file("-- a comment; with a semicolon\nCREATE TABLE b (\n  x TEXT\n);\n\nCREATE INDEX bx ON b (x);\n"),
		"0001_a.sql":        file("CREATE TABLE a (x TEXT);"),
		"0001_a.sqlite.sql": file("CREATE TRIGGER t BEFORE UPDATE ON a\nBEGIN SELECT 1; SELECT 2;\nEND\n;;\nCREATE TRIGGER u BEFORE UPDATE ON a\nBEGIN SELECT 1; END\n;;\n"),
		"0001_a.other.sql":  file("NOTHING HERE\n;;\n"),
	}, "sqlite")
	if err != nil {
		t.Fatal(err)
	}
	if len(steps) != 2 || steps[0].Name != "a" || len(steps[0].Statements) != 3 || len(steps[1].Statements) != 2 {
		t.Fatalf("%+v", steps)
	}
	if got := steps[0].Statements[1]; !strings.HasSuffix(got, "SELECT 2;\nEND") {
		t.Errorf("trigger cut: %q", got)
	}
	for name, fs := range map[string]fstest.MapFS{
		"no number":   {"a.sql": file("x;\n")},
		"same number": {"0001_a.sql": file("x;\n"), "0001_b.sql": file("x;\n")},
		"a word":      {"one_a.sql": file("x;\n")},
	} {
		if _, err := load(fs, "sqlite"); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
