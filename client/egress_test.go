package client_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
)

func gzipped(t *testing.T, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(text)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// egressAt starts a proxy and returns its URL.
func egressAt(t *testing.T, e *client.Egress) *url.URL {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	l, err := client.ListenLoopback(ctx, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- e.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		e.Transport.CloseIdleConnections()
	})
	return &url.URL{Scheme: "http", Host: l.Addr().String()}
}

// through is a program that knows nothing but its proxy.
func through(t *testing.T, proxy *url.URL, ca *authority) *http.Client {
	t.Helper()
	tr := &http.Transport{Proxy: http.ProxyURL(proxy)}
	if ca != nil {
		tr.TLSClientConfig = &tls.Config{RootCAs: ca.pool}
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func readJSON(t *testing.T, answer *http.Response) map[string]any {
	t.Helper()
	defer answer.Body.Close()
	var m map[string]any
	if err := json.NewDecoder(answer.Body).Decode(&m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestEgressForward(t *testing.T) {
	var header http.Header
	var body string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header = r.Header.Clone()
		text, _ := io.ReadAll(r.Body)
		body = string(text)
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.Header().Set("X-End", "1")
		_, _ = io.WriteString(w, "diff")
	}))
	defer s.Close()
	c := newCanary(t)
	r := &reports{}
	own := held(t, func(c *delegation.Claims) {
		c.Audience, c.Limits.AllowNetwork = []string{s.URL}, []string{"other.example"}
	})
	proxy := egressAt(t, &client.Egress{Transport: &client.Transport{
		Source: own, Report: r.report, Resolve: map[string]string{"other.example": s.Listener.Addr().String()},
	}})
	program := through(t, proxy, nil)
	// The program's own HTTP_PROXY rules leave loopback out, so it asks by hand.
	request, err := http.NewRequest(http.MethodPost, s.URL+"/repos?x=1", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Connection", "X-Secret")
	request.Header.Set("X-Secret", "1")
	request.Header.Set("Proxy-Authorization", "Basic eDp5")
	answer, err := program.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(answer.Body)
	answer.Body.Close()
	if string(text) != "diff" || body != "hello" || answer.Header.Get("X-End") != "1" || answer.Header.Get("X-Hop") != "" {
		t.Errorf("%q, sent %q, header %v", text, body, answer.Header)
	}
	if !strings.HasPrefix(header.Get("Authorization"), "DPoP ") || header.Get("DPoP") == "" {
		t.Error("the audience got no token and proof")
	}
	if header.Get("X-Secret") != "" || header.Get("Proxy-Authorization") != "" {
		t.Errorf("hop-by-hop headers went on: %v", header)
	}
	if answer, err = program.Get("http://other.example/"); err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if header.Get("Authorization") != "" || header.Get("DPoP") != "" {
		t.Error("somebody else got token or proof")
	}
	answer, err = program.Get("http://" + c.addr.String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	m := readJSON(t, answer)
	if answer.StatusCode != http.StatusForbidden || m["error"] != "access_denied" || m["reason"] != "constraint_violated" ||
		m["dimension"] != "allow_network" || m["destination"] != c.addr.String() {
		t.Errorf("%d %v", answer.StatusCode, m)
	}
	if c.connections() != 0 || len(r.all()) != 1 {
		t.Errorf("%d connections, %d reports", c.connections(), len(r.all()))
	}
	// Origin form is what a browser sends to a page it was lured to.
	plain, err := http.Get(proxy.String() + "/")
	if err != nil {
		t.Fatal(err)
	}
	plain.Body.Close()
	if plain.StatusCode != http.StatusBadRequest {
		t.Errorf("origin form: %d", plain.StatusCode)
	}
}

// A program that sends its proxy a whole https URL gets token and proof, too:
// then the proxy speaks TLS.
func TestEgressForwardTLS(t *testing.T) {
	git, tr, _ := gitAt(t, held(t, network()))
	git.nonce = "n-1"
	proxy := egressAt(t, &client.Egress{Transport: tr})
	conn, err := net.Dial("tcp", proxy.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST %s/c HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 5\r\n\r\nhello", gitURL)
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil || answer.StatusCode != http.StatusOK || git.proofs != 1 {
		t.Errorf("%v, %v, %d proofs", answer, err, git.proofs)
	}
}

func TestEgressConnect(t *testing.T) {
	ca := newAuthority(t)
	var auth string
	s := ca.serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		auth = r.Header.Get("Authorization")
		_, _ = io.WriteString(w, "inside")
	}), gitHost, "other.example")
	c := newCanary(t)
	r := &reports{}
	at := s.Listener.Addr().String()
	proxy := egressAt(t, &client.Egress{Transport: &client.Transport{
		Source: held(t, network("other.example")), Report: r.report,
		Resolve: map[string]string{gitHost: at, "other.example": at, "evil.example": c.addr.String()},
	}})
	program := through(t, proxy, ca)
	for _, u := range []string{gitURL + "/", "https://other.example/"} {
		answer, err := program.Get(u)
		if err != nil {
			t.Fatalf("%s: %v", u, err)
		}
		text, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if string(text) != "inside" || auth != "" {
			t.Errorf("%s: %q, %d bytes of Authorization", u, text, len(auth))
		}
	}
	for _, host := range []string{"evil.example:443", "other.example:22x", "other.example", "user@other.example:443", "other.example.:443"} {
		conn, err := net.Dial("tcp", proxy.Host)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", host, host)
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", host, err)
		}
		if answer.StatusCode != http.StatusForbidden && answer.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d", host, answer.StatusCode)
		}
		conn.Close()
	}
	if c.connections() != 0 {
		t.Error("a refused host was connected to")
	}
}

