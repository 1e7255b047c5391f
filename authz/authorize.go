package authz

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/people"
	"github.com/kavach-dev/kavach/templates"
)

// maxParameter bounds one parameter of an authorization request.
const maxParameter = 4096

// request is an authorization request as far as the pre-filter has understood
// it: client and redirect URI are valid before anything may be sent there.
type request struct {
	client       Client
	redirect     string
	redirectSent bool
	state        string
	stateSent    bool
	challenge    string
	jkt          string // the key the code shall be bound to
	ask          ask
	prompts      prompts
	hint         string
}

// prompts are the OpenID Connect prompt values that we know; others are
// ignored, and select_account means login.
type prompts struct{ none, login, consent bool }

// pageError is what a person is told who cannot be sent back to the client.
type pageError struct {
	answer      *Error
	title, hint string
}

// Error returns that of the answer.
func (e pageError) Error() string { return e.answer.Error() }

// Unwrap returns the answer.
func (e pageError) Unwrap() error { return e.answer }

// serveAuthorize answers the authorization endpoint (RFC 6749 section 3.1).
func (s *Server) serveAuthorize(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet { // a HEAD must not make a code
		w.Header().Set("Allow", "GET")
		s.cfg.Pages.Render(w, http.StatusMethodNotAllowed, templates.Error{})
		return
	}
	ctx := r.Context()
	form, repeated, err := authorizeForm(r.URL.RawQuery)
	if err != nil {
		s.refusePage(w, r, Client{}, err)
		return
	}
	req, err := s.trustRedirect(ctx, form)
	if err != nil {
		s.refusePage(w, r, req.client, err)
		return
	}
	session, err := s.cfg.People.Current(r)
	signedIn := err == nil
	if err != nil && !errors.Is(err, people.ErrSignedOut) {
		s.refusePage(w, r, req.client, err)
		return
	}
	if err := s.understand(ctx, &req, form, repeated); err != nil {
		s.refuseRequest(w, r, req, session.User.ID, err)
		return
	}
	switch {
	case !signedIn && req.prompts.none:
		s.refuseRequest(w, r, req, "", badRequest("login_required", "nobody is signed in"))
	case !signedIn || req.prompts.login:
		s.wait(w, r, req)
	default:
		s.decide(w, r, req, session)
	}
}

// authorizeForm reads the query. repeated says that a parameter other than
// resource came twice: which one was meant, nobody knows.
func authorizeForm(query string) (form url.Values, repeated bool, err error) {
	form, err = url.ParseQuery(query)
	if err != nil {
		return nil, false, badRequest("invalid_request", "the address is not well formed")
	}
	for name, values := range form {
		for _, v := range values {
			if len(v) > maxParameter || !utf8.ValidString(v) || strings.ContainsRune(v, 0) {
				return nil, false, badRequest("invalid_request", "a parameter is too long or not text")
			}
		}
		if len(values) > 1 && name != "resource" {
			if name == "client_id" || name == "redirect_uri" {
				return nil, false, badRequest("invalid_request", name+" was sent twice")
			}
			repeated = true
		}
	}
	return form, repeated, nil
}

// trustRedirect finds client and redirect URI. Until both are valid, errors go
// to the person and nobody is redirected (RFC 6749 section 4.1.2.1).
func (s *Server) trustRedirect(ctx context.Context, form url.Values) (request, error) {
	req := request{redirect: form.Get("redirect_uri")}
	if len(form["state"]) == 1 {
		req.state = form.Get("state")
	}
	// RFC 6749 section 3.1: "Parameters sent without a value MUST be treated
	// as if they were omitted".
	req.redirectSent, req.stateSent = req.redirect != "", req.state != ""
	id := form.Get("client_id")
	if id == "" {
		return req, badRequest("invalid_request", "client_id is missing")
	}
	client, err := s.cfg.Registry.Client(ctx, id)
	if errors.Is(err, ErrNotFound) || err == nil && client.Disabled {
		return req, pageError{
			answer: badRequest("invalid_client", "this server does not know the app that sent you here"),
			title:  "Unknown app",
			hint:   "It may have been removed. Remove this server in the app, add it again, and the app will register itself anew.",
		}
	}
	if err != nil {
		return req, err
	}
	req.client = client
	switch {
	case !req.redirectSent && len(client.RedirectURIs) == 1:
		req.redirect = client.RedirectURIs[0]
	case !req.redirectSent:
		return req, badRequest("invalid_request", "redirect_uri is missing")
	case !MatchRedirect(client, req.redirect):
		return req, pageError{
			answer: badRequest("invalid_request", "the address the app wants you sent back to is not one it registered"),
			title:  "Wrong return address",
			hint:   "If you followed a link from somebody, do not trust it. If it was the app itself, tell its maker.",
		}
	}
	return req, nil
}

