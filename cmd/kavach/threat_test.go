package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestThreatModel: what docs/threat-model.md names exists: tests, vectors,
// files, and every command with every flag.
func TestThreatModel(t *testing.T) {
	text, err := os.ReadFile("../../docs/threat-model.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(text)
	tests := map[string]bool{}
	err = filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		source, err := os.ReadFile(path)
		for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllSubmatch(source, -1) {
			tests[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Vectors []struct {
			ID string `json:"id"`
		} `json:"vectors"`
	}
	data, err := os.ReadFile("../../delegation/testdata/kdt1.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	vectors := map[string]bool{}
	for _, v := range file.Vectors {
		vectors[v.ID] = true
	}
	found := func(pattern string, there func(name string) bool) {
		t.Helper()
		all := regexp.MustCompile(pattern).FindAllStringSubmatch(doc, -1)
		if len(all) == 0 {
			t.Errorf("nothing in the document is %s", pattern)
		}
		for _, m := range all {
			if !there(m[1]) {
				t.Errorf("docs/threat-model.md names %s, which is not there", m[1])
			}
		}
	}
	found(`\b((?:Test|Fuzz)[A-Z]\w+)`, func(name string) bool { return tests[name] })
	found("`kdt1:([A-Za-z0-9_-]+)`", func(name string) bool { return vectors[name] })
	found("`([a-z]+(?:/[a-z_]+)*\\.go)`", func(name string) bool {
		_, err := os.Stat(filepath.Join("../..", name))
		return err == nil
	})
	found("(?m)(?:^|`)kavach ([a-z][^`\n]*)", func(command string) bool { return commandExists(t, command) })
}

// commandExists asks for the help of a command and looks for its flags in it.
func commandExists(t *testing.T, line string) bool {
	t.Helper()
	line, _, _ = strings.Cut(line, " > ")
	fields := strings.Fields(regexp.MustCompile(`'[^']*'`).ReplaceAllString(line, "X"))
	words := []string{}
	for _, f := range fields {
		if len(words) == 2 || !regexp.MustCompile(`^[a-z]+$`).MatchString(f) {
			break
		}
		words = append(words, f)
	}
	var out, diag bytes.Buffer
	w := &world{ctx: context.Background(), stdin: strings.NewReader(""), stdout: &out, stderr: &diag, now: now}
	if code := w.run(append(words, "--help")); code != exitOK {
		t.Logf("kavach %s --help: %d %s", strings.Join(words, " "), code, diag.String())
		return false
	}
	for _, f := range fields {
		if flag, _, _ := strings.Cut(f, "="); strings.HasPrefix(flag, "--") && !regexp.MustCompile(regexp.QuoteMeta(flag)+`\b`).MatchString(out.String()) {
			t.Logf("kavach %s has no %s", strings.Join(words, " "), flag)
			return false
		}
	}
	return true
}
