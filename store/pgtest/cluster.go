package pgtest

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The time that a server has for starting (recovery included) and stopping.
const patience = 120 * time.Second

// superuser is who made the cluster.
const superuser = "postgres"

// Cluster is a PostgreSQL server with a data directory of its own. Its methods
// are safe for concurrent use.
type Cluster struct {
	cfg     Config
	foreign string // the URL of a server that is not ours; then no other field is set

	dir      string // run (socket), data, log, password, passfile, TLS
	run      string // the directory of the socket
	port     int
	password string

	mu      sync.Mutex
	process *process // nil when stopped
	remove  func()   // removes dir and run
}

// New makes a cluster and starts its server. The directory and the server go
// with this process, however it ends; Close them before.
func New(cfg Config) (*Cluster, error) {
	c, err := prepare(cfg)
	if err != nil {
		return nil, err
	}
	if err := c.initialize(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := c.Start(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Dir is the directory of the cluster: its data are in "data" below it.
func (c *Cluster) Dir() string { return c.dir }

// Bin is the directory of the binaries.
func (c *Cluster) Bin() string { return c.cfg.Bin }

// CAFile is the certificate of the authority that signed the server's (TLS).
func (c *Cluster) CAFile() string { return filepath.Join(c.dir, "tls", "ca.crt") }

// PassFile is a password file (the form of PGPASSFILE) that lets the superuser
// in over TCP, at any address: that of a proxy, for instance.
func (c *Cluster) PassFile() string { return filepath.Join(c.dir, "passfile") }

// Address is the host:port of the server, "" without TCP.
func (c *Cluster) Address() string {
	if !c.overTCP() {
		return ""
	}
	return "127.0.0.1:" + strconv.Itoa(c.port)
}

// DSN is the URL of a database of the cluster for its superuser, without a
// password: over TCP it names the file.
func (c *Cluster) DSN(database string) string {
	if c.foreign != "" {
		u, err := url.Parse(c.foreign)
		if err != nil {
			return c.foreign // pgx says what is wrong
		}
		u.Path = "/" + database
		return u.String()
	}
	if c.overTCP() {
		return c.At(c.Address(), superuser, database)
	}
	return c.As(superuser, database)
}

// As is the URL of a database for another role, over the unix socket. A server
// that is not ours may want a password of that role's (PGPASSFILE).
func (c *Cluster) As(role, database string) string {
	if c.foreign != "" {
		u, err := url.Parse(c.DSN(database))
		if err != nil {
			return c.foreign // pgx says what is wrong
		}
		u.User = url.User(role)
		return u.String()
	}
	u := url.URL{Scheme: "postgres", User: url.User(role), Host: "", Path: "/" + database,
		RawQuery: url.Values{"host": {c.run}, "port": {strconv.Itoa(c.port)}}.Encode()}
	return u.String()
}

// At is the URL of a database at another address, that of a proxy in front of
// the server, for instance. Roles other than the superuser need a password that
// the test has given them.
func (c *Cluster) At(address, role, database string) string {
	q := url.Values{"passfile": {c.PassFile()}}
	u := url.URL{Scheme: "postgres", User: url.User(role), Host: address, Path: "/" + database}
	if c.cfg.TLS {
		q.Set("sslmode", "verify-full")
		q.Set("sslrootcert", c.CAFile())
	} else {
		q.Set("sslmode", "disable")
	}
	u.RawQuery = q.Encode()
	return u.String()
}

func (c *Cluster) overTCP() bool { return c.cfg.TCP || c.cfg.TLS }

// Start starts the server if it is stopped, and returns when it answers.
func (c *Cluster) Start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running() {
		return nil
	}
	for deadline := time.Now().Add(patience); ; {
		retry, err := c.start(deadline)
		if err == nil || !retry || time.Now().After(deadline) {
			return err
		}
		// The backends of a server that was killed have not all ended yet.
		time.Sleep(20 * time.Millisecond)
	}
}

// start runs the server once. retry: it has ended because of its predecessor.
func (c *Cluster) start(deadline time.Time) (retry bool, err error) {
	logFile, err := os.OpenFile(filepath.Join(c.dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return false, fmt.Errorf("%w: starting: %w", ErrPgtest, err)
	}
	defer logFile.Close()
	before, _ := logFile.Seek(0, 2)
	cmd := c.command("postgres", "-D", c.data())
	cmd.Stdout, cmd.Stderr = logFile, logFile
	p, err := run(cmd)
	if err != nil {
		return false, fmt.Errorf("%w: starting: %w", ErrPgtest, err)
	}
	c.process = p
	for {
		select {
		case <-p.ended:
			c.process = nil
			said := c.logSince(before)
			return strings.Contains(said, "still in use"), fmt.Errorf("%w: the server ended at its start:\n%s", ErrPgtest, said)
		case <-time.After(5 * time.Millisecond):
		}
		if ready(filepath.Join(c.data(), "postmaster.pid"), cmd.Process.Pid) {
			return false, nil
		}
		if time.Now().After(deadline) {
			c.process = nil
			return false, errors.Join(fmt.Errorf("%w: the server is not ready in time", ErrPgtest), p.kill())
		}
	}
}

// ready reads the last line of the server's file of its state.
func ready(file string, pid int) bool {
	text, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) < 8 || lines[0] != strconv.Itoa(pid) {
		return false
	}
	state := strings.TrimSpace(lines[7])
	return state == "ready" || state == "standby"
}

func (c *Cluster) running() bool {
	if c.process == nil {
		return false
	}
	select {
	case <-c.process.ended:
		return false
	default:
		return true
	}
}

// Stopped says whether the server is not running.
func (c *Cluster) Stopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.foreign == "" && !c.running()
}

// Stop stops the server and returns when it has ended.
func (c *Cluster) Stop(mode Mode) error {
	sig, ok := signals[mode]
	if !ok {
		return fmt.Errorf("%w: no mode %q: want smart, fast or immediate", ErrPgtest, mode)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.running() {
		return nil
	}
	defer func() { c.process = nil }()
	return c.process.stop(sig)
}

// Restart stops the server and starts it again.
func (c *Cluster) Restart(mode Mode) error {
	if err := c.Stop(mode); err != nil {
		return err
	}
	return c.Start()
}

// Kill kills the server with SIGKILL, as a crash would; Start recovers it.
func (c *Cluster) Kill() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.running() {
		return nil
	}
	defer func() { c.process = nil }()
	return c.process.kill()
}

// Close kills the server and removes the cluster.
func (c *Cluster) Close() error {
	if c.foreign != "" {
		return nil
	}
	err := c.Stop(Immediate)
	c.remove()
	return err
}

// data is the directory of the data.
func (c *Cluster) data() string { return filepath.Join(c.dir, "data") }

// logSince is what the server has logged from an offset on.
func (c *Cluster) logSince(offset int64) string {
	text, err := os.ReadFile(filepath.Join(c.dir, "log"))
	if err != nil || int64(len(text)) < offset {
		return ""
	}
	return string(text[offset:])
}

// logTail is the end of the server's log.
func (c *Cluster) logTail() string {
	text := []byte(c.logSince(0))
	return string(text[max(0, len(text)-4096):])
}

// command prepares a program of PostgreSQL, as the user who may run it.
func (c *Cluster) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.cfg.Bin, name), args...)
	cmd.Dir = c.dir
	// No locale, no time zone and no PGDATA of the developer's.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "TZ=UTC"}
	dropRoot(cmd)
	return cmd
}

// output runs a program to its end.
func output(cmd *exec.Cmd) error {
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s: %w\n%s", ErrPgtest, filepath.Base(cmd.Path), err, said.String())
	}
	return nil
}
