package people

import (
	"context"
	"errors"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/templates"
)

// maxBody bounds a posted form (spec/authorization-server.md §6).
const maxBody = 64 << 10

// Handler serves the pages of this package:
//
//	GET  /login    the form; `return` and `login_hint` in the query
//	POST /login    username, password, return → 303
//	GET  /logout   asks, or says that nobody is signed in
//	POST /logout   ends the session
//	GET  /setup    the form while there is no user, 404 after that
//	POST /setup    code, username, password, confirm → 303
//	GET  /account  who is signed in, and where
//	POST /account  action=end|end_others|password
//	GET  /         → 303 /account
//
// Everything else is a 404 page, so it can stand behind the other handlers.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for p, h := range map[string]struct{ get, post http.HandlerFunc }{
		"/login":   {s.showLogin, s.login},
		"/logout":  {s.showLogout, s.logout},
		"/setup":   {s.showSetup, s.setup},
		"/account": {s.showAccount, s.account},
		"/{$}":     {s.home, nil},
	} {
		allow := "GET, HEAD"
		mux.HandleFunc("GET "+p, h.get)
		if h.post != nil {
			allow += ", POST"
			mux.HandleFunc("POST "+p, h.post)
		}
		mux.HandleFunc(p, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Allow", allow)
			s.pages.Render(w, http.StatusMethodNotAllowed, templates.Error{})
		})
	}
	mux.HandleFunc("/", s.nothing)
	protected := s.Protect(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// ServeMux would answer //login with a redirect that has no headers of ours.
		if path.Clean(r.URL.Path) != r.URL.Path {
			s.nothing(w, r)
			return
		}
		protected.ServeHTTP(w, r)
	})
}

func (s *Server) home(w http.ResponseWriter, _ *http.Request) { s.pages.SeeOther(w, "/account") }

func (s *Server) nothing(w http.ResponseWriter, _ *http.Request) {
	s.pages.Render(w, http.StatusNotFound, templates.Error{Link: "/account", LinkText: "Go to your account"})
}

// form reads a posted form and says whether it could; if not it has answered.
func (s *Server) form(w http.ResponseWriter, r *http.Request) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		s.pages.Render(w, http.StatusUnsupportedMediaType, templates.Error{Message: "This page takes forms only."})
		return false
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if err := r.ParseForm(); err != nil {
		status := http.StatusBadRequest
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			status = http.StatusRequestEntityTooLarge
		}
		s.pages.Render(w, status, templates.Error{})
		return false
	}
	for name, values := range r.PostForm {
		if len(values) > 1 { // which one was meant? Nobody knows.
			s.pages.Render(w, http.StatusBadRequest, templates.Error{Message: "A field was sent more than once."})
			_ = name
			return false
		}
	}
	return true
}

// fail answers what went wrong on our side, or too often on theirs.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	if many := (tooManyError{}); errors.As(err, &many) {
		seconds := int64((many.wait + time.Second - 1) / time.Second)
		w.Header().Set("RateLimit", `"sign-in";r=0;t=`+strconv.FormatInt(seconds, 10))
		s.pages.Render(w, http.StatusTooManyRequests, templates.Error{
			Message: "There were too many attempts that did not work.",
			Hint:    "Nothing is locked: it works again after a short wait.",
			Retry:   many.wait,
		})
		return
	}
	e := templates.Error{Code: "temporarily_unavailable", Retry: 5 * time.Second}
	switch {
	case errors.Is(err, ErrBusy):
		e.Title, e.Message = "Very busy", "Many people are signing in at this moment."
	case errors.Is(err, context.Canceled):
		// The person went away: nobody reads the answer and nothing is broken.
	default:
		s.logger.Error("serving a page of people", "path", r.URL.Path, "error", err)
	}
	s.pages.Render(w, http.StatusServiceUnavailable, e)
}

// localPath says whether a `return` is a path on this server, in a spelling
// that every browser understands as one.
func localPath(p string) bool {
	if len(p) > 8<<10 || !strings.HasPrefix(p, "/") {
		return false
	}
	for i := range len(p) {
		// Browsers take \ for /, and drop tab and newline, before they look.
		if c := p[i]; c <= ' ' || c >= 0x7f || c == '\\' || c == '#' {
			return false
		}
	}
	only, _, _ := strings.Cut(p, "?")
	return path.Clean(only) == only || path.Clean(only)+"/" == only
}
