package client_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
)

// Names that the token does not allow, or that are written in another spelling
// than the one that was judged, are refused before they are resolved.
func TestTransportHosts(t *testing.T) {
	cred := held(t, network("ok.example", "*.wild.example", "ported.example:8443", "192.0.2.7", "[2001:db8::7]"))
	for _, u := range []string{
		"https://other.example/", "https://wild.example/", "https://xwild.example/", "https://ported.example/",
		"https://ok.example.evil.example/", "https://evil-ok.example/",
		"https://ok.example./", "https://ok.example:0443/", "https://ok.example:/", "https://user@ok.example/",
		"https://user:pw@git.internal/", "https://git.internal./", "https://ok.example@evil.example/",
		"https://ök.example/", "https://xn--k-1ga.example./", "https://ｏｋ.example/", "https://ok。example/", "https://ok%2eexample/",
		"https://192.0.2.8/", "https://[::ffff:192.0.2.7]/", "https://[2001:db8:0::7]/", "https://[2001:db8::8]/",
		"https://0xc0000207/", "https://3221226503/", "https://192.0.519/", "https://192.000.002.007/", "https://[2001:db8::7%25eth0]/",
		"ftp://ok.example/", "http://git.internal/", "https://git.internal:8443/", "https://ok_example/", "https:///path", "https:ok.example",
		"https://[git.internal]/", "https://GIT.INTERNAL./", "https://git.internal:65536/", "https://git.internal:0/",
	} {
		parsed, err := url.Parse(u)
		if err != nil {
			continue // it does not get so far
		}
		w, r := &wire{}, &reports{}
		tr := &client.Transport{Source: cred, Lookup: w.lookup, Dial: w.dial, Report: r.report}
		_, err = tr.RoundTrip(&http.Request{Method: http.MethodGet, URL: parsed})
		if err == nil {
			t.Errorf("%s left", u)
			continue
		}
		wantRefused(t, err, r, delegation.ConstraintViolated, delegation.DimensionNetwork)
		if len(w.lookups) != 0 || len(w.dials()) != 0 {
			t.Errorf("%s: resolved %v, dialled %v", u, w.lookups, w.dials())
		}
	}
}

