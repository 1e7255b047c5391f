package client

import (
	"context"
	"net/url"
	"time"

	"github.com/kavach-dev/kavach/agent"
)

// typeHandle is the type of a handle: it stands for a part of a token, works
// once and within a minute, and only for the agent that it names.
const typeHandle = "urn:kavach:token-type:handle"

// Handle asks for a handle for ask.Agent, whose key is not known: it redeems
// the handle with a key of its own. A handle may pass through hands, and
// models, that must not have a token.
func (a *Agent) Handle(ctx context.Context, subject Credential, ask ExchangeAsk) (handle Token, expires time.Time, err error) {
	if ask.Agent == "" || ask.Card != "" || !ask.Receiver.IsZero() || !ask.Holder.IsZero() {
		return "", time.Time{}, failed("a handle is for an agent that is named and brings its own key")
	}
	form, err := ask.form(subject)
	if err != nil {
		return "", time.Time{}, err
	}
	form.Set("requested_token_type", typeHandle)
	q := tokenRequest{form: form, prover: subject.Key}
	if !subject.Key.IsZero() {
		q.ath = string(subject.Token)
	}
	answer, sent, err := a.ask(ctx, q)
	if err != nil {
		return "", time.Time{}, err
	}
	handle = Token(answer.Get("access_token").Str())
	// RFC 8693 section 2.2.1: N_A for what is no access token.
	if handle == "" || answer.Get("issued_token_type").Str() != typeHandle || answer.Get("token_type").Str() != "N_A" {
		return "", time.Time{}, failed("the token endpoint did not answer with a handle")
	}
	expires, ok := expiry(answer, sent)
	if !ok {
		return "", time.Time{}, failed("the token endpoint does not say how long the handle lives")
	}
	return handle, expires, nil
}

// Redeem turns a handle, from Handle or from MCP delegate, which is for this
// agent, into a token bound to holder; a zero holder makes one.
func (a *Agent) Redeem(ctx context.Context, handle string, holder agent.PrivateKey) (Credential, error) {
	holder, err := a.holder(holder)
	if err != nil {
		return Credential{}, err
	}
	return a.grant(ctx, tokenRequest{prover: holder, holder: holder, form: url.Values{
		"grant_type":         {grantExchange},
		"subject_token":      {handle},
		"subject_token_type": {typeHandle},
	}})
}
