package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// ledger is what has to be true by the journal: what was acknowledged stands,
// what was refused may, and what nobody answered may or may not.
type ledger struct {
	*load
	offset   int64
	pending  map[string]event
	clients  map[string]*promise
	codes    map[string]*promise // received and never shown
	tokens   map[string]*promise // by lid
	families map[string]*promise // by gid
	records  map[string]*promise // "action value", to be found in the log
	queries  int
	acked    map[string]int
	since    time.Time // of the log that was read already
}

// promise is one thing of the ledger.
type promise struct {
	state   state
	text    string // the token; of a family its newest refresh token, "" if that is unknown
	family  string
	client  string
	more    map[string]string
	expires time.Time
	checked bool
}

type state string

const (
	stands state = "stands"
	ended  state = "ended"
	open   state = "open" // asked to end, and not told whether it did
)

func newLedger(l *load) *ledger {
	return &ledger{load: l, since: time.Now(), pending: map[string]event{}, clients: map[string]*promise{}, codes: map[string]*promise{},
		tokens: map[string]*promise{}, families: map[string]*promise{}, records: map[string]*promise{}, acked: map[string]int{}}
}

// replay reads what the journal has got since.
func (l *ledger) replay() error {
	var err error
	l.offset, err = l.journal.read(l.offset, l.apply)
	return err
}

func (l *ledger) apply(e event) error {
	if e.Say == "ask" {
		l.pending[e.Mark] = e
		l.asked(e.Op, e.What)
		return nil
	}
	asked, ok := l.pending[e.Mark]
	if !ok {
		return fmt.Errorf("an answer to nothing: %+v", e)
	}
	delete(l.pending, e.Mark)
	if e.Got != nil {
		l.acked[e.Op]++
		return l.heard(asked, e.Got)
	}
	// A tool says it in its own result (MCP 2025-11-25, tools, "Error Handling").
	if e.Status != 0 && e.Status != http.StatusServiceUnavailable && !strings.Contains(e.Error, "refused: temporarily_unavailable") {
		l.t.Errorf("%s was answered %d: %s", e.Op, e.Status, e.Error)
	}
	return nil
}

// asked: from here on it may have happened.
func (l *ledger) asked(op string, what map[string]string) {
	switch op {
	case "redeem":
		delete(l.codes, what["code"])
	case "refresh":
		l.families[grantOf(what["access"])].text = ""
	case "revoke":
		l.tokens[what["token_id"]].end(open)
	case "end":
		l.endFamily(grantOf(what["access"]), open)
	}
}

// heard: it has happened.
func (l *ledger) heard(asked event, got map[string]string) error {
	switch asked.Op {
	case "register":
		l.clients[got["client"]] = &promise{state: stands}
		l.want("client.register", got["client"])
	case "code":
		l.codes[got["code"]] = &promise{state: stands, more: asked.What}
	case "redeem", "refresh", "machine":
		token := got["access"]
		gid := grantOf(token)
		l.take(token)
		if asked.Op == "refresh" {
			l.want("token.refresh", lid(token))
		} else {
			l.want("token.issue", lid(token))
		}
		if asked.Op == "redeem" {
			l.families[gid] = &promise{state: stands, client: asked.What["client"]}
		}
		if asked.Op != "machine" {
			l.families[gid].text = got["refresh"]
		}
	case "delegate":
		l.take(got["token"])
		l.want("delegate", got["token_id"])
		if lid(got["token"]) != got["token_id"] {
			return fmt.Errorf("token_id %s is not the token's", got["token_id"])
		}
		if !strings.Contains(string(unbase64(strings.Split(got["token"], ".")[1])), asked.Mark) {
			return fmt.Errorf("what %s was answered does not have its mark", asked.Mark)
		}
	case "revoke":
		l.tokens[asked.What["token_id"]].end(ended)
		l.want("revoke", asked.What["token_id"])
	case "end":
		gid := grantOf(asked.What["access"])
		l.endFamily(gid, ended)
		l.want("revoke", gid)
	case "query":
		l.queries++
	}
	return nil
}

