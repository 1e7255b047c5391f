package e2e

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// weather is what a network does to the connections through a proxy.
type weather string

const (
	fair      weather = "fair"
	slow      weather = "latency"   // 200 ms there and back
	stalling  weather = "stalls"    // one piece in ten is held for seconds
	resetting weather = "reset"     // connections are torn, in either direction, at any moment
	halfOpen  weather = "half-open" // those that are open lead nowhere; new ones work
	blackHole weather = "black-hole"
)

// proxy stands between the server and its database.
type proxy struct {
	t       *testing.T
	address string // where it listens
	socket  string // what it leads to
	mu      sync.Mutex
	weather weather
	lines   map[*proxyLine]bool
}

// proxyLine is one connection through a proxy.
type proxyLine struct {
	*proxy
	down, up net.Conn
	nowhere  bool // what is sent is swallowed, and nobody is told; guarded by proxy.mu
}

func newProxy(t *testing.T, c *cluster) *proxy {
	t.Helper()
	p := &proxy{t: t, address: freeAddress(t), socket: filepath.Join(c.Host, ".s.PGSQL."+c.Port), weather: fair, lines: map[*proxyLine]bool{}}
	listener, err := net.Listen("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { p.lead(conn) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		p.mu.Lock()
		for line := range p.lines {
			line.close()
		}
		p.mu.Unlock()
		all.Wait()
	})
	return p
}

// dsn leads through the proxy to the cluster's database.
func (p *proxy) dsn(c *cluster) string {
	u, err := url.Parse(c.DSN)
	if err != nil {
		p.t.Fatal(err)
	}
	u.Host, u.RawQuery = p.address, url.Values{"sslmode": {"disable"}}.Encode()
	return u.String()
}

// turn changes the weather.
func (p *proxy) turn(to weather) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.weather = to
	if to == halfOpen || to == blackHole {
		for line := range p.lines {
			line.nowhere = true
		}
	}
}

func (p *proxy) lead(down net.Conn) {
	up, err := net.Dial("unix", p.socket)
	if err != nil {
		down.Close()
		return
	}
	line := &proxyLine{proxy: p, down: down, up: up}
	p.mu.Lock()
	line.nowhere = p.weather == blackHole
	p.lines[line] = true
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { line.pass(up, down) })
	both.Go(func() { line.pass(down, up) })
	both.Wait()
	line.close()
	p.mu.Lock()
	delete(p.lines, line)
	p.mu.Unlock()
}

func (l *proxyLine) close() {
	l.down.Close()
	l.up.Close()
}

// pass hands on what comes from one end.
func (l *proxyLine) pass(to, from net.Conn) {
	piece := make([]byte, 32<<10)
	for {
		n, err := from.Read(piece)
		l.mu.Lock()
		now, nowhere := l.weather, l.nowhere
		l.mu.Unlock()
		if err != nil {
			if !nowhere || from == l.down { // a server that ends says so to nobody
				l.close()
			}
			return
		}
		switch {
		case nowhere:
			continue
		case now == slow:
			time.Sleep(100 * time.Millisecond)
		case now == stalling && rand.IntN(10) == 0:
			time.Sleep(time.Second + rand.N(3*time.Second))
		case now == resetting && rand.IntN(40) == 0:
			if c, ok := l.down.(*net.TCPConn); ok {
				_ = c.SetLinger(0) // RST, not FIN
			}
			// What was under way arrives at the server, or not.
			if rand.IntN(2) == 0 {
				_, _ = to.Write(piece[:n])
			}
			l.close()
			return
		}
		if _, err := to.Write(piece[:n]); err != nil {
			l.close()
			return
		}
	}
}

// TestFaultNetwork is E19: the network between server and PostgreSQL does what
// networks do. No request takes longer than ten seconds, nothing acknowledged is
// lost, and afterwards everything works again.
func TestFaultNetwork(t *testing.T) {
	c := newCluster(t, nil)
	p := newProxy(t, c)
	s := startIn(t, site{DB: p.dsn(c)}, loadFlags...)
	l := newLoad(t, s, 4)
	book := newLedger(l)
	for _, w := range []weather{slow, stalling, resetting, halfOpen, blackHole} {
		l.seen.mu.Lock()
		l.seen.requests, l.seen.refused, l.seen.none, l.seen.slowest = 0, 0, 0, 0
		l.seen.mu.Unlock()
		clear(book.acked)
		l.during(500 * time.Millisecond)
		p.turn(w)
		l.during(span(3*time.Second, time.Minute))
		p.turn(fair)
		l.onlyRefusals(t)
		if err := book.replay(); err != nil {
			t.Fatal(err)
		}
		said := fmt.Sprintf("%d requests, %d refused with 503 and Retry-After, slowest %v; %d acknowledged",
			l.seen.requests, l.seen.refused, l.seen.slowest.Round(time.Millisecond), book.total())
		took := l.settled(t, book, w == blackHole)
		t.Logf("E19 %s: %s, 0 lost; works again %v after it ended", w, said, took.Round(time.Millisecond))
	}
}
