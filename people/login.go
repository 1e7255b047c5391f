package people

import (
	"errors"
	"net/http"
	"net/url"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/templates"
)

// LoginURL is the local address that signs a person in and then goes on to a
// local path; hint ("" for none) fills the name field. Whoever is signed in
// already goes on at once.
func LoginURL(returnTo, hint string) string { return loginURL(returnTo, hint, "") }

// ReauthURL is LoginURL for prompt=login: it asks whoever is signed in for the
// password again. Compare [Session.Since] to know that it was given.
func ReauthURL(returnTo, hint string) string { return loginURL(returnTo, hint, "1") }

func loginURL(returnTo, hint, again string) string {
	q := url.Values{}
	for name, value := range map[string]string{"return": returnTo, "login_hint": hint, "again": again} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if len(q) == 0 {
		return "/login"
	}
	return "/login?" + q.Encode()
}

// onward is where a login goes on to.
func onward(returnTo string) string {
	if localPath(returnTo) {
		return returnTo
	}
	return "/account"
}

func (s *Server) showLogin(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	page := templates.Login{Name: q.Get("login_hint"), Dev: s.dev}
	if localPath(q.Get("return")) {
		page.Return = q.Get("return")
	}
	if len(page.Name) > 256 {
		page.Name = ""
	}
	if q.Get("again") == "" {
		_, err := s.Current(r)
		if err == nil {
			s.pages.SeeOther(w, onward(page.Return))
			return
		}
		if !errors.Is(err, ErrSignedOut) {
			s.fail(w, r, err)
			return
		}
	}
	some, err := s.store.HasUsers(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if !some {
		s.pages.SeeOther(w, "/setup")
		return
	}
	s.pages.Render(w, http.StatusOK, page)
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	if !s.form(w, r) {
		return
	}
	ctx, typed, password := r.Context(), fold(r.PostForm.Get("username")), Secret(r.PostForm.Get("password"))
	var user User
	var phc PHC
	if name, err := CanonicalName(typed); err == nil { // what cannot be a name is nobody's
		if user, phc, err = s.store.UserByName(ctx, name); err != nil && !errors.Is(err, ErrNotFound) {
			s.fail(w, r, err)
			return
		}
	}

	tries := s.tries(r, typed, user)
	if err := tries.waiting(ctx); err != nil {
		s.refuseLogin(r, typed, user, "throttled")
		s.fail(w, r, err)
		return
	}
	// The slot first: who is turned away for want of one has not tried.
	done, err := s.hasher.take(ctx)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer done()
	if err := tries.count(ctx); err != nil {
		if errors.As(err, &tooManyError{}) {
			s.refuseLogin(r, typed, user, "throttled")
		}
		s.fail(w, r, err)
		return
	}
	// The same work for a name that nobody has.
	right := s.hasher.matches(phc, password)
	switch {
	case !right:
		s.refuseLogin(r, typed, user, "bad_credentials")
	case user.Disabled:
		s.refuseLogin(r, typed, user, "disabled")
	default:
		session, effects, keep := s.begin(w, r, user, phc)
		err := s.log.Commit(ctx, audit.Change{
			Effects: append(effects, tries.undo()...),
			Entries: []audit.Entry{s.personal(r, user, audit.Login, session.ID)},
			Else:    &audit.Change{Entries: []audit.Entry{s.failure(r, typed, user, "changed_meanwhile")}},
		})
		if err == nil {
			err = keep()
		}
		if err == nil {
			s.pages.SeeOther(w, onward(r.PostForm.Get("return")))
			return
		}
		if !errors.Is(err, audit.ErrConflict) {
			// Nobody is kept out afterwards because the log could not be written.
			_ = s.log.Commit(ctx, audit.Change{Effects: tries.undo()})
			s.fail(w, r, err)
			return
		}
	}
	page := templates.Login{Name: r.PostForm.Get("username"), Problem: "Name or password is not right.", Dev: s.dev}
	if localPath(r.PostForm.Get("return")) {
		page.Return = r.PostForm.Get("return")
	}
	if len(page.Name) > 256 {
		page.Name = ""
	}
	s.pages.Render(w, http.StatusForbidden, page)
}

// tries is what an attempt to sign in counts at: the address, and the account
// from everywhere, or, in a browser that signed in to it before, the account
// in that browser: whoever guesses from elsewhere cannot keep its owner out.
func (s *Server) tries(r *http.Request, typed string, user User) *counted {
	c := &counted{s: s}
	cookie := s.cookies.get(r)
	browser, _ := cookie.Values[cookieBrowser].(string)
	if known, _ := cookie.Values[cookieKnown].(string); knows(cookie, user.ID) {
		// The browser id goes when a person signs out, the list stays with it.
		c.add(accountLimit, "browser "+browser+" "+known+" "+user.ID)
	} else {
		c.add(accountLimit, "account "+typed)
	}
	c.add(addressLimit, "address "+place(s.address(r)))
	return c
}

// personal is the record of what a person did to the own account or session.
func (s *Server) personal(r *http.Request, u User, action, resource string) audit.Entry {
	return audit.Entry{
		Agent: "user:" + u.ID, Sub: u.ID, Action: action, Resource: resource, Result: audit.Allowed,
		Detail: map[string]any{"net": network(s.address(r)), "browser": device(r.UserAgent())},
	}
}

// failure is the record of a login that failed: "the account id or the HMAC of
// what was typed" — which may be a password in the wrong field.
func (s *Server) failure(r *http.Request, typed string, user User, reason string) audit.Entry {
	e := audit.Entry{
		Action: audit.LoginFail, Resource: user.ID, Result: audit.Denied, Reason: reason,
		Detail: map[string]any{"net": network(s.address(r)), "browser": device(r.UserAgent())},
	}
	if user.ID == "" {
		e.Detail["typed"] = sum(s.cookies.jar().typed, typed)
	}
	return e
}

func (s *Server) refuseLogin(r *http.Request, typed string, user User, reason string) {
	s.log.Refuse(s.source(r), "/login", s.failure(r, typed, user, reason))
}

// source names an address for the summaries of the log, unreadably.
func (s *Server) source(r *http.Request) string {
	return sum(s.cookies.jar().subject, "source "+place(s.address(r)))
}

func (s *Server) showLogout(w http.ResponseWriter, r *http.Request) {
	session, err := s.Current(r)
	switch {
	case errors.Is(err, ErrSignedOut):
		s.pages.Render(w, http.StatusOK, templates.SignedOut{})
	case err != nil:
		s.fail(w, r, err)
	default:
		s.pages.Render(w, http.StatusOK, templates.SignedOut{Ask: true, Name: session.User.Name})
	}
}

func (s *Server) logout(w http.ResponseWriter, r *http.Request) {
	session, err := s.Current(r)
	if err != nil && !errors.Is(err, ErrSignedOut) {
		s.fail(w, r, err)
		return
	}
	if err == nil {
		err := s.end(r, session, session.ID, s.store.EndSession(session.User.ID, session.ID))
		if err != nil {
			s.fail(w, r, err)
			return
		}
	}
	if err := s.forget(w, r); err != nil {
		s.fail(w, r, err)
		return
	}
	s.pages.Render(w, http.StatusOK, templates.SignedOut{})
}

// end ends sessions of the person who asks. One that is gone already is no
// error; nor is a log that refuses: the session is over, the record waits.
func (s *Server) end(r *http.Request, by Session, which string, effect audit.Effect) error {
	err := s.log.Commit(r.Context(), audit.Change{
		Effects: []audit.Effect{effect},
		Entries: []audit.Entry{s.personal(r, by.User, audit.SessionEnd, which)},
		Narrows: true,
	})
	if errors.Is(err, audit.ErrConflict) || errors.Is(err, audit.ErrUnrecorded) {
		return nil
	}
	return err
}
