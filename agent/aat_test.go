package agent_test

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/jcs"
)

const (
	leafLID  = "tjp6u_M8Mcv6x9qTP1D8oZQmKfVf4xvnd4cN3Rpg3cM"
	leafJTI  = "01957a41-0081-7c20-bf3a-00a0c91e1234"
	toolsAud = "https://git.internal"
)

// arguments parses the text of a call's arguments.
func arguments(t testing.TB, text string) jcs.Value {
	t.Helper()
	v, err := jcs.Parse([]byte(text), jcs.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func aatProof(t testing.TB) agent.AATProof {
	return agent.AATProof{
		LID: leafLID, LeafJTI: leafJTI, Tool: "pr/comment", Arguments: arguments(t, `{"pr":847,"body":"ok"}`),
		Audience: toolsAud, IssuedAt: now,
	}
}

func aatCheck(t testing.TB, key agent.PrivateKey) agent.AATCheck {
	return agent.AATCheck{
		Key: key.Public(), LID: leafLID, LeafJTI: leafJTI, Audience: toolsAud,
		Tool: "pr/comment", Arguments: arguments(t, `{"body":"ok","pr":847.0}`), Now: now,
	}
}

func TestAATProof(t *testing.T) {
	for _, key := range []agent.PrivateKey{newEd25519(t), newP256(t)} {
		p := aatProof(t)
		p.Nonce = "n-1"
		text, err := agent.SignAATProof(key, p)
		if err != nil {
			t.Fatal(err)
		}
		check := aatCheck(t, key)
		got, err := agent.VerifyAATProof(text, check)
		if err != nil {
			t.Fatal(err)
		}
		if got.Key != key.Public() || got.Nonce != "n-1" || got.Tool != p.Tool || !got.IssuedAt.Equal(now) || len(got.JTI) < 20 ||
			!got.Until().Equal(now.Add(31*time.Second)) || !jcs.Equal(got.Arguments, p.Arguments) {
			t.Errorf("%+v", got)
		}
		sum := sha256.Sum256([]byte(key.Public().Thumbprint() + got.JTI))
		if want := base64.RawURLEncoding.EncodeToString(sum[:]); got.ReplayKey() != want {
			t.Errorf("replay key %s, not %s", got.ReplayKey(), want)
		}
		again, err := agent.SignAATProof(key, p)
		if err != nil {
			t.Fatal(err)
		}
		if other, err := agent.VerifyAATProof(again, check); err != nil || other.JTI == got.JTI {
			t.Errorf("two proofs with one jti, or %v", err)
		}
		for i := range text {
			for _, b := range []byte{'A', 'B', '.', '~', ' '} {
				if text[i] == b {
					continue
				}
				if _, err := agent.VerifyAATProof(text[:i]+string(b)+text[i+1:], check); !errors.Is(err, agent.ErrInvalid) {
					t.Fatalf("accepted with byte %d changed to %q", i, b)
				}
			}
		}
	}
}

// TestAATProofOnTheWire compares with the draft's section 7.2 and delegation.md
// §2 member by member: the whole payload is in canonical form.
func TestAATProofOnTheWire(t *testing.T) {
	key := newP256(t)
	p := aatProof(t)
	p.JTI = "j-1"
	text, err := agent.SignAATProof(key, p)
	if err != nil {
		t.Fatal(err)
	}
	c, err := agent.SplitCompact(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(jcs.Canonical(c.UnverifiedHeader)); got != `{"alg":"ES256","typ":"aat-pop+jwt"}` {
		t.Errorf("header %s", got)
	}
	claims := `{"aat_aud":"` + toolsAud + `","aat_hash":"` + leafLID + `","aat_id":"` + leafJTI +
		`","aat_tool":"pr/comment","hta":{"body":"ok","pr":847},"iat":1795000000,"jti":"j-1"}`
	if string(c.UnverifiedPayload) != claims {
		t.Errorf("claims %s, not %s", c.UnverifiedPayload, claims)
	}
	p.Arguments, p.Audience = jcs.Value{}, ""
	if text, err = agent.SignAATProof(key, p); err != nil {
		t.Fatal(err)
	}
	c, _ = agent.SplitCompact(text)
	if got := string(c.UnverifiedPayload); !strings.Contains(got, `"hta":{}`) || strings.Contains(got, "aat_aud") {
		t.Errorf("claims %s", got)
	}
}

func TestVerifyAATProofRefuses(t *testing.T) {
	key := newEd25519(t)
	good := map[string]any{
		"jti": "j", "iat": now.Unix(), "aat_id": leafJTI, "aat_hash": leafLID, "aat_tool": "pr/comment", "aat_aud": toolsAud,
		"hta": map[string]any{"pr": 847, "body": "ok"},
	}
	header := map[string]any{"typ": agent.AATProofType}
	verify := func(header, claims map[string]any, change func(*agent.AATCheck)) error {
		check := aatCheck(t, key)
		if change != nil {
			change(&check)
		}
		_, err := agent.VerifyAATProof(signed(t, key, header, claims), check)
		return err
	}
	if err := verify(header, good, nil); err != nil {
		t.Fatal(err)
	}
	for name, claim := range map[string]struct {
		name  string
		value any // nil takes it away
		ok    bool
	}{
		"no jti":                {"jti", nil, false},
		"an empty jti":          {"jti", "", false},
		"a long jti":            {"jti", strings.Repeat("j", 129), false},
		"a jti that is no text": {"jti", 1, false},
		"no aat_id":             {"aat_id", nil, false},
		"another leaf's jti":    {"aat_id", "x", false},
		"no aat_hash":           {"aat_hash", nil, false},
		"another leaf":          {"aat_hash", strings.Repeat("A", 43), false},
		"aat_hash in a list":    {"aat_hash", []any{leafLID}, false},
		"no aat_aud":            {"aat_aud", nil, false},
		"another server":        {"aat_aud", "https://other.internal", false},
		"aat_aud with a slash":  {"aat_aud", toolsAud + "/", false},
		"aat_aud in a list":     {"aat_aud", []any{toolsAud}, false},
		"no tool":               {"aat_tool", nil, false},
		"another tool":          {"aat_tool", "pr/merge", false},
		"no arguments":          {"hta", nil, false},
		"other arguments":       {"hta", map[string]any{"pr": 848, "body": "ok"}, false},
		"more arguments":        {"hta", map[string]any{"pr": 847, "body": "ok", "x": 1}, false},
		"arguments in a list":   {"hta", []any{}, false},
		"no iat":                {"iat", nil, false},
		"iat in words":          {"iat", "now", false},
		"30 s old":              {"iat", now.Unix() - 30, true},
		"31 s old":              {"iat", now.Unix() - 31, false},
		"30 s from now":         {"iat", now.Unix() + 30, true},
		"31 s from now":         {"iat", now.Unix() + 31, false},
		"a nonce":               {"nonce", "n", true},
		"an empty nonce":        {"nonce", "", false},
		"a nonce that is none":  {"nonce", 7, false},
		"an unknown claim":      {"exp", 1, true},
	} {
		claims := map[string]any{}
		for n, v := range good {
			claims[n] = v
		}
		if claims[claim.name] = claim.value; claim.value == nil {
			delete(claims, claim.name)
		}
		if err := verify(header, claims, nil); (err == nil) != claim.ok || err != nil && !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*agent.AATCheck){
		"another key":            func(c *agent.AATCheck) { c.Key = newEd25519(t).Public() },
		"a key of another kind":  func(c *agent.AATCheck) { c.Key = newP256(t).Public() },
		"no key":                 func(c *agent.AATCheck) { c.Key = agent.PublicKey{} },
		"no leaf":                func(c *agent.AATCheck) { c.LID = "" },
		"no jti":                 func(c *agent.AATCheck) { c.LeafJTI = "" },
		"no audience":            func(c *agent.AATCheck) { c.Audience = "" },
		"no tool":                func(c *agent.AATCheck) { c.Tool = "" },
		"no arguments":           func(c *agent.AATCheck) { c.Arguments = jcs.Value{} },
		"arguments of no object": func(c *agent.AATCheck) { c.Arguments = arguments(t, `[]`) },
		"a number of no double":  func(c *agent.AATCheck) { c.Arguments = arguments(t, `{"pr":847.00000000000000001,"body":"ok"}`) },
		"a number as text":       func(c *agent.AATCheck) { c.Arguments = arguments(t, `{"pr":"847","body":"ok"}`) },
		"another tool":           func(c *agent.AATCheck) { c.Tool = "PR/comment" },
	} {
		if err := verify(header, good, change); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A caller that learns later what is called asks then.
	check := aatCheck(t, key)
	check.Tool, check.Arguments, check.UnmatchedCall = "", jcs.Value{}, true
	p, err := agent.VerifyAATProof(signed(t, key, header, good), check)
	if err != nil || !p.Match("pr/comment", arguments(t, `{"pr":847,"body":"ok"}`)) || p.Match("pr/comment", jcs.Value{}) ||
		p.Match("pr/merge", p.Arguments) || p.Match("", p.Arguments) || (agent.VerifiedAATProof{}).Match("", jcs.Value{}) {
		t.Errorf("%+v, %v", p, err)
	}
	claims, err := jcs.Marshal(good)
	if err != nil {
		t.Fatal(err)
	}
	inexact := strings.Replace(string(claims), "847", "847.00000000000000001", 1)
	for name, text := range map[string]string{
		"a DPoP proof's typ":      signed(t, key, map[string]any{"typ": agent.ProofType}, good),
		"a link's typ":            signed(t, key, map[string]any{"typ": "aat+jwt"}, good),
		"no typ":                  signed(t, key, nil, good),
		"crit":                    signed(t, key, map[string]any{"typ": agent.AATProofType, "crit": []any{"b64"}}, good),
		"EdDSA":                   rawProof(t, key, `{"alg":"EdDSA","typ":"aat-pop+jwt"}`, []byte(`{}`)),
		"two claims of one name":  rawProof(t, key, `{"alg":"Ed25519","typ":"aat-pop+jwt"}`, []byte(`{"jti":"a","jti":"a"}`)),
		"a header of two members": rawProof(t, key, `{"alg":"Ed25519","typ":"aat-pop+jwt","typ":"aat-pop+jwt"}`, []byte(`{}`)),
		"a number of no double":   rawProof(t, key, `{"alg":"Ed25519","typ":"aat-pop+jwt"}`, []byte(inexact)),
		"nothing":                 "",
	} {
		if _, err := agent.VerifyAATProof(text, aatCheck(t, key)); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The proof repeats the arguments, so it has room for more than a token has,
// and a bound all the same.
func TestAATProofSize(t *testing.T) {
	key := newEd25519(t)
	p := aatProof(t)
	var err error
	if p.Arguments, err = jcs.Of(map[string]any{"body": strings.Repeat("x", 40000)}); err != nil {
		t.Fatal(err)
	}
	text, err := agent.SignAATProof(key, p)
	if err != nil {
		t.Fatal(err)
	}
	check := aatCheck(t, key)
	check.Arguments = p.Arguments
	if _, err := agent.VerifyAATProof(text, check); err != nil || len(text) <= agent.MaxToken {
		t.Errorf("%d bytes: %v", len(text), err)
	}
	claims := map[string]any{"pad": strings.Repeat("x", agent.MaxAATProof)}
	if _, err := agent.VerifyAATProof(signed(t, key, map[string]any{"typ": agent.AATProofType}, claims), check); !errors.Is(err, agent.ErrInvalid) {
		t.Errorf("beyond the bound: %v", err)
	}
	if p.Arguments, err = jcs.Of(map[string]any{"body": strings.Repeat("x", 45000)}); err != nil {
		t.Fatal(err)
	}
	if _, err := agent.SignAATProof(key, p); !errors.Is(err, agent.ErrInvalid) {
		t.Errorf("a proof that nobody takes: %v", err)
	}
}

func TestSignAATProofRefuses(t *testing.T) {
	key := newEd25519(t)
	for name, change := range map[string]func(*agent.AATProof){
		"no leaf":               func(p *agent.AATProof) { p.LID = "" },
		"no jti of the leaf":    func(p *agent.AATProof) { p.LeafJTI = "" },
		"no tool":               func(p *agent.AATProof) { p.Tool = "" },
		"a tool not in UTF-8":   func(p *agent.AATProof) { p.Tool = "\xff" },
		"a number of no double": func(p *agent.AATProof) { p.Arguments = arguments(t, `{"a":[{"b":9007199254740993}]}`) },
		"arguments in a list":   func(p *agent.AATProof) { p.Arguments = arguments(t, `[1]`) },
		"a long jti":            func(p *agent.AATProof) { p.JTI = strings.Repeat("j", 129) },
		"a nonce in two lines":  func(p *agent.AATProof) { p.Nonce = "a\nb" },
		"an audience in bytes":  func(p *agent.AATProof) { p.Audience = "\xff" },
	} {
		p := aatProof(t)
		change(&p)
		if _, err := agent.SignAATProof(key, p); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := agent.SignAATProof(agent.PrivateKey{}, aatProof(t)); !errors.Is(err, agent.ErrInvalid) {
		t.Errorf("no key: %v", err)
	}
}
