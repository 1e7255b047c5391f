package agent_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/jcs"
)

func newEd25519(t testing.TB) agent.PrivateKey {
	t.Helper()
	key, err := agent.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newP256(t testing.TB) agent.PrivateKey {
	t.Helper()
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := agent.NewPrivateKey(signer)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func jwkOf(t testing.TB, members map[string]any) jcs.Value {
	t.Helper()
	v, err := jcs.Of(members)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestKeyRoundTrip(t *testing.T) {
	for _, key := range []agent.PrivateKey{newEd25519(t), newP256(t)} {
		public := key.Public()
		parsed, err := agent.ParsePublicKey(jwkOf(t, public.JWK()))
		if err != nil || parsed != public || !parsed.Equal(public.Crypto()) {
			t.Errorf("%s: %v", public.Alg(), err)
		}
		if fromText, err := agent.ParsePublicJWK(public.AppendJWK(nil)); err != nil || fromText != public {
			t.Errorf("%s from text: %v", public.Alg(), err)
		}
		viaCrypto, err := agent.NewPublicKey(public.Crypto())
		if err != nil || viaCrypto != public {
			t.Errorf("%s through the standard library: %v", public.Alg(), err)
		}
		text, err := key.MarshalJWK()
		if err != nil {
			t.Fatal(err)
		}
		again, err := agent.ParsePrivateKey(text)
		if err != nil || again.Public() != public {
			t.Errorf("%s private: %v", public.Alg(), err)
		}
		var members map[string]string
		if err := json.Unmarshal(text, &members); err != nil || members["kid"] != public.Thumbprint() {
			t.Errorf("%s: key file %v %v", public.Alg(), members, err)
		}
		for _, stripped := range []string{"alg", "key_ops", "ext", "use"} {
			if _, there := members[stripped]; there {
				t.Errorf("%s: the key file says %s", public.Alg(), stripped)
			}
		}
		if canonical := jcs.Canonical(jwkOf(t, public.JWK())); !bytes.Equal(canonical, public.AppendJWK(nil)) {
			t.Errorf("%s: %s is not canonical", public.Alg(), public.AppendJWK(nil))
		}
		message := []byte("message")
		sig, err := again.Sign(message)
		if err != nil || !public.Verify(message, sig) {
			t.Errorf("%s: own signature: %v", public.Alg(), err)
		}
		for i := range sig {
			bad := bytes.Clone(sig)
			bad[i] ^= 1
			if public.Verify(message, bad) {
				t.Errorf("%s: verifies with byte %d of the signature changed", public.Alg(), i)
			}
		}
		if public.Verify([]byte("Message"), sig) || public.Verify(message, sig[:63]) || public.Verify(message, append(sig, 0)) || public.Verify(message, nil) {
			t.Errorf("%s: verifies something else", public.Alg())
		}
		if !strings.HasPrefix(public.ThumbprintURI(), "urn:ietf:params:oauth:jwk-thumbprint:sha-256:") || !agent.IsID(public.Thumbprint()) {
			t.Errorf("%s: %s", public.Alg(), public.ThumbprintURI())
		}
	}
}

func TestZeroKeys(t *testing.T) {
	var public agent.PublicKey
	var private agent.PrivateKey
	if !public.IsZero() || public.Verify(nil, make([]byte, 64)) || public.Thumbprint() != "" || public.Alg() != "" || public.Crypto() != nil {
		t.Error("the zero public key does something")
	}
	if _, err := private.Sign(nil); !private.IsZero() || !errors.Is(err, agent.ErrInvalid) {
		t.Error("the zero private key does something")
	}
	if _, err := private.MarshalJWK(); !errors.Is(err, agent.ErrInvalid) {
		t.Error("the zero private key has a JWK")
	}
	for _, key := range []crypto.PublicKey{nil, public, "key", (*ecdsa.PublicKey)(nil), ed25519.PublicKey(nil)} {
		if _, err := agent.NewPublicKey(key); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%T is taken: %v", key, err)
		}
	}
	if _, err := agent.NewPrivateKey(nil); !errors.Is(err, agent.ErrInvalid) {
		t.Error("no signer is taken")
	}
}

// smallOrder reports whether eight times the point is the neutral element. It decodes with
// math/big, apart from the code under test.
func smallOrder(encoded []byte) bool {
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	mod := func(x *big.Int) *big.Int { return x.Mod(x, p) }
	mul := func(a, b *big.Int) *big.Int { return mod(new(big.Int).Mul(a, b)) }
	inv := func(a *big.Int) *big.Int { return new(big.Int).ModInverse(a, p) }
	d := mul(big.NewInt(-121665), inv(big.NewInt(121666)))
	le := bytes.Clone(encoded)
	sign := le[31] >> 7
	le[31] &= 0x7f
	for i, j := 0, 31; i < j; i, j = i+1, j-1 {
		le[i], le[j] = le[j], le[i]
	}
	y := mod(new(big.Int).SetBytes(le))
	yy := mul(y, y)
	x := new(big.Int).ModSqrt(mul(mod(new(big.Int).Sub(yy, big.NewInt(1))), inv(mod(new(big.Int).Add(mul(d, yy), big.NewInt(1))))), p)
	if x == nil {
		return false
	}
	if x.Bit(0) != uint(sign) {
		x = mod(new(big.Int).Neg(x))
	}
	for range 3 { // 8 = 2³: double three times
		k := mul(d, mul(mul(x, x), mul(y, y)))
		x3 := mul(mul(big.NewInt(2), mul(x, y)), inv(mod(new(big.Int).Add(big.NewInt(1), k))))
		y3 := mul(mod(new(big.Int).Add(mul(y, y), mul(x, x))), inv(mod(new(big.Int).Sub(big.NewInt(1), k))))
		x, y = x3, y3
	}
	return x.Sign() == 0 && y.Cmp(big.NewInt(1)) == 0
}

// weakPoints lists every encoding of a point of small order, also the ones that
// are not canonical.
var weakPoints = []string{
	"0100000000000000000000000000000000000000000000000000000000000000",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"0000000000000000000000000000000000000000000000000000000000000000",
	"0000000000000000000000000000000000000000000000000000000000000080",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	"0100000000000000000000000000000000000000000000000000000000000080",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
}

func TestWeakEd25519Keys(t *testing.T) {
	for _, text := range weakPoints {
		raw, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if !smallOrder(raw) {
			t.Errorf("%s: not of small order, says the arithmetic", text)
		}
		if _, err := agent.NewPublicKey(ed25519.PublicKey(raw)); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s is taken as a key", text)
		}
		v := jwkOf(t, map[string]any{"kty": "OKP", "crv": "Ed25519", "x": jcs.Base64URL(raw)})
		if _, err := agent.ParsePublicKey(v); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s is taken as a JWK", text)
		}
	}
	// y from 2²⁵⁵−19 to 2²⁵⁵−1 has a smaller spelling.
	for low := 0xed; low <= 0xff; low++ {
		for _, high := range []byte{0x7f, 0xff} {
			raw := bytes.Repeat([]byte{0xff}, 32)
			raw[0], raw[31] = byte(low), high
			if _, err := agent.NewPublicKey(ed25519.PublicKey(raw)); err == nil {
				t.Errorf("%x is taken as a key", raw)
			}
		}
	}
	// The largest canonical y but one is not refused for its looks.
	raw := bytes.Repeat([]byte{0xff}, 32)
	raw[0], raw[31] = 0xeb, 0x7f
	if _, err := agent.NewPublicKey(ed25519.PublicKey(raw)); err != nil {
		t.Errorf("%x: %v", raw, err)
	}
	if smallOrder(newEd25519(t).Public().Crypto().(ed25519.PublicKey)) {
		t.Error("the arithmetic calls everything small")
	}
}

