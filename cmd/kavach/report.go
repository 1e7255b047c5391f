package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
)

// reportFlags say where refusals are told: what an agent's own runtime refuses,
// no server has seen.
type reportFlags struct {
	ReportTo     string `placeholder:"URL" help:"Report what is refused here to the log of this kavach, as the agent of --agent-key-file."`
	AgentKeyFile string `placeholder:"FILE" help:"NAME.key.json of that agent, which has the scope audit:write."`
}

// reportScope is what a reporter needs at ISSUER/api.
const reportScope = "audit:write"

// actionConnect is what a report about a connection is filed under.
const actionConnect = audit.ReporterPrefix + "connect"

// reporter tells a kavach's log what a transport decided.
type reporter struct {
	w      *world
	issuer string
	agent  string // who reports
	source client.Source
	http   *http.Client
	holder agent.PrivateKey
}

// report is the Report of a client.Transport that acts with source; nil if
// nobody is to be told.
func (f reportFlags) report(w *world, reach reachFlags, source client.Source, holder agent.PrivateKey) (func(context.Context, client.Attempt) error, error) {
	if (f.ReportTo == "") != (f.AgentKeyFile == "") {
		return nil, usagef("", "--report-to and --agent-key-file go together")
	}
	if f.ReportTo == "" {
		return nil, nil
	}
	a, err := agentFlags{Issuer: f.ReportTo, KeyFile: f.AgentKeyFile, reachFlags: reach}.signer(w)
	if err != nil {
		return nil, err
	}
	session := a.Stay(client.Ask{Scopes: []string{reportScope}, Resources: []string{f.ReportTo + "/api"}})
	transport, err := reach.callTransport(w, session)
	if err != nil {
		return nil, err
	}
	r := &reporter{
		w: w, issuer: f.ReportTo, agent: a.ID(), source: source, holder: holder,
		http: &http.Client{Transport: transport, Timeout: agentTimeout},
	}
	return r.report, nil
}

// report sends one entry and returns when the log has it. A refusal stands
// whether or not it could be reported; it is for the transport to refuse what
// needs a record and got none.
func (r *reporter) report(ctx context.Context, attempt client.Attempt) error {
	err := r.send(ctx, attempt)
	if err != nil {
		r.w.note("%s could not be reported to %s: %s", described(attempt), r.issuer, oneLine(serverError("reporting", r.issuer, err).Error()))
	}
	return err
}

// described names an attempt without what may be secret in it.
func described(attempt client.Attempt) string {
	if attempt.Refusal != nil {
		return "the refusal of " + oneLine(attempt.Destination)
	}
	return "the request to " + oneLine(attempt.Destination)
}

func (r *reporter) send(ctx context.Context, attempt client.Attempt) error {
	entry, err := r.entry(ctx, attempt)
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{"entries": []any{entry}})
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.issuer+"/api/v1/audit/entries", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	resp, err := r.http.Do(request)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusCreated {
		return statusError(resp, answer)
	}
	return nil
}

// entry is what happened. Which token it was is told by the token itself and a
// proof of its key, for the server to look at and drop: it computes who acted,
// and believes nobody. They go to nobody but the issuer of the token, and a
// bearer token not even there; then the token's id says it.
func (r *reporter) entry(ctx context.Context, attempt client.Attempt) (map[string]any, error) {
	entry := map[string]any{
		"id": delegation.NewJTI(attempt.Time), "action": actionConnect, "result": audit.Allowed,
		"resource": r.agent + "/" + attempt.Destination, "observed": attempt.Time.UnixMilli(),
	}
	detail := map[string]any{"method": attempt.Method}
	if refusal := attempt.Refusal; refusal != nil {
		entry["result"], entry["reason"] = audit.Denied, string(refusal.Reason)
		if refusal.Dimension != "" {
			detail["dimension"] = refusal.Dimension
		}
	}
	entry["detail"] = detail
	held, err := r.source.Credential(ctx)
	if err != nil {
		return nil, err
	}
	if r.holder.IsZero() || issuerOf(held) != r.issuer {
		if n := len(attempt.Links); n > 0 {
			entry["lid"] = attempt.Links[n-1].LID
		}
		return entry, nil
	}
	entry["credential"] = string(held.Token)
	if attempt.URL == "" || attempt.Method == http.MethodConnect {
		return entry, nil
	}
	proof, err := agent.SignProof(r.holder, agent.Proof{
		Method: attempt.Method, URL: attempt.URL, Token: string(held.Token), IssuedAt: attempt.Time,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("proving %s", described(attempt)), err)
	}
	entry["proof"], entry["method"], entry["url"] = proof, attempt.Method, attempt.URL
	return entry, nil
}

// issuerOf is who a token says that it is of.
func issuerOf(c client.Credential) string {
	parts, err := delegation.Inspect(string(c.Token))
	if err != nil {
		return ""
	}
	return parts[0].UnverifiedClaims.Get("iss").Str()
}
