package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// cluster is a PostgreSQL cluster of this test's own, in the hands of the
// program store/pgtest/cluster. It ends with the test.
type cluster struct {
	t     *testing.T
	in    io.Writer
	lines *bufio.Scanner
	mu    sync.Mutex
	// DSN is of the database that kavach uses, Host the directory of its socket,
	// Dir what the cluster is in, Bin where its programs are.
	DSN, Host, Port, Dir, Bin string
}

// clusterProgram builds the program once.
var clusterProgram = sync.OnceValues(func() (string, error) {
	program := filepath.Join(filepath.Dir(binary), "cluster")
	build := exec.Command("go", "build", "-o", program, "./store/pgtest/cluster")
	build.Dir = ".."
	out, err := build.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return program, err
})

// clusterAnswer is a line of the program.
type clusterAnswer struct{ Error, DSN, Dir, Bin string }

// newCluster starts a cluster with a database for kavach. inside is as in site.
func newCluster(t *testing.T, inside []string, flags ...string) *cluster {
	t.Helper()
	c, end, err := openCluster(inside, flags...)
	if end != nil {
		t.Cleanup(end)
	}
	need(t, "PostgreSQL", err == nil || !strings.Contains(err.Error(), "no PostgreSQL here"))
	if err != nil {
		t.Fatal(err)
	}
	c.t = t
	c.DSN = c.do("database kavach").DSN
	c.Host, c.Port = socketOf(t, c.DSN)
	return c
}

// openCluster starts a cluster that lives until end is called.
func openCluster(inside []string, flags ...string) (c *cluster, end func(), err error) {
	program, err := clusterProgram()
	if err != nil {
		return nil, nil, err
	}
	line := append(append([]string{}, inside...), append([]string{program}, flags...)...)
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	drained := make(chan struct{})
	exited, err := spawn(cmd, drained)
	if err != nil {
		return nil, nil, err
	}
	end = func() {
		in.Close()
		_, _ = io.Copy(io.Discard, out)
		close(drained)
		<-exited
	}
	c = &cluster{in: in, lines: bufio.NewScanner(out)}
	first := c.answer()
	if first.Error != "" {
		return nil, end, errors.New(first.Error)
	}
	c.Dir, c.Bin = first.Dir, first.Bin
	return c, end, nil
}

// socketOf is where the server of a DSN listens.
func socketOf(t *testing.T, dsn string) (dir, port string) {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil || u.Query().Get("host") == "" {
		t.Fatalf("no DSN with a socket: %v %s", err, dsn)
	}
	return u.Query().Get("host"), u.Query().Get("port")
}

func (c *cluster) answer() clusterAnswer {
	if !c.lines.Scan() {
		return clusterAnswer{Error: fmt.Sprintf("the cluster is gone: %v", c.lines.Err())}
	}
	var a clusterAnswer
	if err := json.Unmarshal(c.lines.Bytes(), &a); err != nil {
		return clusterAnswer{Error: fmt.Sprintf("%v: %s", err, c.lines.Text())}
	}
	return a
}

// do gives a command, which must succeed.
func (c *cluster) do(format string, args ...any) clusterAnswer {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	command := fmt.Sprintf(format, args...)
	fmt.Fprintln(c.in, command)
	a := c.answer()
	if a.Error != "" {
		c.t.Fatalf("%s: %s", command, a.Error)
	}
	return a
}

// serve is a server on the cluster's database.
func (c *cluster) serve(t *testing.T, flags ...string) *server {
	t.Helper()
	return startIn(t, site{DB: c.DSN}, append(loadFlags, flags...)...)
}
