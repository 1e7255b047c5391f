package delegation_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

func TestStrictProof(t *testing.T) {
	for _, p := range []struct {
		name  string
		proof func(*aatToken)
		step  string
	}{
		{"no alg", setHeader("alg", nil), "7a"},
		{"none", setHeader("alg", "none"), "7a"},
		{"EdDSA", setHeader("alg", "EdDSA"), "7a"},
		{"of another key", setHeader("alg", "ES256"), "7a"},
		{"typ of a token", setHeader("typ", "aat+jwt"), "7a"},
		{"typ of DPoP", setHeader("typ", "dpop+jwt"), "7a"},
		{"crit", setHeader("crit", []any{"nonce"}), "7a"},
		{"nothing", func(x *aatToken) { x.after = func(string) string { return "" } }, "7a"},
		{"no JWT", func(x *aatToken) { x.after = func(string) string { return "a.b" } }, "7a"},
		{"a key in the header", setHeader("jwk", object{"kty": "oct"}), ""},
		{"by a stranger", func(x *aatToken) { x.key = ed25519Key(t) }, "7b"},
		{"two members of a name", respell(t, `"iat":`, `"iat":1,"iat":`), "7b"},
		{"two arguments of a name", respell(t, `"path":"/a"`, `"path":"/a","path":"/a"`), "7b"},
		{"an array", func(x *aatToken) { x.raw = `[]` }, "7b"},
		{"not in canonical form", respell(t, `"iat":`, ` "iat" : `), ""},
		{"unknown claims", setClaim("exp", 1), ""},
		{"no jti", setClaim("jti", nil), "7c"},
		{"an empty jti", setClaim("jti", ""), "7c"},
		{"a jti that is a number", setClaim("jti", 1), "7c"},
		{"no aat_id", setClaim("aat_id", nil), "7c"},
		{"aat_id of another", setClaim("aat_id", "jti-0"), "7c"},
		{"no aat_hash", setClaim("aat_hash", nil), "7c"},
		{"aat_hash of another", setClaim("aat_hash", lidOf("a.b.c")), "7c"},
		{"no aat_tool", setClaim("aat_tool", nil), "7c"},
		{"an empty aat_tool", setClaim("aat_tool", ""), "7c"},
		{"no iat", setClaim("iat", nil), "7c"},
		{"iat with a fraction", respell(t, `"iat":1704067500`, `"iat":1704067500.0`), "7c"},
		{"no hta", setClaim("hta", nil), "7c"},
		{"hta null", respell(t, `"hta":{"path":"/a"}`, `"hta":null`), "7c"},
		{"hta in a list", setClaim("hta", []any{}), "7c"},
		{"no aat_aud", setClaim("aat_aud", nil), ""},
		{"aat_aud of another", setClaim("aat_aud", "https://b.example"), "7d"},
		{"aat_aud with a slash", setClaim("aat_aud", aatPoint+"/"), "7d"},
		{"aat_aud in a list", setClaim("aat_aud", []any{aatPoint}), "7d"},
		{"aat_aud null", respell(t, `"aat_aud":"`+aatPoint+`"`, `"aat_aud":null`), "7d"},
		{"another tool", setClaim("aat_tool", "write"), "7e"},
		{"the tool in other letters", setClaim("aat_tool", "Read"), "7e"},
		{"other arguments", setClaim("hta", object{"path": "/b"}), "7f"},
		{"fewer arguments", setClaim("hta", object{}), "7f"},
		{"more arguments", setClaim("hta", object{"path": "/a", "x": nil}), "7f"},
		{"30 s old", setClaim("iat", aatNow-30), ""},
		{"31 s old", setClaim("iat", aatNow-31), "7g"},
		{"30 s from now", setClaim("iat", aatNow+30), ""},
		{"31 s from now", setClaim("iat", aatNow+31), "7g"},
		{"at the end of time", respell(t, `"iat":1704067500`, `"iat":99999999999999999999999`), "7g"},
		// "Nonce, only if this point requires one."
		{"a nonce that nobody asked for", setClaim("nonce", 7), ""},
	} {
		c := newAAT(t, 1)
		c.proof = p.proof
		if got := c.verify(); got != p.step {
			t.Errorf("%s: step %q, not %q", p.name, got, p.step)
		}
		// What is wrong with the chain or the call comes before 7c, and a
		// proof by somebody else before the call.
		c.args = `{"path":"/a","x":1}`
		want := "6b"
		if p.step == "7a" || p.step == "7b" {
			want = p.step
		}
		if strings.HasPrefix(p.name, "hta null") || p.name == "two arguments of a name" {
			continue // they rewrite the arguments
		}
		if got := c.verify(); got != want {
			t.Errorf("%s and a call that is not allowed: step %q, not %q", p.name, got, want)
		}
	}
	c := newAAT(t, 0)
	c.verifier.RequireProofAudience = true
	if step := c.verify(); step != "" {
		t.Errorf("with the aat_aud that is required: step %q", step)
	}
	c.proof = setClaim("aat_aud", nil)
	if step := c.verify(); step != "7d" {
		t.Errorf("without it: step %q", step)
	}
}

