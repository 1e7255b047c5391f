package demo_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/demo"
	"github.com/kavach-dev/kavach/guard"
	"github.com/kavach-dev/kavach/wellknown"
)

// world is a git host over TLS, and an issuer that is nothing but a key set.
type world struct {
	t      *testing.T
	issuer *httptest.Server
	key    delegation.ServerKey
	addr   string
	pool   *demo.Authority

	mu      sync.Mutex // guards reports
	reports []guard.Decision
}

func newWorld(t *testing.T) *world {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, key: delegation.ServerKey{KID: "at-test", Signer: private}}
	jwks, err := wellknown.JWKS([]wellknown.Key{{KID: "at-test", Alg: delegation.Ed25519, Public: private.Public()}})
	if err != nil {
		t.Fatal(err)
	}
	w.issuer = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != wellknown.JWKSPath {
			http.NotFound(rw, r)
			return
		}
		rw.Write(jwks)
	}))
	t.Cleanup(w.issuer.Close)
	host := demo.NewGitHost(demo.GitHostConfig{Issuer: w.issuer.URL, Report: w.report, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(host.Close)
	if w.pool, err = demo.NewAuthority(time.Now()); err != nil {
		t.Fatal(err)
	}
	cert, err := w.pool.Certificate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.addr = l.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- host.Serve(ctx, l, cert) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	return w
}

func (w *world) report(_ context.Context, d guard.Decision) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reports = append(w.reports, d)
	return nil
}

// last is the reason of the last report, "" for a permit.
func (w *world) last() delegation.Reason {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.reports) == 0 {
		w.t.Fatal("nothing was reported")
	}
	return w.reports[len(w.reports)-1].Reason
}

// token signs a root of a chain for a new key.
func (w *world) token(limits delegation.Limits, scopes ...string) client.Credential {
	w.t.Helper()
	key, err := agent.GenerateKey()
	if err != nil {
		w.t.Fatal(err)
	}
	now := time.Now()
	signed, err := delegation.Sign(delegation.Claims{
		Issuer: w.issuer.URL, Subject: "orchestrator", ClientID: "orchestrator", GrantID: "gr_1", Audience: []string{demo.Resource},
		IssuedAt: now, Expires: now.Add(time.Minute), Scopes: scopes, Root: true, MaxDepth: 3, Key: key.Public(), Limits: limits,
	}, w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	held, err := client.Hold(signed.Token, key)
	if err != nil {
		w.t.Fatal(err)
	}
	return held
}

// http reaches the git host and checks nothing itself.
func (w *world) http() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{RootCAs: w.pool.Pool()},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, w.addr)
		},
	}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// send sends a request with a fresh proof and returns the answer.
func (w *world) send(held client.Credential, method, path string, body io.Reader) (*http.Response, string) {
	w.t.Helper()
	r, err := http.NewRequest(method, demo.Resource+path, body)
	if err != nil {
		w.t.Fatal(err)
	}
	if held.Token != "" {
		if err := held.Authorize(r, "", time.Now()); err != nil {
			w.t.Fatal(err)
		}
	}
	resp, err := w.http().Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp, string(text)
}

func size(n int64) *int64 { return &n }

