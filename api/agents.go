package api

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

const (
	agentsPage     = 50
	agentsPageMost = 200
	agentsResource = "kavach/api/agents"
)

// registerAgent is authorised by an enrolment token in the body, or by a token
// with agents:manage, whose person becomes the owner. Exactly one of the two:
// otherwise it would not be clear who answers for the agent.
func (s *Server) registerAgent(w http.ResponseWriter, r *http.Request) {
	if len(r.Header.Values("Authorization")) > 0 {
		s.guarded(s.registerOwned).ServeHTTP(w, r)
		return
	}
	if r.ContentLength == 0 {
		s.guarded(s.registerOwned).ServeHTTP(w, r) // a probe: the challenge says how to get a token
		return
	}
	body, wrong := readRegistration(r)
	if wrong != nil {
		s.reject(w, r, nil, audit.AgentRefuse, agentsResource, wrong)
		return
	}
	if body.EnrolmentToken == "" {
		s.guarded(s.registerOwned).ServeHTTP(w, r)
		return
	}
	body.Source = s.source(r)
	s.register(w, r, body)
}

func (s *Server) registerOwned(w http.ResponseWriter, r *http.Request, chain *delegation.Chain) {
	if !s.authorize(w, r, chain, audit.AgentRegister, agentsResource, scopeAgents) {
		return
	}
	body, ok := s.readOwned(w, r, chain)
	if !ok {
		return
	}
	person, ok := s.person(w, r, chain, audit.AgentRefuse, agentsResource)
	if !ok {
		return
	}
	body.Owner = person.ID
	body.By = actor(chain)
	s.register(w, r, body)
}

// person is the person behind a chain. Nobody behind it is a refusal, recorded
// as that of action on resource.
func (s *Server) person(w http.ResponseWriter, r *http.Request, chain *delegation.Chain, action, resource string) (authz.Holder, bool) {
	person, err := s.cfg.People.Holder(r.Context(), chain.Principal())
	if err != nil && !errors.Is(err, authz.ErrNotFound) {
		s.broken(w, "finding the person behind a token", err)
		return person, false
	}
	if err == nil && person.ID != "" && person.Active {
		return person, true
	}
	e := entry(chain, action, audit.Denied, resource)
	e.Reason = "access_denied"
	if s.record(w, r, e) {
		fail(w, http.StatusForbidden, "access_denied", "there is no active person behind this token")
	}
	return person, false
}

// register hands the registration on; the registry of agents decides and
// records.
func (s *Server) register(w http.ResponseWriter, r *http.Request, body authz.Registration) {
	a, err := s.cfg.Agents.Register(r.Context(), body)
	switch {
	case err == nil:
		w.Header().Set("Location", s.cfg.Issuer+Path+"/v1/agents/"+a.ID)
		s.answerAgent(w, r, http.StatusCreated, a)
	case errors.Is(err, authz.ErrExists):
		fail(w, http.StatusConflict, "already_exists", "this agent, or one of yours with this name, is registered already")
	default:
		s.refuseAgent(w, "registering an agent", err)
	}
}

// refuseAgent says what the registry of agents says.
func (s *Server) refuseAgent(w http.ResponseWriter, doing string, err error) {
	switch {
	case errors.Is(err, authz.ErrEnrolment):
		w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
		fail(w, http.StatusUnauthorized, "invalid_token", "the enrolment token is unknown, used or expired")
	case errors.Is(err, authz.ErrNotFound):
		fail(w, http.StatusNotFound, "not_found", "you have no such agent")
	case errors.Is(err, authz.ErrOwnerNeeded):
		fail(w, http.StatusForbidden, "access_denied", "a key change, and any change of an agent that may not act, needs its owner: send an enrolment token for it, or the owner's access token")
	case errors.Is(err, authz.ErrReplayed):
		fail(w, http.StatusBadRequest, "invalid_request", "the assertion was used before; sign a new one")
	case errors.Is(err, authz.ErrExists):
		fail(w, http.StatusConflict, "already_exists", "the key, or the name among yours, is or was that of an agent")
	case errors.Is(err, authz.ErrRaceLost):
		fail(w, http.StatusConflict, "conflict", "the agent changed at the same moment; read its manifest and try again")
	case errors.Is(err, authz.ErrNotSuspended):
		fail(w, http.StatusConflict, "conflict", "the agent is not suspended")
	case errors.Is(err, authz.ErrInvalid):
		fail(w, http.StatusBadRequest, "invalid_request", strings.TrimPrefix(err.Error(), authz.ErrInvalid.Error()+": "))
	default:
		s.broken(w, doing, err)
	}
}

