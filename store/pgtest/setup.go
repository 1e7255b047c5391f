package pgtest

import (
	"crypto/rand"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
)

// longestSocket is what a path of a unix socket may have, its name of 18 bytes
// (".s.PGSQL.5432.lock") taken off: 104 on the systems with the least.
const longestSocket = 104 - 20

// prepare makes the directories of a cluster, for whom it will run as.
func prepare(cfg Config) (*Cluster, error) {
	fail := func(err error) (*Cluster, error) {
		return nil, fmt.Errorf("%w: preparing: %w", ErrPgtest, err)
	}
	var err error
	if cfg.Bin == "" {
		if cfg.Bin, err = Binaries(); err != nil {
			return nil, err
		}
	} else if err = complete(cfg.Bin); err != nil {
		return nil, err
	}
	if cfg.Bin, err = filepath.Abs(cfg.Bin); err != nil {
		return fail(err)
	}
	c := &Cluster{cfg: cfg, port: 5432, password: rand.Text()}
	if c.dir, err = os.MkdirTemp(cfg.Dir, "kavach-pg-"); err != nil {
		return fail(err)
	}
	if c.dir, err = filepath.Abs(c.dir); err != nil {
		return fail(err)
	}
	c.run = filepath.Join(c.dir, "run")
	if len(c.run) > longestSocket {
		if c.run, err = os.MkdirTemp("/tmp", "kavach-pg-"); err != nil {
			return fail(err)
		}
	}
	if c.remove, err = removal(c.dir, c.run); err != nil {
		return fail(err)
	}
	if c.overTCP() {
		if c.port, err = freePort(); err != nil {
			c.remove()
			return fail(err)
		}
	}
	for _, dir := range []string{c.dir, c.run, filepath.Join(c.dir, "tls")} {
		if err = os.MkdirAll(dir, 0o700); err == nil {
			err = handOver(dir)
		}
		if err != nil {
			c.remove()
			return fail(err)
		}
	}
	return c, nil
}

// removal starts what removes the directories when this process is gone,
// however that happens, and returns what removes them now. A server that is
// still running then ends by itself: it misses its files.
func removal(dirs ...string) (func(), error) {
	remove := func() {
		for _, dir := range dirs {
			os.RemoveAll(dir)
		}
	}
	const script = `trap '' INT TERM HUP; cat; for n in 1 2 3 4 5 6 7 8 9 10; do rm -rf "$@" && sleep 0.2; done`
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, "sh"}, dirs...)...)
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		remove()
		return nil, err
	}
	return func() {
		remove()
		stdin.Close()
		go func() { _ = cmd.Wait() }()
	}, nil
}

// initialize makes the data.
func (c *Cluster) initialize() error {
	password := filepath.Join(c.dir, "password")
	if err := c.write(password, c.password+"\n"); err != nil {
		return err
	}
	if err := output(c.command("initdb", "--no-sync", "-D", c.data(), "-U", superuser, "-E", "UTF8", "--no-locale",
		"--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile="+password)); err != nil {
		return err
	}
	return c.configure()
}

// configure writes the settings of a server over its new data, and what its
// clients need.
func (c *Cluster) configure() error {
	settings := map[string]string{
		"listen_addresses":        "",
		"port":                    fmt.Sprint(c.port),
		"unix_socket_directories": c.run,
		"unix_socket_permissions": "0700",
		"max_connections":         "200",
	}
	if c.overTCP() {
		settings["listen_addresses"] = "127.0.0.1"
	}
	if !c.cfg.Durable {
		settings["fsync"], settings["full_page_writes"] = "off", "off"
	}
	if c.cfg.TLS {
		if err := c.certify(); err != nil {
			return err
		}
		settings["ssl"] = "on"
		settings["ssl_cert_file"] = filepath.Join(c.dir, "tls", "server.crt")
		settings["ssl_key_file"] = filepath.Join(c.dir, "tls", "server.key")
	}
	for name, value := range c.cfg.Settings {
		settings[name] = value
	}
	var text strings.Builder
	for name, value := range settings {
		fmt.Fprintf(&text, "%s = '%s'\n", name, strings.ReplaceAll(value, "'", "''"))
	}
	lines := strings.Split(text.String(), "\n")
	sort.Strings(lines)
	// A line per name counts from the end of the file.
	f, err := os.OpenFile(filepath.Join(c.data(), "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = io.WriteString(f, strings.Join(lines, "\n")+"\n")
		if closed := f.Close(); err == nil {
			err = closed
		}
	}
	if err != nil {
		return fmt.Errorf("%w: configuring: %w", ErrPgtest, err)
	}
	return c.write(c.PassFile(), "*:*:*:"+superuser+":"+c.password+"\n")
}

// write writes a file that the server's user alone can read.
func (c *Cluster) write(file, text string) error {
	err := os.WriteFile(file, []byte(text), 0o600)
	if err == nil {
		err = handOver(file)
	}
	if err != nil {
		return fmt.Errorf("%w: writing: %w", ErrPgtest, err)
	}
	return nil
}

// freePort finds a port of loopback on which nobody listens, below those that
// systems give to connections, which could have taken it by the time that the
// server listens there.
func freePort() (int, error) {
	var err error
	for range 100 {
		port := 20000 + mathrand.IntN(12000)
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, err
}

// newName is the name of a database that no other test has.
func newName() string { return "kavach_" + strings.ToLower(rand.Text()[:12]) }
