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
	credential = "eyJ.root.sig~eyJ.link.sig"
	diffURL    = "https://git.internal/repos/kavach/pulls/847/diff"
)

func proofOf(token string) agent.Proof {
	return agent.Proof{Method: "GET", URL: diffURL, Token: token, IssuedAt: now}
}

func checkOf(token string) agent.ProofCheck {
	return agent.ProofCheck{Method: "GET", URL: diffURL, Token: token, Now: now}
}

func TestProof(t *testing.T) {
	for _, key := range []agent.PrivateKey{newEd25519(t), newP256(t)} {
		p := proofOf(credential)
		p.URL += "?w=1#top"
		p.Nonce = "n-1"
		text, err := agent.SignProof(key, p)
		if err != nil {
			t.Fatal(err)
		}
		check := checkOf(credential)
		check.JKT = key.Public().Thumbprint()
		got, err := agent.VerifyProof(text, check)
		if err != nil {
			t.Fatal(err)
		}
		if got.Key != key.Public() || got.Nonce != "n-1" || !got.HasATH || !got.IssuedAt.Equal(now) || len(got.JTI) < 20 {
			t.Errorf("%+v", got)
		}
		if want := now.Add(31 * time.Second); !got.Until().Equal(want) {
			t.Errorf("to be remembered until %v, not %v", got.Until(), want)
		}
		sum := sha256.Sum256([]byte(check.JKT + got.JTI))
		if want := base64.RawURLEncoding.EncodeToString(sum[:]); got.ReplayKey() != want {
			t.Errorf("replay key %s, not %s", got.ReplayKey(), want)
		}
		again, err := agent.SignProof(key, p)
		if err != nil {
			t.Fatal(err)
		}
		if other, err := agent.VerifyProof(again, check); err != nil || other.JTI == got.JTI {
			t.Errorf("two proofs with one jti, or %v", err)
		}
		for i := range text {
			for _, b := range []byte{'A', 'B', '.', '~', ' '} {
				if text[i] == b {
					continue
				}
				if _, err := agent.VerifyProof(text[:i]+string(b)+text[i+1:], check); !errors.Is(err, agent.ErrInvalid) {
					t.Fatalf("accepted with byte %d changed to %q", i, b)
				}
			}
		}
	}
}

// TestProofOnTheWire compares with RFC 9449 §4.2 and delegation.md §2 member by
// member.
func TestProofOnTheWire(t *testing.T) {
	key := newP256(t)
	p := proofOf(credential)
	p.JTI = "j-1"
	text, err := agent.SignProof(key, p)
	if err != nil {
		t.Fatal(err)
	}
	c, err := agent.SplitCompact(text)
	if err != nil {
		t.Fatal(err)
	}
	header := `{"alg":"ES256","jwk":` + string(key.Public().AppendJWK(nil)) + `,"typ":"dpop+jwt"}`
	if got := string(jcs.Canonical(c.UnverifiedHeader)); got != header {
		t.Errorf("header %s, not %s", got, header)
	}
	sum := sha256.Sum256([]byte(credential))
	claims := `{"ath":"` + base64.RawURLEncoding.EncodeToString(sum[:]) + `","htm":"GET","htu":"` + diffURL + `","iat":1795000000,"jti":"j-1"}`
	if string(c.UnverifiedPayload) != claims {
		t.Errorf("claims %s, not %s", c.UnverifiedPayload, claims)
	}
}

// TestProofATH: delegation.md §6, "`ath` = SHA-256 of the whole credential
// string".
func TestProofATH(t *testing.T) {
	key := newEd25519(t)
	for _, c := range []struct {
		signed, sent string
		optional     bool
		ok, has      bool
	}{
		{"a~b", "a~b", false, true, true},
		{"a~b", "a~b", true, true, true},
		{"a", "a~b", false, false, false},
		{"a~b", "a", false, false, false},
		{"a", "a~b", true, false, false},
		{"", "a~b", false, false, false},
		{"", "a~b", true, true, false},
		{"", "", false, true, false},
		{"a", "", false, false, false},
		{"a", "", true, false, false},
	} {
		text, err := agent.SignProof(key, proofOf(c.signed))
		if err != nil {
			t.Fatal(err)
		}
		check := checkOf(c.sent)
		check.TokenOptional = c.optional
		got, err := agent.VerifyProof(text, check)
		if (err == nil) != c.ok || got.HasATH != c.has {
			t.Errorf("%+v: %+v %v", c, got, err)
		}
	}
}

