package client_test

import (
	"context"
	"errors"
	"testing"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
)

// An AAT is asked for with the key it is bound to and the tools it grants, and
// nothing else is taken for one.
func TestTokenAAT(t *testing.T) {
	s := newServer(t)
	a, ctx, holder := s.agent(nil), context.Background(), newKey(t)
	ask := client.Ask{
		Resources: []string{gitURL}, Holder: holder, AAT: true, Tools: delegation.Tools{"get_diff": delegation.AllowAnyArgs},
	}
	cred, err := a.Token(ctx, ask)
	if err != nil {
		t.Fatal(err)
	}
	form := s.asked()[0]
	if form.Get("requested_token_type") != "urn:kavach:token-type:aat" || form.Get("req_cnf") != `{"jwk":`+string(holder.Public().AppendJWK(nil))+`}` ||
		form.Get("authorization_details") != `[{"tools":{"get_diff":{}},"type":"attenuating_agent_token"}]` || cred.Key.Public() != holder.Public() {
		t.Errorf("asked %v, got %+v", form, cred)
	}
	for _, kind := range []string{"DPoP", "Bearer", "N_A", ""} {
		s.edit = func(answer map[string]any) { answer["token_type"] = kind }
		if _, err := a.Token(ctx, ask); !errors.Is(err, client.ErrFailed) {
			t.Errorf("token_type %q for an AAT: %v", kind, err)
		}
	}
	s.edit = func(answer map[string]any) { answer["token_type"] = "aat" }
	if _, err := a.Token(ctx, client.Ask{Holder: holder}); !errors.Is(err, client.ErrFailed) {
		t.Errorf("an AAT that nobody asked for: %v", err)
	}
	s.edit = nil
	n := len(s.asked())
	ask.AAT = false
	if _, err := a.Token(ctx, ask); !errors.Is(err, client.ErrFailed) || len(s.asked()) != n {
		t.Errorf("tools without an AAT: %v", err)
	}
}

func TestExchangeAAT(t *testing.T) {
	s := newServer(t)
	a, ctx, holder := s.agent(nil), context.Background(), newKey(t)
	subject, err := a.Token(ctx, client.Ask{})
	if err != nil {
		t.Fatal(err)
	}
	ask := client.ExchangeAsk{AAT: true, Tools: delegation.Tools{"get_diff": delegation.AllowAnyArgs}}
	mine := ask
	mine.Holder = holder
	got, err := a.Exchange(ctx, subject, mine)
	if err != nil || got.Key.Public() != holder.Public() {
		t.Fatalf("%+v, %v", got, err)
	}
	// The proof of the request is by the subject's key, so the new one has its
	// own.
	form := s.asked()[1]
	proof, err := agent.VerifyProof(form.Get("req_cnf_proof"), agent.ProofCheck{
		Method: "POST", URL: s.issuer() + "/oauth/token", Token: string(subject.Token), JKT: holder.Public().Thumbprint(), Now: s.now(),
	})
	if err != nil || !proof.HasATH || form.Get("requested_token_type") != "urn:kavach:token-type:aat" {
		t.Errorf("asked %v: %v", form, err)
	}
	theirs := ask
	theirs.Receiver, theirs.ReceiverProof = holder.Public(), "a.b.c"
	if got, err = a.Exchange(ctx, subject, theirs); err != nil || !got.Key.IsZero() || s.asked()[2].Get("req_cnf_proof") != "a.b.c" {
		t.Errorf("for another: %+v, %v", got, err)
	}
}
