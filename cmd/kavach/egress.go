package main

import (
	"context"
	"errors"
	"sync"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
)

// egressCmd is the check of `call` as a forward proxy, for agents in other
// languages.
type egressCmd struct {
	Listen string `default:"127.0.0.1:8423" placeholder:"ADDR" help:"Address to listen on, on loopback (${default})."`
	heldFlags
	reachFlags
	reportFlags
}

func (c *egressCmd) Run(w *world) error {
	if err := onceStdin(c.TokenFile, c.KeyFile); err != nil {
		return err
	}
	if !loopbackListen(c.Listen) {
		return usagef("who reaches it acts with the agent's authority: write it like 127.0.0.1:8423", "--listen %s is not on loopback", c.Listen)
	}
	source, err := c.source(w)
	if err != nil {
		return err
	}
	transport, err := c.callTransport(w, source)
	if err != nil {
		return err
	}
	if transport.Report, err = c.report(w, c.reachFlags, source); err != nil {
		return err
	}
	l, err := client.ListenLoopback(w.ctx, c.Listen)
	if err != nil {
		return withHint(plain(err), "--listen takes another address")
	}
	w.note("ready http://%s", l.Addr())
	w.note("hint: http_proxy=http://%[1]s https_proxy=http://%[1]s in front of a program; of https it sees the host and the number of bytes, and adds no token", l.Addr())
	err = (&client.Egress{Transport: transport, Log: w.logger()}).Serve(w.ctx, l)
	if errors.Is(err, context.Canceled) || w.ctx.Err() != nil {
		return nil // told to stop
	}
	return plain(err)
}

// source is the token file, read for every request: whoever renews the token
// rewrites the file.
func (c *egressCmd) source(w *world) (client.Source, error) {
	first, err := c.credential(w)
	if err != nil || c.TokenFile == "-" {
		return first, err
	}
	return &tokenFile{w: w, flags: c.heldFlags, key: first.Key, held: first}, nil
}

// tokenFile is a credential whose token is in a file.
type tokenFile struct {
	w     *world
	flags heldFlags
	key   agent.PrivateKey

	mu   sync.Mutex
	held client.Credential
}

// Credential implements client.Source. A file that cannot be read, or holds
// something else for the moment, leaves the token that was there.
func (f *tokenFile) Credential(context.Context) (client.Credential, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	token, err := f.w.readLine(f.flags.TokenFile)
	if err != nil || token == string(f.held.Token) {
		return f.held, nil
	}
	if next, err := hold(token, f.key, f.flags); err == nil {
		f.held = next
	}
	return f.held, nil
}
