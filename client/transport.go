package client

import (
	"context"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"time"
)

// Transport is an http.RoundTripper that adds token and proof where they
// belong and refuses what any link of the token does not allow. The package
// documentation says what a request meets. Fields are not changed after the
// first request; its methods are safe for several goroutines.
type Transport struct {
	// Source yields the credential, asked at each request. Required.
	Source Source
	// Resolve is the runtime's own word on where a name is: "host" or
	// "host:port" to an address, or to address and port. It replaces resolution,
	// and the addresses it names are not refused.
	Resolve map[string]string
	// AllowAddresses are address ranges that this runtime may connect to
	// whatever kind they are of: loopback, link-local, private behind a
	// wildcard.
	AllowAddresses []netip.Prefix
	// RootCAs verify servers; nil is the system's.
	RootCAs *x509.CertPool
	// Report is told of every refusal and, if ReportAllowed or the token
	// demands it (audit_required), of a request that is about to leave. If the
	// token demands it, an error of Report refuses the request.
	Report func(context.Context, Attempt) error
	// ReportAllowed reports requests outside the audience that are allowed.
	ReportAllowed bool
	// Lookup resolves a host; nil asks the system.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Dial connects to a checked address; nil is a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// RoundTrip sends one request, or refuses it with a *Refused.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	return nil, failed("not built")
}

// CloseIdleConnections closes connections that nobody uses.
func (t *Transport) CloseIdleConnections() {}
