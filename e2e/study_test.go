package e2e

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// gitHost is what the tokens of the case study are for.
const gitHost = "https://git.internal"

// study is the case study with the built binary: kavach and its git host are
// running, orchestrator has signed in, and whatever it hands to code-reviewer is
// a link of that root. All files lie in dir.
type study struct {
	*server
	dir     string
	address string       // of the git host
	git     *http.Client // reaches it, and checks nothing
	canary  *trap
	root    string

	orchestrator *agent // holder: orchestrator.json
	reviewer     *agent // holder: reviewer.json
	host         *agent // the git host as a client of kavach; holder: git.json
	robot        string // a static client, once it is added
	handle       string // the hash of a handle, once it was given
}

func newStudy(t *testing.T) *study {
	t.Helper()
	s := &study{dir: t.TempDir(), address: freeAddress(t), canary: newTrap(t)}
	s.server = start(t, "--git-host", s.address, "--agent-ttl", "15m") // slow machines are slow
	for name, holder := range map[string]**agent{"orchestrator": &s.orchestrator, "code-reviewer": &s.reviewer, "git-host": &s.host} {
		*holder = s.devAgent(t, name)
		file := strings.TrimSuffix(strings.TrimPrefix(name, "code-"), "-host") + ".json"
		s.holder(t, file)
		(*holder).Holder = readKey(t, s.file(file))
	}
	s.must(t, "root.jwt", "token", "--issuer", s.Issuer, "--key-file", s.orchestrator.KeyFile, "--holder-file", "orchestrator.json",
		"--resource", s.Issuer+"/mcp", "--resource", gitHost, "--scope", "kavach:delegate repository:read pullrequest:read comment:write")
	s.root = s.read(t, "root.jwt")

	ca, err := os.ReadFile(s.ca())
	if err != nil {
		t.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(ca)
	s.git = &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: trusted},
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, s.address)
			},
		},
	}
	return s
}

func (s *study) ca() string              { return filepath.Join(s.Data, "git-ca.pem") }
func (s *study) file(name string) string { return filepath.Join(s.dir, name) }