// problem is what is wrong with a request.
type problem struct {
	status int
	text   string
}

// reject records a request that makes no sense, then says so. Without a chain
// the caller is a stranger.
func (s *Server) reject(w http.ResponseWriter, r *http.Request, chain *delegation.Chain, action, resource string, p *problem) {
	if chain == nil {
		s.cfg.Refusals.Refuse(s.source(r), resource, audit.Entry{
			Action: action, Result: audit.Denied, Reason: "invalid_request", Resource: resource, Detail: map[string]any{"via": "api"},
		})
	} else {
		e := entry(chain, action, audit.Denied, resource)
		e.Reason = "invalid_request"
		if !s.record(w, r, e) {
			return
		}
	}
	fail(w, p.status, "invalid_request", p.text)
}

func (s *Server) source(r *http.Request) string {
	return authz.ClientAddress(r, s.cfg.TrustedProxies).String()
}

// readRegistration reads {manifest, assertion, enrolment_token?}: strict JSON,
// nothing else in it.
func readRegistration(r *http.Request) (read authz.Registration, _ *problem) {
	bad := func(text string) (authz.Registration, *problem) {
		return authz.Registration{}, &problem{http.StatusBadRequest, text}
	}
	v, wrong := readObject(r, maxBody, "64 KiB")
	if wrong != nil {
		return read, wrong
	}
	for name, member := range v.Fields() {
		target := map[string]*string{
			"manifest": &read.Manifest, "assertion": &read.Assertion, "enrolment_token": &read.EnrolmentToken,
		}[name]
		if target == nil || member.Kind() != jcs.String || member.Str() == "" {
			return bad("the members are manifest, assertion and enrolment_token, all texts")
		}
		*target = member.Str()
	}
	if read.Manifest == "" || read.Assertion == "" {
		return bad("manifest and assertion are needed")
	}
	return read, nil
}

// readOwned is readRegistration for who comes with an access token, which says
// whose the agent is; ok means go on.
func (s *Server) readOwned(w http.ResponseWriter, r *http.Request, chain *delegation.Chain) (read authz.Registration, ok bool) {
	read, wrong := readRegistration(r)
	if wrong == nil && read.EnrolmentToken != "" {
		wrong = &problem{http.StatusBadRequest, "an enrolment token and an access token: send one of them"}
	}
	if wrong != nil {
		s.reject(w, r, chain, audit.AgentRefuse, agentsResource, wrong)
	}
	return read, wrong == nil
}

// readObject reads the one JSON object that a body is.
func readObject(r *http.Request, limit int, said string) (v jcs.Value, _ *problem) {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return v, &problem{http.StatusUnsupportedMediaType, "the content type must be application/json"}
	}
	text, err := io.ReadAll(r.Body)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return v, &problem{http.StatusRequestEntityTooLarge, "the body is larger than " + said}
	case err != nil:
		return v, &problem{http.StatusBadRequest, "the body could not be read"}
	}
	v, err = jcs.Parse(text, jcs.Limits{Bytes: limit, Values: maxValues})
	if err != nil || v.Kind() != jcs.Object {
		return v, &problem{http.StatusBadRequest, "the body must be one JSON object without repeated members, of at most 32768 values"}
	}
	return v, nil
}