func TestSignProofRefuses(t *testing.T) {
	key := newEd25519(t)
	for name, change := range map[string]func(*agent.Proof){
		"no URL":        func(p *agent.Proof) { p.URL = "" },
		"a path":        func(p *agent.Proof) { p.URL = "/diff" },
		"other scheme":  func(p *agent.Proof) { p.URL = "ftp://git.internal/diff" },
		"no method":     func(p *agent.Proof) { p.Method = "" },
		"no token":      func(p *agent.Proof) { p.Method = "GET " },
		"long jti":      func(p *agent.Proof) { p.JTI = strings.Repeat("j", 129) },
		"jti in lines":  func(p *agent.Proof) { p.JTI = "a\nb" },
		"nonce in UTF8": func(p *agent.Proof) { p.Nonce = "é" },
	} {
		p := proofOf(credential)
		change(&p)
		if _, err := agent.SignProof(key, p); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := agent.SignProof(agent.PrivateKey{}, proofOf("")); !errors.Is(err, agent.ErrInvalid) {
		t.Errorf("no key: %v", err)
	}
}

// rawProof signs a header as it is given, over claims.
func rawProof(t testing.TB, key agent.PrivateKey, header string, claims []byte) string {
	t.Helper()
	input := jcs.Base64URL([]byte(header)) + "." + jcs.Base64URL(claims)
	sig, err := key.Sign([]byte(input))
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + jcs.Base64URL(sig)
}

// proofClaims are those of a good proof, after change.
func proofClaims(t testing.TB, change func(map[string]any)) []byte {
	t.Helper()
	c := map[string]any{"jti": "j-1", "htm": "GET", "htu": diffURL, "iat": now.Unix()}
	if change != nil {
		change(c)
	}
	text, err := jcs.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestVerifyProofHeader(t *testing.T) {
	ed, ec := newEd25519(t), newP256(t)
	jwk := func(key agent.PrivateKey, more string) string {
		text := string(key.Public().AppendJWK(nil))
		return strings.TrimSuffix(text, "}") + more + "}"
	}
	private, err := ed.MarshalJWK()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, header string
		key          agent.PrivateKey
		ok           bool
	}{
		{"Ed25519", `{"typ":"dpop+jwt","alg":"Ed25519","jwk":` + jwk(ed, "") + `}`, ed, true},
		{"EdDSA, as many libraries write it", `{"typ":"dpop+jwt","alg":"EdDSA","jwk":` + jwk(ed, "") + `}`, ed, true},
		{"ES256", `{"typ":"dpop+jwt","alg":"ES256","jwk":` + jwk(ec, "") + `}`, ec, true},
		{"public members of an exported key", `{"typ":"dpop+jwt","alg":"ES256","jwk":` + jwk(ec, `,"kid":"k","use":"sig","key_ops":["verify"],"ext":true`) + `}`, ec, true},
		{"EdDSA for a P-256 key", `{"typ":"dpop+jwt","alg":"EdDSA","jwk":` + jwk(ec, "") + `}`, ec, false},
		{"ES256 for an Ed25519 key", `{"typ":"dpop+jwt","alg":"ES256","jwk":` + jwk(ed, "") + `}`, ed, false},
		{"ES384", `{"typ":"dpop+jwt","alg":"ES384","jwk":` + jwk(ec, "") + `}`, ec, false},
		{"none", `{"typ":"dpop+jwt","alg":"none","jwk":` + jwk(ed, "") + `}`, ed, false},
		{"HMAC", `{"typ":"dpop+jwt","alg":"HS256","jwk":` + jwk(ed, "") + `}`, ed, false},
		{"HMAC with its key", `{"typ":"dpop+jwt","alg":"HS256","jwk":{"kty":"oct","k":"c2VjcmV0"}}`, ed, false},
		{"RSA", `{"typ":"dpop+jwt","alg":"RS256","jwk":{"kty":"RSA","n":"AQAB","e":"AQAB"}}`, ed, false},
		{"the private key", `{"typ":"dpop+jwt","alg":"Ed25519","jwk":` + string(private) + `}`, ed, false},
		{"a private member of another kind", `{"typ":"dpop+jwt","alg":"Ed25519","jwk":` + jwk(ed, `,"k":"AA"`) + `}`, ed, false},
		{"a key for encryption", `{"typ":"dpop+jwt","alg":"Ed25519","jwk":` + jwk(ed, `,"use":"enc"`) + `}`, ed, false},
		{"another key", `{"typ":"dpop+jwt","alg":"Ed25519","jwk":` + jwk(newEd25519(t), "") + `}`, ed, false},
		{"no jwk", `{"typ":"dpop+jwt","alg":"Ed25519"}`, ed, false},
		{"jwk null", `{"typ":"dpop+jwt","alg":"Ed25519","jwk":null}`, ed, false},
		{"jwk as text", `{"typ":"dpop+jwt","alg":"Ed25519","jwk":"x"}`, ed, false},
		{"jwk twice", `{"typ":"dpop+jwt","alg":"Ed25519","jwk":` + jwk(ed, "") + `,"jwk":` + jwk(ed, "") + `}`, ed, false},
		{"no typ", `{"alg":"Ed25519","jwk":` + jwk(ed, "") + `,"cty":"x"}`, ed, false},
		{"typ JWT", `{"typ":"JWT","alg":"Ed25519","jwk":` + jwk(ed, "") + `}`, ed, false},
		{"typ in capitals", `{"typ":"DPOP+JWT","alg":"Ed25519","jwk":` + jwk(ed, "") + `}`, ed, false},
		{"typ as a media type", `{"typ":"application/dpop+jwt","alg":"Ed25519","jwk":` + jwk(ed, "") + `}`, ed, false},
		{"kid", `{"typ":"dpop+jwt","alg":"Ed25519","jwk":` + jwk(ed, "") + `,"kid":"at-1"}`, ed, false},
		{"x5c", `{"typ":"dpop+jwt","alg":"Ed25519","jwk":` + jwk(ed, "") + `,"x5c":["AA"]}`, ed, false},
		{"x5c alone", `{"typ":"dpop+jwt","alg":"Ed25519","x5c":["AA"]}`, ed, false},
		{"jku", `{"typ":"dpop+jwt","alg":"Ed25519","jwk":` + jwk(ed, "") + `,"jku":"https://x.example"}`, ed, false},
		{"crit", `{"typ":"dpop+jwt","alg":"Ed25519","jwk":` + jwk(ed, "") + `,"crit":["x"]}`, ed, false},
		{"b64", `{"typ":"dpop+jwt","alg":"Ed25519","jwk":` + jwk(ed, "") + `,"b64":false}`, ed, false},
		{"Alg", `{"typ":"dpop+jwt","Alg":"Ed25519","jwk":` + jwk(ed, "") + `}`, ed, false},
	} {
		_, err := agent.VerifyProof(rawProof(t, c.key, c.header, proofClaims(t, nil)), checkOf(""))
		if (err == nil) != c.ok || err != nil && !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestVerifyProofClaims(t *testing.T) {
	key := newEd25519(t)
	header := `{"typ":"dpop+jwt","alg":"Ed25519","jwk":` + string(key.Public().AppendJWK(nil)) + `}`
	set := func(name string, value any) func(map[string]any) {
		return func(c map[string]any) { c[name] = value }
	}
	without := func(name string) func(map[string]any) {
		return func(c map[string]any) { delete(c, name) }
	}
	for _, c := range []struct {
		name   string
		change func(map[string]any)
		ok     bool
	}{
		{"as it is", nil, true},
		{"claims that say nothing to us", set("iss", "x"), true},
		{"oldest", set("iat", now.Unix()-30), true},
		{"newest", set("iat", now.Unix()+30), true},
		{"stale", set("iat", now.Unix()-31), false},
		{"future", set("iat", now.Unix()+31), false},
		{"far future", set("iat", int64(jcs.MaxInt)), false},
		{"negative", set("iat", -1), false},
		{"iat text", set("iat", "1795000000"), false},
		{"iat with a fraction", set("iat", float64(now.Unix())+0.5), false},
		{"iat null", set("iat", nil), false},
		{"iat true", set("iat", true), false},
		{"no iat", without("iat"), false},
		{"no jti", without("jti"), false},
		{"empty jti", set("jti", ""), false},
		{"longest jti", set("jti", strings.Repeat("j", 128)), true},
		{"jti too long", set("jti", strings.Repeat("j", 129)), false},
		{"jti not printable", set("jti", "é"), false},
		{"jti with a NUL", set("jti", "a\x00"), false},
		{"jti number", set("jti", 1), false},
		{"no htm", without("htm"), false},
		{"other htm", set("htm", "POST"), false},
		{"htm in small letters", set("htm", "get"), false},
		{"htm list", set("htm", []string{"GET"}), false},
		{"no htu", without("htu"), false},
		{"other htu", set("htu", diffURL+"x"), false},
		{"htu list", set("htu", []string{diffURL}), false},
		{"htu null", set("htu", nil), false},
		{"ath null", set("ath", nil), false},
		{"ath empty", set("ath", ""), false},
		{"ath of no token", set("ath", "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"), false},
		{"a nonce", set("nonce", "n"), true},
		{"nonce null", set("nonce", nil), false},
		{"nonce empty", set("nonce", ""), false},
		{"nonce number", set("nonce", 1), false},
		{"nonce too long", set("nonce", strings.Repeat("n", 513)), false},
	} {
		_, err := agent.VerifyProof(rawProof(t, key, header, proofClaims(t, c.change)), checkOf(""))
		if (err == nil) != c.ok || err != nil && !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	// JSON that two readers would read differently.
	good := string(proofClaims(t, nil))
	for name, claims := range map[string]string{
		"htm twice":       `{"htm":"POST",` + good[1:],
		"iat twice":       `{"iat":0,` + good[1:],
		"iat as 1e9":      strings.Replace(good, "1795000000", "1.795e9", 1),
		"iat as 1.0":      strings.Replace(good, "1795000000", "1795000000.0", 1),
		"Jti":             strings.Replace(good, `"jti"`, `"Jti"`, 1),
		"byte order mark": "\ufeff" + good,
		"trailing data":   good + "{}",
		"lone surrogate":  `{"x":"\ud800",` + good[1:],
		"array":           "[" + good + "]",
		"nothing":         "",
	} {
		if _, err := agent.VerifyProof(rawProof(t, key, header, []byte(claims)), checkOf("")); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVerifyProofKey(t *testing.T) {
	key, other := newEd25519(t), newEd25519(t)
	text, err := agent.SignProof(key, proofOf(""))
	if err != nil {
		t.Fatal(err)
	}
	check := checkOf("")
	for jkt, ok := range map[string]bool{"": true, key.Public().Thumbprint(): true, other.Public().Thumbprint(): false, "x": false} {
		check.JKT = jkt
		if _, err := agent.VerifyProof(text, check); (err == nil) != ok {
			t.Errorf("%q: %v", jkt, err)
		}
	}
	// The zero check takes nothing.
	if _, err := agent.VerifyProof(text, agent.ProofCheck{}); !errors.Is(err, agent.ErrInvalid) {
		t.Errorf("a check that demands nothing: %v", err)
	}
}

func FuzzVerifyProof(f *testing.F) {
	key := newEd25519(f)
	text, err := agent.SignProof(key, proofOf(credential))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := agent.VerifyProof(text, checkOf(credential))
		if err != nil {
			if !errors.Is(err, agent.ErrInvalid) {
				t.Fatalf("%v is not ErrInvalid", err)
			}
			return
		}
		if got.Key.IsZero() || got.JTI == "" || !got.HasATH || got.ReplayKey() == "" {
			t.Fatalf("accepted %+v", got)
		}
	})
}

// FuzzProofClaims signs whatever it is given, so that the readers behind the
// signature are reached.
func FuzzProofClaims(f *testing.F) {
	key := newEd25519(f)
	f.Add(`{"typ":"dpop+jwt","alg":"Ed25519","jwk":`+string(key.Public().AppendJWK(nil))+`}`, proofClaims(f, nil))
	f.Add(`{}`, []byte(`{"htu":"https://%"}`))
	f.Fuzz(func(t *testing.T, header string, claims []byte) {
		got, err := agent.VerifyProof(rawProof(t, key, header, claims), checkOf(""))
		if err != nil {
			if !errors.Is(err, agent.ErrInvalid) {
				t.Fatalf("%v is not ErrInvalid", err)
			}
			return
		}
		again, err := agent.SignProof(key, agent.Proof{Method: "GET", URL: diffURL, JTI: got.JTI, Nonce: got.Nonce, IssuedAt: got.IssuedAt})
		if err != nil {
			t.Fatalf("accepted, but cannot be written again: %v", err)
		}
		if same, err := agent.VerifyProof(again, checkOf("")); err != nil || same != got {
			t.Fatalf("%+v was written again as %+v (%v)", got, same, err)
		}
	})
}