// take adds a token to what stands, unless its family has ended meanwhile.
func (l *ledger) take(token string) {
	p := &promise{state: stands, text: token, family: grantOf(token)}
	if seconds, _ := claim(token, "exp").(float64); seconds > 0 {
		p.expires = time.Unix(int64(seconds), 0)
	}
	l.tokens[lid(token)] = p
}

func (l *ledger) want(action, value string) {
	l.records[action+" "+value] = &promise{state: stands}
}

func (p *promise) end(how state) {
	if p.state != ended {
		p.state, p.checked = how, false
	}
}

func (l *ledger) endFamily(gid string, how state) {
	l.families[gid].end(how)
	for _, token := range l.tokens {
		if token.family == gid {
			token.end(how)
		}
	}
}

// grantOf is the grant that a token stands on.
func grantOf(token string) string {
	gid, _ := claim(token, "gid").(string)
	return gid
}

// check compares the ledger with what the server, which has to be ready, says:
// what is new in it, or all.
func (l *ledger) check(all bool) error {
	if err := l.replay(); err != nil {
		return err
	}
	for code, p := range l.codes { // it was promised that they can be redeemed
		l.redeem(code, p)
	}
	if err := l.replay(); err != nil {
		return err
	}
	if len(l.codes) > 0 {
		return fmt.Errorf("%d codes that were received cannot be redeemed", len(l.codes))
	}
	var asks []func() error
	add := func(p *promise, ask func() error) {
		if p.state != open && (all || !p.checked) {
			asks = append(asks, func() error {
				err := ask()
				p.checked = err == nil
				return err
			})
		}
	}
	for id, p := range l.clients {
		add(p, func() error { return l.clientThere(id) })
	}
	for id, p := range l.tokens {
		if time.Until(p.expires) > patience {
			add(p, func() error { return l.tokenIs(id, p) })
		}
	}
	errs := inParallel(asks)
	errs = append(errs, l.recorded())
	if out, err := l.server.tryCLI("", "audit", "verify"); err != nil {
		errs = append(errs, fmt.Errorf("the log does not verify: %w %s", err, out))
	}
	if all {
		errs = append(errs, l.refreshes())
	}
	return errors.Join(errs...)
}

// redeem redeems a code that was received before the fault and never shown.
func (l *ledger) redeem(code string, p *promise) {
	w := l.workers[0]
	form := map[string][]string{"grant_type": {"authorization_code"}, "redirect_uri": {p.more["redirect"]}, "code": {code}, "code_verifier": {p.more["verifier"]}}
	header := l.authentication(p.more["client"], form)
	a := w.do("redeem", map[string]string{"code": code, "client": p.more["client"]}, func(string) answered {
		return heardTokens(post(w.http, l.server.Issuer+"/oauth/token", form, header))
	})
	if a.got == nil {
		l.t.Errorf("a code that was received cannot be redeemed: %d %v", a.status, a.err)
	}
}

// authentication is how a client shows who it is.
func (l *load) authentication(client string, form map[string][]string) http.Header {
	if client == l.owner.ID {
		return l.owner.basic()
	}
	form["client_id"] = []string{client}
	return nil
}

// inParallel asks a few at a time and gives the errors.
func inParallel(asks []func() error) []error {
	var mu sync.Mutex
	var errs []error
	var hands sync.WaitGroup
	next := 0
	for range 8 {
		hands.Go(func() {
			for {
				mu.Lock()
				if next == len(asks) || len(errs) > 10 {
					mu.Unlock()
					return
				}
				ask := asks[next]
				next++
				mu.Unlock()
				if err := ask(); err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
				}
			}
		})
	}
	hands.Wait()
	return errs
}

// clientThere: who asks for a code on its behalf is asked to sign in.
func (l *load) clientThere(id string) error {
	c := oauthClient{t: l.t, issuer: l.server.Issuer, ID: id, Redirect: "http://127.0.0.1:4711/callback"}
	request, _ := http.NewRequest("GET", c.request("kavach:verify", nil).url, nil)
	response, err := l.checker.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusSeeOther || !strings.HasPrefix(response.Header.Get("Location"), "/login") {
		return fmt.Errorf("client %s is gone: %d %s", id, response.StatusCode, response.Header.Get("Location"))
	}
	return nil
}

