package delegation

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// host is a parsed entry of allow_network, or a destination.
//
//	host[:port]     name | "*." name | IPv4 | "[" IPv6 "]"
type host struct {
	// name is without the "*." and, for IPv6, without the brackets.
	name     string
	wildcard bool
	address  bool
	// port 0 is any port.
	port uint16
}

// parseHost takes the canonical spelling only: a name in lower-case A-labels
// without a trailing dot, an address as RFC 5952 writes it, a port without
// leading zeros.
func parseHost(text string) (h host, ok bool) {
	if len(text) > maxHost {
		return host{}, false
	}
	name, port := text, ""
	if end := strings.IndexByte(text, ']'); strings.HasPrefix(text, "[") {
		if end < 0 {
			return host{}, false
		}
		address, err := netip.ParseAddr(text[1:end])
		// An IPv4 address in IPv6 clothes would be a second spelling of it,
		// and resolvers do not agree which one they connect to.
		if err != nil || !address.Is6() || address.Is4In6() || address.Zone() != "" ||
			address.String() != text[1:end] {
			return host{}, false
		}
		h.name, h.address = text[1:end], true
		name, port = "", text[end+1:]
		if port != "" && !strings.HasPrefix(port, ":") {
			return host{}, false
		}
	} else if colon := strings.IndexByte(text, ':'); colon >= 0 {
		name, port = text[:colon], text[colon:]
	}
	if port != "" {
		number, err := strconv.ParseUint(port[1:], 10, 16)
		if err != nil || number == 0 || strconv.FormatUint(number, 10) != port[1:] {
			return host{}, false
		}
		h.port = uint16(number)
	}
	if h.address {
		return h, true
	}
	// IPv6 stands in brackets, so an address begins with a digit here.
	if name != "" && name[0] >= '0' && name[0] <= '9' {
		if address, err := netip.ParseAddr(name); err == nil {
			h.name, h.address = name, true
			return h, address.Is4() && address.String() == name
		}
	}
	h.name, h.wildcard = strings.CutPrefix(name, "*.")
	return h, validName(h.name)
}

// maxHost is a name of 253 bytes, "*." and a port.
const maxHost = 2 + 253 + 6

func validName(name string) bool {
	if len(name) == 0 || len(name) > 253 {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(name, ".") {
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
		last = label
	}
	// "127.1", "0x7f.1" and "2130706433" are addresses to many resolvers
	// (WHATWG URL: a host that ends in a number is an IPv4 address).
	return !endsInNumber(last)
}

func endsInNumber(label string) bool {
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// covers is used for entries and for destinations alike: a parent without port
// covers any, an address only its equal, "*." at least one label more and
// never the apex, an exact name never a wildcard.
func (h host) covers(child host) bool {
	if h.port != 0 && h.port != child.port {
		return false
	}
	if h.address || child.address {
		return h.address && child.address && h.name == child.name
	}
	if !h.wildcard {
		return !child.wildcard && h.name == child.name
	}
	return child.wildcard && child.name == h.name || strings.HasSuffix(child.name, "."+h.name)
}

// parseHosts reads entries of limits that were validated, so all of them parse.
func parseHosts(entries []string) []host {
	hosts := make([]host, len(entries))
	for i, entry := range entries {
		hosts[i], _ = parseHost(entry)
	}
	return hosts
}

// networkCovered compares two valid lists. Most links repeat their parent's.
func networkCovered(parent, child []string) bool {
	return slices.Equal(parent, child) || everyCovered(parseHosts(parent), parseHosts(child), host.covers)
}

func networkAllowed(entries []string, destination string) bool {
	d, ok := parseHost(destination)
	return ok && !d.wildcard && slices.ContainsFunc(entries, func(entry string) bool {
		e, ok := parseHost(entry)
		return ok && e.covers(d)
	})
}
