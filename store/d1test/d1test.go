// Package d1test runs Cloudflare D1 for tests: workerd, which is what Cloudflare
// runs, through miniflare (edge/test/host.js), with the bridge Worker of edge/
// as it is deployed and a Worker that speaks the form of the REST API.
//
//	db := d1test.New(t)
//	store.Open(ctx, store.Config{DSN: db.Bridge, Token: d1test.SchemaToken})
//
// It needs node and what `npm ci` puts into edge/node_modules (`make deps`).
// Without them a test is skipped, or fails under CI. The process ends when the
// tests do, also when they are killed: it reads their end of a pipe.
package d1test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The tokens of the databases. RowsToken is for the bridge and may not change
// the schema, RESTToken is for the REST form.
const (
	RowsToken   = "rows-token-of-the-tests-of-the-bridge"
	SchemaToken = "schema-token-of-the-tests-of-the-bridge"
	RESTToken   = "rest-token-of-the-tests-of-the-bridge"
)

const (
	// perHost is how many databases one workerd has; more make it start slowly.
	perHost = 40
	// patience is how long a workerd may take to start on a busy machine.
	patience = 2 * time.Minute
)

// Database is an empty database.
type Database struct {
	// REST and Bridge are its data sources.
	REST, Bridge string
	// URL is where the bridge answers.
	URL string

	raw string
}

// hosts are what runs in this process.
var hosts struct {
	sync.Mutex
	url  string
	left int // databases of the newest host that nobody has
	err  error
	ends []io.Closer // the pipes whose end ends a host, kept from the collector
}

// New returns a database that nobody has used.
func New(t testing.TB) Database {
	t.Helper()
	hosts.Lock()
	defer hosts.Unlock()
	if hosts.left == 0 && hosts.err == nil {
		var end io.Closer
		hosts.url, end, hosts.err = start()
		hosts.left, hosts.ends = perHost, append(hosts.ends, end)
	}
	if errors.Is(hosts.err, errMissing) && os.Getenv("CI") == "" {
		t.Skip(hosts.err)
	}
	if hosts.err != nil {
		t.Fatal(hosts.err)
	}
	hosts.left--
	n := strconv.Itoa(hosts.left)
	address := strings.TrimPrefix(hosts.url, "http://")
	return Database{
		REST:   "d1://test/" + n + "?api=" + hosts.url + "/client/v4",
		Bridge: "d1-bridge://" + address + "/bridge/" + n,
		URL:    hosts.url + "/bridge/" + n,
		raw:    hosts.url + "/client/v4/accounts/test/d1/database/" + n + "/raw",
	}
}

// Exec runs statements as somebody who can write the database and knows nothing
// of package store: together, all or none.
func (d Database) Exec(t testing.TB, statements ...string) {
	t.Helper()
	type statement struct {
		SQL string `json:"sql"`
	}
	var batch []statement
	for _, s := range statements {
		batch = append(batch, statement{s})
	}
	d.ask(t, map[string]any{"batch": batch})
}

// Rows reads the rows of a query.
func (d Database) Rows(t testing.TB, query string) [][]any {
	t.Helper()
	return d.ask(t, map[string]any{"sql": query})
}

func (d Database) ask(t testing.TB, body any) [][]any {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.raw, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+RESTToken)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		Success bool
		Result  []struct{ Results struct{ Rows [][]any } }
	}
	if err := json.Unmarshal(content, &answer); err != nil || !answer.Success {
		t.Fatalf("%s: %s", text, content)
	}
	return answer.Result[0].Results.Rows
}

var errMissing = errors.New("D1 cannot be run here")

// start runs a workerd and returns its URL, and what ends it.
func start() (string, io.Closer, error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return "", nil, fmt.Errorf("%w: node is not installed", errMissing)
	}
	_, here, _, _ := runtime.Caller(0)
	edge := filepath.Join(filepath.Dir(here), "..", "..", "edge")
	if _, err := os.Stat(filepath.Join(edge, "node_modules", "miniflare")); err != nil {
		return "", nil, fmt.Errorf("%w: run `make deps`, or `npm ci` in edge", errMissing)
	}
	cmd := exec.Command(node, filepath.Join("test", "host.js"))
	cmd.Dir = edge
	// Not ours: `go test` would wait for whoever holds it.
	var said bytes.Buffer
	cmd.Stderr = &said
	in, err := cmd.StdinPipe() // stays open as long as this process lives
	if err != nil {
		return "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	if err := json.NewEncoder(in).Encode(map[string]any{
		"databases": perHost, "rest": RESTToken, "rows": RowsToken, "schema": SchemaToken,
	}); err != nil {
		return "", nil, err
	}
	late := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer late.Stop()
	var ready struct{ URL string }
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &ready)
	}
	if err != nil {
		return "", nil, errors.Join(fmt.Errorf("workerd did not start: %w", err), cmd.Wait(), errors.New(said.String()))
	}
	return strings.TrimSuffix(ready.URL, "/"), in, nil
}
