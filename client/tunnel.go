package client

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// tunnels are the connections that were taken from the HTTP server, which
// forgets them. The zero value is usable.
type tunnels struct {
	mu     sync.Mutex // guards closed and open
	closed bool
	open   map[net.Conn]struct{}
	wg     sync.WaitGroup
}

// add reports whether a tunnel may still be opened.
func (t *tunnels) add(conn net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	if t.open == nil {
		t.open = map[net.Conn]struct{}{}
	}
	t.open[conn] = struct{}{}
	t.wg.Add(1)
	return true
}

func (t *tunnels) remove(conn net.Conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, conn)
	t.wg.Done()
}

// close ends every tunnel; none is opened after it.
func (t *tunnels) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for conn := range t.open {
		_ = conn.Close()
	}
}

func (t *tunnels) wait() { t.wg.Wait() }

// connect opens a tunnel to a host that the token lets the agent connect to.
func (e *Egress) connect(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	// RFC 9110 section 9.3.6: "only the host and port"; both, because there is
	// no scheme to take the port from.
	if _, port, err := net.SplitHostPort(r.Host); err != nil || port == "" || r.RequestURI != r.Host {
		answer(w, http.StatusBadRequest, map[string]any{
			"error": "invalid_request", "error_description": "CONNECT needs host:port",
		})
		return
	}
	attempt := Attempt{Time: e.Transport.now(), Method: http.MethodConnect, Destination: reportedHost(r.Host), Size: -1}
	// An https URL without a port of its own stands for the tunnel.
	v, err := e.Transport.judge(ctx, attempt, tunnelURL(r.Host), true)
	if err == nil {
		err = v.announce(ctx)
	}
	if err != nil {
		e.fail(w, r, err)
		return
	}
	far, err := e.Transport.dial(ctx, v.addresses)
	if err != nil {
		e.fail(w, r, err)
		return
	}
	defer far.Close()
	near, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		e.fail(w, r, err)
		return
	}
	defer near.Close()
	if !e.tunnels.add(near) {
		return
	}
	defer e.tunnels.remove(near)
	if _, err := io.WriteString(near, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	// A hijacked connection's context ends only with the server.
	e.pipe(context.WithoutCancel(ctx), v, near, buffered, far)
}

// tunnelURL is the target of a CONNECT. Port 443 may stand in it, which
// targetOf takes, as it stands in allow_network.
func tunnelURL(host string) *url.URL { return &url.URL{Scheme: "https", Host: host} }

// pipe copies both ways until one side ends both ways, nothing moves any more,
// a direction reaches max_file_size, or the credential ends.
func (e *Egress) pipe(ctx context.Context, v *verdict, near net.Conn, client io.Reader, far net.Conn) {
	idle := e.Idle
	if idle <= 0 {
		idle = 2 * time.Minute
	}
	shut := func() { _ = near.Close(); _ = far.Close() }
	quiet := time.AfterFunc(idle, shut)
	defer quiet.Stop()
	over := time.AfterFunc(v.ends().Sub(e.Transport.now()), shut)
	defer over.Stop()
	var both sync.WaitGroup
	one := func(to net.Conn, from io.Reader) {
		m := v.newMeter(ctx)
		_, err := io.Copy(to, readerFunc(func(p []byte) (int, error) {
			n, err := m.read(from, p)
			quiet.Reset(idle)
			return n, err
		}))
		if err != nil {
			shut()
			return
		}
		// The end of one direction is passed on; the other may still speak.
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		} else {
			shut()
		}
	}
	both.Go(func() { one(far, client) })
	one(near, far)
	both.Wait()
}

// readerFunc hides everything of a connection but Read, so that io.Copy does
// not go around the meter.
type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
