package e2e

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// smallDisk is a file system with little room at a directory that only what
// runs inside sees: a mount namespace, which ends with the test.
func smallDisk(t *testing.T, size string) (dir string, inside []string) {
	t.Helper()
	dir = t.TempDir()
	for _, folder := range []string{filepath.Dir(dir), dir} { // PostgreSQL runs as somebody else
		if err := os.Chmod(folder, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Whoever is not root is so in a user namespace of their own.
	enter, join := []string{"unshare", "-m"}, []string{"-m"}
	if os.Getuid() != 0 {
		enter, join = []string{"unshare", "-r", "-m"}, []string{"-U", "--preserve-credentials", "-m"}
	}
	const mount = `mount -t tmpfs -o mode=0777,size="$1" none "$0" && echo "$$" && exec cat >/dev/null`
	line := append(enter, "sh", "-c", mount, dir, size)
	cmd := exec.Command(line[0], line[1:]...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	drained := make(chan struct{})
	exited, err := spawn(cmd, drained)
	need(t, strings.Join(enter, " "), err == nil)
	t.Cleanup(func() { in.Close(); close(drained); <-exited })
	pid, err := bufio.NewReader(out).ReadString('\n')
	need(t, strings.Join(enter, " ")+" with the right to mount", err == nil)
	return dir, append(append([]string{"nsenter", "-t", strings.TrimSpace(pid)}, join...), "--")
}

// sh runs a line of shell inside.
func sh(t *testing.T, inside []string, line string, args ...string) string {
	t.Helper()
	all := append(append(append([]string{}, inside...), "sh", "-c", line), args...)
	out, err := exec.Command(all[0], all[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v %s", line, err, out)
	}
	return string(out)
}

// free leaves so many KiB of a file system, "0" nothing at all.
func free(t *testing.T, inside []string, dir string, kib int) {
	t.Helper()
	sh(t, inside, `rm -f "$0/filler"; have=$(df -k --output=avail "$0" | tail -1); head -c "$(( (have - $1) * 1024 ))" /dev/zero >"$0/filler"; true`, dir, fmt.Sprint(kib))
	if kib == 0 {
		sh(t, inside, `cat /dev/zero >>"$0/filler" 2>/dev/null; true`, dir)
	}
}

// TestFaultDisk is E6 on SQLite: first there is little room, then none.
func TestFaultDisk(t *testing.T) {
	dir, inside := smallDisk(t, "128m")
	s := startIn(t, site{Data: dir + "/data", Inside: inside}, loadFlags...)
	l := newLoad(t, s, 4)
	book := newLedger(l)
	l.begin()
	time.Sleep(span(time.Second, 10*time.Second))
	l.until(t, time.Time{}, 60, "delegate") // so that there is something to revoke

	// Little room: whatever widens is refused, whatever narrows works.
	free(t, inside, dir, 40<<10)
	noticed := s.becomes(t, http.StatusServiceUnavailable)
	little := time.Now()
	time.Sleep(span(2*time.Second, 30*time.Second))
	narrowed := l.until(t, little, 1, narrowing...)
	if done := l.done(t, little, widening...); len(done) > 0 {
		t.Errorf("with 40 MiB left there was acknowledged %v", done)
	}

	// None: the reserve is for what narrows.
	free(t, inside, dir, 0)
	full := time.Now()
	time.Sleep(span(2*time.Second, 30*time.Second))
	narrowedFull := l.until(t, full, 1, narrowing...)
	if got, _ := s.ops("/healthz"); got != http.StatusOK {
		t.Errorf("/healthz is %d", got)
	}
	if done := l.done(t, full, widening...); len(done) > 0 {
		t.Errorf("with a full disk there was acknowledged %v", done)
	}

	sh(t, inside, `rm "$0/filler"`, dir)
	back := s.becomes(t, http.StatusOK)
	time.Sleep(time.Second)
	l.end()
	l.onlyRefusals(t)
	l.settled(t, book, true)
	t.Logf("E6 SQLite: refused %v after the disk had little room; revoked %v with 40 MiB, %v with none, and nothing else; back %v after there was room; %s",
		noticed.Round(time.Millisecond), narrowed, narrowedFull, back.Round(time.Millisecond), book.figures())
}

// TestFaultDiskPostgres is E6 on PostgreSQL: the tablespace is full.
func TestFaultDiskPostgres(t *testing.T) {
	dir, inside := smallDisk(t, "96m")
	c := newCluster(t, inside)
	sh(t, inside, `mkdir "$0/space" && chown "$(stat -c %u "$1/data")" "$0/space"`, dir, c.Dir)
	c.do("exec postgres CREATE TABLESPACE small LOCATION '%s/space'", dir)
	c.do("exec postgres ALTER DATABASE kavach SET TABLESPACE small")
	s := c.serve(t)
	l := newLoad(t, s, 4)
	book := newLedger(l)
	l.begin()
	time.Sleep(span(time.Second, 10*time.Second))
	l.until(t, time.Time{}, 20, widening...)
	free(t, inside, dir, 0)
	noticed := s.becomes(t, http.StatusServiceUnavailable)
	full := time.Now()
	time.Sleep(span(2*time.Second, 30*time.Second))
	done := l.done(t, full, widening...)
	if got, _ := s.ops("/healthz"); got != http.StatusOK {
		t.Errorf("/healthz is %d", got)
	}
	sh(t, inside, `rm "$0/filler"`, dir)
	back := s.becomes(t, http.StatusOK)
	time.Sleep(time.Second)
	l.end()
	l.onlyRefusals(t)
	l.settled(t, book, true)
	t.Logf("E6 PostgreSQL: refused %v after the tablespace was full, and did what the pages of its tables had room for, %v; back %v after there was room; %s",
		noticed.Round(time.Millisecond), done, back.Round(time.Millisecond), book.figures())
}
