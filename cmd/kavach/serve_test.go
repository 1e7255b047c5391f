package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

// runningMain is a server in this process.
type runningMain struct {
	*Main
	stderr *lockedBuffer
	stop   context.CancelFunc
	ended  chan error
}

// startMain runs serve with args in this process, on free ports and a folder of
// its own. It is drained with the test.
func startMain(t *testing.T, args ...string) *runningMain {
	t.Helper()
	return startMainAt(t, now, args...)
}

// startMainAt is startMain with a clock.
func startMainAt(t *testing.T, clock func() time.Time, args ...string) *runningMain {
	t.Helper()
	var grammar cli
	parser, err := newParser(&grammar, kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	args = append([]string{"serve", "--data", filepath.Join(t.TempDir(), "data"), "--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0"}, args...)
	if _, err := parser.Parse(args); err != nil {
		t.Fatal(err)
	}
	if err := grammar.Serve.check(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stderr := &lockedBuffer{}
	w := &world{ctx: ctx, stdin: strings.NewReader(""), stdout: io.Discard, stderr: stderr, now: clock}
	m := &runningMain{
		Main:   &Main{Config: grammar.Serve, world: w, Log: slog.New(slog.NewTextHandler(stderr, nil))},
		stderr: stderr, stop: cancel, ended: make(chan error, 1),
	}
	if err := m.Open(ctx); err != nil {
		m.Close()
		t.Fatalf("opening: %v\n%s", err, stderr.String())
	}
	go func() { m.ended <- m.Serve(ctx) }()
	t.Cleanup(func() {
		m.stop()
		if err := <-m.ended; err != nil {
			t.Errorf("serving: %v", err)
		}
		if err := m.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
		if t.Failed() {
			t.Logf("server said:\n%s", stderr.String())
		}
	})
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(stderr.String(), "kavach: ready "); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never ready")
		}
	}
	return m
}

func fetch(t *testing.T, client *http.Client, address string) (*http.Response, string) {
	t.Helper()
	resp, err := client.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(body)
}

// TestServeIssuerWithPath: everything lives below the path but the well-known
// documents, which have it inserted.
func TestServeIssuerWithPath(t *testing.T) {
	address := freeLoopback(t)
	m := startMain(t, "--listen", address, "--issuer", "http://"+address+"/auth", "--dev")
	base := "http://" + address
	for path, want := range map[string]int{
		"/.well-known/oauth-authorization-server/auth":   200,
		"/.well-known/oauth-protected-resource/auth/mcp": 200,
		"/.well-known/oauth-authorization-server":        404,
		"/auth/.well-known/jwks.json":                    200,
		"/auth/mcp":                                      401,
		"/auth/login":                                    200,
		"/login":                                         404,
		"/mcp":                                           404,
		"/.well-known/oauth-protected-resource/auth/nothing": 404,
	} {
		if resp, body := fetch(t, http.DefaultClient, base+path); resp.StatusCode != want {
			t.Errorf("%s answers %d, want %d: %.200s", path, resp.StatusCode, want, body)
		}
	}
	if m.Issuer != base+"/auth" {
		t.Errorf("the issuer is %s", m.Issuer)
	}
	if _, body := fetch(t, http.DefaultClient, base+"/auth/login"); !strings.Contains(body, `action="/auth/login"`) {
		t.Error("the sign-in form is posted elsewhere")
	}
}

