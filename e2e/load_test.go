package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// load is what a deployment has to do all day: registrations, sign-ins with
// codes, tokens, refreshes, delegations, revocations, questions to the log. It
// writes what it asks and what it hears into a journal.
type load struct {
	t       *testing.T
	server  *server
	journal *journal
	seen    *seen
	owner   *codeClient // an operator's client, for codes
	machine credential  // another, for client credentials
	workers []*worker
	checker *http.Client // asks what became of it, and is not seen
	running sync.WaitGroup
	stop    chan struct{}
}

// loadFlags are for a server under load: its callers come from many addresses
// through a proxy, and codes live as long as a fault may last.
var loadFlags = []string{"--trusted-proxy", "127.0.0.1/32", "--code-ttl", "9m", "--access-ttl", "1h"}

// patience bounds every request: "no request > 10 s" is a finding about one
// that was answered, this is the end of one that is not.
const patience = 20 * time.Second

// newLoad makes the people and clients of so many workers.
func newLoad(t *testing.T, s *server, workers int) *load {
	t.Helper()
	l := &load{t: t, server: s, journal: newJournal(t), seen: &seen{wrong: map[string]int{}}, owner: s.codeClient(t, "owner")}
	decode(t, s.cli("", "client", "add", "machine", "--scope", "kavach:verify", "--json"), &l.machine)
	l.checker = fromSomewhere(&seen{wrong: map[string]int{}})
	for i := range workers {
		w := &worker{load: l, name: fmt.Sprint("worker-", i), password: fmt.Sprint("a long password of worker ", i)}
		w.http = fromSomewhere(l.seen)
		s.cli(w.password, "user", "add", w.name, "--password-file", "-")
		dir := t.TempDir()
		s.offline(t, dir, "agent", "create", w.name, "--version", "1.0.0", "--purpose", "End-to-end tests", "--scope", "kavach:verify")
		w.agent = s.agent(t, dir, w.name)
		s.enrol(t, w.agent, w.name)
		l.workers = append(l.workers, w)
	}
	return l
}

// watched gives every request an address of its own, as a proxy would, and
// keeps an eye on the answers.
type watched struct {
	next http.RoundTripper
	seen *seen
}

func fromSomewhere(s *seen) *http.Client {
	return &http.Client{Timeout: patience, Transport: &watched{&http.Transport{MaxIdleConnsPerHost: 8}, s},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// seen is what was seen of all answers.
type seen struct {
	mu       sync.Mutex
	requests int
	refused  int           // 503 with Retry-After
	none     int           // no answer
	slowest  time.Duration // of those that were answered
	wrong    map[string]int
}

func (w *watched) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("X-Forwarded-For", fmt.Sprintf("10.%d.%d.%d", rand.IntN(256), rand.IntN(256), 1+rand.IntN(250)))
	began := time.Now()
	response, err := w.next.RoundTrip(r)
	took := time.Since(began)
	w.seen.mu.Lock()
	defer w.seen.mu.Unlock()
	w.seen.requests++
	switch {
	case err != nil:
		w.seen.none++
		return nil, err
	case response.StatusCode == http.StatusServiceUnavailable && response.Header.Get("Retry-After") != "":
		w.seen.refused++
	case response.StatusCode >= 400:
		w.seen.wrong[fmt.Sprintf("%s %s: %d", r.Method, r.URL.Path, response.StatusCode)]++
	}
	w.seen.slowest = max(w.seen.slowest, took)
	return response, nil
}

// begin sets all workers to work; end waits until none has a request under way.
func (l *load) begin() {
	l.stop = make(chan struct{})
	for _, w := range l.workers {
		l.running.Go(func() { w.work(l.stop) })
	}
}

func (l *load) end() {
	close(l.stop)
	l.running.Wait()
}

// during is the load for a while.
func (l *load) during(d time.Duration) {
	l.begin()
	time.Sleep(d)
	l.end()
}

// worker is one person with programs that act for them.
type worker struct {
	*load
	name, password string
	http           *http.Client
	person         *person
	agent          *agent         // the person's, who is delegated to
	clients        []*oauthClient // registered by it, newest last
	families       []*family
}

// family is what came of one sign-in, as far as its worker knows.
type family struct {
	client          *oauthClient
	header          http.Header // how the client authenticates
	access, refresh string      // refresh is "" while an answer to it is missing
	delegated       []string    // token ids that it may still revoke
	revoked         int
}

// heard is how an operation went: got is nil unless it did.
type answered struct {
	status int
	retry  string
	got    map[string]string
	err    error
}

// do journals an operation around what it does.
func (w *worker) do(op string, what map[string]string, act func(mark string) answered) answered {
	mark := fmt.Sprintf("%s-%016x", op, rand.Uint64())
	w.journal.write(event{Mark: mark, Say: "ask", Op: op, What: what})
	began := time.Now()
	a := act(mark)
	e := event{Mark: mark, Say: "heard", Op: op, Took: time.Since(began).Milliseconds(), Got: a.got, Status: a.status, Retry: a.retry}
	if a.err != nil {
		e.Error = a.err.Error()
	}
	w.journal.write(e)
	if a.got == nil {
		time.Sleep(20*time.Millisecond + rand.N(60*time.Millisecond)) // not in a tight loop
	}
	return a
}

// work does one thing after another until it is told to stop.
func (w *worker) work(stop chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		if len(w.families) == 0 {
			w.signIn()
			continue
		}
		f := w.families[rand.IntN(len(w.families))]
		switch n := rand.IntN(100); {
		case n < 12:
			w.register()
		case n < 20:
			w.signIn()
		case n < 30:
			w.machineToken()
		case n < 45:
			w.refresh(f)
		case n < 72:
			w.delegate(f)
		case n < 86:
			w.revoke(f)
		case n < 90:
			w.revokeFamily(f)
		default:
			w.query(f)
		}
	}
}