func (s *study) read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(s.file(name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func (s *study) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(s.file(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// ran is a command that ended.
type ran struct {
	status         int
	stdout, stderr string
}

// says is the one error that a command ended with.
func (r ran) says(t *testing.T) string {
	t.Helper()
	said := ""
	for line := range strings.Lines(r.stderr) {
		line = strings.TrimSuffix(line, "\n")
		text, isError := strings.CutPrefix(line, "kavach: error: ")
		switch {
		case isError && said == "":
			said = text
		case !strings.HasPrefix(line, "kavach: hint: "):
			t.Errorf("stderr has %q", line)
		}
	}
	return said
}

// run runs kavach among the files.
func (s *study) run(t *testing.T, args ...string) ran {
	t.Helper()
	return s.runAs(t, binary, args...)
}

func (s *study) runAs(t *testing.T, program string, args ...string) ran {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return ran{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// must is run into a file, for what must succeed.
func (s *study) must(t *testing.T, into string, args ...string) {
	t.Helper()
	r := s.run(t, args...)
	if r.status != 0 {
		t.Fatalf("kavach %s: %d %s", strings.Join(args, " "), r.status, r.stderr)
	}
	s.write(t, into, r.stdout)
}

// holder makes a delegation key: FILE, and its public half in FILE.pub.
func (s *study) holder(t *testing.T, file string) {
	t.Helper()
	s.must(t, file+".pub", "holder", "new", "--out", file)
}

// calling are the flags of `kavach call` for code-reviewer's runtime, which
// reports what it refuses. Every other name leads to the canary.
func (s *study) calling(key string) []string {
	return []string{
		"--key-file", key, "--cacert", s.ca(), "--include", "--resolve", "git.internal=" + s.address,
		"--resolve", "elsewhere.example=" + s.canary.address, "--resolve", "archives.example=" + s.canary.address,
		"--report-to", s.Issuer, "--agent-key-file", s.reviewer.KeyFile,
	}
}

// keySet saves the public keys of the server in jwks.json.
func (s *study) keySet(t *testing.T) {
	t.Helper()
	var set map[string]any
	getJSON(t, s.Issuer+"/.well-known/jwks.json", &set)
	s.write(t, "jwks.json", encode(set))
}

// trap is a listener nobody may connect to.
type trap struct {
	address     string
	connections atomic.Int64
}

func newTrap(t *testing.T) *trap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := &trap{address: l.Addr().String()}
	go func() {
		for {
			connection, err := l.Accept()
			if err != nil {
				return
			}
			c.connections.Add(1)
			connection.Close()
		}
	}()
	return c
}

func (c *trap) port() string { return c.address[strings.LastIndexByte(c.address, ':'):] }

// answer reads an answer that `kavach call --include` printed.
func answer(t *testing.T, printed string) *http.Response {
	t.Helper()
	response, err := http.ReadResponse(bufio.NewReader(strings.NewReader(printed)), nil)
	if err != nil {
		t.Fatalf("%v: %q", err, printed)
	}
	return response
}

// errorCode is the error of a JSON body, "" for none.
func errorCode(body io.Reader) string {
	var said struct{ Error string }
	_ = json.NewDecoder(body).Decode(&said) // a diff is no JSON
	return said.Error
}

// record is what a person reads of a record of the audit log. Ids have names.
type record struct {
	By, Action, Resource, Result, Reason, Dimension string
	Evidence, Agent, Path, Handle                   string
	Status                                          int
}

// records is what `kavach audit list` finds.
func (s *study) records(t *testing.T, flags ...string) []record {
	t.Helper()
	var page struct {
		Entries []struct {
			By, Action, Resource, Result, Reason, Evidence, Agent string
			Path                                                  []string
			Detail                                                struct {
				Dimension, Handle string
				Status            int
			}
		}
	}
	decode(t, s.cli("", append([]string{"audit", "list", "--json", "--oldest-first", "--limit", "500"}, flags...)...), &page)
	named := strings.NewReplacer("server", "kavach", s.orchestrator.ID, "orchestrator", s.reviewer.ID, "reviewer", s.host.ID, "host", cmp.Or(s.robot, "no robot"), "robot", cmp.Or(s.handle, "no handle"), "the handle")
	var out []record
	for _, e := range page.Entries {
		out = append(out, record{
			By: named.Replace(e.By), Action: e.Action, Resource: named.Replace(strings.TrimPrefix(e.Resource, gitHost+"/")),
			Result: e.Result, Reason: e.Reason, Dimension: e.Detail.Dimension, Status: e.Detail.Status,
			Evidence: e.Evidence, Agent: named.Replace(e.Agent), Path: named.Replace(strings.Join(e.Path, " > ")), Handle: named.Replace(e.Detail.Handle),
		})
	}
	return out
}

// claim reads a claim of the last token of a credential.
func claim(credential, name string) any {
	last := credential[strings.LastIndexByte(credential, '~')+1:]
	return decodePart(strings.Split(last, ".")[1])[name]
}

// outlive waits until a credential is over.
func outlive(t *testing.T, credential string) {
	t.Helper()
	exp, ok := claim(credential, "exp").(float64)
	if !ok {
		t.Fatal("it never ends")
	}
	time.Sleep(time.Until(time.Unix(int64(exp), 0)) + 10*time.Millisecond)
}

// plainToken is a bearer token of a static client that is good at the git host.
func (s *study) plainToken(t *testing.T) string {
	t.Helper()
	var c credential
	decode(t, s.cli("", "client", "add", "robot", "--scope", "pullrequest:read", "--json"), &c)
	s.robot = c.ID
	got, err := post(s.client(), s.Issuer+"/oauth/token", url.Values{"grant_type": {"client_credentials"}, "resource": {gitHost}},
		http.Header{"Authorization": {basic(c.ID, c.Secret)}})
	if err != nil || got.Status != http.StatusOK || got.Type != "Bearer" {
		t.Fatalf("a plain token: %v %+v", err, got)
	}
	return got.Access
}
