package e2e

import (
	"maps"
	"net/http"
	"net/url"
	"strings"
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

// TestSingleUse: of fifty parallel redemptions of one code, and of one refresh
// token, on two processes, exactly one wins, and its family lives. TestReplicas
// does it on three, with PostgreSQL.
func TestSingleUse(t *testing.T) {
	s, processes := twice(t)
	s.raceGrants(t, processes, 6)
}

// raceGrants redeems so many codes, and then uses their refresh tokens, fifty
// times at once each.
func (s *server) raceGrants(t *testing.T, processes []*server, rounds int) {
	dev := newPerson(t, "dev", "dev")
	type family struct {
		c *oauthClient
		tokens
	}
	var families []family
	t.Run("A-27 code race", func(t *testing.T) {
		for round := range rounds {
			c := register(t, s.Issuer)
			r := c.request("kavach:verify kavach:audit", nil)
			back, err := dev.authorize(r.url, choice{})
			if err != nil {
				t.Fatal(err)
			}
			form := url.Values{"grant_type": {"authorization_code"}, "client_id": {c.ID}, "redirect_uri": {c.Redirect}, "code": {back.Query().Get("code")}, "code_verifier": {r.verifier}}
			answers, errs := raceOn(processes, func(h *http.Client) (tokens, error) { return post(h, s.Issuer+"/oauth/token", form, nil) })
			won := onlyOne(t, answers, errs, http.StatusBadRequest, "invalid_grant")
			if !alive(t, s.Issuer, won.Access) {
				t.Fatalf("round %d: the winner's access token is dead", round)
			}
			families = append(families, family{c, won})
		}
	})
	t.Run("A-31 refresh race", func(t *testing.T) {
		if len(families) != rounds {
			t.Fatal("there are no families")
		}
		for round, f := range families {
			form := url.Values{"grant_type": {"refresh_token"}, "client_id": {f.c.ID}, "refresh_token": {f.Refresh}}
			answers, errs := raceOn(processes, func(h *http.Client) (tokens, error) { return post(h, s.Issuer+"/oauth/token", form, nil) })
			next := onlyOne(t, answers, errs, http.StatusBadRequest, "invalid_grant")
			if !alive(t, s.Issuer, next.Access) {
				t.Fatalf("round %d: the refreshed access token is dead", round)
			}
			last, err := f.c.refresh(next.Refresh)
			if err != nil || last.Status != http.StatusOK {
				t.Fatalf("round %d: the one live refresh token does not work: %v %+v", round, err, last)
			}
		}
	})
}

// TestUsedCode: a used code that comes again 3 s later kills the family if its
// own client brings it, and changes nothing if anybody else does.
func TestUsedCode(t *testing.T) {
	s := start(t)
	t.Run("A-26 code replay", func(t *testing.T) {
		dev := newPerson(t, "dev", "dev")
		owner := s.codeClient(t, "owner")
		stranger := register(t, s.Issuer)
		r := owner.request("kavach:verify", nil)
		back, err := dev.authorize(r.url, choice{})
		if err != nil {
			t.Fatal(err)
		}
		code := back.Query().Get("code")
		redeem := func(client url.Values, header http.Header, verifier string) tokens {
			t.Helper()
			form := url.Values{"grant_type": {"authorization_code"}, "redirect_uri": {owner.Redirect}, "code": {code}, "code_verifier": {verifier}}
			maps.Copy(form, client)
			got, err := post(http.DefaultClient, s.Issuer+"/oauth/token", form, header)
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		got := redeem(nil, owner.basic(), r.verifier)
		if got.Status != http.StatusOK {
			t.Fatalf("%+v", got)
		}
		refused := func(what string, again tokens) {
			t.Helper()
			if again.Status != http.StatusBadRequest || again.Error != "invalid_grant" {
				t.Fatalf("%s: %+v", what, again)
			}
		}
		time.Sleep(3 * time.Second) // longer than the 2 s in which a second try is a lost race
		refused("stranger", redeem(url.Values{"client_id": {stranger.ID}}, nil, r.verifier))
		refused("wrong verifier", redeem(nil, owner.basic(), strings.Repeat("a", 43)))
		if !alive(t, s.Issuer, got.Access) || !owner.active(t, got.Access) || !owner.active(t, got.Refresh) {
			t.Fatal("a stranger with a used code killed the family")
		}
		refused("own client", redeem(nil, owner.basic(), r.verifier))
		owner.dead(t, got.Refresh, got.Access)
		s.wantRefusals(t, "code_reuse", 1)
	})
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
