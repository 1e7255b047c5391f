package e2e

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// image is the container image, made with buildah, which needs no engine.
type image struct {
	t         *testing.T
	dir       string // secrets, the build context and what buildah keeps
	container string
}

// buildah runs buildah to its end and returns what it prints.
func (i *image) buildah(args ...string) string {
	i.t.Helper()
	cmd := i.command(args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		i.t.Fatalf("buildah %s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return strings.TrimSpace(string(out) + stderr.String())
}

func (i *image) command(args ...string) *exec.Cmd {
	places := []string{"--storage-driver", "vfs", "--root", filepath.Join(i.dir, "root"), "--runroot", filepath.Join(i.dir, "run")}
	return exec.Command("buildah", append(places, args...)...)
}

// kavach is a command line that runs kavach in the container, with the secrets
// where compose.yaml has them.
func (i *image) kavach(environment []string, args ...string) []string {
	line := []string{"run", "--isolation", "chroot", "-v", filepath.Join(i.dir, "secrets") + ":/run/secrets:ro"}
	for _, variable := range environment {
		line = append(line, "-e", variable)
	}
	return append(append(line, i.container, "/kavach"), args...)
}

// buildImage builds what the last stage of the Dockerfile says from a static
// binary of this tree. Its first stage compiles in an image from a registry.
func buildImage(t *testing.T) *image {
	t.Helper()
	_, err := exec.LookPath("buildah")
	need(t, "buildah", err == nil && os.Geteuid() == 0)
	i := &image{t: t, dir: t.TempDir()}
	in := func(name ...string) string { return filepath.Join(append([]string{i.dir}, name...)...) }
	for _, dir := range []string{in("secrets"), in("context", "data"), in("context", "etc", "ssl", "certs")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	compile := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", in("context", "kavach"), "./cmd/kavach")
	compile.Dir = ".."
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := compile.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := os.ReadFile("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	_, stage, ok := strings.Cut(string(text), "\nFROM scratch\n")
	if !ok {
		t.Fatal("the Dockerfile has no stage from scratch")
	}
	write(t, in("context", "etc", "ssl", "certs", "ca-certificates.crt"), "")
	write(t, in("context", "Dockerfile"), "FROM scratch\n"+strings.ReplaceAll(stage, "--from=build ", ""))
	i.buildah("bud", "--isolation", "chroot", "--format", "docker", "-q", "-t", "kavach", in("context"))
	i.container = i.buildah("from", "kavach")
	t.Cleanup(func() {
		i.buildah("rmi", "--all", "--force")
	})
	return i
}

// TestImage runs the image on PostgreSQL as compose.yaml does: the roles of
// compose.postgres.sql, then the schema as the one, and the server as the other.
func TestImage(t *testing.T) {
	i := buildImage(t)
	c, end, err := openCluster(nil, "-tcp")
	if end != nil {
		t.Cleanup(end)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.t = t
	socket, port := socketOf(t, c.do("as postgres postgres").DSN)
	secrets := filepath.Join(i.dir, "secrets")
	for _, role := range []string{"owner", "kavach"} {
		name := map[string]string{"owner": "kavach_owner", "kavach": "kavach"}[role]
		write(t, filepath.Join(secrets, role+"_pgpass"), "*:*:*:"+name+":"+rand.Text()+"\n")
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret)
	write(t, filepath.Join(secrets, "kavach_secret"), hex.EncodeToString(secret)+"\n")
	script, err := os.ReadFile("../compose.postgres.sql")
	if err != nil {
		t.Fatal(err)
	}
	psql := exec.Command("psql", "-X", "-q", "-h", socket, "-p", port, "-U", "postgres")
	psql.Stdin = strings.NewReader(strings.ReplaceAll(string(script), "/run/secrets", secrets))
	if out, err := psql.CombinedOutput(); err != nil {
		t.Fatalf("compose.postgres.sql: %v\n%s", err, out)
	}

	at := "@127.0.0.1:" + port + "/kavach?sslmode=disable"
	owner := []string{"KAVACH_DB=postgres://kavach_owner" + at, "PGPASSFILE=/run/secrets/owner_pgpass"}
	if said := i.buildah(i.kavach(owner, "migrate", "--grant", "kavach")...); !strings.Contains(said, "the role kavach may serve from it") {
		t.Errorf("kavach migrate: %s", said)
	}
	listen, ops := freeAddress(t), freeAddress(t)
	serving := []string{"KAVACH_DB=postgres://kavach" + at, "PGPASSFILE=/run/secrets/kavach_pgpass",
		"KAVACH_SECRET_FILE=/run/secrets/kavach_secret", "KAVACH_LISTEN=" + listen, "KAVACH_OPS=" + ops}
	server := i.command(i.kavach(serving, "serve")...)
	log := filepath.Join(i.dir, "log")
	file, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	server.Stdout, server.Stderr = file, file
	// Killed it would leave the server behind.
	server.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	drained := make(chan struct{})
	close(drained)
	exited, err := spawn(server, drained)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Process.Signal(syscall.SIGTERM)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		resp, err := http.Get("http://" + ops + "/readyz")
		if err == nil {
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				break
			}
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log)
			t.Fatalf("the container is not ready: %v\n%s", err, text)
		}
	}
	if said := i.buildah(i.kavach(serving, "health")...); !strings.HasPrefix(said, "ready") {
		t.Errorf("the health check says %q", said)
	}
	if said := i.buildah(i.kavach(serving, "audit", "verify")...); !strings.Contains(said, "intact") {
		t.Errorf("audit verify: %s", said)
	}
	// The server ends with its container.
	if err := server.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-exited
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		conn, err := net.Dial("tcp", listen)
		if err != nil {
			return
		}
		conn.Close()
		if time.Now().After(deadline) {
			t.Fatal("the container has ended, and its server goes on")
		}
	}
}

// write writes a file that everybody may read: containers run as users of their
// own.
func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
