package client

import "net/http"

// untaken says whether an audience would not take the token itself, not its
// proof, for a request that can be sent again. What was answered 401 was not
// done.
func (v *verdict) untaken(r *http.Request, answer *http.Response) bool {
	return v.own && answer.StatusCode == http.StatusUnauthorized && challenged(answer.Header, "invalid_token") && repeatable(r)
}

// renew sends a request once more, with the token that the Source has instead
// of the one that was not taken. It is judged anew, because a new token may
// allow less. The server's refusal stays the answer if there is no other token,
// or if the new one is for others: a request that was refused with a token is
// not tried without one.
func (v *verdict) renew(r *http.Request, refusal *http.Response) (*http.Response, error) {
	source, ok := v.t.Source.(Renewer)
	if !ok {
		return refusal, nil
	}
	cred, err := source.Renew(r.Context(), v.cred)
	if err != nil {
		_ = refusal.Body.Close()
		return nil, failed("renewing the credential: %w", err)
	}
	if cred.Token == v.cred.Token {
		return refusal, nil
	}
	next, err := v.t.judgeWith(r.Context(), cred, attemptOf(r, v.t.now()), r.URL, false)
	if err == nil && !next.own {
		return refusal, nil
	}
	if err == nil {
		err = next.permit(r)
	}
	if err != nil {
		_ = refusal.Body.Close()
		return nil, err
	}
	body, err := bodyAgain(r)
	if err != nil {
		return refusal, nil
	}
	_ = refusal.Body.Close()
	return next.deliver(r, body)
}
