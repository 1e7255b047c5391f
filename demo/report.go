package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
)

// ReporterConfig says as whom to report what the git host decided.
type ReporterConfig struct {
	// Agent is the git host as a client of kavach. Required.
	Agent *client.Agent
	// SpillDir keeps what was allowed while kavach is away. Empty: memory does.
	SpillDir string
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
	// Log takes what operators should see. Nil: slog.Default.
	Log *slog.Logger
}

// NewReporter makes the git host's Reporter: it signs in with a key of its own,
// for the one scope that lets it report.
func NewReporter(cfg ReporterConfig) (*guard.Reporter, error) {
	r, err := guard.NewReporter(guard.ReporterConfig{
		URL: entriesOf(cfg.Agent), Resource: Resource, SpillDir: cfg.SpillDir,
		Client: reportingClient(cfg.Agent, cfg.Now), Now: cfg.Now, Log: cfg.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("making the git host's reporter: %w", err)
	}
	return r, nil
}

// entriesOf is where an agent's server takes reports.
func entriesOf(a *client.Agent) string { return a.Issuer() + "/api/v1/audit/entries" }

// reportingClient signs in for reporting, with a token of its own.
func reportingClient(a *client.Agent, now func() time.Time) *http.Client {
	session := a.Stay(client.Ask{Scopes: []string{WriteAudit}, Resources: []string{a.Issuer() + "/api"}})
	return &http.Client{Timeout: 10 * time.Second, Transport: &client.Transport{Source: session, Now: now}}
}

// ActionConnect is what a runtime reports that it did not let happen.
const ActionConnect = "rs.connect"

// reportAttempt tells the log what code-reviewer's runtime refused, on the word
// of code-reviewer: its own client_id is the audience it may report about.
func (s *stage) reportAttempt(ctx context.Context, a client.Attempt) error {
	if a.Refusal == nil {
		return nil
	}
	entry := map[string]any{
		"id": delegation.NewJTI(s.cfg.Now()), "observed": a.Time.UnixMilli(), "action": ActionConnect,
		"resource": s.reviewer.id + "/" + a.Destination, "result": "denied", "reason": a.Refusal.Reason,
		"lid":    a.Links[len(a.Links)-1].LID,
		"detail": map[string]any{"method": a.Method, "dimension": a.Refusal.Dimension},
	}
	body, err := json.Marshal(map[string]any{"entries": []any{entry}})
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, entriesOf(s.reviewer.client), bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := s.reports.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
		return fmt.Errorf("reporting a refusal: %d %s", resp.StatusCode, bytes.TrimSpace(said))
	}
	return nil
}
