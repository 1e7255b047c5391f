package api_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/api"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

const issuer = "https://kavach.example"

// world is the API with stand-ins for the registry and the log, and real tokens.
type world struct {
	t   *testing.T
	key delegation.ServerKey
	url string

	mu            sync.Mutex // guards what follows
	entries       []audit.Entry
	refusals      []audit.Entry
	logDown       bool
	registrations []authz.Registration
	registerErr   error
	queries       []audit.Query
	page          audit.Page
	readErr       error
	owners        []string // asked for in lists
	updates       []authz.ManifestUpdate
	stopped       []string // agents that were suspended, then resumed
	agentErr      error    // of what is done to agents
	unrecorded    bool
}

func newWorld(t *testing.T) *world {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, key: delegation.ServerKey{KID: "at-test", Signer: private}}
	anchor, err := w.key.Anchor()
	if err != nil {
		t.Fatal(err)
	}
	s, err := api.New(api.Config{
		Issuer:   issuer,
		Verifier: &delegation.Verifier{Issuer: issuer, Anchors: func(kid string) (delegation.Anchor, bool) { return anchor, kid == "at-test" }},
		Agents:   w, People: w, Auditor: w, Revoker: w, Resources: w, Spent: w, Commit: w, Refusals: w,
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(api.Path+"/", s.Handler())
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	w.url = server.URL
	return w
}

func (w *world) Commit(_ context.Context, c audit.Change) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.logDown {
		return audit.ErrUnavailable
	}
	w.entries = append(w.entries, c.Entries...)
	return nil
}

func (w *world) Refuse(_, _ string, e audit.Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refusals = append(w.refusals, e)
}

func (w *world) Register(_ context.Context, r authz.Registration) (authz.Agent, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.registrations = append(w.registrations, r)
	return agents[0], w.registerErr
}

var agents = []authz.Agent{
	{ID: "agent-of-alice", Owner: "alice", Name: "coder", Status: authz.AgentActive, Scopes: []string{"repository:read"}},
	{ID: "agent-of-bob", Owner: "bob", Name: "coder", Status: authz.AgentActive},
}

func (w *world) FindAgent(_ context.Context, owner, idOrName string) (authz.Agent, error) {
	for _, a := range agents {
		if a.ID == idOrName || a.Owner == owner && a.Name == idOrName {
			return a, nil
		}
	}
	return authz.Agent{}, authz.ErrNotFound
}

func (w *world) Agents(_ context.Context, owner, after string, limit int) ([]authz.Agent, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.owners = append(w.owners, owner)
	var found []authz.Agent
	for _, a := range agents {
		if (owner == "" || a.Owner == owner) && a.ID > after && len(found) < limit {
			found = append(found, a)
		}
	}
	return found, nil
}

func (w *world) Holder(_ context.Context, principal string) (authz.Holder, error) {
	switch principal {
	case "alice", "bob":
		return authz.Holder{ID: principal, Role: "member", Active: true}, nil
	case "agent-of-alice":
		return authz.Holder{ID: "alice", Role: "member", Active: true}, nil
	case "root":
		return authz.Holder{ID: "root", Role: "operator", Active: true}, nil
	case "gone":
		return authz.Holder{ID: "gone", Role: "operator"}, nil
	case "broken":
		return authz.Holder{}, errors.New("database secret")
	}
	return authz.Holder{}, authz.ErrNotFound
}

func (w *world) Entries(_ context.Context, q audit.Query) (audit.Page, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.queries = append(w.queries, q)
	return w.page, w.readErr
}

func (w *world) Entry(_ context.Context, _ audit.Sight, id string) (audit.Stored, error) {
	if id != "0190aaaa-0000-7000-8000-000000000001" {
		return audit.Stored{}, audit.ErrNotFound
	}
	return audit.Stored{Bytes: []byte(`{"action":"login","id":"` + id + `","result":"allowed","seq":0,"time":1}`)}, nil
}

// Reports are tested on a real log, see newDesk.

func (w *world) Written(context.Context, string, []string) (map[string]audit.Stored, error) {
	return nil, errors.New("not here")
}

func (w *world) Catalog(context.Context, ...string) (*authz.Catalog, error) {
	return nil, errors.New("not here")
}

func (w *world) Once(string, time.Time) audit.Effect { return nil }
func (w *world) Again(string) audit.Effect           { return nil }

