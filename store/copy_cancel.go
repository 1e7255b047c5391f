package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/kavach-dev/kavach/audit"
)

// CancelCopy gives a move up: it makes sure that the target cannot become
// complete any more, and then opens the source again. The log in the target
// stays; a later Copy goes on behind it.
//
// An empty cfg.To.DSN says that the target is destroyed. Nobody can check that:
// if it is not, the deployment can live twice.
func CancelCopy(ctx context.Context, cfg CopyConfig) (err error) {
	source, err := openSource(ctx, cfg.From)
	if err != nil {
		return err
	}
	c := newCopier(source, nil)
	defer func() { err = errors.Join(err, c.close()) }()
	moved, err := c.sourceState(ctx)
	if err != nil {
		return err
	}
	if cfg.To.DSN != "" {
		if err := c.openTarget(ctx, cfg.To); err != nil {
			return err
		}
		if err := c.stopTarget(ctx, moved); err != nil {
			return fmt.Errorf("the target: %w", err)
		}
	}
	if moved == "" {
		return nil
	}
	closed, err := source.closed(ctx)
	if err != nil {
		return err
	}
	entry, err := operatorEntry(source.log, audit.StoreStay, "lost", cfg.To.DSN == "")
	if err != nil {
		return err
	}
	if err := source.remark(ctx, closed, "", entry); err != nil {
		return fmt.Errorf("opening the source: %w", err)
	}
	return nil
}

// stopTarget makes sure that no copy that runs can write to the target or
// complete it, and that none that comes can with the source as it is.
func (c *copier) stopTarget(ctx context.Context, moved string) error {
	closed, err := c.target.closed(ctx)
	if err != nil {
		return err
	}
	m, copying := parseMark(closed)
	switch same := c.target.log == c.source.log; {
	case closed == "" && same:
		return ErrLive
	case !copying, !same:
		return ErrElsewhere
	case moved != "" && moved == m.cancelled:
		return nil // an earlier CancelCopy was ended between its two halves
	case moved != "" && moved != m.id:
		return ErrElsewhere
	}
	return c.target.remark(ctx, closed, mark{id: newMark(), run: newMark(), cancelled: m.id}.String(), nil)
}
