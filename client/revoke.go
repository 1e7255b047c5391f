package client

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/kavach-dev/kavach/agent"
)

// Revocation says what a holder wants ended, and proves that it may.
type Revocation struct {
	// Issuer is the authorization server that issued the token.
	Issuer string
	// Token is the token or chain to end, with everything below it. Empty: Key
	// itself is to end, with everything that is bound to it.
	Token string
	// Bound may be, where Key itself is to end, a live token or chain in which
	// something is bound to it: such a key has room even where strangers have
	// revoked too many of their own.
	Bound string
	// Key is the key that the last link is bound to, or one above it.
	Key agent.PrivateKey
	// Transport sends. Nil: http.DefaultTransport.
	Transport http.RoundTripper
	// Now is the clock. Nil: time.Now.
	Now func() time.Time
}

// Revoke ends a token, a chain or a key at its issuer. It needs no sign-in: the
// proof by the key is enough. recorded is false if only the issuer's log could
// not be written. An answer that refuses is an *Error.
func Revoke(ctx context.Context, r Revocation) (recorded bool, err error) {
	if r.Transport == nil {
		r.Transport = http.DefaultTransport
	}
	if r.Now == nil {
		r.Now = time.Now
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	endpoint := r.Issuer + "/oauth/revoke"
	form := url.Values{"token": {r.Token}}
	if r.Token == "" {
		form = url.Values{"token": {r.Key.Public().Thumbprint()}, "token_type_hint": {"urn:kavach:token-type:key"}}
		if r.Bound != "" {
			form.Set("bound_token", r.Bound)
		}
	}
	for nonce := ""; ; {
		proof, err := agent.SignProof(r.Key, agent.Proof{
			Method: http.MethodPost, URL: endpoint, Token: form.Get("token"), Nonce: nonce, IssuedAt: r.Now(),
		})
		if err != nil {
			return false, failed("asking %s: %w", endpoint, err)
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
		if err != nil {
			return false, failed("asking %s: %w", endpoint, err)
		}
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.Header.Set("Accept", "application/json")
		request.Header.Set(proofHeader, proof)
		answer, err := r.Transport.RoundTrip(request)
		if err != nil {
			return false, failed("asking %s: %w", endpoint, err)
		}
		document, err := readAnswer(answer)
		if answer.StatusCode == http.StatusOK {
			if err != nil {
				return false, failed("asking %s: %w", endpoint, err)
			}
			said := document.Get("recorded")
			return !said.Exists() || said.Bool(), nil
		}
		refused := readError(answer.StatusCode, answer.Header, document, r.Token, r.Bound)
		if next := answer.Header.Get(nonceHeader); refused.Code == "use_dpop_nonce" && next != "" && nonce == "" {
			nonce = next
			continue
		}
		return false, refused
	}
}
