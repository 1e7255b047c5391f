package e2e

import (
	"maps"
	"net/http"
	"net/url"
	"sync"
	"testing"
)

// twice is a server of two processes on one database.
func twice(t *testing.T) (*server, []*server) {
	t.Helper()
	first := start(t)
	return first, []*server{first, first.beside(t)}
}

// raceOn does the same thing fifty times at once, every second one at the other
// process.
func raceOn(processes []*server, try func(*http.Client) (tokens, error)) ([]tokens, []error) {
	clients := make([]*http.Client, len(processes))
	for i, p := range processes {
		clients[i] = p.client()
	}
	var n int
	var lock sync.Mutex
	return race(func() (tokens, error) {
		lock.Lock()
		client := clients[n%len(clients)]
		n++
		lock.Unlock()
		return try(client)
	})
}

// onlyOne checks that one answer is 200 and every other the refusal.
func onlyOne(t *testing.T, answers []tokens, errs []error, status int, code string) tokens {
	t.Helper()
	var won []tokens
	for i, a := range answers {
		switch {
		case errs[i] != nil:
			t.Errorf("no answer: %v", errs[i])
		case a.Status == http.StatusOK:
			won = append(won, a)
		case a.Status != status || a.Error != code:
			t.Errorf("a loser got %d %s (%s), want %d %s", a.Status, a.Error, a.ErrorMessage, status, code)
		}
	}
	if len(won) != 1 {
		t.Fatalf("%d answers were 200, want exactly one", len(won))
	}
	return won[0]
}

// TestOnceOnTwoProcesses: of fifty parallel uses of one assertion, one proof and
// one handle exactly one wins, whichever of two processes on one database they
// reach.
func TestOnceOnTwoProcesses(t *testing.T) {
	first, processes := twice(t)
	orchestrator := first.newAgent(t, "hands-on", "kavach:delegate kavach:verify", "--capability", "delegate")
	reviewer := first.newAgent(t, "takes", "kavach:verify")
	credentials := url.Values{"grant_type": {"client_credentials"}, "scope": {"kavach:verify"}}
	with := func(proof string) http.Header { return http.Header{"Dpop": {proof}} }

	t.Run("A-43 assertion", func(t *testing.T) {
		for range 3 {
			form := reviewer.authenticated(credentials)
			answers, errs := raceOn(processes, func(c *http.Client) (tokens, error) {
				return post(c, reviewer.tokenEndpoint(), form, with(reviewer.proof("")))
			})
			won := onlyOne(t, answers, errs, http.StatusUnauthorized, "invalid_client")
			// The other process knows the token, and the assertion is spent there too.
			for _, p := range processes {
				if status, _, _, err := reviewer.at(p, reviewer.Holder).call(won.Access, "verify", map[string]any{"token": "x", "audience": first.Issuer + "/mcp"}); err != nil || status != http.StatusOK {
					t.Errorf("the winner's token: %v %d", err, status)
				}
				late, err := post(p.client(), reviewer.tokenEndpoint(), form, with(reviewer.proof("")))
				if err != nil || late.Status != http.StatusUnauthorized || late.Error != "invalid_client" {
					t.Errorf("the assertion later: %v %+v", err, late)
				}
			}
		}
	})

	t.Run("proof at the token endpoint", func(t *testing.T) {
		for range 3 {
			proof := reviewer.proof("")
			answers, errs := raceOn(processes, func(c *http.Client) (tokens, error) {
				return post(c, reviewer.tokenEndpoint(), reviewer.authenticated(credentials), with(proof))
			})
			onlyOne(t, answers, errs, http.StatusBadRequest, "invalid_dpop_proof")
		}
	})

	t.Run("proof at a protected resource", func(t *testing.T) {
		token := reviewer.signedIn("kavach:verify", nil).Access
		proof := reviewer.Holder.proof("POST", first.Issuer+"/mcp", token)
		answers, errs := raceOn(processes, func(c *http.Client) (tokens, error) {
			status, _, header, err := callToolWith(c, first.Issuer, "verify", map[string]any{"token": "x", "audience": first.Issuer + "/mcp"},
				http.Header{"Authorization": {"DPoP " + token}, "Dpop": {proof}})
			return tokens{Status: status, Error: challenged(header)}, err
		})
		onlyOne(t, answers, errs, http.StatusUnauthorized, "invalid_dpop_proof")
	})

	t.Run("handle", func(t *testing.T) {
		for range 3 {
			token := orchestrator.signedIn("kavach:delegate kavach:verify", nil).Access
			made := orchestrator.called(token, "delegate", map[string]any{"agent": reviewer.ID, "scopes": []string{"kavach:verify"}, "ttl_seconds": 120})
			handle, _ := made["handle"].(string)
			if handle == "" {
				t.Fatalf("a bound parent gave no handle: %v", made)
			}
			form := url.Values{"grant_type": {exchangeGrant}, "subject_token": {handle}, "subject_token_type": {handleType}}
			answers, errs := raceOn(processes, func(c *http.Client) (tokens, error) {
				return post(c, reviewer.tokenEndpoint(), reviewer.authenticated(maps.Clone(form)), with(reviewer.proof("")))
			})
			// RFC 8693 §2.2.2: an unacceptable subject_token is invalid_request.
			won := onlyOne(t, answers, errs, http.StatusBadRequest, "invalid_request")
			verified := reviewer.called(won.Access, "verify", map[string]any{"token": won.Access, "audience": first.Issuer + "/mcp"})
			if verified["valid"] != true {
				t.Errorf("what the handle was redeemed for: %v", verified)
			}
		}
	})

	if out, err := first.tryCLI("", "audit", "verify"); err != nil {
		t.Errorf("the log that two processes wrote does not verify: %v\n%s", err, out)
	}
}
