package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/client"
)

// reachFlags are this machine's own word on where servers are and who vouches
// for them.
type reachFlags struct {
	Resolve []string `sep:"none" placeholder:"HOST[:PORT]=ADDRESS[:PORT]" help:"Where a name is, in place of asking the system; repeatable."`
	CACert  string   `name:"cacert" placeholder:"FILE" help:"PEM certificates to trust beside the system's."`
}

// handshakeTimeout bounds what of a connection to a server a command waits for.
const handshakeTimeout = 30 * time.Second

// resolve puts --resolve into the form that a client.Transport takes.
func (f reachFlags) resolve() (map[string]string, error) {
	if len(f.Resolve) == 0 {
		return nil, nil
	}
	m := make(map[string]string, len(f.Resolve))
	for _, entry := range f.Resolve {
		name, address, ok := strings.Cut(entry, "=")
		if !ok || name == "" || !isAddress(address) {
			return nil, usagef("write it like --resolve git.internal=127.0.0.1:8422", "--resolve %q is not HOST[:PORT]=ADDRESS[:PORT]", entry)
		}
		name = strings.ToLower(name)
		if _, twice := m[name]; twice {
			return nil, usagef("", "--resolve names %s twice", name)
		}
		m[name] = address
	}
	return m, nil
}

// isAddress says whether s is an address literal, with or without a port.
func isAddress(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	_, err := netip.ParseAddrPort(s)
	return err == nil
}

// roots reads --cacert; nil is what the system trusts.
func (f reachFlags) roots(w *world) (*x509.CertPool, error) {
	if f.CACert == "" {
		return nil, nil
	}
	pem, err := w.read(f.CACert)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading --cacert %s: it holds no PEM certificate", f.CACert)
	}
	return pool, nil
}

// callTransport is the transport of requests that a token is there for: it adds
// token and proof, and refuses what any link of the token does not allow.
func (f reachFlags) callTransport(w *world, source client.Source) (*client.Transport, error) {
	resolve, err := f.resolve()
	if err != nil {
		return nil, err
	}
	roots, err := f.roots(w)
	if err != nil {
		return nil, err
	}
	return &client.Transport{Source: source, Resolve: resolve, RootCAs: roots, Now: w.now}, nil
}

// issuerTransport reaches the authorization server; nil if no flag asks for
// anything special.
func (f reachFlags) issuerTransport(w *world) (http.RoundTripper, error) {
	resolve, err := f.resolve()
	if err != nil {
		return nil, err
	}
	roots, err := f.roots(w)
	if err != nil || (roots == nil && resolve == nil) {
		return nil, err
	}
	var dialer net.Dialer
	return &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, resolved(resolve, address))
		},
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: handshakeTimeout, ResponseHeaderTimeout: handshakeTimeout,
	}, nil
}

// resolved is the address to dial for "host:port".
func resolved(resolve map[string]string, address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	to, ok := resolve[strings.ToLower(address)]
	if !ok {
		to, ok = resolve[strings.ToLower(host)]
	}
	if !ok {
		return address
	}
	if full, err := netip.ParseAddrPort(to); err == nil {
		return net.JoinHostPort(full.Addr().String(), strconv.Itoa(int(full.Port())))
	}
	return net.JoinHostPort(to, port)
}
