package client_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/kavach-dev/kavach/client"
)

// A header that was put into the map by hand, in another spelling, is the same
// header on the wire: neither token nor proof goes to somebody else in one, and
// an audience gets one Authorization.
func TestTransportHeaderSpelling(t *testing.T) {
	ca := newAuthority(t)
	seen := make(chan http.Header, 2)
	s := ca.serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header }), gitHost, "other.example")
	cred, at := held(t, network("other.example")), s.Listener.Addr().String()
	tr := &client.Transport{
		Source: cred, RootCAs: ca.pool, Resolve: map[string]string{gitHost: at, "other.example": at},
	}
	t.Cleanup(tr.CloseIdleConnections)
	for _, url := range []string{"https://other.example/", gitURL + "/"} {
		r, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"authorization", "dpop", "x-copy"} {
			r.Header[name] = []string{"DPoP " + string(cred.Token)}
		}
		r.Header["host"], r.Header["content-length"], r.Header["transfer-encoding"] = []string{"evil.example"}, []string{"7"}, []string{"chunked"}
		answer, err := tr.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		got := <-seen
		want := 0
		if url == gitURL+"/" {
			want = 1
		}
		if a, p := len(got["Authorization"]), len(got["Dpop"]); a != want || p != want {
			t.Errorf("%s: %d times Authorization, %d times DPoP", url, a, p)
		}
		if want == 0 && got.Get("X-Copy") != "" {
			t.Error("somebody else got the token in another header")
		}
	}
}

// RFC 9110 section 9.3.6: the target of a CONNECT is host and port and nothing
// else; a Host header is none.
func TestEgressConnectTarget(t *testing.T) {
	at, _ := echoes(t)
	proxy := egressAt(t, &client.Egress{Transport: &client.Transport{
		Source: held(t, network("files.example")), Resolve: map[string]string{"files.example": at},
	}})
	for _, target := range []string{"/", "/x", "files.example:443/x", "files.example:443?x", "//files.example:443"} {
		conn, err := net.Dial("tcp", proxy.Host)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: files.example:443\r\n\r\n", target)
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode != http.StatusBadRequest {
			t.Errorf("CONNECT %s: %d", target, answer.StatusCode)
		}
		conn.Close()
	}
}
