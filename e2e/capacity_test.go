package e2e

import (
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// asker asks for tokens of a client, each from another address, and keeps count
// of what it heard.
type asker struct {
	target, authorization string
	http                  *http.Client

	mu    sync.Mutex
	good  []time.Duration // how long each token took
	shed  int             // 429 or 503, with Retry-After
	wrong map[string]int
	// dropped connections ended before an answer. Under a flood some do, and which
	// side was late is not told apart: they are shown, and bounded by fine.
	dropped int
}

func newAsker(s *server, machine credential) *asker {
	return &asker{target: s.Issuer + "/oauth/token", authorization: basic(machine.ID, machine.Secret), wrong: map[string]int{},
		http: &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConns: 0, MaxIdleConnsPerHost: 20_000}}}
}

const machineForm = "grant_type=client_credentials&scope=kavach%3Averify"

func (a *asker) ask() {
	request, _ := http.NewRequest("POST", a.target, strings.NewReader(machineForm))
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Authorization", a.authorization)
	request.Header.Set("X-Forwarded-For", fmt.Sprintf("10.%d.%d.%d", rand.IntN(256), rand.IntN(256), 1+rand.IntN(250)))
	began := time.Now()
	response, err := a.http.Do(request)
	var body []byte
	if err == nil {
		body, err = io.ReadAll(response.Body)
		response.Body.Close()
	}
	took := time.Since(began)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err != nil && !os.IsTimeout(err):
		a.dropped++
	case err != nil:
		a.wrong["no answer in time"]++
	case response.StatusCode == http.StatusOK && strings.Contains(string(body), `"access_token"`):
		a.good = append(a.good, took)
	case (response.StatusCode == http.StatusServiceUnavailable || response.StatusCode == http.StatusTooManyRequests) && response.Header.Get("Retry-After") != "":
		a.shed++
	default:
		a.wrong[fmt.Sprintf("%d %.100s", response.StatusCode, body)]++
	}
}

// busy asks from so many places at once, each again as soon as it has its
// answer and a pause is over, and says how many tokens a second that gave.
func (a *asker) busy(places int, pause, d time.Duration) float64 {
	a.mu.Lock()
	before := len(a.good)
	a.mu.Unlock()
	began := time.Now()
	end := began.Add(d)
	var crowd sync.WaitGroup
	for range places {
		crowd.Go(func() {
			if pause > 0 {
				time.Sleep(rand.N(pause))
			}
			for time.Now().Before(end) {
				a.ask()
				if pause > 0 {
					time.Sleep(pause/2 + rand.N(pause))
				}
			}
		})
	}
	crowd.Wait()
	return float64(len(a.good)-before) / time.Since(began).Seconds()
}

// flood asks so often a second, whatever becomes of it, and says how many
// tokens a second that gave.
func (a *asker) flood(rate float64, d time.Duration) float64 {
	before := len(a.good)
	began := time.Now()
	var all sync.WaitGroup
	for sent := 0; time.Since(began) < d; time.Sleep(2 * time.Millisecond) {
		for due := int(time.Since(began).Seconds() * rate); sent < due; sent++ {
			all.Go(a.ask)
		}
	}
	all.Wait()
	return float64(len(a.good)-before) / time.Since(began).Seconds()
}

// quantile is of how long the tokens took.
func (a *asker) quantile(q float64) time.Duration {
	if len(a.good) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(a.good))
	return sorted[int(q*float64(len(sorted)-1))].Round(100 * time.Microsecond)
}

func (a *asker) figures() string {
	return fmt.Sprintf("%d tokens, p50 %v, p99 %v, at most %v; %d shed, %d dropped", len(a.good), a.quantile(.5), a.quantile(.99), a.quantile(1), a.shed, a.dropped)
}

// fine: everything was answered with a token, or refused properly.
func (a *asker) fine(t *testing.T) {
	t.Helper()
	for _, what := range slices.Sorted(maps.Keys(a.wrong)) {
		t.Errorf("%d × %s", a.wrong[what], what)
	}
	if all := len(a.good) + a.shed; a.dropped > all/10 {
		t.Errorf("%d connections were dropped, %d requests answered", a.dropped, all)
	}
	if len(a.good) == 0 {
		t.Error("no token at all")
	}
}

