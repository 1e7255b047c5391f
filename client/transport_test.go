package client_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
)

// gitAt starts the git host and a Transport that knows where it is.
func gitAt(t *testing.T, cred client.Credential) (*gitServer, *client.Transport, *reports) {
	t.Helper()
	ca, git, r := newAuthority(t), &gitServer{t: t}, &reports{}
	s := ca.serve(t, git, gitHost)
	tr := &client.Transport{
		Source: cred, RootCAs: ca.pool, Report: r.report,
		Resolve: map[string]string{gitHost: s.Listener.Addr().String()},
	}
	t.Cleanup(tr.CloseIdleConnections)
	return git, tr, r
}

func get(t *testing.T, tr http.RoundTripper, url string) (*http.Response, error) {
	t.Helper()
	answer, err := (&http.Client{Transport: tr}).Get(url)
	if err == nil {
		t.Cleanup(func() { answer.Body.Close() })
	}
	return answer, err
}

func TestTransportOwnAudience(t *testing.T) {
	cred := held(t, network())
	git, tr, r := gitAt(t, cred)
	for _, url := range []string{gitURL + "/repos/1", gitURL + ":443/x?q=1", "https://GIT.internal/"} {
		answer, err := get(t, tr, url)
		if err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		if answer.StatusCode != http.StatusOK {
			t.Errorf("%s: %d", url, answer.StatusCode)
		}
		if answer.Request.Header.Get("Authorization") != "" || answer.Request.Header.Get("DPoP") != "" {
			t.Error("the caller's request carries the token")
		}
	}
	if git.proofs != 3 {
		t.Errorf("%d proofs held, want 3", git.proofs)
	}
	if n := len(r.all()); n != 0 {
		t.Errorf("%d reports, want none", n)
	}
}

// A chain that was derived offline goes out like a token.
func TestTransportChain(t *testing.T) {
	parent, key := held(t, network(gitHost)), newKey(t)
	chain, err := parent.Derive(key.Public(), "code-reviewer", delegation.Narrow{Scopes: []string{"repository:read"}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	cred, err := client.Hold(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	git, tr, _ := gitAt(t, cred)
	if answer, err := get(t, tr, gitURL+"/"); err != nil || answer.StatusCode != http.StatusOK {
		t.Fatal(answer, err)
	}
	if git.proofs != 1 {
		t.Error("no proof held")
	}
	if _, err := client.Hold(chain, parent.Key); !errors.Is(err, client.ErrFailed) {
		t.Errorf("the parent's key holds the child: %v", err)
	}
}

func TestTransportNonce(t *testing.T) {
	git, tr, _ := gitAt(t, held(t, nil))
	git.nonce = "n-1"
	var body string
	git.next = func(_ http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		body = string(text)
	}
	c := &http.Client{Transport: tr}
	for range 2 {
		answer, err := c.Post(gitURL+"/c", "text/plain", strings.NewReader("well done"))
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK || body != "well done" {
			t.Errorf("%d, body %q", answer.StatusCode, body)
		}
	}
	// The second one knew the nonce: three requests, two of them with it.
	if len(git.auths) != 3 || git.proofs != 2 {
		t.Errorf("%d requests, %d proofs", len(git.auths), git.proofs)
	}
	// A body that can be read once only is not sent twice.
	git.nonce = "n-2"
	answer, err := c.Post(gitURL+"/c", "text/plain", io.NopCloser(strings.NewReader("once")))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusUnauthorized || len(git.auths) != 4 {
		t.Errorf("%d after %d requests", answer.StatusCode, len(git.auths))
	}
}

// net/http sends a GET again when the server closes the connection that it was
// sent on. If the proof was spent by then, a fresh one goes with a third.
func TestTransportSpentProof(t *testing.T) {
	git, n := &gitServer{t: t}, 0
	git.next = func(w http.ResponseWriter, _ *http.Request) {
		if n++; n == 2 {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			conn.Close()
		}
	}
	ca := newAuthority(t)
	s := ca.serve(t, git, gitHost, "HTTP/1.1")
	tr := &client.Transport{Source: held(t, nil), RootCAs: ca.pool, Resolve: map[string]string{gitHost: s.Listener.Addr().String()}}
	defer tr.CloseIdleConnections()
	for range 2 {
		answer, err := get(t, tr, gitURL+"/")
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatal(answer, err)
		}
	}
	if len(git.auths) != 4 || git.proofs != 3 {
		t.Errorf("%d requests, %d proofs held", len(git.auths), git.proofs)
	}
}

// "Never fall back to Bearer when a proof fails", nor to nothing.
func TestTransportRefusedProof(t *testing.T) {
	var auths []string
	ca := newAuthority(t)
	s := ca.serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		auths = append(auths, r.Header.Get("Authorization"))
		w.Header().Add("WWW-Authenticate", `DPoP error="invalid_dpop_proof"`)
		w.WriteHeader(http.StatusUnauthorized)
	}), gitHost)
	tr := &client.Transport{Source: held(t, nil), RootCAs: ca.pool, Resolve: map[string]string{gitHost: s.Listener.Addr().String()}}
	answer, err := get(t, tr, gitURL+"/")
	if err != nil || answer.StatusCode != http.StatusUnauthorized {
		t.Fatal(answer, err)
	}
	if len(auths) != 1 || !strings.HasPrefix(auths[0], "DPoP ") {
		t.Errorf("the server saw %d requests", len(auths))
	}
}