// heardOf makes the answer of a JSON endpoint: got if it is a success.
func heardOf(status int, header http.Header, err error, got map[string]string) answered {
	a := answered{status: status, retry: header.Get("Retry-After"), err: err}
	if err == nil && (status == http.StatusOK || status == http.StatusCreated) {
		a.got = got
	}
	return a
}

func heardTokens(got tokens, err error) answered {
	if err == nil && got.Error != "" {
		return answered{status: got.Status, retry: got.Header.Get("Retry-After"), err: fmt.Errorf("%s %s", got.Error, got.ErrorMessage)}
	}
	return heardOf(got.Status, got.Header, err, map[string]string{"access": got.Access, "refresh": got.Refresh})
}

// register is dynamic registration. The mark is the client's name.
func (w *worker) register() {
	redirect := "http://127.0.0.1:4711/callback"
	a := w.do("register", nil, func(mark string) answered {
		body := encode(map[string]any{"client_name": mark, "redirect_uris": []string{redirect}, "grant_types": []string{"authorization_code", "refresh_token"}, "token_endpoint_auth_method": "none"})
		request, _ := http.NewRequest("POST", w.server.Issuer+"/oauth/register", strings.NewReader(body))
		request.Header.Set("Content-Type", "application/json")
		var answer struct {
			ID string `json:"client_id"`
		}
		status, header, err := w.json(request, &answer)
		return heardOf(status, header, err, map[string]string{"client": answer.ID})
	})
	if a.got != nil {
		w.clients = append(w.clients, &oauthClient{t: w.t, issuer: w.server.Issuer, ID: a.got["client"], Redirect: redirect})
	}
}

// json sends a request and decodes the answer, whatever its status.
func (w *worker) json(request *http.Request, into any) (int, http.Header, error) {
	response, err := w.http.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	return response.StatusCode, response.Header, json.NewDecoder(response.Body).Decode(into)
}

// signIn is login, consent, code and token. Every fourth time the person signs
// in anew; the client is now the operator's, now one that registered itself.
func (w *worker) signIn() {
	if w.person == nil || rand.IntN(4) == 0 {
		jar, _ := cookiejar.New(nil)
		browser := *w.http
		browser.Jar = jar
		w.person = &person{t: w.t, http: &browser, username: w.name, password: w.password}
	}
	f := &family{client: w.owner.oauthClient, header: w.owner.basic()}
	if len(w.clients) > 0 && rand.IntN(2) == 0 {
		f.client, f.header = w.clients[len(w.clients)-1], nil
	}
	r := f.client.request("kavach:verify kavach:delegate kavach:audit", nil)
	code := w.do("code", map[string]string{"client": f.client.ID, "redirect": f.client.Redirect, "verifier": r.verifier}, func(string) answered {
		back, err := w.person.authorize(r.url, choice{})
		var shown page
		switch {
		case errors.As(err, &shown):
			return answered{status: shown.status, retry: shown.header.Get("Retry-After"), err: fmt.Errorf("a page: %.200s", shown.body)}
		case err != nil:
			return answered{err: err}
		case back.Query().Get("error") == "temporarily_unavailable" || back.Query().Get("error") == "server_error":
			// RFC 6749 §4.1.2.1: 503 "cannot be returned to the client via an HTTP redirect".
			return answered{status: http.StatusServiceUnavailable, retry: "redirect", err: fmt.Errorf("%s", back.Query().Get("error"))}
		case back.Query().Get("code") == "":
			return answered{status: http.StatusSeeOther, err: fmt.Errorf("no code: %s", back.Query().Get("error"))}
		}
		return answered{status: http.StatusOK, got: map[string]string{"code": back.Query().Get("code")}}
	})
	if code.got == nil {
		w.person = nil
		return
	}
	form := map[string][]string{"grant_type": {"authorization_code"}, "redirect_uri": {f.client.Redirect}, "code": {code.got["code"]}, "code_verifier": {r.verifier}}
	if f.header == nil {
		form["client_id"] = []string{f.client.ID}
	}
	a := w.do("redeem", map[string]string{"code": code.got["code"], "client": f.client.ID}, func(string) answered {
		return heardTokens(post(w.http, w.server.Issuer+"/oauth/token", form, f.header))
	})
	if a.got == nil {
		return
	}
	f.access, f.refresh = a.got["access"], a.got["refresh"]
	w.families = append(w.families, f)
	if len(w.families) > 4 { // the oldest lives on, and nobody uses it
		w.families = slices.Delete(w.families, 0, 1)
	}
}

