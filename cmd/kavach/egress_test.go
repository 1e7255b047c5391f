package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
)

// issueBound writes a token for a key to a file, and returns it.
func issueBound(t *testing.T, file string, key agent.PrivateKey, audience string) string {
	t.Helper()
	now := time.Now()
	signed, err := delegation.Sign(delegation.Claims{
		Issuer: "https://auth.example", Subject: "usr_alice", ClientID: "orchestrator", GrantID: "gr_1", JTI: delegation.NewJTI(now),
		Audience: []string{audience}, Scopes: []string{"repository:read"}, IssuedAt: now, Expires: now.Add(time.Minute),
		Root: true, Key: key.Public(), Limits: delegation.Limits{AllowNetwork: []string{"git.internal"}},
	}, delegation.ServerKey{KID: "at-script", Signer: issuerKey()})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(signed.Token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return signed.Token
}

// TestEgress runs the proxy and sends requests through it, as a program in any
// language does.
func TestEgress(t *testing.T) {
	var last *http.Request
	resource := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		last = r
		io.WriteString(w, "here")
	}))
	defer resource.Close()

	key, err := agent.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := key.MarshalJWK()
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	keyFile, tokenFile := filepath.Join(folder, "holder.key.json"), filepath.Join(folder, "token")
	if err := os.WriteFile(keyFile, jwk, 0o600); err != nil {
		t.Fatal(err)
	}
	token := issueBound(t, tokenFile, key, resource.URL)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	said, stderr := io.Pipe()
	w := &world{ctx: ctx, stdin: strings.NewReader(""), stdout: io.Discard, stderr: stderr, now: time.Now}
	exit := make(chan int, 1)
	go func() {
		exit <- w.run([]string{"egress", "--listen", "127.0.0.1:0", "--token-file", tokenFile, "--key-file", keyFile})
		stderr.Close()
	}()
	var buffer [4096]byte
	n, err := said.Read(buffer[:])
	ready := regexp.MustCompile(`^kavach: ready (http://127\.0\.0\.1:[0-9]+)\n`).FindStringSubmatch(string(buffer[:n]))
	if ready == nil {
		t.Fatalf("%v: %q", err, buffer[:n])
	}
	go io.Copy(io.Discard, said)
	proxy, err := url.Parse(ready[1])
	if err != nil {
		t.Fatal(err)
	}
	through := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy), DisableKeepAlives: true}}
	get := func(address string) (int, string) {
		t.Helper()
		resp, err := through.Get(address)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}

	status, body := get(resource.URL + "/pull/847")
	if status != http.StatusOK || body != "here" || last.Header.Get("Authorization") != "DPoP "+token {
		t.Errorf("at home: %d %s %v", status, body, last.Header)
	}
	if _, err := agent.VerifyProof(last.Header.Get("DPoP"), agent.ProofCheck{
		Method: "GET", URL: resource.URL + "/pull/847", Token: token, JKT: key.Public().Thumbprint(), Now: time.Now(),
	}); err != nil {
		t.Errorf("the proof: %v", err)
	}
	if status, body := get("http://elsewhere.example/"); status != http.StatusForbidden || !strings.Contains(body, "constraint_violated") {
		t.Errorf("elsewhere: %d %s", status, body)
	}

	// Whoever renews the token rewrites the file.
	next := issueBound(t, tokenFile, key, resource.URL)
	if get(resource.URL); last.Header.Get("Authorization") != "DPoP "+next {
		t.Error("the token of before is still used")
	}
	if err := os.WriteFile(tokenFile, []byte("half of a tok"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _ := get(resource.URL); status != http.StatusOK || last.Header.Get("Authorization") != "DPoP "+next {
		t.Errorf("while the file is being written: %d", status)
	}

	stop()
	if code := <-exit; code != exitOK {
		t.Errorf("told to stop, it exits with %d", code)
	}
}
