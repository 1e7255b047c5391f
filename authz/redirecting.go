package authz

import (
	"net/url"
	"slices"
	"strings"
)

// registeredRedirect returns the registered redirect URI that a matching
// requested one stands for: itself, or on a loopback host the one that differs
// in its port.
func registeredRedirect(c Client, requested string) string {
	if slices.Contains(c.RedirectURIs, requested) {
		return requested
	}
	host, rest, _ := splitLoopback(requested)
	for _, r := range c.RedirectURIs {
		if h, t, ok := splitLoopback(r); ok && h == host && t == rest {
			return r
		}
	}
	return requested
}

// onlyLoopback reports whether every redirect URI of a client stays on the
// computer of whoever opens it: then any program there can claim to be it.
func onlyLoopback(c Client) bool {
	for _, r := range c.RedirectURIs {
		if _, _, ok := splitLoopback(r); !ok {
			return false
		}
	}
	return len(c.RedirectURIs) > 0
}

// redirectHost is what people are told about where the browser goes on to: the
// host with its port, or the scheme of a private-use URI.
func redirectHost(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return ""
	}
	if u.Scheme == "http" || u.Scheme == "https" {
		return u.Host
	}
	return u.Scheme + ":"
}

// reserved are the parameters that only we put into a redirect. A registered
// URI that brings its own is answered without it: exactly one `iss` (RFC 9207).
var reserved = map[string]bool{
	"code": true, "state": true, "iss": true,
	"error": true, "error_description": true, "error_uri": true,
}

// redirectTo appends parameters to a redirect URI and keeps its own query.
func redirectTo(uri string, pairs ...[2]string) string {
	base, query, _ := strings.Cut(uri, "?")
	var parts []string
	for part := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(part, "=")
		if clean, err := url.QueryUnescape(name); part != "" && err == nil && !reserved[clean] {
			parts = append(parts, part)
		}
	}
	for _, p := range pairs {
		parts = append(parts, url.QueryEscape(p[0])+"="+url.QueryEscape(p[1]))
	}
	return base + "?" + strings.Join(parts, "&")
}
