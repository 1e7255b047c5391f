package people

import (
	"errors"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/kavach-dev/kavach/audit"
	"github.com/kavach-dev/kavach/templates"
)

func (s *Server) showAccount(w http.ResponseWriter, r *http.Request) {
	session, ok := s.signedIn(w, r)
	if !ok {
		return
	}
	notices := map[string]string{
		"ended":    "The session is over.",
		"others":   "All other sessions are over.",
		"password": "Your password is changed. All other sessions are over.",
	}
	s.renderAccount(w, r, http.StatusOK, session, templates.Account{Notice: notices[r.URL.Query().Get("done")]})
}

// signedIn finds the session, or answers: sign in first.
func (s *Server) signedIn(w http.ResponseWriter, r *http.Request) (Session, bool) {
	session, err := s.Current(r)
	if err == nil {
		return session, true
	}
	if errors.Is(err, ErrSignedOut) {
		s.pages.SeeOther(w, LoginURL("/account", ""))
	} else {
		s.fail(w, r, err)
	}
	return Session{}, false
}

func (s *Server) renderAccount(w http.ResponseWriter, r *http.Request, status int, session Session, page templates.Account) {
	u := session.User
	page.Name, page.ID, page.Role, page.RoleText, page.Rules = u.Name, u.ID, string(u.Role), u.Role.text(), passwordRules
	list, err := s.store.SessionsOf(r.Context(), u.ID)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	now := s.now()
	for _, one := range list {
		if !now.Before(one.Expires) || !now.Before(one.Seen.Add(s.idle)) {
			continue
		}
		page.Sessions = append(page.Sessions, templates.SessionRow{
			ID: one.ID, Device: one.Device, Network: one.Network,
			Started: one.Started, LastSeen: one.Seen, Current: one.ID == session.ID,
		})
	}
	s.pages.Render(w, status, page)
}

func (s *Server) account(w http.ResponseWriter, r *http.Request) {
	if !s.form(w, r) {
		return
	}
	session, ok := s.signedIn(w, r)
	if !ok {
		return
	}
	switch r.PostForm.Get("action") {
	case "end":
		id := r.PostForm.Get("session")
		if !localPath("/"+id) || len(id) > 64 {
			s.pages.Render(w, http.StatusBadRequest, templates.Error{Link: "/account", LinkText: "Go to your account"})
			return
		}
		if id == session.ID {
			s.logout(w, r)
			return
		}
		// The effect names the owner: nobody ends a session of another person.
		s.ended(w, r, s.end(r, session, id, s.store.EndSession(session.User.ID, id)), "ended")
	case "end_others":
		mine, _ := s.cookies.get(r).Values[cookieSession].(string)
		s.ended(w, r, s.end(r, session, "others", s.store.EndSessions(session.User.ID, hashed(mine))), "others")
	case "password":
		s.changePassword(w, r, session)
	default:
		s.pages.Render(w, http.StatusBadRequest, templates.Error{Link: "/account", LinkText: "Go to your account"})
	}
}

func (s *Server) ended(w http.ResponseWriter, r *http.Request, err error, done string) {
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.pages.SeeOther(w, "/account?done="+done)
}

// changePassword needs the old password: a browser left open must not be able
// to take the account over.
func (s *Server) changePassword(w http.ResponseWriter, r *http.Request, session Session) {
	ctx, u := r.Context(), session.User
	problem := func(text string) {
		s.renderAccount(w, r, http.StatusUnprocessableEntity, session, templates.Account{Problem: text})
	}
	fresh := Secret(r.PostForm.Get("password"))
	if confirm, sent := r.PostForm["confirm"]; sent && Secret(confirm[0]) != fresh {
		problem("The two new passwords are not the same.")
		return
	}
	if err := checkPassword(fresh, u.Name); err != nil {
		problem(because(err))
		return
	}
	_, old, err := s.store.UserByID(ctx, u.ID)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	tries := &counted{s: s}
	tries.add(accountLimit, "change "+u.ID)
	if err := tries.waiting(ctx); err != nil {
		s.fail(w, r, err)
		return
	}
	done, err := s.hasher.take(ctx)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	right := false
	if err = tries.count(ctx); err == nil {
		right = s.hasher.matches(old, Secret(r.PostForm.Get("current")))
	}
	done()
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if !right {
		refused := s.personal(r, u, audit.UserPassword, u.ID)
		refused.Result, refused.Reason = audit.Denied, "bad_credentials"
		if err := s.log.Commit(ctx, audit.Change{Entries: []audit.Entry{refused}}); err != nil {
			s.fail(w, r, err)
			return
		}
		problem("The password you have now is not right.")
		return
	}
	phc, err := s.hasher.hash(ctx, fresh)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	_, effects, keep := s.begin(w, r, u, phc)
	effects = append([]audit.Effect{s.store.ReplacePassword(u.ID, old, phc), s.store.EndSessions(u.ID, "")}, effects...)
	err = s.log.Commit(ctx, audit.Change{
		Effects: append(effects, tries.undo()...),
		Entries: []audit.Entry{s.personal(r, u, audit.UserPassword, u.ID)},
	})
	if errors.Is(err, audit.ErrConflict) {
		problem("The password was changed somewhere else at the same time. Please sign in again.")
		return
	}
	if err == nil {
		err = keep()
	}
	s.ended(w, r, err, "password")
}

// because is the part of an error of ours that is for people: "It has fewer
// than 12 characters."
func because(err error) string {
	text := err.Error()
	for _, root := range []error{ErrPassword, ErrName} {
		text = strings.TrimPrefix(text, root.Error()+": ")
	}
	first, n := utf8.DecodeRuneInString(text)
	return string(unicode.ToUpper(first)) + text[n:] + "."
}