// TestServeCertificate: the certificate is read again when it changes, and a
// broken one does not stop the service.
func TestServeCertificate(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCertificate(t, cert, key, "first")
	m := startMain(t, "--issuer", "https://localhost", "--tls-cert", cert, "--tls-key", key)
	name := func() string {
		conn, err := tls.Dial("tcp", m.Public.String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if got := name(); got != "first" {
		t.Fatalf("serves %q", got)
	}
	if err := os.WriteFile(cert, []byte("half a certif"), 0o600); err != nil {
		t.Fatal(err)
	}
	m.expireCertificate()
	if got := name(); got != "first" {
		t.Fatalf("with a broken file it serves %q", got)
	}
	writeCertificate(t, cert, key, "second")
	m.expireCertificate()
	if got := name(); got != "second" {
		t.Fatalf("after the change it serves %q", got)
	}
	if _, err := tls.Dial("tcp", m.Public.String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
}

func writeCertificate(t *testing.T, certFile, keyFile, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestServeLimits: headers are bounded, bodies are bounded, and the next good
// request works.
func TestServeLimits(t *testing.T) {
	m := startMain(t)
	base := "http://" + m.Public.String()

	req, _ := http.NewRequest(http.MethodGet, base+"/.well-known/jwks.json", nil)
	req.Header.Set("X-Long", strings.Repeat("a", 64<<10))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("64 KiB of headers answer %d", resp.StatusCode)
	}
	for path, size := range map[string]int{"/oauth/token": 128 << 10, "/oauth/register": 128 << 10, "/mcp": 2 << 20, "/api/v1/agents": 128 << 10, "/login": 128 << 10} {
		resp, err := http.Post(base+path, "application/x-www-form-urlencoded", bytes.NewReader(bytes.Repeat([]byte("a"), size)))
		if err != nil {
			t.Errorf("%s with %d bytes: %v", path, size, err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode < 400 || resp.StatusCode >= 500 {
			t.Errorf("%s with %d bytes answers %d", path, size, resp.StatusCode)
		}
	}
	if resp, _ := fetch(t, http.DefaultClient, base+"/.well-known/jwks.json"); resp.StatusCode != 200 {
		t.Errorf("the next good request answers %d", resp.StatusCode)
	}
}

// TestServePanic: a panic is an answer without a stack, logged with one, and
// counted.
func TestServePanic(t *testing.T) {
	log := &lockedBuffer{}
	m := &Main{Log: slog.New(slog.NewTextHandler(log, nil)), ops: &ops{metrics: newMetrics()}}
	mux := http.NewServeMux()
	mux.HandleFunc("/early", func(http.ResponseWriter, *http.Request) { panic("a secret detail") })
	mux.HandleFunc("/late", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("half")); panic("late") })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: m.ops.metrics.measure(m.recovering(mux)), ErrorLog: slog.NewLogLogger(m.Log.Handler(), slog.LevelWarn)}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	resp, body := fetch(t, http.DefaultClient, "http://"+l.Addr().String()+"/early")
	if resp.StatusCode != 500 || strings.TrimSpace(body) != `{"error":"server_error"}` {
		t.Errorf("a panic answers %d %s", resp.StatusCode, body)
	}
	if resp, err := http.Get("http://" + l.Addr().String() + "/late"); err == nil {
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Error("half an answer looks whole")
		}
		resp.Body.Close()
	}
	if text := log.String(); !strings.Contains(text, "a secret detail") || !strings.Contains(text, "TestServePanic") {
		t.Errorf("the log does not say what panicked where:\n%s", text)
	}
}

// TestServeDrain: a request that is being answered is answered to its end, and
// readiness goes first.
func TestServeDrain(t *testing.T) {
	inside, release := make(chan struct{}), make(chan struct{})
	slow := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(inside)
		<-release
		fmt.Fprint(w, "done")
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &Main{
		world: &world{stderr: io.Discard}, Log: slog.New(slog.DiscardHandler), Issuer: "http://127.0.0.1",
		ops: &ops{metrics: newMetrics()}, parts: &parts{routes: map[string]http.Handler{"/slow": slow}},
	}
	operations, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.listeners, m.Public, m.Ops = []net.Listener{l, operations}, l.Addr(), operations.Addr()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.Serve(ctx) }()

	answered := make(chan string, 1)
	go func() {
		resp, err := http.Get("http://" + l.Addr().String() + "/slow")
		if err != nil {
			answered <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		answered <- string(body)
	}()
	<-inside
	stop()
	for { // draining: /readyz says so while the request still runs
		resp, body := fetch(t, http.DefaultClient, "http://"+operations.Addr().String()+"/readyz")
		if resp.StatusCode == http.StatusServiceUnavailable && strings.Contains(body, "draining") {
			break
		}
		time.Sleep(time.Millisecond)
	}
	close(release)
	if got := <-answered; got != "done" {
		t.Errorf("the request under way got %q", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("draining: %v", err)
	}
}

// expireCertificate makes the next handshake look at the files again.
func (m *runningMain) expireCertificate() {
	m.cert.mu.Lock()
	defer m.cert.mu.Unlock()
	m.cert.checked = time.Time{}
}
