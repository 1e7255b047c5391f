package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// acked is what one worker was told had happened.
type acked struct {
	clients     []string // registered
	delegations []string // token ids
	revoked     []string // sub-tokens that must be dead
	live        []string // sub-tokens that must be alive
	refresh     string   // newest refresh token; "" while an answer is missing
	access      string
}

// TestKillNine kills the server twenty times under load. Whatever was
// acknowledged must be there afterwards, and the log must verify.
func TestKillNine(t *testing.T) {
	const cycles, workers = 20, 4
	s := start(t)
	dev := newPerson(t, "dev", "dev")
	auditor := register(t, s.Issuer)
	families := make([]*oauthClient, workers)
	state := make([]acked, workers)
	for i := range families {
		families[i] = register(t, s.Issuer)
	}
	var total, slowest time.Duration
	var acknowledged int
	for cycle := range cycles {
		for i, c := range families {
			if state[i].refresh == "" { // its last answer was lost: begin a new family
				got := c.signIn(dev, "kavach:verify kavach:delegate kavach:audit", choice{})
				state[i].refresh, state[i].access = got.Refresh, got.Access
			}
		}
		stop := make(chan struct{})
		var load sync.WaitGroup
		for i := range workers {
			load.Go(func() { work(s.Issuer, families[i], &state[i], stop) })
		}
		time.Sleep(200*time.Millisecond + rand.N(800*time.Millisecond))
		s.kill()
		close(stop)
		load.Wait()

		begin := time.Now()
		s.run()
		took := time.Since(begin)
		total += took
		slowest = max(slowest, took)

		reader := auditor.signIn(dev, "kavach:verify kavach:audit audit:read", choice{tick: []string{"audit:read"}}).Access
		for i := range state {
			a := &state[i]
			acknowledged += len(a.clients) + len(a.delegations) + len(a.revoked)
			if err := check(t, s, reader, families[i], a); err != nil {
				t.Fatalf("cycle %d: %v", cycle, err)
			}
			*a = acked{refresh: a.refresh, access: a.access}
		}
		if out, err := s.tryCLI("", "audit", "verify"); err != nil {
			t.Fatalf("cycle %d: the log does not verify: %v\n%s", cycle, err, out)
		}
	}
	if acknowledged < cycles*workers {
		t.Errorf("only %d operations were acknowledged: this was no load", acknowledged)
	}
	t.Logf("%d kills, %d acknowledged operations checked; ready again after %v on average, %v at most", cycles, acknowledged, (total / cycles).Round(time.Millisecond), slowest.Round(time.Millisecond))
}

// work registers, delegates, revokes and refreshes until the server is gone.
func work(issuer string, c *oauthClient, a *acked, stop chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		switch n % 4 {
		case 0:
			response, err := http.Post(issuer+"/oauth/register", "application/json", strings.NewReader(`{"client_name":"load","redirect_uris":["http://127.0.0.1:4711/callback"],"token_endpoint_auth_method":"none"}`))
			if err != nil {
				return
			}
			var answer struct {
				ID string `json:"client_id"`
			}
			err = json.NewDecoder(response.Body).Decode(&answer)
			response.Body.Close()
			if err != nil {
				return
			}
			if response.StatusCode == http.StatusCreated {
				a.clients = append(a.clients, answer.ID)
			}
		case 1, 2:
			status, result, _, err := callTool(issuer, a.access, "delegate", map[string]any{"agent": "code-reviewer", "scopes": []string{"kavach:verify"}, "ttl_seconds": 600})
			if err != nil {
				return
			}
			made, _ := result["structuredContent"].(map[string]any)
			if status != http.StatusOK || made == nil {
				continue
			}
			id, token := made["token_id"].(string), made["token"].(string)
			a.delegations = append(a.delegations, id)
			if n%4 == 1 {
				a.live = append(a.live, token)
				continue
			}
			status, result, _, err = callTool(issuer, a.access, "revoke", map[string]any{"token_id": id})
			if err != nil {
				return
			}
			if status == http.StatusOK && result["isError"] != true {
				a.revoked = append(a.revoked, token)
			}
		case 3:
			token := a.refresh
			a.refresh = "" // unknown until the answer is here
			got, err := c.refresh(token)
			if err != nil {
				return
			}
			if got.Status == http.StatusOK {
				a.refresh, a.access = got.Refresh, got.Access
			}
			if a.refresh == "" {
				return
			}
		}
	}
}

// check compares what was acknowledged with what the restarted server says.
func check(t *testing.T, s *server, reader string, c *oauthClient, a *acked) error {
	t.Helper()
	for _, id := range a.clients {
		lost := oauthClient{t: t, issuer: s.Issuer, ID: id, Redirect: "http://127.0.0.1:4711/callback"}
		if _, err := newPerson(t, "", "").authorize(lost.request("kavach:verify", nil).url, choice{}); strings.Contains(fmt.Sprint(err), "page 400") {
			return fmt.Errorf("client %s is gone: %v", id, err)
		}
	}
	for _, id := range a.delegations {
		_, result, _, err := callTool(s.Issuer, reader, "audit", map[string]any{"lid": id})
		if err != nil {
			return err
		}
		if raw, _ := json.Marshal(result); !strings.Contains(string(raw), id) {
			return fmt.Errorf("the log has no entry for delegation %s: %s", id, raw)
		}
	}
	for _, token := range a.revoked {
		if alive(t, s.Issuer, token) {
			return fmt.Errorf("a revoked token is alive again")
		}
	}
	for _, token := range a.live {
		if !alive(t, s.Issuer, token) {
			return fmt.Errorf("an acknowledged token is dead")
		}
	}
	if a.refresh != "" {
		got, err := c.refresh(a.refresh)
		if err != nil || got.Status != http.StatusOK {
			return fmt.Errorf("the acknowledged refresh token does not work: %v %+v", err, got)
		}
		a.refresh, a.access = got.Refresh, got.Access
	}
	return nil
}

// TestDrain: on SIGTERM the server finishes the request that is under way and
// exits 0; what it acknowledged is there after the next start.
func TestDrain(t *testing.T) {
	s := start(t)
	dev := newPerson(t, "dev", "dev")
	c := register(t, s.Issuer)
	got := c.signIn(dev, "kavach:verify kavach:delegate", choice{})
	a := acked{refresh: got.Refresh, access: got.Access}
	stop := make(chan struct{})
	var load sync.WaitGroup
	load.Go(func() { work(s.Issuer, c, &a, stop) })

	body := url.Values{"grant_type": {"refresh_token"}, "client_id": {c.ID}, "refresh_token": {"none"}}.Encode()
	slow, err := net.Dial("tcp", strings.TrimPrefix(s.Issuer, "http://"))
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
	close(stop)
	load.Wait()
	s.run()
	reader := register(t, s.Issuer).signIn(dev, "kavach:verify kavach:audit audit:read", choice{tick: []string{"audit:read"}}).Access
	if err := check(t, s, reader, c, &a); err != nil {
		t.Error(err)
	}
}
