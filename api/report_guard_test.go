package api_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/guard"
)

// reporterTransport signs the git host in.
type reporterTransport struct{ token string }

func (t reporterTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+t.token)
	return http.DefaultTransport.RoundTrip(r)
}

// A git host behind guard, reporting to the log: the story of the pull request,
// as it is read there afterwards.
func TestGuardReports(t *testing.T) {
	d := newDesk(t)
	reports, err := guard.NewReporter(guard.ReporterConfig{
		URL: d.url + "/api/v1/audit/entries", Resource: git, SpillDir: t.TempDir(), Now: d.clock,
		Client: &http.Client{Transport: reporterTransport{d.reporter(gitHost, "audit:write")}}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	h := guard.Require(guard.Config{
		Resource: git, Verifier: d.registry.Verifier(), DPoPForWrites: true, Report: reports.Report, Now: d.clock, Log: slog.New(slog.DiscardHandler),
		NeedOf: func(r *http.Request) (guard.Need, error) {
			return guard.Need{
				Request: delegation.Request{
					Scope: delegation.AllOf("git-host:use"), Resource: delegation.Given(strings.TrimPrefix(r.URL.Path, "/")),
					Size: delegation.None[int64](),
				},
				Later: []string{delegation.DimensionNetwork},
			}, nil
		},
	})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if guard.Network(r.Context(), r.URL.Query().Get("fetch")) == nil {
			w.WriteHeader(http.StatusCreated)
		}
	}))

	holder, reviewer := d.secret(), d.secret()
	root := d.sign(func(c *delegation.Claims) { c.Root, c.MaxDepth, c.Key = true, 2, holder.Public() })
	yes := true
	derived, err := delegation.Derive(root, holder, reviewer.Public(), delegation.Narrow{
		ClientID: "code-reviewer", Scopes: []string{"git-host:use"}, TTL: time.Minute,
		Limits: delegation.Limits{Resources: []string{"pulls/847"}, AllowNetwork: []string{"git.internal"}, AuditRequired: &yes},
	}, d.clock())
	if err != nil {
		t.Fatal(err)
	}
	c := credential{derived.Chain, reviewer}
	call := func(path, fetch, proof string) int {
		r := httptest.NewRequest(http.MethodPost, git+path+"?fetch="+fetch, nil)
		r.Header.Set("Authorization", "DPoP "+c.text)
		r.Header.Set("DPoP", proof)
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, r)
		return rec.Code
	}
	stolen := d.proof(c, "POST", git+"/pulls/847")
	wrongKey, err := agent.SignProof(d.secret(), agent.Proof{Method: "POST", URL: git + "/pulls/847", Token: c.text, IssuedAt: d.clock()})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		path, fetch, proof string
		status             int
	}{
		{"/pulls/847", "git.internal", stolen, 201},
		{"/pulls/848", "git.internal", d.proof(c, "POST", git+"/pulls/848"), 403},
		{"/pulls/847", "evil.example", d.proof(c, "POST", git+"/pulls/847"), 403},
		{"/pulls/847", "git.internal", stolen, 401},
		{"/pulls/847", "git.internal", wrongKey, 401},
	} {
		if got := call(step.path, step.fetch, step.proof); got != step.status {
			t.Errorf("%s: %d, want %d", step.path, got, step.status)
		}
	}
	d.advance(2 * time.Minute)
	if got := call("/pulls/847", "git.internal", d.proof(c, "POST", git+"/pulls/847")); got != 401 {
		t.Errorf("after expiry: %d", got)
	}
	if err := reports.Close(context.Background()); err != nil {
		t.Fatal(err)
	}

	var story []string
	ids := map[string]string{}
	for _, stored := range d.records("rs.access") {
		e := stored.Entry
		line := strings.TrimPrefix(e.Resource, git) + " " + e.Result + " " + e.Reason
		for _, name := range []string{"phase", "dimension", "unproved"} {
			if text, ok := e.Detail[name].(string); ok {
				line += " " + name + ":" + text
			}
		}
		if of, ok := e.Detail["of"].(string); ok {
			line += " of:" + ids[of]
		}
		ids[e.ID] = e.Resource
		story = append(story, line+" "+e.Evidence)
		if e.By != gitHost || len(e.Chain) != 2 || e.Sub != "usr_alice" || (e.Agent == "") != (e.Evidence == audit.EvidenceAsserted) {
			t.Errorf("%+v", e)
		}
	}
	slices.Sort(story)
	want := []string{
		" denied expired proof", // the route did not come to say what it was about
		" denied holder_binding_failed unproved:no_proof asserted",
		"/pulls/847 allowed  phase:after of:" + git + "/pulls/847 proof",
		"/pulls/847 allowed  phase:before proof",
		"/pulls/847 allowed  phase:before proof",
		"/pulls/847 denied constraint_violated phase:after dimension:allow_network of:" + git + "/pulls/847 proof",
		"/pulls/847 denied replayed unproved:replayed asserted",
		"/pulls/848 denied constraint_violated dimension:resources proof",
		" denied constraint_violated dimension:allow_network of:" + git + "/pulls/847 proof",
	}
	slices.Sort(want)
	if !slices.Equal(story, want) {
		t.Errorf("the log tells\n%s\nwant\n%s", strings.Join(story, "\n"), strings.Join(want, "\n"))
	}
}
