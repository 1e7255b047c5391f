package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/audit/audittest"
)

// A backup of a deployment that is written to is that deployment at one
// moment: a row of every acknowledged entry before it, and of none after. It
// is restored to every adapter, with the same log.
func TestBackup(t *testing.T) {
	for _, a := range slices.Sorted(maps.Keys(places)) {
		t.Run(a, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			from := at(places[a](t))
			life(t, from, 1, 3, 600)
			log := audit.NewLog(audit.Config{Store: opened(t, from)})
			stop := make(chan struct{})
			var writers sync.WaitGroup
			for w := range 4 {
				writers.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-stop:
							return
						default:
						}
						name := fmt.Sprint("acked ", w, " ", i)
						err := log.Commit(ctx, audit.Change{
							Effects: []audit.Effect{effect(1, `INSERT INTO replays (key, until) VALUES ($1, 1)`, name)},
							Entries: []audit.Entry{audittest.Entry(name)},
						})
						if err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			file := filepath.Join(t.TempDir(), "backup")
			report, err := Backup(ctx, from, file, nil)
			close(stop)
			writers.Wait()
			if err := errors.Join(err, log.Close(ctx)); err != nil {
				t.Fatal(err)
			}
			backup := at("sqlite:" + file)
			if got := intact(t, backup); got.Size != report.Head.Size || got.Size < 600 {
				t.Errorf("%d records, %d reported", got.Size, report.Head.Size)
			}
			// An entry for every row since, and for every one that left the outbox.
			if rows := report.Rows["replays"] - report.Rows["audit_outbox"]; report.Head.Size-600 != rows {
				t.Errorf("%d entries since, %d rows", report.Head.Size-600, rows)
			}
			if files, _ := filepath.Glob(filepath.Join(filepath.Dir(file), "*")); len(files) != 1 {
				t.Errorf("left behind: %q", files)
			}
			if hidden, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".*")); len(hidden) != 0 {
				t.Errorf("left behind: %q", hidden)
			}
			if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
				t.Errorf("%v, %v", info.Mode(), err)
			}
			if _, err := Open(ctx, backup); !errors.Is(err, ErrBackup) {
				t.Errorf("serving from a backup: %v", err)
			}
			if _, err := Backup(ctx, from, file, nil); !errors.Is(err, fs.ErrExist) {
				t.Errorf("over another: %v", err)
			}
			if !lives(t, from) {
				t.Error("a backup closed its source")
			}
			for _, b := range slices.Sorted(maps.Keys(places)) {
				to := at(places[b](t))
				restored, err := Restore(ctx, file, to, nil)
				if err != nil || !restored.Done {
					t.Fatal(restored, err)
				}
				want, got := dump(t, backup), dump(t, to)
				got = slices.DeleteFunc(got, func(line string) bool { return !slices.Contains(want, line) })
				sameRows(t, want, got)
				if after := intact(t, to); after.Size != report.Head.Size+1 {
					t.Errorf("%d records restored of %d", after.Size, report.Head.Size)
				}
				if _, err := Restore(ctx, file, to, nil); !errors.Is(err, ErrLive) {
					t.Errorf("restoring again: %v", err)
				}
			}
		})
	}
}

// A backup that was changed is not restored, and neither is what is none.
func TestRestoreRefuses(t *testing.T) {
	ctx := context.Background()
	from := at(places["sqlite"](t))
	life(t, from, 1, 2, 700)
	whole := filepath.Join(t.TempDir(), "backup")
	if _, err := Backup(ctx, from, whole, nil); err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]string{
		"edited":    `UPDATE audit_records SET bytes = replace(bytes, 'allowed', 'denied') WHERE seq = 400`,
		"truncated": `DELETE FROM audit_records WHERE seq >= 400`,
		"opened":    `UPDATE audit_head SET closed = ''`,
	} {
		t.Run(name, func(t *testing.T) {
			content, err := os.ReadFile(whole)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "backup")
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
			outside(t, file, unlock, damage)
			to := at(places["sqlite"](t))
			want := audit.ErrBroken
			switch name {
			case "opened":
				want = ErrNoBackup
			case "truncated":
				want = ErrStore
			}
			if _, err := Restore(ctx, file, to, nil); !errors.Is(err, want) {
				t.Errorf("restored: %v", err)
			}
			if name != "opened" && lives(t, to) {
				t.Error("the target lives")
			}
			// The whole backup goes to the same target.
			if _, err := Restore(ctx, whole, to, nil); err != nil || !lives(t, to) {
				t.Error(err)
			}
		})
	}
	used := at(places["sqlite"](t))
	life(t, used, 1, 1, 1)
	if _, err := Restore(ctx, whole, used, nil); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("into a database in use: %v", err)
	}
	if _, err := Restore(ctx, filepath.Join(t.TempDir(), "nothing"), used, nil); !errors.Is(err, ErrNoDatabase) {
		t.Errorf("nothing: %v", err)
	}
}

// A backup that an older kavach wrote is restored by this one.
func TestRestoreOlder(t *testing.T) {
	ctx := context.Background()
	from := at(places["sqlite"](t))
	life(t, from, 1, 2, 40)
	file := filepath.Join(t.TempDir(), "backup")
	if _, err := Backup(ctx, from, file, nil); err != nil {
		t.Fatal(err)
	}
	outside(t, file, `DROP TABLE counters`, `DELETE FROM migrations WHERE name = 'counters'`)
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	to := at(places["sqlite"](t))
	if _, err := Restore(ctx, file, to, nil); err != nil || !lives(t, to) {
		t.Fatal(err)
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
		t.Error("the backup was changed", err)
	}
	want := slices.DeleteFunc(dump(t, from), func(line string) bool { return strings.HasPrefix(line, "counters ") })
	got := slices.DeleteFunc(dump(t, to), func(line string) bool { return !slices.Contains(want, line) })
	sameRows(t, want, got)
	// A database that such a kavach serves is backed up by that kavach.
	outside(t, strings.TrimPrefix(from.DSN, "sqlite:"), `DELETE FROM migrations WHERE name = 'counters'`)
	if _, err := Backup(ctx, from, filepath.Join(t.TempDir(), "backup"), nil); !errors.Is(err, ErrOldSchema) {
		t.Errorf("backing an older one up: %v", err)
	}
}
