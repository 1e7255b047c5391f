package main

import (
	"slices"

	"github.com/alecthomas/kong"
)

// cli is the whole command tree. Each group lives in a file of its own; the
// group tag says of which of the three kinds a command is.
type cli struct {
	Serve  serveCmd  `cmd:"" group:"operator" help:"Run the authorization server, the MCP server and the API."`
	Health healthCmd `cmd:"" group:"operator" help:"Ask a running kavach whether it is ready."`

	User     userCmds     `cmd:"" group:"operator" help:"The people who sign in."`
	Client   clientCmds   `cmd:"" group:"operator" help:"OAuth clients that an operator registers."`
	Resource resourceCmds `cmd:"" group:"operator" help:"The resource servers that kavach issues tokens for."`
	Agent    agentCmds    `cmd:"" help:"Agents: keys, manifests, registration, grants."`
	Revoke   revokeCmds   `cmd:"" help:"End tokens, keys and grants before they expire."`
	Key      keyCmds      `cmd:"" group:"operator" help:"The server's signing keys."`
	Audit    auditCmds    `cmd:"" group:"operator" help:"The log of everything that was decided."`
	Migrate  migrateCmd   `cmd:"" group:"operator" help:"Create or upgrade the database schema, then exit."`
	Store    storeCmds    `cmd:"" group:"operator" help:"The database that a deployment lives in."`
	Backup   backupCmd    `cmd:"" group:"operator" help:"Write the deployment into one file, while it serves."`
	Restore  restoreCmd   `cmd:"" group:"operator" help:"Bring a backup into an empty database."`

	Holder      holderCmds      `cmd:"" group:"offline" help:"Keys that hold a delegation."`
	Delegate    delegateCmd     `cmd:"" group:"offline" help:"Derive a narrower link from a chain, offline."`
	Verify      verifyCmd       `cmd:"" group:"offline" help:"Verify a token or a chain, offline."`
	Proof       proofCmd        `cmd:"" group:"offline" help:"Print the DPoP proof of one request, or with --tool the AAT proof of one call."`
	Token       tokenCmds       `cmd:"" help:"Get tokens, and look into them."`
	Conformance conformanceCmds `cmd:"" group:"offline" help:"Test vectors for verifiers."`
	Demo        demoCmd         `cmd:"" group:"offline" help:"Play the case study: two agents, a git host, and everything that is refused."`
	Version     versionCmd      `cmd:"" group:"offline" help:"Print the version."`

	Call     callCmd     `cmd:"" group:"agent" help:"Send one request, as the token of the agent allows it."`
	Exchange exchangeCmd `cmd:"" group:"agent" help:"Have the server narrow a token, for its holder or another agent."`
	Egress   egressCmd   `cmd:"" group:"agent" help:"Be the forward proxy that lets a program reach what its token allows."`
	Redeem   redeemCmd   `cmd:"" group:"agent" help:"Turn a handle that was made for the agent into its token."`
	MCP      mcpCmd      `cmd:"" name:"mcp" group:"agent" help:"Be an MCP server on stdio: a client of a running kavach."`
}

// groups titles the three kinds of commands, in the order --help shows them.
var groups = []kong.Group{
	{Key: "operator", Title: "Operator commands (on the server's machine; safe beside a running server):"},
	{Key: "offline", Title: "Offline commands (no server, no database):"},
	{Key: "agent", Title: "Agent commands (talk to a server, with the agent's own key):"},
}

// newParser builds the kong parser for grammar. Flags that configure can also be
// set by the environment variable KAVACH_<FLAG>.
func newParser(grammar *cli, options ...kong.Option) (*kong.Kong, error) {
	parser, err := kong.New(grammar, append([]kong.Option{
		kong.Name("kavach"),
		kong.Description("Kavach issues short-lived, narrowing authority to AI agents, and proves afterwards who did what with it."),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, WrapUpperBound: 100}),
		kong.ExplicitGroups(groups),
		kong.Resolvers(kong.ResolverFunc(fromEnvironment)),
		kong.ValueFormatter(helpWithVariable),
	}, options...)...)
	if err != nil {
		return nil, err
	}
	nameVariables(parser.Model.Node)
	return parser, nil
}

// plainly puts what people try into the words the grammar has: `kavach help
// COMMAND` and `kavach --version`.
func plainly(args []string) []string {
	switch {
	case len(args) > 0 && args[0] == "help":
		return append(slices.Clone(args[1:]), "--help")
	case len(args) == 1 && args[0] == "--version":
		return []string{"version"}
	}
	return args
}

// jsonFlag is embedded by every command that prints data.
type jsonFlag struct {
	JSON bool `name:"json" help:"Print JSON for machines."`
}
