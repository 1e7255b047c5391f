package main

import (
	"errors"
	"fmt"

	"github.com/kavach-dev/kavach/authz"
)

// agentSuspendCmd stops an agent.
type agentSuspendCmd struct {
	agentArg
	Why string `placeholder:"TEXT" help:"The reason, for the audit log."`
	jsonFlag
}

func (c *agentSuspendCmd) Run(w *world) error {
	d, found, err := c.open(w)
	if err != nil {
		return err
	}
	defer d.close()
	recorded, err := d.agents.Suspend(w.ctx, byOperator, found.ID, c.Why)
	if err != nil {
		return fmt.Errorf("suspending %s: %w", found.Name, operatorError(err))
	}
	if c.JSON {
		return w.printJSON(map[string]any{"agent": found.ID, "status": authz.AgentSuspended, "recorded": recorded})
	}
	w.note("%s is suspended: it gets no tokens, and those it has are dead here, elsewhere when the feed says so", found.Name)
	if !recorded {
		w.note("the log could not be written: the record of it follows when it can")
	}
	return nil
}

// agentResumeCmd lets a suspended agent act again.
type agentResumeCmd struct {
	agentArg
	jsonFlag
}

func (c *agentResumeCmd) Run(w *world) error {
	d, found, err := c.open(w)
	if err != nil {
		return err
	}
	defer d.close()
	err = d.agents.Resume(w.ctx, byOperator, found.ID)
	if errors.Is(err, authz.ErrNotSuspended) {
		return fmt.Errorf("%s is not suspended", found.Name)
	}
	if err != nil {
		return fmt.Errorf("resuming %s: %w", found.Name, operatorError(err))
	}
	if c.JSON {
		return w.printJSON(map[string]any{"agent": found.ID, "status": authz.AgentActive})
	}
	w.note("%s may act again; what it was given before and has not expired works again, unless its key was changed", found.Name)
	return nil
}
