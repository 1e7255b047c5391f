package authz

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
	"github.com/kavach-dev/kavach/people"
	"github.com/kavach-dev/kavach/templates"
)

// pair is one permission: a scope at a resource.
type pair struct{ resource, scope string }

// view is an authorization request as one person sees it.
type view struct {
	req        request
	user       people.User
	cat        *Catalog
	registered string // the redirect URI as it is registered
	print      string // of the client as it is now
	asked      []pair // what the client asks for and the person holds
	handOn     []pair // what it may hand on besides, of other resources
	memory     map[pair]bool
}

// errDenied is what the client learns when the person says no, or has nothing
// to say yes to.
func errDenied(text string) *Error {
	return &Error{Status: http.StatusBadRequest, Code: "access_denied", Description: text}
}

// view works out what there is to approve: never more than the person holds
// now (authorization-server.md §4).
func (s *Server) view(ctx context.Context, req request, user people.User) (*view, error) {
	cat, err := s.cfg.Registry.Catalog(ctx, slices.Concat(req.ask.scopes, req.ask.resources)...)
	if err != nil {
		return nil, err
	}
	registered, _ := registeredRedirect(req.client, req.redirect) // it is one: trustRedirect, pending
	v := &view{
		req: req, user: user, cat: cat, memory: map[pair]bool{}, registered: registered, print: fingerprint(req.client),
	}
	holder := Holder{ID: user.ID, Role: user.Role, Active: !user.Disabled}
	held := cat.Held(holder, req.ask.scopes)
	for _, scope := range held {
		owners := intersect(cat.Owners(scope), req.ask.resources)
		if len(owners) == 0 { // asked for to be handed on
			owners = slices.DeleteFunc(cat.Owners(scope), func(r string) bool { return !v.alike(r) })
		}
		for _, r := range owners {
			v.asked = append(v.asked, pair{r, scope})
		}
	}
	if len(v.asked) == 0 {
		return nil, errDenied("the person holds none of the scopes")
	}
	if slices.Contains(held, ScopeDelegate) {
		v.handOn = v.offer(holder)
	}
	consents, err := s.cfg.Store.Consents(ctx, user.ID, req.client.ID, v.registered)
	if err != nil {
		return nil, err
	}
	for _, c := range consents {
		if c.Fingerprint == v.print {
			v.memory[pair{c.Resource, c.Scope}] = true
		}
	}
	return v, nil
}

// offer lists what of other kavach-aware resources the client may be allowed to
// hand on: the token carries all of it, so all is signed alike.
func (v *view) offer(holder Holder) []pair {
	var out []pair
	for _, r := range v.cat.Resources() {
		if r.BuiltIn || !r.Aware || !v.alike(r.ID) || slices.Contains(v.req.ask.resources, r.ID) {
			continue
		}
		for _, scope := range r.Scopes {
			p := pair{r.ID, scope.Name}
			if v.cat.holds(holder, scope.Name) && !slices.Contains(v.asked, p) {
				out = append(out, p)
			}
		}
	}
	return out
}

// alike reports whether a resource's tokens are signed like those that were
// asked for (delegation.md §3: "different ones → invalid_target").
func (v *view) alike(resource string) bool {
	_, ok := v.cat.TokenAlg(append(slices.Clone(v.req.ask.resources), resource))
	return ok
}

