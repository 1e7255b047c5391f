package pgtest

import (
	"errors"
	"os"
	"sync"
	"testing"
)

// shared is the cluster of this process, for Database.
var shared struct {
	sync.Once
	cluster *Cluster
	err     error
}

// Start runs a cluster that ends with the test. Without binaries the test is
// skipped, or fails under CI.
func Start(t testing.TB, cfg Config) *Cluster {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		give(t, err)
	}
	t.Cleanup(func() { end(t, c) })
	return c
}

// end closes c, and shows the server's log for a test that failed.
func end(t testing.TB, c *Cluster) {
	t.Helper()
	if t.Failed() {
		t.Logf("the end of the log of PostgreSQL in %s:\n%s", c.Dir(), c.logTail())
	}
	if err := c.Close(); err != nil {
		t.Errorf("ending PostgreSQL: %v", err)
	}
}

// Shared is the cluster that the tests of this process share: the server that
// KAVACH_TEST_POSTGRES names (a postgres URL of a superuser), or one of our own.
// A test makes databases there and leaves the server alone.
func Shared(t testing.TB) *Cluster {
	t.Helper()
	shared.Do(func() {
		if dsn := os.Getenv("KAVACH_TEST_POSTGRES"); dsn != "" {
			shared.cluster = &Cluster{foreign: dsn}
		} else {
			shared.cluster, shared.err = New(Config{})
		}
	})
	if shared.err != nil {
		give(t, shared.err)
	}
	return shared.cluster
}

// Database returns the DSN of a fresh, empty database on the shared cluster that
// ends with the test, as superuser.
func Database(t testing.TB) string {
	t.Helper()
	return Shared(t).Database(t)
}

// Database returns the DSN of a fresh, empty database of c that ends with the
// test, as superuser.
func (c *Cluster) Database(t testing.TB) string {
	t.Helper()
	return c.DSN(c.Copy(t, ""))
}

// Copy returns the name of a copy of a database of c, to which nobody is
// connected, that ends with the test. Without a template it is empty.
func (c *Cluster) Copy(t testing.TB, template string) string {
	t.Helper()
	name := newName()
	if err := c.create(name, template); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.drop(name); err != nil && !c.Stopped() {
			t.Errorf("dropping the database of this test: %v", err)
		}
	})
	return name
}

// Standby runs a second cluster that follows c by streaming replication, and
// ends with the test. Its application_name, for synchronous_standby_names, is
// "standby".
func (c *Cluster) Standby(t testing.TB) *Cluster {
	t.Helper()
	s, err := c.NewStandby()
	if err != nil {
		give(t, err)
	}
	t.Cleanup(func() { end(t, s) })
	return s
}

// give skips a test for want of PostgreSQL; under CI that, and everything else
// always, is a failure.
func give(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, ErrNoBinaries) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	t.Fatal(err)
}
