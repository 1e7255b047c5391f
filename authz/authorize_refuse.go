package authz

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/people"
	"github.com/kavach-dev/kavach/templates"
)

// respond is where a response of the authorization endpoint goes: every one
// carries exactly one `iss`, byte-equal to the metadata (RFC 9207), and the
// state if one was sent.
func (s *Server) respond(redirect, state string, stateSent bool, pairs ...[2]string) string {
	if stateSent {
		pairs = append(pairs, [2]string{"state", state})
	}
	return redirectTo(redirect, append(pairs, [2]string{"iss", s.cfg.Issuer})...)
}

// refuseRequest answers an error of a request whose redirect URI is valid.
//
// RFC 9700 section 4.11.2: an authorization server must not be used to send
// people anywhere without their doing. Anybody can register a client, so to
// those the browser goes on its own only if somebody is signed in; otherwise
// the person signs in first. An error of prompt=none needs more: the person has
// approved the client before (authorization-server.md §4).
func (s *Server) refuseRequest(w http.ResponseWriter, r *http.Request, req request, sub string, err error) {
	answer := oauthError(err)
	if answer.Status >= http.StatusInternalServerError {
		s.refusePage(w, r, req.client, err)
		return
	}
	trusted := req.client.Kind == KindStatic || sub != "" && !req.prompts.none
	if !trusted && sub != "" {
		registered, _ := registeredRedirect(req.client, req.redirect)
		consents, err := s.cfg.Store.Consents(r.Context(), sub, req.client.ID, registered)
		if err != nil {
			s.refusePage(w, r, req.client, err)
			return
		}
		trusted = len(consents) > 0
	}
	if !trusted && sub == "" && !req.prompts.none {
		s.cfg.Pages.SeeOther(w, people.LoginURL("/oauth/authorize?"+r.URL.RawQuery, ""))
		return
	}
	if !s.recordRefusal(w, r, req.client, sub, answer) {
		return
	}
	if !trusted {
		s.cfg.Pages.Render(w, http.StatusBadRequest, templates.Error{
			Title: "This app cannot be connected", Message: sentence(answer.Description), Code: answer.Code,
			Hint: "Go back to the app and try again.",
		})
		return
	}
	location := s.respond(req.redirect, req.state, req.stateSent,
		[2]string{"error", answer.Code}, [2]string{"error_description", describe(answer.Description)})
	if r.Method == http.MethodPost {
		s.continueTo(w, req.client, location, true)
		return
	}
	s.cfg.Pages.SeeOther(w, location)
}

// refusePage tells the person what is wrong, without a way to the client.
func (s *Server) refusePage(w http.ResponseWriter, r *http.Request, client Client, err error) {
	answer := oauthError(err)
	if answer.Status >= http.StatusInternalServerError {
		s.unavailable(r.Context(), "authorization request", err)
		s.cfg.Pages.Render(w, answer.Status, templates.Error{Code: answer.Code, Retry: time.Duration(answer.RetryAfter) * time.Second})
		return
	}
	if !s.recordRefusal(w, r, client, "", answer) {
		return
	}
	page := templates.Error{
		Title: "This link cannot be used", Message: sentence(answer.Description), Code: answer.Code,
		Hint: "Go back to the app and try again.", Retry: time.Duration(answer.RetryAfter) * time.Second,
	}
	if answer.Status == http.StatusTooManyRequests {
		w.Header().Set("RateLimit", fmt.Sprintf(`"authorize";r=0;t=%d`, answer.RetryAfter))
	}
	var more pageError
	if errors.As(err, &more) {
		page.Title, page.Hint = more.title, more.hint
	}
	s.cfg.Pages.Render(w, answer.Status, page)
}

// recordRefusal records that an authorization was refused: whole and awaited if
// somebody is signed in. It reports whether the answer may leave; if not it
// has answered.
func (s *Server) recordRefusal(w http.ResponseWriter, r *http.Request, client Client, sub string, answer *Error) bool {
	entry := audit.Entry{
		Action: audit.AuthorizeRefuse, Result: audit.Denied, Reason: answer.Code, Sub: sub,
		Detail: map[string]any{},
	}
	if client.ID != "" {
		entry.Detail["client"] = client.ID
	}
	if sub == "" {
		s.cfg.Refusals.Refuse(s.source(r), "/oauth/authorize", entry)
		return true
	}
	entry.Agent = "user:" + sub
	if err := s.cfg.Commit.Commit(r.Context(), audit.Change{Entries: []audit.Entry{entry}}); err != nil {
		s.refusePage(w, r, client, err)
		return false
	}
	return true
}

// sentence makes a description of ours fit for a page.
func sentence(text string) string {
	if text == "" {
		return ""
	}
	if c := text[0]; c >= 'a' && c <= 'z' {
		text = string(c-'a'+'A') + text[1:]
	}
	return text + "."
}

// continueTo answers a consent POST: a page that navigates, because
// `form-action 'self'` also governs where a form's redirects may go.
func (s *Server) continueTo(w http.ResponseWriter, client Client, location string, denied bool) {
	host := ""
	if u, err := url.Parse(location); err == nil {
		host = redirectHost(u.String())
	}
	s.cfg.Pages.Render(w, http.StatusOK, templates.Continue{URL: location, ClientName: client.Name, Host: host, Denied: denied})
}
