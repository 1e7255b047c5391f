package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestTypeScriptClients: the official MCP clients, both generations, from the
// first 401 to every tool, refresh and step-up.
func TestTypeScriptClients(t *testing.T) {
	needNode(t)
	for _, version := range []string{"v1", "v2"} {
		t.Run(version+" full", func(t *testing.T) {
			start(t).node(t, nil, "mcp.mjs", version, "full")
		})
		t.Run(version+" step-up from a small baseline", func(t *testing.T) {
			start(t, "--mcp-scopes", "kavach:verify").node(t, nil, "mcp.mjs", version, "stepup")
		})
		t.Run(version+" step-up after unticking", func(t *testing.T) {
			start(t).node(t, []string{"UNTICK=kavach:delegate kavach:audit"}, "mcp.mjs", version, "stepup")
		})
	}
}

// TestOAuth4WebAPI: a strict OAuth client drives every endpoint.
func TestOAuth4WebAPI(t *testing.T) {
	needNode(t)
	s := start(t)
	env := []string{}
	web := map[string]any{}
	if err := json.Unmarshal([]byte(s.cli("", "client", "add", "web", "--redirect-uri", "http://127.0.0.1:45454/cb", "--json")), &web); err != nil {
		t.Fatal(err)
	}
	env = append(env, fmt.Sprint("WEB_ID=", web["client_id"]), fmt.Sprint("WEB_SECRET=", web["client_secret"]))
	for name, method := range map[string]string{"BASIC": "client_secret_basic", "POST": "client_secret_post"} {
		var client struct {
			ID     string `json:"client_id"`
			Secret string `json:"client_secret"`
		}
		if err := json.Unmarshal([]byte(s.cli("", "client", "add", "machine-"+strings.ToLower(name), "--method", method, "--grant", "client_credentials", "--scope", "audit:write", "--json")), &client); err != nil {
			t.Fatal(err)
		}
		env = append(env, name+"_ID="+client.ID, name+"_SECRET="+client.Secret)
	}
	s.node(t, env, "oauth.mjs")
}

// TestForeignResource: a token that `delegate` made for somebody else's resource
// is accepted by a handler that verifies with jose, for exactly what it says.
func TestForeignResource(t *testing.T) {
	needNode(t)
	s := start(t)
	const audience, other = "https://archive.example/api", "https://wiki.example/api"
	s.cli("", "resource", "add", audience, "--name", "Archive", "--scope", "archive:read=Read the archive", "--scope", "archive:write=Write into the archive", "--kavach-aware")
	s.cli("", "resource", "add", other, "--name", "Wiki", "--scope", "wiki:read=Read the wiki", "--kavach-aware")
	time.Sleep(5 * time.Second) // a running server sees what operator commands did within 5 s

	delegations := map[string]map[string]any{
		"good":    {"agent": "code-reviewer", "scopes": []string{"archive:read"}, "ttl_seconds": 60},
		"comment": {"agent": "code-reviewer", "scopes": []string{"archive:write"}, "ttl_seconds": 60},
		"other":   {"agent": "code-reviewer", "scopes": []string{"wiki:read"}, "ttl_seconds": 60},
		"short":   {"agent": "code-reviewer", "scopes": []string{"archive:read"}, "ttl_seconds": 1},
		"wider":   {"agent": "code-reviewer", "scopes": []string{"agents:manage"}, "ttl_seconds": 60},
	}
	encoded, _ := json.Marshal(delegations)
	out := s.node(t, []string{"TICK=archive:read archive:write wiki:read", "DELEGATIONS=" + string(encoded)}, "mcp.mjs", "v2", "foreign")
	var made map[string]struct{ Token, Error string }
	if err := json.Unmarshal([]byte(out), &made); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if made["wider"].Error == "" {
		t.Error("a scope that was not granted was delegated")
	}

	resource := serveResource(t, s, audience, "archive:read")
	check := func(name string, want int) {
		t.Helper()
		request, _ := http.NewRequest("GET", resource, nil)
		request.Header.Set("Authorization", "Bearer "+made[name].Token)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: status %d, want %d (%s)", name, response.StatusCode, want, made[name].Error)
		}
	}
	check("good", http.StatusOK)
	check("comment", http.StatusForbidden)
	check("other", http.StatusUnauthorized)
	time.Sleep(2100 * time.Millisecond) // past the end of a token that lives one second
	check("short", http.StatusUnauthorized)
	check("good", http.StatusOK)

	// kavach's own endpoint refuses a token that is meant for another resource.
	if alive(t, s.Issuer, made["good"].Token) {
		t.Error("/mcp took a token for another audience")
	}
}

// serveResource starts resource-server.mjs and answers its address.
func serveResource(t *testing.T, s *server, audience, scope string) string {
	t.Helper()
	cmd := exec.Command("node", "resource-server.mjs")
	cmd.Dir = "node"
	cmd.Env = append(os.Environ(), "ISSUER="+s.Issuer, "AUDIENCE="+audience, "SCOPE="+scope)
	cmd.Stderr = os.Stderr
	stdin, _ := cmd.StdinPipe()
	stdout, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "READY ") {
		t.Fatalf("the resource server did not start: %q %v", line, err)
	}
	return strings.TrimSpace(strings.TrimPrefix(line, "READY "))
}
