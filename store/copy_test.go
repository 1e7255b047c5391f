package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/audit/audittest"
	"github.com/kavach-dev/kavach/store/d1test"
	"github.com/kavach-dev/kavach/store/pgtest"
)

// places makes empty databases, by adapter.
var places = map[string]func(t testing.TB) string{
	"d1":       func(t testing.TB) string { return d1test.New(t).Bridge },
	"sqlite":   func(t testing.TB) string { return "sqlite:" + filepath.Join(t.TempDir(), "kavach.db") },
	"postgres": func(t testing.TB) string { return pgtest.Database(t) },
}

// pairs runs a test for a source and a target of every adapter; twins for both
// of the same, which is every way to write to a source and to a target.
func pairs(t *testing.T, test func(t *testing.T, from, to Config)) {
	for _, a := range slices.Sorted(maps.Keys(places)) {
		for _, b := range slices.Sorted(maps.Keys(places)) {
			pair(t, a, b, test)
		}
	}
}

func twins(t *testing.T, test func(t *testing.T, from, to Config)) {
	for _, a := range slices.Sorted(maps.Keys(places)) {
		pair(t, a, a, test)
	}
}

func pair(t *testing.T, a, b string, test func(t *testing.T, from, to Config)) {
	t.Run(a+" to "+b, func(t *testing.T) {
		t.Parallel()
		test(t, at(places[a](t)), at(places[b](t)))
	})
}

// at is the configuration of a deployment that lives there.
func at(dsn string) Config {
	return Config{DSN: dsn, Token: d1test.SchemaToken, Issuer: "https://kavach.example", MinFree: -1}
}