// fingerprint is of what a person approves when approving a client: if any of
// it changes, the person is asked again.
func fingerprint(c Client) string {
	redirects := slices.Clone(c.RedirectURIs)
	slices.Sort(redirects)
	fields := []any{c.Name, string(c.Method), redirects}
	if len(c.Keys) > 0 {
		fields = append(fields, keyThumbprints(c.Keys))
	}
	text, err := jcs.Marshal(fields)
	if err != nil {
		return "" // a name that is not UTF-8: fits no memory
	}
	sum := sha256.Sum256(text)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// keyThumbprints names a client's keys, sorted.
func keyThumbprints(keys []agent.PublicKey) []string {
	out := []string{}
	for _, k := range keys {
		out = append(out, k.Thumbprint())
	}
	slices.Sort(out)
	return out
}

// approved reports whether all that is asked was approved before.
func (v *view) approved() bool {
	for _, p := range v.asked {
		if !v.memory[p] {
			return false
		}
	}
	return true
}

// remembered is what was approved before, of what is asked or offered now: of
// the latter as much as one token can be for besides all that is asked.
func (v *view) remembered() []pair {
	var out []pair
	for _, p := range v.asked {
		if v.memory[p] {
			out = append(out, p)
		}
	}
	whole := slices.Clone(v.asked)
	for _, p := range v.handOn {
		if v.memory[p] && v.fits(append(slices.Clone(whole), p)) {
			whole, out = append(whole, p), append(out, p)
		}
	}
	return out
}

// fits reports whether one token can be for the permissions.
func (v *view) fits(approved []pair) bool {
	scopes, resources := v.granted(approved)
	_, ok := v.cat.TokenAlg(resources)
	return ok && len(resources) <= maxAudiences && carries(scopes, resources)
}

// approve issues the code for what was approved, and returns where the browser
// goes on to. effects are what the decision itself changes.
func (s *Server) approve(ctx context.Context, v *view, approved []pair, effects []audit.Effect) (string, error) {
	now := s.cfg.Now()
	scopes, resources := v.granted(approved)
	if len(scopes) == 0 {
		return "", errDenied("nothing was approved")
	}
	if !v.fits(approved) {
		return "", errTarget("these resources cannot stand in one token")
	}
	f := &flow{now: now, client: v.req.client, effects: effects, code: Code{
		GrantID: delegation.NewJTI(now), ClientID: v.req.client.ID, Sub: v.user.ID,
		RedirectURI: v.req.redirect, RedirectSent: v.req.redirectSent, Challenge: v.req.challenge, JKT: v.req.jkt,
		Scopes: scopes, Resources: resources, MaxDepth: delegation.DefaultMaxDepth,
		Created: now, Expires: now.Add(s.cfg.CodeTTL),
	}}
	code, err := s.provider.issueCode(ctx, f)
	if err != nil {
		return "", err
	}
	for _, p := range approved {
		f.effects = append(f.effects, s.cfg.Store.PutConsent(v.consent(p, now)))
	}
	f.effects = append(f.effects, s.cfg.Registry.UseClient(v.req.client.ID))
	entry := s.consentEntry(v, audit.ConsentGrant, audit.Allowed)
	entry.Grant = f.code.GrantID
	entry.Detail["scopes"], entry.Detail["audience"] = scopes, resources
	entry.Detail["remembered"] = !v.req.prompts.consent && !slices.ContainsFunc(approved, func(p pair) bool { return !v.memory[p] })
	err = s.cfg.Commit.Commit(ctx, audit.Change{Effects: f.effects, Entries: []audit.Entry{entry}})
	if err != nil {
		return "", err
	}
	return s.respond(v.req.redirect, v.req.state, v.req.stateSent, [2]string{"code", code}), nil
}

// consent is what is remembered of one permission.
func (v *view) consent(p pair, granted time.Time) Consent {
	return Consent{
		Sub: v.user.ID, ClientID: v.req.client.ID, RedirectURI: v.registered,
		Resource: p.resource, Scope: p.scope, Fingerprint: v.print, Granted: granted,
	}
}

// granted is what a token of the approved permissions carries. What was only
// to be handed on falls away with the right to hand on.
func (v *view) granted(approved []pair) (scopes, resources []string) {
	handsOn := slices.ContainsFunc(approved, func(p pair) bool { return p.scope == ScopeDelegate })
	for _, p := range approved {
		if !handsOn && !slices.Contains(v.req.ask.resources, p.resource) {
			continue
		}
		scopes, resources = append(scopes, p.scope), append(resources, p.resource)
	}
	slices.Sort(scopes)
	slices.Sort(resources)
	return slices.Compact(scopes), slices.Compact(resources)
}

func (s *Server) consentEntry(v *view, action, result string) audit.Entry {
	return audit.Entry{
		Action: action, Result: result, Agent: "user:" + v.user.ID, Sub: v.user.ID,
		Path: path(v.user.ID, v.req.client.ID),
		Detail: map[string]any{
			"client": v.req.client.ID, "redirect_host": redirectHost(v.req.redirect),
		},
	}
}

// serveConsent shows the consent page, and takes its answer.
func (s *Server) serveConsent(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet:
		s.showConsent(w, r)
	case http.MethodPost:
		s.takeConsent(w, r)
	default:
		w.Header().Set("Allow", "GET, POST")
		s.cfg.Pages.Render(w, http.StatusMethodNotAllowed, templates.Error{})
	}
}

