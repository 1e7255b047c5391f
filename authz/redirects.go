package authz

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// cursorRedirect is the one private-use redirect URI accepted by default:
// Cursor registers it together with http(s) ones, and would lose them all.
const cursorRedirect = "cursor://anysphere.cursor-mcp/oauth/callback"

const maxRedirect = 2048

// checkRedirect says what is wrong with a redirect URI that somebody wants to
// register, or nothing: https, loopback http, and an exact allow-list of
// private-use URIs; no fragment, userinfo, wildcard (§2).
func (g *Registry) checkRedirect(uri string) string {
	if slices.Contains(g.cfg.PrivateRedirects, uri) {
		return ""
	}
	if len(uri) > maxRedirect {
		return "it is longer than 2048 bytes"
	}
	for i := range len(uri) {
		if c := uri[i]; c <= 0x20 || c >= 0x7f || strings.IndexByte("\\\"<>^`{|}", c) >= 0 {
			return "it holds a character that no URI holds"
		}
	}
	if strings.ContainsAny(uri, "#*") {
		return "it must not have a fragment or a wildcard"
	}
	u, err := url.Parse(uri)
	if err != nil || u.Opaque != "" || u.Hostname() == "" {
		return "it is not an absolute URI with a host"
	}
	if u.User != nil || strings.Contains(u.Host, "@") {
		return "it must not have userinfo"
	}
	if port, ok := strings.CutPrefix(u.Host[len(hostOnly(u.Host)):], ":"); ok && !isPort(port) {
		return "its port is not one"
	}
	switch {
	case strings.HasPrefix(uri, "https://"):
		return ""
	case strings.HasPrefix(uri, "http://"):
		if _, _, ok := splitLoopback(uri); ok {
			return ""
		}
		return "http is for 127.0.0.1, [::1] and localhost only"
	}
	return "its scheme is not https, loopback http, or an allowed private-use URI"
}

// hostOnly is the host of host[:port], brackets included.
func hostOnly(hostPort string) string {
	if i := strings.LastIndexByte(hostPort, ':'); i > strings.LastIndexByte(hostPort, ']') {
		return hostPort[:i]
	}
	return hostPort
}

// MatchRedirect says whether uri is one of the client's redirect URIs.
func MatchRedirect(c Client, uri string) bool {
	_, ok := registeredRedirect(c, uri)
	return ok
}

// registeredRedirect finds the registered redirect URI that a requested one
// stands for: byte for byte, except that for http with host 127.0.0.1, [::1] or
// localhost any decimal port from 1 to 65535 is accepted (§2; RFC 8252 §7.3).
func registeredRedirect(c Client, requested string) (registered string, ok bool) {
	if requested == "" {
		return "", false
	}
	if slices.Contains(c.RedirectURIs, requested) {
		return requested, true
	}
	host, rest, ok := splitLoopback(requested)
	if !ok {
		return "", false
	}
	i := slices.IndexFunc(c.RedirectURIs, func(uri string) bool {
		h, r, ok := splitLoopback(uri)
		return ok && h == host && r == rest
	})
	if i < 0 {
		return "", false
	}
	return c.RedirectURIs[i], true
}

// splitLoopback cuts http://HOST[:PORT]REST, HOST being one of the three
// loopback forms exactly and PORT a decimal one. It looks at bytes and decodes
// nothing: whatever is spelled differently is something else.
func splitLoopback(uri string) (host, rest string, ok bool) {
	after, ok := strings.CutPrefix(uri, "http://")
	if !ok {
		return "", "", false
	}
	for _, host := range []string{"127.0.0.1", "[::1]", "localhost"} {
		rest, ok := strings.CutPrefix(after, host)
		if !ok {
			continue
		}
		if port, isPortForm := strings.CutPrefix(rest, ":"); isPortForm {
			end := strings.IndexAny(port, "/?#")
			if end < 0 {
				end = len(port)
			}
			if !isPort(port[:end]) {
				return "", "", false
			}
			rest = port[end:]
		}
		if rest != "" && rest[0] != '/' && rest[0] != '?' {
			return "", "", false
		}
		return host, rest, true
	}
	return "", "", false
}

func isPort(text string) bool {
	if text == "" || len(text) > 5 || text[0] == '0' {
		return false
	}
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
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
