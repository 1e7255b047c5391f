package main

import "github.com/kavach-dev/kavach/delegation"

// limitFlags restrict a token that is being derived. What they leave out stays
// as the parent has it.
type limitFlags struct {
	Tool          []string `sep:"none" placeholder:"NAME" help:"Tool it may call, with any arguments; repeatable (those of the chain)."`
	Resource      []string `sep:"none" placeholder:"ID" help:"Resource it may touch, literal or PREFIX/*; repeatable."`
	AllowNetwork  []string `sep:"none" placeholder:"HOST" help:"Host it may connect to, HOST, HOST:PORT or *.HOST; repeatable."`
	NoNetwork     bool     `help:"It may connect to nothing." xor:"net"`
	MaxFileSize   string   `placeholder:"N" help:"Most bytes to read or write (5MB, 5MiB)."`
	AuditRequired bool     `help:"Nothing is done with it before the record of it is durable."`
}

// limits puts the flags together.
func (f *limitFlags) limits() (tools delegation.Tools, limits delegation.Limits, err error) {
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
	if f.AuditRequired {
		limits.AuditRequired = &f.AuditRequired
	}
	if len(f.Tool) > 0 {
		tools = delegation.Tools{}
		for _, name := range f.Tool {
			tools[name] = delegation.AllowAnyArgs
		}
	}
	return tools, limits, nil
}