// tunnelTo opens a tunnel by hand.
func tunnelTo(t *testing.T, proxy *url.URL, host string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", proxy.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", host, host)
	reader := bufio.NewReader(conn)
	answer, err := http.ReadResponse(reader, &http.Request{Method: http.MethodConnect})
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatal(answer, err)
	}
	return conn, reader
}

// echoes answers every byte with itself and tells how many came in all.
func echoes(t *testing.T) (string, chan int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	total := make(chan int64, 4)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				n, _ := io.Copy(conn, conn)
				conn.Close()
				total <- n
			}()
		}
	}()
	return l.Addr().String(), total
}

// A tunnel passes max_file_size bytes each way and not one more.
func TestEgressTunnelSize(t *testing.T) {
	at, total := echoes(t)
	r := &reports{}
	proxy := egressAt(t, &client.Egress{Transport: &client.Transport{
		Source: held(t, sized), Report: r.report, Resolve: map[string]string{"files.example": at},
	}})
	conn, reader := tunnelTo(t, proxy, "files.example:443")
	if _, err := conn.Write(make([]byte, testLimit)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(reader, make([]byte, testLimit)); err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Write([]byte{1})
	if n, err := reader.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Error("the tunnel stayed open")
	}
	if n := <-total; n != testLimit {
		t.Errorf("%d bytes came out", n)
	}
	list := r.all()
	if len(list) != 1 || list[0].Refusal.Dimension != delegation.DimensionSize || list[0].Method != http.MethodConnect {
		t.Errorf("reports %+v", list)
	}
}

// A tunnel ends with the credential it was opened with, and when nothing moves.
func TestEgressTunnelEnds(t *testing.T) {
	at, total := echoes(t)
	end := time.Now().Add(time.Minute)
	short := held(t, func(c *delegation.Claims) { c.Expires, c.Limits.AllowNetwork = end, []string{"files.example"} })
	resolve := map[string]string{"files.example": at}
	over := egressAt(t, &client.Egress{Transport: &client.Transport{
		Source: short, Resolve: resolve, Now: func() time.Time { return short.Expires.Add(-50 * time.Millisecond) },
	}})
	idle := egressAt(t, &client.Egress{Idle: 50 * time.Millisecond, Transport: &client.Transport{Source: short, Resolve: resolve}})
	for _, proxy := range []*url.URL{over, idle} {
		_, reader := tunnelTo(t, proxy, "files.example:443")
		if _, err := reader.ReadByte(); err == nil {
			t.Error("the tunnel stayed open")
		}
		<-total
	}
	// The end of one direction leaves the other open.
	proxy := egressAt(t, &client.Egress{Transport: &client.Transport{Source: short, Resolve: resolve}})
	conn, reader := tunnelTo(t, proxy, "files.example:443")
	_, _ = io.WriteString(conn, "ping")
	_ = conn.(*net.TCPConn).CloseWrite()
	if text, err := io.ReadAll(reader); err != nil || string(text) != "ping" {
		t.Errorf("%q, %v", text, err)
	}
}

// An answer that grows beyond the limit breaks off, so that nobody takes what
// came for the whole.
func TestEgressAnswerCut(t *testing.T) {
	tr, r := filesAt(t, func(w http.ResponseWriter, _ *http.Request) {
		w.(http.Flusher).Flush()
		_, _ = w.Write(make([]byte, 10*testLimit))
	})
	answer, err := through(t, egressAt(t, &client.Egress{Transport: tr}), nil).Get("http://files.example/")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil || len(text) > testLimit {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	if len(r.all()) != 1 {
		t.Error("it was not reported")
	}
}

func TestListenLoopback(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:0", "example.com:0", "127.0.0.1"} {
		if l, err := client.ListenLoopback(context.Background(), address); err == nil {
			l.Close()
			t.Errorf("listens on %s", address)
		}
	}
}
