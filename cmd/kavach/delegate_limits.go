package main

import (
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// limitFlags restrict a token that is being derived. What they leave out stays
// as the parent has it.
type limitFlags struct {
	toolFlags
	Resource      []string `sep:"none" placeholder:"ID" help:"Resource it may touch, literal or PREFIX/*; repeatable."`
	AllowNetwork  []string `sep:"none" placeholder:"HOST" help:"Host it may connect to, HOST, HOST:PORT or *.HOST; repeatable."`
	NoNetwork     bool     `help:"It may connect to nothing." xor:"net"`
	MaxFileSize   string   `placeholder:"N" help:"Most bytes to read or write (5MB, 5MiB)."`
	MaxCalls      *int64   `placeholder:"N" help:"Most calls with it and with all that is made from it, at the one resource server it is for."`
	AuditRequired bool     `help:"Nothing is done with it before the record of it is durable."`
}

// limits puts the flags together.
func (f *limitFlags) limits(w *world) (tools delegation.Tools, limits delegation.Limits, err error) {
	limits.Resources, limits.AllowNetwork = f.Resource, f.AllowNetwork
	if f.NoNetwork {
		if len(f.AllowNetwork) > 0 {
			return nil, limits, usagef("", "--no-network contradicts --allow-network")
		}
		limits.AllowNetwork = []string{}
	}
	if f.MaxFileSize != "" {
		size, err := parseSize(f.MaxFileSize)
		if err != nil {
			return nil, limits, usage(err, "")
		}
		limits.MaxFileSize = &size
	}
	if f.MaxCalls != nil {
		if *f.MaxCalls < 1 || *f.MaxCalls > jcs.MaxInt {
			return nil, limits, usagef("", "--max-calls %d is not a number of calls", *f.MaxCalls)
		}
		limits.MaxCalls = f.MaxCalls
	}
	if f.AuditRequired {
		limits.AuditRequired = &f.AuditRequired
	}
	tools, err = f.tools(w)
	return tools, limits, err
}
