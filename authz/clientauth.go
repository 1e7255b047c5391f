package authz

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/audit"
)

// maxCredential bounds what is decoded of a Basic header.
const maxCredential = 16 << 10

// unauthenticated is the one answer to everything that is wrong with a
// client's authentication: which part was wrong is nobody's business.
func unauthenticated() *Error {
	return &Error{
		Status: http.StatusUnauthorized, Code: "invalid_client",
		Description: "client authentication failed",
		Challenge:   `Basic realm="kavach", charset="UTF-8"`, // RFC 6749 §5.2, RFC 9110 §15.5.2
	}
}

// credentials is what a request says about the client that sends it. secret is
// a secret or an assertion, as method says.
type credentials struct {
	method   Method
	clientID string
	secret   string
}

// Authenticated is a client that a request comes from, and what its
// authentication costs.
type Authenticated struct {
	// Client is who it is.
	Client Client
	// Once spends the assertion that was presented; it is empty for every other
	// method. It belongs into the Change of the answer, so that a request which
	// fails before burns nothing; if it is lost, the assertion was used before, or
	// its key was replaced at that moment, and the answer is the error of
	// [Replayed].
	Once []audit.Effect
}

// Replayed is the answer to an assertion that was used before: that of every
// authentication that fails.
func Replayed() *Error { return unauthenticated() }

// Authenticate returns the client that a request whose form was read by
// [ParseForm] comes from. It used exactly one method and that is the one it is
// registered with. An error that is not an *Error is a failure of the database
// and must be answered with 503: a client that reads invalid_client throws its
// registration away.
func (g *Registry) Authenticate(ctx context.Context, r *http.Request) (Authenticated, error) {
	cred, err := readCredentials(r)
	if err != nil {
		return Authenticated{}, err
	}
	c, err := g.cachedClient(ctx, cred.clientID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Authenticated{}, err
	}
	// The same work whether or not the client exists.
	matches := secretMatches(c.SecretHash, cred.secret)
	switch {
	case err != nil, c.Disabled, c.Method != cred.method, !c.Until.IsZero() && !g.now().Before(c.Until):
	case c.Method == MethodNone:
		return Authenticated{Client: c}, nil
	case c.Method == MethodBasic, c.Method == MethodPost:
		if c.SecretHash != "" && matches {
			return Authenticated{Client: c}, nil
		}
	case c.Method == MethodKeyJWT:
		return g.authenticateKey(ctx, c, cred.secret)
	}
	return Authenticated{}, unauthenticated()
}

const (
	// assertionType is the only form of a client assertion (RFC 7523 section
	// 2.2): byte for byte.
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	// clientAssertionLife is the longest life of an assertion
	// (authorization-server.md §2: "lifetime ≤ 5 min").
	clientAssertionLife = 5 * time.Minute
)

// authenticateKey is Authenticate for a client that has keys. Those of an agent
// can change: an assertion that does not fit the key that was read a second ago
// may fit the one that is there now. The other way round the effect decides: it
// must find the key in its place, so that from a key change on there is no
// moment in which the one before still works.
func (g *Registry) authenticateKey(ctx context.Context, c Client, assertion string) (Authenticated, error) {
	if spend, ok := g.checkAssertion(c, assertion); ok {
		return Authenticated{Client: c, Once: []audit.Effect{spend}}, nil
	}
	if c.Kind != KindAgent {
		return Authenticated{}, unauthenticated()
	}
	now, err := g.Client(ctx, c.ID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return Authenticated{}, err
	}
	if err == nil && !now.Disabled && !slices.Equal(now.Keys, c.Keys) {
		g.clients.forget(c.ID)
		if spend, ok := g.checkAssertion(now, assertion); ok {
			return Authenticated{Client: now, Once: []audit.Effect{spend}}, nil
		}
	}
	return Authenticated{}, unauthenticated()
}

// checkAssertion verifies an assertion under one of the client's keys: for an
// agent its identity key. The effect says that it is used.
func (g *Registry) checkAssertion(c Client, assertion string) (audit.Effect, bool) {
	for _, key := range c.Keys {
		a, err := agent.VerifyAssertion(assertion, key, agent.AssertionCheck{
			ClientID: c.ID, Audience: g.cfg.Issuer, MaxLifetime: clientAssertionLife, Now: g.now(),
		})
		switch once := assertionKey(c.ID, a.JTI); {
		case err != nil:
		case c.Kind == KindAgent:
			return g.cfg.Store.OnceByAgent(once, a.Expires, c.ID, key.Thumbprint()), true
		default:
			return g.cfg.Store.Once(once, a.Expires), true
		}
	}
	return nil, false
}

// assertionKey names an assertion among all that may come once: "jti once per
// client", wherever it is presented.
func assertionKey(clientID, jti string) string {
	return HashSecret("assertion " + clientID + " " + jti)
}

func readCredentials(r *http.Request) (credentials, error) {
	var found []credentials
	header := r.Header.Values("Authorization")
	if len(header) > 1 {
		return credentials{}, unauthenticated()
	}
	if len(header) == 1 {
		cred, ok := readBasic(header[0])
		if !ok {
			return credentials{}, unauthenticated()
		}
		found = append(found, cred)
	}
	id := r.PostForm.Get("client_id")
	if r.PostForm.Has("client_secret") {
		found = append(found, credentials{MethodPost, id, r.PostForm.Get("client_secret")})
	}
	if r.PostForm.Has("client_assertion") || r.PostForm.Has("client_assertion_type") {
		cred := credentials{method: MethodKeyJWT, secret: r.PostForm.Get("client_assertion")}
		if r.PostForm.Get("client_assertion_type") == assertionType {
			// Who it says it is; that it is, its signature shows. RFC 7521
			// section 4.2: client_id "is unnecessary ... If present, the value
			// ... MUST identify the same client".
			cred.clientID, _ = agent.UnverifiedAssertionClient(cred.secret)
		}
		found = append(found, cred)
	}
	switch {
	case len(found) > 1:
		// RFC 6749 §5.2: "utilizes more than one mechanism for authenticating
		// the client".
		return credentials{}, badRequest("invalid_request", "use one method of client authentication")
	case len(found) == 0:
		found = append(found, credentials{MethodNone, id, ""})
	}
	cred := found[0]
	if cred.clientID == "" || len(cred.clientID) > 256 || id != "" && id != cred.clientID {
		return credentials{}, unauthenticated()
	}
	return cred, nil
}

// readBasic reads HTTP Basic as RFC 6749 §2.3.1 wants it: both halves
// form-encoded, then joined by a colon, so that a colon inside is %3A.
func readBasic(header string) (credentials, bool) {
	scheme, encoded, ok := strings.Cut(header, " ")
	if !ok || !strings.EqualFold(scheme, "Basic") || len(encoded) > maxCredential {
		return credentials{}, false
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(encoded))
	if err != nil {
		return credentials{}, false
	}
	rawID, rawSecret, ok := strings.Cut(string(raw), ":")
	if !ok {
		return credentials{}, false
	}
	id, err1 := url.QueryUnescape(rawID)
	secret, err2 := url.QueryUnescape(rawSecret)
	if err1 != nil || err2 != nil || !plainText(id) || !plainText(secret) {
		return credentials{}, false
	}
	return credentials{MethodBasic, id, secret}, true
}

// plainText says that text is UTF-8 without NUL.
func plainText(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsRune(text, 0)
}
