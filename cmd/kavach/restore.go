package main

import (
	"errors"
	"io/fs"
	"os"

	"github.com/kavach-dev/kavach/store"
)

// restoreCmd brings a backup into an empty database. The deployment that it
// was made of must not be served any more.
type restoreCmd struct {
	File string `arg:"" help:"The backup."`
	placeFlags
	jsonFlag
}

func (c *restoreCmd) Run(w *world) error {
	if err := c.resolve(); err != nil {
		return err
	}
	if err := c.makeData(); err != nil {
		return err
	}
	report, err := store.Restore(w.ctx, c.File, c.storeConfig(), w.copyProgress())
	if err != nil {
		return copyError("restoring "+c.File, err)
	}
	if err := w.printCopy(report, c.jsonFlag); err != nil {
		return err
	}
	if _, err := os.Stat(c.SecretFile); errors.Is(err, fs.ErrNotExist) {
		w.note("put the secret of the deployment to %s: its keys are sealed with it", oneLine(c.SecretFile))
	}
	return nil
}
