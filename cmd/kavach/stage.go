package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/demo"
)

// theStage is what the case study needs registered: its agents, the git host
// with its scopes, and what the agents may get. `kavach demo` and `serve --dev`
// make the same, as far as it is not there.
type theStage struct {
	*deployment
	agents *authz.Agents
	by     authz.Actor
}

// errScopeTaken: the git host's scopes were somebody else's before.
var errScopeTaken = errors.New("another resource has the scopes of " + demo.Resource)

// register registers an agent.
func (s theStage) register(ctx context.Context, owner string, one demo.Candidate) error {
	_, err := s.agents.Register(ctx, authz.Registration{
		Manifest: one.Signed, Assertion: one.Assertion, Owner: owner, By: s.by,
	})
	if err != nil {
		return fmt.Errorf("registering the agent %s: %w", one.Manifest.Name, err)
	}
	return nil
}

// grant registers the git host, on which the agent demo.Reporter may report,
// and gives every agent what it may get. An agent that ever had a grant keeps
// what became of it.
func (s theStage) grant(ctx context.Context, cast []demo.Candidate) error {
	host := authz.Resource{ID: demo.Resource, Name: "Git host", Aware: true}
	for _, scope := range demo.Scopes() {
		host.Scopes = append(host.Scopes, authz.Scope{Name: scope.Name, Description: scope.Sentence})
	}
	for _, one := range cast {
		if one.Manifest.Name == demo.Reporter {
			host.Introspector = one.ID
		}
	}
	catalog, err := s.registry.Catalog(ctx, host.ID)
	if err != nil {
		return fmt.Errorf("reading resources: %w", err)
	}
	if _, there := catalog.Resource(host.ID); !there {
		err := s.registry.AddResource(ctx, s.by, host)
		if errors.Is(err, authz.ErrExists) {
			if catalog, err = s.registry.Catalog(ctx, host.ID); err != nil {
				return fmt.Errorf("reading resources: %w", err)
			}
			if _, there = catalog.Resource(host.ID); !there {
				return errScopeTaken
			}
			err = nil // another first start beside this one made it
		}
		if err != nil {
			return fmt.Errorf("registering %s: %w", host.ID, operatorError(err))
		}
	}
	for _, one := range cast {
		_, err := s.store.StandingGrant(ctx, one.ID)
		if len(one.Granted) == 0 || err == nil {
			continue
		}
		if !errors.Is(err, authz.ErrNotFound) {
			return fmt.Errorf("reading the grant of %s: %w", one.Manifest.Name, err)
		}
		depth := one.Depth
		if _, err := s.agents.Grant(ctx, s.by, one.ID, authz.AgentGrant{Scopes: one.Granted, MaxDepth: &depth}); err != nil {
			return fmt.Errorf("granting to %s: %w", one.Manifest.Name, operatorError(err))
		}
	}
	return nil
}
