package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/store"
)

type storeCmds struct {
	Copy storeCopyCmd `cmd:"" help:"Move the deployment to another database, with its log, while it serves."`
}

// storeCopyCmd moves a deployment. Both databases are named, and neither by
// what names that of a server: whoever moves it knows where from and where to.
type storeCopyCmd struct {
	From     databaseURL `placeholder:"URL" help:"Where the deployment lives: sqlite:PATH, postgres://…, d1://…."`
	FromFile string      `placeholder:"FILE" help:"File that holds that URL, for one with a password in it."`
	To       databaseURL `placeholder:"URL" help:"Where it goes: an empty database."`
	ToFile   string      `placeholder:"FILE" help:"File that holds that URL."`

	FromTokenFile string `name:"from-d1-token-file" placeholder:"FILE" help:"File that holds the token for a source on D1, if KAVACH_D1_TOKEN does not."`
	ToTokenFile   string `name:"to-d1-token-file" placeholder:"FILE" help:"File that holds the token for a target on D1."`

	KeepServing bool `help:"Copy the log only, and leave the deployment where it is."`
	Cancel      bool `help:"Give the move up: the target never becomes complete, the source writes again."`
	TargetLost  bool `help:"With --cancel and no target: it is destroyed. NOT SAFE if it is not."`
	jsonFlag
}

// end is one of the two databases.
func (c *storeCopyCmd) end(flag string, db databaseURL, file, tokenFile string) (store.Config, error) {
	switch {
	case db == "" && file == "":
		return store.Config{}, usagef(databaseHint, "which database? --%s or --%s-file", flag, flag)
	case db != "" && file != "":
		return store.Config{}, usagef("", "--%s and --%s-file both name a database", flag, flag)
	}
	db, err := resolveDatabase(db, file, "")
	if err != nil {
		return store.Config{}, err
	}
	token, err := db.token(tokenFile)
	return store.Config{DSN: db.Reveal(), Token: token}, err
}

func (c *storeCopyCmd) Run(w *world) error {
	from, err := c.end("from", c.From, c.FromFile, c.FromTokenFile)
	if err != nil {
		return err
	}
	cfg := store.CopyConfig{From: from, KeepServing: c.KeepServing, Progress: w.copyProgress()}
	switch lost := c.TargetLost; {
	case lost && (!c.Cancel || c.To != "" || c.ToFile != ""):
		return usagef("", "--target-lost goes with --cancel, and names no target")
	case c.Cancel && c.KeepServing:
		return usagef("", "--cancel and --keep-serving do not go together")
	case !lost:
		if cfg.To, err = c.end("to", c.To, c.ToFile, c.ToTokenFile); err != nil {
			return err
		}
	}
	if c.Cancel {
		if err := store.CancelCopy(w.ctx, cfg); err != nil {
			return copyError("giving the move up", err)
		}
		w.note("the move is given up: the deployment lives where it lived")
		return nil
	}
	report, err := store.Copy(w.ctx, cfg)
	if err != nil {
		if report != nil && report.Closed > 0 {
			w.note("the deployment stands still until the copy is complete, or given up with --cancel")
		}
		return copyError("copying the deployment", err)
	}
	if err := w.printCopy(report, c.jsonFlag); err != nil {
		return err
	}
	switch {
	case report.Before:
		w.note("the deployment moved before: nothing was to do")
	case !report.Done:
		w.note("the log is copied: the same command without --keep-serving moves the deployment")
	default:
		w.note("the deployment lives in the new database: start the servers there, with the same secret file")
	}
	return nil
}

// copyView is what `store copy`, `backup` and `restore` print.
type copyView struct {
	Done    bool             `json:"done"`
	Log     string           `json:"log"`
	Size    int64            `json:"size"`
	Head    string           `json:"head"`
	Copied  int64            `json:"records_copied"`
	Rows    map[string]int64 `json:"rows"`
	Stopped int64            `json:"stopped_ms,omitempty"`
}

func (w *world) printCopy(r *store.CopyReport, how jsonFlag) error {
	if how.JSON {
		return w.printJSON(copyView{Done: r.Done, Log: r.Log, Size: r.Head.Size, Head: r.Head.Leaf, Copied: r.Copied,
			Rows: r.Rows, Stopped: r.Closed.Milliseconds()})
	}
	var rows int64
	for _, n := range r.Rows {
		rows += n
	}
	pairs := []string{"log", r.Log, "records", fmt.Sprintf("%d, %d copied now", r.Head.Size, r.Copied), "head", r.Head.Leaf}
	if len(r.Rows) > 0 {
		pairs = append(pairs, "rows", fmt.Sprintf("%d in %d tables, compared", rows, len(r.Rows)))
	}
	if r.Closed > 0 {
		pairs = append(pairs, "stopped", "for "+strconv.FormatFloat(r.Closed.Seconds(), 'f', 1, 64)+" s nothing could be written")
	}
	return w.fields(pairs...)
}

// copyProgress is w.progress for one part of a copy after the other.
func (w *world) copyProgress() store.Progress {
	var part string
	var show func(done, of int64)
	return func(what string, done, of int64) {
		if what != part {
			part, show = what, w.progress(what)
		}
		if show != nil {
			show(done, of)
		}
	}
}

// copyError says what to do about a copy, a backup or a restore that failed.
func copyError(doing string, err error) error {
	text := strings.ReplaceAll(strings.ReplaceAll(err.Error(), "store: ", ""), "audit: ", "")
	failed := error(&plainError{err: err, text: doing + ": " + text})
	for _, known := range []struct {
		is   error
		hint string
	}{
		{store.ErrNotEmpty, "name an empty database, or the one that an earlier run began to fill"},
		{store.ErrLive, "nothing is to do if the deployment moved there; otherwise name another database"},
		{store.ErrElsewhere, "name the database that it was moved to"},
		{store.ErrCancelled, "run it with --cancel once more: the source is still closed"},
		{store.ErrMoved, "name the database that it was moved to"},
		{store.ErrIncomplete, "an incomplete copy is only completed from where it came"},
		{store.ErrBackup, "`kavach restore FILE` restores from a backup"},
		{store.ErrNoBackup, "`kavach store copy` copies a database that is no backup"},
		{store.ErrOldSchema, "back it up with the kavach that serves it, or run `kavach migrate` first"},
		{store.ErrNewerSchema, "use the kavach that wrote it, or a newer one"},
		{store.ErrNoDatabase, "is the address right?"},
		{store.ErrConfig, databaseHint},
		{fs.ErrExist, "name a file that is not there: nothing is overwritten"},
		{audit.ErrBroken, "`kavach audit verify` says what is wrong with the log"},
	} {
		if errors.Is(err, known.is) {
			return withHint(failed, known.hint)
		}
	}
	return withHint(failed, "the same command goes on where this one was")
}
