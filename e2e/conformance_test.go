package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// node22 is the newer node that the conformance tool wants, from an npm package.
func node22(t *testing.T) string {
	t.Helper()
	needNode(t)
	arch := map[string]string{"amd64": "x64", "arm64": "arm64"}[runtime.GOARCH]
	path, err := filepath.Abs(filepath.Join("node", "node_modules", "node-linux-"+arch, "bin", "node"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = os.Stat(path)
	need(t, "the npm package node-linux-"+arch, err == nil)
	return path
}

const conformanceTool = "node_modules/@modelcontextprotocol/conformance/dist/index.js"

// TestConformanceAuthorization runs the official tool's suite against the
// authorization server, with a person who signs in and approves.
func TestConformanceAuthorization(t *testing.T) {
	engine := node22(t)
	s := start(t)
	c := register(t, s.Issuer)
	port := strings.Split(freeAddress(t), ":")[1]
	out := s.node(t, []string{"PATH=" + filepath.Dir(engine) + ":" + os.Getenv("PATH")}, "authorize.mjs", engine, conformanceTool, "authorization",
		"--url", s.Issuer, "--client-id", c.ID, "--resource", s.Issuer+"/mcp", "--port", port, "--spec-version", "2026-07-28")
	t.Log(out)
	if !strings.Contains(out, "authorization-code-grant") || strings.Contains(out, "FAILURE") {
		t.Error("the authorization suite did not pass")
	}
}

// TestConformanceServer runs every scenario that a revision requires against
// /mcp. The tool cannot send a token, so a proxy on loopback adds it. Scenarios
// that need the tool's own fixtures stand in conformance/REVISION.yaml.
func TestConformanceServer(t *testing.T) {
	engine := node22(t)
	s := start(t)
	token := register(t, s.Issuer).signIn(newPerson(t, "dev", "dev"), "kavach:verify kavach:delegate kavach:audit", choice{}).Access
	target, _ := url.Parse(s.Issuer)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	proxy := &http.Server{Handler: &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		if r.In.Host == listener.Addr().String() { // a Host that the tool forged stays as it is
			r.Out.Host = target.Host
		} else {
			r.Out.Host = r.In.Host
		}
		r.Out.Header.Set("Authorization", "Bearer "+token)
		// kavach may answer before the proxy has seen the end of the body; read
		// here, it is not read from a request that was answered meanwhile.
		if body, err := io.ReadAll(r.In.Body); err == nil {
			r.Out.Body = io.NopCloser(bytes.NewReader(body))
		}
	}}}
	go proxy.Serve(listener)
	t.Cleanup(func() { proxy.Close() })
	for _, revision := range []string{"2026-07-28", "2025-11-25"} {
		t.Run(revision, func(t *testing.T) {
			expected, err := filepath.Abs(filepath.Join("conformance", revision+".yaml"))
			if err != nil {
				t.Fatal(err)
			}
			results := t.TempDir()
			t.Cleanup(func() {
				if t.Failed() {
					t.Log(failures(results))
				}
			})
			t.Log(command(t, nil, engine, conformanceTool, "server", "--url", "http://"+listener.Addr().String()+"/mcp", "--requirements", revision, "--expected-failures", expected, "-o", results))
		})
	}
}

// failures reads why checks failed from the tool's results.
func failures(dir string) string {
	var out strings.Builder
	files, _ := filepath.Glob(filepath.Join(dir, "*", "checks.json"))
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		var checks []struct{ ID, Status, ErrorMessage string }
		if json.Unmarshal(raw, &checks) != nil {
			continue
		}
		for _, c := range checks {
			if c.Status == "FAILURE" || c.Status == "WARNING" {
				fmt.Fprintf(&out, "%s %s: %s\n", c.Status, c.ID, c.ErrorMessage)
			}
		}
	}
	return out.String()
}
