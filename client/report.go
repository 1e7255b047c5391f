package client

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
)

const (
	// ReportScope is what an agent needs at ISSUER/api to report.
	ReportScope = "audit:write"
	// ReportPath is where a log takes reports, below its issuer.
	ReportPath = "/api/v1/audit/entries"
	// ReportAction is what a Reporter files its entries under.
	ReportAction = "rs.connect"
	// reportTimeout bounds one report.
	reportTimeout = 30 * time.Second
)

// Reporter tells the log of a kavach what a Transport decided: its Report is
// what Transport.Report is for. What an agent's own runtime refuses no server
// has seen; this is the only trace of it.
//
//	r := &client.Reporter{Agent: a, Source: session}
//	http := &http.Client{Transport: &client.Transport{Source: session, Report: r.Report}}
type Reporter struct {
	// Agent reports. It has to have the scope ReportScope, and its entries are
	// about its own id and what is below: ID/HOST:PORT. Required.
	Agent *Agent
	// Source yields the credential that the Transport acts with. If it is bound
	// and of the issuer that is reported to, an entry carries it, with a proof
	// of its key over the request that was judged: the server computes from
	// them who acted, and drops them. Of any other credential an entry names
	// the link id alone. Required.
	Source Source
	// HTTP reaches the log and adds a token of the Agent's own, such as one for
	// Reporting. Nil: a Transport without configuration does.
	HTTP *http.Client

	once sync.Once // makes own
	own  *http.Client
}

// Reporting is what an agent signs in for in order to report.
func (a *Agent) Reporting() Ask {
	return Ask{Scopes: []string{ReportScope}, Resources: []string{a.cfg.Issuer + "/api"}}
}

// Report sends one entry and returns when the log has it.
func (r *Reporter) Report(ctx context.Context, attempt Attempt) error {
	entry, err := r.entry(ctx, attempt)
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{"entries": []any{entry}})
	if err != nil {
		return failed("reporting: %w", err)
	}
	// The request that was refused may end now; its report does not.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.Agent.cfg.Issuer+ReportPath, bytes.NewReader(body))
	if err != nil {
		return failed("reporting: %w", err)
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := r.http().Do(request)
	if err != nil {
		return failed("reporting to %s: %w", r.Agent.cfg.Issuer, err)
	}
	document, err := readAnswer(answer)
	if answer.StatusCode == http.StatusCreated {
		return nil
	}
	if err != nil {
		return failed("reporting to %s: %d: %w", r.Agent.cfg.Issuer, answer.StatusCode, err)
	}
	token, _ := entry["credential"].(string)
	said := readError(answer.StatusCode, answer.Header, document, token)
	return failed("reporting to %s: %d %s: %s", r.Agent.cfg.Issuer, said.Status, said.Code, said.Description)
}

// entry is what happened (audit.md §4). There is no free text in it.
func (r *Reporter) entry(ctx context.Context, attempt Attempt) (map[string]any, error) {
	held, err := r.Source.Credential(ctx)
	if err != nil {
		return nil, err
	}
	detail := map[string]any{"method": attempt.Method}
	entry := map[string]any{
		"id": delegation.NewJTI(attempt.Time), "observed": attempt.Time.UnixMilli(), "action": ReportAction,
		"resource": r.Agent.cfg.ID + "/" + attempt.Destination, "result": "allowed", "detail": detail,
	}
	if refusal := attempt.Refusal; refusal != nil {
		entry["result"], entry["reason"] = "denied", string(refusal.Reason)
		if refusal.Dimension != "" {
			detail["dimension"] = refusal.Dimension
		}
	}
	grant, err := delegation.UnverifiedHeld(string(held.Token))
	if err != nil {
		return nil, failed("reading the token: %w", err)
	}
	links := grant.Links()
	if held.Key.IsZero() || links[0].Issuer != r.Agent.cfg.Issuer {
		entry["lid"] = links[len(links)-1].LID
		return entry, nil
	}
	entry["credential"] = string(held.Token)
	if attempt.URL == "" || attempt.Method == http.MethodConnect {
		return entry, nil // no request to prove
	}
	proof, err := agent.SignProof(held.Key, agent.Proof{
		Method: attempt.Method, URL: attempt.URL, Token: string(held.Token), IssuedAt: attempt.Time,
	})
	if err != nil {
		return entry, nil // a URL that was refused because it is none that can be proved
	}
	entry["proof"], entry["method"], entry["url"] = proof, attempt.Method, attempt.URL
	return entry, nil
}

func (r *Reporter) http() *http.Client {
	if r.HTTP != nil {
		return r.HTTP
	}
	r.once.Do(func() {
		r.own = &http.Client{Transport: &Transport{Source: r.Agent.Stay(r.Agent.Reporting()), Now: r.Agent.cfg.Now}}
	})
	return r.own
}
