package agent_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/jcs"
)

const delegator = "_delegator_delegator_delegator_delegator_-0"

func cardFor(key agent.PrivateKey) agent.Card {
	return agent.Card{Audience: delegator, Key: key.Public(), IssuedAt: now, Expires: now.Add(10 * time.Minute)}
}

func TestCard(t *testing.T) {
	for _, key := range []agent.PrivateKey{newEd25519(t), newP256(t)} {
		holder := newP256(t)
		text, err := agent.SignCard(key, cardFor(holder))
		if err != nil {
			t.Fatal(err)
		}
		id := key.Public().Thumbprint()
		if who, err := agent.UnverifiedCardAgent(text); err != nil || who != id {
			t.Errorf("the card of %q, %v", who, err)
		}
		check := agent.CardCheck{Agent: id, Audience: delegator, Now: now}
		got, err := agent.VerifyCard(text, key.Public(), check)
		if err != nil {
			t.Fatal(err)
		}
		want := cardFor(holder)
		want.Agent, want.JTI = id, got.JTI
		if got != want || len(got.JTI) < 20 {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
		for when, ok := range map[time.Duration]bool{-31 * time.Second: false, -30 * time.Second: true, 599 * time.Second: true, 600 * time.Second: false} {
			check.Now = now.Add(when)
			if _, err := agent.VerifyCard(text, key.Public(), check); (err == nil) != ok {
				t.Errorf("after %v: %v", when, err)
			}
		}
		for name, bad := range map[string]agent.CardCheck{
			"another agent": {Agent: delegator, Audience: delegator, Now: now}, "another reader": {Agent: id, Audience: id, Now: now},
			"nobody in particular": {Now: now},
		} {
			if _, err := agent.VerifyCard(text, key.Public(), bad); !errors.Is(err, agent.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
		check.Now = now
		for _, stranger := range []agent.PublicKey{newEd25519(t).Public(), newP256(t).Public(), holder.Public(), {}} {
			if _, err := agent.VerifyCard(text, stranger, check); !errors.Is(err, agent.ErrInvalid) {
				t.Errorf("under %v: %v", stranger, err)
			}
		}
	}
}

// TestCardAfterKeyChange: the id stays that of the first key.
func TestCardAfterKeyChange(t *testing.T) {
	first, second := newEd25519(t), newEd25519(t)
	card := cardFor(newEd25519(t))
	card.Agent, card.Expires, card.JTI = first.Public().Thumbprint(), time.Time{}, "j"
	text, err := agent.SignCard(second, card)
	if err != nil {
		t.Fatal(err)
	}
	got, err := agent.VerifyCard(text, second.Public(), agent.CardCheck{Agent: card.Agent, Audience: delegator, Now: now})
	if err != nil || got.Agent != card.Agent || got.JTI != "j" || !got.Expires.Equal(now.Add(agent.MaxCardLife)) {
		t.Errorf("%+v %v", got, err)
	}
}

func TestSignCardRefuses(t *testing.T) {
	key := newEd25519(t)
	for name, change := range map[string]func(*agent.Card){
		"no key":           func(c *agent.Card) { c.Key = agent.PublicKey{} },
		"the identity key": func(c *agent.Card) { c.Key = key.Public() },
		"for nobody":       func(c *agent.Card) { c.Audience = "" },
		"an agent's name":  func(c *agent.Card) { c.Agent = "orchestrator" },
		"lives long":       func(c *agent.Card) { c.Expires = c.IssuedAt.Add(agent.MaxCardLife + time.Second) },
		"ends first":       func(c *agent.Card) { c.Expires = c.IssuedAt },
		"no time":          func(c *agent.Card) { c.IssuedAt = time.Time{} },
		"long jti":         func(c *agent.Card) { c.JTI = strings.Repeat("j", 129) },
	} {
		card := cardFor(newEd25519(t))
		change(&card)
		if _, err := agent.SignCard(key, card); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := agent.SignCard(agent.PrivateKey{}, cardFor(key)); !errors.Is(err, agent.ErrInvalid) {
		t.Errorf("no key: %v", err)
	}
}

func TestVerifyCardRefuses(t *testing.T) {
	key, holder := newEd25519(t), newEd25519(t)
	id := key.Public().Thumbprint()
	private := holder.Public().JWK()
	private["d"] = private["x"]
	extra := holder.Public().JWK()
	extra["kid"] = "k"
	check := agent.CardCheck{Agent: id, Audience: delegator, Now: now}
	for name, change := range map[string]func(header, claims map[string]any){
		"":                 func(_, _ map[string]any) {},
		"no kid":           func(h, _ map[string]any) { delete(h, "kid") },
		"kid of another":   func(h, _ map[string]any) { h["kid"] = delegator },
		"typ JWT":          func(h, _ map[string]any) { h["typ"] = "JWT" },
		"typ of a proof":   func(h, _ map[string]any) { h["typ"] = agent.ProofType },
		"crit":             func(h, _ map[string]any) { h["crit"] = []string{"exp"} },
		"no iss":           func(_, c map[string]any) { delete(c, "iss") },
		"iss of another":   func(_, c map[string]any) { c["iss"] = delegator },
		"aud list":         func(_, c map[string]any) { c["aud"] = []string{delegator} },
		"no aud":           func(_, c map[string]any) { delete(c, "aud") },
		"no jwk":           func(_, c map[string]any) { delete(c, "jwk") },
		"jwk private":      func(_, c map[string]any) { c["jwk"] = private },
		"jwk with more":    func(_, c map[string]any) { c["jwk"] = extra },
		"jwk symmetric":    func(_, c map[string]any) { c["jwk"] = map[string]any{"kty": "oct", "k": "AA"} },
		"the identity key": func(_, c map[string]any) { c["jwk"] = key.Public().JWK() },
		"no jti":           func(_, c map[string]any) { delete(c, "jti") },
		"jti null":         func(_, c map[string]any) { c["jti"] = nil },
		"no iat":           func(_, c map[string]any) { delete(c, "iat") },
		"no exp":           func(_, c map[string]any) { delete(c, "exp") },
		"exp text":         func(_, c map[string]any) { c["exp"] = "1795000600" },
		"601 s":            func(_, c map[string]any) { c["exp"] = now.Unix() + 601 },
		"nbf":              func(_, c map[string]any) { c["nbf"] = now.Unix() },
	} {
		header := map[string]any{"typ": agent.CardType, "kid": id}
		claims := map[string]any{
			"iss": id, "aud": delegator, "jwk": holder.Public().JWK(), "jti": "j", "iat": now.Unix(), "exp": now.Unix() + 600,
		}
		change(header, claims)
		_, err := agent.VerifyCard(signed(t, key, header, claims), key.Public(), check)
		if (name == "") != (err == nil) || err != nil && !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzVerifyCard(f *testing.F) {
	key := newEd25519(f)
	id := key.Public().Thumbprint()
	text, err := agent.SignCard(key, cardFor(newEd25519(f)))
	if err != nil {
		f.Fatal(err)
	}
	c, err := agent.SplitCompact(text)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(jcs.Canonical(c.UnverifiedHeader)), c.UnverifiedPayload)
	f.Add(`{}`, []byte(`{"jwk":{}}`))
	f.Fuzz(func(t *testing.T, header string, claims []byte) {
		text := rawProof(t, key, header, claims)
		who, err := agent.UnverifiedCardAgent(text)
		if err != nil && !errors.Is(err, agent.ErrInvalid) {
			t.Fatalf("%v is not ErrInvalid", err)
		}
		card, err := agent.VerifyCard(text, key.Public(), agent.CardCheck{Agent: id, Audience: delegator, Now: now})
		if err != nil {
			if !errors.Is(err, agent.ErrInvalid) {
				t.Fatalf("%v is not ErrInvalid", err)
			}
			return
		}
		if who != id {
			t.Fatalf("the card of %s claimed to be of %q", id, who)
		}
		again, err := agent.SignCard(key, card)
		if err != nil {
			t.Fatalf("accepted, but cannot be written again: %v", err)
		}
		if same, err := agent.VerifyCard(again, key.Public(), agent.CardCheck{Agent: id, Audience: delegator, Now: now}); err != nil || same != card {
			t.Fatalf("%+v was written again as %+v (%v)", card, same, err)
		}
	})
}
