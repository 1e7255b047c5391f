package e2e

import (
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// What code-reviewer is handed: one pull request to read, one thread to write to.
var (
	reading    = link("--scope", "repository:read pullrequest:read", "--resource", "pull/847", "--allow-network", "git.internal")
	commenting = link("--scope", "comment:write", "--resource", "pull/847/thread/3", "--allow-network", "git.internal", "--max-file-size", "2000")
)

// link has orchestrator derive a link for code-reviewer, offline.
func link(flags ...string) func(*attempt) string {
	return func(a *attempt) string {
		a.must(a.t, "link.jwt", append([]string{
			"delegate", "--parent", "root.jwt", "--key-file", "orchestrator.json", "--to", "reviewer.json.pub", "--agent", "code-reviewer", "--audience", gitHost,
		}, flags...)...)
		return a.read(a.t, "link.jwt")
	}
}

// heard is how everybody said it.
type heard struct {
	// Exit and Says are of the command: its status, and its error.
	Exit int
	Says string
	// Status, Code and Challenges are of the answer: its status, the error in its body,
	// and its WWW-Authenticate headers, one a line.
	Status     int
	Code       string
	Challenges string
}

// attempt is one row being tried.
type attempt struct {
	*study
	t     *testing.T
	token string
	heard heard
	find  []string // flags of `kavach audit list` that find its records
}

// refusal is something that must be refused, or must not for comparison.
type refusal struct {
	name    string
	token   func(*attempt) string
	try     func(*attempt)
	want    heard
	records []record // what the log holds of the token
}

// TestRefused is issue 3, Show 2: each with the right status, challenge, exit of
// the command, and record.
func TestRefused(t *testing.T) {
	s := newStudy(t)
	denied := 0
	for _, row := range slices.Concat(permits(s), atTheGitHost(s), inTheRuntime(s), withoutTheKey(s), forged(s), exchanged(s)) {
		t.Run(row.name, func(t *testing.T) {
			a := &attempt{study: s, t: t}
			a.token = row.token(a)
			a.write(t, "token.jwt", a.token)
			a.find = []string{"--lid", lid(a.token)}
			row.try(a)
			if a.heard != row.want {
				t.Errorf("heard\n%+v\nwant\n%+v", a.heard, row.want)
			}
			a.recorded(row.records)
			for _, r := range row.records {
				if r.Result == "denied" {
					denied++
				}
			}
		})
	}
	if n := s.canary.connections.Load(); n != 0 {
		t.Errorf("%d connections were opened to where none may be", n)
	}
	if err := s.stop(); err != nil {
		t.Errorf("stopping: %v", err)
	}
	if all := s.records(t, "--result", "denied"); len(all) != denied {
		t.Errorf("the log has %d refusals, and %d were told of", len(all), denied)
	}
	if out := s.cli("", "audit", "verify"); !strings.Contains(out, "intact") {
		t.Errorf("the log: %s", out)
	}
}

// recorded: the log holds these records of the token and no others. What the
// git host decided it reports a moment later.
func (a *attempt) recorded(want []record) {
	a.t.Helper()
	var got []record
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		got = slices.DeleteFunc(a.records(a.t, a.find...), func(r record) bool {
			return r.Result == "allowed" && !strings.HasPrefix(r.Action, "rs.") // how it came to be
		})
		if len(got) >= len(want) || time.Now().After(end) {
			break
		}
	}
	if !slices.Equal(got, want) {
		a.t.Errorf("the log has\n%+v\nwant\n%+v", got, want)
	}
}

// command runs kavach; what it says is heard.
func (a *attempt) command(args ...string) string {
	a.t.Helper()
	r := a.run(a.t, args...)
	a.heard.Exit, a.heard.Says = r.status, r.says(a.t)
	return r.stdout
}

// call is `kavach call` by code-reviewer with the token.
func (a *attempt) call(url string, flags ...string) {
	a.t.Helper()
	printed := a.command(slices.Concat([]string{"call", url, "--token-file", "token.jwt"}, a.calling("reviewer.json"), flags)...)
	if printed != "" {
		a.answered(answer(a.t, printed))
	}
}

