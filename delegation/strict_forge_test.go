package delegation_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"github.com/kavach-dev/kavach/agent"
	"github.com/kavach-dev/kavach/delegation"
	"github.com/kavach-dev/kavach/jcs"
)

const (
	aatIssuer = "https://auth.example.com"
	aatPoint  = "https://tools.example.com"
	aatNow    = 1704067500
)

// aatToken is a token or proof about to be signed. What raw holds is signed
// instead of claims.
type aatToken struct {
	key    agent.PrivateKey
	header object
	claims object
	raw    string
	rawHdr string
	// after is what comes of the signed text.
	after func(string) string
}

func (x aatToken) sign(t testing.TB) string {
	t.Helper()
	marshal := func(value object) string {
		text, err := jcs.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	header, payload := x.rawHdr, x.raw
	if header == "" {
		header = marshal(x.header)
	}
	if payload == "" {
		payload = marshal(x.claims)
	}
	input := jcs.Base64URL([]byte(header)) + "." + jcs.Base64URL([]byte(payload))
	sig, err := x.key.Sign([]byte(input))
	if err != nil {
		t.Fatal(err)
	}
	text := input + "." + jcs.Base64URL(sig)
	if x.after != nil {
		text = x.after(text)
	}
	return text
}

func lidOf(token string) string {
	for i := len(token) - 1; i >= 0; i-- {
		if token[i] == '.' {
			sum := sha256.Sum256([]byte(token[:i]))
			return jcs.Base64URL(sum[:])
		}
	}
	return ""
}

// aatCase is a chain that is permitted, until it is changed: a root, links, a
// proof and a call. holders[i] is bound by token i; the root is signed by
// anchor.
type aatCase struct {
	t        testing.TB
	verifier delegation.AATStrict
	anchor   agent.PrivateKey
	holders  []agent.PrivateKey
	// edit changes a token before it is signed, 0 is the root; proof changes
	// the proof.
	edit  map[int]func(*aatToken)
	proof func(*aatToken)
	// present changes what is presented.
	present func(*delegation.AATPresentation)
	tool    string
	args    string
	tools   any
	now     int64
}

func es256Key(t testing.TB) agent.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := agent.NewPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return private
}

func ed25519Key(t testing.TB) agent.PrivateKey {
	t.Helper()
	key, err := agent.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newAAT makes a case of as many links below the root.
func newAAT(t testing.TB, links int) *aatCase {
	t.Helper()
	c := &aatCase{
		t: t, anchor: ed25519Key(t), edit: map[int]func(*aatToken){}, tool: "read", args: `{"path":"/a"}`, now: aatNow,
		tools: object{"read": object{"path": object{"constraint_type": "wildcard"}}},
	}
	for range links + 1 {
		c.holders = append(c.holders, ed25519Key(t))
	}
	c.verifier = delegation.AATStrict{
		Anchors: []delegation.AATAnchor{{Issuer: aatIssuer, Key: c.anchor.Public()}}, Audience: aatPoint,
	}
	return c
}

func authority(tools any) []any {
	return []any{object{"type": "attenuating_agent_token", "tools": tools}}
}

// build signs everything.
func (c *aatCase) build() delegation.AATPresentation {
	c.t.Helper()
	p := delegation.AATPresentation{Tool: c.tool}
	args, err := jcs.Parse([]byte(c.args), jcs.Limits{})
	if err != nil {
		c.t.Fatal(err)
	}
	p.Arguments = args
	signer, jti := c.anchor, ""
	for i, holder := range c.holders {
		jti = "jti-" + string(rune('0'+i))
		x := aatToken{key: signer, header: object{"alg": signer.Alg(), "typ": "aat+jwt"}, claims: object{
			"jti": jti, "iss": aatIssuer, "iat": aatNow - 60, "exp": aatNow + 3600, "del_depth": i, "del_max_depth": 3,
			"cnf": object{"jwk": holder.Public().JWK()}, "authorization_details": authority(c.tools),
		}}
		if i > 0 {
			x.claims["iss"] = signer.Public().ThumbprintURI()
			x.claims["par_hash"] = lidOf(p.Chain[i-1])
		}
		if edit := c.edit[i]; edit != nil {
			edit(&x)
		}
		p.Chain = append(p.Chain, x.sign(c.t))
		signer = holder
	}
	x := aatToken{key: signer, header: object{"alg": signer.Alg(), "typ": "aat-pop+jwt"}, claims: object{
		"jti": "proof", "iat": aatNow, "aat_id": jti, "aat_hash": lidOf(p.Chain[len(p.Chain)-1]), "aat_tool": c.tool,
		"aat_aud": aatPoint, "hta": args,
	}}
	if c.proof != nil {
		c.proof(&x)
	}
	p.Proof = x.sign(c.t)
	if c.present != nil {
		c.present(&p)
	}
	return p
}

// verify returns the step that refuses, "" for a permit.
func (c *aatCase) verify() string {
	c.t.Helper()
	permit, err := c.verifier.Verify(c.build(), time.Unix(c.now, 0))
	if err == nil {
		if permit == nil || len(permit.Links) != len(c.holders) || permit.Leaf().JKT != c.holders[len(c.holders)-1].Public().Thumbprint() ||
			permit.Proof.JTI == "" {
			c.t.Errorf("a permit of %+v", permit)
		}
		return ""
	}
	var refused *delegation.StrictRefusal
	if !errors.As(err, &refused) || !errors.Is(err, delegation.ErrRefused) || permit != nil || refused.Step == "" {
		c.t.Fatalf("%v, %v", permit, err)
	}
	return refused.Step
}

// setClaim changes a claim of a token; nil takes it away.
func setClaim(name string, value any) func(*aatToken) {
	return func(x *aatToken) {
		if x.claims[name] = value; value == nil {
			delete(x.claims, name)
		}
	}
}

func setHeader(name string, value any) func(*aatToken) {
	return func(x *aatToken) {
		if x.header[name] = value; value == nil {
			delete(x.header, name)
		}
	}
}

// jsonText is JSON as it stands, for what jcs.Marshal would not write.
func jsonText(text string) jcs.Value {
	v, err := jcs.Parse([]byte(text), jcs.Limits{})
	if err != nil {
		panic(err)
	}
	return v
}

// respell signs the claims with one piece of their text replaced.
func respell(t testing.TB, old, with string) func(*aatToken) {
	return func(x *aatToken) {
		text, err := jcs.Marshal(x.claims)
		if err != nil {
			t.Fatal(err)
		}
		if x.raw = replaceOnce(string(text), old, with); x.raw == string(text) {
			t.Fatalf("%s does not hold %s", text, old)
		}
	}
}

func replaceOnce(text, old, with string) string {
	for i := 0; i+len(old) <= len(text); i++ {
		if text[i:i+len(old)] == old {
			return text[:i] + with + text[i+len(old):]
		}
	}
	return text
}

// strictError is the error of a verdict.
func strictError(_ *delegation.AATPermit, err error) error { return err }
