package e2e

import (
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestAssertionReplay: an assertion that any endpoint took is taken by none
// again, whatever became of the request, on whichever process, before and after
// a restart.
func TestAssertionReplay(t *testing.T) {
	first, processes := twice(t)
	paths := []string{"/oauth/token", "/oauth/introspect", "/oauth/revoke"}
	send := func(h *http.Client, path, assertion string) (tokens, error) {
		values := url.Values{"client_assertion_type": {assertionType}, "client_assertion": {assertion}}
		for name, list := range assertionEndpoints[path] {
			values[name] = list
		}
		return post(h, first.Issuer+path, values, nil)
	}
	refused := func(t *testing.T, what, assertion string) {
		t.Helper()
		for _, p := range processes {
			for _, path := range paths {
				got, err := send(p.client(), path, assertion)
				if err != nil || got.Status != http.StatusUnauthorized || got.Error != "invalid_client" || got.Header.Get("Cache-Control") != "no-store" {
					t.Errorf("%s, again at %s: %v %+v", what, path, err, got)
				}
			}
		}
	}
	clients := []*agent{first.newAgent(t, "signs", "kavach:verify"), first.keyedClient(t, "keyed", newES256())}
	var spent []string

	t.Run("A-43 sequential, at every endpoint", func(t *testing.T) {
		for _, who := range clients {
			for _, path := range paths {
				assertion := who.Key.assertion(who.ID, first.Issuer)
				got, err := send(processes[0].client(), path, assertion)
				if err != nil || got.Status == http.StatusUnauthorized {
					t.Errorf("%s at %s: %v %+v", who.Name, path, err, got)
				}
				spent = append(spent, assertion)
				refused(t, who.Name+" at "+path, assertion)
			}
			// The same jti in another assertion is the same once.
			jti := set("jti", "the-same-"+who.Name)
			if got, err := send(processes[0].client(), "/oauth/token", who.Key.assertion(who.ID, first.Issuer, jti)); err != nil || got.Status != http.StatusOK {
				t.Errorf("%v %+v", err, got)
			}
			again := who.Key.assertion(who.ID, first.Issuer, jti, set("exp", time.Now().Unix()+50))
			spent = append(spent, again)
			refused(t, who.Name+" with the same jti", again)
		}
		// A jti is one client's: another may use the same.
		shared := set("jti", "shared")
		for _, who := range clients {
			if got, err := send(processes[0].client(), "/oauth/token", who.Key.assertion(who.ID, first.Issuer, shared)); err != nil || got.Status != http.StatusOK {
				t.Errorf("a jti of another client: %v %+v", err, got)
			}
		}
	})

	t.Run("A-43 spent by a request that was refused", func(t *testing.T) {
		who := clients[0]
		assertion := who.Key.assertion(who.ID, first.Issuer)
		values := url.Values{"client_assertion_type": {assertionType}, "client_assertion": {assertion}, "grant_type": {"client_credentials"}, "scope": {"kavach:admin"}}
		got, err := post(who.HTTP, who.tokenEndpoint(), values, nil)
		if err != nil || got.Status != http.StatusBadRequest {
			t.Fatalf("%v %+v", err, got)
		}
		refused(t, "decided", assertion)
	})

	t.Run("A-43 spent by a registration", func(t *testing.T) {
		key := newEd25519()
		assertion := key.assertion(key.thumbprint(), first.Issuer)
		enrolment := strings.TrimSpace(first.cli("", "agent", "enrol", "--owner", "dev"))
		body := encode(map[string]string{"manifest": key.manifest("registers", "kavach:verify"), "assertion": assertion, "enrolment_token": enrolment})
		response, err := http.Post(first.Issuer+"/api/v1/agents", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusCreated {
			t.Fatalf("registering: %d", response.StatusCode)
		}
		refused(t, "registered with", assertion)
		spent = append(spent, assertion)
	})

	t.Run("A-43 fifty in parallel, at all endpoints of two processes", func(t *testing.T) {
		for _, who := range clients {
			assertion := who.Key.assertion(who.ID, first.Issuer)
			var n atomic.Int64
			answers, errs := raceOn(processes, func(h *http.Client) (tokens, error) {
				return send(h, paths[int(n.Add(1)/2)%len(paths)], assertion)
			})
			onlyOne(t, answers, errs, http.StatusUnauthorized, "invalid_client")
			spent = append(spent, assertion)
		}
	})

	t.Run("A-43 after a restart", func(t *testing.T) {
		for _, p := range processes {
			p.kill()
			p.run()
		}
		for _, assertion := range spent {
			refused(t, "before the restart", assertion)
		}
		for _, who := range clients {
			if got, err := send(first.client(), "/oauth/token", who.Key.assertion(who.ID, first.Issuer)); err != nil || got.Status != http.StatusOK {
				t.Errorf("a fresh one: %v %+v", err, got)
			}
		}
	})
}
