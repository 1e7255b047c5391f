package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/demo"
)

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
	cast := demo.Agents()
	if m.Config.GitHost == "" { // then nothing is made for it
		cast = slices.DeleteFunc(cast, func(one demo.Agent) bool { return one.Manifest.Name == demo.Reporter })
	}
	stage := theStage{deployment: m.d, agents: m.parts.agents, by: authz.Actor{Agent: audit.Operator, Via: "dev"}}
	candidates := make([]demo.Candidate, len(cast))
	for i, one := range cast {
		made, err := m.openDevAgent(ctx, stage, dev.ID, folder, one)
		for tries := 0; tries < devTries && (errors.Is(err, fs.ErrExist) || errors.Is(err, authz.ErrExists)); tries++ {
			// Another first start beside this one makes it: take what it made.
			time.Sleep(devPause)
			made, err = m.openDevAgent(ctx, stage, dev.ID, folder, one)
		}
		if err != nil {
			return fmt.Errorf("making the agent %s: %w", one.Manifest.Name, err)
		}
		candidates[i] = demo.Candidate{Agent: one, ID: made}
	}
	if m.Config.GitHost == "" {
		return nil
	}
	err = stage.grant(ctx, candidates)
	if errors.Is(err, errScopeTaken) || errors.Is(err, authz.ErrInvalid) {
		// What is kept from before is in the way: it was made by hand, or by an
		// older kavach, and is not thrown away.
		m.Config.GitHost = ""
		m.world.note("the git host of the case study is not started: %v", err)
		m.world.note("hint: delete %s to start over; `kavach demo` has data of its own", m.Config.Data)
		return nil
	}
	return err
}

// openDevAgent registers one agent of --dev and returns its id.
func (m *Main) openDevAgent(ctx context.Context, stage theStage, owner, folder string, one demo.Agent) (string, error) {
	manifest := one.Manifest
	known, err := m.parts.agents.FindAgent(ctx, owner, manifest.Name)
	if err != nil && !errors.Is(err, authz.ErrNotFound) {
		return "", err
	}
	made, ferr := readCreatedAgent(folder, manifest.Name, m.world.now())
	switch {
	case err == nil && ferr == nil && known.ID == made.ID:
		return known.ID, nil // both are there from before
	case err == nil:
		m.world.note("hint: the files of agent %s in %s are missing or of another agent: delete %s to start over", manifest.Name, folder, m.Config.Data)
		return known.ID, nil
	case errors.Is(ferr, fs.ErrNotExist):
		manifest.IssuedAt, manifest.Expires = m.world.now(), m.world.now().Add(devManifestLife)
		if made, err = createAgent(manifest, folder); err != nil {
			return "", err
		}
	case ferr != nil:
		return "", ferr
	}
	assertion, err := agent.SignAssertion(made.key, made.ID, m.Issuer, m.world.now(), assertionLife)
	if err != nil {
		return "", err
	}
	return made.ID, stage.register(ctx, owner, demo.Candidate{Agent: one, ID: made.ID, Signed: made.manifest, Assertion: assertion})
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
	if made.key, made.ID, err = agent.ParseIdentity(jwk); err != nil {
		return made, fmt.Errorf("reading %s: %w", made.KeyFile, err)
	}
	made.manifest = strings.TrimSpace(string(manifest))
	read, err := agent.VerifyManifest(made.manifest, now)
	if err != nil {
		return made, fmt.Errorf("reading %s: %w", made.ManifestFile, err)
	}
	if made.ID != read.ID || made.key.Public() != read.Key {
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
  Claude Code     claude mcp add --transport http kavach %[2]s
  VS Code         code --add-mcp '{"name":"kavach","type":"http","url":"%[2]s"}'
  Cursor          in ~/.cursor/mcp.json: {"mcpServers":{"kavach":{"url":"%[2]s"}}}
  Inspector       npx @modelcontextprotocol/inspector --transport http --server-url %[2]s
  Claude Desktop  kavach mcp --issuer %[1]s --key-file %[4]s/orchestrator.key.json --print-config

try
  prompt        Use kavach to delegate the scope kavach:verify to the agent code-reviewer for two minutes,
                then verify the token you got, and show me what the audit log says about it.
  curl          curl -s %[1]s/.well-known/oauth-protected-resource/mcp

`, m.Issuer, endpoint, m.Config.Data, filepath.Join(m.Config.Data, "agents"), m.Ops)
	if m.git != nil {
		m.announceGitHost()
	}
}