// Every link has to allow the host, not the last one alone.
func TestTransportEveryLink(t *testing.T) {
	parent, key := held(t, network("a.example", "b.example")), newKey(t)
	chain, err := parent.Derive(key.Public(), "x", delegation.Narrow{
		Limits: delegation.Limits{AllowNetwork: []string{"b.example"}},
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	child, err := client.Hold(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	here := s.Listener.Addr().String()
	resolve := map[string]string{"a.example": here, "b.example": here}
	for _, c := range []struct {
		cred client.Credential
		host string
		ok   bool
	}{{parent, "a.example", true}, {parent, "b.example", true}, {child, "b.example", true}, {child, "a.example", false}} {
		tr := &client.Transport{Source: c.cred, Resolve: resolve}
		if _, err := get(t, tr, "http://"+c.host+"/"); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.host, err)
		}
	}
}

// The address decides after the name did, and no address that must not be is
// connected to, in whatever clothes it comes.
func TestTransportAddresses(t *testing.T) {
	never := []string{
		"127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "0.1.2.3", "::", "169.254.169.254", "fe80::1", "224.0.0.1", "ff02::1",
		"255.255.255.255", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
		"64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "::127.0.0.1", "2001:0:7f00:1::", "2001:0:c000:201::80ff:fffe",
		"fd00:ec2::254",
	}
	private := []string{
		"10.0.0.5", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fc00::1", "fd12:3456::1", "::ffff:10.0.0.5",
		"64:ff9b::a00:5", "2002:a00:5::", "198.18.0.1",
	}
	public := []string{"203.0.113.7", "2001:db8::7"}
	try := func(cred client.Credential, host, address string) (*wire, error) {
		s := httptest.NewServer(http.NotFoundHandler())
		defer s.Close()
		parsed := netip.MustParseAddr(address).Unmap()
		w := &wire{
			names: map[string][]string{host: {address}},
			hosts: map[string]string{netip.AddrPortFrom(parsed, 80).String(): s.Listener.Addr().String()},
		}
		r := &reports{}
		tr := &client.Transport{Source: cred, Lookup: w.lookup, Dial: w.dial, Report: r.report}
		defer tr.CloseIdleConnections()
		_, err := get(t, tr, "http://"+host+"/")
		if err != nil {
			wantRefused(t, err, r, delegation.ConstraintViolated, delegation.DimensionNetwork)
		}
		return w, err
	}
	exact, wildcard := held(t, network("git.corp.example")), held(t, network("*.corp.example"))
	both := held(t, network("*.corp.example", "git.corp.example"))
	key := newKey(t)
	chain, err := wildcard.Derive(key.Public(), "x", delegation.Narrow{
		Limits: delegation.Limits{AllowNetwork: []string{"git.corp.example"}},
	}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	narrowed, err := client.Hold(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name      string
		cred      client.Credential
		addresses []string
		ok        bool
	}{
		{"exact", exact, never, false}, {"exact", exact, private, true}, {"exact", exact, public, true},
		{"wildcard", wildcard, never, false}, {"wildcard", wildcard, private, false}, {"wildcard", wildcard, public, true},
		{"both", both, private, true},
		// The parent allows it by a wildcard only, and every link is asked.
		{"exact below a wildcard", narrowed, private, false}, {"exact below a wildcard", narrowed, public, true},
		{"unrestricted", held(t, nil), never, false}, {"unrestricted", held(t, nil), private, true},
	} {
		for _, address := range c.addresses {
			w, err := try(c.cred, "git.corp.example", address)
			if (err == nil) != c.ok {
				t.Errorf("%s at %s: %v", c.name, address, err)
			}
			if !c.ok && len(w.dials()) != 0 {
				t.Errorf("%s at %s: dialled %v", c.name, address, w.dials())
			}
		}
	}
	// A literal is its own resolution and meets the same rule.
	for _, literal := range []string{"127.0.0.1", "169.254.169.254"} {
		if _, err := get(t, &client.Transport{Source: held(t, network(literal))}, "http://"+literal+"/"); err == nil {
			t.Errorf("%s left", literal)
		} else {
			wantRefused(t, err, nil, delegation.ConstraintViolated, delegation.DimensionNetwork)
		}
	}
}

// Of several addresses those that may be are used, and no other.
func TestTransportMixedAddresses(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	w := &wire{
		names: map[string][]string{"ok.example": {"127.0.0.1", "203.0.113.9", "::1", "203.0.113.7"}},
		hosts: map[string]string{"203.0.113.7:80": s.Listener.Addr().String()},
	}
	tr := &client.Transport{Source: held(t, network("ok.example")), Lookup: w.lookup, Dial: w.dial}
	defer tr.CloseIdleConnections()
	if _, err := get(t, tr, "http://ok.example/"); err != nil {
		t.Fatal(err)
	}
	if got := w.dials(); !slices.Equal(got, []string{"203.0.113.9:80", "203.0.113.7:80"}) {
		t.Errorf("dialled %v", got)
	}
}

// Rebinding: what is connected to is what was checked, each time; an idle
// connection to where the name was is not where it is now.
func TestTransportRebinding(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	c := newCanary(t)
	w := &wire{
		names: map[string][]string{"ok.example": {"203.0.113.7"}},
		hosts: map[string]string{"203.0.113.7:80": s.Listener.Addr().String(), "127.0.0.1:80": c.addr.String(), "203.0.113.8:80": s.Listener.Addr().String()},
	}
	r := &reports{}
	tr := &client.Transport{Source: held(t, network("ok.example")), Lookup: w.lookup, Dial: w.dial, Report: r.report}
	defer tr.CloseIdleConnections()
	for range 2 {
		answer, err := get(t, tr, "http://ok.example/")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, answer.Body) // so that the connection is used again
		answer.Body.Close()
	}
	w.mu.Lock()
	w.names["ok.example"] = []string{"127.0.0.1"}
	w.mu.Unlock()
	_, err := get(t, tr, "http://ok.example/")
	wantRefused(t, err, r, delegation.ConstraintViolated, delegation.DimensionNetwork)
	w.mu.Lock()
	w.names["ok.example"] = []string{"203.0.113.8"}
	w.mu.Unlock()
	if _, err := get(t, tr, "http://ok.example/"); err != nil {
		t.Fatal(err)
	}
	if got := w.dials(); !slices.Equal(got, []string{"203.0.113.7:80", "203.0.113.8:80"}) || c.connections() != 0 {
		t.Errorf("dialled %v", got)
	}
	if len(w.lookups) != 4 {
		t.Errorf("resolved %d times for four requests", len(w.lookups))
	}
}

// An audience needs no entry, but its address is checked, too, unless the
// runtime says where it is or the audience itself is written as loopback.
func TestTransportOwnAddress(t *testing.T) {
	c := newCanary(t)
	w := &wire{names: map[string][]string{gitHost: {"169.254.169.254"}}, hosts: map[string]string{"169.254.169.254:443": c.addr.String()}}
	r := &reports{}
	_, err := get(t, &client.Transport{Source: held(t, nil), Lookup: w.lookup, Dial: w.dial, Report: r.report}, gitURL+"/")
	wantRefused(t, err, r, delegation.ConstraintViolated, delegation.DimensionNetwork)
	if c.connections() != 0 || len(w.dials()) != 0 {
		t.Error("connected to a metadata address")
	}
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("DPoP") == "" {
			t.Error("no proof for an audience on loopback")
		}
	}))
	defer s.Close()
	own := func(c *delegation.Claims) { c.Audience = []string{s.URL + "/mcp"}; c.Limits.AllowNetwork = []string{} }
	if _, err := get(t, &client.Transport{Source: held(t, own)}, s.URL+"/other"); err != nil {
		t.Error(err)
	}
	// localhost is this machine, whatever a resolver says.
	local := held(t, func(c *delegation.Claims) { c.Audience = []string{"http://localhost:8420"} })
	w.names["localhost"] = []string{"203.0.113.7"}
	_, err = get(t, &client.Transport{Source: local, Lookup: w.lookup, Dial: w.dial}, "http://localhost:8420/")
	wantRefused(t, err, nil, delegation.ConstraintViolated, delegation.DimensionNetwork)
	// What the runtime's own configuration names may be reached by who may
	// name it, and by nobody else.
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for _, allowed := range []bool{true, false} {
		entries := map[bool]string{true: "127.0.0.1", false: "other.example"}
		_, err := get(t, &client.Transport{Source: held(t, network(entries[allowed])), AllowAddresses: loopback}, "http://"+c.addr.String()+"/")
		var refused *client.Refused
		if asRefused(err, &refused) == allowed {
			t.Errorf("allowed %v: %v", allowed, err)
		}
	}
}

