package api_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
)

func (w *world) Update(_ context.Context, u authz.ManifestUpdate) (authz.Agent, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.updates = append(w.updates, u)
	return agents[0], w.agentErr
}

func (w *world) Manifests(_ context.Context, id string, after int64, limit int) ([]authz.SignedManifest, error) {
	var list []authz.SignedManifest
	for seq := after + 1; seq <= 3 && len(list) < limit; seq++ {
		list = append(list, authz.SignedManifest{Seq: seq, Token: "manifest of " + id, Added: time.Unix(seq, 0)})
	}
	return list, nil
}

func (w *world) Countersigned(_ context.Context, id string) (string, error) {
	if id != "agent-of-alice" {
		return "", authz.ErrNotFound
	}
	return "m~c", nil
}

func (w *world) Suspend(_ context.Context, by authz.Actor, agentID, why string) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = append(w.stopped, by.Sub+" suspends "+agentID+": "+why)
	return !w.unrecorded, w.agentErr
}

func (w *world) Resume(_ context.Context, by authz.Actor, agentID string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = append(w.stopped, by.Sub+" resumes "+agentID)
	return w.agentErr
}

const theAgent = "/api/v1/agents/agent-of-alice"

func TestUpdateAnAgent(t *testing.T) {
	w := newWorld(t)
	manager := w.token("alice", "agents:manage")
	for _, c := range []struct {
		token, body string
		want        authz.ManifestUpdate
	}{
		{"", registration, authz.ManifestUpdate{Agent: "agent-of-alice"}},
		{"", `{"manifest":"m","assertion":"a","enrolment_token":"e"}`, authz.ManifestUpdate{Agent: "agent-of-alice", EnrolmentToken: "e"}},
		{manager, registration, authz.ManifestUpdate{Agent: "agent-of-alice", Owner: true}},
		{w.token("root", "agents:manage"), registration, authz.ManifestUpdate{Agent: "agent-of-alice", Owner: true}},
	} {
		r := w.request("POST", theAgent+"/manifests", c.token, c.body)
		if r.status != 200 || r.json.Get("id").Str() != "agent-of-alice" || r.json.Get("manifest").Str() != "m~c" {
			t.Fatalf("%d %s", r.status, r.body)
		}
		got := w.updates[len(w.updates)-1]
		if got.Agent != c.want.Agent || got.Owner != c.want.Owner || got.EnrolmentToken != c.want.EnrolmentToken || got.Manifest != "m" || got.Assertion != "a" {
			t.Errorf("%+v", got)
		}
	}
	before := len(w.updates)
	for _, c := range []struct {
		name, token, body string
		status            int
		code              string
	}{
		{"nothing", "", "", 401, "invalid_token"},
		{"bad token", "x", registration, 401, "invalid_token"},
		{"other scope", w.token("alice", "kavach:delegate"), registration, 403, "insufficient_scope"},
		{"somebody else", w.token("bob", "agents:manage"), registration, 404, "not_found"},
		{"both", manager, `{"manifest":"m","assertion":"a","enrolment_token":"e"}`, 400, "invalid_request"},
		{"no assertion", manager, `{"manifest":"m"}`, 400, "invalid_request"},
		{"no assertion, alone", "", `{"manifest":"m"}`, 400, "invalid_request"},
	} {
		if r := w.request("POST", theAgent+"/manifests", c.token, c.body); r.status != c.status || r.json.Get("error").Str() != c.code {
			t.Errorf("%s: %d %s", c.name, r.status, r.body)
		}
	}
	if len(w.updates) != before {
		t.Error("a refused update got through")
	}
}

