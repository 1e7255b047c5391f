package e2e

import (
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"
)

// race does the same thing fifty times at once behind a barrier.
func race(try func() (tokens, error)) ([]tokens, []error) {
	const n = 50
	out, errs := make([]tokens, n), make([]error, n)
	var barrier, done sync.WaitGroup
	barrier.Add(1)
	for i := range n {
		done.Go(func() {
			barrier.Wait()
			out[i], errs[i] = try()
		})
	}
	barrier.Done()
	done.Wait()
	return out, errs
}

// winner finds the one answer that is 200 and checks all the others.
func winner(t *testing.T, answers []tokens, errs []error) tokens {
	t.Helper()
	var won []tokens
	for i, a := range answers {
		switch {
		case errs[i] != nil:
			t.Errorf("no answer: %v", errs[i])
		case a.Status == http.StatusOK:
			won = append(won, a)
		case a.Status != http.StatusBadRequest || a.Error != "invalid_grant":
			t.Errorf("a loser got %d %s (%s)", a.Status, a.Error, a.ErrorMessage)
		}
	}
	if len(won) != 1 {
		t.Fatalf("%d answers were 200, want exactly one", len(won))
	}
	return won[0]
}

// TestSingleUse: of fifty parallel redemptions of one code, and of one refresh
// token, exactly one wins, and its family lives.
func TestSingleUse(t *testing.T) {
	s := start(t)
	dev := newPerson(t, "dev", "dev")
	for round := range 4 {
		c := register(t, s.Issuer)
		r := c.request("kavach:verify kavach:audit", nil)
		back, err := dev.authorize(r.url, choice{})
		if err != nil {
			t.Fatal(err)
		}
		answers, errs := race(func() (tokens, error) { return c.redeem(back.Query().Get("code"), r.verifier) })
		won := winner(t, answers, errs)
		if !alive(t, s.Issuer, won.Access) {
			t.Fatalf("round %d: the winner's access token is dead", round)
		}
		answers, errs = race(func() (tokens, error) { return c.refresh(won.Refresh) })
		next := winner(t, answers, errs)
		if !alive(t, s.Issuer, next.Access) {
			t.Fatalf("round %d: the refreshed access token is dead", round)
		}
		last, err := c.refresh(next.Refresh)
		if err != nil || last.Status != http.StatusOK {
			t.Fatalf("round %d: the one live refresh token does not work: %v %+v", round, err, last)
		}
	}
}

// TestUsedCode: a used code that comes again 3 s later kills the family if its
// own client brings it, and changes nothing if anybody else does.
func TestUsedCode(t *testing.T) {
	s := start(t)
	dev := newPerson(t, "dev", "dev")
	c, stranger := register(t, s.Issuer), register(t, s.Issuer)
	r := c.request("kavach:verify", nil)
	back, err := dev.authorize(r.url, choice{})
	if err != nil {
		t.Fatal(err)
	}
	code := back.Query().Get("code")
	got, err := c.redeem(code, r.verifier)
	if err != nil || got.Status != http.StatusOK {
		t.Fatalf("%v %+v", err, got)
	}
	refused := func(what string, who *oauthClient, verifier string) {
		t.Helper()
		again, err := who.redeem(code, verifier)
		if err != nil || again.Status != http.StatusBadRequest || again.Error != "invalid_grant" {
			t.Fatalf("%s: %v %+v", what, err, again)
		}
	}
	time.Sleep(3 * time.Second) // longer than the 2 s in which a second try is a lost race
	refused("stranger", stranger, r.verifier)
	refused("wrong verifier", c, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
	if !alive(t, s.Issuer, got.Access) {
		t.Fatal("a stranger with a used code killed the family")
	}
	refused("own client", c, r.verifier)
	if alive(t, s.Issuer, got.Access) {
		t.Error("the access token lives after its code came twice")
	}
	if again, _ := c.refresh(got.Refresh); again.Error != "invalid_grant" {
		t.Errorf("the refresh token lives after its code came twice: %+v", again)
	}
}

// TestFailedRedemptionKeepsTheCode: a wrong redirect URI, client or verifier
// does not spend the code.
func TestFailedRedemptionKeepsTheCode(t *testing.T) {
	s := start(t)
	c := register(t, s.Issuer)
	r := c.request("kavach:verify", nil)
	back, err := newPerson(t, "dev", "dev").authorize(r.url, choice{})
	if err != nil {
		t.Fatal(err)
	}
	code := back.Query().Get("code")
	base := url.Values{"grant_type": {"authorization_code"}, "client_id": {c.ID}, "redirect_uri": {c.Redirect}, "code": {code}, "code_verifier": {r.verifier}}
	for name, change := range map[string]url.Values{
		"redirect_uri":  {"redirect_uri": {"http://127.0.0.1:4711/other"}},
		"no verifier":   {"code_verifier": nil},
		"bad verifier":  {"code_verifier": {"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"}},
		"other client":  {"client_id": {register(t, s.Issuer).ID}},
		"other target":  {"resource": {"https://evil.example"}},
		"repeated code": {"code": {code, code}},
	} {
		values := url.Values{}
		for k, v := range base {
			values[k] = v
		}
		for k, v := range change {
			values[k] = v
		}
		got, err := form(s.Issuer, "/oauth/token", values)
		if err != nil || got.Status != http.StatusBadRequest {
			t.Errorf("%s: %v %+v", name, err, got)
		}
	}
	if got, err := form(s.Issuer, "/oauth/token", base); err != nil || got.Status != http.StatusOK {
		t.Errorf("the code was spent by failures: %v %+v", err, got)
	}
}
