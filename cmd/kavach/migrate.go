package main

import "context"

// migrateCmd brings the schema up to date: for deployments that do not let the
// server do it. Any number may run at once.
type migrateCmd struct {
	placeFlags
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
	return d.close()
}
