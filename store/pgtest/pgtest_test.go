package pgtest

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// ask runs a query with one answer.
func ask(t *testing.T, dsn, query string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var answer string
	if err := conn.QueryRow(t.Context(), query).Scan(&answer); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return answer
}

func TestDatabase(t *testing.T) {
	one, two := Database(t), Database(t)
	if a, b := ask(t, one, "SELECT current_database()"), ask(t, two, "SELECT current_database()"); a == b {
		t.Errorf("two databases are both %s", a)
	}
}

// TestCluster stops and kills a server of our own: what is committed is there
// after each start.
func TestCluster(t *testing.T) {
	c := Start(t, Config{})
	dsn := c.Database(t)
	if err := c.Exec(dsnDatabase(dsn), "CREATE TABLE rows (n BIGINT)"); err != nil {
		t.Fatal(err)
	}
	for i, stop := range []func() error{
		func() error { return c.Stop(Smart) },
		func() error { return c.Stop(Fast) },
		func() error { return c.Stop(Immediate) },
		c.Kill,
	} {
		if err := c.Exec(dsnDatabase(dsn), "INSERT INTO rows VALUES (1)"); err != nil {
			t.Fatal(err)
		}
		if err := stop(); err != nil {
			t.Fatal(err)
		}
		if !c.Stopped() || c.Exec("postgres", "SELECT 1") == nil {
			t.Errorf("stop %d: the server still answers", i)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if got := ask(t, dsn, "SELECT count(*)::text FROM rows"); got != strconv.Itoa(i+1) {
			t.Errorf("stop %d: %s rows, want %d", i, got, i+1)
		}
	}
	if err := c.Restart("gently"); !errors.Is(err, ErrPgtest) {
		t.Errorf("an unknown mode: %v", err)
	}
	if err := c.Restart(Immediate); err != nil {
		t.Error(err)
	}
}

// TestOtherBinaries runs a second major version.
func TestOtherBinaries(t *testing.T) {
	one, err := Binaries()
	if err != nil {
		give(t, err)
	}
	two, err := OtherBinaries()
	if err != nil {
		give(t, err)
	}
	const version = "SELECT current_setting('server_version')"
	a := ask(t, Start(t, Config{Bin: one}).DSN("postgres"), version)
	b := ask(t, Start(t, Config{Bin: two}).DSN("postgres"), version)
	major, _, _ := strings.Cut(b, ".")
	if strings.HasPrefix(a, major+".") {
		t.Skipf("both are PostgreSQL %s", major)
	}
	t.Logf("PostgreSQL %s and %s", a, b)
}

// dsnDatabase is the database that a DSN names.
func dsnDatabase(dsn string) string {
	path, _, _ := strings.Cut(dsn, "?")
	return path[strings.LastIndex(path, "/")+1:]
}

// TestClusterTLS connects over TCP: with the password that the file has, to the
// name that the certificate has, and not otherwise.
func TestClusterTLS(t *testing.T) {
	c := Start(t, Config{TLS: true})
	dsn := c.DSN("postgres")
	if !strings.Contains(dsn, "verify-full") || strings.Contains(dsn, c.password) {
		t.Errorf("DSN %s", dsn)
	}
	if got := ask(t, dsn, "SELECT ssl::text FROM pg_stat_ssl WHERE pid = pg_backend_pid()"); got != "true" {
		t.Errorf("ssl: %s", got)
	}
	for _, bad := range []string{
		strings.Replace(dsn, "passfile", "application_name", 1),
		strings.Replace(dsn, c.Address(), strings.Replace(c.Address(), "127.0.0.1", "127.0.0.2", 1), 1),
	} {
		if conn, err := pgx.Connect(t.Context(), bad); err == nil {
			conn.Close(t.Context())
			t.Errorf("%s connects", bad)
		}
	}
}

// TestStandby: with remote_apply a standby that is promoted has every row.
func TestStandby(t *testing.T) {
	c := Start(t, Config{})
	s := c.Standby(t)
	if err := errors.Join(c.Set("synchronous_standby_names", "standby"), c.Set("synchronous_commit", "remote_apply")); err != nil {
		t.Fatal(err)
	}
	if err := c.Exec("postgres", "CREATE TABLE rows (n BIGINT)", "INSERT INTO rows VALUES (7)"); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, s.DSN("postgres"), "SELECT n::text FROM rows"); got != "7" {
		t.Errorf("the standby reads %s", got)
	}
	if err := s.Exec("postgres", "INSERT INTO rows VALUES (8)"); err == nil {
		t.Error("a standby wrote")
	}
	if err := errors.Join(c.Kill(), s.Promote()); err != nil {
		t.Fatal(err)
	}
	if err := s.Exec("postgres", "INSERT INTO rows VALUES (8)"); err != nil {
		t.Error(err)
	}
}

// TestClusterProcess is TestOrphan's other process: it starts a cluster, says
// where, and waits to be killed.
func TestClusterProcess(t *testing.T) {
	if os.Getenv("KAVACH_PGTEST_PROCESS") == "" {
		t.Skip("it is started by TestOrphan")
	}
	c := Start(t, Config{})
	pid, err := os.ReadFile(filepath.Join(c.data(), "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(pid), "\n")
	os.Stdout.WriteString("cluster " + line + " " + c.Dir() + "\n")
	select {}
}

// TestOrphan kills a test: neither its server nor its files remain.
func TestOrphan(t *testing.T) {
	if _, err := Binaries(); err != nil {
		give(t, err)
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestClusterProcess$")
	cmd.Env = append(os.Environ(), "KAVACH_PGTEST_PROCESS=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var pid, dir string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "cluster "); ok {
			pid, dir, _ = strings.Cut(rest, " ")
			break
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if pid == "" || dir == "" {
		t.Fatalf("the other process said %q, %q", pid, dir)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		_, err := os.Stat(dir)
		// What has ended and nobody asked for has no command line any more.
		command, _ := os.ReadFile("/proc/" + pid + "/cmdline")
		if os.IsNotExist(err) && len(command) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server %s or its files in %s are still there", pid, dir)
		}
	}
}
