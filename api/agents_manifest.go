package api

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/authz"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

const (
	scopeDelegate     = "kavach:delegate"
	manifestsPage     = 50
	manifestsPageMost = 200
)

// answerAgent shows an agent whose manifest was just taken or shown, together
// with the manifest, countersigned: what it can show to others.
func (s *Server) answerAgent(w http.ResponseWriter, r *http.Request, status int, a authz.Agent) {
	content := show(a)
	signed, err := s.cfg.Agents.Countersigned(r.Context(), a.ID)
	switch {
	case err == nil:
		content["manifest"] = signed
	case !errors.Is(err, authz.ErrNotFound):
		// What was asked for is done; the manifest can be had again.
		s.cfg.Log.Error("countersigning a manifest", "err", err)
	}
	answer(w, status, content)
}

// updateAgent takes the next manifest of an agent. With an access token it comes
// from the owner; without, from the agent itself, by its assertion, and for a
// key change with the enrolment token that its owner gave it.
func (s *Server) updateAgent(w http.ResponseWriter, r *http.Request) {
	if len(r.Header.Values("Authorization")) > 0 || r.ContentLength == 0 {
		s.guarded(s.updateOwned).ServeHTTP(w, r)
		return
	}
	body, wrong := readRegistration(r)
	if wrong != nil {
		s.reject(w, r, nil, audit.AgentRefuse, agentsResource, wrong)
		return
	}
	s.update(w, r, authz.ManifestUpdate{
		Agent: r.PathValue("id"), Manifest: body.Manifest, Assertion: body.Assertion,
		EnrolmentToken: body.EnrolmentToken, Source: s.source(r),
	})
}

func (s *Server) updateOwned(w http.ResponseWriter, r *http.Request, chain *delegation.Chain) {
	a, ok := s.agentOf(w, r, chain, audit.AgentRefuse, scopeAgents)
	if !ok || !s.inPerson(w, r, chain, a, audit.AgentRefuse) {
		return
	}
	body, ok := s.readOwned(w, r, chain)
	if !ok {
		return
	}
	s.update(w, r, authz.ManifestUpdate{
		Agent: a.ID, Manifest: body.Manifest, Assertion: body.Assertion, Owner: true, By: actor(chain), Source: s.source(r),
	})
}

func (s *Server) update(w http.ResponseWriter, r *http.Request, u authz.ManifestUpdate) {
	a, err := s.cfg.Agents.Update(r.Context(), u)
	if err != nil {
		s.refuseAgent(w, "updating an agent", err)
		return
	}
	s.answerAgent(w, r, http.StatusOK, a)
}

// actor is who acts with a chain, as records name it.
func actor(chain *delegation.Chain) authz.Actor {
	return authz.Actor{Agent: chain.Agent(), Sub: chain.Principal(), Via: "api"}
}

// inPerson wants what only the owner can decide to come from a person: the
// token's principal is no agent, and the agent it is about has no part in it.
// An agent with the scope may not give itself another key.
func (s *Server) inPerson(w http.ResponseWriter, r *http.Request, chain *delegation.Chain, about authz.Agent, action string) bool {
	if !agent.IsID(chain.Principal()) && !slices.Contains(chain.Path(), about.ID) {
		return true
	}
	e := entry(chain, action, audit.Denied, about.ID)
	e.Reason = "owner_needed"
	if s.record(w, r, e) {
		fail(w, http.StatusForbidden, "access_denied", "this takes a token of a person, and one that the agent itself has no part in")
	}
	return false
}

