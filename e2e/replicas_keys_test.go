package e2e

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// keyRow is a row of `kavach key list --json`.
type keyRow struct {
	KID, Purpose, State string
	Ends                string `json:"accepted_until"`
}

// ends is when nothing of the key is accepted any more; zero if that is not known.
func (k keyRow) ends() time.Time {
	at, _ := time.Parse("2006-01-02 15:04:05Z", k.Ends)
	return at
}

// keys are the server's keys in that state.
func (s *server) keys(t *testing.T, state string) (out []keyRow) {
	t.Helper()
	var all []keyRow
	decode(t, s.cli("", "key", "list", "--json"), &all)
	for _, k := range all {
		if k.State == state {
			out = append(out, k)
		}
	}
	return out
}

// rotationEvery is a little more than the ten seconds in which a resource server
// looks for an unknown key once.
const rotationEvery = 12 * time.Second

// TestReplicasKeys is E11: all keys are rotated again and again under the load
// of three replicas; no replica and no resource server refuses a token. Then the
// key of a token is revoked.
func TestReplicasKeys(t *testing.T) {
	s := startReplicas(t, loadFlags...)
	resource := documents(t, s.Issuer)
	s.cli("", "resource", "add", resource, "--name", "Documents", "--kavach-aware", "--scope", "docs:read=Read documents")
	reader := s.newAgent(t, "reader", "kavach:verify docs:read")
	l := newLoad(t, s, 3)
	book := newLedger(l)
	read := func(token string) int {
		request, _ := http.NewRequestWithContext(t.Context(), "GET", resource+"/docs/charter", nil)
		request.Header.Set("Authorization", "DPoP "+token)
		request.Header.Set("DPoP", reader.Holder.proof("GET", resource+"/docs/charter", token))
		return do(t, http.DefaultClient, request).status
	}
	target := url.Values{"resource": {resource}}
	old := reader.signedIn("docs:read", target).Access // lives for all of it, and for its key
	stop, reads := make(chan struct{}), 0
	var reading sync.WaitGroup
	l.begin()
	reading.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
			fresh, err := reader.signIn("docs:read", target)
			if err != nil || fresh.Status != http.StatusOK {
				t.Errorf("signing in: %v %+v", err, fresh)
				return
			}
			if got := read(fresh.Access); got != http.StatusOK {
				t.Errorf("a resource server answers %d to a token of %v", got, decodePart(strings.Split(fresh.Access, ".")[0])["kid"])
			}
			reads++
		}
	})
	rotations := times(2, 25)
	for range rotations {
		s.cli("", "key", "rotate", "--now")
		time.Sleep(rotationEvery)
	}
	close(stop)
	reading.Wait()
	l.end()
	l.onlyRefusals(t)
	if l.seen.refused > 0 {
		t.Errorf("%d requests were refused", l.seen.refused)
	}
	if got := read(old); got != http.StatusOK && time.Until(time.Unix(int64(claim(old, "exp").(float64)), 0)) > 0 {
		t.Errorf("a resource server answers %d to an unexpired token of the first key", got)
	}
	if err := book.check(true); err != nil {
		t.Error(err)
	}

	// In an emergency: what the key signed is dead at every replica.
	last := reader.signedIn("kavach:verify", nil).Access
	kid, _ := decodePart(strings.Split(last, ".")[0])["kid"].(string)
	s.cli("", "key", "revoke", kid)
	revoked := time.Now()
	for _, p := range s.replicas {
		there := reader.at(p, reader.Holder)
		for {
			status, _, _, err := there.call(last, "verify", map[string]any{"token": "x", "audience": "x"})
			if err == nil && status == http.StatusUnauthorized {
				break
			}
			if time.Since(revoked) > time.Minute {
				t.Fatalf("a token of a revoked key is answered %d (%v)", status, err)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	dead := time.Since(revoked)
	if fresh := reader.signedIn("kavach:verify", nil).Access; decodePart(strings.Split(fresh, ".")[0])["kid"] == kid {
		t.Error("a revoked key signs")
	}
	t.Logf("E11: %d rotations of all keys on three replicas, %s, and %d tokens verified by a resource server, none refused; a revoked key's tokens dead at all replicas after %v", rotations, book.figures(), reads, dead.Round(time.Millisecond))
}

// TestReplicasSecrets is E12: sessions and refresh tokens that were made with an
// old secret work during the overlap and not after it, at every replica.
func TestReplicasSecrets(t *testing.T) {
	s := startReplicas(t, loadFlags...)
	owner, dev := s.codeClient(t, "owner"), newPerson(t, "dev", "dev")
	untouched, used := owner.signIn(t, dev, "kavach:verify"), owner.signIn(t, dev, "kavach:verify")
	r := owner.request("kavach:verify", nil)
	back, err := dev.authorize(r.url, choice{})
	if err != nil {
		t.Fatal(err)
	}
	account := func(p *server) int {
		client := p.client()
		client.Jar = dev.http.Jar
		request, _ := http.NewRequestWithContext(t.Context(), "GET", s.Issuer+"/account", nil)
		return do(t, client, request).status
	}
	const overlap = "30s"
	for _, purpose := range []string{"cookie", "handle"} {
		s.cli("", "key", "rotate", "--purpose", purpose, "--now", "--overlap", overlap)
	}
	var first, ends time.Time // between them only one of the two is accepted
	for _, k := range append(s.keys(t, "active"), s.keys(t, "retired")...) {
		at := k.ends()
		if at.IsZero() || k.Purpose != "cookie" && k.Purpose != "handle" {
			continue
		}
		if first.IsZero() || at.Before(first) {
			first = at
		}
		if at.After(ends) {
			ends = at
		}
	}
	if ends.IsZero() || time.Until(ends) > time.Minute {
		t.Fatalf("the old secrets are accepted until %v", ends)
	}
	wrong := func(format string, args ...any) {
		t.Helper()
		if time.Now().After(first) {
			t.Fatal("this machine is too slow to see what happens during the overlap")
		}
		t.Errorf(format, args...)
	}
	time.Sleep(3 * time.Second) // until the new ones make things
	for i, p := range s.replicas {
		if used = owner.refresh(t, p.client(), used.Refresh); used.Status != http.StatusOK {
			wrong("during the overlap, replica %d refuses a refresh token: %+v", i, used)
		}
		if got := account(p); got != http.StatusOK {
			wrong("during the overlap, replica %d answers a session with %d", i, got)
		}
	}
	form := url.Values{"grant_type": {"authorization_code"}, "redirect_uri": {owner.Redirect}, "code": {back.Query().Get("code")}, "code_verifier": {r.verifier}}
	if got, err := post(s.client(), s.Issuer+"/oauth/token", form, owner.basic()); err != nil || got.Status != http.StatusOK {
		wrong("during the overlap a code is refused: %v %+v", err, got)
	}
	time.Sleep(time.Until(ends.Add(2 * time.Second)))
	for i, p := range s.replicas {
		if got := owner.refresh(t, p.client(), untouched.Refresh); got.Status != http.StatusBadRequest || got.Error != "invalid_grant" {
			t.Errorf("after the overlap, replica %d to the old refresh token: %+v", i, got)
		}
		if used = owner.refresh(t, p.client(), used.Refresh); used.Status != http.StatusOK {
			t.Errorf("after the overlap, replica %d refuses a new refresh token: %+v", i, used)
		}
		if got := account(p); got != http.StatusSeeOther {
			t.Errorf("after the overlap, replica %d answers an old session with %d", i, got)
		}
	}
	if healthy := owner.signIn(t, newPerson(t, "dev", "dev"), "kavach:verify"); !alive(t, s.Issuer, healthy.Access) {
		t.Error("a new sign-in does not live")
	}
}
