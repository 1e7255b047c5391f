package client

import (
	"context"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/jcs"
)

const (
	// wellKnown is where the metadata of an issuer is (RFC 8414 section 3.1).
	wellKnown = "/.well-known/oauth-authorization-server"
	// discoveryLife is how long the metadata is taken for true.
	discoveryLife = 10 * time.Minute
	// askTimeout bounds one question to the issuer, discovery included.
	askTimeout = 30 * time.Second
	// maxAnswer bounds an answer of the issuer: a chain has 56 KiB.
	maxAnswer = 256 << 10
)

// checkIssuer holds an issuer to what an issuer may be (RFC 8414 section 2: "a
// URL that uses the "https" scheme and has no query or fragment components").
func checkIssuer(issuer string) error {
	u, err := url.Parse(issuer)
	if err != nil || u.Host == "" || u.User != nil || strings.ContainsAny(issuer, "?#") || strings.HasSuffix(issuer, "/") {
		return failed("the issuer is not an absolute URL without query, fragment or trailing slash")
	}
	return checkEndpoint(u)
}

// checkEndpoint lets no secret travel in the clear beyond this machine.
func checkEndpoint(u *url.URL) error {
	if u.Scheme == "https" || u.Scheme == "http" && isLoopbackName(u.Hostname()) {
		return nil
	}
	return failed("%s://%s is not https", u.Scheme, u.Host)
}

// isLoopbackName says whether a host is written so that it can only mean this
// machine.
func isLoopbackName(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.Unmap().IsLoopback()
}

// tokenEndpoint finds the token endpoint in the issuer's metadata.
func (a *Agent) tokenEndpoint(ctx context.Context) (string, error) {
	now := a.cfg.Now()
	a.mu.Lock()
	endpoint, age := a.endpoint, now.Sub(a.discovered)
	a.mu.Unlock()
	if endpoint != "" && age >= 0 && age < discoveryLife {
		return endpoint, nil
	}
	endpoint, err := a.discover(ctx)
	if err != nil {
		return "", err
	}
	a.mu.Lock()
	a.endpoint, a.discovered = endpoint, now
	a.mu.Unlock()
	return endpoint, nil
}

func (a *Agent) discover(ctx context.Context) (string, error) {
	issuer, err := url.Parse(a.cfg.Issuer)
	if err != nil {
		return "", failed("the issuer is not a URL")
	}
	// "inserting a well-known URI string between the host component and the
	// path component" (RFC 8414 section 3).
	at := issuer.Scheme + "://" + issuer.Host + wellKnown + issuer.EscapedPath()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return "", failed("asking %s: %w", at, err)
	}
	r.Header.Set("Accept", "application/json")
	answer, err := a.cfg.Transport.RoundTrip(r)
	if err != nil {
		return "", failed("asking %s: %w", at, err)
	}
	document, err := readAnswer(answer)
	switch {
	case answer.StatusCode != http.StatusOK:
		return "", failed("%s answered %d", at, answer.StatusCode)
	case err != nil:
		return "", failed("%s: %w", at, err)
	// "The "issuer" value returned MUST be identical to the authorization
	// server's issuer identifier value" (RFC 8414 section 3.3).
	case document.Get("issuer").Str() != a.cfg.Issuer:
		return "", failed("%s is the metadata of another issuer", at)
	}
	endpoint := document.Get("token_endpoint").Str()
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return "", failed("%s names no token endpoint", at)
	}
	if err := checkEndpoint(u); err != nil {
		return "", err
	}
	return endpoint, nil
}

// readAnswer reads and closes a JSON answer.
func readAnswer(answer *http.Response) (jcs.Value, error) {
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err != nil {
		return jcs.Value{}, err
	}
	if len(text) > maxAnswer {
		return jcs.Value{}, failed("the answer is larger than %d bytes", maxAnswer)
	}
	v, err := jcs.Parse(text, jcs.Limits{})
	if err != nil || v.Kind() != jcs.Object {
		return jcs.Value{}, failed("the answer is not a JSON object")
	}
	return v, nil
}
