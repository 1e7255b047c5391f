package agent

import "strings"

// normalURI brings an http or https URI into the form that two writers of the
// same URI share, without its query and fragment: RFC 9449 §4.3 ("ignoring any
// query and fragment parts") with the syntax-based and scheme-based
// normalisation of RFC 3986 §6.2.2 and §6.2.3 that it recommends.
//
//	HTTPS://Git.Internal:443/a/./%7Eb?x#y → https://git.internal/a/~b
//
// exact is false if the path held "." or ".." segments, which a server may have
// read otherwise. What is no such URI at all is not ok.
func normalURI(uri string) (normal string, exact, ok bool) {
	if len(uri) > MaxToken {
		return "", false, false
	}
	uri, _, _ = strings.Cut(uri, "#")
	uri, _, _ = strings.Cut(uri, "?")
	scheme, rest, found := strings.Cut(uri, "://")
	scheme = strings.ToLower(scheme)
	if !found || scheme != "https" && scheme != "http" {
		return "", false, false
	}
	path := ""
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		rest, path = rest[:i], rest[i:]
	}
	host, ok := normalHost(scheme, rest)
	if !ok {
		return "", false, false
	}
	path, ok = normalPath(path)
	if !ok {
		return "", false, false
	}
	clean := removeDots(path)
	return scheme + "://" + host + clean, clean == path, true
}

// normalHost lowers a host and drops the port that the scheme implies. User
// information and percent-encoding have no business in it.
func normalHost(scheme, host string) (string, bool) {
	name, port := host, ""
	if end := strings.LastIndexByte(host, ']'); end >= 0 {
		if host[0] != '[' || end == 1 || !all(host[1:end], isHex, ":.") {
			return "", false
		}
		name, port = host[:end+1], host[end+1:]
	} else {
		if i := strings.IndexByte(host, ':'); i >= 0 {
			name, port = host[:i], host[i:]
		}
		if name == "" || !all(name, isUnreserved, "!$&'()*+,;=") {
			return "", false
		}
	}
	if port != "" && (port[0] != ':' || !all(port[1:], isDigit, "")) {
		return "", false
	}
	port = strings.TrimPrefix(port, ":")
	for len(port) > 1 && port[0] == '0' {
		port = port[1:]
	}
	if port == "" || scheme == "https" && port == "443" || scheme == "http" && port == "80" {
		return strings.ToLower(name), true
	}
	return strings.ToLower(name) + ":" + port, true
}

const upperHex = "0123456789ABCDEF"

// normalPath decodes what need not be encoded, encodes what has to be (writers
// of URLs leave "|" and the like as they are), and writes the rest in upper
// case. An empty path is "/".
func normalPath(path string) (string, bool) {
	if path == "" {
		return "/", true
	}
	var b strings.Builder
	b.Grow(len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		switch {
		case c == '%':
			if i+2 >= len(path) || !isHex(path[i+1]) || !isHex(path[i+2]) {
				return "", false
			}
			c = unhex(path[i+1])<<4 | unhex(path[i+2])
			i += 2
			if isUnreserved(c) {
				b.WriteByte(c)
				continue
			}
		case c <= ' ' || c >= 0x7f:
			return "", false // no URI: it would have to be encoded
		case isUnreserved(c) || strings.IndexByte("/!$&'()*+,;=:@", c) >= 0:
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(upperHex[c>>4])
		b.WriteByte(upperHex[c&15])
	}
	return b.String(), true
}

// removeDots is RFC 3986 §5.2.4 for a path that begins with "/".
func removeDots(path string) string {
	if !strings.Contains(path, "/.") {
		return path
	}
	var out []string
	segments := strings.Split(path, "/")[1:]
	for i, s := range segments {
		last := i == len(segments)-1
		switch s {
		case ".", "..":
			if s == ".." && len(out) > 0 {
				out = out[:len(out)-1]
			}
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, s)
		}
	}
	return "/" + strings.Join(out, "/")
}

func all(s string, kind func(byte) bool, also string) bool {
	for i := range len(s) {
		if !kind(s[i]) && strings.IndexByte(also, s[i]) < 0 {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isHex(c byte) bool { return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'f' }

func isUnreserved(c byte) bool {
	return isDigit(c) || 'a' <= c|0x20 && c|0x20 <= 'z' || c == '-' || c == '.' || c == '_' || c == '~'
}

func unhex(c byte) byte {
	if isDigit(c) {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
