package authz

import (
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/templates"
)

// takeConsent takes the answer of the consent page. It stands behind
// people.Protect, and the transaction id is used up by it.
func (s *Server) takeConsent(w http.ResponseWriter, r *http.Request) {
	if !contentType(r, "application/x-www-form-urlencoded") {
		s.cfg.Pages.Render(w, http.StatusUnsupportedMediaType, templates.Error{Message: "This page takes forms only."})
		return
	}
	body, err := readBody(w, r)
	if err != nil {
		s.refusePage(w, r, Client{}, err)
		return
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || len(form["transaction"]) > 1 || len(form["decision"]) > 1 {
		s.refusePage(w, r, Client{}, badRequest("invalid_request", "the form is not well formed"))
		return
	}
	transaction := form.Get("transaction")
	p, v, ok := s.consentView(w, r, transaction)
	if !ok {
		return
	}
	if form.Get("person") != v.user.ID {
		// In another tab somebody else signed in: what one person was shown is
		// not approved by the other.
		s.cfg.Pages.Render(w, http.StatusForbidden, s.consentPage(v, transaction, "Somebody else signed in here meanwhile. Look again before you decide."))
		return
	}
	switch form.Get("decision") {
	case "approve":
		s.takeApproval(w, r, p, v, transaction, form["scope"])
	case "deny":
		s.takeDenial(w, r, p, v)
	default:
		s.cfg.Pages.Render(w, http.StatusBadRequest, s.consentPage(v, transaction, "Choose whether to approve or to deny."))
	}
}

// takeApproval approves what was ticked. A scope that the page did not offer
// is none of it, whatever the form says.
func (s *Server) takeApproval(w http.ResponseWriter, r *http.Request, p Pending, v *view, transaction string, ticked []string) {
	var approved []pair
	effects := []audit.Effect{s.cfg.Store.DecidePending(p.ID, s.cfg.Now())}
	again := v.req.prompts.consent
	if !again {
		approved = v.remembered()
	}
	for _, offered := range slices.Concat(v.asked, v.handOn) {
		switch {
		case slices.Contains(ticked, offered.scope):
			if !slices.Contains(approved, offered) {
				approved = append(approved, offered)
			}
		case again && v.memory[offered]:
			// It was shown again: what is not ticked now is not approved any more.
			effects = append(effects, s.cfg.Store.DropConsent(v.consent(offered, time.Time{})))
		}
	}
	scopes, resources := v.granted(approved)
	if _, ok := v.cat.TokenAlg(resources); len(scopes) > 0 && (!ok || len(resources) > maxAudiences) {
		s.cfg.Pages.Render(w, http.StatusBadRequest, s.consentPage(v, transaction,
			"That is more than one token can be for. Tick permissions of eight resources at most."))
		return
	}
	if !carries(scopes, resources) {
		s.cfg.Pages.Render(w, http.StatusBadRequest, s.consentPage(v, transaction,
			"That is more than one token has room for. Tick fewer permissions."))
		return
	}
	if len(scopes) == 0 {
		s.takeDenial(w, r, p, v)
		return
	}
	location, err := s.approve(r.Context(), v, approved, effects)
	if err != nil {
		s.refuseConsent(w, r, v, err)
		return
	}
	s.continueTo(w, v.req.client, location, false)
}

// takeDenial tells the client that the person said no.
func (s *Server) takeDenial(w http.ResponseWriter, r *http.Request, p Pending, v *view) {
	entry := s.consentEntry(v, audit.ConsentDeny, audit.Denied)
	entry.Reason = "access_denied"
	entry.Detail["scopes"] = v.req.ask.scopes
	err := s.cfg.Commit.Commit(r.Context(), audit.Change{
		Effects: []audit.Effect{s.cfg.Store.DecidePending(p.ID, s.cfg.Now())},
		Entries: []audit.Entry{entry},
	})
	if err != nil {
		s.refuseConsent(w, r, v, err)
		return
	}
	location := s.respond(v.req.redirect, v.req.state, v.req.stateSent,
		[2]string{"error", "access_denied"}, [2]string{"error_description", "the person denied the request"})
	s.continueTo(w, v.req.client, location, true)
}

// consentPage says who asks for what. Of a step-up it shows what is new.
func (s *Server) consentPage(v *view, transaction, problem string) templates.Consent {
	c := v.req.client
	page := templates.Consent{
		Transaction: transaction, User: v.user.Name, UserID: v.user.ID, Problem: problem,
		ClientName: c.Name, ClientID: c.ID,
		RedirectURI: v.req.redirect, RedirectHost: redirectHost(v.req.redirect), Loopback: onlyLoopback(c),
		AccessLifetime: s.cfg.AccessTTL,
	}
	if c.May(GrantRefresh) {
		page.GrantLifetime = s.cfg.RefreshMax
	}
	again := v.req.prompts.consent
	shown := slices.DeleteFunc(slices.Clone(v.asked), func(p pair) bool { return v.memory[p] && !again })
	page.Resources = v.group(shown, func(p pair) bool { return true })
	offered := slices.DeleteFunc(slices.Clone(v.handOn), func(p pair) bool { return v.memory[p] && !again })
	page.HandOn = v.group(offered, func(p pair) bool { return v.memory[p] })
	if !again {
		for _, p := range v.remembered() {
			scope := v.scope(p.scope, false)
			if !slices.Contains(page.Held, scope) {
				page.Held = append(page.Held, scope)
			}
		}
	}
	return page
}

// group orders permissions by resource. A scope that several of the resources
// share is one tick box.
func (v *view) group(pairs []pair, ticked func(pair) bool) []templates.ConsentResource {
	var out []templates.ConsentResource
	seen := map[string]bool{}
	for _, p := range pairs {
		if seen[p.scope] {
			continue
		}
		seen[p.scope] = true
		at := slices.IndexFunc(out, func(r templates.ConsentResource) bool { return r.Identifier == p.resource })
		if at < 0 {
			r, _ := v.cat.Resource(p.resource)
			out = append(out, templates.ConsentResource{Name: r.Name, Identifier: r.ID})
			at = len(out) - 1
		}
		out[at].Scopes = append(out[at].Scopes, v.scope(p.scope, ticked(p)))
	}
	return out
}

func (v *view) scope(name string, ticked bool) templates.ConsentScope {
	scope, _ := v.cat.Scope(name)
	return templates.ConsentScope{Name: name, Text: scope.Description, Sensitive: scope.Sensitive, Ticked: ticked}
}
