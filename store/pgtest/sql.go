package pgtest

import (
	"context"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"

	"github.com/jackc/pgx/v5"
)

// Exec runs statements, one after the other and each on its own, in a database
// of the cluster, as superuser.
func (c *Cluster) Exec(database string, statements ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.admin(database))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPgtest, err)
	}
	defer conn.Close(ctx)
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrPgtest, statement, err)
		}
	}
	return nil
}

// admin is how this package connects: over the socket if the server is ours.
func (c *Cluster) admin(database string) string {
	if c.foreign != "" {
		if database == superuser {
			return c.foreign // the database that the URL names is there
		}
		return c.DSN(database)
	}
	return c.As(superuser, database)
}

// Create makes an empty database.
func (c *Cluster) Create(database string) error { return c.create(database, "") }

// create makes a database, a copy of a template if there is one.
func (c *Cluster) create(database, template string) error {
	statement := "CREATE DATABASE " + pgx.Identifier{database}.Sanitize()
	if template != "" {
		statement += " TEMPLATE " + pgx.Identifier{template}.Sanitize()
	}
	return c.Exec(superuser, statement)
}

// drop removes a database and whoever uses it.
func (c *Cluster) drop(database string) error {
	if c.Stopped() {
		return nil
	}
	return c.Exec(superuser, "DROP DATABASE "+pgx.Identifier{database}.Sanitize()+" WITH (FORCE)")
}

// Set changes a setting of the running server for all new statements, as far as
// it can change without a restart.
func (c *Cluster) Set(name, value string) error {
	quoted := ""
	for _, r := range value {
		if quoted += string(r); r == '\'' {
			quoted += "'"
		}
	}
	return c.Exec(superuser, "ALTER SYSTEM SET "+pgx.Identifier{name}.Sanitize()+" = '"+quoted+"'", "SELECT pg_reload_conf()")
}

// Promote makes a standby a primary, and returns when it is one.
func (c *Cluster) Promote() error {
	return c.Exec(superuser, "SELECT 1/pg_promote(true, 60)::int")
}

// NewStandby makes a second cluster that follows c; see Standby.
func (c *Cluster) NewStandby() (*Cluster, error) {
	s, err := prepare(c.cfg)
	if err != nil {
		return nil, err
	}
	source := url.URL{Scheme: "postgres", User: url.User(superuser), Path: "/",
		RawQuery: url.Values{"host": {c.run}, "port": {strconv.Itoa(c.port)}, "application_name": {"standby"}}.Encode()}
	err = output(s.command("pg_basebackup", "--no-sync", "-R", "-X", "stream", "-c", "fast", "-D", s.data(), "-d", source.String()))
	if err == nil {
		s.password = c.password
		err = s.configure()
	}
	if err == nil {
		err = s.Start()
	}
	if err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("%w: making a standby (binaries in %s): %w", ErrPgtest, filepath.Clean(s.cfg.Bin), err)
	}
	return s, nil
}