func TestGitHostRoutes(t *testing.T) {
	w := newWorld(t)
	everything := []string{demo.ReadRepository, demo.WriteRepository, demo.ReadPull, demo.WriteComment}
	only847 := delegation.Limits{Resources: []string{"pull/847", "pull/847/*"}}
	for _, c := range []struct {
		name   string
		limits delegation.Limits
		scopes []string
		method string
		path   string
		body   string
		status int
		reason delegation.Reason
		text   string // in the answer
	}{
		{"the pull request", only847, []string{demo.ReadPull}, "GET", "/pull/847", "", 200, "", `"threads":[3,4]`},
		{"the diff", only847, []string{demo.ReadRepository}, "GET", "/pull/847/diff", "", 200, "", "+++ b/pool/pool.go"},
		{"the head of the diff", only847, []string{demo.ReadRepository}, "HEAD", "/pull/847/diff", "", 200, "", ""},
		{"the archive", only847, []string{demo.ReadRepository}, "GET", "/pull/847/archive", "", 303, "", ""},
		{"a thread", only847, []string{demo.ReadPull}, "GET", "/pull/847/thread/3", "", 200, "", `"line":"pool/pool.go:45"`},
		{"a comment", only847, []string{demo.WriteComment}, "POST", "/pull/847/thread/3", "Lock it.", 201, "", `"path":["orchestrator"],"text":"Lock it."`},
		{"a merge", only847, []string{demo.WriteRepository}, "POST", "/pull/847/merge", "", 200, "", `"merged":847`},
		{"a pull request that is not there", delegation.Limits{}, everything, "GET", "/pull/1", "", 404, "", "not_found"},
		{"a thread that is not there", delegation.Limits{}, everything, "POST", "/pull/847/thread/9", "x", 404, "", "not_found"},
		{"an empty comment", delegation.Limits{}, everything, "POST", "/pull/847/thread/3", "", 400, "", "invalid_request"},
		{"bytes that are no text", delegation.Limits{}, everything, "POST", "/pull/847/thread/3", "\xff", 400, "", "invalid_request"},

		{"no scope for the diff", only847, []string{demo.ReadPull}, "GET", "/pull/847/diff", "", 403, delegation.ScopeNotGranted, "insufficient_scope"},
		{"no scope for a comment", only847, []string{demo.ReadPull, demo.ReadRepository}, "POST", "/pull/847/thread/3", "x", 403, delegation.ScopeNotGranted, ""},
		{"no scope for a merge", only847, []string{demo.WriteComment}, "POST", "/pull/847/merge", "", 403, delegation.ScopeNotGranted, ""},
		{"another pull request", only847, everything, "GET", "/pull/848", "", 403, delegation.ConstraintViolated, ""},
		{"one whose number begins so", delegation.Limits{Resources: []string{"pull/84"}}, everything, "GET", "/pull/847", "", 403, delegation.ConstraintViolated, ""},
		{"the pull request of a thread", delegation.Limits{Resources: []string{"pull/847/thread/3"}}, everything, "GET", "/pull/847/diff", "", 403, delegation.ConstraintViolated, ""},
		{"another thread", delegation.Limits{Resources: []string{"pull/847/thread/3"}}, everything, "GET", "/pull/847/thread/4", "", 403, delegation.ConstraintViolated, ""},
		{"another spelling of the number", delegation.Limits{}, everything, "GET", "/pull/0847", "", 400, delegation.Malformed, ""},
		{"a number that is none", delegation.Limits{}, everything, "GET", "/pull/-847", "", 400, delegation.Malformed, ""},
		{"a comment of the size", delegation.Limits{MaxFileSize: size(3)}, everything, "POST", "/pull/847/thread/3", "abc", 201, "", ""},
		{"a comment over the size", delegation.Limits{MaxFileSize: size(3)}, everything, "POST", "/pull/847/thread/3", "abcd", 403, delegation.ConstraintViolated, ""},
		{"a diff over the size", delegation.Limits{MaxFileSize: size(3)}, everything, "GET", "/pull/847/diff", "", 403, delegation.ConstraintViolated, ""},
		{"no file at all", delegation.Limits{MaxFileSize: size(3)}, everything, "GET", "/pull/847", "", 200, "", ""},
		{"a body beyond all sizes", delegation.Limits{}, everything, "POST", "/pull/847/thread/3", strings.Repeat("x", 65<<10), 413, delegation.TooLarge, ""},
		{"a tool that is not this", delegation.Limits{}, everything, "PUT", "/pull/847", "", 404, "", "not_found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp, text := w.send(w.token(c.limits, c.scopes...), c.method, c.path, strings.NewReader(c.body))
			if resp.StatusCode != c.status || !strings.Contains(text, c.text) {
				t.Errorf("it answers %d %s", resp.StatusCode, text)
			}
			if c.status != 404 || c.method != "PUT" { // what is no route has no guard
				if got := w.last(); got != c.reason {
					t.Errorf("reported as %q, want %q", got, c.reason)
				}
			}
			if location := resp.Header.Get("Location"); c.status == 303 && location != demo.Archives+"/pull/847.tar.gz" {
				t.Errorf("it redirects to %s", location)
			}
		})
	}
}

