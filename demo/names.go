package demo

import (
	"strconv"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
)

const (
	// Host is the git host's name; the runtime's configuration says where it
	// listens.
	Host = "git.internal"
	// Resource is the git host's identifier: the aud of its tokens.
	Resource = "https://" + Host
	// Listen is where `kavach serve --dev` lets it listen.
	Listen = "127.0.0.1:8422"
)

// The scopes of the git host.
const (
	ReadRepository  = "repository:read"
	WriteRepository = "repository:write"
	ReadPull        = "pullrequest:read"
	WriteComment    = "comment:write"
)

// Scope is a scope of the git host with the sentence people read.
type Scope struct{ Name, Sentence string }

// Scopes are what the operator registers [Resource] with.
func Scopes() []Scope {
	return []Scope{
		{ReadRepository, "Read code and diffs"},
		{WriteRepository, "Merge pull requests"},
		{ReadPull, "Read pull requests and their review threads"},
		{WriteComment, "Comment in review threads"},
	}
}

// The agents of the story.
const (
	Orchestrator = "orchestrator"
	Reviewer     = "code-reviewer"
	// Reporter is the git host as a client of kavach: it may write into the log
	// what it decided, and nothing else.
	Reporter = "git-host"
)

// Agent is an agent of the story as its owner and its operator see it.
type Agent struct {
	// Manifest is what it declares; keys and times are added when it is made.
	Manifest agent.Manifest
	// Granted is what it may get on its own authentication, nil nothing.
	Granted []string
	// Depth is how many levels its tokens may be handed on.
	Depth int
}

// Agents are the agents of the story. Code-reviewer gets nothing of the git host
// on its own: what it may do there somebody hands it.
func Agents() []Agent {
	orchestrates := []string{
		"kavach:verify", "kavach:delegate", "kavach:audit",
		ReadRepository, WriteRepository, ReadPull, WriteComment,
	}
	return []Agent{
		{
			Manifest: agent.Manifest{
				Name: Orchestrator, Version: "1.0.0", Purpose: "Takes a task apart and hands the parts to other agents.",
				Scopes:       orchestrates,
				Capabilities: []string{agent.CapabilityRead, agent.CapabilityWrite, agent.CapabilityDelegate}, MaxDepth: 5,
			},
			Granted: orchestrates, Depth: 5,
		},
		{
			Manifest: agent.Manifest{
				Name: Reviewer, Version: "1.0.0", Purpose: "Reads a pull request and comments on it.",
				Scopes:       []string{"kavach:verify", "kavach:audit", ReadRepository, ReadPull, WriteComment, client.ReportScope},
				Capabilities: []string{agent.CapabilityRead, agent.CapabilityWrite}, MaxDepth: 0,
			},
			Granted: []string{"kavach:verify", "kavach:audit", client.ReportScope},
		},
		{
			Manifest: agent.Manifest{
				Name: Reporter, Version: "1.0.0", Purpose: "Reports what the git host decided.",
				Scopes:       []string{client.ReportScope},
				Capabilities: []string{agent.CapabilityWrite}, MaxDepth: 0,
			},
			Granted: []string{client.ReportScope},
		},
	}
}

// PullID is the resource id of a pull request, as tokens name it: pull/847.
func PullID(number int) string { return "pull/" + strconv.Itoa(number) }

// ThreadID is the resource id of a review thread: pull/847/thread/3.
func ThreadID(number, thread int) string {
	return PullID(number) + "/thread/" + strconv.Itoa(thread)
}