// opened opens a database in whatever state.
func opened(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := openAny(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// life fills every table and the log of a deployment. round makes its rows
// different from those of another round.
func life(t testing.TB, cfg Config, round, rows, records int) {
	t.Helper()
	s := opened(t, cfg)
	defer s.Close()
	for i := range tables {
		tb := &tables[i]
		for r := range rows {
			if err := s.commit(context.Background(), nil, tb.example(round, r)); err != nil {
				t.Fatalf("%s: %v", tb.name, err)
			}
		}
	}
	remember(t, s, round, records)
}

// example inserts a row of which every column is different.
func (t *table) example(round, r int) audit.Effect {
	text, all := t.columns()
	args, places := make([]any, len(all)), make([]string, len(all))
	for i, name := range all {
		args[i] = fmt.Sprintf("%s %d/%d \"q\" 'q' \\ $1 <&> {[\t\n ἀ 🜁", name, round, r)
		switch {
		case name == "entry": // what waits in the outbox is read
			d, err := audit.NewDraft("", audittest.Entry("waiting"))
			if err != nil {
				panic(err)
			}
			args[0], args[i] = d.ID, string(d.Bytes())
		case name == "role":
			args[i] = []string{"member", "auditor", "operator"}[r%3]
		case name == "disabled":
			args[i] = r % 2
		case i >= len(text):
			args[i] = int64(1<<53-1) - int64(1000*round+100*i+r)
		}
		places[i] = fmt.Sprintf("$%d", i+1)
	}
	return effect(1, `INSERT INTO `+t.name+` (`+strings.Join(all, ", ")+`) VALUES (`+strings.Join(places, ", ")+`)`, args...)
}

// remember appends records, some with all that a record can be found by.
func remember(t testing.TB, s *Store, round, records int) {
	t.Helper()
	for first := 0; first < records; first += 250 {
		var batch []audit.Write
		for i := first; i < min(records, first+250); i++ {
			e := audittest.Entry(fmt.Sprintf("record %d/%d", round, i))
			if i%3 == 0 {
				e.Path, e.Sub, e.Grant = []string{"user:a", "b\"<"}, "user:a", "gid"
				e.Chain = []audit.Party{{LID: fmt.Sprint("lid", i), ClientID: "c", JKT: "jkt"}}
				e.Anc, e.Issued = []string{"anc"}, []audit.Issued{{LID: fmt.Sprint("new", i), Expires: int64(i)}}
			}
			d, err := audit.NewDraft(s.LogID(), e)
			if err != nil {
				t.Fatal(err)
			}
			batch = append(batch, audit.Write{Drafts: []*audit.Draft{d}})
		}
		for len(batch) > 0 {
			done, err := s.Append(context.Background(), batch, 1_700_000_000_000+int64(first))
			if err != nil {
				t.Fatal(err)
			}
			batch = batch[len(done):]
		}
	}
}

// dump is everything in a database that a copy brings over, a line a row.
func dump(t testing.TB, cfg Config) []string {
	t.Helper()
	cfg.ReadOnly = true
	s := opened(t, cfg)
	defer s.Close()
	var list []string
	add := func(t *table) error {
		return each(context.Background(), still{s}, t, func(row []any) error {
			list = append(list, fmt.Sprintf("%s %q", t.name, row))
			return nil
		})
	}
	records, mentions := recordsTable, mentionsTable
	records.key, mentions.key = "seq", "seq, lid, role"
	for _, tb := range append([]table{records, mentions}, tables...) {
		if err := add(&tb); err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(list)
	return append(list, "log "+s.LogID())
}

// sameRows fails unless two databases hold the same.
func sameRows(t testing.TB, from, to []string) {
	t.Helper()
	if slices.Equal(from, to) {
		return
	}
	for _, line := range from {
		if !slices.Contains(to, line) {
			t.Fatalf("%d rows against %d; missing: %s", len(from), len(to), line)
		}
	}
	for _, line := range to {
		if !slices.Contains(from, line) {
			t.Fatalf("%d rows against %d; too many: %s", len(from), len(to), line)
		}
	}
	t.Fatal("a row stands twice")
}

// intact fails unless the log of a database holds.
func intact(t testing.TB, cfg Config) *audit.Report {
	t.Helper()
	cfg.ReadOnly = true
	s := opened(t, cfg)
	defer s.Close()
	report, err := audit.Verify(context.Background(), s, audit.VerifyConfig{})
	if err != nil || !report.OK() {
		t.Fatal(report, err)
	}
	return report
}

// lives reports whether a deployment lives in a database.
func lives(t testing.TB, cfg Config) bool {
	t.Helper()
	s, err := Open(context.Background(), cfg)
	if errors.Is(err, ErrClosed) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	return true
}

// The list of tables is the schema: a table that nobody copies, or a column,
// or one of another type, fails here.
func TestTablesAreAllCopied(t *testing.T) {
	s, _ := openTest(t)
	known := map[string]string{}
	for _, tb := range append([]table{recordsTable, mentionsTable}, tables...) {
		text, all := tb.columns()
		for i, name := range all {
			kind := "BIGINT"
			if i < len(text) {
				kind = "TEXT"
			}
			known[tb.name+"."+name] = kind
		}
	}
	rows, err := s.read.Query(context.Background(), `SELECT t.name, c.name, c.type, c.pk
		FROM sqlite_schema AS t JOIN pragma_table_info(t.name) AS c WHERE t.type = 'table' AND t.name NOT IN ('migrations', 'audit_head')`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	keys := map[string][]string{}
	for rows.Next() {
		var table, column, kind string
		var pk int
		if err := rows.Scan(&table, &column, &kind, &pk); err != nil {
			t.Fatal(err)
		}
		if known[table+"."+column] != kind {
			t.Errorf("%s.%s is %s; the list of tables in copy_tables.go says %q", table, column, kind, known[table+"."+column])
		}
		delete(known, table+"."+column)
		if pk > 0 {
			keys[table] = append(keys[table], column)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for name := range known {
		t.Errorf("%s is in the list of tables and not in the schema", name)
	}
	for _, tb := range tables {
		if key := strings.Join(keys[tb.name], ", "); key != tb.key {
			t.Errorf("%s is read by %s, its primary key is %s", tb.name, tb.key, key)
		}
	}
}

// A deployment moves while it is written to: what was acknowledged is in the
// target, the source takes nothing more, and the target goes on.
func TestCopy(t *testing.T) {
	pairs(t, func(t *testing.T, from, to Config) {
		ctx := context.Background()
		life(t, from, 1, 3, 1300)
		served := opened(t, from)
		log := audit.NewLog(audit.Config{Store: served})
		t.Cleanup(func() { log.Close(ctx) })
		var acked atomic.Int64
		var writers sync.WaitGroup
		for w := range 4 {
			writers.Go(func() {
				for i := 0; ; i++ {
					err := log.Commit(ctx, audit.Change{
						Effects: []audit.Effect{effect(1, `INSERT INTO replays (key, until) VALUES ($1, 1)`, fmt.Sprint("acked ", w, " ", i))},
						Entries: []audit.Entry{audittest.Entry(fmt.Sprint("acked ", w, " ", i))},
						Narrows: i%2 == 0,
					})
					if errors.Is(err, audit.ErrUnavailable) {
						return
					}
					if err != nil {
						t.Error(err)
						return
					}
					acked.Add(1)
				}
			})
		}
		report, err := Copy(ctx, CopyConfig{From: from, To: to})
		if err != nil {
			t.Fatal(err)
		}
		writers.Wait()
		if !report.Done || report.Before || report.Copied != report.Head.Size {
			t.Errorf("%+v", report)
		}
		t.Logf("%d entries while it was copied, closed for %v, %d records", acked.Load(), report.Closed, report.Copied)
		sameRows(t, dump(t, from), dump(t, to))
		if n := report.Rows["replays"]; n != 3+acked.Load() {
			t.Errorf("%d rows of replays for %d acknowledged", n, acked.Load())
		}
		if lives(t, from) || !lives(t, to) {
			t.Error("the deployment does not live in the target alone")
		}
		if err := served.Ping(ctx); !errors.Is(err, ErrMoved) {
			t.Errorf("a server that has the source open finds it ready: %v", err)
		}
		d, _ := audit.NewDraft(served.LogID(), audittest.Entry("late"))
		if _, err := served.AppendUnrecorded(ctx, audit.Write{Drafts: []*audit.Draft{d}, Narrows: true}, 1); !errors.Is(err, ErrMoved) {
			t.Errorf("a narrowing Change without the log: %v", err)
		}
		if intact(t, from).Head != intact(t, to).Head {
			t.Error("the logs end differently")
		}
		again, err := Copy(ctx, CopyConfig{From: from, To: to})
		if err != nil || !again.Done || !again.Before || again.Head != report.Head {
			t.Errorf("again: %+v, %v", again, err)
		}
		target, err := Open(ctx, to)
		if err != nil {
			t.Fatal(err)
		}
		defer target.Close()
		remember(t, target, 2, 3)
		if got := intact(t, to); got.Size != report.Head.Size+3 {
			t.Errorf("the log of the target has %d records", got.Size)
		}
		if _, err := Copy(ctx, CopyConfig{From: from, To: at(places["sqlite"](t))}); !errors.Is(err, ErrElsewhere) {
			t.Errorf("to another target: %v", err)
		}
	})
}

// However often a copy is ended, wherever, it goes on, at no time do both
// sides live, and what the source wrote in between comes over.
func TestCopyInterrupted(t *testing.T) {
	twins(t, func(t *testing.T, from, to Config) {
		life(t, from, 1, 3, 1200)
		stopped := errors.New("stopped")
		runs := 0
		for round := 2; ; round++ {
			ctx, cancel := context.WithCancelCause(context.Background())
			told := 0
			report, err := Copy(ctx, CopyConfig{From: from, To: to, Progress: func(string, int64, int64) {
				if told++; told > runs {
					cancel(stopped)
				}
			}})
			cancel(nil)
			source, target := lives(t, from), err == nil && lives(t, to)
			if source && target {
				t.Fatal("both sides live")
			}
			if err == nil {
				if !target || !report.Done {
					t.Fatalf("%+v", report)
				}
				break
			}
			if !errors.Is(err, context.Canceled) && !errors.Is(err, stopped) {
				t.Fatal(err)
			}
			if !source {
				if _, err := Open(context.Background(), to); !errors.Is(err, ErrIncomplete) {
					t.Fatalf("opening what is not complete: %v", err)
				}
			} else {
				life(t, from, round, 1, 20)
			}
			if runs++; !strings.HasPrefix(from.DSN+to.DSN, "sqlite:") || !strings.HasPrefix(to.DSN, "sqlite:") {
				runs += 5 // opening takes longer there
			}
		}
		if runs < 20 {
			t.Errorf("ran to place %d only", runs)
		}
		sameRows(t, dump(t, from), dump(t, to))
		intact(t, to)
	})
}

// A copy that is killed, wherever, goes on as well.
func TestCopyKilled(t *testing.T) {
	if testing.Short() {
		t.Skip("short")
	}
	for _, way := range [][2]string{{"sqlite", "postgres"}, {"postgres", "sqlite"}} {
		pair(t, way[0], way[1], func(t *testing.T, from, to Config) {
			life(t, from, 1, 3, 3000)
			killed, closed := 0, 0
			for limit := 400; ; limit += 300 {
				cmd, _ := startWriter(t, from.DSN, "copy "+to.DSN)
				timer := time.AfterFunc(time.Duration(rand.IntN(limit))*time.Millisecond, func() { _ = cmd.Process.Kill() })
				err := cmd.Wait()
				if timer.Stop(); err == nil {
					break
				}
				if source := lives(t, from); source && lives(t, to) {
					// What was killed before it made the target its own.
					if s := opened(t, to); s.LogID() == opened(t, from).LogID() {
						t.Fatal("both sides live")
					}
				} else if !source {
					closed++
				}
				killed++
			}
			t.Logf("killed %d times, %d with the source closed", killed, closed)
			if lives(t, from) || !lives(t, to) {
				t.Error("the deployment does not live in the target alone")
			}
			sameRows(t, dump(t, from), dump(t, to))
			intact(t, to)
		})
	}
}

// A copy that keeps the source open can be given up and taken up again; so can
// one that has closed it.
func TestCancelCopy(t *testing.T) {
	twins(t, func(t *testing.T, from, to Config) {
		ctx := context.Background()
		both := CopyConfig{From: from, To: to}
		life(t, from, 1, 2, 30)
		keep := both
		keep.KeepServing = true
		if report, err := Copy(ctx, keep); err != nil || report.Done || report.Head.Size != 30 || !lives(t, from) {
			t.Fatalf("%+v, %v", report, err)
		}
		if err := CancelCopy(ctx, both); err != nil {
			t.Fatal(err)
		}
		// A run that was at its cut-over when somebody cancelled it.
		stuck := begun(t, from, to)
		if err := stuck.closeSource(ctx, "postgres"); err != nil {
			t.Fatal(err)
		}
		other := at(places["sqlite"](t))
		if err := CancelCopy(ctx, CopyConfig{From: from, To: other}); !errors.Is(err, ErrElsewhere) {
			t.Fatalf("cancelling with another target: %v", err)
		}
		if err := CancelCopy(ctx, both); err != nil {
			t.Fatal(err)
		}
		if !lives(t, from) {
			t.Fatal("the source is closed")
		}
		if err := stuck.rest(ctx, still{stuck.source}); !errors.Is(err, ErrClosed) {
			t.Fatalf("a cancelled run writes: %v", err)
		}
		if err := stuck.complete(ctx, "", nil); !errors.Is(err, ErrClosed) {
			t.Fatalf("a cancelled run completes: %v", err)
		}
		life(t, from, 2, 2, 30)
		report, err := Copy(ctx, both)
		if err != nil || !report.Done {
			t.Fatal(report, err)
		}
		sameRows(t, dump(t, from), dump(t, to))
		if err := CancelCopy(ctx, both); !errors.Is(err, ErrLive) {
			t.Fatalf("cancelling what is done: %v", err)
		}
		if lives(t, from) {
			t.Fatal("both sides live")
		}
	})
}

// begun is a run that made the target its own.
func begun(t *testing.T, from, to Config) *copier {
	t.Helper()
	c := newCopier(opened(t, from), nil)
	if err := c.openTarget(context.Background(), to); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.target.Close() })
	if _, err := c.adopt(context.Background(), ""); err != nil {
		t.Fatal(err)
	}
	return c
}

// A revocation without the log, which began before the source was closed and
// is committed after, comes over.
func TestCopyWaitsForUnrecorded(t *testing.T) {
	from, to := at(places["postgres"](t)), at(places["sqlite"](t))
	life(t, from, 1, 1, 5)
	db, err := sql.Open("pgx", from.DSN)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	for _, statement := range []string{
		fmt.Sprintf(`SELECT pg_advisory_xact_lock_shared(%d)`, int64(postgresUnrecorded)),
		`INSERT INTO replays (key, until) VALUES ('late', 1)`,
	} {
		if _, err := tx.Exec(statement); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() {
		_, err := Copy(context.Background(), CopyConfig{From: from, To: to})
		done <- err
	}()
	for lives(t, from) {
		select {
		case err := <-done:
			t.Fatalf("it did not wait: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	time.Sleep(200 * time.Millisecond) // the tables, if it did not wait
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	sameRows(t, dump(t, from), dump(t, to))
}

// A cancelled move whose source a late run has closed again is open after
// another cancel, and no copy takes it for its own.
func TestCancelledAndClosed(t *testing.T) {
	ctx := context.Background()
	from, to := at(places["sqlite"](t)), at(places["sqlite"](t))
	both := CopyConfig{From: from, To: to}
	life(t, from, 1, 1, 5)
	stuck := begun(t, from, to)
	if err := CancelCopy(ctx, both); err != nil {
		t.Fatal(err)
	}
	if err := stuck.closeSource(ctx, "sqlite"); err != nil {
		t.Fatal(err)
	}
	if _, err := Copy(ctx, both); !errors.Is(err, ErrCancelled) {
		t.Fatalf("a copy goes on: %v", err)
	}
	if err := CancelCopy(ctx, both); err != nil || !lives(t, from) {
		t.Fatal("the source stays closed", err)
	}
	if report, err := Copy(ctx, both); err != nil || !report.Done {
		t.Fatal(report, err)
	}
	// A target that is gone.
	from = to
	to = at(places["sqlite"](t))
	if report, err := Copy(ctx, CopyConfig{From: from, To: to}); err != nil || !report.Done {
		t.Fatal(report, err)
	}
	if err := CancelCopy(ctx, CopyConfig{From: from}); err != nil || !lives(t, from) {
		t.Fatal("the source stays closed", err)
	}
}

// Of two copies to one target the later goes on, and the earlier cannot
// complete it.
func TestCopyTwice(t *testing.T) {
	ctx := context.Background()
	from, to := at(places["sqlite"](t)), at(places["sqlite"](t))
	life(t, from, 1, 2, 1500)
	entered, leave := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() {
		_, err := Copy(ctx, CopyConfig{From: from, To: to, Progress: func(what string, done, _ int64) {
			if what == "copying tables" && done == 4 {
				close(entered)
				<-leave
			}
		}})
		first <- err
	}()
	<-entered
	if report, err := Copy(ctx, CopyConfig{From: from, To: to}); err != nil || !report.Done {
		t.Fatal(report, err)
	}
	close(leave)
	if err := <-first; !errors.Is(err, ErrClosed) {
		t.Fatalf("the earlier one: %v", err)
	}
	sameRows(t, dump(t, from), dump(t, to))
}

// What is not an empty database is not copied to.
func TestCopyTargets(t *testing.T) {
	twins(t, func(t *testing.T, from, to Config) {
		ctx := context.Background()
		life(t, from, 1, 1, 3)
		if _, err := Copy(ctx, CopyConfig{From: at(places["sqlite"](t)), To: to}); !errors.Is(err, ErrNoDatabase) {
			t.Errorf("from nothing: %v", err)
		}
		if _, err := Copy(ctx, CopyConfig{From: from, To: from}); !errors.Is(err, ErrLive) {
			t.Errorf("to itself: %v", err)
		}
		life(t, to, 1, 0, 1)
		if _, err := Copy(ctx, CopyConfig{From: from, To: to}); !errors.Is(err, ErrNotEmpty) {
			t.Errorf("to a log: %v", err)
		}
		row := at(places["sqlite"](t))
		life(t, row, 1, 1, 0)
		if _, err := Copy(ctx, CopyConfig{From: from, To: row}); !errors.Is(err, ErrNotEmpty) {
			t.Errorf("to rows: %v", err)
		}
		half := at(places["sqlite"](t))
		if _, err := Copy(ctx, CopyConfig{From: to, To: half, KeepServing: true}); err != nil {
			t.Fatal(err)
		}
		if _, err := Copy(ctx, CopyConfig{From: from, To: half}); !errors.Is(err, ErrNotEmpty) {
			t.Errorf("to the copy of another: %v", err)
		}
		if _, err := Copy(ctx, CopyConfig{From: half, To: at(places["sqlite"](t))}); !errors.Is(err, ErrIncomplete) {
			t.Errorf("from an incomplete copy: %v", err)
		}
		if !lives(t, from) || !lives(t, to) {
			t.Error("a refused copy closed something")
		}
	})
}

// A log that is damaged does not move, and neither does the deployment.
func TestCopyDamaged(t *testing.T) {
	for name, damage := range map[string]string{
		"edited":    `UPDATE audit_records SET bytes = replace(bytes, 'allowed', 'denied') WHERE seq = 700`,
		"gone":      `DELETE FROM audit_records WHERE seq = 700`,
		"truncated": `DELETE FROM audit_records WHERE seq >= 700`,
		"head":      `UPDATE audit_head SET leaf = (SELECT leaf FROM audit_records WHERE seq = 700)`,
	} {
		t.Run(name, func(t *testing.T) {
			s, path := filled(t, 1000)
			outside(t, path, unlock, damage)
			from, to := at("sqlite:"+path), at(places["sqlite"](t))
			if report, err := Copy(context.Background(), CopyConfig{From: from, To: to}); err == nil {
				t.Fatalf("%+v", report)
			}
			if err := s.open(context.Background()); err != nil {
				t.Error(err)
			}
			if lives(t, to) {
				t.Error("the target lives")
			}
			if _, err := Backup(context.Background(), from, filepath.Join(t.TempDir(), "backup"), nil); err == nil {
				t.Error("it was backed up")
			}
		})
	}
}
