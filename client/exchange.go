package client

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
)

const (
	grantExchange   = "urn:ietf:params:oauth:grant-type:token-exchange"
	typeAccessToken = "urn:ietf:params:oauth:token-type:access_token"
	typeAgentKey    = "urn:kavach:token-type:agent-key"
	typeAAT         = "urn:kavach:token-type:aat"
)

// ExchangeAsk is what a token shall be exchanged for (RFC 8693). What it leaves
// zero stays as the subject has it.
type ExchangeAsk struct {
	// Scopes narrow the subject's; nil leaves them out.
	Scopes []string
	// Resources narrow the subject's audience; nil leaves them out.
	Resources []string
	// TTL is how long it shall live, in whole seconds; 0 is the server's
	// choice.
	TTL time.Duration
	// MaxDepth is how many more hand-overs the result shall allow.
	MaxDepth *int
	// Tools and Limits restrict it further.
	Tools  delegation.Tools
	Limits delegation.Limits
	// Agent is the id or name of the agent that will use the result, where no
	// card says so. It is on the caller's word, and only one of the same owner.
	Agent string
	// Card is the key card of the agent that will use the result, with the
	// issuer as its audience.
	Card string
	// Receiver is the key to bind the result to, if it is not the subject's and
	// no card names it.
	Receiver agent.PublicKey
	// ReceiverProof shows that Receiver is held by whom it is for: a DPoP proof
	// by it for the token endpoint. An AAT for Receiver needs it.
	ReceiverProof string
	// Holder is a new key of one's own to bind the result to.
	Holder agent.PrivateKey
	// AAT asks for a root that verifiers take which know only AAT. It needs
	// tools, and a key that is not the subject's: Holder, Receiver or Card.
	AAT bool
}

// Exchange narrows a token or chain online (RFC 8693). The result's Key is
// ask.Holder or the subject's own, and zero where the result is for somebody
// else's key: then its Token is what to hand over.
func (a *Agent) Exchange(ctx context.Context, subject Credential, ask ExchangeAsk) (Credential, error) {
	form, err := ask.form(subject)
	if err != nil {
		return Credential{}, err
	}
	if ask.Agent != "" && ask.Receiver.IsZero() {
		return Credential{}, failed("the agent's key is not known: use Handle, or its key card")
	}
	// delegation.md §7: "step 14 is the request's own DPoP proof … by the
	// subject leaf's key; it binds the result only if no other key is given".
	q := tokenRequest{form: form, prover: subject.Key, holder: subject.Key, unbound: subject.Key.IsZero()}
	if !subject.Key.IsZero() {
		q.ath = string(subject.Token)
	}
	receiver := ask.Receiver
	switch {
	case !ask.Holder.IsZero():
		holder, err := a.holder(ask.Holder)
		if err != nil {
			return Credential{}, err
		}
		if !receiver.IsZero() || ask.Card != "" {
			return Credential{}, failed("the result can be bound to one key only")
		}
		q.holder, receiver = holder, holder.Public()
		if subject.Key.IsZero() {
			q.prover = holder
			if !ask.AAT {
				receiver = agent.PublicKey{} // the proof says it better
			}
		} else {
			q.confirm = holder
		}
		q.bound, q.unbound = holder.Public(), false
	case !receiver.IsZero():
		q.holder, q.bound, q.unbound = agent.PrivateKey{}, receiver, false
	case ask.Card != "":
		q.holder, q.unbound = agent.PrivateKey{}, false
	}
	if !receiver.IsZero() {
		if err := confirm(form, receiver); err != nil {
			return Credential{}, err
		}
	}
	if ask.ReceiverProof != "" {
		form.Set("req_cnf_proof", ask.ReceiverProof)
	}
	if q.aat = ask.AAT; q.aat {
		form.Set("requested_token_type", typeAAT)
	}
	return a.grant(ctx, q)
}

// form writes what is asked of the subject.
func (ask ExchangeAsk) form(subject Credential) (url.Values, error) {
	form := url.Values{
		"grant_type":         {grantExchange},
		"subject_token":      {string(subject.Token)},
		"subject_token_type": {typeAccessToken},
	}
	narrow(form, ask.Scopes, ask.Resources, ask.MaxDepth)
	if ask.TTL > 0 {
		form.Set("requested_expires_in", strconv.FormatInt(int64(ask.TTL/time.Second), 10))
	}
	if ask.Agent != "" {
		form.Set("agent", ask.Agent)
	}
	if ask.Card != "" {
		form.Set("actor_token", ask.Card)
		form.Set("actor_token_type", typeAgentKey)
	}
	return form, restrict(form, ask.Tools, ask.Limits)
}