func (s *server) machine(t *testing.T) (c credential) {
	t.Helper()
	decode(t, s.cli("", "client", "add", "machine", "--scope", "kavach:verify", "--json"), &c)
	return c
}

// files is how many files the server has open, −1 where that is not known.
func (s *server) files() int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	if err != nil {
		return -1
	}
	return len(entries)
}

// slowly is a client that keeps a connection busy for as long as it is let, and
// then does so on another, until told to stop. begin is what it sends at once,
// then drop goes out once a second; it does not read.
func slowly(address, begin, drop string, stop chan struct{}, cut *atomic.Int64) {
	for {
		connection, err := (&net.Dialer{Timeout: patience}).Dial("tcp", address)
		if err == nil {
			connection.(*net.TCPConn).SetReadBuffer(1024)
			_, err = io.WriteString(connection, begin)
		}
		for err == nil {
			select {
			case <-stop:
				connection.Close()
				return
			case <-time.After(time.Second):
				connection.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
				if _, err = io.WriteString(connection, drop); err != nil && os.IsTimeout(err) {
					err = nil
				}
			}
		}
		if connection != nil {
			connection.Close()
		}
		cut.Add(1)
		select {
		case <-stop:
			return
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// TestFaultSlowClients is E13: headers, bodies and readers that take their time
// cost everybody else nothing, and the server little.
func TestFaultSlowClients(t *testing.T) {
	s := startIn(t, site{Data: t.TempDir() + "/data"}, loadFlags...)
	a := newAsker(s, s.machine(t))
	a.busy(4, 0, time.Second)
	atRest, files := s.resident(), s.files()

	address := strings.TrimPrefix(s.Issuer, "http://")
	host := " HTTP/1.1\r\nHost: " + address + "\r\n"
	document := "GET /.well-known/oauth-authorization-server" + host + "\r\n"
	stop := make(chan struct{})
	var clients sync.WaitGroup
	var cut atomic.Int64
	many := times(300, 2000)
	for i := range many {
		begin, drop := "GET /.well-known/jwks.json"+host+"X-a: ", "a" // slow headers
		switch i % 3 {
		case 1: // a slow body
			begin = "POST /oauth/token" + host + "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 9000\r\n\r\ngrant_type="
		case 2: // asks for more and more, and reads nothing
			begin, drop = strings.Repeat(document, 40), strings.Repeat(document, 40)
		}
		clients.Go(func() { slowly(address, begin, drop, stop, &cut) })
	}
	slow := newAsker(s, credential{})
	slow.authorization = a.authorization
	most, mostFiles := 0, 0
	for end := time.Now().Add(span(6500*time.Millisecond, 75*time.Second)); time.Now().Before(end); {
		slow.busy(4, 50*time.Millisecond, 500*time.Millisecond)
		most, mostFiles = max(most, s.resident()), max(mostFiles, s.files())
	}
	close(stop)
	clients.Wait()
	slow.fine(t)
	if most > 200 {
		t.Errorf("the server grew to %d MiB", most)
	}
	if cut.Load() == 0 {
		t.Error("no slow client was cut off: a header may take five seconds")
	}
	if files >= 0 && mostFiles < files+many/2 {
		t.Errorf("%d files at most: %d slow clients were not there", mostFiles, many)
	}
	t.Logf("E13: %d slow clients, cut off %d times; beside them %s; %d MiB at rest, %d MiB and %d files at most", many, cut.Load(), slow.figures(), atRest, most, mostFiles)
}

// TestFaultManyConnections is E14: connections at rest cost memory and nothing
// else.
func TestFaultManyConnections(t *testing.T) {
	s := startIn(t, site{Data: t.TempDir() + "/data"}, loadFlags...)
	machine := s.machine(t)
	newAsker(s, machine).busy(8, 0, time.Second)
	atRest := s.resident()

	address := strings.TrimPrefix(s.Issuer, "http://")
	idle, active := times(1000, 10_000), times(100, 1000)
	text := "GET /.well-known/jwks.json HTTP/1.1\r\nHost: " + address + "\r\n\r\n"
	var open []net.Conn
	defer func() {
		for _, connection := range open {
			connection.Close()
		}
	}()
	for range idle {
		connection, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatalf("connection %d: %v", len(open), err)
		}
		open = append(open, connection)
		buffer := make([]byte, 64)
		connection.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(connection, text); err != nil {
			t.Fatal(err)
		}
		if n, err := connection.Read(buffer); err != nil || !strings.HasPrefix(string(buffer[:n]), "HTTP/1.1 200") {
			t.Fatalf("connection %d: %v %s", len(open), err, buffer[:n])
		}
	}
	withIdle := s.resident()
	a := newAsker(s, machine)
	rate := a.busy(active, 4*time.Second, span(5*time.Second, 60*time.Second))
	a.fine(t)
	each := float64(withIdle-atRest) * 1024 / float64(idle)
	if each > 40 {
		t.Errorf("a connection at rest takes %.0f KiB", each)
	}
	t.Logf("E14: %d connections at rest, %d KiB each, %d active with %.0f tokens a second: %s; %d MiB at the end", idle, int(each), active, rate, a.figures(), s.resident())
}

// TestFaultOverload is E15: five times as much as it can do is refused in time
// and properly, what can be done is done, and afterwards all is as before.
func TestFaultOverload(t *testing.T) {
	s := startIn(t, site{Data: t.TempDir() + "/data"}, loadFlags...)
	machine := s.machine(t)
	normal := newAsker(s, machine)
	normal.busy(32, 0, time.Second) // warm
	peak := normal.busy(32, 0, span(3*time.Second, 15*time.Second))
	normal.fine(t)
	atRest := s.resident()

	over := newAsker(s, machine)
	most := make(chan int)
	stop := make(chan struct{})
	go func() {
		top := 0
		for {
			select {
			case <-stop:
				most <- top
				return
			case <-time.After(100 * time.Millisecond):
				top = max(top, s.resident())
			}
		}
	}()
	good := over.flood(5*peak, span(5*time.Second, 60*time.Second))
	close(stop)
	top := <-most
	over.fine(t)
	began := time.Now()
	after := newAsker(s, machine)
	after.ask()
	recovered := time.Since(began)
	again := after.busy(32, 0, span(2*time.Second, 10*time.Second))
	after.fine(t)
	if after.shed > 0 {
		t.Errorf("%d requests were shed after the overload", after.shed)
	}
	t.Logf("E15: peak %.0f tokens a second, at five times that %.0f (%.0f %%): %s; %d MiB before, %d MiB at most; the next token after %v, then %.0f a second",
		peak, good, 100*good/peak, over.figures(), atRest, top, recovered.Round(time.Millisecond), again)
}

// TestFaultSignInRush is the other half of E15: passwords are hashed so many at
// a time as there are processors, 32 MiB each, however many want to sign in.
func TestFaultSignInRush(t *testing.T) {
	s := startIn(t, site{Data: t.TempDir() + "/data"}, loadFlags...)
	client := register(t, s.Issuer)
	many := times(48, 1000)
	var people sync.WaitGroup
	var in, shed, most atomic.Int64
	began := time.Now()
	for i := range many {
		people.Go(func() {
			p := newPerson(t, "dev", "dev")
			p.http.Timeout = time.Minute
			p.http.Transport = &watched{http.DefaultTransport, &seen{wrong: map[string]int{}}}
			back, err := p.authorize(client.request("kavach:verify", url.Values{}).url, choice{})
			shown, isPage := err.(page)
			switch {
			case err == nil && back.Query().Get("code") != "":
				in.Add(1)
			case isPage && shown.status == http.StatusServiceUnavailable && shown.header.Get("Retry-After") != "":
				shed.Add(1)
			default:
				t.Errorf("person %d: %.200s %v", i, fmt.Sprint(err), back)
			}
		})
	}
	done := make(chan struct{})
	go func() { people.Wait(); close(done) }()
	for waiting := true; waiting; {
		select {
		case <-done:
			waiting = false
		case <-time.After(20 * time.Millisecond):
			most.Store(max(most.Load(), int64(s.resident())))
		}
	}
	if in.Load() == 0 {
		t.Error("nobody got in")
	}
	if most.Load() > 400 {
		t.Errorf("the server grew to %d MiB", most.Load())
	}
	t.Logf("E15: %d people signed in at once: %d were let in and %d told to come back within %v; %d MiB at most", many, in.Load(), shed.Load(), time.Since(began).Round(time.Millisecond), most.Load())
}