func TestWhatTheRegistrySaysOfAnAgent(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{authz.ErrOwnerNeeded, 403, "access_denied"}, {authz.ErrReplayed, 400, "invalid_request"}, {authz.ErrInvalid, 400, "invalid_request"},
		{authz.ErrExists, 409, "already_exists"}, {authz.ErrRaceLost, 409, "conflict"}, {authz.ErrNotSuspended, 409, "conflict"},
		{authz.ErrEnrolment, 401, "invalid_token"}, {authz.ErrNotFound, 404, "not_found"}, {errors.New("x"), 503, "temporarily_unavailable"},
		{audit.ErrUnavailable, 503, "temporarily_unavailable"},
	} {
		w.agentErr = c.err
		if r := w.request("POST", theAgent+"/manifests", "", registration); r.status != c.status || r.json.Get("error").Str() != c.code {
			t.Errorf("%v: %d %s", c.err, r.status, r.body)
		}
	}
}

func TestSuspendAndResumeAnAgent(t *testing.T) {
	w := newWorld(t)
	manager := w.token("alice", "agents:manage")
	r := w.request("POST", theAgent+"/suspend", manager, `{"why":"its key was in a log"}`)
	if r.status != 200 || r.json.Get("status").Str() != "suspended" || r.json.Get("recorded").Exists() || w.stopped[0] != "alice suspends agent-of-alice: its key was in a log" {
		t.Errorf("%d %s %q", r.status, r.body, w.stopped)
	}
	w.unrecorded = true
	if r := w.request("POST", theAgent+"/suspend", manager, ""); r.status != 200 || r.json.Get("recorded").Str() != "" || !r.json.Get("recorded").Exists() {
		t.Errorf("%d %s", r.status, r.body)
	}
	// Who manages it may be one of the owner's agents.
	if r := w.request("POST", theAgent+"/suspend", w.token("agent-of-alice", "agents:manage"), ""); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := w.request("POST", theAgent+"/resume", manager, ""); r.status != 200 || r.json.Get("status").Str() != "active" || w.stopped[3] != "alice resumes agent-of-alice" {
		t.Errorf("%d %s %q", r.status, r.body, w.stopped)
	}
	for _, c := range []struct {
		name, path, token, body string
		status                  int
	}{
		{"a stranger", "/suspend", "", "", 401},
		{"somebody else", "/suspend", w.token("bob", "agents:manage"), "", 404},
		{"other scope", "/suspend", w.token("alice", "kavach:audit"), "", 403},
		{"another member", "/suspend", manager, `{"reason":"x"}`, 400},
		{"no text", "/suspend", manager, `{"why":1}`, 400},
		{"a body", "/resume", manager, `{}`, 400},
		{"the agent itself", "/resume", w.token("agent-of-alice", "agents:manage"), "", 403},
		{"somebody else", "/resume", w.token("bob", "agents:manage"), "", 404},
	} {
		if r := w.request("POST", "/api/v1/agents/agent-of-alice"+c.path, c.token, c.body); r.status != c.status {
			t.Errorf("%s of %s: %d %s", c.path, c.name, r.status, r.body)
		}
	}
	if len(w.stopped) != 4 {
		t.Errorf("%q", w.stopped)
	}
}

func TestTheManifestsOfAnAgent(t *testing.T) {
	w := newWorld(t)
	for _, scope := range []string{"agents:manage", "kavach:delegate"} {
		r := w.request("GET", theAgent+"/manifests?limit=2", w.token("alice", scope), "")
		if r.status != 200 || r.json.Get("manifests").Len() != 2 || r.json.Get("countersigned").Str() != "m~c" {
			t.Errorf("%d %s", r.status, r.body)
		}
	}
	if e := w.last(); e.Action != audit.AgentRead || e.Detail["agent"] != "agent-of-alice" {
		t.Errorf("%+v", e)
	}
	for path, want := range map[string]int{
		theAgent + "/manifests?after=2": 200, theAgent + "/manifests?after=x": 400, theAgent + "/manifests?limit=0": 400,
		theAgent + "/manifests?after=1&after=2": 400, theAgent + "/manifests?x=1": 400, "/api/v1/agents/agent-of-bob/manifests": 404,
	} {
		if r := w.request("GET", path, w.token("alice", "agents:manage"), ""); r.status != want {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
	w.logDown = true
	if r := w.request("GET", theAgent+"/manifests", w.token("alice", "agents:manage"), ""); r.status != 503 {
		t.Errorf("shown without a record: %d %s", r.status, r.body)
	}
}
