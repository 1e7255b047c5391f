package client_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
)

const testLimit = 1000

func asRefused(err error, target **client.Refused) bool { return errors.As(err, target) }

func sized(c *delegation.Claims) {
	n := int64(testLimit)
	c.Limits = delegation.Limits{MaxFileSize: &n, AllowNetwork: []string{"files.example"}}
}

// filesAt is a server that counts what reaches it.
func filesAt(t *testing.T, h http.HandlerFunc) (*client.Transport, *reports) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	r := &reports{}
	tr := &client.Transport{Source: held(t, sized), Report: r.report, Resolve: map[string]string{"files.example": s.Listener.Addr().String()}}
	t.Cleanup(tr.CloseIdleConnections)
	return tr, r
}

func TestTransportRequestSize(t *testing.T) {
	for _, c := range []struct {
		name  string
		size  int
		known bool
		ok    bool
	}{
		{"exactly", testLimit, true, true}, {"one more", testLimit + 1, true, false},
		{"exactly, streamed", testLimit, false, true}, {"one more, streamed", testLimit + 1, false, false},
		{"much more, streamed", 1 << 20, false, false}, {"nothing, streamed", 0, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			type seen struct {
				n   int
				err error
			}
			requests := make(chan seen, 1)
			tr, r := filesAt(t, func(_ http.ResponseWriter, r *http.Request) {
				text, err := io.ReadAll(r.Body)
				requests <- seen{len(text), err}
			})
			var body io.Reader = bytes.NewReader(make([]byte, c.size))
			if !c.known {
				body = io.NopCloser(body)
			}
			answer, err := (&http.Client{Transport: tr}).Post("http://files.example/", "application/octet-stream", body)
			if c.ok {
				if err != nil {
					t.Fatal(err)
				}
				answer.Body.Close()
				if got := <-requests; got.n != c.size || got.err != nil {
					t.Errorf("the server read %d bytes: %v", got.n, got.err)
				}
				return
			}
			wantRefused(t, err, r, delegation.ConstraintViolated, delegation.DimensionSize)
			if c.known {
				if len(requests) != 0 {
					t.Error("a byte left")
				}
				return
			}
			// It was on its way; no byte beyond the limit came, and the server
			// saw that it is not whole. (It may not have seen it at all.)
			tr.CloseIdleConnections()
			select {
			case got := <-requests:
				if got.n > testLimit || got.err == nil {
					t.Errorf("the server read %d bytes as a whole body: %v", got.n, got.err)
				}
			default:
			}
		})
	}
}

func TestTransportResponseSize(t *testing.T) {
	tr, r := filesAt(t, func(w http.ResponseWriter, r *http.Request) {
		n := testLimit
		if strings.Contains(r.URL.Path, "more") {
			n++
		}
		if strings.Contains(r.URL.Path, "stream") {
			w.(http.Flusher).Flush()
		} else if r.Method == http.MethodHead {
			w.Header().Set("Content-Length", "1001")
		}
		_, _ = w.Write(make([]byte, n))
	})
	for _, path := range []string{"/exact", "/exact-stream"} {
		answer, err := get(t, tr, "http://files.example"+path)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(answer.Body); err != nil || len(text) != testLimit {
			t.Errorf("%s: %d bytes, %v", path, len(text), err)
		}
	}
	if answer, err := (&http.Client{Transport: tr}).Head("http://files.example/more"); err != nil || answer.ContentLength != testLimit+1 {
		t.Error("HEAD:", err)
	}
	_, err := get(t, tr, "http://files.example/more")
	wantRefused(t, err, r, delegation.ConstraintViolated, delegation.DimensionSize)
	answer, err := get(t, tr, "http://files.example/more-stream")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	if len(text) != testLimit {
		t.Errorf("%d bytes came through", len(text))
	}
	var refused *client.Refused
	if !asRefused(err, &refused) || refused.Refusal.Dimension != delegation.DimensionSize || refused.Status != http.StatusOK {
		t.Errorf("the end of it is %v", err)
	}
	if _, again := answer.Body.Read(make([]byte, 1)); !asRefused(again, &refused) {
		t.Errorf("reading on: %v", again)
	}
	if len(r.all()) != 2 {
		t.Errorf("%d reports for two refusals", len(r.all()))
	}
}

// HTTP/2 has no chunks to cut; the stream ends with an error all the same.
func TestTransportSizeHTTP2(t *testing.T) {
	seen := make(chan int, 2)
	ca := newAuthority(t)
	s := ca.serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 2 {
			t.Errorf("the server speaks %s", r.Proto)
		}
		text, err := io.ReadAll(r.Body)
		if err == nil && len(text) > testLimit {
			t.Errorf("%d bytes came as a whole", len(text))
		}
		seen <- len(text)
	}), "files.example")
	r := &reports{}
	tr := &client.Transport{
		Source: held(t, sized), Report: r.report, RootCAs: ca.pool,
		Resolve: map[string]string{"files.example": s.Listener.Addr().String()},
	}
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr}
	answer, err := c.Post("https://files.example/", "text/plain", io.NopCloser(bytes.NewReader(make([]byte, testLimit))))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	_, err = c.Post("https://files.example/", "text/plain", io.NopCloser(bytes.NewReader(make([]byte, testLimit+1))))
	wantRefused(t, err, r, delegation.ConstraintViolated, delegation.DimensionSize)
	if n := <-seen; n != testLimit {
		t.Errorf("%d bytes of an allowed body", n)
	}
}

// A connection that changed its protocol is measured each way.
func TestTransportUpgrade(t *testing.T) {
	total := make(chan int64, 1)
	tr, r := filesAt(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		n, _ := io.Copy(conn, buffered)
		total <- n
	})
	request, err := http.NewRequest(http.MethodGet, "http://files.example/", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", "echo")
	answer, err := tr.RoundTrip(request)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(answer, err)
	}
	duplex := answer.Body.(io.ReadWriteCloser)
	if _, err := duplex.Write(make([]byte, testLimit)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(duplex, make([]byte, testLimit)); err != nil {
		t.Fatal(err)
	}
	var refused *client.Refused
	for range 2 {
		if n, err := duplex.Write([]byte{1}); n != 0 || !asRefused(err, &refused) {
			t.Errorf("%d more bytes, %v", n, err)
		}
	}
	duplex.Close()
	if n := <-total; n != testLimit || len(r.all()) != 1 {
		t.Errorf("%d bytes left, %d reports", n, len(r.all()))
	}
}

// A compressed answer is as large as what it becomes.
func TestTransportCompressed(t *testing.T) {
	tr, _ := filesAt(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(gzipped(t, make([]byte, 1<<20)))
	})
	answer, err := get(t, tr, "http://files.example/")
	if err == nil {
		var text []byte
		text, err = io.ReadAll(answer.Body)
		if len(text) > testLimit {
			t.Errorf("%d bytes came through", len(text))
		}
	}
	var refused *client.Refused
	if !asRefused(err, &refused) {
		t.Errorf("a megabyte came through: %v", err)
	}
}