func TestParsePublicKeyRefuses(t *testing.T) {
	ed, ec := newEd25519(t).Public(), newP256(t).Public()
	with := func(base map[string]any, name string, value any) map[string]any {
		if value == nil {
			delete(base, name)
		} else {
			base[name] = value
		}
		return base
	}
	shifted := ec.JWK()
	shifted["x"], shifted["y"] = shifted["y"], shifted["x"]
	zero := jcs.Base64URL(make([]byte, 32))
	for name, members := range map[string]map[string]any{
		"extra member":      with(ed.JWK(), "kid", "x"),
		"private member":    with(ed.JWK(), "d", ed.JWK()["x"]),
		"alg":               with(ec.JWK(), "alg", "ES256"),
		"no x":              with(ed.JWK(), "x", nil),
		"no y":              with(ec.JWK(), "y", nil),
		"y with OKP":        with(ed.JWK(), "y", ed.JWK()["x"]),
		"short x":           with(ed.JWK(), "x", "AAAA"),
		"padded x":          with(ed.JWK(), "x", ed.JWK()["x"].(string)+"="),
		"number x":          with(ed.JWK(), "x", 1),
		"wrong curve":       with(ec.JWK(), "crv", "P-384"),
		"curve of the case": with(ed.JWK(), "crv", "ed25519"),
		"X25519":            with(ed.JWK(), "crv", "X25519"),
		"wrong type":        with(ec.JWK(), "kty", "OKP"),
		"no type":           with(ed.JWK(), "kty", nil),
		"off the curve":     with(ec.JWK(), "y", ec.JWK()["x"]),
		"swapped":           shifted,
		"the origin":        with(with(ec.JWK(), "x", zero), "y", zero),
		"symmetric":         {"kty": "oct", "k": zero},
		"RSA":               {"kty": "RSA", "n": zero, "e": "AQAB"},
		"empty":             {},
	} {
		if k, err := agent.ParsePublicKey(jwkOf(t, members)); !errors.Is(err, agent.ErrInvalid) || !k.IsZero() {
			t.Errorf("%s is taken: %v", name, err)
		}
	}
	if _, err := agent.ParsePublicKey(jwkOf(t, map[string]any{"keys": []any{}}).Get("none")); !errors.Is(err, agent.ErrInvalid) {
		t.Error("nothing is taken")
	}
	for _, text := range []string{"", "x", "[]", "{}", `{"kty":"OKP","kty":"OKP"}`} {
		if _, err := agent.ParsePublicJWK([]byte(text)); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%q is taken", text)
		}
	}
	for name, members := range map[string]map[string]any{
		"kid": with(ed.JWK(), "kid", "x"), "alg": with(ed.JWK(), "alg", "EdDSA"), "use": with(ec.JWK(), "use", "sig"),
	} {
		if _, err := agent.ParsePublicKeyExtra(jwkOf(t, members)); err != nil {
			t.Errorf("%s is refused: %v", name, err)
		}
	}
	for name, members := range map[string]map[string]any{
		"d": with(ed.JWK(), "d", "x"), "k": with(ed.JWK(), "k", "x"), "use": with(ec.JWK(), "use", "enc"),
		"alg": with(ec.JWK(), "alg", "EdDSA"), "key_ops": with(ec.JWK(), "key_ops", []string{"encrypt"}),
	} {
		if _, err := agent.ParsePublicKeyExtra(jwkOf(t, members)); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestParsePrivateKeyRefuses(t *testing.T) {
	key := newEd25519(t)
	text, err := key.MarshalJWK()
	if err != nil {
		t.Fatal(err)
	}
	other, err := newEd25519(t).MarshalJWK()
	if err != nil {
		t.Fatal(err)
	}
	var a, b map[string]string
	if err := errors.Join(json.Unmarshal(text, &a), json.Unmarshal(other, &b)); err != nil {
		t.Fatal(err)
	}
	mixed := strings.Replace(string(text), a["d"], b["d"], 1)
	public, err := jcs.Marshal(key.Public().JWK())
	if err != nil {
		t.Fatal(err)
	}
	for name, jwk := range map[string]string{
		"no JSON": "key", "nothing": "", "array": "[]", "public": string(public), "other half": mixed,
		"short d":      strings.Replace(string(text), a["d"], "AAAA", 1),
		"d twice":      strings.Replace(string(text), `"d":`, `"d":"`+b["d"]+`","d":`, 1),
		"much too big": `{"pad":"` + strings.Repeat("x", 1<<20) + `"}`,
	} {
		if _, err := agent.ParsePrivateKey([]byte(jwk)); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s is taken: %v", name, err)
		}
	}
	ec := newP256(t)
	text, err = ec.MarshalJWK()
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &a); err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string][]byte{"zero": make([]byte, 32), "beyond the order": bytes.Repeat([]byte{0xff}, 32)} {
		if _, err := agent.ParsePrivateKey([]byte(strings.Replace(string(text), a["d"], jcs.Base64URL(d), 1))); !errors.Is(err, agent.ErrInvalid) {
			t.Errorf("%s is taken as d", name)
		}
	}
}

