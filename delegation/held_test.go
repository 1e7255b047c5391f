package delegation_test

import (
	"net/netip"
	"testing"

	"github.com/kavach-dev/kavach/delegation"
)

// The holder's own view of a token answers as the verified chain does.
func TestUnverifiedHeld(t *testing.T) {
	root := rootToken().with(object{"authorization_details": []any{tools(), limits(object{
		"allow_network": []string{"*.internal", "git.internal"}, "max_file_size": 100, "audit_required": true,
	})}})
	link := linkUnder(root, reviewerKey).with(object{"authorization_details": []any{tools(), limits(object{
		"allow_network": []string{"git.internal:443"}, "max_file_size": 50, "audit_required": true,
	})}})
	chain := verified(t, join(root, link))
	grant, err := delegation.UnverifiedHeld(join(root, link))
	if err != nil {
		t.Fatal(err)
	}
	if grant.JKT() != chain.JKT() || grant.Scheme() != delegation.DPoP || !grant.Expires().Equal(chain.Expires()) ||
		grant.Principal() != chain.Principal() || len(grant.Links()) != 2 || grant.Audience()[0] != chain.Audience()[0] ||
		len(grant.Scopes()) != len(chain.Scopes()) || !grant.Restricts(delegation.DimensionAudit) || grant.Restricts(delegation.DimensionCalls) {
		t.Errorf("read %+v", grant.Links())
	}
	for destination, ok := range map[string]bool{"git.internal:443": true, "git.internal:80": false, "x.internal:443": false} {
		if err := grant.AllowsNetwork(destination); (err == nil) != ok {
			t.Errorf("%s: %v", destination, err)
		}
	}
	if grant.AllowsSize(50) != nil || grant.AllowsSize(51) == nil {
		t.Error("size")
	}
	if err := grant.AllowsAddress("git.internal:443", netip.MustParseAddr("10.0.0.5")); err != nil {
		t.Error(err)
	}
	var nothing delegation.UnverifiedGrant
	for _, err := range []error{
		nothing.AllowsNetwork("git.internal:443"), nothing.AllowsSize(1),
		nothing.AllowsAddress("git.internal:443", netip.MustParseAddr("203.0.113.7")),
	} {
		wantRefusal(t, err, delegation.Malformed)
	}
	if _, err := delegation.UnverifiedHeld("x.y.z"); err == nil {
		t.Error("read what is no token")
	}
}

// What a name resolved to, delegation.md §5.
func TestAllowsAddress(t *testing.T) {
	exact := restricted(t, nil, object{"allow_network": []string{"git.internal", "[fd12::1]", "10.0.0.5"}})
	wildcard := restricted(t, nil, object{"allow_network": []string{"*.internal"}})
	narrowed := restricted(t, nil, object{"allow_network": []string{"*.internal"}}, object{"allow_network": []string{"git.internal"}})
	open := restricted(t, nil, object{})
	const public, private, never = 0, 1, 2
	for address, kind := range map[string]int{
		"203.0.113.7": public, "2001:db8::1": public, "64:ff9b::cb00:7107": public, "::ffff:203.0.113.7": public,
		"172.15.255.255": public, "172.32.0.0": public, "100.63.255.255": public, "100.128.0.0": public, "9.255.255.255": public,
		"10.0.0.0": private, "10.255.255.255": private, "172.16.0.0": private, "172.31.255.255": private, "192.168.0.1": private,
		"100.64.0.0": private, "100.127.255.255": private, "fc00::": private, "fdff::1": private, "fec0::1": private, "64:ff9b:1::cb00:7107": private, "64:ff9b:1:7f00:1::cb00:7107": private,
		"::ffff:10.0.0.1": private, "64:ff9b::a00:1": private, "2002:c0a8:1::1": private, "2001:0:cb00:7107::f5ff:fffe": private,
		"127.0.0.1": never, "127.255.255.255": never, "::1": never, "0.0.0.0": never, "0.255.0.1": never, "::": never,
		"169.254.0.1": never, "fe80::1": never, "febf::1": never, "224.0.0.1": never, "239.255.255.255": never, "ff0e::1": never,
		"240.0.0.1": never, "255.255.255.255": never, "100.100.100.200": never, "fd00:ec2::254": never,
		"::ffff:127.0.0.1": never, "::ffff:0.0.0.0": never, "::127.0.0.1": never, "64:ff9b::7f00:1": never,
		"64:ff9b:1:0:0:0:a9fe:a9fe": never, "2002:7f00:1::1": never, "2001:0:7f00:1::1": never, "2001:0:cb00:7107::80ff:fffe": never,
	} {
		a := netip.MustParseAddr(address)
		for name, c := range map[string]struct {
			chain *delegation.Chain
			most  int
		}{"exact": {exact, private}, "wildcard": {wildcard, public}, "narrowed": {narrowed, public}, "open": {open, private}} {
			err := c.chain.AllowsAddress("git.internal:443", a)
			if ok := kind <= c.most; (err == nil) != ok {
				t.Errorf("%s, %s: %v", name, address, err)
			}
			if err != nil {
				wantRefusal(t, err, delegation.ConstraintViolated, delegation.DimensionNetwork)
			}
		}
	}
	for _, literal := range []string{"10.0.0.5", "fd12::1"} {
		a := netip.MustParseAddr(literal)
		if err := exact.AllowsAddress(netip.AddrPortFrom(a, 443).String(), a); err != nil {
			t.Errorf("an entry that is the address: %v", err)
		}
	}
	for _, a := range []netip.Addr{{}, netip.MustParseAddr("fe80::1%eth0"), netip.MustParseAddr("2001:db8::1%eth0")} {
		wantRefusal(t, open.AllowsAddress("git.internal:443", a), delegation.ConstraintViolated, delegation.DimensionNetwork)
	}
	for _, destination := range []string{"", "Git.internal:443", "git.internal.:443", "*.internal:443", "git.internal:0443", "[::ffff:1.2.3.4]:80", "a b"} {
		wantRefusal(t, delegation.CheckDestination(destination), delegation.ConstraintViolated, delegation.DimensionNetwork)
		if open.AllowsAddress(destination, netip.MustParseAddr("203.0.113.7")) == nil {
			t.Errorf("%q has an address", destination)
		}
	}
}
