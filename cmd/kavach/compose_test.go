package main

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

// compose reads compose.yaml the way a container engine does, with every profile:
// no engine is needed.
func compose(t *testing.T) *types.Project {
	t.Helper()
	text, err := os.ReadFile("../../compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	project, err := loader.LoadWithContext(context.Background(), types.ConfigDetails{
		WorkingDir:  t.TempDir(),
		ConfigFiles: []types.ConfigFile{{Filename: "compose.yaml", Content: text}},
		Environment: types.Mapping{},
	}, loader.WithProfiles([]string{"*"}))
	if err != nil {
		t.Fatalf("compose.yaml does not load: %v", err)
	}
	return project
}

// TestCompose holds compose.yaml to what it promises.
func TestCompose(t *testing.T) {
	project := compose(t)
	for _, name := range []string{"kavach", "kavach-postgres", "migrate"} {
		t.Run(name, func(t *testing.T) { checkContainer(t, project.Services[name]) })
	}
	for _, name := range []string{"kavach", "kavach-postgres"} {
		service := project.Services[name]
		if len(service.Ports) != 1 || service.Ports[0].HostIP != "127.0.0.1" {
			t.Errorf("%s publishes %+v, want one port, on loopback", name, service.Ports)
		}
		if got := []string(service.HealthCheck.Test); !slices.Equal(got, []string{"CMD", "/kavach", "health"}) {
			t.Errorf("the health check of %s runs %q", name, got)
		}
		file := service.Environment["KAVACH_SECRET_FILE"]
		if file == nil || !slices.ContainsFunc(service.Secrets, func(s types.ServiceSecretConfig) bool { return mounted(s) == *file }) {
			t.Errorf("%s: KAVACH_SECRET_FILE does not name a mounted secret", name)
		}
	}
	sqlite := project.Services["kavach"]
	if len(sqlite.Volumes) != 1 || sqlite.Volumes[0].Type != "volume" || sqlite.Volumes[0].Target != "/data" || len(sqlite.Profiles) != 0 {
		t.Errorf("volumes %+v, want a named volume at /data, without a profile", sqlite.Volumes)
	}
	// The engine copies the folder, and may not even be able to read the file.
	ignored, err := os.ReadFile("../../.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range project.Secrets {
		name := filepath.Base(s.File)
		if folder := filepath.Base(filepath.Dir(s.File)); folder == "secrets" {
			name = folder
		}
		if s.File == "" || !slices.Contains(strings.Fields(string(ignored)), name) {
			t.Errorf("the build context holds %s: .dockerignore does not name it", name)
		}
	}
	if !slices.Contains(strings.Fields(imageLine(t, "USER")), "65532:65532") {
		t.Error("the image runs as root")
	}
}

// mounted is where a container finds a secret.
func mounted(s types.ServiceSecretConfig) string {
	if s.Target == "" {
		s.Target = s.Source
	}
	if filepath.IsAbs(s.Target) {
		return s.Target
	}
	return "/run/secrets/" + s.Target
}

// checkContainer: a container of kavach's can do little, and its command and
// environment mean something to this binary.
func checkContainer(t *testing.T, service types.ServiceConfig) {
	if !service.ReadOnly {
		t.Error("the root file system is writable")
	}
	if !slices.Equal([]string(service.CapDrop), []string{"ALL"}) {
		t.Errorf("cap_drop is %v", service.CapDrop)
	}
	if len(service.Secrets) == 0 {
		t.Error("it has no secrets")
	}
	var grammar cli
	parser, err := newParser(&grammar, kong.Exit(func(int) {}))
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"PGPASSFILE": true}
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
		if value == nil {
			continue
		}
		if strings.Contains(strings.ToLower(name), "password") || name == "KAVACH_DB" && dsnHasPassword(*value) {
			t.Errorf("a password in the environment: %s", name)
		}
		if strings.HasPrefix(*value, "/run/secrets/") &&
			!slices.ContainsFunc(service.Secrets, func(s types.ServiceSecretConfig) bool { return mounted(s) == *value }) {
			t.Errorf("%s names no mounted secret", name)
		}
	}
}

// TestComposePostgres: the database is reached by nobody but kavach, the role
// that serves waits for the one that owns, and that for the server.
func TestComposePostgres(t *testing.T) {
	project := compose(t)
	database := project.Services["postgres"]
	if len(database.Ports) != 0 || !project.Networks["database"].Internal {
		t.Error("the database can be reached from outside")
	}
	for _, name := range []string{"postgres", "migrate", "kavach-postgres"} {
		service := project.Services[name]
		if !slices.Equal(service.Profiles, []string{"postgres"}) {
			t.Errorf("%s is in the profiles %v", name, service.Profiles)
		}
		if _, ok := service.Networks["database"]; !ok {
			t.Errorf("%s is not in the database's network", name)
		}
	}
	serve, migrate := project.Services["kavach-postgres"], project.Services["migrate"]
	if serve.DependsOn["migrate"].Condition != types.ServiceConditionCompletedSuccessfully ||
		migrate.DependsOn["postgres"].Condition != types.ServiceConditionHealthy {
		t.Error("the services do not wait for each other")
	}
	if serving := user(t, serve); serving == user(t, migrate) || !slices.Equal([]string(migrate.Command), []string{"migrate", "--grant", serving}) {
		t.Errorf("%s serves, and what is run before is kavach %v", serving, migrate.Command)
	}
	// What makes the roles reads the passwords that the roles connect with.
	script, err := os.ReadFile("../../compose.postgres.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, service := range []types.ServiceConfig{serve, migrate} {
		file := *service.Environment["PGPASSFILE"]
		if !strings.Contains(string(script), "cut -d: -f5 "+file) ||
			!slices.ContainsFunc(database.Secrets, func(s types.ServiceSecretConfig) bool { return mounted(s) == file }) {
			t.Errorf("compose.postgres.sql cannot read %s", file)
		}
	}
}

// user is who a service connects to its database as.
func user(t *testing.T, service types.ServiceConfig) string {
	t.Helper()
	u, err := url.Parse(*service.Environment["KAVACH_DB"])
	if err != nil {
		t.Fatal(err)
	}
	return u.User.Username()
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