func TestPrivateKeyIsNotPrinted(t *testing.T) {
	key := newEd25519(t)
	text, err := key.MarshalJWK()
	if err != nil {
		t.Fatal(err)
	}
	var members map[string]string
	if err := json.Unmarshal(text, &members); err != nil {
		t.Fatal(err)
	}
	raw, err := jcs.DecodeBase64URL(members["d"])
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", key, "in", struct{ K agent.PrivateKey }{key})
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", key, "in", struct{ K agent.PrivateKey }{key})
	fmt.Fprintf(&log, "%v %+v %#v %s %q %x %d %v", key, key, key, key, key, key, key, struct{ K *agent.PrivateKey }{&key})
	fmt.Fprintf(&log, "%v", []agent.PrivateKey{key})
	encoded, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	log.Write(encoded)
	for _, secret := range []string{members["d"], hex.EncodeToString(raw), strings.Trim(fmt.Sprint(raw), "[]")} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the key is printed: %s", log.String())
		}
	}
	if !strings.Contains(log.String(), "[redacted]") {
		t.Errorf("nothing is redacted: %s", log.String())
	}
}

// A remote signer holds its key elsewhere and answers what it is told to.
type remote struct {
	crypto.Signer
	answer []byte
}

func (r remote) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if r.answer != nil {
		return r.answer, nil
	}
	return r.Signer.Sign(random, digest, opts)
}

func TestRemoteSigner(t *testing.T) {
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := agent.NewPrivateKey(remote{Signer: signer})
	if err != nil {
		t.Fatal(err)
	}
	for range 50 { // short r and s need padding
		sig, err := key.Sign([]byte("m"))
		if err != nil || !key.Public().Verify([]byte("m"), sig) {
			t.Fatalf("%x %v", sig, err)
		}
	}
	if _, err := key.MarshalJWK(); !errors.Is(err, agent.ErrInvalid) {
		t.Errorf("a key that is elsewhere was exported: %v", err)
	}
	for _, answer := range []string{"", "3000", "30060201010201", "3006020101020101ff", "3006020100020101", "3026022100" + strings.Repeat("ff", 32) + "020101ff"} {
		raw, err := hex.DecodeString(answer)
		if err != nil {
			t.Fatal(err)
		}
		bad, err := agent.NewPrivateKey(remote{signer, append([]byte{}, raw...)})
		if err != nil {
			t.Fatal(err)
		}
		if sig, err := bad.Sign([]byte("m")); err == nil {
			t.Errorf("%q became the signature %x", answer, sig)
		}
	}
}
