package main

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"strings"
)

// checkIssuer holds an issuer to authorization-server.md §7: "`--issuer` is
// https unless its host is loopback, without query, fragment or trailing
// slash; anything else is a usage error that says what to write". It must also
// be in the one spelling that clients will compare byte for byte.
func checkIssuer(issuer string) error {
	bad := func(format string, args ...any) error {
		return usage(fmt.Errorf("--issuer %q "+format, append([]any{withoutUser(issuer)}, args...)...),
			"write it like https://auth.example.com, or http://127.0.0.1:8420 for this machine alone")
	}
	u, err := url.Parse(issuer)
	switch {
	case err != nil || !u.IsAbs() || u.Host == "" || u.Opaque != "":
		return bad("is not an absolute URL")
	case u.Scheme != "https" && u.Scheme != "http":
		return bad("is not https")
	case u.Scheme == "http" && !loopbackHost(u.Hostname()):
		return bad("is not https, and %s is not this machine", u.Hostname())
	case u.User != nil:
		return bad("has a user name in it")
	case strings.Contains(issuer, "?"):
		return bad("has a query")
	case strings.Contains(issuer, "#"):
		return bad("has a fragment")
	case strings.HasSuffix(issuer, "/"):
		return usage(fmt.Errorf("--issuer %q ends in a slash", issuer), "write "+strings.TrimRight(issuer, "/"))
	case u.EscapedPath() != "" && (path.Clean(u.Path) != u.Path || strings.Contains(u.EscapedPath(), "%")):
		return bad("has a path that not everybody spells the same")
	}
	host := strings.ToLower(u.Host)
	if port := u.Port(); port != "" {
		if (u.Scheme == "https" && port == "443") || (u.Scheme == "http" && port == "80") {
			host = strings.TrimSuffix(host, ":"+port)
		}
	} else {
		host = strings.TrimSuffix(host, ":")
	}
	if want := u.Scheme + "://" + host + u.Path; want != issuer {
		return usage(fmt.Errorf("--issuer %q is not in its canonical spelling", issuer), "write "+want)
	}
	return nil
}

// loopbackHost says whether a host name or address literal can only mean this
// machine.
func loopbackHost(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.Unmap().IsLoopback()
}

// loopbackListen says whether a listen address is reachable from this machine
// alone. An empty host listens on every interface.
func loopbackListen(address string) bool {
	host, _, err := net.SplitHostPort(address)
	return err == nil && loopbackHost(host)
}

// issuerFor is the issuer when none is configured: the address that was
// listened on, so that port 0 works.
func issuerFor(listen string, bound net.Addr) string {
	host, _, err := net.SplitHostPort(listen)
	_, port, berr := net.SplitHostPort(bound.String())
	if err != nil || berr != nil {
		return "http://" + bound.String()
	}
	if port == "80" {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		return "http://" + strings.ToLower(host)
	}
	return "http://" + net.JoinHostPort(strings.ToLower(host), port)
}