// understand checks the rest. Its errors may go to the redirect URI.
func (s *Server) understand(ctx context.Context, req *request, form url.Values, repeated bool) error {
	switch {
	case repeated:
		return badRequest("invalid_request", "a parameter was sent twice")
	case form.Get("request") != "":
		return badRequest("request_not_supported", "request objects are not served")
	case form.Get("request_uri") != "":
		return badRequest("request_uri_not_supported", "request objects are not served")
	case form.Get("authorization_details") != "":
		// To leave it out would hand out more than was asked for.
		return errDetails("authorization_details restrict a token exchange; here ask for scopes and resources")
	case form.Get("registration") != "":
		return badRequest("registration_not_supported", "register at the registration endpoint")
	case !req.client.May(GrantCode):
		return badRequest("unauthorized_client", "the client is not registered for authorization_code")
	case form.Get("response_type") != "code":
		return badRequest("unsupported_response_type", "only response_type code is served")
	case form.Get("response_mode") != "" && form.Get("response_mode") != "query":
		return badRequest("invalid_request", "only response_mode query is served")
	case form.Get("code_challenge") == "":
		return badRequest("invalid_request", "code_challenge is missing: PKCE is required")
	case form.Get("code_challenge_method") != "S256":
		// RFC 7636 section 4.3: no method means plain.
		return badRequest("invalid_request", "code_challenge_method must be S256")
	case !isSHA256(form.Get("code_challenge")):
		return badRequest("invalid_request", "code_challenge must be 43 base64url characters")
	case form.Get("dpop_jkt") != "" && !isSHA256(form.Get("dpop_jkt")):
		return badRequest("invalid_request", "dpop_jkt must be the SHA-256 thumbprint of a key")
	}
	req.challenge, req.hint, req.jkt = form.Get("code_challenge"), form.Get("login_hint"), form.Get("dpop_jkt")
	if len(req.hint) > 256 {
		req.hint = ""
	}
	for _, p := range strings.Fields(form.Get("prompt")) {
		switch p {
		case "none":
			req.prompts.none = true
		case "login", "select_account":
			req.prompts.login = true
		case "consent":
			req.prompts.consent = true
		}
	}
	if req.prompts.none && (req.prompts.login || req.prompts.consent) {
		req.prompts = prompts{} // it asked for nothing that has a meaning
		return badRequest("invalid_request", "prompt none goes with no other")
	}
	resources := slices.DeleteFunc(slices.Clone(form["resource"]), func(r string) bool { return r == "" })
	cat, err := s.cfg.Registry.Catalog(ctx, slices.Concat(splitScope(form.Get("scope")), resources)...)
	if err != nil {
		return err
	}
	what, refused := resolveAsk(cat, form.Get("scope"), resources)
	if refused != nil {
		return refused
	}
	req.ask = what
	return nil
}

// isSHA256: a SHA-256 of anything is exactly 43 base64url characters.
func isSHA256(text string) bool {
	if len(text) != 43 {
		return false
	}
	for i := range len(text) {
		c := text[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// wait keeps the request for after the login.
func (s *Server) wait(w http.ResponseWriter, r *http.Request, req request) {
	transaction, err := s.remember(w, r, req)
	if err != nil {
		s.refusePage(w, r, req.client, err)
		return
	}
	back := "/consent?transaction=" + transaction
	if req.prompts.login {
		s.cfg.Pages.SeeOther(w, people.ReauthURL(back, req.hint))
		return
	}
	s.cfg.Pages.SeeOther(w, people.LoginURL(back, req.hint))
}

// remember makes the pending row and returns the transaction id that pages
// carry; only its hash is stored, and only this browser can use it.
func (s *Server) remember(w http.ResponseWriter, r *http.Request, req request) (string, error) {
	now := s.cfg.Now()
	if _, wait, ok := s.waiting.take(s.source(r), now); !ok {
		return "", &Error{
			Status: http.StatusTooManyRequests, Code: "temporarily_unavailable",
			Description: "too many requests come from this address", RetryAfter: wait,
		}
	}
	browser, err := s.cfg.People.Browser(w, r)
	if err != nil {
		return "", err
	}
	transaction := randomID(32)
	p := Pending{
		ID: HashSecret(transaction), Browser: HashSecret(browser),
		ClientID: req.client.ID, RedirectURI: req.redirect, RedirectSent: req.redirectSent,
		State: req.state, StateSent: req.stateSent, Challenge: req.challenge, JKT: req.jkt,
		Scopes: req.ask.scopes, Resources: req.ask.resources, LoginHint: req.hint,
		Created: now, Expires: now.Add(pendingTTL),
	}
	switch {
	case req.prompts.login && req.prompts.consent:
		p.Prompt = "login consent"
	case req.prompts.login:
		p.Prompt = "login"
	case req.prompts.consent:
		p.Prompt = "consent"
	}
	err = s.cfg.Commit.Commit(r.Context(), audit.Change{Effects: []audit.Effect{s.cfg.Store.AddPending(p)}})
	return transaction, err
}

// decide goes on with a request of somebody who is signed in: what was approved
// before needs no page.
func (s *Server) decide(w http.ResponseWriter, r *http.Request, req request, session people.Session) {
	ctx := r.Context()
	v, err := s.view(ctx, req, session.User)
	switch {
	case err != nil:
		s.refuseRequest(w, r, req, session.User.ID, err)
	case v.approved() && !req.prompts.consent:
		location, err := s.approve(ctx, v, v.remembered(), nil)
		if err != nil {
			s.refuseRequest(w, r, req, session.User.ID, err)
			return
		}
		s.cfg.Pages.SeeOther(w, location)
	case req.prompts.none:
		s.refuseRequest(w, r, req, session.User.ID, badRequest("consent_required", "the person has not approved this"))
	default:
		transaction, err := s.remember(w, r, req)
		if err != nil {
			s.refusePage(w, r, req.client, err)
			return
		}
		s.cfg.Pages.SeeOther(w, "/consent?transaction="+transaction)
	}
}