// listManifests shows the history of an agent, which joined by "~" verifies
// standing alone, and the current manifest countersigned. A delegator needs it
// of those it hands on to.
func (s *Server) listManifests(w http.ResponseWriter, r *http.Request, chain *delegation.Chain) {
	a, ok := s.agentOf(w, r, chain, audit.AgentRead, scopeAgents, scopeDelegate)
	if !ok {
		return
	}
	after, limit, wrong := manifestsQuery(r)
	if wrong != nil {
		s.reject(w, r, chain, audit.AgentRead, agentsResource, wrong)
		return
	}
	list, err := s.cfg.Agents.Manifests(r.Context(), a.ID, after, limit)
	if err != nil {
		s.broken(w, "listing manifests", err)
		return
	}
	signed, err := s.cfg.Agents.Countersigned(r.Context(), a.ID)
	if err != nil && !errors.Is(err, authz.ErrNotFound) {
		s.broken(w, "countersigning a manifest", err)
		return
	}
	e := entry(chain, audit.AgentRead, audit.Allowed, agentsResource)
	e.Detail["agent"], e.Detail["seq"] = a.ID, a.ManifestSeq
	if !s.record(w, r, e) {
		return
	}
	shown := []map[string]any{}
	for _, m := range list {
		shown = append(shown, map[string]any{"seq": m.Seq, "manifest": m.Token, "added": m.Added.UTC().Format(time.RFC3339)})
	}
	content := map[string]any{"id": a.ID, "status": string(a.Status), "seq": a.ManifestSeq, "manifests": shown}
	if signed != "" {
		content["countersigned"] = signed
	}
	if len(list) == limit && list[limit-1].Seq < a.ManifestSeq {
		content["next"] = list[limit-1].Seq
	}
	answer(w, http.StatusOK, content)
}

func manifestsQuery(r *http.Request) (after int64, limit int, _ *problem) {
	limit = manifestsPage
	query := r.URL.Query()
	for name, values := range query {
		n, err := strconv.ParseInt(values[0], 10, 53)
		switch {
		case len(values) != 1 || err != nil || n < 0:
			return 0, 0, &problem{http.StatusBadRequest, quoted(name) + " is repeated, or no number"}
		case name == "after":
			after = n
		case name == "limit" && n > 0:
			limit = int(min(n, manifestsPageMost))
		default:
			return 0, 0, &problem{http.StatusBadRequest, "the parameters are after and limit (1 to " + strconv.Itoa(manifestsPageMost) + ")"}
		}
	}
	return after, limit, nil
}

// suspendAgent narrows: whoever may manage the agent may stop it.
func (s *Server) suspendAgent(w http.ResponseWriter, r *http.Request, chain *delegation.Chain) {
	a, ok := s.agentOf(w, r, chain, audit.AgentSuspend, scopeAgents)
	if !ok {
		return
	}
	why, wrong := readWhy(r)
	if wrong != nil {
		s.reject(w, r, chain, audit.AgentSuspend, agentsResource, wrong)
		return
	}
	recorded, err := s.cfg.Agents.Suspend(r.Context(), actor(chain), a.ID, why)
	if err != nil {
		s.refuseAgent(w, "suspending an agent", err)
		return
	}
	content := map[string]any{"id": a.ID, "status": string(authz.AgentSuspended)}
	if !recorded {
		content["recorded"] = false // design D3
	}
	answer(w, http.StatusOK, content)
}

// readWhy reads the body of a suspension: nothing, or {"why": text}.
func readWhy(r *http.Request) (why string, _ *problem) {
	if r.ContentLength == 0 {
		return "", nil
	}
	v, wrong := readObject(r, maxBody, "64 KiB")
	if wrong != nil {
		return "", wrong
	}
	text := v.Get("why")
	if v.Len() != 1 || text.Kind() != jcs.String || !plain(text.Str(), 256) {
		return "", &problem{http.StatusBadRequest, "the one member is why, a text of 1 to 256 bytes"}
	}
	return text.Str(), nil
}

// resumeAgent widens: it takes the owner, or an operator, in person.
func (s *Server) resumeAgent(w http.ResponseWriter, r *http.Request, chain *delegation.Chain) {
	a, ok := s.agentOf(w, r, chain, audit.AgentResume, scopeAgents)
	if !ok || !s.inPerson(w, r, chain, a, audit.AgentResume) {
		return
	}
	if body, err := io.ReadAll(io.LimitReader(r.Body, 1)); err != nil || strings.TrimSpace(string(body)) != "" {
		s.reject(w, r, chain, audit.AgentResume, agentsResource, &problem{http.StatusBadRequest, "this takes no body"})
		return
	}
	if err := s.cfg.Agents.Resume(r.Context(), actor(chain), a.ID); err != nil {
		s.refuseAgent(w, "resuming an agent", err)
		return
	}
	answer(w, http.StatusOK, map[string]any{"id": a.ID, "status": string(authz.AgentActive)})
}