func (s *Server) listAgents(w http.ResponseWriter, r *http.Request, chain *delegation.Chain) {
	if !s.authorize(w, r, chain, audit.AgentRead, agentsResource, scopeAgents) {
		return
	}
	person, ok := s.person(w, r, chain, audit.AgentRefuse, agentsResource)
	if !ok {
		return
	}
	after, limit, wrong := agentsQuery(r.URL.RawQuery)
	if wrong != nil {
		s.reject(w, r, chain, audit.AgentRead, agentsResource, wrong)
		return
	}
	owner := person.ID
	if operates(person) {
		owner = "" // "agents:manage (everybody for own agents, operators for all)"
	}
	agents, err := s.cfg.Agents.Agents(r.Context(), owner, after, limit)
	if err != nil {
		s.broken(w, "listing agents", err)
		return
	}
	e := entry(chain, audit.AgentRead, audit.Allowed, agentsResource)
	e.Detail["agents"] = len(agents)
	if !s.record(w, r, e) {
		return
	}
	shown := []map[string]any{}
	for _, a := range agents {
		shown = append(shown, show(a))
	}
	content := map[string]any{"agents": shown}
	if len(agents) == limit {
		content["next"] = agents[limit-1].ID
	}
	answer(w, http.StatusOK, content)
}

func agentsQuery(raw string) (after string, limit int, _ *problem) {
	form, err := url.ParseQuery(raw)
	if err != nil {
		return "", 0, &problem{http.StatusBadRequest, "the query cannot be read"}
	}
	limit = agentsPage
	for name, values := range form {
		n, err := strconv.Atoi(values[0])
		switch {
		case len(values) != 1 || !plain(values[0], 64):
			return "", 0, &problem{http.StatusBadRequest, quoted(name) + " is repeated, empty or too long"}
		case name == "after":
			after = values[0]
		case name == "limit" && err == nil && n > 0:
			limit = min(n, agentsPageMost)
		default:
			return "", 0, &problem{http.StatusBadRequest, "the parameters are after and limit (1 to " + strconv.Itoa(agentsPageMost) + ")"}
		}
	}
	return after, limit, nil
}

func (s *Server) showAgent(w http.ResponseWriter, r *http.Request, chain *delegation.Chain) {
	a, ok := s.agentOf(w, r, chain, audit.AgentRead, scopeAgents)
	if !ok {
		return
	}
	e := entry(chain, audit.AgentRead, audit.Allowed, agentsResource)
	e.Detail["agent"] = a.ID
	if s.record(w, r, e) {
		answer(w, http.StatusOK, show(a))
	}
}

// agentOf is the agent that a path names, if whoever asks may know of it: an
// agent of the person behind the token, or any for an operator. Otherwise it
// has answered. action is that of the record of a refusal.
func (s *Server) agentOf(w http.ResponseWriter, r *http.Request, chain *delegation.Chain, action string, scopes ...string) (a authz.Agent, ok bool) {
	if !s.authorize(w, r, chain, action, agentsResource, scopes...) {
		return a, false
	}
	person, ok := s.person(w, r, chain, audit.AgentRefuse, agentsResource)
	if !ok {
		return a, false
	}
	a, err := s.cfg.Agents.FindAgent(r.Context(), person.ID, r.PathValue("id"))
	if err == nil && a.Owner != person.ID && !operates(person) {
		err = authz.ErrNotFound
	}
	if err == nil {
		return a, true
	}
	if !errors.Is(err, authz.ErrNotFound) {
		s.broken(w, "finding an agent", err)
		return a, false
	}
	e := entry(chain, action, audit.Denied, agentsResource)
	e.Reason = "not_found"
	if s.record(w, r, e) {
		fail(w, http.StatusNotFound, "not_found", "you have no such agent")
	}
	return a, false
}

func operates(person authz.Holder) bool { return person.Role == "operator" }

// show is an agent as the API shows it.
func show(a authz.Agent) map[string]any {
	return map[string]any{
		"id": a.ID, "name": a.Name, "owner": a.Owner, "status": string(a.Status), "scopes": append([]string{}, a.Scopes...),
		"version": a.Version, "purpose": a.Purpose, "capabilities": append([]string{}, a.Capabilities...), "max_depth": a.MaxDepth,
		"manifest_seq": a.ManifestSeq, "manifest_expires": a.ManifestExpires.UTC().Format(time.RFC3339),
		"created": a.Created.UTC().Format(time.RFC3339),
	}
}
