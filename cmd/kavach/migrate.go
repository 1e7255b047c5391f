package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/kavach-dev/kavach/store"
)

// migrateCmd brings the schema up to date: for deployments that do not let the
// server do it. Any number may run at once.
type migrateCmd struct {
	placeFlags
	Grant string `placeholder:"ROLE" help:"Give this role of PostgreSQL what serving needs, and no more."`
}

func (c *migrateCmd) Run(w *world) error {
	if err := c.resolve(); err != nil {
		return err
	}
	d, err := c.makeStore(w)
	if err != nil {
		return err
	}
	if err := d.store.Ping(context.WithoutCancel(w.ctx)); err != nil {
		d.close()
		return openError(c.DB, err)
	}
	w.note("the schema of %s is current", c.DB)
	if c.Grant != "" {
		if err := d.store.GrantServing(w.ctx, c.Grant); err != nil {
			d.close()
			return grantError(c.Grant, err)
		}
		w.note("the role %s may serve from it", oneLine(c.Grant))
	}
	return d.close()
}

// grantError says what to do about a role that got nothing.
func grantError(role string, err error) error {
	failed := fmt.Errorf("granting to the role %s: %w", oneLine(role), plain(err))
	switch {
	case errors.Is(err, store.ErrNoRoles):
		return usage(failed, "a file has an owner and a mode: leave --grant out")
	case errors.Is(err, store.ErrOwner):
		return usage(failed, "give it the role that serves; this one owns the tables")
	case errors.Is(err, store.ErrNoRole):
		return withHint(failed, "make it as a superuser: CREATE ROLE … LOGIN; see docs/postgresql.md")
	}
	return withHint(failed, "connect as the role that owns the tables, which ran `kavach migrate` first")
}