// TestGitHostStream: what Content-Length does not say is counted, too.
func TestGitHostStream(t *testing.T) {
	w := newWorld(t)
	resp, text := w.send(w.token(delegation.Limits{MaxFileSize: size(3)}, demo.WriteComment), "POST", "/pull/847/thread/3",
		struct{ io.Reader }{strings.NewReader("abcd")}) // chunked
	if resp.StatusCode != 403 || w.last() != delegation.ConstraintViolated {
		t.Errorf("it answers %d %s", resp.StatusCode, text)
	}
	resp, text = w.send(w.token(delegation.Limits{}, demo.ReadPull), "GET", "/pull/847/thread/3", nil)
	if resp.StatusCode != 200 || !strings.Contains(text, `"comments":[]`) {
		t.Errorf("the comment was taken: %s", text)
	}
}

// TestGitHostChallenge: who comes without a token is told where to get one.
func TestGitHostChallenge(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/pull/847", "/pull/847/diff", "/pull/1"} {
		resp, _ := w.send(client.Credential{}, "GET", path, nil)
		challenges := resp.Header.Values("WWW-Authenticate")
		if resp.StatusCode != 401 || len(challenges) == 0 ||
			!strings.Contains(challenges[0], `resource_metadata="https://git.internal/.well-known/oauth-protected-resource"`) {
			t.Errorf("%s answers %d %q", path, resp.StatusCode, challenges)
		}
	}
	resp, text := w.send(client.Credential{}, "GET", "/.well-known/oauth-protected-resource", nil)
	var metadata struct {
		Resource string   `json:"resource"`
		Servers  []string `json:"authorization_servers"`
		Scopes   []string `json:"scopes_supported"`
	}
	if err := json.Unmarshal([]byte(text), &metadata); err != nil || resp.StatusCode != 200 {
		t.Fatalf("the metadata: %d %v %s", resp.StatusCode, err, text)
	}
	if metadata.Resource != demo.Resource || !slices.Equal(metadata.Servers, []string{w.issuer.URL}) || len(metadata.Scopes) != len(demo.Scopes()) {
		t.Errorf("the metadata says %+v", metadata)
	}
	if resp, _ := w.send(client.Credential{}, "GET", "/", nil); resp.StatusCode != 404 {
		t.Errorf("/ answers %d", resp.StatusCode)
	}
}

// TestGitHostAlone: with the issuer gone it goes on with the keys it has.
func TestGitHostAlone(t *testing.T) {
	w := newWorld(t)
	held := w.token(delegation.Limits{}, demo.ReadPull)
	if resp, text := w.send(held, "GET", "/pull/847", nil); resp.StatusCode != 200 {
		t.Fatalf("it answers %d %s", resp.StatusCode, text)
	}
	w.issuer.Close()
	if resp, text := w.send(held, "GET", "/pull/847", nil); resp.StatusCode != 200 {
		t.Errorf("without the issuer it answers %d %s", resp.StatusCode, text)
	}
}

// TestRepositoryRoom: a thread has an end, and whoever comments at once loses
// nothing.
func TestRepositoryRoom(t *testing.T) {
	r := demo.NewRepository()
	var all sync.WaitGroup
	for i := range 1200 {
		all.Go(func() { r.Comment(847, 3, demo.Comment{Text: fmt.Sprint(i)}) })
	}
	all.Wait()
	if got, _ := r.Thread(847, 3); len(got.Comments) != 1000 {
		t.Errorf("%d comments", len(got.Comments))
	}
	if r.Comment(847, 3, demo.Comment{Text: "one more"}) {
		t.Error("a full thread takes more")
	}
}

// TestAuthority: its certificate is for git.internal, and it cannot vouch for
// anybody else.
func TestAuthority(t *testing.T) {
	a, err := demo.NewAuthority(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(a.PEM(), []byte("-----BEGIN CERTIFICATE-----")) {
		t.Errorf("it writes %s", a.PEM())
	}
	cert, err := a.Certificate(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()
	for name, ok := range map[string]bool{demo.Host: true, "git.example": false, "sub.git.internal": false} {
		c, err := tls.Dial("tcp", server.Listener.Addr().String(), &tls.Config{RootCAs: a.Pool(), ServerName: name})
		if (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			c.Close()
		}
	}
}