// errTransaction: a consent form that was not made for this browser, or has
// been answered. One answer for all: which it was is nobody's business.
var errTransaction = pageError{
	answer: &Error{Status: http.StatusForbidden, Code: "access_denied", Description: "this page has been answered, has expired, or belongs to another browser"},
	title:  "This page cannot be used any more",
	hint:   "Go back to the app and connect it again.",
}

// pending finds the open request that a page belongs to, in this browser.
func (s *Server) pending(w http.ResponseWriter, r *http.Request, transaction string) (Pending, request, error) {
	if transaction == "" {
		return Pending{}, request{}, errTransaction
	}
	browser, err := s.cfg.People.Browser(w, r)
	if err != nil {
		return Pending{}, request{}, err
	}
	p, err := s.cfg.Store.Pending(r.Context(), HashSecret(transaction))
	if errors.Is(err, ErrNotFound) {
		return Pending{}, request{}, errTransaction
	}
	if err != nil {
		return Pending{}, request{}, err
	}
	if p.Browser != HashSecret(browser) || !p.Decided.IsZero() || !s.cfg.Now().Before(p.Expires) {
		return Pending{}, request{}, errTransaction
	}
	client, err := s.cfg.Registry.Client(r.Context(), p.ClientID)
	// The server's own record wins over what a form says, and a client that
	// was removed or changed meanwhile over the record.
	if errors.Is(err, ErrNotFound) || err == nil && (client.Disabled || !MatchRedirect(client, p.RedirectURI)) {
		return Pending{}, request{}, errTransaction
	}
	if err != nil {
		return Pending{}, request{}, err
	}
	return p, request{
		client: client, redirect: p.RedirectURI, redirectSent: p.RedirectSent,
		state: p.State, stateSent: p.StateSent, challenge: p.Challenge, jkt: p.JKT, hint: p.LoginHint,
		ask:     ask{p.Scopes, p.Resources},
		prompts: prompts{login: strings.Contains(p.Prompt, "login"), consent: strings.Contains(p.Prompt, "consent")},
	}, nil
}

// consentView finds pending request, person and view; if it cannot, it has
// answered: with the login page if that is what is missing.
func (s *Server) consentView(w http.ResponseWriter, r *http.Request, transaction string) (Pending, *view, bool) {
	p, req, err := s.pending(w, r, transaction)
	if err != nil {
		s.refusePage(w, r, req.client, err)
		return p, nil, false
	}
	back := "/consent?transaction=" + transaction
	session, err := s.cfg.People.Current(r)
	switch {
	case errors.Is(err, people.ErrSignedOut):
		s.cfg.Pages.SeeOther(w, people.LoginURL(back, req.hint))
		return p, nil, false
	case err != nil:
		s.refusePage(w, r, req.client, err)
		return p, nil, false
	case req.prompts.login && session.Since.Before(p.Created):
		s.cfg.Pages.SeeOther(w, people.ReauthURL(back, req.hint))
		return p, nil, false
	}
	v, err := s.view(r.Context(), req, session.User)
	if err != nil {
		s.refuseRequest(w, r, req, session.User.ID, err)
		return p, nil, false
	}
	return p, v, true
}

// showConsent shows what there is to approve, or goes on if there is nothing.
func (s *Server) showConsent(w http.ResponseWriter, r *http.Request) {
	transaction := r.URL.Query().Get("transaction")
	p, v, ok := s.consentView(w, r, transaction)
	if !ok {
		return
	}
	if v.approved() && !v.req.prompts.consent {
		location, err := s.approve(r.Context(), v, v.remembered(), []audit.Effect{s.cfg.Store.DecidePending(p.ID, s.cfg.Now())})
		if err != nil {
			s.refuseConsent(w, r, v, err)
			return
		}
		s.cfg.Pages.SeeOther(w, location)
		return
	}
	s.cfg.Pages.Render(w, http.StatusOK, s.consentPage(v, transaction, ""))
}

// refuseConsent answers a decision that could not be carried out.
func (s *Server) refuseConsent(w http.ResponseWriter, r *http.Request, v *view, err error) {
	if errors.Is(err, audit.ErrConflict) {
		err = errTransaction // decided twice: the first one stands
	}
	s.refusePage(w, r, v.req.client, err)
}