// calls is call as a row has it.
func calls(url string, flags ...string) func(*attempt) {
	return func(a *attempt) { a.call(url, flags...) }
}

// posts is calls with a body of n bytes.
func posts(url string, n int) func(*attempt) {
	return func(a *attempt) {
		a.write(a.t, "body", strings.Repeat("x", n))
		a.call(url, "--data-file", "body")
	}
}

// send is a request by hand, of a program that checks nothing. Without a proof
// none is sent.
func (a *attempt) send(method, path, body, scheme, proof string) {
	a.t.Helper()
	request, err := http.NewRequestWithContext(a.t.Context(), method, gitHost+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	request.Header.Set("Authorization", scheme+" "+a.token)
	if proof != "" {
		request.Header.Set("DPoP", proof)
	}
	response, err := a.git.Do(request)
	if err != nil {
		a.t.Fatal(err)
	}
	a.answered(response)
}

func (a *attempt) answered(r *http.Response) {
	defer r.Body.Close()
	a.heard.Status, a.heard.Challenges = r.StatusCode, strings.Join(r.Header.Values("WWW-Authenticate"), "\n")
	a.heard.Code = errorCode(r.Body)
	_, _ = io.Copy(io.Discard, r.Body)
}

// proof is one by code-reviewer's holder key for the token.
func (a *attempt) proof(method, path string) string {
	return a.reviewer.Holder.proof(method, gitHost+path, a.token)
}

// exchangeBy has an agent exchange the token by hand, with its own holder key.
func (a *attempt) exchangeBy(who *agent, more url.Values) {
	a.t.Helper()
	got, err := who.exchange(a.token, more)
	if err != nil {
		a.t.Fatal(err)
	}
	a.heard.Status, a.heard.Code, a.heard.Challenges = got.Status, got.Error, strings.Join(got.Header.Values("WWW-Authenticate"), "\n")
}

// Challenges, whole.
const (
	metadata = `resource_metadata="https://git.internal/.well-known/oauth-protected-resource"`
	noToken  = `Bearer error="invalid_token", scope="pullrequest:read repository:read", ` + metadata + "\n" + `DPoP algs="Ed25519 ES256"`
	noProof  = `Bearer scope="pullrequest:read repository:read", ` + metadata + "\n" + `DPoP error="invalid_dpop_proof", algs="Ed25519 ES256"`
)

// atHost is the record of a request that the git host decided with the chain.
func atHost(resource, reason, dimension string, status int) record {
	r := record{By: "host", Action: "rs.access", Resource: resource, Result: "denied", Reason: reason, Dimension: dimension,
		Evidence: "proof", Agent: "orchestrator", Path: "orchestrator > code-reviewer", Status: status}
	if reason == "" {
		r.Result = "allowed"
	}
	return r
}

// inRuntime is the record of what code-reviewer's own runtime refused. That a
// connection was not opened nobody can prove.
func inRuntime(destination, reason, dimension string) record {
	return record{By: "reviewer", Action: "rs.connect", Resource: "reviewer/" + destination, Result: "denied", Reason: reason, Dimension: dimension,
		Evidence: "asserted", Path: "orchestrator > code-reviewer"}
}

// hosts runs kavach where /etc/hosts is another: the system's own resolver
// answers what the test wants.
func (a *attempt) hosts(lines string, args ...string) {
	a.t.Helper()
	const enter = `mount --bind "$0" /etc/hosts && exec "$@"`
	a.write(a.t, "hosts", lines)
	need(a.t, "unshare -rm", exec.Command("unshare", "-rm", "sh", "-c", enter, a.file("hosts"), "true").Run() == nil)
	r := a.runAs(a.t, "unshare", append([]string{"-rm", "sh", "-c", enter, a.file("hosts"), binary}, args...)...)
	a.heard.Exit, a.heard.Says = r.status, r.says(a.t)
}