func (w *world) token(sub string, scopes ...string) string {
	w.t.Helper()
	now := time.Now()
	signed, err := delegation.Sign(delegation.Claims{
		Issuer: issuer, Subject: sub, ClientID: "console", Audience: []string{issuer + "/api"},
		IssuedAt: now, Expires: now.Add(time.Minute), Scopes: scopes, GrantID: "grant-1",
	}, w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	return signed.Token
}

type reply struct {
	status int
	header http.Header
	json   jcs.Value
	body   string
}

func (w *world) request(method, path, token, body string, headers ...string) reply {
	w.t.Helper()
	req, err := http.NewRequest(method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	r := reply{status: resp.StatusCode, header: resp.Header, body: string(got)}
	if r.json, err = jcs.Parse(got, jcs.Limits{}); err != nil && method != http.MethodHead {
		w.t.Errorf("%s %s: %d is no JSON: %s", method, path, r.status, got)
	}
	if strings.Contains(r.body, "secret") {
		w.t.Errorf("%s %s leaks: %s", method, path, got)
	}
	if r.header.Get("Cache-Control") != "no-store" || r.header.Get("Access-Control-Allow-Origin") != "" {
		w.t.Errorf("%s %s: headers %v", method, path, r.header)
	}
	return r
}

func (w *world) last() audit.Entry {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.entries) == 0 {
		w.t.Fatal("nothing was recorded")
	}
	return w.entries[len(w.entries)-1]
}

const registration = `{"manifest":"m","assertion":"a"}`

func TestRegisterWithEnrolmentToken(t *testing.T) {
	w := newWorld(t)
	r := w.request("POST", "/api/v1/agents", "", `{"manifest":"m","assertion":"a","enrolment_token":"e"}`)
	if r.status != 201 || r.json.Get("id").Str() != "agent-of-alice" || r.json.Get("owner").Str() != "alice" || r.json.Get("status").Str() != "active" {
		t.Fatalf("%d %s", r.status, r.body)
	}
	if got := w.registrations[0]; got.Manifest != "m" || got.Assertion != "a" || got.EnrolmentToken != "e" || got.Owner != "" {
		t.Errorf("%+v", got)
	}
}

func TestRegisterWithToken(t *testing.T) {
	w := newWorld(t)
	r := w.request("POST", "/api/v1/agents", w.token("alice", "agents:manage"), registration)
	if r.status != 201 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	if got := w.registrations[0]; got.Owner != "alice" || got.EnrolmentToken != "" || got.By.Sub != "alice" || got.By.Via != "api" {
		t.Errorf("%+v", got)
	}
	w.request("POST", "/api/v1/agents", w.token("agent-of-alice", "agents:manage"), registration)
	if got := w.registrations[1]; got.Owner != "alice" {
		t.Errorf("an agent's token registers for %q", got.Owner)
	}
}

func TestRegisterRefuses(t *testing.T) {
	w := newWorld(t)
	manager := w.token("alice", "agents:manage")
	for _, c := range []struct {
		name, token, body string
		headers           []string
		status            int
		code              string
	}{
		{"nothing", "", "", nil, 401, "invalid_token"},
		{"no credential", "", registration, nil, 401, "invalid_token"},
		{"a cookie", "", registration, []string{"Cookie", "__Host-kavach=x"}, 401, "invalid_token"},
		{"bad token", "x", registration, nil, 401, "invalid_token"},
		{"other scope", w.token("alice", "kavach:audit"), registration, nil, 403, "insufficient_scope"},
		{"both credentials", manager, `{"manifest":"m","assertion":"a","enrolment_token":"e"}`, nil, 400, "invalid_request"},
		{"nobody behind it", w.token("some-client", "agents:manage"), registration, nil, 403, "access_denied"},
		{"inactive person", w.token("gone", "agents:manage"), registration, nil, 403, "access_denied"},
		{"registry down", w.token("broken", "agents:manage"), registration, nil, 503, "temporarily_unavailable"},
		{"no manifest", manager, `{"assertion":"a"}`, nil, 400, "invalid_request"},
		{"owner of one's choice", manager, `{"manifest":"m","assertion":"a","owner":"bob"}`, nil, 400, "invalid_request"},
		{"duplicate member", manager, `{"manifest":"m","manifest":"n","assertion":"a"}`, nil, 400, "invalid_request"},
		{"other case", manager, `{"Manifest":"m","assertion":"a"}`, nil, 400, "invalid_request"},
		{"null", manager, `{"manifest":null,"assertion":"a"}`, nil, 400, "invalid_request"},
		{"array", manager, `[]`, nil, 400, "invalid_request"},
		{"not JSON", "", `{`, nil, 400, "invalid_request"},
		{"form", manager, "manifest=m&assertion=a", []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, "invalid_request"},
		{"large", manager, `{"manifest":"` + strings.Repeat("m", 64<<10) + `","assertion":"a"}`, nil, 413, "invalid_request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := w.request("POST", "/api/v1/agents", c.token, c.body, c.headers...)
			if r.status != c.status || r.json.Get("error").Str() != c.code {
				t.Fatalf("%d %s", r.status, r.body)
			}
			challenge := r.header.Get("WWW-Authenticate")
			if (c.status == 401 || c.code == "insufficient_scope") != strings.HasPrefix(challenge, "Bearer ") {
				t.Errorf("challenge %q", challenge)
			}
			if c.code == "insufficient_scope" && !strings.Contains(challenge, `scope="agents:manage kavach:audit", resource_metadata="https://kavach.example/.well-known/oauth-protected-resource/api"`) {
				t.Errorf("challenge %q", challenge)
			}
		})
	}
	if len(w.registrations) != 0 {
		t.Errorf("%+v", w.registrations)
	}
	for _, c := range []struct {
		err    error
		status int
		code   string
		says   string
	}{
		{fmt.Errorf("%w: manifest: signature", authz.ErrInvalid), 400, "invalid_request", "manifest: signature"},
		{authz.ErrEnrolment, 401, "invalid_token", "enrolment token"},
		{authz.ErrReplayed, 400, "invalid_request", "assertion"},
		{fmt.Errorf("agent x: %w", authz.ErrExists), 409, "already_exists", "registered already"},
		{audit.ErrUnavailable, 503, "temporarily_unavailable", "try again"},
		{errors.New("disk secret"), 503, "temporarily_unavailable", "try again"},
	} {
		w.registerErr = c.err
		r := w.request("POST", "/api/v1/agents", manager, registration)
		if r.status != c.status || r.json.Get("error").Str() != c.code || !strings.Contains(r.json.Get("error_description").Str(), c.says) {
			t.Errorf("%v: %d %s", c.err, r.status, r.body)
		}
	}
}

