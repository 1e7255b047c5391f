package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"testing"

	"github.com/kavach-dev/kavach/audit"
)

// Many openings at once in one process, on an empty file, see one log.
func TestOpenTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kavach.db")
	ids := make([]string, 6)
	var wait sync.WaitGroup
	for i := range ids {
		wait.Go(func() {
			s, err := Open(t.Context(), Config{DSN: "sqlite:" + path, Issuer: "http://127.0.0.1:8420"})
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			ids[i] = s.LogID()
		})
	}
	wait.Wait()
	for _, id := range ids {
		if id != ids[0] || !regexp.MustCompile(`^127\.0\.0\.1:8420/audit/[0-9a-f]{8}$`).MatchString(id) {
			t.Errorf("log ids %q", ids)
			break
		}
	}
}

// The log's id is chosen once and kept when the issuer changes.
func TestLogIDIsKept(t *testing.T) {
	s, path := openTest(t)
	again, err := Open(t.Context(), Config{DSN: "sqlite:" + path, Issuer: "https://other.example"})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.LogID() != s.LogID() {
		t.Errorf("log id %q became %q", s.LogID(), again.LogID())
	}
}

func TestBadSources(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk.db")
	if err := os.WriteFile(junk, []byte("this is not a database, and it is long enough to look like one"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		cfg  Config
		want error
	}{
		{Config{DSN: ""}, ErrConfig},
		{Config{DSN: "sqlite:"}, ErrConfig},
		{Config{DSN: "sqlite::memory:"}, ErrConfig},
		{Config{DSN: "postgres://localhost:x/x"}, ErrConfig},
		{Config{DSN: "mysql://localhost/x"}, ErrConfig},
		{Config{DSN: "postgres://127.0.0.1:1/x"}, ErrStore},
		{Config{DSN: "sqlite:" + filepath.Join(dir, "new.db"), Issuer: "https://evil.example\"/x"}, ErrStore},
		{Config{DSN: "sqlite:" + filepath.Join(dir, "none.db"), ReadOnly: true}, ErrNoDatabase},
		{Config{DSN: "sqlite:" + junk, ReadOnly: true}, ErrNoDatabase},
		{Config{DSN: "sqlite:" + junk}, ErrStore},
		{Config{DSN: "sqlite:" + dir}, ErrStore},
	} {
		s, err := Open(t.Context(), test.cfg)
		if !errors.Is(err, test.want) {
			t.Errorf("Open(%+v) = %v, want %v", test.cfg, err, test.want)
		}
		if err == nil {
			s.Close()
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "none.db")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("reading created a database")
	}
}

// The database and its directory are nobody else's.
func TestPermissions(t *testing.T) {
	s, path := openTest(t)
	if _, err := s.Append(t.Context(), []audit.Write{{Effects: []audit.Effect{s.Recorded("none")}}}, 1); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{filepath.Dir(path): 0o700, path: 0o600, path + "-wal": 0o600} {
		info, err := os.Stat(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", name, got, want)
		}
	}
}

// A path may have any characters; a database opened only to be read refuses to
// be written.
func TestPathsAndReadOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?c#d%41&e=1.db")
	s, err := Open(t.Context(), Config{DSN: "sqlite:" + path})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Ping(t.Context()); err == nil {
		t.Error("a closed store answers")
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
	ro, err := Open(t.Context(), Config{DSN: "sqlite:" + path, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer ro.Close()
	if _, err := ro.read.db.Exec(`DELETE FROM settings`); err == nil {
		t.Error("a read-only database was written")
	}
	report, err := audit.Verify(t.Context(), ro, audit.VerifyConfig{})
	if err != nil || !report.OK() {
		t.Errorf("Verify = %+v, %v", report, err)
	}
}
