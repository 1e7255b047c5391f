package delegation

import (
	"net/netip"
	"slices"
)

// CheckDestination refuses what is no "host:port" or "host" of allow_network
// in its canonical spelling: a lower-case A-label name without a trailing dot,
// an address as RFC 5952 writes it, a port without leading zeros. No wildcard.
func CheckDestination(destination string) error {
	if d, ok := parseHost(destination); !ok || d.wildcard {
		return refuse(ConstraintViolated, DimensionNetwork, "host "+quoteShort(destination)+" is not canonical")
	}
	return nil
}

// CheckAddress refuses addresses that no entry of allow_network reaches
// (delegation.md §5: "unspecified, multicast, link-local and loopback addresses
// are refused unless the runtime's own configuration names them"; what that
// names, a runtime does not ask about). An address that carries an IPv4 address
// (IPv4-mapped and -compatible, NAT64, 6to4, Teredo) is what it carries as well
// as what it is. destination is for the refusal.
func CheckAddress(destination string, address netip.Addr) error {
	if !address.IsValid() || address.Zone() != "" {
		return refuse(ConstraintViolated, DimensionNetwork, "host "+quoteShort(destination)+" has no usable address")
	}
	for _, a := range embedded(address) {
		if kind := neverAddress(a); kind != "" {
			return refuse(ConstraintViolated, DimensionNetwork,
				"host "+quoteShort(destination)+" is at the "+kind+" address "+address.Unmap().String())
		}
	}
	return nil
}

// AllowsAddress asks every link whether a connection to destination
// ("host:port") may go to the address that its name was resolved to: after
// CheckAddress, "private ranges are allowed for exact names, refused for
// wildcard matches". A link that does not restrict the network has no say. It
// is the second question after AllowsNetwork, and the connection goes to
// exactly the address that was asked about.
func (c *Chain) AllowsAddress(destination string, address netip.Addr) error {
	if c.empty() {
		return errEmpty()
	}
	if err := CheckDestination(destination); err != nil {
		return err
	}
	if err := CheckAddress(destination, address); err != nil {
		return err
	}
	if !slices.ContainsFunc(embedded(address), isPrivate) {
		return nil
	}
	d, _ := parseHost(destination)
	exactly := func(entry host) bool { return !entry.wildcard && entry.covers(d) }
	for i := range c.parts {
		if l := c.parts[i].limits.AllowNetwork; l != nil && !slices.ContainsFunc(parseHosts(l), exactly) {
			return refuse(ConstraintViolated, DimensionNetwork, "host "+quoteShort(destination)+
				" is at the private address "+address.Unmap().String()+", which only an exact entry reaches").at(i)
		}
	}
	return nil
}

// embedded returns the address and the IPv4 addresses that it stands for.
func embedded(address netip.Addr) []netip.Addr {
	if address.Is4() {
		return []netip.Addr{address}
	}
	list := []netip.Addr{address.Unmap()}
	if address.Is4In6() {
		return list
	}
	b := address.As16()
	v4 := func(at int) netip.Addr { return netip.AddrFrom4([4]byte(b[at : at+4])) }
	switch {
	case prefixNAT64.Contains(address), prefixNAT64Local.Contains(address):
		list = append(list, v4(12))
	case prefix6to4.Contains(address):
		list = append(list, v4(2))
	case prefixTeredo.Contains(address):
		// RFC 4380 §4: the server's address, and the client's inverted.
		client := v4(12).As4()
		for i := range client {
			client[i] = ^client[i]
		}
		list = append(list, v4(4), netip.AddrFrom4(client))
	case prefixCompatible.Contains(address) && b[12] != 0:
		list = append(list, v4(12))
	}
	return list
}

var (
	prefixNAT64      = netip.MustParsePrefix("64:ff9b::/96")   // RFC 6052 §2.1
	prefixNAT64Local = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215
	prefix6to4       = netip.MustParsePrefix("2002::/16")      // RFC 3056
	prefixTeredo     = netip.MustParsePrefix("2001::/32")      // RFC 4380
	prefixCompatible = netip.MustParsePrefix("::/96")          // RFC 4291 §2.5.5.1

	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")   // RFC 1122: Linux connects 0.0.0.0 to itself
	reserved    = netip.MustParsePrefix("240.0.0.0/4") // RFC 1112, with the broadcast address

	// privateRanges are those of RFC 1918 and RFC 4193, and what is not on the
	// Internet either.
	privateRanges = []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"),
		netip.MustParsePrefix("172.16.0.0/12"),
		netip.MustParsePrefix("192.168.0.0/16"),
		netip.MustParsePrefix("100.64.0.0/10"), // RFC 6598, carrier-grade NAT
		netip.MustParsePrefix("192.0.0.0/24"),  // RFC 6890
		netip.MustParsePrefix("198.18.0.0/15"), // RFC 2544
		netip.MustParsePrefix("fc00::/7"),
		netip.MustParsePrefix("fec0::/10"), // RFC 3879
		prefixNAT64Local,                   // translates to whatever a network likes
	}

	// metadataServices hand out a machine's own credentials at addresses that
	// are not link-local.
	metadataServices = []netip.Addr{
		netip.MustParseAddr("100.100.100.200"),
		netip.MustParseAddr("fd00:ec2::254"),
		netip.MustParseAddr("fd20:ce::254"),
	}
)

// neverAddress names the kind of an address that no entry reaches, "" for any
// other.
func neverAddress(a netip.Addr) string {
	switch {
	case a.IsUnspecified() || thisNetwork.Contains(a):
		return "unspecified"
	case a.IsLoopback():
		return "loopback"
	case a.IsMulticast():
		return "multicast"
	case a.IsLinkLocalUnicast():
		return "link-local"
	case reserved.Contains(a):
		return "reserved"
	case slices.Contains(metadataServices, a):
		return "metadata"
	}
	return ""
}

func isPrivate(a netip.Addr) bool {
	return slices.ContainsFunc(privateRanges, func(p netip.Prefix) bool { return p.Contains(a) })
}
