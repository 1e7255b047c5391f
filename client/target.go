package client

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/kavach-dev/kavach/delegation"
)

// target is where a request goes, in its one spelling.
type target struct {
	scheme string
	// name is a lower-case A-label name or an address, without brackets.
	name string
	port uint16
}

// destination is "host:port" as allow_network has it.
func (t target) destination() string { return t.host() + ":" + strconv.Itoa(int(t.port)) }

// host is the name as it stands in a URL.
func (t target) host() string {
	if strings.Contains(t.name, ":") {
		return "[" + t.name + "]"
	}
	return t.name
}

// urlHost leaves the scheme's own port out.
func (t target) urlHost() string {
	if t.port == defaultPorts[t.scheme] {
		return t.host()
	}
	return t.destination()
}

var defaultPorts = map[string]uint16{"http": 80, "https": 443}

// violated is a refusal about where a request goes. Its detail names the
// problem, never what the caller wrote.
func violated(detail string) *delegation.Refusal {
	return &delegation.Refusal{
		Reason: delegation.ConstraintViolated, Dimension: delegation.DimensionNetwork, Part: -1, Detail: detail,
	}
}

// targetOf takes the one spelling of a host, except that upper case is lower
// case: a name that has two readings could be compared by one and resolved by
// the other.
func targetOf(u *url.URL) (target, *delegation.Refusal) {
	t := target{scheme: strings.ToLower(u.Scheme)}
	standard, known := defaultPorts[t.scheme]
	switch {
	case !known:
		return target{}, violated("only http and https are connections")
	case u.Opaque != "" || u.Host == "":
		return target{}, violated("the URL names no host")
	case u.User != nil:
		return target{}, violated("user information in a URL")
	case strings.ContainsFunc(u.Host, func(r rune) bool { return r > 0x7e || r <= ' ' }):
		return target{}, violated("a host beyond ASCII; write its A-label (xn--)")
	}
	t.name, t.port = strings.ToLower(u.Hostname()), standard
	written := u.Port()
	if written != "" {
		port, err := strconv.ParseUint(written, 10, 16)
		if err != nil || port == 0 {
			return target{}, violated("a port that is none")
		}
		t.port = uint16(port)
	}
	// What remains is whether u.Host is these two and nothing else: no empty
	// port, no leading zero, no brackets around a name.
	host := strings.ToLower(u.Host)
	if written != "" && host != t.destination() || written == "" && host != t.host() {
		return target{}, violated("a host that is not in its canonical spelling")
	}
	if err := delegation.CheckDestination(t.destination()); err != nil {
		return target{}, asRefusal(err)
	}
	return t, nil
}

// ownOrigin reports whether a request goes to the origin of an audience. A
// tunnel has no scheme of its own.
func ownOrigin(audience []string, t target, tunnel bool) bool {
	return slices.ContainsFunc(audience, func(resource string) bool {
		u, err := url.Parse(resource)
		if err != nil {
			return false
		}
		own, refusal := targetOf(u)
		if tunnel {
			own.scheme = t.scheme
		}
		return refusal == nil && own == t
	})
}

// addresses finds where a target is and keeps what may be connected to: "connect
// to the address that was checked" (delegation.md §5). If nothing is left, the
// refusal is about the first address.
func (t *Transport) addresses(ctx context.Context, to target, own bool, grant delegation.UnverifiedGrant) ([]netip.AddrPort, error) {
	for _, name := range []string{to.destination(), to.host()} {
		if at, ok := t.Resolve[name]; ok {
			address, err := parseResolve(at, to.port)
			if err != nil {
				return nil, failed("Resolve[%q] is neither an address nor address:port", name)
			}
			return []netip.AddrPort{address}, nil
		}
	}
	found, err := t.lookup(ctx, to.name)
	if err != nil {
		return nil, failed("resolving %s: %w", to.host(), err)
	}
	var allowed []netip.AddrPort
	var refusal error
	for _, address := range found {
		if err := t.allowsAddress(to, own, address, grant); err != nil {
			if refusal == nil {
				refusal = err
			}
			continue
		}
		if at := netip.AddrPortFrom(address.Unmap(), to.port); !slices.Contains(allowed, at) {
			allowed = append(allowed, at)
		}
	}
	switch {
	case len(allowed) > 0:
		return allowed, nil
	case refusal != nil:
		return nil, refusal
	}
	return nil, failed("resolving %s: no address", to.host())
}

func parseResolve(text string, port uint16) (netip.AddrPort, error) {
	if address, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return netip.AddrPortFrom(address, port), nil
	}
	return netip.ParseAddrPort(text)
}

func (t *Transport) lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	if address, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{address}, nil
	}
	if t.Lookup != nil {
		return t.Lookup(ctx, name)
	}
	return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
}

// allowsAddress judges one address that a target was resolved to.
func (t *Transport) allowsAddress(to target, own bool, address netip.Addr, grant delegation.UnverifiedGrant) error {
	if slices.ContainsFunc(t.AllowAddresses, func(p netip.Prefix) bool { return p.Contains(address.Unmap()) }) {
		return nil
	}
	if !own {
		return grant.AllowsAddress(to.destination(), address)
	}
	// An audience on this machine is written so: the server registered it. It
	// may be plain http, so that it is nowhere else, whoever resolves localhost.
	if isLoopbackName(to.name) {
		if address.Unmap().IsLoopback() {
			return nil
		}
		return violated("an audience on this machine is at another address")
	}
	return delegation.CheckAddress(to.destination(), address)
}
