package main

// redeemCmd turns a handle into the token it stands for. Handles are what MCP
// delegate gives out where a token must not stand in a transcript.
type redeemCmd struct {
	Handle string `arg:"" placeholder:"FILE" help:"File with the handle; - is standard input."`
	agentFlags
	holderFlag
	jsonFlag
}

func (c *redeemCmd) Run(w *world) error {
	if err := onceStdin(c.Handle, c.KeyFile, c.HolderFile); err != nil {
		return err
	}
	a, err := c.signer(w)
	if err != nil {
		return err
	}
	holder, err := c.holder(w, a.ID())
	if err != nil {
		return err
	}
	handle, err := w.readLine(c.Handle)
	if err != nil {
		return err
	}
	credential, err := a.Redeem(w.ctx, handle, holder)
	if err != nil {
		return serverError("redeeming the handle", c.Issuer, err)
	}
	return w.printCredential(credential, wanted{}, c.JSON)
}
