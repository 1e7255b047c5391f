package agent_test

import (
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/jcs"
)

func vectors(t *testing.T, file string, into any) {
	t.Helper()
	data, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}

func TestWycheproofEd25519(t *testing.T) {
	var file struct {
		TestGroups []struct {
			PublicKey    struct{ PK string }
			PublicKeyJWK json.RawMessage
			Tests        []struct {
				TcID             int
				Msg, Sig, Result string
			}
		}
	}
	vectors(t, "ed25519_test.json", &file)
	valid, refused := 0, 0
	for _, g := range file.TestGroups {
		raw, err := hex.DecodeString(g.PublicKey.PK)
		if err != nil {
			t.Fatal(err)
		}
		key, err := agent.NewPublicKey(ed25519.PublicKey(raw))
		if err != nil {
			t.Fatalf("%s: %v", g.PublicKey.PK, err)
		}
		v, err := jcs.Parse(g.PublicKeyJWK, jcs.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		if fromJWK, err := agent.ParsePublicKeyExtra(v); err != nil || fromJWK != key {
			t.Errorf("%s: as JWK %v %v", g.PublicKey.PK, fromJWK, err)
		}
		for _, test := range g.Tests {
			msg, _ := hex.DecodeString(test.Msg)
			sig, _ := hex.DecodeString(test.Sig)
			if got, want := key.Verify(msg, sig), test.Result == "valid"; got != want {
				t.Errorf("test %d: verifies %v, want %v", test.TcID, got, want)
			} else if got {
				valid++
			} else {
				refused++
			}
		}
	}
	if valid < 80 || refused < 60 {
		t.Errorf("only %d valid and %d invalid signatures", valid, refused)
	}
}

// A jose test: a JWS under a key, or under a set of keys.
type joseTest struct {
	TcID            int
	Comment, Result string
	JWS             json.RawMessage
}

// verifyJWS is what a verifier with one trusted JWK would do.
func verifyJWS(jwk, jws json.RawMessage) error {
	v, err := jcs.Parse(jwk, jcs.Limits{})
	if err != nil {
		return err
	}
	key, err := agent.ParsePublicKeyExtra(v)
	if err != nil {
		return err
	}
	var token string
	if err := json.Unmarshal(jws, &token); err != nil {
		return err
	}
	c, err := agent.SplitCompact(token)
	if err != nil {
		return err
	}
	_, err = c.Verify(key, "")
	return err
}

// TestWycheproofJOSE: every invalid test is refused whatever its key, and every
// valid one of an algorithm that agents have passes.
func TestWycheproofJOSE(t *testing.T) {
	supported := func(jwk json.RawMessage) bool {
		var k struct{ Kty, Crv, Alg string }
		return json.Unmarshal(jwk, &k) == nil && (k.Kty == "EC" && k.Crv == "P-256" || k.Kty == "OKP" && k.Crv == "Ed25519")
	}
	accepted, refused := 0, 0
	check := func(test joseTest, keys ...json.RawMessage) {
		t.Helper()
		err := errAny
		mustPass := false
		for _, key := range keys {
			mustPass = mustPass || supported(key)
			if err != nil {
				err = verifyJWS(key, test.JWS)
			}
		}
		switch {
		case test.Result == "invalid" && err == nil:
			t.Errorf("test %d (%s) is accepted", test.TcID, test.Comment)
		case test.Result == "valid" && mustPass && err != nil:
			t.Errorf("test %d (%s): %v", test.TcID, test.Comment, err)
		case err == nil:
			accepted++
		default:
			refused++
		}
	}
	var signatures struct {
		TestGroups []struct {
			Public, Private json.RawMessage
			Tests           []joseTest
		}
	}
	vectors(t, "json_web_signature_test.json", &signatures)
	for _, g := range signatures.TestGroups {
		key := g.Public
		if key == nil {
			key = g.Private
		}
		for _, test := range g.Tests {
			check(test, key)
		}
	}
	type set struct{ Keys []json.RawMessage }
	var keys struct {
		TestGroups []struct {
			Public, Private set
			Tests           []joseTest
		}
	}
	vectors(t, "json_web_key_test.json", &keys)
	for _, g := range keys.TestGroups {
		list := g.Public.Keys
		if list == nil {
			list = g.Private.Keys
		}
		for _, test := range g.Tests {
			check(test, list...)
		}
	}
	if accepted < 2 || refused < 350 {
		t.Errorf("only %d accepted and %d refused", accepted, refused)
	}
}

var errAny = agent.ErrInvalid

// TestRFC8037 is appendix A: the key, its thumbprint, and a signature that says
// EdDSA, which is for assertions only.
func TestRFC8037(t *testing.T) {
	var file struct {
		Input  struct{ Key json.RawMessage }
		Output struct{ Compact string }
	}
	vectors(t, "rfc8037_jws.json", &file)
	key, err := agent.ParsePrivateKey(file.Input.Key)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := key.Public().Thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"; got != want {
		t.Errorf("thumbprint %s, want %s", got, want)
	}
	c, err := agent.SplitCompact(file.Output.Compact)
	if err != nil {
		t.Fatal(err)
	}
	if !key.Public().Verify([]byte(c.SigningInput), c.Signature) {
		t.Error("the signature of the RFC does not verify")
	}
	if _, err := c.Verify(key.Public(), ""); err == nil {
		t.Error("alg EdDSA is accepted outside assertions")
	}
	if _, err := agent.VerifyAssertion(file.Output.Compact, key.Public(), agent.AssertionCheck{
		ClientID: "x", Audience: "y", Now: time.Unix(1e9, 0),
	}); err == nil {
		t.Error("an assertion that is no JSON")
	}
}