// machineToken is client credentials.
func (w *worker) machineToken() {
	w.do("machine", nil, func(string) answered {
		return heardTokens(post(w.http, w.server.Issuer+"/oauth/token", map[string][]string{"grant_type": {"client_credentials"}, "scope": {"kavach:verify"}},
			http.Header{"Authorization": {basic(w.machine.ID, w.machine.Secret)}}))
	})
}

// refresh rotates a family's refresh token. One whose answer was lost is left.
func (w *worker) refresh(f *family) {
	if f.refresh == "" {
		return
	}
	form := map[string][]string{"grant_type": {"refresh_token"}, "refresh_token": {f.refresh}}
	if f.header == nil {
		form["client_id"] = []string{f.client.ID}
	}
	a := w.do("refresh", map[string]string{"refresh": f.refresh, "access": f.access}, func(string) answered {
		return heardTokens(post(w.http, w.server.Issuer+"/oauth/token", form, f.header))
	})
	f.refresh = ""
	if a.got != nil {
		f.access, f.refresh = a.got["access"], a.got["refresh"]
	}
}

// tool calls a tool of /mcp for a family.
func (w *worker) tool(f *family, tool string, arguments map[string]any, members ...string) answered {
	status, result, header, err := callToolWith(w.http, w.server.Issuer, tool, arguments, http.Header{"Authorization": {"Bearer " + f.access}})
	content, _ := result["structuredContent"].(map[string]any)
	if err == nil && status == http.StatusOK && (content == nil || result["isError"] == true) {
		err = fmt.Errorf("the tool failed: %.300s", encode(result))
	}
	got := map[string]string{"done": "yes"}
	for _, name := range members {
		got[name] = fmt.Sprint(content[name])
	}
	return heardOf(status, header, err, got)
}

// delegate hands a part on. The mark is a tool that the result may call.
func (w *worker) delegate(f *family) {
	a := w.do("delegate", map[string]string{"access": f.access}, func(mark string) answered {
		return w.tool(f, "delegate", map[string]any{"agent": w.agent.ID, "scopes": []string{"kavach:verify"}, "ttl_seconds": 900,
			"tools": map[string]any{"verify": map[string]any{}, mark: map[string]any{}}}, "token", "token_id")
	})
	if a.got != nil {
		f.delegated = append(f.delegated, a.got["token_id"])
	}
}

// revoke takes back one delegation, at most 40 of a family: "at most 64 links of
// a grant are revoked at a time".
func (w *worker) revoke(f *family) {
	if len(f.delegated) == 0 || f.revoked == 40 {
		w.delegate(f)
		return
	}
	i := rand.IntN(len(f.delegated))
	id := f.delegated[i]
	f.delegated, f.revoked = slices.Delete(f.delegated, i, i+1), f.revoked+1
	w.do("revoke", map[string]string{"token_id": id}, func(string) answered {
		return w.tool(f, "revoke", map[string]any{"token_id": id}, "recorded")
	})
}

// revokeFamily ends a sign-in with all that came of it.
func (w *worker) revokeFamily(f *family) {
	if f.refresh == "" {
		return
	}
	form := map[string][]string{"token": {f.refresh}}
	if f.header == nil {
		form["client_id"] = []string{f.client.ID}
	}
	w.families = slices.DeleteFunc(w.families, func(other *family) bool { return other == f })
	w.do("end", map[string]string{"access": f.access}, func(string) answered {
		return heardTokens(post(w.http, w.server.Issuer+"/oauth/revoke", form, f.header))
	})
}

// query asks the log about what the family did.
func (w *worker) query(f *family) {
	w.do("query", map[string]string{"access": f.access}, func(string) answered {
		return w.tool(f, "audit", map[string]any{"action": "delegate", "limit": 5})
	})
}
