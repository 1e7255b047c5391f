package mcp

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// hosts is the allow list of names under which this server may be addressed
// and of the web origins whose pages may address it.
//
// Both checks defend against DNS rebinding: a page of evil.example whose name
// suddenly resolves to 127.0.0.1 still says evil.example in Origin and in Host.
type hosts struct {
	loopback bool                // the issuer is a loopback URL: any loopback name and port will do
	names    map[string]struct{} // host:port, lower case, port always explicit
	origins  map[string]struct{} // scheme://host:port, likewise
}

func newHosts(issuer string, origins, names []string) hosts {
	h := hosts{names: map[string]struct{}{}, origins: map[string]struct{}{}}
	scheme := "https"
	if u, err := url.Parse(issuer); err == nil {
		scheme = u.Scheme
		h.loopback = isLoopback(u.Hostname())
		h.names[canonicalHost(u.Host, scheme)] = struct{}{}
		h.origins[canonicalOrigin(issuer)] = struct{}{}
	}
	for _, name := range names {
		h.names[canonicalHost(name, scheme)] = struct{}{}
	}
	for _, o := range origins {
		if o = canonicalOrigin(o); o != "" {
			h.origins[o] = struct{}{}
		}
	}
	return h
}

// origin decides on the Origin header: absent passes (no browser), anything
// that is not exactly one allowed origin does not. "null" is what a sandboxed
// frame or a file sends, and is not allowed.
func (h hosts) origin(header http.Header) (origin string, ok bool) {
	values := header.Values("Origin")
	switch len(values) {
	case 0:
		return "", true
	case 1:
	default:
		return "", false
	}
	o := canonicalOrigin(values[0])
	if o == "" {
		return "", false
	}
	if _, found := h.origins[o]; found {
		return values[0], true
	}
	if u, err := url.Parse(o); err == nil && h.loopback && u.Scheme == "http" && isLoopback(u.Hostname()) {
		return values[0], true
	}
	return "", false
}

// host decides on the Host header.
func (h hosts) host(r *http.Request) bool {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	if _, found := h.names[canonicalHost(r.Host, scheme)]; found {
		return true
	}
	// Behind a proxy that ends TLS the request arrives as http, yet its Host is
	// the issuer's without a port.
	if _, found := h.names[canonicalHost(r.Host, "https")]; found {
		return true
	}
	name, _, err := net.SplitHostPort(canonicalHost(r.Host, scheme))
	return err == nil && h.loopback && isLoopback(name)
}

// canonicalOrigin is scheme://host:port in lower case with an explicit port, or
// "" for what is not the origin of a web page.
func canonicalOrigin(origin string) string {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" ||
		(u.Path != "" && u.Path != "/") || (u.Scheme != "http" && u.Scheme != "https") {
		return ""
	}
	host := canonicalHost(u.Host, u.Scheme)
	if host == "" {
		return ""
	}
	return u.Scheme + "://" + host
}

// canonicalHost is host:port in lower case with the port of the scheme when
// there is none, or "" when it is not a host.
func canonicalHost(hostport, scheme string) string {
	if hostport == "" || strings.ContainsAny(hostport, "/\\@?#% \t") {
		return ""
	}
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		host, port = strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]"), ""
	}
	if port == "" {
		port = "443"
		if scheme == "http" {
			port = "80"
		}
	}
	if host == "" || !isPort(port) {
		return ""
	}
	return net.JoinHostPort(strings.ToLower(host), port)
}

// isPort: what follows the last colon may be anything, and a name such as
// 127.0.0.1:80.evil.example is none of ours.
func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0 && strconv.FormatUint(n, 10) == text
}

// isLoopback accepts the three ways to write this machine and nothing that
// merely resolves to it: 127.1, 2130706433 and 127.0.0.1.nip.io are names.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && !addr.Is4In6() && addr.IsLoopback()
}