// tokenIs: /mcp takes it exactly if it stands.
func (l *load) tokenIs(id string, p *promise) error {
	status, _, _, err := callToolWith(l.checker, l.server.Issuer, "verify", map[string]any{"token": "x", "audience": "x"}, http.Header{"Authorization": {"Bearer " + p.text}})
	want := map[state]int{stands: http.StatusOK, ended: http.StatusUnauthorized}[p.state]
	if err != nil || status != want {
		return fmt.Errorf("token %s %s, and is answered %d (%v)", id, p.state, status, err)
	}
	return nil
}

// refreshes uses the newest refresh token of every family. It is the last check:
// the workers do not hear of it.
func (l *ledger) refreshes() error {
	var asks []func() error
	for gid, p := range l.families {
		if p.state == open || p.text == "" {
			continue
		}
		asks = append(asks, func() error {
			form := map[string][]string{"grant_type": {"refresh_token"}, "refresh_token": {p.text}}
			got, err := post(l.checker, l.server.Issuer+"/oauth/token", form, l.authentication(p.client, form))
			if err != nil || (got.Status == http.StatusOK) != (p.state == stands) {
				return fmt.Errorf("the family %s %s, and its refresh token is answered %d %s (%v)", gid, p.state, got.Status, got.Error, err)
			}
			return nil
		})
	}
	return errors.Join(inParallel(asks)...)
}

// recorded: the log holds an entry of everything that was acknowledged, once.
func (l *ledger) recorded() error {
	began := time.Now()
	found, reads := map[string]int{}, 0
	cursor := ""
	for {
		args := []string{"audit", "list", "--oldest-first", "--json", "--limit", "500", "--since", l.since.Add(-5 * time.Second).UTC().Format(time.RFC3339)}
		if cursor != "" {
			args = append(args, "--cursor", cursor)
		}
		out, err := l.server.tryCLI("", args...)
		if err != nil {
			return err
		}
		var got struct {
			Entries []struct {
				Action, Resource, Agent, Result string
				Detail                          struct{ Issued []struct{ LID string } }
			}
			Next string `json:"next_cursor"`
		}
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			return err
		}
		for _, e := range got.Entries {
			if e.Result != "allowed" {
				continue
			}
			names := map[string]bool{e.Resource: true, e.Agent: true}
			for _, i := range e.Detail.Issued {
				names[i.LID] = true
			}
			for name := range names {
				found[e.Action+" "+name]++
			}
			if e.Action == "audit.read" {
				reads++
			}
		}
		if cursor = got.Next; cursor == "" {
			break
		}
	}
	var missing []string
	for name, p := range l.records {
		if !p.checked && found[name] == 0 {
			missing = append(missing, name)
		}
		p.checked = true
	}
	if reads < l.queries {
		missing = append(missing, fmt.Sprintf("%d questions to the log", l.queries-reads))
	}
	l.queries, l.since = 0, began
	if len(missing) > 0 {
		slices.Sort(missing)
		return fmt.Errorf("%d things were acknowledged, and the log has nothing of them: %s", len(missing), strings.Join(missing[:min(len(missing), 8)], ", "))
	}
	return nil
}

// total is how many things were acknowledged.
func (l *ledger) total() int {
	total := 0
	for _, n := range l.acked {
		total += n
	}
	return total
}

// figures are what all of it came to.
func (l *ledger) figures() string {
	var parts []string
	for _, op := range slices.Sorted(maps.Keys(l.acked)) {
		parts = append(parts, fmt.Sprintf("%d %s", l.acked[op], op))
	}
	l.seen.mu.Lock()
	defer l.seen.mu.Unlock()
	for what, n := range l.seen.wrong {
		parts = append(parts, fmt.Sprintf("%d × %s", n, what))
	}
	return fmt.Sprintf("%d acknowledged (%s), 0 lost; %d requests, %d refused with 503 and Retry-After, %d without answer, slowest %v",
		l.total(), strings.Join(parts, ", "), l.seen.requests, l.seen.refused, l.seen.none, l.seen.slowest.Round(time.Millisecond))
}
