package delegation

import (
	"crypto"
	"crypto/rsa"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"os"
	"testing"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/jcs"
)

// accepts runs the part of Verify that these vectors know: split, header and
// the signature under one anchor. They carry no typ, so Verify refuses all of
// them before.
func accepts(token string, anchor Anchor) bool {
	texts, refusal := split(token)
	if refusal != nil || len(texts) != 1 {
		return false
	}
	h, refusal := texts[0].parseHeader()
	return refusal == nil && h.alg == anchor.Alg() && anchor.verify(texts[0].signed, texts[0].signature)
}

func TestWycheproofJWS(t *testing.T) {
	var file struct {
		TestGroups []struct {
			Comment string
			Public  json.RawMessage
			Tests   []struct {
				TcID    int
				Comment string
				JWS     string
				Result  string
			}
		}
	}
	readVectors(t, "testdata/wycheproof_jws.json", &file)
	decided := map[string]int{}
	for _, group := range file.TestGroups {
		anchor, alg := anchorOf(t, group.Public)
		for _, test := range group.Tests {
			want := test.Result == "valid" && anchor != (Anchor{})
			if got := accepts(test.JWS, anchor); got != want {
				t.Errorf("%d %s, %s: accepted %v, want %v", test.TcID, group.Comment, test.Comment, got, want)
			}
			decided[alg]++
		}
	}
	if decided[ES256] < 30 || decided[RS256] < 200 {
		t.Errorf("decided %v: vectors are missing", decided)
	}
}

// anchorOf reads a key of the vectors; a key without one of our algorithms
// becomes the zero anchor, which accepts nothing. (Groups about "use" and
// "key_ops" are for readers of key sets.)
func anchorOf(t *testing.T, public json.RawMessage) (Anchor, string) {
	t.Helper()
	if public == nil {
		return Anchor{}, ""
	}
	jwk, err := jcs.Parse(public, jcs.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	var key crypto.PublicKey
	switch alg := jwk.Get("alg").Str(); alg {
	case ES256:
		key, err = agent.ParsePublicKeyExtra(jwk)
	case RS256:
		key, err = rsaKey(jwk)
	default:
		return Anchor{}, alg
	}
	if err != nil {
		t.Fatal(err)
	}
	anchor, err := NewAnchor("at-x", key)
	if err != nil {
		t.Fatal(err)
	}
	return anchor, anchor.Alg()
}

func rsaKey(jwk jcs.Value) (*rsa.PublicKey, error) {
	n, err := jcs.DecodeBase64URL(jwk.Get("n").Str())
	if err != nil {
		return nil, err
	}
	e, err := jcs.DecodeBase64URL(jwk.Get("e").Str())
	if err != nil {
		return nil, err
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}, nil
}

func TestWycheproofEd25519(t *testing.T) {
	var file struct {
		TestGroups []struct {
			PublicKeyJWK json.RawMessage
			Tests        []struct {
				TcID             int
				Comment          string
				Msg, Sig, Result string
			}
		}
	}
	readVectors(t, "testdata/wycheproof_ed25519.json", &file)
	decided := 0
	for _, group := range file.TestGroups {
		jwk, err := jcs.Parse(group.PublicKeyJWK, jcs.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		key, err := agent.ParsePublicKeyExtra(jwk)
		if err != nil {
			t.Fatal(err)
		}
		anchor, err := NewAnchor("at-x", key)
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range group.Tests {
			message, err := hex.DecodeString(test.Msg)
			if err != nil {
				t.Fatal(err)
			}
			signature, err := hex.DecodeString(test.Sig)
			if err != nil {
				t.Fatal(err)
			}
			if got := anchor.verify(message, signature); got != (test.Result == "valid") {
				t.Errorf("%d %s: accepted %v, want %s", test.TcID, test.Comment, got, test.Result)
			}
			decided++
		}
	}
	if decided < 140 {
		t.Errorf("decided %d: vectors are missing", decided)
	}
}

func readVectors(t *testing.T, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}