func TestStrictNonceAndReplay(t *testing.T) {
	c := newAAT(t, 0)
	c.verifier.Nonce = func(nonce string) bool { return nonce == "n" }
	for nonce, step := range map[any]string{"n": "", "m": "7h", "": "7h", 7: "7h", nil: "7h"} {
		c.proof = setClaim("nonce", nonce)
		if got := c.verify(); got != step {
			t.Errorf("nonce %v: step %q", nonce, got)
		}
	}
	c = newAAT(t, 0)
	used := map[string]time.Time{}
	c.verifier.Seen = func(key string, until time.Time) (bool, error) {
		_, seen := used[key]
		used[key] = until
		return seen, nil
	}
	// "A refused call consumes none."
	good := c.build()
	bad := good
	bad.Arguments, _ = jcs.Of(object{"path": "/b"})
	for _, call := range []struct {
		p    delegation.AATPresentation
		step string
	}{{bad, "7f"}, {good, ""}, {good, "7i"}, {bad, "7f"}} {
		permit, err := c.verifier.Verify(call.p, time.Unix(aatNow, 0))
		if got := stepOf(err); got != call.step || (err == nil) != (call.step == "") {
			t.Errorf("step %q, not %q", got, call.step)
		}
		if err == nil && !used[permit.Proof.ReplayKey()].Equal(time.Unix(aatNow+31, 0)) {
			t.Errorf("remembered until %v", used)
		}
	}
	if len(used) != 1 {
		t.Errorf("%d proofs were remembered", len(used))
	}
	// The same jti by another holder is another proof.
	c.holders[0] = ed25519Key(t)
	if step := c.verify(); step != "" {
		t.Errorf("the jti of somebody else: step %q", step)
	}
	down := errors.New("down")
	c.verifier.Seen = func(string, time.Time) (bool, error) { return false, down }
	if _, err := c.verifier.Verify(c.build(), time.Unix(aatNow, 0)); !errors.Is(err, down) || errors.Is(err, delegation.ErrRefused) {
		t.Errorf("a failure to remember: %v", err)
	}
}

// The call is as the proof of package agent says it.
func TestStrictTakesAgentsProof(t *testing.T) {
	c := newAAT(t, 1)
	p := c.build()
	var err error
	p.Proof, err = agent.SignAATProof(c.holders[1], agent.AATProof{
		LID: lidOf(p.Chain[1]), LeafJTI: "jti-1", Tool: "read", Arguments: p.Arguments, Audience: aatPoint, IssuedAt: time.Unix(aatNow, 0),
	})
	if err != nil {
		t.Fatal(err)
	}
	permit, err := c.verifier.Verify(p, time.Unix(aatNow, 0))
	if err != nil {
		t.Fatal(err)
	}
	checked, err := agent.VerifyAATProof(p.Proof, agent.AATCheck{
		Key: c.holders[1].Public(), LID: permit.Leaf().LID, LeafJTI: permit.Leaf().JTI, Audience: aatPoint,
		Tool: "read", Arguments: p.Arguments, Now: time.Unix(aatNow, 0),
	})
	if err != nil || checked.ReplayKey() != permit.Proof.ReplayKey() || !checked.Until().Equal(permit.Until) {
		t.Errorf("%+v, %v", checked, err)
	}
}

// Any byte changed, anywhere: refused.
func TestStrictAnyByte(t *testing.T) {
	c := newAAT(t, 1)
	p := c.build()
	change := func(text string, i int) string {
		b := byte('A')
		if text[i] == 'A' {
			b = 'B'
		}
		return text[:i] + string(b) + text[i+1:]
	}
	for i := range p.Chain {
		for at := range p.Chain[i] {
			q := p
			q.Chain = append([]string{}, p.Chain...)
			q.Chain[i] = change(p.Chain[i], at)
			if _, err := c.verifier.Verify(q, time.Unix(aatNow, 0)); !errors.Is(err, delegation.ErrRefused) {
				t.Fatalf("token %d, byte %d: %v", i, at, err)
			}
		}
	}
	for at := range p.Proof {
		q := p
		q.Proof = change(p.Proof, at)
		if _, err := c.verifier.Verify(q, time.Unix(aatNow, 0)); !errors.Is(err, delegation.ErrRefused) {
			t.Fatalf("proof, byte %d: %v", at, err)
		}
	}
}
