package guard_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/guard"
)

// spillAt tries to start a Reporter on a directory.
func (w *world) spillAt(l *fakeLog, dir string) (*guard.Reporter, error) {
	return guard.NewReporter(guard.ReporterConfig{URL: l.url, Resource: resource, SpillDir: dir, Now: w.clock})
}

// "One Reporter at a time": two would write over each other's entries, which
// must never be lost.
func TestReporterSpillAlone(t *testing.T) {
	w, l, dir := newWorld(t), newFakeLog(t), t.TempDir()
	first := w.reporter(l, func(c *guard.ReporterConfig) { c.SpillDir = dir })
	second, err := w.spillAt(l, dir)
	if err == nil {
		_ = second.Close(context.Background())
	}
	if !errors.Is(err, guard.ErrReport) {
		t.Errorf("a second one on the same directory: %v", err)
	}
	closed(t, first)
	third := w.reporter(l, func(c *guard.ReporterConfig) { c.SpillDir = dir })
	closed(t, third)
}

// "The files are for this user alone", also one that was there before; and what
// is no file of one's own is not written to.
func TestReporterSpillFile(t *testing.T) {
	w, l := newWorld(t), newFakeLog(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "reports.jsonl")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	closed(t, w.reporter(l, func(c *guard.ReporterConfig) { c.SpillDir = dir }))
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}

	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	linked := t.TempDir()
	if err := os.Symlink(victim, filepath.Join(linked, "reports.jsonl")); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	if err := os.Mkdir(filepath.Join(folder, "reports.jsonl"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{linked, folder} {
		r, err := w.spillAt(l, dir)
		if err == nil {
			_ = r.Close(context.Background())
		}
		if !errors.Is(err, guard.ErrReport) {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if text, err := os.ReadFile(victim); err != nil || string(text) != "precious" {
		t.Errorf("the file that the link points to holds %q, %v", text, err)
	}
}

// A line that no entry can be is not read whole, and is counted as one that was
// lost.
func TestReporterSpillPoisoned(t *testing.T) {
	w, l, dir := newWorld(t), newFakeLog(t), t.TempDir()
	good := `{"id":"01890000-0000-7000-8000-000000000001","observed":1,"action":"rs.access","resource":"` + resource + `","result":"allowed"}`
	lines := []string{"", "null", "[]", "{}", `{"id":7}`, `{"id":"x","agent":"forged"}`, strings.Repeat("x", 3<<20), good, good[:40]}
	if err := os.WriteFile(filepath.Join(dir, "reports.jsonl"), []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	closed(t, w.reporter(l, func(c *guard.ReporterConfig) { c.SpillDir = dir }))
	if got := l.with(guard.ActionAccess, "allowed"); len(got) != 1 {
		t.Errorf("%d entries", len(got))
	}
	if got := l.with(guard.ActionDropped, "failed"); len(got) != 1 || got[0].Detail.Count != 7 {
		t.Errorf("%+v", got)
	}
	if info, err := os.Stat(filepath.Join(dir, "reports.jsonl")); err != nil || info.Size() != 0 {
		t.Errorf("%v, %v", info, err)
	}
}

// Reports carry credentials: they leave this machine by https alone.
func TestReporterInTheClear(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://auth.example/api/v1/audit/entries": true, "http://127.0.0.1:8420/api/v1/audit/entries": true,
		"http://[::1]:8420/x": true, "http://localhost/x": true,
		"http://auth.example/api/v1/audit/entries": false, "http://127.0.0.1.example/x": false, "ftp://auth.example/x": false,
		"auth.example/x": false, "https://": false, "": false, "https://u:p@auth.example/x": false,
	} {
		func() {
			defer func() {
				if refused := recover() != nil; refused == ok {
					t.Errorf("%q: refused %v", url, refused)
				}
			}()
			r, err := guard.NewReporter(guard.ReporterConfig{URL: url, Resource: resource})
			if err != nil {
				t.Fatal(err)
			}
			_ = r.Close(context.Background())
		}()
	}
}
