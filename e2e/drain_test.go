package e2e

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// TestDrain: on SIGTERM the server finishes the request that is under way and
// exits 0; what it acknowledged is there after the next start.
func TestDrain(t *testing.T) {
	s := start(t, loadFlags...)
	if s.replicas != nil {
		t.Skip("this is about one process; TestReplicasRoll is about many")
	}
	l := newLoad(t, s, 2)
	book := newLedger(l)
	l.begin()

	c := register(t, s.Issuer)
	body := url.Values{"grant_type": {"refresh_token"}, "client_id": {c.ID}, "refresh_token": {"none"}}.Encode()
	slow, err := net.Dial("tcp", s.direct())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	fmt.Fprintf(slow, "POST /oauth/token HTTP/1.1\r\nHost: %s\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s", strings.TrimPrefix(s.Issuer, "http://"), len(body), body[:10])
	time.Sleep(300 * time.Millisecond)

	ended := make(chan error, 1)
	go func() { ended <- s.stop() }()
	time.Sleep(300 * time.Millisecond) // the signal is there before the rest of the body
	fmt.Fprint(slow, body[10:])
	answer, err := http.ReadResponse(bufio.NewReader(slow), nil)
	if err != nil {
		t.Fatalf("the request that was under way got no answer: %v", err)
	}
	if answer.StatusCode != http.StatusBadRequest {
		t.Errorf("the request that was under way got %d", answer.StatusCode)
	}
	if err := <-ended; err != nil {
		t.Errorf("the server ended with %v", err)
	}
	l.end()
	s.run()
	if err := book.check(true); err != nil {
		t.Error(err)
	}
}
