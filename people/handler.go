package people

import (
	"context"
	"errors"
	"mime"
	"net"
	"net/http"
	"net/netip"
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

// Protect refuses posts from other origins with a 403 page
// (http.CrossOriginProtection: Sec-Fetch-Site, else Origin; and
// [Server.foreign]). Every handler that acts on the cookie of this package
// stands behind it.
func (s *Server) Protect(h http.Handler) http.Handler {
	p := http.NewCrossOriginProtection()
	// A proxy may rewrite Host; the issuer's own origin is never foreign.
	if err := p.AddTrustedOrigin(s.origin); err != nil {
		s.logger.Error("trusting the issuer's origin", "error", err)
	}
	deny := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.pages.Render(w, http.StatusForbidden, templates.Error{
			Title:   "Sent from another site",
			Message: "This form did not come from a page of this server, so nothing was done.",
			Hint:    "If it was you, open the page here and try again.",
			Link:    "/account", LinkText: "Go to your account",
		})
	})
	p.SetDenyHandler(deny)
	checked := p.Handler(h)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.foreign(r) {
			deny.ServeHTTP(w, r)
			return
		}
		checked.ServeHTTP(w, r)
	})
}

// foreign says that a request that acts comes from another site, where
// CrossOriginProtection would let it pass: a trusted Origin outweighs there
// what the browser says of the sender, and a page whose own name was made to
// resolve to this machine (DNS rebinding) has an Origin that fits its Host.
func (s *Server) foreign(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return false
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
		return s.loopback && !isLoopback(r.Host)
	}
	return true
}

// isLoopback says that a host, with or without port, is one of the ways to
// write this machine, and not a name that merely resolves to it.
func isLoopback(hostPort string) bool {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(hostPort, "["), "]")
	}
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.IsLoopback()
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

// LocalPath says whether a `return` is a path on this server, in a spelling
// that every browser understands as one.
func LocalPath(p string) bool {
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