func TestTransportForeign(t *testing.T) {
	cred := held(t, network("other.example"))
	var header http.Header
	ca := newAuthority(t)
	s := ca.serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { header = r.Header.Clone() }), "other.example")
	w := &wire{
		names: map[string][]string{"other.example": {"203.0.113.7"}},
		hosts: map[string]string{"203.0.113.7:443": s.Listener.Addr().String()},
	}
	r := &reports{}
	tr := &client.Transport{Source: cred, RootCAs: ca.pool, Lookup: w.lookup, Dial: w.dial, Report: r.report, ReportAllowed: true}
	request, err := http.NewRequest(http.MethodGet, "https://other.example/path?secret=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "DPoP "+string(cred.Token))
	request.Header.Set("DPoP", "proof")
	request.Header.Set("X-Copy", "see "+string(cred.Token))
	request.Header.Set("X-Mine", "mine")
	answer, err := tr.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if header.Get("Authorization") != "" || header.Get("DPoP") != "" || header.Get("X-Copy") != "" || header.Get("X-Mine") != "mine" {
		t.Errorf("headers %v", header)
	}
	list := r.all()
	if len(list) != 1 || list[0].Refusal != nil || list[0].Own || list[0].Destination != "other.example:443" ||
		list[0].Address != "203.0.113.7:443" || list[0].URL != "https://other.example/path" || len(list[0].Links) != 1 {
		t.Errorf("reports %+v", list)
	}
	request.Header.Set("Authorization", "Basic b3duOmtleQ==")
	if answer, err = tr.RoundTrip(request); err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if header.Get("Authorization") != "Basic b3duOmtleQ==" {
		t.Error("the caller's own authorization was taken away")
	}
}

