package authz

import (
	"net/http"
	"net/netip"
	"strings"
)

// ClientAddress returns the address that a request comes from. What proxies
// say about it counts only as far as they are trusted: the rightmost address
// of X-Forwarded-For that is not a trusted proxy's.
func ClientAddress(r *http.Request, trusted []netip.Prefix) netip.Addr {
	addr := parseAddress(r.RemoteAddr)
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && isTrusted(addr, trusted); i-- {
		hop := parseAddress(strings.TrimSpace(hops[i]))
		if !hop.IsValid() {
			break // what a proxy did not write is nobody's word
		}
		addr = hop
	}
	return addr
}

func parseAddress(text string) netip.Addr {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		var hostPort netip.AddrPort
		if hostPort, err = netip.ParseAddrPort(text); err != nil {
			return netip.Addr{}
		}
		addr = hostPort.Addr()
	}
	return addr.Unmap().WithZone("")
}

func isTrusted(addr netip.Addr, trusted []netip.Prefix) bool {
	for _, p := range trusted {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// addressKey is what one caller is counted under: an IPv4 address, or the /64
// that one IPv6 subscriber owns.
func addressKey(addr netip.Addr) string {
	if !addr.IsValid() {
		return "unknown"
	}
	if addr.Is6() {
		return netip.PrefixFrom(addr, 64).Masked().String()
	}
	return addr.String()
}
