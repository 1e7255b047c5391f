package main

import (
	"github.com/kavach-dev/kavach/store"
)

// backupCmd writes a backup. It reads only, and so runs beside servers.
type backupCmd struct {
	File string `arg:"" help:"The file to write; it must not be there."`
	placeFlags
	jsonFlag
}

func (c *backupCmd) Run(w *world) error {
	if err := c.resolve(); err != nil {
		return err
	}
	report, err := store.Backup(w.ctx, c.storeConfig(), c.File, w.copyProgress())
	if err != nil {
		return copyError("backing up "+c.DB.String(), err)
	}
	if err := w.printCopy(report, c.jsonFlag); err != nil {
		return err
	}
	w.note("the secret is not in the backup, and nothing in it can be used without: keep %s too, elsewhere", oneLine(c.SecretFile))
	return nil
}
