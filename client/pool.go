package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// maxTargets bounds how many targets keep idle connections.
	maxTargets  = 32
	dialTimeout = 10 * time.Second
	idleTimeout = 60 * time.Second
)

// pool keeps one http.Transport for each target and set of checked addresses,
// so that an idle connection is used again only for a request that was allowed
// to go to that very place. Its zero value is usable.
type pool struct {
	mu sync.Mutex // guards entries
	// entries are in the order of their last use, latest last.
	entries []poolEntry
}

type poolEntry struct {
	key       string
	transport *http.Transport
}

func (p *pool) transport(t *Transport, to target, addresses []netip.AddrPort) *http.Transport {
	sorted := slices.SortedFunc(slices.Values(addresses), netip.AddrPort.Compare)
	var b strings.Builder
	b.WriteString(to.scheme + "://" + to.destination())
	for _, address := range sorted {
		b.WriteString(" " + address.String())
	}
	key := b.String()
	p.mu.Lock()
	defer p.mu.Unlock()
	at := slices.IndexFunc(p.entries, func(e poolEntry) bool { return e.key == key })
	if at >= 0 {
		entry := p.entries[at]
		p.entries = append(slices.Delete(p.entries, at, at+1), entry)
		return entry.transport
	}
	if len(p.entries) >= maxTargets {
		p.entries[0].transport.CloseIdleConnections()
		p.entries = slices.Delete(p.entries, 0, 1)
	}
	entry := poolEntry{key, t.newTransport(slices.Clone(addresses))}
	p.entries = append(p.entries, entry)
	return entry.transport
}

func (p *pool) closeIdle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, entry := range p.entries {
		entry.transport.CloseIdleConnections()
	}
}

// newTransport connects to these addresses and to no other, whatever name the
// request has. Proxy is nil: an environment variable does not decide who sees
// the token.
func (t *Transport) newTransport(addresses []netip.AddrPort) *http.Transport {
	return &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return t.dial(ctx, addresses)
		},
		TLSClientConfig:        &tls.Config{RootCAs: t.RootCAs, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        idleTimeout,
		TLSHandshakeTimeout:    dialTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 1 << 20,
	}
}

// dial tries the checked addresses one after the other.
func (t *Transport) dial(ctx context.Context, addresses []netip.AddrPort) (net.Conn, error) {
	connect := t.Dial
	if connect == nil {
		connect = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	var failures []error
	for _, address := range addresses {
		conn, err := connect(ctx, "tcp", address.String())
		if err == nil {
			return conn, nil
		}
		failures = append(failures, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(failures...)
}
