package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

// aatScheme is the token_type of an answer with an AAT.
const aatScheme = "aat"

// assertionLife is how long a client assertion lives; each is used once.
const assertionLife = time.Minute

// tokenRequest is one question to the token endpoint.
type tokenRequest struct {
	form url.Values
	// prover signs the DPoP proof; zero sends none.
	prover agent.PrivateKey
	// ath is the credential that the proof is about, "" for none.
	ath string
	// holder is who must be able to use the answer; zero is somebody else, or
	// nobody in particular.
	holder agent.PrivateKey
	// bound is the public key that the answer must be bound to; zero is not
	// known beforehand.
	bound agent.PublicKey
	// unbound says that a bearer token may come back.
	unbound bool
	// confirm proves the key of req_cnf, where prover proves another; zero sends
	// no such proof.
	confirm agent.PrivateKey
	// aat says that an AAT was asked for, and nothing else may come back.
	aat bool
}

// grant asks the token endpoint for a token.
func (a *Agent) grant(ctx context.Context, ask tokenRequest) (Credential, error) {
	answer, sent, err := a.ask(ctx, ask)
	if err != nil {
		return Credential{}, err
	}
	return ask.credential(answer, sent)
}

// ask asks the token endpoint, a second time if it wants a nonce in the proof
// (RFC 9449 section 8). It returns when it asked, too.
func (a *Agent) ask(ctx context.Context, ask tokenRequest) (jcs.Value, time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	endpoint, err := a.tokenEndpoint(ctx)
	if err != nil {
		return jcs.Value{}, time.Time{}, err
	}
	for retried := false; ; retried = true {
		sent := a.cfg.Now()
		status, header, answer, err := a.post(ctx, endpoint, ask)
		if err != nil {
			return jcs.Value{}, time.Time{}, err
		}
		if status == http.StatusOK {
			return answer, sent, nil
		}
		refused := readError(status, header, answer, ask.secrets()...)
		if refused.Code != "use_dpop_nonce" || header.Get(nonceHeader) == "" || retried {
			return jcs.Value{}, time.Time{}, refused
		}
	}
}

// secrets are what an error must not repeat.
func (q tokenRequest) secrets() []string {
	return []string{q.form.Get("subject_token"), q.form.Get("actor_token"), q.form.Get("client_assertion"), q.form.Get("req_cnf_proof")}
}

// post sends the question once, with an assertion and a proof of its own: both
// work once.
func (a *Agent) post(ctx context.Context, endpoint string, ask tokenRequest) (int, http.Header, jcs.Value, error) {
	fail := func(err error) (int, http.Header, jcs.Value, error) {
		return 0, nil, jcs.Value{}, failed("asking %s: %w", endpoint, err)
	}
	now := a.cfg.Now()
	assertion, err := agent.SignAssertion(a.cfg.Key, a.cfg.ID, a.cfg.Issuer, now, assertionLife)
	if err != nil {
		return fail(err)
	}
	ask.form.Set("client_id", a.cfg.ID)
	ask.form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	ask.form.Set("client_assertion", assertion)
	if !ask.confirm.IsZero() {
		proof, err := agent.SignProof(ask.confirm, agent.Proof{Method: http.MethodPost, URL: endpoint, Token: ask.ath, IssuedAt: now})
		if err != nil {
			return fail(err)
		}
		ask.form.Set("req_cnf_proof", proof)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(ask.form.Encode()))
	if err != nil {
		return fail(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	key := ""
	if !ask.prover.IsZero() {
		key = nonceKey(endpoint, ask.prover.Public())
		proof, err := agent.SignProof(ask.prover, agent.Proof{
			Method: r.Method, URL: endpoint, Token: ask.ath, Nonce: a.nonces.get(key), IssuedAt: now,
		})
		if err != nil {
			return fail(err)
		}
		r.Header.Set(proofHeader, proof)
	}
	answer, err := a.cfg.Transport.RoundTrip(r)
	if err != nil {
		return fail(err)
	}
	if key != "" {
		a.nonces.keep(key, answer.Header)
	}
	document, err := readAnswer(answer)
	if err != nil && answer.StatusCode == http.StatusOK {
		return fail(err)
	}
	return answer.StatusCode, answer.Header, document, nil
}

// ReadError reads the OAuth error of any answer, for a message or a log: none of
// the secrets that went with the request is in it, whatever the server repeats.
// Code is "" if the body is not of that form.
func ReadError(answer *http.Response, body []byte, secrets ...string) *Error {
	v, err := jcs.Parse(body, jcs.Limits{})
	if err != nil {
		v = jcs.Value{}
	}
	return readError(answer.StatusCode, answer.Header, v, secrets...)
}

// readError makes an Error of whatever the endpoint said.
func readError(status int, header http.Header, answer jcs.Value, secrets ...string) *Error {
	e := &Error{
		Status:      status,
		Code:        clean(answer.Get("error").Str(), secrets...),
		Description: clean(answer.Get("error_description").Str(), secrets...),
	}
	if seconds, err := strconv.Atoi(header.Get("Retry-After")); err == nil && seconds > 0 && seconds < 1<<20 {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	return e
}

// credential reads the answer of RFC 6749 section 5.1.
func (q tokenRequest) credential(answer jcs.Value, sent time.Time) (Credential, error) {
	token := answer.Get("access_token").Str()
	if token == "" {
		return Credential{}, failed("the answer of the token endpoint has no access_token")
	}
	// "If a DPoP proof was included … and the token_type is not DPoP, the
	// client has to decide"; here it is a token that anybody can use.
	scheme := answer.Get("token_type").Str()
	bound := strings.EqualFold(scheme, delegation.DPoP)
	if q.aat {
		bound = strings.EqualFold(scheme, aatScheme)
	}
	if q.aat && !bound || !bound && !(q.unbound && strings.EqualFold(scheme, delegation.Bearer)) {
		return Credential{}, failed("the token endpoint answered with token_type %q", clean(scheme))
	}
	grant, err := delegation.UnverifiedHeld(token)
	if err != nil {
		return Credential{}, failed("reading the token: %w", err)
	}
	switch jkt := grant.JKT(); {
	case bound != (jkt != ""),
		!q.bound.IsZero() && jkt != q.bound.Thumbprint(),
		bound && !q.holder.IsZero() && jkt != q.holder.Public().Thumbprint():
		return Credential{}, failed("the token is not bound to the key that it was asked for")
	}
	c := Credential{Token: Token(token), Expires: grant.Expires(), Scopes: grant.Scopes(), Audience: grant.Audience()}
	if bound {
		c.Key = q.holder
	}
	// The clocks may differ: what ends first, ends it.
	if end, ok := expiry(answer, sent); ok && end.Before(c.Expires) {
		c.Expires = end
	}
	return c, nil
}

// expiry reads expires_in, seconds from when the question was sent.
func expiry(answer jcs.Value, sent time.Time) (time.Time, bool) {
	seconds, ok := answer.Get("expires_in").Int()
	if !ok || seconds < 0 || seconds > int64(delegation.MaxRootTTL/time.Second) {
		return time.Time{}, false
	}
	return sent.Add(time.Duration(seconds) * time.Second), true
}
