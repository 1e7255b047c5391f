package store

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/audit/audittest"
	"github.com/kavach-dev/kavach/store/pgtest"
)

// A test binary with this variable set is a writer, not a test.
const writerEnv = "KAVACH_STORE_TEST_WRITER"

func TestMain(m *testing.M) {
	if role := os.Getenv(writerEnv); role != "" {
		if err := runWriter(role); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// runWriter is a process that opens the database and appends from eight
// goroutines. It writes the id of every acknowledged entry to stdout.
// role is "open", "append NAME COUNT" (COUNT 0: until killed), or "copy TO".
func runWriter(role string) error {
	ctx := context.Background()
	dsn := os.Getenv(writerEnv + "_DSN")
	if to, ok := strings.CutPrefix(role, "copy "); ok {
		_, err := Copy(ctx, CopyConfig{From: at(dsn), To: at(to)})
		return err
	}
	s, err := Open(ctx, Config{DSN: dsn, Issuer: "kavach.example", MinFree: -1})
	if err != nil {
		return err
	}
	defer s.Close()
	if role == "open" {
		return s.Ping(ctx)
	}
	var name string
	var count int
	if _, err := fmt.Sscanf(role, "append %s %d", &name, &count); err != nil {
		return err
	}
	l := audit.NewLog(audit.Config{Store: s})
	var out sync.Mutex
	var wait sync.WaitGroup
	errs := make([]error, 8)
	for g := range errs {
		wait.Go(func() {
			for i := 0; count == 0 || i < count; i++ {
				e := audittest.Entry(fmt.Sprintf("%s/%d/%d", name, g, i))
				err := l.Commit(ctx, audit.Change{Entries: []audit.Entry{e}, Effects: []audit.Effect{
					effect(1, `INSERT INTO settings (name, value) VALUES ($1, $2)`, e.ID, name),
					effect(-1, `DELETE FROM settings WHERE name = $1`, "nobody"),
				}})
				if err != nil {
					errs[g] = err
					return
				}
				out.Lock()
				fmt.Println(e.ID)
				out.Unlock()
			}
		})
	}
	wait.Wait()
	return errors.Join(append(errs, l.Close(ctx))...)
}

// onEach runs a test on a fresh database of every kind that is on this machine.
func onEach(t *testing.T, test func(t *testing.T, dsn string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, "sqlite:"+filepath.Join(t.TempDir(), "kavach.db")) })
	t.Run("postgres", func(t *testing.T) { test(t, pgtest.Database(t)) })
}

// startWriter starts a process; stdout is what it acknowledged.
func startWriter(t *testing.T, dsn, role string) (*exec.Cmd, io.Reader) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), writerEnv+"="+role, writerEnv+"_DSN="+dsn)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// lines reads whole lines until the end.
func lines(r io.Reader) (list []string) {
	b := bufio.NewReader(r)
	for {
		line, err := b.ReadString('\n')
		if err != nil {
			return list // a line without an end was never acknowledged
		}
		list = append(list, strings.TrimSpace(line))
	}
}

// checkLog verifies the log and that every acknowledged entry is in it once,
// together with its effect.
func checkLog(t *testing.T, dsn string, acknowledged []string) {
	t.Helper()
	s, err := Open(t.Context(), Config{DSN: dsn, MinFree: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	report, err := audit.Verify(t.Context(), s, audit.VerifyConfig{})
	if err != nil || !report.OK() {
		t.Fatalf("Verify = %+v, %v", report, err)
	}
	ids := make(map[string]int)
	rows, err := s.read.Query(t.Context(), `SELECT r.id, s.name FROM audit_records r LEFT JOIN settings s ON s.name = r.id`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var effect *string
		if err := rows.Scan(&id, &effect); err != nil {
			t.Fatal(err)
		}
		if effect == nil {
			t.Errorf("record %s without its effect", id)
		}
		ids[id]++
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for _, id := range acknowledged {
		if ids[id] != 1 {
			t.Errorf("acknowledged entry %s is in the log %d times", id, ids[id])
		}
	}
	if report.Size != int64(len(ids)) {
		t.Errorf("head says %d records, there are %d ids", report.Size, len(ids))
	}
	// And every effect has its record: the act and the record are one.
	var lonely int
	if err := s.read.QueryRow(t.Context(), `SELECT count(*) FROM settings WHERE name <> 'audit.log'
		AND name NOT IN (SELECT id FROM audit_records)`).Scan(&lonely); err != nil {
		t.Fatal(err)
	}
	if lonely != 0 {
		t.Errorf("%d effects without a record", lonely)
	}
}

// Two processes of eight goroutines each make one linear log.
func TestProcessesAppend(t *testing.T) { onEach(t, testProcessesAppend) }

func testProcessesAppend(t *testing.T, dsn string) {
	const each = 40
	var cmds []*exec.Cmd
	var acknowledged []string
	var mu sync.Mutex
	var wait sync.WaitGroup
	for _, name := range []string{"a", "b"} {
		cmd, out := startWriter(t, dsn, fmt.Sprint("append ", name, " ", each))
		cmds = append(cmds, cmd)
		wait.Go(func() {
			got := lines(out)
			mu.Lock()
			defer mu.Unlock()
			acknowledged = append(acknowledged, got...)
		})
	}
	wait.Wait()
	for _, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Errorf("writer: %v", err)
		}
	}
	if len(acknowledged) != 2*8*each {
		t.Errorf("%d acknowledged, want %d", len(acknowledged), 2*8*each)
	}
	checkLog(t, dsn, acknowledged)
}

// A process that is killed under load loses nothing it acknowledged, and the
// next one opens the database as it is.
func TestKill(t *testing.T) { onEach(t, testKill) }

func testKill(t *testing.T, dsn string) {
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	var acknowledged []string
	for round := range rounds {
		cmd, out := startWriter(t, dsn, fmt.Sprintf("append r%d 0", round))
		done := make(chan []string)
		b := bufio.NewReader(out)
		first, err := b.ReadString('\n') // it is at work
		if err != nil {
			t.Fatal(err)
		}
		acknowledged = append(acknowledged, strings.TrimSpace(first))
		go func() { done <- lines(b) }()
		time.Sleep(time.Duration(rand.IntN(500)) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		got := <-done
		_ = cmd.Wait()
		acknowledged = append(acknowledged, got...)
	}
	t.Logf("%d acknowledged in %d lives", len(acknowledged), rounds)
	checkLog(t, dsn, acknowledged)
}

// Five processes that start at once on an empty database all become ready
// (E17), killed ones included.
func TestProcessesOpen(t *testing.T) { onEach(t, testProcessesOpen) }

func testProcessesOpen(t *testing.T, dsn string) {
	for range 3 { // killed in the middle of it
		cmd, out := startWriter(t, dsn, "open")
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
		_ = cmd.Process.Kill()
		lines(out)
		_ = cmd.Wait()
	}
	var cmds []*exec.Cmd
	for range 5 {
		cmd, out := startWriter(t, dsn, "open")
		cmds = append(cmds, cmd)
		go lines(out)
	}
	for _, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Errorf("process: %v", err)
		}
	}
	s, err := Open(t.Context(), Config{DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !strings.HasPrefix(s.LogID(), "kavach.example/audit/") {
		t.Errorf("log id = %q", s.LogID())
	}
}
