package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/authz"
)

// devAgents are registered by --dev: the two of the case study.
var devAgents = []agent.Manifest{
	{
		Name: "orchestrator", Version: "1.0.0", Purpose: "Takes a task apart and hands the parts to other agents.",
		Scopes: []string{
			"kavach:verify", "kavach:delegate", "kavach:audit",
			"repository:read", "repository:write", "pullrequest:read", "comment:write",
		},
		Capabilities: []string{agent.CapabilityRead, agent.CapabilityWrite, agent.CapabilityDelegate}, MaxDepth: 3,
	},
	{
		Name: "code-reviewer", Version: "1.0.0", Purpose: "Reads a pull request and comments on it.",
		Scopes:       []string{"kavach:verify", "kavach:audit", "repository:read", "pullrequest:read", "comment:write"},
		Capabilities: []string{agent.CapabilityRead, agent.CapabilityWrite}, MaxDepth: 0,
	},
}

const (
	// devManifestLife is the life of their manifests.
	devManifestLife = 365 * 24 * time.Hour
	// devTries and devPause bound the wait for another process that makes them.
	devTries = 40
	devPause = 50 * time.Millisecond
)

// openDev makes what --dev promises, as far as it is not there from the last
// start: the operator dev, the two agents and their files.
func (m *Main) openDev(ctx context.Context) error {
	dev, err := m.parts.people.EnsureDev(ctx)
	if err != nil {
		return fmt.Errorf("making the user dev: %w", err)
	}
	folder := filepath.Join(m.Config.Data, "agents")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("making %s: %w", folder, pathCause(err))
	}
	for _, manifest := range devAgents {
		err := m.openDevAgent(ctx, dev.ID, folder, manifest)
		for tries := 0; tries < devTries && (errors.Is(err, fs.ErrExist) || errors.Is(err, authz.ErrExists)); tries++ {
			// Another first start beside this one makes it: take what it made.
			time.Sleep(devPause)
			err = m.openDevAgent(ctx, dev.ID, folder, manifest)
		}
		if err != nil {
			return fmt.Errorf("making the agent %s: %w", manifest.Name, err)
		}
	}
	return nil
}

// openDevAgent registers one agent of --dev.
func (m *Main) openDevAgent(ctx context.Context, owner, folder string, manifest agent.Manifest) error {
	known, err := m.parts.agents.FindAgent(ctx, owner, manifest.Name)
	if err != nil && !errors.Is(err, authz.ErrNotFound) {
		return err
	}
	made, ferr := readCreatedAgent(folder, manifest.Name, m.world.now())
	switch {
	case err == nil && ferr == nil && known.ID == made.ID:
		return nil // both are there from before
	case err == nil:
		m.world.note("hint: the files of agent %s in %s are missing or of another agent: delete %s to start over", manifest.Name, folder, m.Config.Data)
		return nil
	case errors.Is(ferr, fs.ErrNotExist):
		manifest.IssuedAt, manifest.Expires = m.world.now(), m.world.now().Add(devManifestLife)
		if made, err = createAgent(manifest, folder); err != nil {
			return err
		}
	case ferr != nil:
		return ferr
	}
	assertion, err := agent.SignAssertion(made.key, made.ID, m.Issuer, m.world.now(), assertionLife)
	if err != nil {
		return err
	}
	_, err = m.parts.agents.Register(ctx, authz.Registration{
		Manifest: made.manifest, Assertion: assertion, Owner: owner, By: authz.Actor{Agent: "operator", Via: "dev"},
	})
	return err
}

// readCreatedAgent reads what createAgent wrote.
func readCreatedAgent(folder, name string, now time.Time) (createdAgent, error) {
	made := createdAgent{
		Name:         name,
		KeyFile:      filepath.Join(folder, name+".key.json"),
		ManifestFile: filepath.Join(folder, name+".manifest.jwt"),
	}
	jwk, err := os.ReadFile(made.KeyFile)
	if err != nil {
		return made, err
	}
	manifest, err := os.ReadFile(made.ManifestFile)
	if err != nil {
		return made, err
	}
	if made.key, err = agent.ParsePrivateKey(jwk); err != nil {
		return made, fmt.Errorf("reading %s: %w", made.KeyFile, err)
	}
	made.manifest = strings.TrimSpace(string(manifest))
	read, err := agent.VerifyManifest(made.manifest, now)
	if err != nil {
		return made, fmt.Errorf("reading %s: %w", made.ManifestFile, err)
	}
	if made.ID = made.key.Public().Thumbprint(); made.ID != read.ID {
		return made, fmt.Errorf("%s and %s belong to different agents", made.KeyFile, made.ManifestFile)
	}
	return made, nil
}

// announceDev says how to try it.
func (m *Main) announceDev() {
	endpoint := m.Issuer + "/mcp"
	fmt.Fprintf(m.world.stderr, `kavach: NOT SAFE: everybody on this machine can sign in as operator; for trying things out and nothing else

  data       %[3]s (kept; delete it to start over)
  sign in    %[1]s/login as dev, password dev
  agents     orchestrator, code-reviewer (owner dev); keys in %[4]s
  metrics    http://%[5]s/metrics

connect
  Claude Code   claude mcp add --transport http kavach %[2]s
  VS Code       code --add-mcp '{"name":"kavach","type":"http","url":"%[2]s"}'
  Cursor        in ~/.cursor/mcp.json: {"mcpServers":{"kavach":{"url":"%[2]s"}}}
  Inspector     npx @modelcontextprotocol/inspector --transport http --server-url %[2]s

try
  prompt        Use kavach to delegate the scope kavach:verify to the agent code-reviewer for two minutes,
                then verify the token you got, and show me what the audit log says about it.
  curl          curl -s %[1]s/.well-known/oauth-protected-resource/mcp

`, m.Issuer, endpoint, m.Config.Data, filepath.Join(m.Config.Data, "agents"), m.Ops)
}
