package mcp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	mcpgo "github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

const safely = "delegate_safely"

// maxCompletions is MCP's own limit for one answer.
const maxCompletions = 100

func (s *Server) addPrompts(library *mcpserver.MCPServer) {
	library.AddPrompt(mcpgo.NewPrompt(safely,
		mcpgo.WithPromptDescription("How to hand a piece of work to another agent with the least authority that does it."),
		mcpgo.WithArgument("task", mcpgo.ArgumentDescription("What the other agent shall do, in a sentence."), mcpgo.RequiredArgument()),
		mcpgo.WithArgument("agent", mcpgo.ArgumentDescription("Its name or id, if you know it.")),
		mcpgo.WithArgument("scopes", mcpgo.ArgumentDescription("The scopes you think it needs, separated by spaces.")),
	), s.delegateSafely)
}

func (s *Server) delegateSafely(ctx context.Context, request mcpgo.GetPromptRequest) (*mcpgo.GetPromptResult, error) {
	c := callFrom(ctx)
	for name := range request.Params.Arguments {
		if name != "task" && name != "agent" && name != "scopes" {
			c.instead = invalidParams("delegate_safely takes task, agent and scopes")
			return nil, errors.New(c.instead.message)
		}
	}
	task := strings.TrimSpace(request.Params.Arguments["task"])
	if task == "" || len(task) > 4096 {
		c.instead = invalidParams("task must be a text of 1 to 4096 bytes")
		return nil, errors.New(c.instead.message)
	}
	who, scopes := request.Params.Arguments["agent"], request.Params.Arguments["scopes"]
	if who == "" {
		who = "the agent that fits; ask me if more than one does"
	}
	if scopes == "" {
		scopes = "the fewest that do it"
	}
	text := fmt.Sprintf(`Delegate this task: %s

To: %s
Scopes: %s

Do it like this:
1. Read kavach://identity. You can hand on nothing that is not there.
2. List the scopes the task really needs and leave out the rest. Reading does not need a scope for writing.
3. Name the one audience that serves the task, and in constraints.resources the exact thing it is about, not a prefix of it.
4. Choose ttl_seconds for the task, not for convenience: two minutes are usual. Set max_depth to 0 unless the other agent must delegate further.
5. If the agent told you its public key, pass it as public_key: then nobody else can use the token.
6. Call delegate once. Give the token to that agent only; do not print it, store it or put it into a file.
7. When the work is done before the time is over, call revoke with the token_id.
If delegate refuses, do what the refusal says; do not ask for more scopes to get around it.`, task, who, scopes)
	return mcpgo.NewGetPromptResult("Delegate with the least authority that does it",
		[]mcpgo.PromptMessage{mcpgo.NewPromptMessage(mcpgo.RoleUser, mcpgo.NewTextContent(text))}), nil
}

// completer completes the arguments of the prompt: scopes from the caller's own
// token, agents from those the caller could delegate to.
type completer struct{ s *Server }

func (p completer) CompletePromptArgument(ctx context.Context, prompt string, argument mcpgo.CompleteArgument, _ mcpgo.CompleteContext) (*mcpgo.Completion, error) {
	c := callFrom(ctx)
	if prompt != safely {
		c.instead = invalidParams("no such prompt")
		return nil, errors.New(c.instead.message)
	}
	switch argument.Name {
	case "scopes":
		return completion(p.scopes(c, argument.Value)), nil
	case "agent":
		if p.s.cfg.Agents == nil || !slices.Contains(c.chain.Scopes(), ScopeDelegate) || len(argument.Value) > 128 {
			return completion(nil), nil
		}
		names, err := p.s.cfg.Agents.AgentNames(ctx, c.chain.Principal(), argument.Value, maxCompletions)
		if err != nil {
			p.s.cfg.Log.Error("completing agents", "err", err)
			return completion(nil), nil
		}
		return completion(names), nil
	}
	return completion(nil), nil
}

// scopes completes the last word of a list.
func (p completer) scopes(c *call, typed string) []string {
	before, word := "", typed
	if i := strings.LastIndexByte(typed, ' '); i >= 0 {
		before, word = typed[:i+1], typed[i+1:]
	}
	var found []string
	for _, scope := range c.chain.Scopes() {
		if strings.HasPrefix(scope, word) && !slices.Contains(strings.Fields(before), scope) {
			found = append(found, before+scope)
		}
	}
	slices.Sort(found)
	return found
}

func (p completer) CompleteResourceArgument(ctx context.Context, uri string, _ mcpgo.CompleteArgument, _ mcpgo.CompleteContext) (*mcpgo.Completion, error) {
	if uri != chainTemplate && uri != auditTemplate {
		c := callFrom(ctx)
		c.instead = invalidParams("no such resource template")
		return nil, errors.New(c.instead.message)
	}
	return completion(nil), nil
}

func completion(values []string) *mcpgo.Completion {
	total := len(values)
	if total > maxCompletions {
		values = values[:maxCompletions]
	}
	return &mcpgo.Completion{Values: list(values), Total: total, HasMore: total > len(values)}
}
