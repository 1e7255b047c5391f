package demo

import (
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/kavach-dev/kavach/client"
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
		URL: cfg.Agent.Issuer() + client.ReportPath, Resource: Resource, SpillDir: cfg.SpillDir,
		Client: &http.Client{Timeout: 10 * time.Second, Transport: &client.Transport{
			Source: cfg.Agent.Stay(cfg.Agent.Reporting()), Now: cfg.Now,
		}},
		Now: cfg.Now, Log: cfg.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("making the git host's reporter: %w", err)
	}
	return r, nil
}