// A Host header that names somebody else would let one name be judged and
// another be served.
func TestTransportHostHeader(t *testing.T) {
	_, tr, r := gitAt(t, held(t, nil))
	request, err := http.NewRequest(http.MethodGet, gitURL+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = "other.internal"
	_, err = tr.RoundTrip(request)
	wantRefused(t, err, r, delegation.ConstraintViolated, delegation.DimensionNetwork)
}

// An unbound token goes out as Bearer; a bound one without its key not at all.
func TestTransportBearer(t *testing.T) {
	var auth string
	ca := newAuthority(t)
	s := ca.serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { auth = r.Header.Get("Authorization") }), gitHost)
	plain := mint(t, newKey(t), func(c *delegation.Claims) { c.Root, c.MaxDepth, c.Key = false, 0, agent.PublicKey{} })
	cred, err := client.Hold(plain, agent.PrivateKey{})
	if err != nil {
		t.Fatal(err)
	}
	tr := &client.Transport{Source: cred, RootCAs: ca.pool, Resolve: map[string]string{gitHost: s.Listener.Addr().String()}}
	if _, err := get(t, tr, gitURL+"/"); err != nil || auth != "Bearer "+plain {
		t.Errorf("%v, scheme of %d bytes", err, len(auth))
	}
	auth = ""
	bound := held(t, nil)
	bound.Key = agent.PrivateKey{}
	tr.Source = bound
	if _, err := get(t, tr, gitURL+"/"); err == nil || auth != "" {
		t.Error("a bound token left without its key")
	}
}
