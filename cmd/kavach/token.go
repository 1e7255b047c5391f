package main

type tokenCmds struct {
	Get     tokenGetCmd     `cmd:"" group:"agent" default:"withargs" help:"Sign in as an agent and print its token; 'kavach token' alone means this."`
	Inspect tokenInspectCmd `cmd:"" group:"offline" help:"Show what a token says, without verifying anything: who hands on what to whom, what each link takes away, how long it lives."`
}
