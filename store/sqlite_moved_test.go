package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/kavach-dev/kavach/audit"
)

// SQLite writes on into a file that was deleted under it. What it commits there
// is lost with the process, so it is refused; with the file back it goes on.
func TestFilesAway(t *testing.T) {
	for name, file := range map[string]string{"database": "", "write-ahead log": "-wal"} {
		t.Run(name, func(t *testing.T) {
			s, path := openTest(t)
			f := fixture(t, s, path)
			l := startLog(t, s)
			if err := l.Commit(t.Context(), entryChange("before", f.Put("a", "live"))); err != nil {
				t.Fatal(err)
			}
			away := filepath.Join(t.TempDir(), "away")
			move := func(from, to string) {
				t.Helper()
				if err := os.Rename(from, to); err != nil {
					t.Fatal(err)
				}
			}
			refused := func(when string) {
				t.Helper()
				narrowing := entryChange(when, f.Put("b", "live"))
				narrowing.Narrows = true
				for _, c := range []audit.Change{entryChange(when, f.Put("a", "lost")), narrowing} {
					if err := l.Commit(t.Context(), c); !errors.Is(err, audit.ErrUnavailable) {
						t.Errorf("%s: %v", when, err)
					}
				}
				if l.Status().Err == nil {
					t.Errorf("%s: the log says that it can be written", when)
				}
			}
			move(path+file, away)
			refused("gone")
			if err := os.WriteFile(path+file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			refused("another in its place")
			move(away, path+file)
			if err := l.Commit(t.Context(), entryChange("after", f.Put("b", "live"))); err != nil {
				t.Errorf("with the file back: %v", err)
			}
			if got := f.Value(t, "a"); got != "live" {
				t.Errorf("a is %q", got)
			}
			report, err := audit.Verify(t.Context(), s, audit.VerifyConfig{})
			if err != nil || !report.OK() || report.Size != 2 {
				t.Errorf("Verify = %+v, %v", report, err)
			}
		})
	}
}
