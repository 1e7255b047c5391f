package api_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
)

// What a guard took an AAT proof for is evidence in the log, once, and the
// record says nothing of the arguments.
func TestGuardReportsCalls(t *testing.T) {
	d := newDesk(t)
	reports, err := guard.NewReporter(guard.ReporterConfig{
		URL: d.url + "/api/v1/audit/entries", Resource: git, SpillDir: t.TempDir(), Now: d.clock,
		Client: &http.Client{Transport: reporterTransport{d.reporter(gitHost, "audit:write")}}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	call := delegation.Call{Name: "comment"}
	h := guard.Require(guard.Config{
		Resource: git, Verifier: d.registry.Verifier(), Report: reports.Report, Now: d.clock, Log: slog.New(slog.DiscardHandler),
		Need: guard.Need{Request: delegation.Request{Scope: delegation.AllOf("git-host:use"), Tool: delegation.Given(call)}},
	})(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }))
	holder := d.secret()
	root := d.sign(func(c *delegation.Claims) { c.Root, c.MaxDepth, c.Key = true, 2, holder.Public() })
	cred, err := client.Hold(root, holder)
	if err != nil {
		t.Fatal(err)
	}
	first := httptest.NewRequest(http.MethodPost, git+"/comments", nil)
	if err := cred.AuthorizeCall(first, call, git, "", d.clock()); err != nil {
		t.Fatal(err)
	}
	elsewhere := httptest.NewRequest(http.MethodPost, git+"/comments", nil)
	if err := cred.AuthorizeCall(elsewhere, call, "https://wiki.example", "", d.clock()); err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		r      *http.Request
		status int
	}{{first, 201}, {first, 401}, {elsewhere, 401}} {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, c.r)
		if rec.Code != c.status {
			t.Errorf("%d: %d", i, rec.Code)
		}
	}
	if err := reports.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, stored := range d.records("rs.access") {
		e := stored.Entry
		got[e.Result+" "+e.Reason+" "+e.Evidence]++
	}
	if got["allowed  "+audit.EvidenceProof] != 1 || got["denied replayed "+audit.EvidenceAsserted] != 1 ||
		got["denied holder_binding_failed "+audit.EvidenceAsserted] != 1 {
		t.Errorf("the log tells %v", got)
	}
}
