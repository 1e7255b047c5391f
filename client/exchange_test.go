package client_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/client"
	"github.com/kavach-dev/kavach/delegation"
)

func TestExchange(t *testing.T) {
	s := newServer(t)
	a, ctx := s.agent(nil), context.Background()
	subject, err := a.Token(ctx, client.Ask{Scopes: []string{"repository:read"}})
	if err != nil {
		t.Fatal(err)
	}
	size := int64(5_000_000)
	own, err := a.Exchange(ctx, subject, client.ExchangeAsk{
		Scopes: []string{"repository:read"}, Resources: []string{gitURL}, TTL: time.Minute,
		Tools: delegation.Tools{"get_diff": delegation.AllowAnyArgs}, Limits: delegation.Limits{MaxFileSize: &size},
	})
	if err != nil {
		t.Fatal(err)
	}
	form := s.asked()[1]
	want := `[{"tools":{"get_diff":{}},"type":"attenuating_agent_token"},{"max_file_size":5000000,"type":"kavach_limits"}]`
	if form.Get("authorization_details") != want || form.Get("requested_expires_in") != "60" || form.Has("req_cnf") ||
		form.Get("subject_token") != string(subject.Token) {
		t.Errorf("asked %v", form)
	}
	if !s.aths[subject.Key.Public().Thumbprint()] {
		t.Error("the proof is not about the subject")
	}
	if own.Key.Public() != subject.Key.Public() {
		t.Error("narrowing for oneself keeps the key")
	}
	holder := newKey(t)
	for name, c := range map[string]struct {
		ask client.ExchangeAsk
		key agent.PrivateKey
	}{
		"a new key of one's own": {client.ExchangeAsk{Holder: holder}, holder},
		"somebody else's key":    {client.ExchangeAsk{Receiver: holder.Public()}, agent.PrivateKey{}},
	} {
		got, err := a.Exchange(ctx, subject, c.ask)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		grant, err := delegation.UnverifiedHeld(string(got.Token))
		if err != nil || grant.JKT() != holder.Public().Thumbprint() || got.Key.IsZero() != c.key.IsZero() {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	card, err := a.Card(a.Issuer(), holder.Public())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := a.Exchange(ctx, subject, client.ExchangeAsk{Card: card}); err != nil || !got.Key.IsZero() {
		t.Errorf("by card: %v", err)
	}
	if _, err := a.Exchange(ctx, subject, client.ExchangeAsk{Card: card, Holder: holder}); !errors.Is(err, client.ErrFailed) {
		t.Errorf("two keys: %v", err)
	}
	// A bound subject never becomes unbound, whatever the server says.
	s.edit = func(m map[string]any) { m["token_type"] = "Bearer" }
	if _, err := a.Exchange(ctx, subject, client.ExchangeAsk{}); !errors.Is(err, client.ErrFailed) {
		t.Errorf("unbound: %v", err)
	}
}

func TestRedeem(t *testing.T) {
	s := newServer(t)
	cred, err := s.agent(nil).Redeem(context.Background(), "h", agent.PrivateKey{})
	if err != nil || cred.Key.IsZero() {
		t.Fatal(err)
	}
	form := s.asked()[0]
	if form.Get("subject_token") != "h" || form.Get("subject_token_type") != "urn:kavach:token-type:handle" {
		t.Errorf("asked %v", form)
	}
}

func TestHandle(t *testing.T) {
	s := newServer(t)
	a, ctx := s.agent(nil), context.Background()
	subject, err := a.Token(ctx, client.Ask{Scopes: []string{"repository:read"}})
	if err != nil {
		t.Fatal(err)
	}
	handle, expires, err := a.Handle(ctx, subject, client.ExchangeAsk{Agent: "code-reviewer", Scopes: []string{"repository:read"}})
	if err != nil || handle != "handle-1" || time.Until(expires) > time.Minute {
		t.Fatal(err)
	}
	if form := s.asked()[1]; form.Get("agent") != "code-reviewer" || form.Has("req_cnf") || !s.aths[subject.Key.Public().Thumbprint()] {
		t.Errorf("asked %v", form)
	}
	for name, ask := range map[string]client.ExchangeAsk{
		"nobody": {}, "a key": {Agent: "x", Receiver: newKey(t).Public()}, "a card": {Agent: "x", Card: "c"},
	} {
		if _, _, err := a.Handle(ctx, subject, ask); !errors.Is(err, client.ErrFailed) {
			t.Errorf("a handle for %s: %v", name, err)
		}
	}
	if _, err := a.Exchange(ctx, subject, client.ExchangeAsk{Agent: "x"}); !errors.Is(err, client.ErrFailed) {
		t.Errorf("a token for an agent without a key: %v", err)
	}
	s.edit = func(m map[string]any) { m["token_type"] = "Bearer" }
	if _, _, err := a.Handle(ctx, subject, client.ExchangeAsk{Agent: "x"}); !errors.Is(err, client.ErrFailed) {
		t.Errorf("a token for a handle: %v", err)
	}
}
