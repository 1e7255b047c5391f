package client

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Egress is a forward proxy that puts the checks of a Transport around a
// program in any language: HTTP_PROXY and HTTPS_PROXY name it.
//
// A plain request (absolute form) is judged as the Transport judges it; one to
// an audience of the token gets token and proof. Of a CONNECT it sees the host,
// the addresses and the number of bytes, and nothing of what is inside: it can
// add no token, tell no method and see no redirect, except that the redirect's
// target needs a CONNECT of its own.
//
// Whoever reaches the listener acts with the agent's authority. It belongs on
// loopback.
type Egress struct {
	// Transport judges and sends. Required.
	Transport *Transport
	// Idle ends a tunnel in which nothing moves; 0 is two minutes.
	Idle time.Duration
	// Log hears of failures that are no refusals; nil discards.
	Log *slog.Logger
}

// ListenLoopback listens on a loopback address and refuses any other.
func ListenLoopback(ctx context.Context, address string) (net.Listener, error) {
	return nil, failed("not built")
}

// Serve answers on l until ctx ends, then closes it and every tunnel.
func (e *Egress) Serve(ctx context.Context, l net.Listener) error { return failed("not built") }

// ServeHTTP proxies one request or opens one tunnel.
func (e *Egress) ServeHTTP(w http.ResponseWriter, r *http.Request) {}