func TestAgents(t *testing.T) {
	w := newWorld(t)
	ids := func(r reply) (found []string) {
		for _, a := range r.json.Get("agents").Elements() {
			found = append(found, a.Get("id").Str())
		}
		return found
	}
	alice, root := w.token("alice", "agents:manage"), w.token("root", "agents:manage")
	if got := ids(w.request("GET", "/api/v1/agents", alice, "")); !slices.Equal(got, []string{"agent-of-alice"}) {
		t.Errorf("alice sees %v", got)
	}
	if e := w.last(); e.Action != audit.AgentRead || e.Result != audit.Allowed || e.Sub != "alice" {
		t.Errorf("%+v", e)
	}
	if got := ids(w.request("GET", "/api/v1/agents", root, "")); !slices.Equal(got, []string{"agent-of-alice", "agent-of-bob"}) {
		t.Errorf("an operator sees %v", got)
	}
	page := w.request("GET", "/api/v1/agents?limit=1", root, "")
	if page.json.Get("next").Str() != "agent-of-alice" {
		t.Errorf("%s", page.body)
	}
	if got := ids(w.request("GET", "/api/v1/agents?limit=1&after=agent-of-alice", root, "")); !slices.Equal(got, []string{"agent-of-bob"}) {
		t.Errorf("next page %v", got)
	}
	for _, query := range []string{"limit=0", "limit=x", "limit=1&limit=2", "owner=bob", "after=", "after=%00", "a;b"} {
		if r := w.request("GET", "/api/v1/agents?"+query, alice, ""); r.status != 400 {
			t.Errorf("?%s: %d %s", query, r.status, r.body)
		}
		if e := w.last(); e.Result != audit.Denied || e.Reason != "invalid_request" {
			t.Errorf("?%s: %+v", query, e)
		}
	}
	for path, status := range map[string]int{"agent-of-alice": 200, "coder": 200, "agent-of-bob": 404, "nothing": 404, "%27%20OR%201=1": 404} {
		r := w.request("GET", "/api/v1/agents/"+path, alice, "")
		if r.status != status || status == 200 && r.json.Get("owner").Str() != "alice" {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
	if r := w.request("GET", "/api/v1/agents/agent-of-bob", root, ""); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := w.request("GET", "/api/v1/agents", w.token("alice", "audit:read"), ""); r.status != 403 {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func TestEntries(t *testing.T) {
	w := newWorld(t)
	w.page = audit.Page{Entries: []audit.Stored{{Bytes: []byte(`{"action":"login","id":"x","result":"allowed","seq":3,"time":5}`)}}, Next: "n"}
	lid := strings.Repeat("A", 43)
	r := w.request("GET", "/api/v1/audit/entries?agent=a&action=delegate&result=denied&resource=r&sub=s&grant=g&lid="+lid+
		"&since=2026-01-02T03:04:05Z&until=2026-01-03T00:00:00Z&q=p&order=oldest&cursor=c&limit=1000000000", w.token("alice", "kavach:audit"), "")
	if r.status != 200 || len(r.json.Get("entries").Elements()) != 1 || r.json.Get("next_cursor").Str() != "n" {
		t.Fatalf("%d %s", r.status, r.body)
	}
	q := w.queries[0]
	if q.Sight.All || q.Sight.Grant != "grant-1" || q.Sight.Person != "alice" || !slices.Equal(q.Sight.Path, []string{"alice", "console"}) ||
		q.Agent != "a" || q.Action != "delegate" || q.Result != "denied" || q.Resource != "r" || q.Sub != "s" || q.Grant != "g" || q.LID != lid ||
		q.Prefix != "p" || !q.Ascending || q.Cursor != "c" || q.Limit != 500 || q.Since != time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixMilli() {
		t.Errorf("%+v", q)
	}
	if e := w.last(); e.Action != audit.AuditRead || e.Result != audit.Allowed || e.Detail["entries"] != 1 {
		t.Errorf("%+v", e)
	}
	w.request("GET", "/api/v1/audit/entries", w.token("alice", "audit:read"), "")
	if q := w.queries[1]; !q.Sight.All || q.Limit != 50 {
		t.Errorf("%+v", q)
	}
	for _, query := range []string{
		"agent=a&agent=b", "agent=", "action=x.y", "action=%27", "result=maybe", "lid=x", "since=yesterday", "order=seq", "limit=-1",
		"limit=1e9", "sort=time", "agent=%00", "agent=%ff", "a;b",
	} {
		if r := w.request("GET", "/api/v1/audit/entries?"+query, w.token("alice", "kavach:audit"), ""); r.status != 400 || r.json.Get("error").Str() != "invalid_request" {
			t.Errorf("?%s: %d %s", query, r.status, r.body)
		}
	}
	w.readErr = audit.ErrCursor
	if r := w.request("GET", "/api/v1/audit/entries?cursor=x", w.token("alice", "kavach:audit"), ""); r.status != 400 {
		t.Errorf("%d %s", r.status, r.body)
	}
	w.readErr = errors.New("secret")
	if r := w.request("GET", "/api/v1/audit/entries", w.token("alice", "kavach:audit"), ""); r.status != 503 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := w.request("GET", "/api/v1/audit/entries", w.token("alice", "agents:manage"), ""); r.status != 403 ||
		!strings.Contains(r.header.Get("WWW-Authenticate"), `scope="agents:manage kavach:audit"`) {
		t.Errorf("%d %s", r.status, r.header.Get("WWW-Authenticate"))
	}
}

func TestEntry(t *testing.T) {
	w := newWorld(t)
	token := w.token("alice", "kavach:audit")
	if r := w.request("GET", "/api/v1/audit/entries/0190aaaa-0000-7000-8000-000000000001", token, ""); r.status != 200 || r.json.Get("entry").Get("action").Str() != "login" {
		t.Errorf("%d %s", r.status, r.body)
	}
	for _, id := range []string{"x", "%00", strings.Repeat("x", 100)} {
		if r := w.request("GET", "/api/v1/audit/entries/"+id, token, ""); r.status != 404 {
			t.Errorf("%s: %d %s", id, r.status, r.body)
		}
	}
}

func TestRoutes(t *testing.T) {
	w := newWorld(t)
	token := w.token("alice", "agents:manage", "kavach:audit")
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"DELETE", "/api/v1/agents", 405}, {"PUT", "/api/v1/agents/x", 405}, {"PUT", "/api/v1/audit/entries", 405}, {"OPTIONS", "/api/v1/agents", 405},
		{"GET", "/api/v1/nothing", 404}, {"GET", "/api/", 404}, {"GET", "/api/v2/agents", 404}, {"GET", "/api/v1/agents/", 404}, {"GET", "/api/v1/AGENTS", 404},
	} {
		r := w.request(c.method, c.path, token, "")
		if r.status != c.status || (c.status == 405) != (r.header.Get("Allow") != "") {
			t.Errorf("%s %s: %d %s", c.method, c.path, r.status, r.body)
		}
	}
}

func TestLogDown(t *testing.T) {
	w := newWorld(t)
	w.logDown = true
	token := w.token("alice", "agents:manage", "kavach:audit")
	for _, path := range []string{"/api/v1/agents", "/api/v1/agents/coder", "/api/v1/audit/entries", "/api/v1/audit/entries/x"} {
		if r := w.request("GET", path, token, ""); r.status != 503 || r.json.Get("error").Str() != "temporarily_unavailable" || r.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", path, r.status, r.body)
		}
	}
	if r := w.request("GET", "/api/v1/agents", w.token("alice"), ""); r.status != 503 {
		t.Errorf("a refusal: %d", r.status)
	}
}

func TestStrangersAreRecorded(t *testing.T) {
	w := newWorld(t)
	w.request("GET", "/api/v1/agents", "", "")
	w.request("POST", "/api/v1/agents", "", "{")
	if len(w.refusals) != 2 || w.refusals[0].Action != audit.TokenRefuse || w.refusals[1].Action != audit.AgentRefuse {
		t.Errorf("%+v", w.refusals)
	}
}