// A redirect is followed by another RoundTrip: it meets the same checks, and
// takes nothing along.
func TestTransportRedirect(t *testing.T) {
	c := newCanary(t)
	git, tr, r := gitAt(t, held(t, network("*.internal")))
	to := fmt.Sprintf("http://%s/steal", c.addr)
	git.next = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/here" {
			http.Redirect(w, r, "/there", http.StatusFound)
		} else if r.URL.Path == "/away" {
			http.Redirect(w, r, to, http.StatusTemporaryRedirect)
		}
	}
	if answer, err := get(t, tr, gitURL+"/here"); err != nil || answer.Request.URL.Path != "/there" {
		t.Fatal(answer, err)
	}
	if git.proofs != 2 {
		t.Errorf("%d proofs held, want one a hop", git.proofs)
	}
	_, err := get(t, tr, gitURL+"/away")
	wantRefused(t, err, r, delegation.ConstraintViolated, delegation.DimensionNetwork)
	if c.connections() != 0 {
		t.Error("the redirect's host was connected to")
	}
	// The plain form of the same host is another origin.
	var plain http.Header
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { plain = r.Header.Clone() }))
	defer s.Close()
	tr.Resolve[gitHost+":80"] = s.Listener.Addr().String()
	to = "http://" + gitHost + "/plain"
	if _, err := get(t, tr, gitURL+"/away"); err != nil {
		t.Fatal(err)
	}
	if plain == nil || plain.Get("Authorization") != "" || plain.Get("DPoP") != "" {
		t.Error("the plain hop carried token or proof")
	}
}

func TestTransportExpired(t *testing.T) {
	c := newCanary(t)
	end := time.Now().Add(2 * time.Minute)
	cred := held(t, func(c *delegation.Claims) { c.Expires = end })
	for _, url := range []string{gitURL + "/", "https://other.example/"} {
		r := &reports{}
		tr := &client.Transport{
			Source: cred, Report: r.report, Now: func() time.Time { return end },
			Resolve: map[string]string{gitHost: c.addr.String(), "other.example": c.addr.String()},
		}
		_, err := get(t, tr, url)
		wantRefused(t, err, r, delegation.Expired, delegation.DimensionTTL)
	}
	if c.connections() != 0 {
		t.Error("connected with a credential that is over")
	}
}

func TestTransportAuditRequired(t *testing.T) {
	c := newCanary(t)
	yes := true
	limits := func(cl *delegation.Claims) {
		cl.Limits = delegation.Limits{AuditRequired: &yes, AllowNetwork: []string{"other.example"}}
	}
	cred := held(t, limits)
	down := &reports{err: errors.New("down")}
	for _, report := range []*reports{nil, down} {
		tr := &client.Transport{Source: cred, Resolve: map[string]string{"other.example": c.addr.String()}}
		if report != nil {
			tr.Report = report.report
		}
		_, err := get(t, tr, "http://other.example/")
		wantRefused(t, err, report, delegation.ConstraintViolated, delegation.DimensionAudit)
	}
	if c.connections() != 0 {
		t.Error("a byte left before its record")
	}
	r := &reports{}
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if len(r.all()) != 1 {
			t.Error("the request came before its report")
		}
	}))
	defer s.Close()
	tr := &client.Transport{Source: cred, Report: r.report, Resolve: map[string]string{"other.example": s.Listener.Addr().String()}}
	if _, err := get(t, tr, "http://other.example/"); err != nil {
		t.Fatal(err)
	}
}

// No proxy of the environment sees anything.
func TestTransportNoProxy(t *testing.T) {
	c := newCanary(t)
	t.Setenv("HTTP_PROXY", "http://"+c.addr.String())
	t.Setenv("HTTPS_PROXY", "http://"+c.addr.String())
	git, tr, _ := gitAt(t, held(t, nil))
	if _, err := get(t, tr, gitURL+"/"); err != nil || git.proofs != 1 {
		t.Fatal(err)
	}
	if c.connections() != 0 {
		t.Error("a proxy was used")
	}
}

func TestTokenIsRedacted(t *testing.T) {
	cred := held(t, nil)
	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "token", cred.Token, "credential", cred)
	text := fmt.Sprintf("%v %+v %#v %s %q %x", cred, cred, cred, cred.Token, cred.Token, cred.Token) + logged.String()
	if strings.Contains(text, string(cred.Token)[:40]) || strings.Contains(text, fmt.Sprintf("%x", string(cred.Token)[:40])) {
		t.Error("a token was printed")
	}
}
