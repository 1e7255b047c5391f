package main

import (
	"context"
	"net/http"

	"github.com/kavach-dev/kavach/client"
)

// reportFlags say where refusals are told: what an agent's own runtime refuses,
// no server has seen.
type reportFlags struct {
	ReportTo     string `placeholder:"URL" help:"Report what is refused here to the log of this kavach, as the agent of --agent-key-file."`
	AgentKeyFile string `placeholder:"FILE" help:"NAME.key.json of that agent, which has the scope audit:write."`
}

// report is the Report of a client.Transport that acts with source; nil if
// nobody is to be told. A refusal stands whether or not it could be reported; it
// is for the transport to refuse what needs a record and got none.
func (f reportFlags) report(w *world, reach reachFlags, source client.Source) (func(context.Context, client.Attempt) error, error) {
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
	transport, err := reach.callTransport(w, a.Stay(a.Reporting()))
	if err != nil {
		return nil, err
	}
	reporter := &client.Reporter{Agent: a, Source: source, HTTP: &http.Client{Transport: transport}}
	return func(ctx context.Context, attempt client.Attempt) error {
		err := reporter.Report(ctx, attempt)
		if err != nil {
			what := "the request to "
			if attempt.Refusal != nil {
				what = "the refusal of "
			}
			w.note("%s%s could not be reported: %s", what, oneLine(attempt.Destination), oneLine(clientError(err).Error()))
		}
		return err
	}, nil
}
