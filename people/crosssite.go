package people

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/kavach-dev/kavach/templates"
)

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
