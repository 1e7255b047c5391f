package jcs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/kavach-dev/kavach/jcs"
)

// TestSuite decides every file of JSONTestSuite: y_ is accepted, n_ refused,
// and verdicts.json says what happens to i_ and to the y_ that our rules refuse.
func TestSuite(t *testing.T) {
	text, err := os.ReadFile("testdata/verdicts.json")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jcs.Parse(text, jcs.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	verdicts := doc.Get("verdicts")
	files, err := filepath.Glob("testdata/jsontestsuite/test_parsing/*.json")
	if err != nil || len(files) < 300 {
		t.Fatalf("found %d files, %v", len(files), err)
	}
	used := 0
	for _, file := range files {
		name := filepath.Base(file)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		accept := name[0] == 'y'
		if verdict := verdicts.Get(name); verdict.Exists() {
			accept = verdict.Str() == "accept"
			used++
		} else if name[0] == 'i' {
			t.Errorf("%s: verdicts.json does not decide it", name)
		}
		v, err := jcs.Parse(data, jcs.Limits{})
		if (err == nil) != accept {
			t.Errorf("%s: accepted %v, want %v (%v)", name, err == nil, accept, err)
		}
		if err != nil && v.Exists() {
			t.Errorf("%s: a value beside the error", name)
		}
	}
	if used != verdicts.Len() {
		t.Errorf("verdicts.json decides %d files, %d of them exist", verdicts.Len(), used)
	}
}
