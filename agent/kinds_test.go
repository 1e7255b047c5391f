package agent_test

import (
	"errors"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/jcs"
)

// TestKindsAreNotTakenForEachOther is A-47 as far as this package reaches:
// every kind of document in every slot. All of them hold the claims and header
// members of all kinds and are signed by the key that the slot expects, so that
// typ alone keeps them apart.
func TestKindsAreNotTakenForEachOther(t *testing.T) {
	key, holder := newEd25519(t), newEd25519(t)
	id := key.Public().Thumbprint()
	claims := claimsOf(t, key) // a manifest's
	for name, value := range map[string]any{
		"iss": id, "sub": id, "aud": issuer, "client_id": id, "jti": "j", "iat": now.Unix(), "exp": now.Unix() + 60,
		"htm": "GET", "htu": diffURL, "scope": "repository:read", "gid": "g", "nonce": "n", "par_hash": "x",
		"aat_id": leafJTI, "aat_hash": leafLID, "aat_tool": "pr/comment", "aat_aud": toolsAud,
		"hta": map[string]any{"pr": 847, "body": "ok"},
	} {
		claims[name] = value
	}
	payload, err := jcs.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	// The card alone must not name the identity key, which the manifest must.
	claims["jwk"] = holder.Public().JWK()
	payloadOfCard, err := jcs.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	quoted := func(typ string) string {
		if typ == "" {
			return ""
		}
		return `,"typ":"` + typ + `"`
	}
	jwk := string(key.Public().AppendJWK(nil))
	slots := map[string]func(typ string) error{
		"manifest": func(typ string) error {
			_, err := agent.VerifyManifest(rawProof(t, key, `{"alg":"Ed25519","kid":"`+id+`","jwk":`+jwk+quoted(typ)+`}`, payload), now)
			return err
		},
		"card": func(typ string) error {
			text := rawProof(t, key, `{"alg":"Ed25519","kid":"`+id+`","jwk":`+jwk+quoted(typ)+`}`, payloadOfCard)
			_, err := agent.UnverifiedCardAgent(text)
			_, err2 := agent.VerifyCard(text, key.Public(), agent.CardCheck{Agent: id, Audience: issuer, Now: now})
			if (err == nil) != (err2 == nil) {
				t.Errorf("typ %q: %v, but %v", typ, err, err2)
			}
			return err2
		},
		"assertion": func(typ string) error {
			text := rawProof(t, key, `{"alg":"Ed25519","kid":"`+id+`","jwk":`+jwk+quoted(typ)+`}`, payload)
			who, err := agent.UnverifiedAssertionClient(text)
			_, err2 := agent.VerifyAssertion(text, key.Public(), agent.AssertionCheck{ClientID: id, Audience: issuer, Now: now})
			if (err == nil) != (err2 == nil) || err == nil && who != id {
				t.Errorf("typ %q: %q %v, but %v", typ, who, err, err2)
			}
			return err2
		},
		"proof": func(typ string) error {
			_, err := agent.VerifyProof(rawProof(t, key, `{"alg":"Ed25519","jwk":`+jwk+quoted(typ)+`}`, payload), checkOf(""))
			return err
		},
		"aat proof": func(typ string) error {
			_, err := agent.VerifyAATProof(rawProof(t, key, `{"alg":"Ed25519"`+quoted(typ)+`}`, payload), aatCheck(t, key))
			return err
		},
	}
	for _, kind := range []struct{ name, typ, slot string }{
		{"access token or root", "at+jwt", ""},
		{"link", "aat+jwt", ""},
		{"AAT proof", agent.AATProofType, "aat proof"},
		{"revocation feed", "kavach-revocations+jwt", ""},
		{"logout token", "logout+jwt", ""},
		{"manifest", agent.ManifestType, "manifest"},
		{"key card", agent.CardType, "card"},
		{"proof", agent.ProofType, "proof"},
		{"assertion", "client-authentication+jwt", "assertion"},
		{"assertion without typ", "", "assertion"},
		{"assertion as JWT", "JWT", "assertion"},
		{"manifest in other letters", "Agent-Manifest+JWT", ""},
		{"proof as a media type", "application/dpop+jwt", ""},
	} {
		for slot, verify := range slots {
			err := verify(kind.typ)
			if (err == nil) != (slot == kind.slot) || err != nil && !errors.Is(err, agent.ErrInvalid) {
				t.Errorf("%s as %s: %v", kind.name, slot, err)
			}
		}
	}
}

// TestIDTokenIsNoAssertion: an id_token has the typ that an assertion may have;
// its claims keep it out.
func TestIDTokenIsNoAssertion(t *testing.T) {
	key := newEd25519(t)
	client := key.Public().Thumbprint()
	idToken := signed(t, key, map[string]any{"typ": "JWT", "kid": client}, map[string]any{
		"iss": issuer, "sub": "usr_alice", "aud": client, "jti": "j", "nonce": "n", "iat": now.Unix(), "exp": now.Unix() + 60,
	})
	if who, err := agent.UnverifiedAssertionClient(idToken); !errors.Is(err, agent.ErrInvalid) {
		t.Errorf("the assertion of %q, %v", who, err)
	}
	if _, err := agent.VerifyAssertion(idToken, key.Public(), agent.AssertionCheck{ClientID: client, Audience: issuer, Now: now}); !errors.Is(err, agent.ErrInvalid) {
		t.Errorf("%v", err)
	}
}

func TestUnverifiedAssertionClient(t *testing.T) {
	key := newEd25519(t)
	text, err := agent.SignAssertion(key, "client-1", issuer, now, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if who, err := agent.UnverifiedAssertionClient(text); err != nil || who != "client-1" {
		t.Errorf("%q %v", who, err)
	}
	for name, claims := range map[string]map[string]any{
		"no iss": {"sub": "a"}, "no sub": {"iss": "a"}, "two clients": {"iss": "a", "sub": "b"},
		"empty": {"iss": "", "sub": ""}, "numbers": {"iss": 1, "sub": 1}, "lines": {"iss": "a\nb", "sub": "a\nb"},
	} {
		if who, err := agent.UnverifiedAssertionClient(signed(t, key, nil, claims)); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s: %q %v", name, who, err)
		}
	}
	for _, bad := range []string{"", "a.b", "a.b.c"} {
		if _, err := agent.UnverifiedAssertionClient(bad); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
