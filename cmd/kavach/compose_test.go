package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// TestCompose reads compose.yaml the way a container engine does and holds it
// to what it promises: no engine is needed.
func TestCompose(t *testing.T) {
	text, err := os.ReadFile("../../compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	project, err := loader.LoadWithContext(context.Background(), types.ConfigDetails{
		WorkingDir:  t.TempDir(),
		ConfigFiles: []types.ConfigFile{{Filename: "compose.yaml", Content: text}},
		Environment: types.Mapping{},
	})
	if err != nil {
		t.Fatalf("compose.yaml does not load: %v", err)
	}
	service, err := project.GetService("kavach")
	if err != nil {
		t.Fatal(err)
	}

	if !service.ReadOnly {
		t.Error("the root file system is writable")
	}
	if len(service.Ports) != 1 || service.Ports[0].HostIP != "127.0.0.1" {
		t.Errorf("published ports %+v, want one, on loopback", service.Ports)
	}
	if len(service.Volumes) != 1 || service.Volumes[0].Type != "volume" || service.Volumes[0].Target != "/data" {
		t.Errorf("volumes %+v, want a named volume at /data", service.Volumes)
	}
	if !slices.Equal([]string(service.CapDrop), []string{"ALL"}) {
		t.Errorf("cap_drop is %v", service.CapDrop)
	}
	if got := []string(service.HealthCheck.Test); !slices.Equal(got, []string{"CMD", "/kavach", "health"}) {
		t.Errorf("health check runs %q", got)
	}
	if len(service.Secrets) != 1 || project.Secrets[service.Secrets[0].Source].File == "" {
		t.Errorf("secrets %+v, want one, from a file", service.Secrets)
	}
	// The engine copies the folder, and may not even be able to read the file.
	ignored, err := os.ReadFile("../../.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range project.Secrets {
		if name := filepath.Base(s.File); !slices.Contains(strings.Fields(string(ignored)), name) {
			t.Errorf("the build context holds %s: .dockerignore does not name it", name)
		}
	}
	secretFile := service.Environment["KAVACH_SECRET_FILE"]
	if secretFile == nil || *secretFile != "/run/secrets/"+service.Secrets[0].Source {
		t.Errorf("KAVACH_SECRET_FILE does not name the mounted secret")
	}

	// The command and the environment must mean something to this binary.
	known := map[string]bool{}
	var grammar cli
	parser, err := newParser(&grammar, kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range parser.Model.Children {
		if node.Name == service.Command[0] {
			for _, flag := range node.Flags {
				for _, env := range flag.Envs {
					known[env] = true
				}
			}
		}
	}
	for name, value := range service.Environment {
		if !known[name] {
			t.Errorf("environment variable %s is no flag of kavach %s", name, service.Command[0])
		}
		if value != nil && strings.Contains(strings.ToLower(name), "password") {
			t.Errorf("a password in the environment: %s", name)
		}
	}
	if !slices.Contains(strings.Fields(imageLine(t, "USER")), "65532:65532") {
		t.Error("the image runs as root")
	}
}

// imageLine returns the last Dockerfile line with the instruction.
func imageLine(t *testing.T, instruction string) string {
	t.Helper()
	text, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	found := ""
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, instruction+" ") {
			found = strings.TrimSpace(line)
		}
	}
	if found == "" {
		t.Fatalf("no %s in Dockerfile", instruction)
	}
	return found
}
